"""Pipelines of the demo with all that is compiled once, before the first reading."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.build import build_detect, make_detector
from jobs.demo.kinds import CONNECTIONS, KINDS, METRICS, STARTS, Kind
from streamad.config import PipelineConfig, load_pipeline
from streamad.detectors.contract import ItemDetector
from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows
from streamad.operators.detect import DetectOperator
from streamad.records import RecordBatch

INTERVAL_MS: Final = 125
_HELP_S: Final = 300.0


class _Rehearsal(Protocol):
    """What makes up rows, ordinary or with something strange at their end."""

    def __call__(self, *, strange: bool) -> Any: ...


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


def prepare(kinds: Sequence[Kind]) -> dict[str, Prepared]:
    """Return pipelines with their kernels compiled: done later, it would hold up the readings.

    With a second core about half of them are compiled there, by a process of its own: in one
    process kernels compile one at a time, and what another has compiled is found on disk. This one
    begins with the detector of metrics, the other with what all pipelines share.
    """
    first, *others = kinds
    helper = _helper(others) if others and (os.cpu_count() or 1) > 1 else None
    try:
        made = {first.name: _rehearsed(first)}
        if helper is not None:
            # What it has not compiled by then is compiled here.
            with contextlib.suppress(subprocess.TimeoutExpired):
                helper.wait(_HELP_S)
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()
    return made | {kind.name: _rehearsed(kind) for kind in others}


def _helper(kinds: Sequence[Kind]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
        [sys.executable, "-m", "jobs.demo.rehearsal", *(kind.name for kind in kinds)],
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
    if kind is METRICS:
        _rehearse_alone(operator.detector)
    prepared = Prepared(kind, config, kept)
    rows = rehearsal(strange=True)
    operator.process(operator.new_state(), _messages(rows))
    return prepared


def _rehearse_alone(detector: ItemDetector[Any]) -> None:
    """Let a detector of windows learn, score and explain, without what is around it."""
    series = _series(strange=True)[:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(series, detector.size)[:, :, None]
    every, memory = max(detector.info.learn_every, 1), detector.new_memory(1)
    slots = np.zeros(len(windows), np.int32)
    admit = np.ones(len(windows), np.bool_)
    if memory is None:
        return
    memory.reserve(1)
    for at in range(0, len(windows), every):
        part = slice(at, at + every)
        shown = windows[part].astype(np.float32)
        detector.looks(shown, memory=memory, slots=slots[part])
        detector.learn(memory, shown, slots=slots[part], admit=admit[part])
    detector.explain(windows[-1:].astype(np.float32), memory=memory, slots=slots[-1:])


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
