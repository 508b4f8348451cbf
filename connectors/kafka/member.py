"""One process of a consumer group, with transactional output: what the plain runtime runs on.

A transaction holds outputs and input offsets, so both happen or neither does. The broker refuses it
where the group has given the partitions to another member (KIP-447), so a process that was thought
dead and comes back cannot write. What happened to a transaction whose end was not heard is found
out, not guessed: each carries a token in the metadata of its offsets.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.errors import KafkaError
from kafka.structs import MemberState

from connectors.kafka.client import KafkaSettings, group_consumer
from connectors.kafka.columns import messages_of
from connectors.kafka.log import KafkaLog
from connectors.kafka.transactions import HOPELESS, Transactions, back_off, refusal
from streamad.errors import (
    ConfigError,
    MembershipError,
    SourceUnavailableError,
    StreamadError,
)
from streamad.ports import (
    Fault,
    Messages,
    NullTelemetry,
    Outgoing,
    Owner,
    Progress,
    Source,
    Telemetry,
    no_fault,
)

logger = logging.getLogger(__name__)

FENCED_S = 3.0
"""A member of the group without heartbeats for so long is none: another one has its name."""
REFUSED_S = 15.0
"""A client whose every commit is refused for so long, as of no member, joins the group again."""
MAX_DAMAGED = 10
"""A batch whose checksum is wrong is fetched so often."""

_LOST_MEMBERSHIP = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)


class KafkaMember:
    """A member of a group and its producer.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach the cluster.
    group, member : str
        The consumer group, and the stable name of this process in it.
    topics : Sequence[str]
        The input.
    together : bool
        Whether partitions of equal number, of all topics, come to one member.
    stage : str
        What the member works on (detect, alert, rekey), for its metrics.
    together : bool
        Partitions of equal number go to the same member, whatever topic they are of.
    timeout_ms : int
        How long the broker keeps a transaction nobody ends; readers wait as long.
    """

    def __init__(  # noqa: PLR0913 - what differs between members, all by keyword
        self,
        settings: KafkaSettings,
        *,
        group: str,
        member: str,
        topics: Sequence[str],
        stage: str,
        max_poll_records: int = 20_000,
        together: bool = False,
        timeout_ms: int = 10_000,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        self._member = member
        self._telemetry = telemetry or NullTelemetry()
        self._topics = list(topics)
        self._stage, self._in_hand = stage, False
        self.owner: Owner | None = None
        self.log = KafkaLog(settings, group=group)
        self._new: dict[Source, None] = {}
        self._failure: BaseException | None = None
        self._membership: str | None = None
        self._quiet_since_s: float | None = None
        self._refused_since_s: float | None = None
        self._n_damaged = 0
        self._life, self._number = uuid.uuid4().hex[:8], 0
        try:
            self._output = Transactions(
                settings,
                transactional_id=f"{group}-{member}",
                timeout_ms=timeout_ms,
                telemetry=self._telemetry,
                fault=fault,
            )
        except BaseException:
            self.log.close()
            raise
        self._consumer = group_consumer(
            settings,
            group=group,
            member=member,
            max_poll_records=max_poll_records,
            together=together,
        )
        self._consumer.subscribe(topics=self._topics, listener=_Listener(self))

    # ------------------------------------------------------------------ input

    def poll(self, timeout_ms: int) -> list[Messages]:
        """Return new messages of partitions that were placed."""
        self._finish_joining()
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._take(error.args[0])
            return []
        except kafka_errors.FencedInstanceIdError as error:
            raise self._doubled() from error
        except HOPELESS as error:
            raise refusal(error) from error
        except KafkaError as error:
            self._raise_failure()
            self._give_up_on_damage(error)
            logger.warning("poll failed and is tried again: %s", error)
            self._telemetry.count("delivery_broker_retries_total", operation="poll")
            time.sleep(0.2 + 0.3 * random.random())  # noqa: S311 - jitter, no secret
            return []
        self._n_damaged = 0
        self._raise_failure()
        self._end_if_fenced()
        if self._came_back():
            return []
        if polled:
            self._say_uncommitted(at_hand=True)
        return [messages_of(Source(*part), records) for part, records in polled.items()]

    def _finish_joining(self) -> None:
        """Have the client take in what the group gave it while no poll was waiting.

        A poll that ends in the middle of a join leaves the join at work. Where only a topic's
        partitions had changed, the client forgets meanwhile why it joined, and would never look at
        what came of it: the group counts on a member that knows nothing of its partitions.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the client offers no way
        if coordinator._join_task is not None and not coordinator.need_rejoin():  # noqa: SLF001
            coordinator.request_rejoin()

    def _say_uncommitted(self, *, at_hand: bool) -> None:
        if at_hand != self._in_hand:
            self._in_hand = at_hand
            since_s = time.time() if at_hand else 0.0
            self._telemetry.gauge(
                "delivery_uncommitted_since_timestamp_seconds", since_s, stage=self._stage
            )

    def _came_back(self) -> bool:
        """Say whether the group threw us out and took us in again without the client saying so.

        A client that was frozen while it was joining joins on in the background, as somebody new,
        and reports no partition as lost: others have worked on them since. Only the id of the
        membership tells.
        """
        now = self._consumer.group_metadata()
        if now.generation_id < 0 or now.state != MemberState.STABLE:
            return False
        before, self._membership = self._membership, now.member_id
        if before in (None, now.member_id):
            return False
        parts = self._consumer.assignment()
        self._tell("lose", parts)
        self._take(parts)
        self._raise_failure()
        return True

    def _join_again_if_unknown(self) -> None:
        """Leave a membership that only the client believes in.

        Heartbeats find that out, as a rule. Where they do not, each commit would be refused, and
        the same messages read again, without end. The next poll joins as somebody new.
        """
        now_s = time.monotonic()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        if now_s - self._refused_since_s < REFUSED_S:
            return
        self._refused_since_s = None
        logger.warning("no commit was taken for %.0f s: joining the group again", REFUSED_S)
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the client offers no way
        coordinator._join_task = None  # noqa: SLF001 - it may be the one that never ends
        coordinator.reset_generation()

    def _give_up_on_damage(self, error: KafkaError) -> None:
        """Raise StreamadError where a batch fails its checksum again and again.

        No producer can bring that about: it is the broker's disk or the way from there.
        """
        if not isinstance(error, kafka_errors.CorruptRecordError):
            return
        self._n_damaged += 1
        if self._n_damaged >= MAX_DAMAGED:
            msg = (
                f"{error}; read {MAX_DAMAGED} times. Repair the partition (another replica?), or "
                "stop the job and move the group past it: kafka-consumer-groups --reset-offsets"
            )
            raise StreamadError(msg) from error

    def _end_if_fenced(self) -> None:
        """Raise ConfigError where another process of our name has our place in the group.

        The client then stops its heartbeats and says nothing. A spare that has no partitions makes
        no request that would fail, and would wait for partitions it can never be given.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the only place that tells
        member = self._consumer.group_metadata()
        quiet = member.generation_id >= 0 and not coordinator._heartbeat_enabled  # noqa: SLF001
        if member.state != MemberState.STABLE or not quiet:
            self._quiet_since_s = None
        elif self._quiet_since_s is None:
            self._quiet_since_s = time.monotonic()
        elif time.monotonic() - self._quiet_since_s > FENCED_S:
            raise self._doubled()

    def assigned(self) -> list[Source]:
        """Return the partitions that came to this member and are to be placed."""
        new, self._new = list(self._new), {}
        return new

    def committed(self, source: Source) -> Progress | None:
        """Return how far the group has worked a partition off; waits for open transactions."""
        return self.log.progress(source)

    def place(self, source: Source, offset: int) -> None:
        """Read a partition from here on; one that went away in the meantime is left alone."""
        part = TopicPartition(*source)
        if part in self._consumer.assignment():
            self._consumer.seek(part, offset)
            self._consumer.resume(part)

    def pause(self, source: Source) -> None:
        """Bring no message of a partition until it is placed again."""
        part = TopicPartition(*source)
        if part in self._consumer.assignment():
            self._consumer.pause(part)

    def end_reached(self, source: Source) -> int | None:
        """Ask the broker for the end of a partition of which everything was polled."""
        part = TopicPartition(*source)
        try:
            after = int(self._consumer.end_offsets([part], timeout_ms=1_000)[part])
            position = self._consumer.position(part, timeout_ms=1_000)
        except (KafkaError, KeyError):
            return None
        return after if position is not None and position >= after else None

    def joined(self) -> bool:
        """Say whether the group counts this member in, and all that it gave is asked for.

        Partitions that are given stand in `assigned` first: until then they are not at work.
        """
        return bool(self._consumer.group_metadata().generation_id >= 0) and not self._new

    def lag(self, source: Source) -> int | None:
        """Return how many messages are left, as of the last fetch."""
        part = TopicPartition(*source)
        if part not in self._consumer.assignment():
            return None
        high = self._consumer.highwater(part)
        return None if high is None else max(0, high - self._consumer.position(part))

    # ------------------------------------------------------------------ output

    def commit(
        self, records: Sequence[Outgoing], progress: Mapping[Source, Progress]
    ) -> list[int] | None:
        """Write records and progress, all or nothing; returns the records' offsets if known.

        Tries again until it is known to be done. Raises MembershipError where the group has moved
        on: nothing was written.
        """
        try:
            written = self._commit(records, progress)
        except MembershipError:
            self._join_again_if_unknown()
            raise
        self._refused_since_s = None
        self._say_uncommitted(at_hand=False)
        return written

    def _commit(
        self, records: Sequence[Outgoing], progress: Mapping[Source, Progress]
    ) -> list[int] | None:
        self._number += 1
        token = f"{self._life}-{self._number}"
        offsets = {
            TopicPartition(*source): OffsetAndMetadata(done.offset, f"{token};{done.note}", -1)
            for source, done in progress.items()
        }
        for attempt in range(1_000_000):
            try:
                return self._transact(records, offsets)
            except KafkaError as error:
                self._telemetry.count("delivery_aborts_total")
                self._refuse(error)
                logger.warning("the transaction failed: %r", error)
                self._output.renew()
                if isinstance(error, _LOST_MEMBERSHIP):
                    msg = f"the group has moved on without this member: {error}"
                    raise MembershipError(msg) from error
                if self._was_committed(offsets, token):
                    return None
            back_off(attempt)
        raise AssertionError

    def _transact(
        self, records: Sequence[Outgoing], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> list[int]:
        membership = self._consumer.group_metadata()
        if membership.member_id != self._membership:
            # The broker asks whether we are a member, not since when: see `_came_back`.
            msg = "the group has moved on without this member, which is joining again"
            raise MembershipError(msg)
        return self._output.write(records, offsets, membership)

    def _refuse(self, error: KafkaError) -> None:
        """Raise where trying again cannot help."""
        if isinstance(error, kafka_errors.FencedInstanceIdError):
            raise self._doubled() from error
        cause = next((arg for arg in (error, *error.args) if isinstance(arg, HOPELESS)), None)
        if cause is not None:
            raise refusal(cause) from error

    def _was_committed(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], token: str
    ) -> bool:
        for attempt in range(1_000_000):
            try:
                found = [self.log.committed(Source(*part)) for part in offsets]
            except SourceUnavailableError as error:
                logger.warning("asking for committed offsets failed: %s", error)
                self._telemetry.count("delivery_broker_retries_total", operation="offsets")
                back_off(attempt)
                continue
            return bool(found) and all(
                one is not None and one[1].partition(";")[0] == token for one in found
            )
        raise AssertionError

    def close(self) -> None:
        """Stop; a static member keeps its partitions until the session ends, for its next life."""
        self.owner = None
        self._output.close()
        for client in (self._consumer, self.log):
            with contextlib.suppress(KafkaError, RuntimeError):
                client.close()

    # ------------------------------------------------------------------ the group

    def _take(self, parts: Any) -> None:
        """Hold partitions still until they are placed."""
        for part in parts:
            self._consumer.pause(part)
            # Any position: without one the client would look for a committed offset of its own.
            self._consumer.seek(part, 0)
            self._new[Source(*part)] = None

    def _tell(self, verb: str, parts: Any) -> None:
        """Call the owner from the client's thread, where nothing must be raised."""
        sources = sorted(Source(*part) for part in parts)
        for source in sources:
            self._new.pop(source, None)
        if verb == "lose":
            # Dropped: what other partitions have in hand is said again with their next messages.
            self._say_uncommitted(at_hand=False)
        if self.owner is None:
            return
        self._telemetry.count("delivery_rebalances_total")
        try:
            getattr(self.owner, verb)(sources)
        except BaseException as error:  # noqa: BLE001 - raised again by poll, in the loop's thread
            self._failure = error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _doubled(self) -> StreamadError:
        msg = (
            f"another process runs as member {self._member!r} of this pipeline; give each its own "
            "STREAMAD_MEMBER"
        )
        return ConfigError(msg)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called in the client's thread while the loop waits in ``poll``; the producer may be used."""

    def __init__(self, member: KafkaMember) -> None:
        self._to = member

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._to._take(assigned)  # noqa: SLF001 - one thing in two classes, as the client wants it

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._to._tell("give_up", revoked)  # noqa: SLF001

    def on_partitions_lost(self, lost: Any) -> None:
        self._to._membership = None  # noqa: SLF001
        self._to._tell("lose", lost)  # noqa: SLF001
