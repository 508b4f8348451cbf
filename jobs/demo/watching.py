"""A pipeline of the demo and what it reads: prepared, fitted where it is to be, then fed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.build import build_detect, make_detector
from jobs.demo.board import Board
from jobs.demo.kinds import CONNECTIONS, KINDS, METRICS, STARTS, Kind
from streamad.config import PipelineConfig, load_pipeline
from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows
from streamad.operators.detect import DetectOperator
from streamad.records import Alert, RecordBatch, joined_rows
from streamad.runtime.embedded import EmbeddedPipeline, Hooks

INTERVAL_MS: Final = 125
_MOST_ROWS: Final = 50_000
"""Rows that are kept to be learned from; later ones are left out."""
_HELP_S: Final = 300.0


class _Rehearsal(Protocol):
    """What makes up rows, ordinary or with something strange at their end."""

    def __call__(self, *, strange: bool) -> Any: ...


class Source(Protocol):
    """Where records come from, one message at a time."""

    @property
    def is_due(self) -> bool:
        """Return whether `poll` would return at once."""

    def poll(self) -> RecordBatch[Any]:
        """Wait for the next reading and return it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pipeline that can start at once; ``operator`` is None where it is fitted later."""

    kind: Kind
    config: PipelineConfig
    operator: DetectOperator | None

    @property
    def readings_needed(self) -> int:
        """Return after how many readings it judges: a window, warm-up, calibration."""
        if self.operator is None:
            return 0
        detector = self.operator.detector
        return detector.size + detector.info.warm_up + self.config.scoring.min_windows


class Watching:
    """A pipeline, fed from its source; what it yields goes to the board."""

    def __init__(
        self, prepared: Prepared, source: Source, *, board: Board, clock: Callable[[], int]
    ) -> None:
        self._prepared, self._source, self._board, self._clock = prepared, source, board, clock
        self._kept: list[Any] = []
        self._n_rows = 0
        self._pipeline = None if prepared.operator is None else self._run(prepared.operator)

    @property
    def name(self) -> str:
        """Return the name of its kind."""
        return self._prepared.kind.name

    def poll(self) -> list[Alert]:
        """Wait for a reading; return the alerts it makes."""
        batch = self._source.poll()
        self._n_rows += len(batch)
        self._board.take_rows(self.name, batch)
        if self._pipeline is not None:
            alerts = self._pipeline.feed(batch)
            self._board.take_alerts(alerts)
            return alerts
        if len(batch) and self._n_rows <= _MOST_ROWS:
            self._kept.append(batch.values)
        return []

    def poll_if_due(self) -> list[Alert]:
        """Do what `poll` does where it need not wait."""
        return self.poll() if self._source.is_due else []

    def learned(self) -> bool:
        """Fit what is to be fitted; return False where nothing has been read that one can fit."""
        if self._pipeline is None and self._kept:
            detector = make_detector(self._prepared.config)
            detector.fit(joined_rows(self._kept))
            self._pipeline = self._run(DetectOperator(self._prepared.config, detector))
            self._kept.clear()
        return self._n_rows > 0

    def _run(self, operator: DetectOperator) -> EmbeddedPipeline:
        def show(scores: Any) -> None:
            self._board.take_scores(self.name, scores)

        hooks = Hooks(scores=show)
        return EmbeddedPipeline(self._prepared.config, operator, self._clock, hooks=hooks)


def prepare(kinds: Sequence[Kind]) -> dict[str, Prepared]:
    """Return pipelines with their kernels compiled: done later, it would hold up the readings.

    With a second core half of them are compiled there, by a process of its own: kernels compile one
    at a time in one process, and what was compiled is found on disk.
    """
    first, *others = kinds
    helper = _helper(others) if others and (os.cpu_count() or 1) > 1 else None
    try:
        made = {first.name: _rehearsed(first)}
        if helper is not None:
            helper.wait(_HELP_S)
    except subprocess.TimeoutExpired:
        # What it has not compiled is compiled here.
        made = {first.name: _rehearsed(first)}
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()
    return made | {kind.name: _rehearsed(kind) for kind in others}


def _helper(kinds: Sequence[Kind]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
        [sys.executable, "-m", "jobs.demo.watching", *(kind.name for kind in kinds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _rehearsed(kind: Kind) -> Prepared:
    """Return a pipeline of which every kernel was called once, on made-up records."""
    config = load_pipeline(kind.path, environment={})
    rehearsal = _REHEARSALS[kind.name]
    if kind.fitted:
        detector = make_detector(config)
        detector.fit(rehearsal(strange=False))
        operator, kept = DetectOperator(config, detector), None
    else:
        operator = kept = build_detect(config)
    prepared = Prepared(kind, config, kept)
    rows = rehearsal(strange=True)
    operator.process(operator.new_state(), _messages(rows))
    return prepared


def _messages(rows: Any) -> RecordBatch[Any]:
    """Return rows of one key, a message and a reading each."""
    n = len(rows)
    times = getattr(rows, "time_ms", _times(n))
    return RecordBatch(
        keys=pl.Series("key", ["rehearsal/of/it"] * n, pl.String),
        time_ms=times,
        values=rows,
        message=np.arange(n, dtype=np.int32),
        row=np.zeros(n, np.int32),
        offsets=np.arange(n, dtype=np.int64),
        broker_ms=np.full(n, -1, np.int64),
    )


def _times(n: int) -> NDArray[np.int64]:
    return np.arange(n, dtype=np.int64) * INTERVAL_MS


def _series(*, strange: bool) -> NDArray[np.float64]:
    """Return a series with a jump."""
    rows = np.arange(200)
    values = np.sin(rows) + np.where(rows > 168, 100.0 if strange else 10.0, 10.0)
    return np.asarray(values[:, None])


def _starts(*, strange: bool) -> EventRows:
    """Return process starts, the last of them of a program that has never run."""
    processes = ["chore", "task"] * 40 + ["stranger" if strange else "chore"]
    fields = {"user": "me", "parent": "worker"}
    columns = [pl.repeat(fields.get(name, ""), 81, eager=True).alias(name) for name in fields]
    frame = pl.DataFrame([*columns, pl.Series("process", processes)])
    return EventRows(_times(len(frame)), frame)


def _edges(*, strange: bool) -> EdgeRows:
    """Return calls of two services for ten seconds, then of many."""
    targets = ["a", "b"] * 50 + ([f"target-{n}" for n in range(40)] if strange else [])
    n = len(targets)
    names = {"source": "worker", "source_type": "process", "target_type": "service"}
    columns = {name: pl.repeat(text, n, eager=True) for name, text in names.items()}
    return EdgeRows(
        time_ms=_times(n), target=pl.Series(targets, dtype=pl.String), weight=np.ones(n), **columns
    )


_REHEARSALS: Final[Mapping[str, _Rehearsal]] = {
    METRICS.name: _series,
    STARTS.name: _starts,
    CONNECTIONS.name: _edges,
}


if __name__ == "__main__":
    for _kind in KINDS:
        if _kind.name in sys.argv[1:]:
            _rehearsed(_kind)
