"""Windows that end with a break in their series, not where it was going anyway.

On the first day of a key each hour shows values for the first time, and a distance to what was seen
before is large whenever a morning's load rises. What is known of a new key is how it moves: its
next values lie about the line through its last ones. A break leaves that line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.scoring.sudden_kernels import find_breaks

TAILS = (4, 8)
BEFORE = 32
"""Samples of the line, and the newest samples that are compared with it."""
BREAK = 6.0
"""Standard errors of the prediction, by a least-squares line, from which on it is a break: of a
mean, or of one of as many samples as the shortest tail has."""


def sudden(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which windows ``(n, size, v)`` end with a break of any variate.

    Too few samples, or missing ones, cannot be judged: such windows count as sudden.
    """
    found = np.zeros(len(values), np.bool_)
    find_breaks(values, np.array(TAILS, np.int64), BEFORE, BREAK, found)
    return found
