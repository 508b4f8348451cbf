"""Statistics of stretches of a window: level, spread, slope, roughness, quantiles, rhythm."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats

TAILS: Final = (0.05, 0.25)
"""Quantiles taken from both ends, beside the median: upside down they change places exactly."""
LAGS: Final = (1, 2, 4, 8)
CYCLES: Final = (1, 2, 4, 8)
"""Cycles per stretch whose amplitudes are taken."""
LEAST: Final = 0.02
"""Added before a logarithm, in scales of the series: below it spreads are alike."""
N_STATISTICS: Final = 4 + 2 * len(TAILS) + 1 + len(LAGS) + len(CYCLES)


class PatchStatistics:
    """Turns scaled windows into vectors of statistics, stretch by stretch.

    Of the whole window and of the half around the judged sample: mean, logarithm of the standard
    deviation, rise of the fitted line, logarithm of the deviation of steps, five quantiles,
    autocorrelation at four lags, logarithm of the amplitude at four frequencies. All stretches
    count alike.

    size : samples per window; at : where the judged sample stands in the window
    """

    def __init__(self, *, size: int, at: int) -> None:
        half = size // 2
        start = min(max(at - half // 2, 0), size - half)
        self._stretches = [(start, half), (0, size)]
        self.n_features = len(self._stretches) * N_STATISTICS

    def columns(self) -> NDArray[np.int64]:
        """Return where each stretch begins in a vector, and where the last ends."""
        return np.arange(len(self._stretches) + 1, dtype=np.int64) * N_STATISTICS

    def embed(self, placed: Floats) -> Floats:
        """Return the vectors of scaled windows without gaps, ``(n_windows, n_variates, n)``.

        placed : float32 ``(n_windows, size, n_variates)``
        """
        n, size, n_variates = placed.shape
        series = np.ascontiguousarray(placed.transpose(0, 2, 1)).reshape(n * n_variates, size)
        vectors = np.empty((n * n_variates, self.n_features), dtype=np.float32)
        for place, (start, length) in enumerate(self._stretches):
            turns = 2 * np.pi * np.outer(CYCLES, np.arange(length)) / length
            waves = np.concatenate([np.cos(turns), np.sin(turns)])
            column = place * N_STATISTICS
            _describe(series, start, length, waves, vectors[:, column : column + N_STATISTICS])
        vectors *= np.float32(1 / np.sqrt(N_STATISTICS))
        return vectors.reshape(n, n_variates, self.n_features)


@compiled
def _describe(
    series: Floats, start: int, length: int, waves: NDArray[np.float64], vectors: Floats
) -> None:
    """Write the statistics of one stretch of ``(n, size)`` series; sums run in float64."""
    apart = np.empty(length, dtype=np.float64)
    n_waves = len(waves) // 2
    middle_place = (length - 1) / 2.0
    line = length * (length * length - 1.0) / 12.0
    for w in range(len(series)):
        x = series[w, start : start + length]
        mean = 0.0
        for i in range(length):
            mean += x[i]
        mean /= length
        power, rise, steps = 0.0, 0.0, 0.0
        for i in range(length):
            apart[i] = x[i] - mean
            power += apart[i] * apart[i]
            rise += (i - middle_place) * apart[i]
            if i > 0:
                steps += (apart[i] - apart[i - 1]) ** 2
        to = vectors[w]
        to[0] = mean
        to[1] = np.log(np.sqrt(power / length) + LEAST)
        to[2] = rise / line * length
        to[3] = np.log(np.sqrt(steps / max(length - 1, 1)) + LEAST)
        ordered = np.sort(x)
        to[4] = (ordered[(length - 1) // 2] + ordered[length // 2]) / 2.0
        at = 5
        for share in TAILS:
            rank = int(share * (length - 1) + 0.5)
            to[at], to[at + 1] = ordered[rank], ordered[length - 1 - rank]
            at += 2
        for lag in LAGS:
            both = 0.0
            for i in range(lag, length):
                both += apart[i] * apart[i - lag]
            # Beside a spread that is lost in noise a rhythm means nothing.
            to[at] = both / (power + LEAST * LEAST * length)
            at += 1
        for f in range(n_waves):
            real, imaginary = 0.0, 0.0
            for i in range(length):
                real += waves[f, i] * apart[i]
                imaginary += waves[n_waves + f, i] * apart[i]
            to[at] = np.log(2.0 * np.sqrt(real * real + imaginary * imaginary) / length + LEAST)
            at += 1
