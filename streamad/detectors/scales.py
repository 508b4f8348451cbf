"""Series in scales from their median, where a constant past has no scale of its own."""

from __future__ import annotations

import numpy as np

from streamad.detectors.base import Floats
from streamad.detectors.knn_kernels import CLIP, CONSTANT, SCALE_SHARE, TINIEST


def in_scales(values: Floats, loc: Floats, scale: Floats) -> Floats:
    """Return values in scales from the median, missing samples kept; as `knn_kernels._place`.

    loc, scale : broadcast to ``values``; scale 0 stands for a constant past, from which every
        departure is `CONSTANT` scales away, so that its unit does not matter

    Examples
    --------
    >>> one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> in_scales(np.array([1, 3], np.float32), one, 2 * one).tolist()
    [0.0, 1.0]
    >>> in_scales(np.array([1, 1.5, 0], np.float32), one, zero).tolist()
    [0.0, 100.0, -100.0]
    """
    apart = (values - loc).astype(np.float32)
    still = scale == 0
    noise = np.maximum(SCALE_SHARE * np.abs(loc), TINIEST)
    leap = np.where(np.abs(apart) <= noise, 0.0 * apart, np.sign(apart) * CONSTANT)
    scaled = np.clip(apart / np.where(still, 1, scale), -CLIP, CLIP)
    return np.where(still, leap, scaled).astype(np.float32)
