"""Rows that the chosen key throws together: two readings of one key, time and message."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.records import SignalBatch

_TIME, _MESSAGE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def merged_rows(batch: SignalBatch, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows that say of a key and a time what an earlier row of their message said.

    A producer sends a series once in a message: such rows are of several series, of which the key
    keeps too little to tell them apart. They are averaged or left out as late, and look ordinary.

    hashes : of the keys ``(n,)``

    Examples
    --------
    >>> from streamad.testing.batches import make_columns
    >>> from streamad.windows.keys import hashes_of
    >>> batch = make_columns(["a", "a", "b"], [5, 5, 5], [1.0, 2.0, 3.0], per_message=3)
    >>> merged_rows(batch, hashes_of(batch.keys)[0]).tolist()
    [1]
    """
    message = batch.message
    if (message[1:] > message[:-1]).all():
        return np.empty(0, np.int64)
    with np.errstate(over="ignore"):
        code = batch.time_ms.astype(np.uint64)
        code *= _TIME
        code ^= hashes
        code ^= message.astype(np.uint64) * _MESSAGE
    # To sort is several times quicker than to say how, and as a rule there is nothing to tell.
    ranked = np.sort(code)
    if not (ranked[1:] == ranked[:-1]).any():
        return np.empty(0, np.int64)
    order = np.argsort(code, kind="stable")
    twice = np.flatnonzero(code[order[1:]] == code[order[:-1]])
    one, two = order[twice], order[twice + 1]
    # Variates of one sample may come as rows of their own.
    known = np.isfinite(batch.values)
    return np.sort(two[(known[one] & known[two]).any(axis=1)])
