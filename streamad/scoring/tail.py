"""Peaks over threshold: from raw scores to tail probabilities under a key's own recent normal.

The tail above the 32nd largest recent score is a generalised Pareto distribution (Pickands 1975;
Siffer et al. 2017 for streams), fitted by moments because that is closed form: 17 ms for a maximum
likelihood fit has no place in a stream. A cold key starts from its detector's default tail, entered
as pseudo-scores, and leaves it behind as its own epochs fill.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

TOP = 32
"""Largest scores kept an epoch."""
PRIOR_WINDOWS = 320
"""How many windows of history the default tail counts for: its top tenth are `TOP` scores."""
TAIL_PROBABILITIES = (1e-1, 1e-2, 1e-3, 1e-4)


def prior_scores(tail: tuple[float, ...]) -> NDArray[np.float32]:
    """Return ``TOP`` pseudo-scores that stand for a detector's default tail, descending.

    tail : raw scores at `TAIL_PROBABILITIES`, ascending; between them the score is linear in
        log(p), as it is for an exponential tail.
    """
    p = (np.arange(TOP) + 0.5) / PRIOR_WINDOWS
    at = np.log(np.array(TAIL_PROBABILITIES))[::-1]
    return np.interp(np.log(p), at, np.array(tail)[::-1]).astype(np.float32)


@compiled
def fit_tail(
    scores: NDArray[np.float32],
    n_windows: float,
    floor_u: float,
    floor_sigma: float,
    out: NDArray[np.float64],
) -> None:
    """Fit the tail of ``scores`` (the largest of ``n_windows``) into ``out``: u, sigma, xi, rate.

    Moments (Hosking & Wallis 1987): xi = (1 - m^2/s^2)/2, sigma = m (m^2/s^2 + 1)/2, with mean m
    and variance s^2 of the excesses. ``floor_u`` and ``floor_sigma`` keep a key whose scores never
    move from calling the first stir a catastrophe.
    """
    n = len(scores)
    u = scores[0]
    for i in range(1, n):
        u = min(u, scores[i])
    mean = 0.0
    for i in range(n):
        mean += scores[i] - u
    mean /= n
    variance = 0.0
    for i in range(n):
        d = scores[i] - u - mean
        variance += d * d
    variance /= n
    xi, sigma = 0.0, mean
    if variance > 0.0 and mean > 0.0:
        ratio = mean * mean / variance
        xi = min(0.4, max(-0.3, 0.5 * (1.0 - ratio)))
        # With a clamped shape, the scale that keeps the mean.
        sigma = mean * (1.0 - xi)
    out[0] = max(u, floor_u)
    out[1] = max(sigma, floor_sigma)
    out[2] = xi
    out[3] = n / n_windows


@compiled
def p_value(score: float, u: float, sigma: float, xi: float, rate: float) -> float:
    """Return the probability of a score at least this high on an ordinary window."""
    if score <= u:
        if u <= 0.0:
            return 1.0
        return max(rate, 1.0 - (1.0 - rate) * max(score, 0.0) / u)
    y = (score - u) / sigma
    if abs(xi) < 1e-6:
        return max(1e-12, rate * math.exp(-y))
    base = 1.0 + xi * y
    # A bounded tail (xi < 0) has an end; beyond it the fit says "impossible", which we do not.
    if base <= 1e-9:
        return 1e-12
    return max(1e-12, rate * math.pow(base, -1.0 / xi))


@compiled
def level_at(p: float, u: float, sigma: float, xi: float, rate: float) -> float:
    """Return the score whose tail probability is ``p``: the inverse of `p_value`."""
    if p >= rate:
        return u * (1.0 - p) / (1.0 - rate) if rate < 1.0 else u
    if abs(xi) < 1e-6:
        return u + sigma * math.log(rate / p)
    return u + sigma / xi * (math.pow(p / rate, -xi) - 1.0)
