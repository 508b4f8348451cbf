"""One process of a consumer group, with transactional output: what the plain runtime runs on.

A transaction holds outputs and input offsets, so both happen or neither does. The broker refuses it
where the group has given the partitions to another member (KIP-447), so a process that was thought
dead and comes back cannot write. What happened to a transaction whose end was not heard is found
out, not guessed: each carries a token in the metadata of its offsets.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import MemberState

from connectors.kafka import KafkaSettings, group_consumer, reader, transactional_producer
from streamad.errors import (
    ConfigError,
    MembershipError,
    SinkUnavailableError,
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

T = TypeVar("T")

STALL_S = 60.0
"""A read that should end and gets nothing for so long is given up."""

_LOST_MEMBERSHIP = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
_HOPELESS = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailedError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.UnsupportedVersionError,
)


def _telling(method: Callable[..., T]) -> Callable[..., T]:
    """Raise what the client raises as an error of ours, which the runtime tries again."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> T:
        try:
            return method(*args, **kwargs)
        except _HOPELESS as error:
            raise _told(error) from error
        except KafkaError as error:
            msg = f"Kafka cannot be read now: {error!r}"
            raise SourceUnavailableError(msg) from error

    return called


class KafkaLog:
    """Topics as anyone may read them: for recovery. Not for two threads at once."""

    def __init__(self, settings: KafkaSettings, *, group: str) -> None:
        self._settings, self._group = settings, group
        self._committed: KafkaConsumer | None = None
        self._offsets: KafkaConsumer | None = None

    @_telling
    def bounds(self, topic: str) -> dict[Source, tuple[int, int]]:
        """Return the first and the next offset of each partition; open transactions count."""
        if self._offsets is None:
            self._offsets = KafkaConsumer(
                **self._settings.client(),
                metrics_enabled=False,
                allow_auto_create_topics=False,
                # A partition that was just added must be seen when its turn comes.
                metadata_max_age_ms=3_000,
            )
        number = self._offsets.partitions_for_topic(topic)
        parts = [TopicPartition(topic, partition) for partition in sorted(number)]
        if not parts:
            return {}
        first = self._offsets.beginning_offsets(parts)
        after = self._offsets.end_offsets(parts)
        return {Source(*part): (first[part], after[part]) for part in parts}

    @_telling
    def offset_at(self, source: Source, time_ms: int) -> int:
        """Return the first offset written at or after a time, the end where there is none."""
        part = TopicPartition(*source)
        found = self._reader().offsets_for_times({part: time_ms})[part]
        return self.bounds(source.topic)[source][1] if found is None else int(found.offset)

    def progress(self, source: Source) -> Progress | None:
        """Return how far a pipeline's group has worked off a partition; waits as `committed`."""
        found = self.committed(source)
        if found is None:
            return None
        return Progress(offset=found[0], note=found[1].partition(";")[2])

    @_telling
    def committed(self, source: Source) -> tuple[int, str] | None:
        """Return offset and metadata the group committed; waits for open transactions."""
        found = self._reader().committed(TopicPartition(*source), metadata=True)
        if found is None or found.offset < 0:
            return None
        return int(found.offset), found.metadata or ""

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        """Read committed records from ``start`` until ``stop``, which must exist."""
        if start >= stop:
            return
        part = TopicPartition(*source)
        self._seek(part, start)
        moved, at = time.monotonic(), start
        while at < stop:
            before = at
            records, at = self._next(part)
            if at > before:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_S:
                msg = f"{source}: nothing came for {STALL_S:g} s at offset {at}, {stop} is the end"
                raise SourceUnavailableError(msg)
            while records and records[-1].offset >= stop:
                records.pop()
            if records:
                yield messages(source, records)

    @_telling
    def _seek(self, part: TopicPartition, start: int) -> None:
        self._reader().assign([part])
        self._reader().seek(part, start)

    @_telling
    def _next(self, part: TopicPartition) -> tuple[list[Any], int]:
        records = self._reader().poll(timeout_ms=200).get(part, [])
        return records, self._reader().position(part)

    def close(self) -> None:
        """Close what was opened."""
        for consumer in (self._committed, self._offsets):
            if consumer is not None:
                consumer.close()

    def _reader(self) -> KafkaConsumer:
        if self._committed is None:
            self._committed = reader(self._settings, group=self._group)
        return self._committed


def messages(source: Source, records: Sequence[Any]) -> Messages:
    """Turn a client's records into columns."""
    n = len(records)
    return Messages(
        source=source,
        payloads=[record.value for record in records],
        offsets=np.fromiter([record.offset for record in records], np.int64, n),
        broker_ms=np.fromiter([record.timestamp for record in records], np.int64, n),
        raw=records,
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
        max_poll_records: int = 20_000,
        timeout_ms: int = 10_000,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        self._settings, self._member, self._timeout_ms = settings, member, timeout_ms
        self._transactional_id = f"{group}-{member}"
        self._fault = fault
        self._telemetry = telemetry or NullTelemetry()
        self._topics = list(topics)
        self.owner: Owner | None = None
        self.log = KafkaLog(settings, group=group)
        self._new: dict[Source, None] = {}
        self._failure: BaseException | None = None
        self._membership: str | None = None
        self._life, self._number = uuid.uuid4().hex[:8], 0
        self._producer = self._new_producer()
        self._consumer = group_consumer(
            settings, group=group, member=member, max_poll_records=max_poll_records
        )
        self._consumer.subscribe(topics=self._topics, listener=_Listener(self))

    # ------------------------------------------------------------------ input

    def poll(self, timeout_ms: int) -> list[Messages]:
        """Return new messages of partitions that were placed."""
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._take(error.args[0])
            return []
        except kafka_errors.FencedInstanceIdError as error:
            raise self._doubled() from error
        except _HOPELESS as error:
            raise _told(error) from error
        except KafkaError as error:
            self._raise_failure()
            logger.warning("poll failed and is tried again: %s", error)
            self._telemetry.count("delivery_broker_retries_total", operation="poll")
            time.sleep(0.2 + 0.3 * random.random())  # noqa: S311 - jitter, no secret
            return []
        self._raise_failure()
        if self._came_back():
            return []
        return [messages(Source(*part), records) for part, records in polled.items()]

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
        """Say whether the group counts this member in, with partitions or without."""
        return bool(self._consumer.group_metadata().generation_id >= 0)

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
                if self._settle(offsets, token):
                    return None
            _back_off(attempt)
        raise AssertionError

    def _transact(
        self, records: Sequence[Outgoing], offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> list[int]:
        producer, membership = self._producer, self._consumer.group_metadata()
        if membership.member_id != self._membership:
            # The broker asks whether we are a member, not since when: see `_came_back`.
            msg = "the group has moved on without this member, which is joining again"
            raise MembershipError(msg)
        producer.begin_transaction()
        sent = [
            producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=record.partition,
            )
            for record in records
        ]
        # Every record is to be acknowledged before the offsets go along: seen with a broker killed
        # at the wrong moment, the client commits a transaction although a record of it failed.
        producer.flush()
        for future in sent:
            if not future.succeeded():
                raise future.exception or KafkaTimeoutError("a record was not acknowledged")
        producer.send_offsets_to_transaction(offsets, membership)
        self._fault("after_produce")
        producer.commit_transaction()
        return [future.value.offset for future in sent]

    def _refuse(self, error: KafkaError) -> None:
        """Raise where trying again cannot help."""
        if isinstance(error, kafka_errors.FencedInstanceIdError):
            self._abort()
            raise self._doubled() from error
        if isinstance(error, _LOST_MEMBERSHIP):
            self._abort()
            msg = f"the group has moved on without this member: {error}"
            raise MembershipError(msg) from error
        cause = next((arg for arg in (error, *error.args) if isinstance(arg, _HOPELESS)), None)
        if cause is not None:
            self._abort()
            raise _told(cause) from error

    def _settle(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], token: str) -> bool:
        """After a failure: end the transaction, and say whether it was committed after all."""
        try:
            self._producer.abort_transaction()
        except (KafkaError, AssertionError):
            self._renew()
            return self._was_committed(offsets, token)
        return False

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction()
        except KafkaError:
            self._renew()

    def _was_committed(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], token: str
    ) -> bool:
        for attempt in range(1_000_000):
            try:
                found = [self.log.committed(Source(*part)) for part in offsets]
            except SourceUnavailableError as error:
                logger.warning("asking for committed offsets failed: %s", error)
                self._telemetry.count("delivery_broker_retries_total", operation="offsets")
                _back_off(attempt)
                continue
            return bool(found) and all(
                one is not None and one[1].partition(";")[0] == token for one in found
            )
        raise AssertionError

    def _renew(self) -> None:
        """Take a new producer of the same id: the broker ends what the old one left open."""
        self._telemetry.count("delivery_broker_retries_total", operation="producer")
        with contextlib.suppress(KafkaError, ValueError, AssertionError):
            self._producer.close(timeout=0)
        self._producer = self._new_producer()

    def _new_producer(self) -> Any:
        for attempt in range(1_000_000):
            try:
                producer = transactional_producer(
                    self._settings,
                    transactional_id=self._transactional_id,
                    timeout_ms=self._timeout_ms,
                )
                producer.init_transactions()
            except _HOPELESS as error:
                raise _told(error) from error
            except KafkaError as error:
                logger.warning("the producer cannot begin: %s", error)
                self._telemetry.count("delivery_broker_retries_total", operation="producer")
                _back_off(attempt)
                continue
            return producer
        raise AssertionError

    def close(self) -> None:
        """Stop; a static member keeps its partitions until the session ends, for its next life."""
        self.owner = None
        for client in (self._producer, self._consumer, self.log):
            with contextlib.suppress(KafkaError, RuntimeError):
                if client is self._producer:
                    client.close(timeout=2)
                else:
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


def _told(error: KafkaError) -> StreamadError:
    names = error.args[0] if error.args else ""
    msg = f"Kafka refuses: {type(error).__name__} {names}; see `streamad validate --online`"
    return SinkUnavailableError(msg)


def _back_off(attempt: int) -> None:
    delay_s = min(5.0, 0.1 * 2 ** min(attempt, 6))
    time.sleep(delay_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter, no secret
