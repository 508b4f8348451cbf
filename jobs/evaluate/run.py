"""One detector on one series, in this process or another one; what it needs and what it yields."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from connectors.files.sheet import read_bytes
from jobs.build import check_detector, check_params, detector_info
from jobs.evaluate.layouts import Labelled, Loaded, load
from jobs.evaluate.measure import Spans, as_record, figures_by_key
from jobs.offline.score import pipeline_for, score_table
from streamad import detectors
from streamad.detectors import DETECTORS
from streamad.errors import ConfigError, StreamadError
from streamad.evaluation.baselines import BASELINES, NEEDS

PROTOCOL = 2
"""Rises with whatever changes figures here, so that older results are not mixed with new ones."""
BINS = 240
"""Columns in which a score is drawn."""
SHADES = 99
WEIGHTS = Path(detectors.__file__).parent / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A detector with its parameters; ``label`` is how it was asked for."""

    label: str
    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One series and one detector; key : of its result."""

    series: Labelled
    spec: Spec
    size: int | None
    key: str


def read_spec(text: str) -> Spec:
    """Read ``name`` or ``name:param=value,param=value``.

    Raises
    ------
    ConfigError
        where there is no such detector or parameter, or it does not score signals

    Examples
    --------
    >>> read_spec("knn:k=5").params
    {'k': 5}
    """
    from jobs.cli.options import parameters

    name, _, given = text.strip().partition(":")
    params = parameters([part for part in given.split(",") if part.strip()])
    with DETECTORS.beside(BASELINES):
        info = detector_info(name)
        if info.modality != "signals":
            msg = f"--detector: {name} scores {info.modality}; evaluate is for signals"
            raise ConfigError(msg)
        check_params(name, params)
    return Spec(label=text.strip(), name=name, params=params)


def missing_package(name: str) -> str | None:
    """Return how to get what a baseline needs and is not installed, None where it can run."""
    package, remedy = NEEDS.get(name, ("", ""))
    return remedy if package and find_spec(package) is None else None


def tasks_of(
    series: Sequence[Labelled], specs: Sequence[Spec], *, size: int | None = None
) -> list[Task]:
    """Return every pair, series by series, each with the key of its result."""
    made = []
    for one in series:
        data = _digest_of(one)
        made += [
            Task(series=one, spec=spec, size=size, key=_key(data, spec, size)) for spec in specs
        ]
    return made


def run_task(task: Task) -> dict[str, Any]:
    """Return a result as a record; ``failed`` or ``skipped`` say why there are no figures."""
    record: dict[str, Any] = {
        "key": task.key, "set": task.series.set, "series": task.series.name,
        "detector": task.spec.label,
    }  # fmt: skip
    try:
        record |= _scored(task)
    except ConfigError as error:
        record["skipped"] = str(error)
    except StreamadError as error:
        record["failed"] = str(error)
    except Exception as error:  # noqa: BLE001 one crash must not end a run of hours
        record["failed"] = f"{type(error).__name__}: {error}"
    return record


def _scored(task: Task) -> dict[str, Any]:
    loaded = load(task.series)
    table = replace(loaded.table, labelled=loaded.labels)
    with DETECTORS.beside(BASELINES):
        config = pipeline_for(
            table, detector=task.spec.name, params=task.spec.params, size=task.size
        )
        check_detector(config)
        begun = time.perf_counter()
        scored = score_table(table, config, train_end=loaded.train_end or None)
        seconds = time.perf_counter() - begun
    scored.account.require(scored.operator)
    made = figures_by_key(
        table,
        scored,
        train_end=loaded.train_end,
        buffer=loaded.buffer,
        slack=loaded.slack,
    )
    found = next(made, None)
    if found is None:
        msg = "no row after train_end has a readable time"
        raise ConfigError(msg)
    _, figures, spans = found
    return {
        **as_record(figures),
        "train_end": loaded.train_end, "buffer": loaded.buffer, "slack": loaded.slack,
        "size": scored.size, "lag": scored.lag, "step_ms": scored.step_ms,
        "errors": scored.n_errors, "seconds": round(seconds, 3),
        "trace": _trace(spans, loaded),
    }  # fmt: skip


def _trace(spans: Spans, loaded: Loaded) -> dict[str, Any]:
    """Return alerts by rows, and the score's maxima in bins: 0 is its median, 99 its greatest."""
    scores = spans.scores
    counted = scores[loaded.train_end :]
    known = counted[np.isfinite(counted)]
    if len(known) == 0:
        return {"rows": len(scores), "alerts": spans.alerts, "score": []}
    low, high = float(np.median(known)), float(known.max())
    n_bins = min(BINS, len(scores))
    edges = np.linspace(0, len(scores), n_bins + 1).astype(np.int64)[:-1]
    tops = np.maximum.reduceat(np.nan_to_num(scores, nan=-math.inf), edges)
    tops[edges < loaded.train_end] = -math.inf
    shares = np.clip((tops - low) / (high - low) if high > low else 0 * tops, 0, 1)
    drawn = np.where(np.isfinite(tops), np.round(np.nan_to_num(shares) * SHADES), 0).astype(int)
    return {"rows": len(scores), "alerts": spans.alerts, "score": drawn.tolist()}


# ------------------------------------------------------------------ keys of results


def _digest_of(one: Labelled) -> str:
    asked = [one.columns, one.time, one.label, one.spans, one.train_end, one.buffer]
    digest = hashlib.sha256(json.dumps(asked).encode())
    try:
        digest.update(read_bytes(one.path))
    except StreamadError as error:
        # The run reports it as that series' failure.
        digest.update(str(error).encode())
    return digest.hexdigest()


def _key(data: str, spec: Spec, size: int | None) -> str:
    asked = [
        PROTOCOL, version("streamad-pipeline"), data, spec.name, dict(spec.params), size,
        _code_of(spec.name),
    ]  # fmt: skip
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@lru_cache
def _code_of(name: str) -> str:
    """Return a checksum of a detector's code, comments and spaces apart, and of weights it ships.

    Who changes them wants other figures; what it imports from elsewhere is not looked at.
    """
    with DETECTORS.beside(BASELINES):
        kind = DETECTORS.load(name)
    path = Path(inspect.getfile(kind))
    files = sorted(path.parent.glob("*.py")) if _is_package_of_its_own(path, name) else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(ast.dump(ast.parse(file.read_bytes())).encode())
    for file in sorted((WEIGHTS / name).glob("*")):
        if file.suffix in {".onnx", ".safetensors", ".json"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _is_package_of_its_own(path: Path, name: str) -> bool:
    return path.parent.name in {name, name.partition("_")[0]}
