"""Windows compared with themselves alone: the adapters of the paper, without any past."""

from __future__ import annotations

from typing import Final

import numpy as np

from streamad.detectors.base import Floats
from streamad.detectors.embeddings import Encoder, own_scale
from streamad.detectors.similarity import ADAPTERS
from streamad.detectors.themis.features import CONTEXT, averaged

MOST: Final = 1e3
"""Score of a patch that is infinitely unlike the others."""


def compare_within(windows: Floats, *, encoder: Encoder, adapter: str, lag: int) -> Floats:
    """Return each variate's score of the judged patch against its own window's patches."""
    n, size, n_variates = windows.shape
    series = np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(n * n_variates, size)
    factor = -(-size // CONTEXT)
    tokens = encoder.embed(own_scale(averaged(series, factor)))
    patch = tokens.shape[1] - 1 - lag // (factor * encoder.patch_size)
    scores = ADAPTERS[adapter](tokens)[:, max(patch, 0)]
    return np.nan_to_num(scores.reshape(n, n_variates), posinf=MOST)


def middle(windows: Floats) -> Floats:
    """Return each window's median a variate, 0 where it has no sample."""
    ordered = np.sort(windows, axis=1)  # NaN last
    n_seen = (~np.isnan(windows)).sum(axis=1, keepdims=True)
    median = np.take_along_axis(ordered, np.maximum(n_seen - 1, 0) // 2, axis=1)[:, 0]
    return np.nan_to_num(median).astype(np.float32)
