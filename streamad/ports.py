"""What the inside needs of the outside, as small Protocols; the edges bring the real thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamad.incidents import Digest, Feedback, Incident, Silence
from streamad.records import Alert, Decoded, Finding, RecordBatch, Rejected, ScoreBatch


class Telemetry(Protocol):
    """Where facts about the health of a job go; never the value or the key of a record.

    Names and labels are those of the declared table (`connectors.telemetry.METRICS`).
    """

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say what something is now."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Enter one value (seconds, bytes) into a histogram."""


class NullTelemetry:
    """Telemetry that nobody listens to: the default of everything that takes one."""

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""


class Source(NamedTuple):
    """A partition of an input: the unit that members share, snapshot and hand over."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


Headers = tuple[tuple[str, bytes], ...]


class RawRecord(Protocol):
    """What is left of a client's record once its value, offset and time are columns."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Its headers."""


@runtime_checkable
class Headed(Protocol):
    """Records of which it is known which have headers: most topics have none."""

    def headed(self) -> Sequence[int]:
        """Return the places of records with headers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Messages of one partition in offset order.

    offsets, broker_ms : int64 ``(n,)``; raw : the client's records, for those who want a key
    unreadable : offsets without a payload that the client could not read, and why
    """

    source: Source
    payloads: list[bytes | None]
    offsets: NDArray[np.int64]
    broker_ms: NDArray[np.int64]
    raw: Sequence[RawRecord]
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record to be written; ``partition`` None leaves it to the key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a partition was worked off: the next offset, and a note that travels with it."""

    offset: int
    note: str = ""


class Decoder(Protocol):
    """Messages to rows; total, as `connectors.codecs.Codec`."""

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return usable rows and rejections, both in message order."""
        ...


@runtime_checkable
class HeaderDecoder(Protocol):
    """A decoder that may need the headers of messages, where ``reads_headers`` says so."""

    @property
    def reads_headers(self) -> bool:
        """Whether what messages hold depends on their headers."""
        ...

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None = None,
    ) -> Decoded:
        """Return usable rows and rejections, both in message order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One message of the scores log: windows scored, or the time that passed in silence.

    offset : the input before it had been worked off when this was decided
    """

    offset: int
    scores: ScoreBatch | None = None
    tick_ms: int | None = None


class DetectRecords(Protocol):
    """What detect yields as records to be written, and the scores log as it is read back."""

    scores_topic: str

    def findings(self, findings: Sequence[Finding]) -> list[Outgoing]:
        """Return findings, keyed by tenant."""
        ...

    def scores(
        self,
        source: Source,
        span: tuple[int, int],
        batches: Sequence[ScoreBatch],
        *,
        artifact: str | None = None,
    ) -> list[Outgoing]:
        """Return the scores of the windows that the input ``[first, next)`` closed.

        artifact : id of the one that scored (None: that of the start)
        """
        ...

    def tick(
        self, source: Source, offset: int, now_ms: int, *, artifact: str | None = None
    ) -> Outgoing:
        """Return the note that wall-clock time passed where no input came."""
        ...

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        ...

    def late(
        self, messages: Messages, batch: RecordBatch[Any], rows: NDArray[np.int64]
    ) -> list[Outgoing]:
        """Return late rows, for whoever wants them."""
        ...

    def read_log(
        self, messages: Messages, source: Source, *, artifact: str | None = None
    ) -> Iterator[Logged]:
        """Read what `scores` and `tick` wrote of a partition; scores of this artifact alone."""
        ...


class AlertRecords(Protocol):
    """Findings as they are read, alerts and the state of open ones as they are written."""

    def findings(self, messages: Messages) -> tuple[list[tuple[Finding, int]], list[Rejected]]:
        """Return findings with the time their record was written, and what is no finding."""
        ...

    def answers(
        self, messages: Messages
    ) -> tuple[list[tuple[Feedback | Silence, int]], list[Rejected]]:
        """Return what people answered, as `findings` does."""
        ...

    def alerts(self, alerts: Sequence[Alert]) -> list[Outgoing]:
        """Return alerts, keyed by their id."""
        ...

    def incidents(self, incidents: Sequence[Incident], digests: Sequence[Digest]) -> list[Outgoing]:
        """Return incidents, keyed by their id, and digests, keyed by their group."""
        ...

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        ...

    def state(
        self, source: Source, changes: Mapping[str, Mapping[str, Any] | None], clock_ms: int
    ) -> list[Outgoing]:
        """Return what changed in the state of a partition's alerts."""
        ...

    def load(self, source: Source) -> tuple[dict[str, dict[str, Any] | None], int | None]:
        """Return all that `state` wrote, the newest of each id, and the clock."""
        ...


class Owner(Protocol):
    """Whoever works on the partitions of a member; called from within `Member.poll`."""

    def give_up(self, sources: Sequence[Source]) -> None:
        """Commit what these partitions have; another member gets them once this returns."""
        ...

    def lose(self, sources: Sequence[Source]) -> None:
        """Forget these partitions: they are another member's already."""
        ...


class Log(Protocol):
    """Topics as they can be read by anyone, outside of a group."""

    def bounds(self, topic: str) -> Mapping[Source, tuple[int, int]]:
        """Return the first and the next offset of each partition; open transactions count."""
        ...

    def offset_at(self, source: Source, time_ms: int) -> int:
        """Return the first offset written at or after a time, the end where there is none."""
        ...

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        """Read committed records from ``start`` until ``stop``, which must exist."""
        ...


class Notes(Protocol):
    """Short notes on partitions, outside of any checkpoint: no failure takes them back.

    Both raise SourceUnavailableError or SinkUnavailableError where they are out of reach.
    """

    def read(self, source: Source) -> str:
        """Return the note on a partition; empty where there is none."""
        ...

    def write(self, source: Source, note: str) -> None:
        """Replace it, durably; an empty one removes it."""
        ...


class NoNotes:
    """Notes that nobody keeps: the default of everything that takes some."""

    def read(self, source: Source) -> str:
        """Return the empty note."""
        del source
        return ""

    def write(self, source: Source, note: str) -> None:
        """Do nothing."""


class Member(Protocol):
    """One process of a group that shares the partitions of an input, with transactional output."""

    @property
    def log(self) -> Log:
        """Topics as anyone may read them."""
        ...

    def poll(self, timeout_ms: int) -> list[Messages]:
        """Return new messages of partitions that were placed."""
        ...

    def assigned(self) -> list[Source]:
        """Return the partitions that came to this member and are to be placed."""
        ...

    def committed(self, source: Source) -> Progress | None:
        """Return how far the group has worked a partition off; waits for open transactions."""
        ...

    def place(self, source: Source, offset: int) -> None:
        """Read a partition from here on."""
        ...

    def pause(self, source: Source) -> None:
        """Bring no message of a partition until it is placed again."""
        ...

    def end_reached(self, source: Source) -> int | None:
        """Ask the broker for the end of a partition of which everything was polled.

        Returns the next offset to come; None where something is left, or the broker is silent.
        """
        ...

    def commit(
        self, records: Sequence[Outgoing], progress: Mapping[Source, Progress]
    ) -> list[int] | None:
        """Write records and progress, all or nothing; returns the records' offsets if known.

        Raises MembershipError where the group has moved on: nothing was written.
        """
        ...

    def close(self) -> None:
        """Leave."""
        ...


class SnapshotStore(Protocol):
    """Where the state of shards is kept between two lives of a job."""

    def records(self, source: Source, snapshot: Snapshot) -> Iterable[Outgoing]:
        """Yield what must go into transactions for this snapshot; the last is the manifest.

        Records are made while they are read, so that they need not be in memory together.
        """
        ...

    def save(self, source: Source, snapshot: Snapshot) -> None:
        """Keep a snapshot outside of transactions; called after its records were committed."""
        ...

    def load(self, source: Source, *, up_to: int, hint: int = 0) -> Snapshot | None:
        """Return the newest whole snapshot at or before an offset.

        hint : where the store said (`written`) the last snapshot begins
        """
        ...

    def newest(self, source: Source) -> int | None:
        """Return the offset of the last snapshot written, as the last `load` found it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A shard's state, encoded, and what it covers.

    offset : the input before it; log_offset : where the scores log goes on, at the latest;
    chunks : the state as bytes, each small enough for a record; one to be written is read once, and
    is made meanwhile.
    """

    offset: int
    log_offset: int
    checksum: str
    chunks: Iterable[bytes] = field(repr=False)


class Fault(Protocol):
    """Called at the steps where tests kill the process."""

    def __call__(self, step: str) -> None:
        """Go on, or do not."""
        ...


def no_fault(step: str) -> None:
    """Go on: the default of everything that takes a `Fault`."""
