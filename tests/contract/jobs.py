"""Pipelines of events, edges and graphs for jobs on a real broker, and what they are fed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jobs.offline.replay import codec_of
from streamad.artifacts import save_artifact
from streamad.modalities import modality_of
from streamad.training.items import fit_graphs, fit_items
from tests.contract.inputs import KEYS, config_of, input_of, new

JUDGED = {"events": "ape", "edges": "edge_changes", "graphs": "graph_vector"}
"""A detector of each modality but signals."""


def sections_of(name: str, folder: Path) -> dict[str, Any]:
    """Return sections of a pipeline file, with an artifact where the detector needs one."""
    own = input_of(name).pipeline(name)
    detector: dict[str, Any] = {"name": name}
    if new(name).info.needs_training:
        config = config_of(name)
        rows = [json.dumps(row).encode() for row in input_of(name).training(name)]
        n = len(rows)
        batch = codec_of(config).decode(rows, np.arange(n), np.full(n, -1)).batch
        if new(name).info.modality == "graphs":
            windows = modality_of(config, new(name)).windows()
            windows.state.reserve(1)
            codes, late = np.zeros(n, np.int32), np.zeros(n, np.bool_)
            blocks = [b.values for b in windows.ingest(codes, batch.time_ms, batch.values, late)]
            graphs = type(blocks[0]).join(blocks)
            fitted = fit_graphs(lambda _: new(name), config, graphs)
        else:
            fitted = fit_items(lambda _: new(name), config, batch)
        url = folder / f"{name}-artifact"
        save_artifact(url, fitted.detector, fitted.manifest, seeds=fitted.seeds)
        detector["artifact"] = str(url)
    return {**own, "detector": detector}


def messages_of(name: str, *, per_message: int = 5) -> list[tuple[int, bytes]]:
    """Return messages in the order of time, each with the partition of its key."""
    made = []
    for partition, key in enumerate(KEYS):
        rows = [row for row in input_of(name).rows(name) if row["key"] == key]
        for at in range(0, len(rows), per_message):
            lines = [json.dumps(row) for row in rows[at : at + per_message]]
            made.append((rows[at]["ts"], partition, "\n".join(lines).encode()))
    return [(partition, payload) for _, partition, payload in sorted(made)]
