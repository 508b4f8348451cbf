"""Topics in memory with Kafka's manners: what tests and the embedded runtime read and write.

Offsets, committed progress and transactions behave as the real ones do: a commit writes all of its
records and its progress or nothing, and what was read and not committed is read again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamad.errors import MembershipError
from streamad.ports import Headers, Messages, Outgoing, Progress, Source

READ_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a partition; ``broker_ms`` -1 means that its time is unknown."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    broker_ms: int = -1


class MemoryNotes:
    """Notes on partitions: see `streamad.ports.Notes`; ``kept`` is what there is."""

    def __init__(self) -> None:
        self.kept: dict[Source, str] = {}

    def read(self, source: Source) -> str:
        """Return the note on a partition; empty where there is none."""
        return self.kept.get(source, "")

    def write(self, source: Source, note: str) -> None:
        """Replace it; an empty one removes it."""
        if note:
            self.kept[source] = note
        else:
            self.kept.pop(source, None)


@dataclass(slots=True)
class MemoryTopics:
    """A broker of one process, and the log of its topics.

    partitions : how many a topic gets that is written to before it was made; groups : what each
    group has committed. ``capacity`` bounds a partition: the oldest records go, as by retention.
    """

    partitions: int = 1
    capacity: int = 1_000_000
    groups: dict[str, dict[Source, Progress]] = field(default_factory=dict)
    _records: dict[Source, list[Record]] = field(default_factory=dict)
    _first: dict[Source, int] = field(default_factory=dict)

    def make(self, topic: str, partitions: int | None = None) -> None:
        """Make a topic; one that is there stays as it is."""
        for partition in range(self.partitions if partitions is None else partitions):
            self._records.setdefault(Source(topic, partition), [])

    def remove(self, topic: str) -> None:
        """Delete a topic; what groups have committed on it stays, as on a broker for a while."""
        for source in [source for source in self._records if source.topic == topic]:
            del self._records[source]
            self._first.pop(source, None)

    def put(self, source: Source, values: Iterable[bytes | None], *, broker_ms: int = -1) -> None:
        """Append payloads to one partition, as a producer outside of the pipeline would."""
        self._append(source, [Record(value=value, broker_ms=broker_ms) for value in values])

    def _append(self, source: Source, records: Sequence[Record]) -> int:
        kept = self._records.setdefault(source, [])
        first = self._first.setdefault(source, 0)
        at = first + len(kept)
        kept.extend(records)
        excess = max(len(kept) - self.capacity, 0)
        del kept[:excess]
        self._first[source] = first + excess
        return at

    def write(self, record: Outgoing) -> int:
        """Append one record; return its offset. Without a partition, the key decides."""
        if not any(source.topic == record.topic for source in self._records):
            self.make(record.topic)
        partition = record.partition
        if partition is None:
            number = sum(source.topic == record.topic for source in self._records)
            partition = zlib.crc32(record.key or b"") % number
        row = Record(value=record.value, key=record.key, headers=record.headers)
        return self._append(Source(record.topic, partition), [row])

    def bounds(self, topic: str) -> Mapping[Source, tuple[int, int]]:
        """Return the first and the next offset of each partition."""
        return {
            source: (first := self._first.get(source, 0), first + len(records))
            for source, records in sorted(self._records.items())
            if source.topic == topic
        }

    def offset_at(self, source: Source, time_ms: int) -> int:
        """Return the first offset written at or after a time, the end where there is none."""
        first = self._first.get(source, 0)
        records = self._records.get(source, [])
        later = (at for at, record in enumerate(records) if record.broker_ms >= time_ms)
        return first + next(later, len(records))

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        """Read records from ``start`` until ``stop``."""
        for at in range(start, stop, READ_AT_ONCE):
            yield self.messages(source, at, min(at + READ_AT_ONCE, stop))

    def messages(self, source: Source, start: int, stop: int) -> Messages:
        """Return some records of a partition as a poll would."""
        first = self._first.get(source, 0)
        records = self._records.get(source, [])[max(start - first, 0) : max(stop - first, 0)]
        begin = max(start, first)
        return Messages(
            source=source,
            payloads=[record.value for record in records],
            offsets=np.arange(begin, begin + len(records), dtype=np.int64),
            broker_ms=np.array([record.broker_ms for record in records], np.int64),
            raw=records,
        )

    def records(self, topic: str) -> list[Record]:
        """Return everything a topic holds, partition by partition."""
        sources = sorted(source for source in self._records if source.topic == topic)
        return [record for source in sources for record in self._records[source]]

    def compacted(self, topic: str) -> dict[bytes, Record]:
        """Return the last record of each key, as compaction leaves them: tombstones are gone."""
        latest = {record.key: record for record in self.records(topic) if record.key is not None}
        return {key: record for key, record in latest.items() if record.value is not None}


@dataclass(slots=True)
class MemoryMember:
    """The only member of a group: it gets every partition of its topics at once.

    A new member of the same group goes on where the last one committed.
    """

    log: MemoryTopics
    topics: Sequence[str]
    group: str = "memory"
    max_records: int = READ_AT_ONCE
    _placed: dict[Source, int] = field(default_factory=dict)
    _assigned: set[Source] = field(default_factory=set)
    _fenced: bool = False
    _closed: bool = False

    def poll(self, timeout_ms: int) -> list[Messages]:
        """Return new messages of placed partitions; it never waits."""
        del timeout_ms
        polled = []
        for source, start in self._placed.items():
            messages = self.log.messages(source, start, start + self.max_records)
            if len(messages) and not self._closed:
                self._placed[source] = int(messages.offsets[-1]) + 1
                polled.append(messages)
        return polled

    def assigned(self) -> list[Source]:
        """Return the partitions that came since the last call and are to be placed."""
        every = [source for topic in self.topics for source in self.log.bounds(topic)]
        new = [source for source in every if source not in self._assigned]
        self._assigned.update(new)
        return new

    def committed(self, source: Source) -> Progress | None:
        """Return how far the group has worked a partition off."""
        return self.log.groups.get(self.group, {}).get(source)

    def place(self, source: Source, offset: int) -> None:
        """Read a partition from here on."""
        self._placed[source] = offset

    def pause(self, source: Source) -> None:
        """Bring no message of a partition until it is placed again."""
        self._placed.pop(source, None)

    def end_reached(self, source: Source) -> int | None:
        """Return the end of a partition of which everything was polled, else None."""
        after = self.log.bounds(source.topic)[source][1]
        return after if self._placed.get(source, -1) >= after else None

    def commit(
        self, records: Sequence[Outgoing], progress: Mapping[Source, Progress]
    ) -> list[int] | None:
        """Write records and progress; raises MembershipError where the member was fenced."""
        if self._fenced or self._closed:
            msg = f"another member of the group {self.group!r} has taken over; nothing was written"
            raise MembershipError(msg)
        self.log.groups.setdefault(self.group, {}).update(progress)
        return [self.log.write(record) for record in records]

    def fence(self) -> None:
        """Let the group move on without this member, as after a long pause."""
        self._fenced = True

    def close(self) -> None:
        """Leave; closing twice is fine."""
        self._closed = True
