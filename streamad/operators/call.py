"""What one call of the detect operator works on, and what it yields."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.operators.shard import ShardState
from streamad.records import Finding, Rejected, ScoreBatch


class RecordedScores(Protocol):
    """Scores of windows that were judged before: recovery reads these instead of the model."""

    def lookup(
        self, keys: pl.Series, end_ms: NDArray[np.int64], ordinal: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return both looks of each window as logged ``(n, 2)``, NaN where none was."""


@dataclass(slots=True, kw_only=True)
class DetectOutput:
    """What one call yields.

    ``late`` and ``merged`` are row indices of the batch; ``met`` are new keys; ``blind`` are keys
    most of whose windows are not judged any more; ``counts`` feed telemetry.
    """

    findings: list[Finding] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    late: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    merged: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    met: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a batch came from; findings carry it so that their input can be found again."""

    topic: str = ""
    partition: int = 0


NOWHERE = Position()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: the shard it works on, where its rows came from, and what it has yielded so far."""

    state: ShardState
    at: Position
    out: DetectOutput
    recorded: RecordedScores | None = None

    def key(self, code: int) -> str:
        """Return the key behind a code."""
        return self.state.name(code)
