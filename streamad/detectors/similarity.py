"""How much a patch is like the others of its window: the adapters of THEMIS.

Each takes embeddings ``(n_windows, n_patches, width)`` and gives one score a patch,
``(n_windows, n_patches)``, higher where a patch resembles the rest less. Source: Lorik et al.,
"THEMIS", arXiv 2510.03911 (2025); no code was published, so details are a reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Floats

TOP_SHARE: Final = 0.1
"""Share of a window's patches the trimmed adapter compares with, at least two."""
N_NEIGHBOURS: Final = 5
N_COMPONENTS: Final = 2
"""Eigenvectors taken for what is usual in a window; reported to matter little from 2 on."""
TINY: Final = 1e-6


def similarity(embeddings: Floats) -> NDArray[np.float64]:
    """Return the absolute cosines between patches, ``(n_windows, n_patches, n_patches)``.

    Embeddings are centred first: they share a large common part, and without that all cosines
    would be near 1.
    """
    centred = _centred(embeddings)
    length = np.sqrt((centred * centred).sum(axis=2, keepdims=True))
    unit = centred / np.maximum(length, TINY)
    return np.asarray(np.abs(np.matmul(unit, unit.transpose(0, 2, 1))))


def mean_similarity(embeddings: Floats) -> Floats:
    """Score a patch by one minus its mean similarity to the others."""
    alike = similarity(embeddings)
    n = alike.shape[1]
    others = (alike.sum(axis=2) - np.diagonal(alike, axis1=1, axis2=2)) / max(n - 1, 1)
    return np.asarray(1.0 - others, dtype=np.float32)


def trimmed_top_k(embeddings: Floats) -> Floats:
    """Score a patch by one minus its mean similarity to those most like it."""
    alike = similarity(embeddings)
    n = alike.shape[1]
    alike[:, np.arange(n), np.arange(n)] = -1.0
    k = min(max(2, round(TOP_SHARE * n)), max(n - 1, 1))
    nearest = np.sort(alike, axis=2)[:, :, ::-1][:, :, :k].mean(axis=2)
    return np.asarray(1.0 - nearest, dtype=np.float32)


def local_outlier_factor(embeddings: Floats) -> Floats:
    """Score a patch by how much sparser its neighbourhood is than its neighbours' (1 = alike)."""
    rows = _centred(embeddings)
    n = rows.shape[1]
    k = min(N_NEIGHBOURS, n - 1)
    if k < 1:
        return np.ones(rows.shape[:2], dtype=np.float32)
    gaps = rows[:, :, None] - rows[:, None]
    distance = np.sqrt((gaps * gaps).sum(axis=3))
    distance[:, np.arange(n), np.arange(n)] = np.inf
    near = np.argsort(distance, axis=2, kind="stable")[:, :, :k]
    to_near = np.take_along_axis(distance, near, axis=2)
    radius = to_near[:, :, -1]
    windows = np.arange(len(rows))[:, None, None]
    reach = np.maximum(to_near, radius[windows, near]).mean(axis=2)
    # A floor relative to the window: equal patches must not divide nothing by nothing.
    floor = TINY + 1e-3 * np.sqrt((rows * rows).sum(axis=2)).mean(axis=1, keepdims=True)
    density = 1.0 / np.maximum(reach, floor)
    ratio = density[windows, near].mean(axis=2) / density
    return np.asarray(ratio, dtype=np.float32)


def spectral_residual(embeddings: Floats) -> Floats:
    """Score a patch by what the leading eigenvectors of the similarity leave unexplained of it."""
    alike = similarity(embeddings)
    values, vectors = np.linalg.eigh(alike)
    k = min(N_COMPONENTS, alike.shape[1])
    kept = vectors[:, :, -k:] * values[:, None, -k:]
    residual = alike - np.matmul(kept, vectors[:, :, -k:].transpose(0, 2, 1))
    return np.asarray(np.sqrt((residual * residual).sum(axis=2)), dtype=np.float32)


def _centred(embeddings: Floats) -> NDArray[np.float64]:
    wide = embeddings.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=1, keepdims=True))


ADAPTERS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mean_similarity": mean_similarity,
    "trimmed_top_k": trimmed_top_k,
    "lof": local_outlier_factor,
    "spectral_residual": spectral_residual,
}
