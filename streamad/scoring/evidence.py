"""Weak evidence of one key adds up: a burst of mildly odd events, none of which is rare by itself.

The look at an event's own score sees one event. A second look sees their sum: what each score has
beyond `ORDINARY`, added up without ever falling below zero (Page, Continuous Inspection Schemes,
1954), and fading: half of it is left after `HALF_LIFE_MS` without an event. Scores of events are
decades of a probability, so that an ordinary key stays near zero, however many events it has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.scoring.sudden_kernels import sum_evidence

HALF_LIFE_MS = 600_000
ORDINARY = 1.0
"""Decades that an event may have without being evidence: one in ten has as many."""
MOST = 1e6
_SETTINGS = np.array([HALF_LIFE_MS, ORDINARY, MOST])


def add_up(
    codes: NDArray[np.int32],
    score: NDArray[np.float32],
    end_ms: NDArray[np.int64],
    total: NDArray[np.float64],
    total_ms: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the evidence of each event's key after it ``(n,)``; NaN where it has no score.

    total, total_ms : of each key by its code, and when; written

    Examples
    --------
    >>> total, at = np.zeros(1), np.zeros(1, np.int64)
    >>> mild = np.full(4, 1.5, np.float32)
    >>> add_up(np.zeros(4, np.int32), mild, np.arange(4), total, at).round(2).tolist()
    [0.5, 1.0, 1.5, 2.0]
    """
    out = np.empty(len(codes), np.float32)
    sum_evidence(codes, score, end_ms, _SETTINGS, total, total_ms, out)
    return out
