"""How long should a window be? As long as the period of the series it is cut from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MIN_SIZE, MAX_SIZE = 32, 125
MAX_SHARE = 8
"""A window spans at most this part (an eighth) of the rows it is learned from."""
MIN_PERIOD = 3
MAX_LAG = 2000
MIN_RISE = 0.2
"""What a peak of the autocorrelation must rise above the dip before it, or it is taken for noise
on a slow decay."""
NEAR_BEST = 0.9


def period_of(values: NDArray[np.float64]) -> int:
    """Return the period of one series in samples, 0 where it has none.

    It is the lag of the highest peak of the autocorrelation, from 3 samples up; the first of
    several that rise nearly as high from the dip before them, since multiples of a period peak too.

    Parameters
    ----------
    values : ``(n,)``, evenly spaced; missing samples are drawn in from their neighbours

    Examples
    --------
    >>> period_of(np.sin(2 * np.pi * np.arange(500) / 50))
    50
    """
    n_lags = min(len(values) // 2, MAX_LAG)
    if n_lags <= MIN_PERIOD:
        return 0
    acf = _autocorrelation(values, n_lags)
    rise = acf - np.minimum.accumulate(acf)
    inner = acf[1:-1]
    peaks = np.flatnonzero((inner > acf[:-2]) & (inner >= acf[2:])) + 1
    peaks = peaks[(peaks >= MIN_PERIOD) & (rise[peaks] >= MIN_RISE)]
    if len(peaks) == 0:
        return 0
    first = int(peaks[rise[peaks] >= NEAR_BEST * rise[peaks].max()][0])
    # Noise makes small peaks on the flank of the real one: climb on, short of the next multiple.
    return first + int(np.argmax(acf[first : first + first // 2]))


def choose_size(
    series: Sequence[NDArray[np.float64]], *, default: int, n_rows: int | None = None
) -> int:
    """Return the window size that suits training series: their median period within bounds.

    Bounds are 32 to 125 samples and an eighth of the rows; ``default``, within them, where no
    series has a period.

    Parameters
    ----------
    series : each ``(n,)`` or ``(n, n_variates)``, in time order, evenly spaced
    default : samples
    n_rows : rows there will be where that is known (None: as many as the longest series has)

    Examples
    --------
    >>> wave = np.sin(2 * np.pi * np.arange(2000) / 50)
    >>> choose_size([wave, np.ones(100)], default=64)
    50
    """
    columns = [c for s in series for c in np.asarray(s, dtype=np.float64).reshape(len(s), -1).T]
    periods = [p for p in map(period_of, columns) if p > 0]
    wanted = int(np.median(periods)) if periods else default
    rows = max((len(s) for s in series), default=0) if n_rows is None else n_rows
    return max(min(max(wanted, MIN_SIZE), MAX_SIZE, rows // MAX_SHARE), MIN_PERIOD)


def _autocorrelation(values: NDArray[np.float64], n_lags: int) -> NDArray[np.float64]:
    """Return the biased autocorrelation at lags ``0 .. n_lags-1``; zeros for a constant series."""
    present = np.isfinite(values)
    if not present.any():
        return np.zeros(n_lags)
    rows = np.arange(len(values))
    filled = np.interp(rows, rows[present], values[present])
    centred = filled - filled.mean()
    peak = np.abs(centred).max()
    if peak == 0.0:
        return np.zeros(n_lags)
    centred /= peak
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    acf = np.fft.irfft(np.abs(spectrum) ** 2)[:n_lags]
    return np.asarray(acf / acf[0])
