"""Distances of vectors of statistics to those of the past, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats, Ints
from streamad.detectors.knn.kernels import LEAST_DISTANCE, LEAST_SPREAD, N_QUERIES, USUAL_SHARE

Int64s = NDArray[np.int64]
Past = tuple[Floats, Floats, Int64s]
"""Of a memory: vectors ``(n_slots, n_variates, n_features, capacity)``, the sample each judged
``(n_slots, n_variates, capacity)``, and which window of its key each is ``(n_slots, capacity)``."""


@compiled
def distances(
    vectors: Floats,
    slots: Ints,
    span: Int64s,
    past: Past,
    bank: Floats,
    judged: Floats,
    columns: Int64s,
    k: int,
) -> tuple[Floats, Floats]:
    """Return how far each vector is from the nearest, and the sample the nearest one judged.

    Parameters
    ----------
    vectors : ``(n, n_variates, n_features)``
    slots : ``(n,)``, each window's key; span : ``(n, 2)``, it sees its key's windows numbered above
        the first and up to the second
    bank, judged : ``(n_variates, n_features, n_bank)`` and ``(n_variates, n_bank)``, seen by all
    columns : where each stretch begins in a vector, and where the last ends

    Returns
    -------
    Two arrays ``(n, n_variates)``: the mean distance to the ``k`` nearest, summed over stretches (0
    where there is no past), and a sample in scales (NaN there). Sums run over features in one
    order, so a window has the same bits alone and in a batch.
    """
    n, n_variates, _ = vectors.shape
    far = np.zeros((n, n_variates), dtype=np.float32)
    value = np.full((n, n_variates), np.nan, dtype=np.float32)
    remembered, own_judged, number = past
    sums = np.empty(max(bank.shape[2], remembered.shape[3]), dtype=np.float32)
    near = np.empty(k, dtype=np.float32)
    for w in range(n):
        slot = slots[w]
        for v in range(n_variates):
            for c in range(len(columns) - 1):
                near[:] = np.inf
                for own in range(2):
                    places = bank[v] if own == 0 else remembered[slot, v]
                    n_places = np.uint64(places.shape[1])
                    sums[:n_places] = 0.0
                    for d in range(columns[c], columns[c + 1]):
                        x, row = vectors[w, v, d], np.uint64(d)
                        for place in range(places.shape[1]):
                            apart = x - places[row, np.uint64(place)]
                            sums[np.uint64(place)] += apart * apart
                    for place in range(places.shape[1]):
                        if sums[place] >= near[k - 1]:
                            continue
                        if own == 1 and not span[w, 0] < number[slot, place] <= span[w, 1]:
                            continue
                        if c == 0 and sums[place] < near[0]:
                            value[w, v] = (
                                judged[v, place] if own == 0 else own_judged[slot, v, place]
                            )
                        _insert(near, sums[place])
                far[w, v] += _mean_root(near)
    return far, value


@compiled
def usual_distances(
    vectors: Floats, position: Int64s, apart: int, columns: Int64s, k: int, usual: Floats
) -> None:
    """Write median and spread of the distances of a past to itself, ``(n_variates, 2)``.

    vectors : ``(n_variates, n_features, n)``; position : ``(n,)``, places in samples; those nearer
    than ``apart`` are left out. The spread is infinite where there is nothing to compare.
    """
    n_variates, _, n = vectors.shape
    near = np.empty(k, dtype=np.float32)
    found = np.empty(N_QUERIES, dtype=np.float32)
    for v in range(n_variates):
        n_found = 0
        for query in range(min(N_QUERIES, n)):
            at = (n - 1) * query // max(min(N_QUERIES, n) - 1, 1)
            total, compared = np.float32(0.0), False
            for c in range(len(columns) - 1):
                near[:] = np.inf
                for place in range(n):
                    if abs(position[place] - position[at]) < apart:
                        continue
                    distance = np.float32(0.0)
                    for d in range(columns[c], columns[c + 1]):
                        gap = vectors[v, d, at] - vectors[v, d, place]
                        distance += gap * gap
                    compared = True
                    if distance < near[k - 1]:
                        _insert(near, distance)
                total += _mean_root(near)
            if compared:
                found[n_found] = total
                n_found += 1
        usual[v, 0], usual[v, 1] = 0.0, np.inf
        if n_found > 0:
            ordered = np.sort(found[:n_found])
            middle, high = ordered[n_found // 2], ordered[int(USUAL_SHARE * (n_found - 1))]
            usual[v, 0] = middle
            least = np.float32(LEAST_DISTANCE * (len(columns) - 1))
            usual[v, 1] = max(high - middle, np.float32(LEAST_SPREAD) * middle, least)


@compiled
def _insert(near: Floats, value: np.float32) -> None:
    at = len(near) - 1
    while at > 0 and near[at - 1] > value:
        near[at] = near[at - 1]
        at -= 1
    near[at] = value


@compiled
def _mean_root(near: Floats) -> np.float32:
    """Return the mean distance to those found; 0 where there is none."""
    total, n_found = np.float32(0.0), 0
    for i in range(len(near)):
        if near[i] < np.inf:
            total += np.sqrt(near[i])
            n_found += 1
    return total / np.float32(max(n_found, 1))
