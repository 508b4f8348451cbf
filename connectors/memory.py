"""A source and a sink in memory: what the embedded runtime and tests use, with Kafka's manners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRecord:
    """One record of a partition; ``broker_ms`` -1 means that its time is unknown."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    broker_ms: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBatch:
    """What one poll of one partition gives.

    offsets, broker_ms : int64 ``(n,)``; records hold the payloads in the same order
    """

    topic: str
    partition: int
    records: tuple[MemoryRecord, ...]
    offsets: NDArray[np.int64]
    broker_ms: NDArray[np.int64]

    @property
    def payloads(self) -> list[bytes | None]:
        """Return the values, as a codec takes them."""
        return [record.value for record in self.records]


@dataclass(slots=True)
class MemorySource:
    """Partitions of one topic that are read in turn and commit like Kafka's.

    What was polled and not committed comes again after ``restart``.
    """

    topic: str = "memory"
    partitions: list[list[MemoryRecord]] = field(default_factory=lambda: [[]])
    committed: dict[int, int] = field(default_factory=dict)
    _position: dict[int, int] = field(default_factory=dict)
    _turn: int = 0
    _closed: bool = False

    def put(
        self, values: Iterable[bytes | None], *, partition: int = 0, broker_ms: int = -1
    ) -> None:
        """Append records to a partition, making it where it is not there."""
        while len(self.partitions) <= partition:
            self.partitions.append([])
        self.partitions[partition].extend(
            MemoryRecord(value=value, broker_ms=broker_ms) for value in values
        )

    def poll(self, *, max_records: int = 500, timeout_s: float = 0.0) -> MemoryBatch | None:
        """Return the next records of one partition, None where all are read. It never waits."""
        del timeout_s
        if self._closed:
            return None
        for step in range(len(self.partitions)):
            partition = (self._turn + step) % len(self.partitions)
            start = self._position.get(partition, self.committed.get(partition, 0))
            records = tuple(self.partitions[partition][start : start + max_records])
            if records:
                self._turn = partition + 1
                self._position[partition] = start + len(records)
                return MemoryBatch(
                    topic=self.topic,
                    partition=partition,
                    records=records,
                    offsets=np.arange(start, start + len(records), dtype=np.int64),
                    broker_ms=np.array([record.broker_ms for record in records], np.int64),
                )
        return None

    def commit(self, offsets: dict[int, int] | None = None) -> None:
        """Remember the next offset of each partition, of all that was polled by default."""
        self.committed.update(self._position if offsets is None else offsets)

    def seek(self, partition: int, offset: int) -> None:
        """Read a partition from ``offset`` on."""
        self._position[partition] = offset

    def restart(self) -> None:
        """Come back as after a crash: read on from what was committed."""
        self._position.clear()
        self._turn, self._closed = 0, False

    def close(self) -> None:
        """End reading; closing twice is fine."""
        self._closed = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One record a sink was given."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


@dataclass(slots=True)
class MemorySink:
    """Keeps what was flushed; what was written and not flushed is lost by ``crash``.

    ``capacity`` bounds what is kept: the oldest go first, and ``n_dropped`` counts them.
    """

    capacity: int = 1_000_000
    records: list[Written] = field(default_factory=list)
    n_dropped: int = 0
    fail_next_flush: Exception | None = None
    _pending: list[Written] = field(default_factory=list)

    def write(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Take a record; it is durable after the next flush."""
        self._pending.append(Written(topic=topic, value=value, key=key, headers=tuple(headers)))

    def flush(self) -> None:
        """Make what was written durable; a flush that fails loses nothing and may be repeated."""
        if self.fail_next_flush is not None:
            error, self.fail_next_flush = self.fail_next_flush, None
            raise error
        self.records.extend(self._pending)
        self._pending.clear()
        excess = max(len(self.records) - self.capacity, 0)
        self.n_dropped += excess
        del self.records[:excess]

    def crash(self) -> None:
        """Lose what was not flushed."""
        self._pending.clear()

    def of(self, topic: str) -> list[Written]:
        """Return what was flushed to a topic, in order."""
        return [record for record in self.records if record.topic == topic]

    def compacted(self, topic: str) -> dict[bytes, Written]:
        """Return the last record of each key, as compaction would leave them."""
        latest: dict[bytes, Written] = {}
        for record in self.of(topic):
            if record.key is None:
                continue
            latest.pop(record.key, None)
            if record.value is not None:
                latest[record.key] = replace(record)
        return latest

    def close(self) -> None:
        """Flush; closing twice is fine."""
        self.flush()
