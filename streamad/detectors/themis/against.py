"""A vector against those of the past, by the adapters of the paper in place of the distance."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from streamad.compiled import compiled
from streamad.detectors.base import Floats
from streamad.detectors.similarity import N_COMPONENTS, N_NEIGHBOURS, TINY, TOP_SHARE

Wide = NDArray[np.float64]

MOST_PLACES: Final = 128
"""Vectors of the past that are compared with each other; evenly spread where there are more."""


def unlike(queries: Floats, past: Floats, columns: NDArray[np.int64], adapter: str) -> Floats:
    """Return how unlike its past each vector is, ``(n,)``, summed over stretches.

    The paper compares the patches of one window; here the past takes the place of the window's
    other patches. Vectors are centred by the past's mean. A vector alone has the same bits as in a
    batch: what depends on it is summed in one order.

    queries : ``(n, n_features)``; past : ``(n_features, n_places)``, without places all score 0
    columns : where each stretch begins in a vector, and where the last ends
    adapter : a name of `AGAINST`
    """
    total = np.zeros(len(queries), dtype=np.float64)
    if past.shape[1] == 0:
        return total.astype(np.float32)
    for begin, end in pairwise(columns):
        rows = np.ascontiguousarray(past[begin:end].T, dtype=np.float64)
        centre = rows.mean(axis=0)
        asked = np.ascontiguousarray(queries[:, begin:end] - centre)
        total += AGAINST[adapter](asked, rows - centre)
    return total.astype(np.float32)


def _mean_similarity(asked: Wide, rows: Wide) -> Wide:
    """Return one minus the mean similarity to the past."""
    return np.asarray(1.0 - _alike(asked, _unit(rows)).mean(axis=1))


def _trimmed_top_k(asked: Wide, rows: Wide) -> Wide:
    """Return one minus the mean similarity to those of the past that are most like it."""
    k = min(max(2, round(TOP_SHARE * len(rows))), len(rows))
    nearest = np.sort(_alike(asked, _unit(rows)), axis=1)[:, -k:]
    return np.asarray(1.0 - nearest.mean(axis=1))


def _lof(asked: Wide, rows: Wide) -> Wide:
    """Return how much sparser the past is around a vector than around its neighbours (1: alike)."""
    rows = _some(rows)
    k = min(N_NEIGHBOURS, len(rows) - 1)
    if k < 1:
        return np.ones(len(asked))
    among = _distances(rows, rows)
    np.fill_diagonal(among, np.inf)
    near = np.argsort(among, axis=1, kind="stable")[:, :k]
    to_near = np.take_along_axis(among, near, axis=1)
    radius = to_near[:, -1]
    # As in `similarity`: a past that stands still must not divide nothing by nothing.
    floor = TINY + 1e-3 * np.sqrt((rows * rows).sum(axis=1)).mean()
    density = 1.0 / np.maximum(np.maximum(to_near, radius[near]).mean(axis=1), floor)
    far = _distances(asked, rows)
    near = np.argsort(far, axis=1, kind="stable")[:, :k]
    reach = np.maximum(np.take_along_axis(far, near, axis=1), radius[near]).mean(axis=1)
    return np.asarray(density[near].mean(axis=1) * np.maximum(reach, floor))


def _spectral_residual(asked: Wide, rows: Wide) -> Wide:
    """Return the share of a vector's similarities that the past's eigenvectors leave, 0 to 1.

    In a window a patch has a row of its own in the matrix; here its similarities to the past are
    the row, and its similarity to itself, 1, is what no eigenvector of the past explains. A share,
    since a vector unlike everything has small similarities, of which little is left in any case.
    """
    unit = _unit(_some(rows))
    asked_for = (max(len(unit) - N_COMPONENTS, 0), len(unit) - 1)
    _, vectors = eigh(_alike(unit, unit), subset_by_index=asked_for)
    leading = np.ascontiguousarray(vectors.T)
    return _residual(_alike(asked, unit), leading)


def _some(rows: Wide) -> Wide:
    if len(rows) <= MOST_PLACES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_PLACES).astype(np.int64)]


def _unit(rows: Wide) -> Wide:
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(length, TINY))


@compiled
def _alike(asked: Wide, unit: Wide) -> Wide:
    """Return absolute cosines to rows of length one, ``(n, n_rows)``."""
    n, width = asked.shape
    alike = np.zeros((n, len(unit)))
    for w in range(n):
        length = 0.0
        for d in range(width):
            length += asked[w, d] * asked[w, d]
        length = max(np.sqrt(length), TINY)
        for place in range(len(unit)):
            total = 0.0
            for d in range(width):
                total += asked[w, d] * unit[place, d]
            alike[w, place] = abs(total) / length
    return alike


@compiled
def _distances(asked: Wide, rows: Wide) -> Wide:
    n, width = asked.shape
    far = np.empty((n, len(rows)))
    for w in range(n):
        for place in range(len(rows)):
            total = 0.0
            for d in range(width):
                gap = asked[w, d] - rows[place, d]
                total += gap * gap
            far[w, place] = np.sqrt(total)
    return far


@compiled
def _residual(alike: Wide, leading: Wide) -> Wide:
    """Return what is left of each row, with a 1 behind it, off the orthonormal rows ``leading``."""
    left = np.empty(len(alike))
    for w in range(len(alike)):
        total, explained = 1.0, 0.0
        for place in range(alike.shape[1]):
            total += alike[w, place] * alike[w, place]
        for c in range(len(leading)):
            along = 0.0
            for place in range(alike.shape[1]):
                along += alike[w, place] * leading[c, place]
            explained += along * along
        # Rounding may take it below 0 where nothing is left.
        left[w] = np.sqrt(max(total - explained, 0.0) / total)
    return left


AGAINST: Final[dict[str, Callable[[Wide, Wide], Wide]]] = {
    "memory_mean_similarity": _mean_similarity,
    "memory_trimmed_top_k": _trimmed_top_k,
    "memory_lof": _lof,
    "memory_spectral_residual": _spectral_residual,
}
"""Adapters of the paper with the past in place of the window."""
