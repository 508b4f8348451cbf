"""How sure is a mean over series? Bootstrap intervals, and differences of pairs.

Series differ far more from one another than detectors do on one: two means whose intervals overlap
may differ on nearly every series. So detectors are compared pair by pair.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_DRAWS = 4_000
SURE = 0.95
BATCH = 500
"""Draws at once: 500 of a thousand series are 4 MB."""


class Interval(NamedTuple):
    """A figure, the bounds of its 95 % interval, and the number of series it is of."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Return the mean of one value per series, NaN ones left out, with its percentile interval.

    Series are drawn with replacement (Efron, 1979). One series has no interval: its bounds are NaN.

    Examples
    --------
    >>> mean_interval([0.5, 0.5, float("nan")])
    Interval(value=0.5, low=0.5, high=0.5, n=2)
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return ratio_interval(known, np.ones(len(known)), seed=seed)


def ratio_interval(above: ArrayLike, below: ArrayLike, *, seed: int = 0) -> Interval:
    """Return a ratio of two sums over series: found of all anomalies, false alerts of all weeks.

    above, below : ``(n,)`` each, a value per series; series with 0 below are left out

    Examples
    --------
    >>> ratio_interval([1, 3], [2, 6]).value
    0.5
    """
    tops, bottoms = (np.asarray(one, dtype=np.float64) for one in (above, below))
    if tops.shape != bottoms.shape or tops.ndim != 1:
        msg = f"both must have one value per series, got {tops.shape} and {bottoms.shape}"
        raise ValueError(msg)
    use = np.isfinite(tops) & np.isfinite(bottoms) & (bottoms > 0)
    tops, bottoms = tops[use], bottoms[use]
    n = len(tops)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(tops.sum() / bottoms.sum())
    if n == 1:
        return Interval(value, math.nan, math.nan, 1)
    low, high = np.quantile(_drawn(tops, bottoms, seed), [(1 - SURE) / 2, (1 + SURE) / 2])
    return Interval(value, float(low), float(high), n)


def paired_difference(values: ArrayLike, reference: ArrayLike, *, seed: int = 0) -> Interval:
    """Return the mean of ``values - reference`` over the series that both have.

    Where the interval does not hold 0 the difference is more than the choice of series.

    Examples
    --------
    >>> paired_difference([0.5, 0.75, float("nan")], [0.25, 0.5, 0.9])
    Interval(value=0.25, low=0.25, high=0.25, n=2)
    """
    ours, theirs = (np.asarray(one, dtype=np.float64) for one in (values, reference))
    if ours.shape != theirs.shape:
        msg = f"pairs must be of the same series, got {ours.shape} and {theirs.shape}"
        raise ValueError(msg)
    return mean_interval(ours - theirs, seed=seed)


def _drawn(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    rng, n = np.random.default_rng(seed), len(tops)
    made = []
    for begin in range(0, N_DRAWS, BATCH):
        chosen = rng.integers(0, n, (min(BATCH, N_DRAWS - begin), n))
        made.append(tops[chosen].sum(axis=1) / bottoms[chosen].sum(axis=1))
    return np.concatenate(made)
