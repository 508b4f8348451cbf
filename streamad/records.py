"""The values that travel between stages: columnar input batches, findings, alerts, rejections.

Event time is integer milliseconds UTC everywhere. Input travels by the batch (one numpy column a
field), never by the point; findings and alerts are few and travel as frozen records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

FindingState = Literal["began", "continues", "ended"]
FindingKind = Literal["anomaly", "no_data", "error", "quarantine", "flood", "clock"]
Part = float | str
"""What was observed or expected of one part of an explanation."""
AlertState = Literal["opened", "updated", "resolved"]

MAX_ABS_VALUE = 1e30
"""Larger magnitudes are rejected: their squares leave float64's comfortable range."""
UNKNOWN_MS = -1
"""A time that was not given."""


NO_ROWS = "no_rows"
UNREADABLE = "unreadable"
"""The reason of a message that holds no point: it is counted, and is no mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Input that cannot be used, and why; it goes to the dead-letter topic.

    ``message`` indexes the message in its batch. ``row`` is the row inside that message (None: the
    whole message). ``payload`` is the smallest piece that is at fault, None where only a pointer
    (topic, partition, offset) is kept because the payload is oversized. ``counts`` : where one
    rejection stands for many of a message, how many by reason; else empty. ``column`` : the field
    at fault, empty where there is none or it is not known.
    """

    message: int
    reason: str
    detail: str
    row: int | None = None
    payload: bytes | None = None
    counts: dict[str, int] = field(default_factory=dict)
    column: str = ""

    @property
    def by_reason(self) -> dict[str, int]:
        """Return how many rejections this stands for, by reason."""
        return self.counts or {self.reason: 1}


class Rows(Protocol):
    """What records hold, one row each: an array is one, and so are `EventRows` and `EdgeRows`."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: Any, /) -> Self:
        """Return rows by a slice, an index or a mask."""
        ...


Held = TypeVar("Held", bound=Rows)


def joined_rows(parts: Sequence[Held]) -> Held:
    """Return rows of several batches, one after the other; rows other than arrays bring ``join``.

    Examples
    --------
    >>> joined_rows([np.zeros((1, 2)), np.ones((1, 2))]).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    first: Any = parts[0]
    if isinstance(first, np.ndarray):
        arrays: Any = np.concatenate(list[Any](parts))
        return cast("Held", arrays)
    return cast("Held", type(first).join(parts))


# Without slots: an alias of a frozen class with slots cannot be called (python/cpython#91126).
@dataclass(frozen=True, kw_only=True)
class RecordBatch(Generic[Held]):
    """Rows of one input partition, in offset order; all but ``values`` is alike in all modalities.

    keys : pl.Series of String ``(n,)``, the series (entity) each row belongs to
    time_ms : int64 ``(n,)``, event time
    values : what the rows hold ``(n, ...)``; of signals float64 ``(n, n_variates)``, where NaN
        means that the row has no value of that variate
    message : int32 ``(n,)``, index of the message a row came from, non-decreasing
    row : int32 ``(n,)``, index of the row inside its message
    offsets : int64 ``(n_messages,)``; ``broker_ms`` : int64 ``(n_messages,)``, Kafka timestamps
        (-1: unknown)
    tags : extra columns, each pl.Series of String ``(n,)``
    """

    keys: pl.Series
    time_ms: NDArray[np.int64]
    values: Held
    message: NDArray[np.int32]
    row: NDArray[np.int32]
    offsets: NDArray[np.int64]
    broker_ms: NDArray[np.int64]
    tags: dict[str, pl.Series] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, start: int, stop: int) -> RecordBatch[Held]:
        """Return rows ``start`` to ``stop`` (views, nothing is copied)."""
        return RecordBatch(
            keys=self.keys[start:stop],
            time_ms=self.time_ms[start:stop],
            values=self.values[start:stop],
            message=self.message[start:stop],
            row=self.row[start:stop],
            offsets=self.offsets,
            broker_ms=self.broker_ms,
            tags={name: column[start:stop] for name, column in self.tags.items()},
        )


SignalBatch = RecordBatch[NDArray[np.float64]]
"""Points of series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a decoder makes of a list of messages: usable rows and the rejections."""

    batch: RecordBatch[Any]
    rejected: list[Rejected]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why one item (a window, an event, an edge, a graph) is strange, in the units of the input.

    ``variates`` maps each part (variate, field, pair of fields, edge) to its share of the score
    (shares sum to 1); ``observed`` and ``expected`` are the values at one sample inside the event:
    text where a part is no number, absent where nothing is known; ``time_ms`` is its time;
    ``text`` is the reason in words, in place of the values; ``note`` is what the detector adds to
    it, such as how certain it is; ``entities`` are those it implicates besides the key.
    """

    observed: dict[str, Part]
    expected: dict[str, Part]
    variates: dict[str, float]
    time_ms: int
    text: str = ""
    entities: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An episode of one key begins, goes on or ends: the record between detect and alert.

    ``id`` is stable: a hash of pipeline, detector, key and the opening window. ``sequence`` counts
    the findings of that episode from 0, so ``(id, sequence)`` is unique. ``began_ms`` and
    ``until_ms`` are times of the event: its first anomalous sample, and the last one known so far.
    A record without ``until_ms`` (of an earlier version) has the end of its window there.
    ``born_ms`` is when the key was first seen, unknown (-1) where it was known from training.
    """

    id: str
    sequence: int
    state: FindingState
    kind: FindingKind
    pipeline: str
    detector: str
    artifact: str
    tenant: str
    group: str
    key: str
    entity: dict[str, str]
    window_start_ms: int
    window_end_ms: int
    began_ms: int
    until_ms: int = UNKNOWN_MS
    score: float
    p_value: float
    peak_score: float
    peak_p_value: float
    level: float
    n_windows: int
    explanation: Explanation | None
    input: dict[str, int | str]
    alert_p: float = 1e-4
    born_ms: int = UNKNOWN_MS
    calm: bool = False
    degraded: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.until_ms == UNKNOWN_MS:
            object.__setattr__(self, "until_ms", max(self.began_ms, self.window_end_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What people subscribe to. ``severity`` 1.0 is the alerting boundary for every detector.

    ``began_ms`` and ``until_ms`` are times of the event; ``opened_ms``, ``time_ms`` and
    ``resolved_ms`` are those of the windows that showed it. A record of an earlier version, without
    the times of the event, has the opening window's and the newest window's end there.
    ``looks_like`` is the named group of `streamad.triage` it is of, empty where it is of none.
    ``evidence`` is what severity is made of, in decades (`streamad.alerts.severity`).
    """

    id: str
    sequence: int
    state: AlertState
    kind: FindingKind
    pipeline: str
    detector: str
    artifact: str
    tenant: str
    group: str
    key: str
    entity: dict[str, str]
    began_ms: int = UNKNOWN_MS
    until_ms: int = UNKNOWN_MS
    opened_ms: int
    time_ms: int
    resolved_ms: int | None
    window_start_ms: int
    window_end_ms: int
    score: float
    p_value: float
    severity: float
    peak_severity: float
    threshold_p: float
    observed: dict[str, Part]
    expected: dict[str, Part]
    explanation: dict[str, float]
    summary: str
    past: bool = False
    degraded: str = ""
    reason: str = ""
    links: dict[str, str] = field(default_factory=dict)
    looks_like: str = ""
    evidence: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.began_ms == UNKNOWN_MS:
            object.__setattr__(self, "began_ms", self.opened_ms)
        if self.until_ms == UNKNOWN_MS:
            object.__setattr__(self, "until_ms", max(self.began_ms, self.window_end_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBatch:
    """The scores log: one row a closed window, columnar.

    keys : pl.Series of String ``(n,)``; end_ms : int64 ``(n,)``, time of the window's last sample;
    ordinal : int64 ``(n,)``, the window's number among those of its key, from 0 where the key's
    state began; score, p_value, level : float32 ``(n,)``; newest, newest_p, newest_level : the same
    of the look at the newest samples, NaN where the detector has none; severity : float32, 1.0 at
    the alert level; flags : uint8 ``(n,)``, a sum of ``FLAG_*``; certainty : float32 ``(n,)``, 0 to
    1, how certain the detector is of what it expected (None: it does not tell).
    """

    keys: pl.Series
    end_ms: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    score: NDArray[np.float32]
    p_value: NDArray[np.float32]
    level: NDArray[np.float32]
    newest: NDArray[np.float32]
    newest_p: NDArray[np.float32]
    newest_level: NDArray[np.float32]
    severity: NDArray[np.float32]
    flags: NDArray[np.uint8]
    certainty: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.end_ms)


FLAG_INCOMPLETE = 1
"""Too many missing samples: not scored."""
FLAG_WARMING = 2
"""The key is still being learned: not scored."""
FLAG_EPISODE = 4
"""The window lies inside an open episode: not learned as normal."""
FLAG_CANDIDATE = 8
"""The score was at or above the key's entry level."""
FLAG_ERROR = 16
"""The detector failed on this window; see the error finding."""
FLAG_SUPPRESSED = 32
"""Strange, but against ``direction`` or below ``min_effect``: no finding."""


def stable_id(*parts: str | int) -> str:
    """Return a 32-digit hex id that depends on ``parts`` alone, in every process and runtime."""
    joined = "\0".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


def as_dict(record: Any) -> dict[str, Any]:
    """Return a finding, alert or explanation as plain JSON-ready values (not copied deeply)."""
    result: dict[str, Any] = {}
    for name in record.__dataclass_fields__:
        value = getattr(record, name)
        result[name] = as_dict(value) if hasattr(value, "__dataclass_fields__") else value
    return result
