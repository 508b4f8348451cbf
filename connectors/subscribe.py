"""Alerts, incidents and digests as typed records, for programs that act on them.

>>> from connectors.kafka.client import KafkaSettings
>>> from connectors.subscribe import subscribe
>>> def act(settings: KafkaSettings) -> None:
...     for got in subscribe(settings, ["streamad.shop.incidents"], group="shop-bot"):
...         if got.record.paged_ms is not None:
...             print(got.record.summary)

Only committed records come. With a ``group``, what one poll returned counts as read at the next: a
program that dies gets its last records again, and members of the group share the partitions.
Without one, all partitions are read from ``start``; `Subscription.positions` is where to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from connectors.closes import Closes
from connectors.kafka.client import KafkaSettings, follower
from connectors.kafka.transactions import HOPELESS, refusal
from connectors.records.cloudevents import Record, decode
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.incidents import PageRequest
from streamad.ports import Source
from streamad.records import Rejected

POLL_S: Final = 0.5

Start = Literal["latest", "earliest"] | int | Mapping[Source, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One record, and where it lies."""

    record: Record
    source: Source
    offset: int
    written_ms: int


class Subscription(Closes):
    """Topics of streamad, read committed; not for two threads at once.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach the cluster.
    topics : Sequence[str]
        Topics of alerts, incidents, findings or feedback.
    group : str | None
        A consumer group that keeps the position; members of it share the partitions.
    start : "latest" | "earliest" | int | Mapping[Source, int]
        Where to begin: a time in ms, or offsets. With a group only where it has no position yet,
        and then one of the two words.

    Attributes
    ----------
    n_unreadable : int
        Records that were passed over, since they are none of streamad.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        *,
        group: str | None = None,
        start: Start = "latest",
    ) -> None:
        if not topics:
            msg = "expected the names of topics to subscribe to, got none"
            raise ConfigError(msg)
        if group is not None and start not in ("latest", "earliest"):
            msg = f"a group begins at 'latest' or 'earliest', got {start!r:.60}; or give no group"
            raise ConfigError(msg)
        self.n_unreadable = 0
        self._group, self._pending = group, dict[TopicPartition, int]()
        reset = start if isinstance(start, str) else "earliest"
        self._consumer = follower(settings, group=group, reset=reset)
        try:
            self._begin(list(topics), start)
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float = POLL_S) -> list[Received]:
        """Return what came, in the order of each partition; what it returned before is committed.

        Raises SourceUnavailableError where the broker does not answer; calling again is fine.
        """
        self._commit()
        found = []
        polled = self._call(self._consumer.poll, timeout_ms=int(timeout_s * 1000))
        for part, records in polled.items():
            for one in records:
                self._pending[part] = one.offset + 1
                read = decode(one.value, one.headers)
                if isinstance(read, PageRequest):
                    continue  # A word to one pager, about an incident that came before.
                if isinstance(read, Rejected):
                    self.n_unreadable += 1
                    continue
                source = Source(part.topic, part.partition)
                found.append(
                    Received(
                        record=read, source=source, offset=one.offset, written_ms=one.timestamp
                    )
                )
        return found

    @property
    def positions(self) -> dict[Source, int]:
        """Return where each partition is read next, to be given as ``start``."""
        parts = self._consumer.assignment()
        return {Source(*part): int(self._call(self._consumer.position, part)) for part in parts}

    def at_end(self) -> bool:
        """Say whether everything that was there is read."""
        parts = list(self._consumer.assignment())
        ends = self._call(self._consumer.end_offsets, parts)
        return all(self._call(self._consumer.position, part) >= ends[part] for part in parts)

    def close(self) -> None:
        """Leave. What `poll` returned last is not committed: it comes again."""
        self._consumer.close()

    def _begin(self, topics: list[str], start: Start) -> None:
        if self._group is not None:
            self._consumer.subscribe(topics=topics)
            return
        parts = [part for topic in topics for part in self._parts_of(topic)]
        self._consumer.assign(parts)
        if isinstance(start, Mapping):
            for source, offset in start.items():
                if TopicPartition(*source) in parts:
                    self._consumer.seek(TopicPartition(*source), offset)
        elif isinstance(start, int):
            found = self._call(self._consumer.offsets_for_times, dict.fromkeys(parts, start))
            ends = self._call(self._consumer.end_offsets, parts)
            for part in parts:
                at = found.get(part)
                self._consumer.seek(part, ends[part] if at is None else at.offset)
        elif start == "latest":
            self._call(self._consumer.seek_to_end, *parts)
        else:
            self._call(self._consumer.seek_to_beginning, *parts)

    def _parts_of(self, topic: str) -> list[TopicPartition]:
        numbers = self._call(self._consumer.partitions_for_topic, topic)
        if not numbers:
            msg = f"there is no topic {topic} on this cluster; 'streamad run' makes it at its start"
            raise ConfigError(msg)
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    def _commit(self) -> None:
        pending, self._pending = self._pending, {}
        if self._group is not None and pending:
            self._commit_at(pending)

    def _commit_at(self, offsets: Mapping[TopicPartition, int]) -> None:
        given = {part: OffsetAndMetadata(offset, "", -1) for part, offset in offsets.items()}
        self._call(self._consumer.commit, given)

    @staticmethod
    def _call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except HOPELESS as error:
            raise refusal(error) from error
        except KafkaError as error:
            msg = f"Kafka cannot be read now: {error!r}"
            raise SourceUnavailableError(msg) from error


def subscribe(
    settings: KafkaSettings,
    topics: Sequence[str],
    *,
    group: str | None = None,
    start: Start = "latest",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Received]:
    """Yield records until ``stop``; see `Subscription` for the other parameters.

    stop : asked after each poll, twice a second where nothing comes
    """
    with Subscription(settings, topics, group=group, start=start) as subscription:
        while not stop():
            yield from subscription.poll()
