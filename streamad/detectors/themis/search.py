"""The nearest of remembered vectors, stretch by stretch."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats

BLOCK: Final = 256
"""Places compared at once."""
LEAST: Final = 0.02
"""Distances below this are alike."""


def mean_of_nearest(best: Floats) -> Floats:
    """Return the mean distance to those found, ``(n, n_stretches)``; squared ones come in."""
    found = np.isfinite(best)
    n_found = np.maximum(found.sum(axis=2), 1).astype(np.float32)
    distances = np.sqrt(np.where(found, best, np.float32(0)))
    total = np.zeros(best.shape[:2], dtype=np.float32)
    for i in range(best.shape[2]):
        total += distances[:, :, i]
    mean: Floats = total / n_found
    return mean


@compiled
def fused(apart: Floats) -> Floats:
    """Return ``(v^2 c)^(1/3)`` of the distances of values and changes, each a sum over stretches.

    A product: neither view needs a unit, and what one finds usual is not strange for the other's
    sake alone. `LEAST` is added before and taken away after, or a view in which nothing ever
    differs would silence the other.

    apart : ``(n, n_stretches)``, the first half of values, the second of changes
    """
    n_views = apart.shape[1] // 2
    scores = np.empty(len(apart), dtype=np.float32)
    for w in range(len(apart)):
        values, changes = LEAST, LEAST
        for stretch in range(n_views):
            values += apart[w, stretch]
            changes += apart[w, n_views + stretch]
        scores[w] = (values * values * changes) ** (1.0 / 3.0) - LEAST
    return scores


@compiled
def _insert(distances: Floats, seen: NDArray[np.bool_], best: Floats) -> int:
    """Sort distances into ``best``, ascending; return which became the smallest (else -1)."""
    k = len(best)
    first = -1
    for j in range(len(distances)):
        if not seen[j] or distances[j] >= best[k - 1]:
            continue
        place = k - 1
        while place > 0 and best[place - 1] > distances[j]:
            best[place] = best[place - 1]
            place -= 1
        best[place] = distances[j]
        if place == 0:
            first = j
    return first


@compiled
def nearest(
    queries: Floats,
    bank: Floats,
    seen: NDArray[np.bool_],
    columns: NDArray[np.int64],
    best: Floats,
    which: NDArray[np.int64],
) -> None:
    """Bring the smallest squared distances of each stretch into ``best``, ascending.

    ``which`` becomes the place of the nearest by the first stretch, where this bank has it. Sums
    run over features in one order, whatever the batch; the inner loop runs over places.
    """
    n_places = bank.shape[1]
    distance = np.zeros(BLOCK, dtype=np.float32)
    for begin in range(0, n_places, BLOCK):
        n_here = min(BLOCK, n_places - begin)
        for w in range(len(queries)):
            for c in range(len(columns) - 1):
                distance[:] = 0
                for d in range(columns[c], columns[c + 1]):
                    value = queries[w, d]
                    row = bank[d, begin : begin + n_here]
                    for j in range(n_here):
                        gap = value - row[j]
                        distance[j] += gap * gap
                first = _insert(distance[:n_here], seen[begin : begin + n_here], best[w, c])
                if c == 0 and first >= 0:
                    which[w] = begin + first
