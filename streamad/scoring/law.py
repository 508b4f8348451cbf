"""The law of a key's block maxima: from evidence to tail probability, robust and never exhausted.

Scores of overlapping windows come in clusters, so a tail fitted to them describes one excursion.
The maxima of blocks that are at least a window long are close to independent; their law is a Gumbel
distribution (Fisher & Tippett 1928; Gumbel 1958) fitted by median and quartiles, which a few
anomalies cannot move. Beyond `JOIN` the tail is a power law: excursions of real series are heavier
than Gumbel, and a probability that falls exponentially would promise what no history can support.
It never reaches zero, so that what is stranger always has the smaller probability.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

N_PRIOR = 8
"""Blocks a default law counts for; half a block of it fades with each of the key's own."""
JOIN_P = 0.05
JOIN = -math.log(-math.log1p(-JOIN_P))
"""Where the power law takes over: the level one block in twenty reaches."""
POWER = 0.7
"""Exponent of the tail beyond, measured on ordinary rows of labelled series."""
LEAST_SPREAD = 0.2
"""Least scale of a law, as a share of its median: maxima that hardly vary say little."""
PRIOR_FLOOR = 0.25
"""Least scale, as a share of the default law's."""
ROW_FLOOR = 1.0
"""The same of rows that are judged one by one: their scores are decades of a probability, and most
keys have nothing but zeros; what is a little above them is not rare."""
LOWEST = 30.0
MEDIAN = -math.log(math.log(2))
QUARTILES = -math.log(-math.log(0.75)) + math.log(-math.log(0.25))
TAIL_PROBABILITIES = (1e-1, 1e-2, 1e-3, 1e-4)
CLUSTER_SHARE = 0.25
"""Length of a cluster of exceedances, as a share of the window's length."""


@compiled
def box_cox(x: float, power: float) -> float:
    """Return ``((1 + x) ^ power - 1) / power`` (Box & Cox 1964); 0 and less, and power 1, as is.

    Detectors whose ordinary scores have heavier maxima than a Gumbel law (`DetectorInfo.power`) are
    judged by this: it keeps the order, and 0, and draws in what is large.
    """
    if power == 1.0 or x <= 0.0:
        return x
    return math.expm1(power * math.log1p(x)) / power


def from_box_cox(y: float, power: float) -> float:
    """Return the x whose `box_cox` is ``y``.

    Examples
    --------
    >>> box_cox(8.0, 0.5), round(from_box_cox(4.0, 0.5), 6), from_box_cox(box_cox(3.0, 1.0), 1.0)
    (4.0, 8.0, 3.0)
    """
    return y if power == 1.0 or y <= 0.0 else math.expm1(math.log1p(power * y) / power)


@compiled
def position(block_p: float) -> float:
    """Return the standard position that a block's maximum exceeds with probability ``block_p``."""
    if block_p >= 1.0:
        return -LOWEST
    if block_p >= JOIN_P:
        return -math.log(-math.log1p(-block_p))
    return JOIN + POWER * (math.pow(block_p / JOIN_P, -1.0 / POWER) - 1.0)


def block_probability(p: float, *, share: float) -> float:
    """Return the probability of a block's maximum for that of a window.

    share : length of a cluster of exceedances in blocks; see `probability`.
    """
    return -math.expm1(math.log1p(-p) / share) if p < 1.0 else 1.0


@compiled
def probability(z: float, share: float) -> float:
    """Return the probability that an ordinary window lies at or above a standard position.

    A block whose maximum exceeds ``z`` holds a cluster of windows that do, ``share`` of the block:
    p = 1 - (1 - P(block))^share. Finite, above 0, and strictly falling in ``z``.
    """
    if z <= JOIN:
        rate = math.exp(-max(z, -LOWEST))
    else:
        rate = -math.log1p(-JOIN_P * math.pow(1.0 + (z - JOIN) / POWER, -POWER))
    return max(-math.expm1(-share * rate), 1e-37)


def law_of_tail(tail: tuple[float, ...], *, share: float = CLUSTER_SHARE) -> tuple[float, float]:
    """Return the law (location, scale) a detector's default tail stands for.

    tail : scores at `TAIL_PROBABILITIES` of a window, or of a row that is judged by itself
    share : length of a cluster of exceedances in blocks; see `probability`. The law is made to hold
        at 1e-1 and 1e-2 of windows; of rows, by the tail between 1e-2 and 1e-3.
    """
    if share < CLUSTER_SHARE:
        # The maximum of many rows with an exponential tail: exactly a Gumbel law (Gumbel 1958).
        scale = max((tail[2] - tail[1]) / math.log(10), 1e-6)
        return tail[1] + scale * math.log(TAIL_PROBABILITIES[1] / share), scale
    low, high = (position(block_probability(p, share=share)) for p in TAIL_PROBABILITIES[:2])
    scale = max((tail[1] - tail[0]) / (high - low), 1e-6)
    return tail[0] - scale * low, scale


def tail_of_law(location: float, scale: float) -> tuple[float, float, float, float]:
    """Return the scores at `TAIL_PROBABILITIES` under a law: what an artifact's manifest says."""
    a, b, c, d = (
        location + scale * position(block_probability(p, share=CLUSTER_SHARE))
        for p in TAIL_PROBABILITIES
    )
    return a, b, c, d


@compiled
def quantile(ordered: NDArray[np.float32], q: float) -> float:
    """Return a quantile of ascending values, linear between them."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


@compiled
def fit_law(
    maxima: NDArray[np.float32],
    prior_location: float,
    prior_scale: float,
    floor: float = PRIOR_FLOOR,
) -> tuple[float, float]:
    """Fit location and scale to block maxima and what is left of the default law.

    maxima : ``(n,)``, in any order; may be empty; floor : least scale, as a share of prior_scale
    """
    n = len(maxima)
    n_prior = max(0, N_PRIOR - n // 2)
    pool = np.empty(n + n_prior, np.float32)
    pool[:n] = maxima
    for i in range(n_prior):
        pool[n + i] = prior_location - prior_scale * math.log(-math.log((i + 0.5) / n_prior))
    pool.sort()
    middle = quantile(pool, 0.5)
    scale = (quantile(pool, 0.75) - quantile(pool, 0.25)) / QUARTILES
    scale = max(scale, LEAST_SPREAD * abs(middle), floor * prior_scale)
    return middle - MEDIAN * scale, scale
