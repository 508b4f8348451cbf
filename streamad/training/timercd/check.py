"""How well a network in training finds anomalies of series it never saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from streamad.evaluation.vus import vus_pr
from streamad.networks.timercd import TimeRCD
from streamad.training.corpus import Batch, BatchPlan, make_batch
from streamad.training.timercd.recipe import to_tensors

HELD_OUT: Final = 2**40
"""Batches from this number on are never trained on."""
BUFFER: Final = 16
"""Longest buffer of the volume under the surface, in samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Synthetic series of one width that validation uses, whole and not normalised by others."""

    name: str
    batches: tuple[Batch, ...]


@lru_cache(maxsize=2)
def held_out(plan: BatchPlan, *, n_batches: int = 3) -> tuple[HeldOut, ...]:
    """Return one held-out set of univariate and one of multivariate series."""
    sets = []
    for name, widths in (("univariate", (1,)), ("multivariate", (3,))):
        whole = replace(plan, full=1.0, another=0.0, gaps=0.0, widths=widths, width_share=(1.0,))
        batches = tuple(make_batch(whole, HELD_OUT + i) for i in range(n_batches))
        sets.append(HeldOut(name=name, batches=batches))
    return tuple(sets)


@torch.inference_mode()
def validate(network: TimeRCD, sets: tuple[HeldOut, ...]) -> dict[str, float]:
    """Return the mean VUS-PR over series with anomalies, of the network and of ``|z|``, by set."""
    found: dict[str, float] = {}
    network.eval()
    device = next(network.parameters()).device
    for held in sets:
        ours: list[float] = []
        z: list[float] = []
        for batch in held.batches:
            given = to_tensors(batch, patch=network.config.patch, device=device)
            logits = network.logits(network(given.patches, given.seen)).flatten(2)
            scores = logits.amax(1) if network.config.combine == "max" else logits.mean(1)
            ours += _vus(batch, scores.float().cpu().numpy())
            z += _vus(batch, np.abs(batch.series).max(axis=2))
        found[held.name], found[f"{held.name}_abs_z"] = float(np.mean(ours)), float(np.mean(z))
    return found


def _vus(batch: Batch, scores: NDArray[np.float32]) -> list[float]:
    labels = batch.labels.any(axis=2)
    return [
        vus_pr(label.astype(np.int8), score.astype(np.float64), window=BUFFER)
        for label, score in zip(labels, scores, strict=True)
        if label.any() and not label.all()
    ]
