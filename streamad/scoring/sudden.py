"""Is what a window ends with a break in its series, or where the series was going anyway?

On the first day of a key each hour shows values for the first time, and a distance to what was seen
before is large whenever a morning's load rises. What is known of a new key is how it moves: its
next values lie about the line through its last ones. A break leaves that line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

TAILS = (4, 8)
BEFORE = 32
"""Samples of the line, and the newest samples that are compared with it."""
BREAK = 6.0
"""Standard errors of the prediction (that of a mean, by a least-squares line) from which on it is
a break."""


def sudden(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which windows ``(n, size, v)`` end with a break of any variate.

    Too few samples, or missing ones, cannot be judged: such windows count as sudden.
    """
    found = np.zeros(len(values), np.bool_)
    _sudden(values, np.array(TAILS, np.int64), BEFORE, BREAK, found)
    return found


# One sample after the other: what a window yields must not depend on its neighbours, to the bit.
@compiled
def _sudden(values, tails, most_before, limit, found):
    n, size, v = values.shape
    for i in range(n):
        told = False
        for j in range(v):
            for tail in tails:
                before = min(most_before, size - tail)
                if told or before < 2 * tail:
                    told = told or tail == tails[0]
                    continue
                start = size - tail - before
                middle, mean = (before - 1) / 2.0, 0.0
                for a in range(before):
                    mean += values[i, start + a, j]
                mean /= before
                slope, spread = 0.0, 0.0
                for a in range(before):
                    slope += (a - middle) * (values[i, start + a, j] - mean)
                    spread += (a - middle) ** 2
                slope /= spread
                rest = 0.0
                for a in range(before):
                    rest += (values[i, start + a, j] - mean - slope * (a - middle)) ** 2
                newest = 0.0
                for a in range(tail):
                    newest += values[i, size - tail + a, j]
                ahead = before + (tail - 1) / 2.0 - middle
                off = newest / tail - mean - slope * ahead
                share = 1.0 / tail + 1.0 / before + ahead * ahead / spread
                # Not at most: what is no number is no line either.
                told = not off * off <= limit * limit * share * rest / (before - 2)
        found[i] = told
