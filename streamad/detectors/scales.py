"""Series in scales from their median, where a constant past has no scale of its own."""

from __future__ import annotations

import numpy as np

from streamad.compiled import compiled
from streamad.detectors.base import Floats

CLIP = 1e6
"""Scaled samples end here, so that their squares stay finite in float32."""
SCALE_SHARE = 1e-6
"""Smallest scale, as a share of ``|median|``: what float32 can tell apart. Below it a series counts
as constant."""
TINIEST = 1e-30
ROUNDING = np.float32(4 * np.finfo(np.float32).eps)
CONSTANT = 100.0
"""How many scales from a constant past its first departure is."""


def in_scales(values: Floats, loc: Floats, scale: Floats) -> Floats:
    """Return values in scales from the median, missing samples kept; as `place_sample`.

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


def from_scales(placed: Floats, loc: Floats, scale: Floats, observed: Floats) -> Floats:
    """Return expected samples in the unit of the series; what was observed where they are alike.

    Alike is what differs by no more than rounding on the way into scales and back: whether a sample
    lies above or below one of the past that equals it must not be decided by that.

    placed, loc, scale, observed : of one shape, the first in scales; NaN stays

    Examples
    --------
    >>> observed, loc, scale = np.float32([[1000.3], [7]]), np.float32(999.1), np.float32(0.7)
    >>> expected = from_scales(in_scales(observed, loc, scale), loc, scale, observed)
    >>> bool((expected == observed).all())
    True
    """
    back = placed * scale + loc
    rounding = ROUNDING * (np.abs(placed * scale) + np.abs(loc))
    return np.where(np.abs(back - observed) <= rounding, observed, back).astype(np.float32)


def loc_and_scale(series: Floats) -> tuple[Floats, Floats]:
    """Return median and deviation of each variate of ``(n, n_variates)``; 0 and 1 without data."""
    n_variates = series.shape[1]
    loc = np.zeros(n_variates, dtype=np.float32)
    scale = np.ones(n_variates, dtype=np.float32)
    measure(np.ascontiguousarray(series.T), loc, scale)
    return loc, scale


@compiled
def measure(series: Floats, loc: Floats, scale: Floats) -> None:
    """Write median and standard deviation of ``(n_variates, n)``; leave what has no data.

    The deviation is 0 where the series is constant: its first departure decides (`place_sample`).
    Sums run in float64 and in one order, the same for ``fit`` and for a key's warm-up.
    """
    present = np.empty(series.shape[1], dtype=np.float32)
    for v in range(len(series)):
        n = 0
        mean = 0.0
        for i in range(series.shape[1]):
            value = series[v, i]
            if not np.isnan(value):
                present[n] = value
                mean += value
                n += 1
        if n == 0:
            continue
        mean /= n
        spread = 0.0
        for i in range(n):
            spread += (present[i] - mean) * (present[i] - mean)
        middle = (np.float64(_nth(present, n, (n - 1) // 2)) + _nth(present, n, n // 2)) / 2.0
        deviation = np.sqrt(spread / n)
        loc[v] = middle
        constant = deviation <= max(SCALE_SHARE * abs(middle), TINIEST)
        scale[v] = 0.0 if constant else deviation


@compiled
def _nth(values: Floats, n: int, rank: int) -> np.float32:
    """Return the value of a rank among the first ``n``, which are put in another order (Hoare)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return np.float32(values[rank])


@compiled
def place_sample(value: np.float32, loc: np.float32, scale: np.float32) -> np.float32:
    """Return a sample in scales from the median.

    Whatever departs from a constant past (scale 0) is `CONSTANT` scales from it, so that its unit
    does not matter.
    """
    apart = np.float32(value) - np.float32(loc)
    if scale == 0.0:
        if np.isnan(apart) or not (abs(apart) > SCALE_SHARE * abs(loc) and abs(apart) > TINIEST):
            return apart * np.float32(0.0)
        return np.float32(CONSTANT) if apart > 0 else np.float32(-CONSTANT)
    placed = apart / np.float32(scale)
    if placed > CLIP:
        return np.float32(CLIP)
    return np.float32(-CLIP) if placed < -CLIP else placed  # a missing sample stays missing


@compiled
def draw_in(windows: Floats) -> None:
    """Put in each missing sample from its neighbours, in place, by a line; 0 where none is.

    windows : float32 ``(n, size, n_variates)``
    """
    n, size, n_variates = windows.shape
    for w in range(n):
        for v in range(n_variates):
            last = -1
            for i in range(size + 1):
                if i < size and np.isnan(windows[w, i, v]):
                    continue
                if i - last > 1:
                    before = windows[w, last, v] if last >= 0 else np.float32(np.nan)
                    after = windows[w, i, v] if i < size else before
                    before = after if np.isnan(before) else before
                    before = np.float32(0) if np.isnan(before) else before
                    after = before if np.isnan(after) else after
                    for j in range(last + 1, i):
                        share = np.float32(j - last) / np.float32(i - last)
                        windows[w, j, v] = before + share * (after - before)
                last = i


@compiled
def place_samples(values: Floats, loc: np.float32, scale: np.float32, placed: Floats) -> None:
    """Write ``(n,)`` samples in scales from the median: `place_sample` of each, bit for bit."""
    if scale == 0.0:
        for i in range(len(values)):
            placed[i] = place_sample(values[i], loc, scale)
        return
    for i in range(len(values)):
        apart = (values[i] - loc) / scale
        apart = np.float32(CLIP) if apart > CLIP else apart
        placed[i] = np.float32(-CLIP) if apart < -CLIP else apart
