"""Training windows as the series they were cut from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Floats
from streamad.detectors.knn.kernels import strides_of


def stitched(windows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Turn the windows of a group back into a series ``(n, n_variates)`` and a mask of use.

    Windows that do not overlap are parted by one unusable sample.
    """
    size = windows.shape[1]
    strides = strides_of(windows)
    is_new = np.arange(size) >= size - strides[:, None]
    series = windows[is_new]
    begins = np.cumsum(strides) - strides
    gaps = begins[1:][strides[1:] == size]
    series = np.insert(series, gaps, np.float32(np.nan), axis=0)
    return series, ~np.isnan(series).any(axis=1)


def joined(pieces: list[tuple[Floats, NDArray[np.bool_]]]) -> tuple[Floats, NDArray[np.bool_]]:
    """Join series ``(n, n_variates)`` and their masks, one unusable sample between two."""
    gap = (np.zeros((1, pieces[0][0].shape[1]), dtype=np.float32), np.zeros(1, dtype=np.bool_))
    parts = [part for piece in pieces for part in (piece, gap)][:-1]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
