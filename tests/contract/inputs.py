"""What a job of each modality is fed in these tests: its pipeline, its messages, its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from jobs.build import make
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.detectors.base import Floats
from streamad.detectors.contract import ItemDetector
from streamad.modalities import modality_of

BEGIN_MS = 1_700_000_000_000
KEYS = ("a", "b")
N_JUDGED, N_TRAINING = 90, 200
ROWS_PER_MESSAGE = 10

Row = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """Of one modality.

    pipeline : sections of a configuration; rows : of a detector, all of a stream; training : rows
    that nothing is strange in; labelled : rows that are strange
    """

    pipeline: Callable[[str], dict[str, Any]]
    rows: Callable[[str], list[Row]]
    training: Callable[[str], list[Row]]
    per_message: int = ROWS_PER_MESSAGE


@cache
def size_of(name: str) -> int:
    return max(16, DETECTORS.load(name).info.min_size)


def input_of(name: str) -> Input:
    return INPUTS[DETECTORS.load(name).info.modality]


def config_of(name: str) -> PipelineConfig:
    own = input_of(name).pipeline(name)
    return PipelineConfig.model_validate(
        {
            "name": "runtimes",
            "detector": name,
            "delivery": {"commit_interval": "100ms", "snapshot_interval": "1s"},
            **own,
            "input": {"topics": "in", "start": "earliest", **own.get("input", {})},
        }
    )


QUICK: dict[str, dict[str, Any]] = {
    "rqgnn": {"epochs": 8},
    "ape": {"steps": 60},
    "clan": {"steps": 60},
    "hypad": {"steps": 24, "critic_passes": 1},
    "deviations": {"strangers": True},
}
"""Settings with which a detector trains quickly, and judges keys that it was not trained on."""


@cache
def payloads_of(name: str) -> tuple[bytes, ...]:
    """Return the messages of a stream."""
    rows = [json.dumps(row) for row in input_of(name).rows(name)]
    size = input_of(name).per_message
    return tuple("\n".join(rows[at : at + size]).encode() for at in range(0, len(rows), size))


@cache
def fitted(name: str) -> dict[str, np.ndarray]:
    """Return what a detector that needs training has learned; the others begin with nothing."""
    kind = DETECTORS.load(name)
    if not kind.info.needs_training:
        return {}
    rows = [json.dumps(row).encode() for row in input_of(name).training(name)]
    config = config_of(name)
    batch = codec_of(config).decode(rows, np.arange(len(rows)), np.full(len(rows), -1)).batch
    detector = new(name)
    windows = modality_of(config, detector).windows()
    windows.state.reserve(1)
    late = np.zeros(len(batch), np.bool_)
    codes = np.zeros(len(batch), np.int32)
    blocks = windows.ingest(codes, batch.time_ms, batch.values, late)
    items = [block.values.copy() if isinstance(block.values, np.ndarray) else block.values
             for block in blocks]  # fmt: skip
    made = np.concatenate(items) if isinstance(items[0], np.ndarray) else type(items[0]).join(items)
    if "labels" in kind.fit.__annotations__:
        # Graphs with an intruder: every fifth, as `_flows` has it for training.
        labels = np.array([INTRUDER in made[i : i + 1].types.to_list() for i in range(len(made))])
        return detector.fit(made, labels=labels).state()
    return detector.fit(made).state()


def new(name: str) -> ItemDetector[Any]:
    """Return a detector, not fitted, that trains quickly."""
    return make(name, size=size_of(name), params=QUICK.get(name))


# ---------------------------------------------------------------------- signals


def values(n: int, *, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    phase = np.arange(n)[:, None] / 4 + np.arange(len(KEYS))
    return (np.sin(phase) + rng.normal(0, 0.1, (n, len(KEYS)))).astype(np.float32)


def _signal_pipeline(name: str) -> dict[str, Any]:
    return {
        "windows": {"size": size_of(name)},
        "series": {"step": "1s"},
        "scoring": {"min_windows": 8, "cool_down": 2, "candidate": 0.01, "exit": 0.05},
    }


def _waves(name: str) -> list[Row]:
    """Waves of two keys for as long as a detector warms up, and a while longer, with jumps."""
    # Episodes end when windows have left what is strange: long ones need longer.
    more = 2 * (size_of(name) - 16)
    n = DETECTORS.load(name).info.warm_up + size_of(name) + N_JUDGED + 2 * more
    wave = values(n, seed=2)
    wave[n - more - 60 : n - more - 55, 0] += 60
    wave[n - more - 25 : n - more - 20, 1] -= 60
    return [
        {"key": key, "ts": BEGIN_MS + t * 1_000, "value": float(wave[t, k])}
        for t in range(n)
        for k, key in enumerate(KEYS)
    ]


def _wave(name: str) -> list[Row]:
    series = values(N_TRAINING + size_of(name), seed=1)[:, 0]
    return [
        {"key": "a", "ts": BEGIN_MS + t * 1_000, "value": float(value)}
        for t, value in enumerate(series)
    ]


# ---------------------------------------------------------------------- events


MINUTE_MS = 60_000
PROCESSES = ("cat", "vim", "ssh", "git")


def _event_pipeline(name: str) -> dict[str, Any]:
    return {
        "input": {
            "records": "events",
            "fields": {"categories": ["process", "parent"], "numbers": ["bytes"]},
        },
        "scoring": {"min_windows": 8},
        "alerts": {"level": "12h"},
        "series": {"ttl": "9d"},
    }


def _event(key: str, t: int, draw: np.random.Generator, *, strange: bool = False) -> Row:
    place = int(draw.integers(len(PROCESSES)))
    usual = {
        "process": PROCESSES[place],
        "parent": "bash" if place < 2 else "systemd",
        "bytes": float(draw.integers(100, 900)),
    }
    new = {"process": f"implant-{t}", "parent": f"loader-{t}", "bytes": 9e9}
    return {"key": key, "ts": BEGIN_MS + t * MINUTE_MS, **(new if strange else usual)}


def _audit(name: str) -> list[Row]:
    draw = np.random.default_rng(4)
    # What is rare for a key alone is known once it has a history of some length.
    n = 4 * DETECTORS.load(name).info.warm_up + 3 * N_JUDGED
    strange = {"a": range(n - 120, n - 117), "b": range(n - 60, n - 57)}
    return [_event(key, t, draw, strange=t in strange[key]) for t in range(n) for key in KEYS]


def _ordinary_audit(name: str) -> list[Row]:
    draw = np.random.default_rng(5)
    return [_event("a", t, draw) for t in range(2 * N_TRAINING)]


# ---------------------------------------------------------------------- edges and graphs


INTRUDER = "intruder"
EDGES_PER_MINUTE = 4


def _edge_pipeline(name: str) -> dict[str, Any]:
    return {
        "input": {
            "records": "edges",
            "fields": {
                "source": "from",
                "target": "to",
                "source_type": "from_type",
                "target_type": "to_type",
            },
        },
        "scoring": {"min_windows": 8, "cool_down": 2},
        "alerts": {"level": "1d"},
        "series": {"ttl": "9d"},
    }


def _minute(key: str, t: int, draw: np.random.Generator, *, strange: bool) -> list[Row]:
    """Return the edges of a minute of a site, an intruder's among them where it is strange."""
    rows = []
    for i in range(EDGES_PER_MINUTE):
        host = int(draw.integers(4))
        rows.append((f"{key}-web-{host}", f"{key}-db-{host % 2}", "host", "store", i))
    if strange:
        there = (f"{key}-evil", INTRUDER), (f"{key}-web-0", "host")
        rows += [
            (there[i % 2][0], f"{key}-10.0.{t}.{i}", there[i % 2][1], "host", 5 + i)
            for i in range(40)
        ]
    return [
        {
            "key": key, "ts": BEGIN_MS + t * MINUTE_MS + 100 * at, "from": source, "to": target,
            "from_type": kind, "to_type": other,
        }
        for source, target, kind, other, at in rows
    ]  # fmt: skip


def _flows(name: str) -> list[Row]:
    del name
    draw = np.random.default_rng(6)
    n = 3 * N_JUDGED
    strange = {"a": range(n - 120, n - 117), "b": range(n - 60, n - 57)}
    rows = [
        row for t in range(n) for key in KEYS
        for row in _minute(key, t, draw, strange=t in strange[key])
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["ts"])


def _ordinary_flows(name: str) -> list[Row]:
    draw = np.random.default_rng(7)
    labelled = "labels" in DETECTORS.load(name).fit.__annotations__
    return [
        row
        for t in range(N_TRAINING)
        for row in _minute("a", t, draw, strange=labelled and t % 5 == 0)
    ]


INPUTS = {
    "signals": Input(_signal_pipeline, _waves, _wave),
    "events": Input(_event_pipeline, _audit, _ordinary_audit),
    "edges": Input(_edge_pipeline, _flows, _ordinary_flows, per_message=40),
    "graphs": Input(_edge_pipeline, _flows, _ordinary_flows, per_message=40),
}
