"""The score of the Numenta Anomaly Benchmark, on the rows at which alerts opened.

Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly
Benchmark", ICMLA 2015. Of each labelled window the earliest detection counts, the more the earlier
it came; every detection outside costs, the more the farther behind the last window it came; every
window without a detection costs. Here a detection is a row at which an alert *opened*, with the lag
of its detector in it, and nothing is tuned: figures of the benchmark's own board are those of the
threshold that suits all its labels best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FAR = 3.0
"""So many widths of a window behind its end a detection costs all it can."""


class Costs(NamedTuple):
    """What a detection in a window, one outside, and a window without any weigh."""

    found: float
    false: float
    missed: float


PROFILES = {
    "standard": Costs(found=1.0, false=0.11, missed=1.0),
    "reward_low_FP": Costs(found=1.0, false=0.22, missed=1.0),
    "reward_low_FN": Costs(found=1.0, false=0.11, missed=2.0),
}


class NabParts(NamedTuple):
    """What one series adds to the score of many; see `nab_score`.

    earned : sum over found windows, 0 .. 1 each; charged : sum over detections outside, 0 .. -1
    each; missed : windows without a detection; windows : all of them
    """

    earned: float
    charged: float
    missed: int
    windows: int


def scaled_sigmoid(position: float) -> float:
    """Return the worth of a detection, 1 .. -1.

    position : in widths of a window, from -1 at its first row over 0 at its end to what lies behind

    Examples
    --------
    >>> [round(scaled_sigmoid(p), 5) for p in (-1.0, -0.5, 0.0, 1.0, 3.0)]
    [0.98661, 0.84828, 0.0, -0.98661, -1.0]
    """
    return -1.0 if position >= FAR else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def nab_parts(labels: ArrayLike, detections: ArrayLike) -> NabParts:
    """Return what the detections of one series earn and cost.

    Parameters
    ----------
    labels : ``(n,)``, 0 or 1; a run of ones is a window
    detections : rows at which something was detected, each in ``0 .. n-1``

    Raises
    ------
    ValueError : a detection is no row of the series

    Examples
    --------
    >>> nab_parts([0, 0, 1, 1, 1, 1, 0, 0], [2])
    NabParts(earned=1.0, charged=0.0, missed=0, windows=1)
    >>> nab_parts([0, 0, 1, 1, 1, 1, 0, 0], [0])
    NabParts(earned=0.0, charged=-1.0, missed=1, windows=1)
    """
    truth = np.asarray(labels) > 0
    rows = np.unique(np.asarray(detections, dtype=np.int64))
    if len(rows) and not 0 <= rows[0] <= rows[-1] < len(truth):
        msg = f"detections must be rows 0 .. {len(truth) - 1}, got {rows[0]} .. {rows[-1]}"
        raise ValueError(msg)
    edges = np.flatnonzero(np.diff(truth.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    at = np.searchsorted(starts, rows, side="right") - 1
    inside = (at >= 0) & (rows < stops[np.maximum(at, 0)]) if len(starts) else at > 0
    best = _earned(rows[inside], at[inside], starts, stops)
    return NabParts(
        earned=float(sum(best.values())),
        charged=float(sum(_charged(rows[~inside], at[~inside], starts, stops))),
        missed=len(starts) - len(best),
        windows=len(starts),
    )


def nab_score(parts: Iterable[NabParts], profile: str = "standard") -> float:
    """Return the score over all series: 100 for every window found at its first row, 0 for silence.

    Many false detections bring it below 0. NaN where no series has a window.

    Examples
    --------
    >>> nab_score([NabParts(1.0, 0.0, 0, 1)]), nab_score([NabParts(0.0, 0.0, 1, 1)])
    (100.0, 0.0)
    >>> nab_score([NabParts(1.0, -1.0, 1, 2)], "reward_low_FP")
    44.5
    """
    costs, every = PROFILES[profile], list(parts)
    windows = sum(one.windows for one in every)
    if windows == 0:
        return math.nan
    silent, perfect = -costs.missed * windows, costs.found * windows
    score = sum(
        costs.found * one.earned + costs.false * one.charged - costs.missed * one.missed
        for one in every
    )
    return round(100.0 * (score - silent) / (perfect - silent), 6)


def _earned(
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> dict[int, float]:
    """Return of each window that was found what its best detection, the first, is worth."""
    best: dict[int, float] = {}
    for row, window in zip(rows.tolist(), at.tolist(), strict=True):
        if window not in best:
            width = int(stops[window] - starts[window])
            best[window] = scaled_sigmoid(-(stops[window] - row) / width) / scaled_sigmoid(-1.0)
    return best


def _charged(
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> Iterable[float]:
    """Yield what each detection outside costs: little just behind a window, 1 far from any."""
    for row, window in zip(rows.tolist(), at.tolist(), strict=True):
        if window < 0:
            yield -1.0
            continue
        # The benchmark measures from the last row of a window of more than one.
        width = int(stops[window] - starts[window]) - 1
        yield scaled_sigmoid((row - int(stops[window]) + 1) / width if width else FAR)
