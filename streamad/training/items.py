"""Fitting a detector of rows that are judged one by one, and measuring its tail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.artifacts import Manifest, TrainingRange
from streamad.config import PipelineConfig
from streamad.detectors.contract import Floats, ItemDetector
from streamad.errors import TrainingError
from streamad.graphs.rows import Graphs
from streamad.records import RecordBatch
from streamad.scoring.law import TAIL_PROBABILITIES
from streamad.training.fit import TAIL_WINDOWS, Fitted, Progress, rows_of
from streamad.windows.keys import KeyTable

HELD_OUT = 5
"""The last of so many parts of the rows measures the tail of detectors that do not by themselves.
"""
TEN = 10.0


def fit_items(
    make: Callable[[int | None], ItemDetector[Any]],
    config: PipelineConfig,
    batch: RecordBatch[Any],
    *,
    counts: NDArray[np.float64] | None = None,
    facts: Mapping[str, str] | None = None,
    progress: Progress = lambda _: None,
) -> Fitted:
    """Fit on all rows of ``batch``, in time order; each key is a group of the detector.

    counts : ``(n,)``, how often each row happened (None: once)
    facts : for the manifest: ``licence``, ``created``, ``detector_version``
    """
    if len(batch) == 0:
        msg = "there are no rows to fit on"
        raise TrainingError(msg)
    batch = rows_of(batch, np.argsort(batch.time_ms, kind="stable"))
    codes, names = _groups(batch)
    detector = make(None)
    if counts is not None and "counts" not in inspect.signature(detector.fit).parameters:
        msg = f"{detector.info.name} does not count rows; leave --count out"
        raise TrainingError(msg)
    progress("fitting")
    given = {} if counts is None else {"counts": counts}
    detector.fit(batch.values, groups=codes, **given)
    tail, n_measured = None, 0
    if not detector.calibrated:
        progress("measuring the tail")
        tail, n_measured = _measure(make, batch, codes)
    manifest = Manifest(
        detector=detector.info.name,
        params=dict(config.detector.params),
        size=1,
        records=config.input.records,
        variates=config.input.columns,
        fields=config.input.fields,
        config_checksum=config.decision_checksum(),
        trained=TrainingRange(
            rows=len(batch),
            windows=len(batch),
            from_ms=int(batch.time_ms.min()),
            to_ms=int(batch.time_ms.max()),
        ),
        groups=names,
        tail=tail,
        tail_windows=n_measured,
    ).model_copy(update=dict(facts or {}))
    seeds = np.empty((0, detector.info.n_looks, 0), np.float32)
    return Fitted(detector=detector, manifest=manifest, seeds=seeds)


def fit_graphs(
    make: Callable[[int | None], ItemDetector[Any]],
    config: PipelineConfig,
    graphs: Graphs,
    *,
    labels: NDArray[np.bool_] | None = None,
    facts: Mapping[str, str] | None = None,
    progress: Progress = lambda _: None,
) -> Fitted:
    """Fit on graphs; labels : which of them are anomalous, for detectors that learn from that.

    The tail is measured on the last fifth of the ordinary graphs, after a fit on the others.
    """
    if not len(graphs):
        msg = "there are no graphs to fit on"
        raise TrainingError(msg)
    progress("fitting")
    given: dict[str, Any] = {} if labels is None else {"labels": labels}
    detector = make(None)
    detector.fit(graphs, **given)
    progress("measuring the tail")
    ordinary = np.arange(len(graphs)) if labels is None else np.flatnonzero(~labels)
    held = ordinary[len(ordinary) - len(ordinary) // HELD_OUT :]
    tail = None
    if len(held) >= TAIL_WINDOWS:
        others = np.setdiff1d(np.arange(len(graphs)), held)
        measured = make(None)
        measured.fit(graphs[others], **{name: value[others] for name, value in given.items()})
        tail = tail_of(measured.looks(graphs[held])[:, 0])
    manifest = Manifest(
        detector=detector.info.name,
        params=dict(config.detector.params),
        size=1,
        records=config.input.records,
        variates=config.input.columns,
        fields=config.input.fields,
        config_checksum=config.decision_checksum(),
        trained=TrainingRange(
            rows=int(graphs.edge_from[-1]),
            windows=len(graphs),
            from_ms=max(int(graphs.time_ms.min()), 0),
            to_ms=max(int(graphs.time_ms.max()), 0),
        ),
        tail=tail,
        tail_windows=len(held),
    ).model_copy(update=dict(facts or {}))
    seeds = np.empty((0, detector.info.n_looks, 0), np.float32)
    return Fitted(detector=detector, manifest=manifest, seeds=seeds)


def _groups(batch: RecordBatch[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return the number of each row's key, in order of appearance, and the keys."""
    table = KeyTable(len(batch))
    codes, created = table.encode(batch.keys)
    return codes, tuple(str(table.names[code]) for code in created)


def _measure(
    make: Callable[[int | None], ItemDetector[Any]],
    batch: RecordBatch[Any],
    codes: NDArray[np.int32],
) -> tuple[tuple[float, float, float, float] | None, int]:
    """Fit on the first rows and score the last ones, which it has not seen."""
    cut = len(batch) - len(batch) // HELD_OUT
    if len(batch) - cut < TAIL_WINDOWS:
        return None, 0
    detector = make(None)
    detector.fit(batch.values[:cut], groups=codes[:cut])
    scores = detector.score(batch.values[cut:])
    return tail_of(scores), len(scores)


def tail_of(scores: Floats) -> tuple[float, float, float, float]:
    """Return the scores at the tail probabilities of ordinary rows.

    Where too few rows lie beyond a probability the tail is continued as an exponential one.

    Examples
    --------
    >>> [round(x, 1) for x in tail_of(np.arange(1000, dtype=np.float32))]
    [899.1, 989.0, 1078.9, 1168.8]
    """
    found: list[float] = []
    for p in TAIL_PROBABILITIES:
        if p * len(scores) >= TEN or len(found) < 2:
            found.append(float(np.quantile(scores, 1 - p)))
        else:
            found.append(found[-1] + (found[-1] - found[-2]))
    rising = [found[0]]
    for value in found[1:]:
        rising.append(max(value, rising[-1] + 1e-6 * max(1.0, abs(rising[-1]))))
    a, b, c, d = rising
    return a, b, c, d
