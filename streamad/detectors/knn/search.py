"""Exact search of the nearest neighbours of a stretch in a history, compiled.

Sums run over the samples of a window in one fixed order in float32, whatever the batch, the place
in the history or the width of the processor's vectors: a window scores the same bits alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats, Ints

BLOCK = 128
"""Places of a history compared at once."""
CHUNK = 8
"""Samples compared before a block is given up where all its places are too far already; `_add`
spells them out."""
FEW = 4
"""Places left in a block below which each is finished on its own."""
PAD = BLOCK + CHUNK
"""Room (with a window's length) behind the end of a history, so that blocks may run over it."""
History = tuple[Floats, Ints, int]
"""Scaled samples ``(n_variates, n + room)``, usable samples from each place on, and ``n``."""
Part = tuple[int, int, int]
"""Of a query: first sample of a stretch, one past its last, and how many are present in it."""


@compiled
def distance_of(
    query: Floats,
    part: Part,
    lived: History,
    reference: History,
    near: Floats,
    places: NDArray[np.int64],
) -> np.float32:
    """Return the distance of a stretch to its nearest ones; to the median where there are none."""
    for i in range(len(near)):
        near[i] = np.inf
        places[i] = -1
    offset = 0
    for history in (lived, reference):  # one call, or the kernel would be compiled in twice
        _nearest(query, part, history, near, places, offset)
        offset += max(history[2], 0)
    if places[0] < 0:
        total = np.float32(0.0)
        for v in range(len(query)):
            for i in range(part[0], part[1]):
                if not np.isnan(query[v, i]):
                    total += query[v, i] * query[v, i]
        near[0] = total
    return _mean_root(near, part[2])


@compiled
def count_present(query: Floats, start: int, stop: int) -> int:
    """Return how many values of a stretch are present."""
    n = 0
    for v in range(len(query)):
        for i in range(start, stop):
            n += not np.isnan(query[v, i])
    return n


@compiled
def _mean_root(near: Floats, n_present: int) -> np.float32:
    """Return the mean over the neighbours found of the root mean square difference."""
    total = np.float32(0.0)
    n_found = 0
    for i in range(len(near)):
        if near[i] < np.inf:
            total += np.sqrt(near[i] / np.float32(n_present))
            n_found += 1
    return total / np.float32(n_found)


@compiled
def _nearest(
    query: Floats,
    part: Part,
    history: History,
    near: Floats,
    places: NDArray[np.int64],
    offset: int,
) -> None:
    """Improve the k smallest squared distances, and their places, by those in one history.

    Exact: a block of places is given up only where none of them can be among the k nearest.
    """
    samples, runs, n_places = history
    farthest = len(near) - 1
    length = part[1] - part[0]
    sums = np.empty(BLOCK, dtype=np.float32)
    for first in range(0, n_places, BLOCK):
        for q in range(BLOCK):
            open_ = first + q < n_places and runs[first + q] >= length
            sums[q] = 0.0 if open_ else np.inf
        step = _add_block(sums, query, part, samples, first, near[farthest])
        for q in range(BLOCK):
            if sums[q] < near[farthest]:
                place = first + q
                total = _finish((sums[q], near[farthest]), query, part, samples, place, step)
                if total < near[farthest]:
                    _insert(near, places, total, offset + place)


@compiled
def _add_block(
    sums: Floats, query: Floats, part: Part, samples: Floats, first: int, limit: np.float32
) -> int:
    """Add differences until few places are below the limit; return how many steps were made."""
    start, stop, n_present = part
    n_steps = (stop - start + CHUNK - 1) // CHUNK
    whole = n_present == len(query) * (stop - start)
    step = 0
    while step < len(query) * n_steps and _count_below(sums, limit) > FEW:
        v, begin = step // n_steps, start + step % n_steps * CHUNK
        if whole and begin + CHUNK <= stop:
            _add(sums, query, begin, samples, v, first + begin - start)
        else:
            for i in range(begin, min(begin + CHUNK, stop)):
                if not np.isnan(query[v, i]):
                    _add_one(sums, query[v, i], samples, v, first + i - start)
        step += 1
    return step


@compiled
def _finish(
    begun: tuple[np.float32, np.float32],
    query: Floats,
    part: Part,
    samples: Floats,
    place: int,
    step: int,
) -> np.float32:
    """Add what is missing to the sum of one place, from ``step`` on, in the order of `_add`.

    ``begun`` is the sum so far, and the limit at which it is of no more interest.
    """
    start, stop, _ = part
    n_steps = (stop - start + CHUNK - 1) // CHUNK
    total, limit = begun
    while step < len(query) * n_steps and total < limit:
        v, begin = step // n_steps, start + step % n_steps * CHUNK
        for i in range(begin, min(begin + CHUNK, stop)):
            if not np.isnan(query[v, i]):
                apart = query[v, i] - samples[v, place + i - start]
                total += apart * apart
        step += 1
    return total


@compiled
def _add(sums: Floats, query: Floats, begin: int, samples: Floats, v: int, at: int) -> None:
    """Add ``CHUNK`` squared differences to the sum of each place, from ``at`` on.

    Written out so that a sum is loaded and stored once for all of them; unsigned indices save the
    check for negative ones, which would keep LLVM from using vector instructions.
    """
    x0, x1, x2, x3 = query[v, begin], query[v, begin + 1], query[v, begin + 2], query[v, begin + 3]
    b = begin + 4
    x4, x5, x6, x7 = query[v, b], query[v, b + 1], query[v, b + 2], query[v, b + 3]
    row, base = np.uint64(v), np.uint64(at)
    for place in range(BLOCK):
        q = np.uint64(place)
        i = base + q
        total = sums[q]
        apart = x0 - samples[row, i]
        total += apart * apart
        apart = x1 - samples[row, i + np.uint64(1)]
        total += apart * apart
        apart = x2 - samples[row, i + np.uint64(2)]
        total += apart * apart
        apart = x3 - samples[row, i + np.uint64(3)]
        total += apart * apart
        apart = x4 - samples[row, i + np.uint64(4)]
        total += apart * apart
        apart = x5 - samples[row, i + np.uint64(5)]
        total += apart * apart
        apart = x6 - samples[row, i + np.uint64(6)]
        total += apart * apart
        apart = x7 - samples[row, i + np.uint64(7)]
        total += apart * apart
        sums[q] = total


@compiled
def _add_one(sums: Floats, x: np.float32, samples: Floats, v: int, at: int) -> None:
    """Do as `_add` for one sample: where some are missing, and at a stretch's end."""
    row, base = np.uint64(v), np.uint64(at)
    for place in range(BLOCK):
        q = np.uint64(place)
        apart = x - samples[row, base + q]
        sums[q] += apart * apart


@compiled
def _count_below(sums: Floats, limit: np.float32) -> np.uint32:
    n_below = np.uint32(0)
    for q in range(BLOCK):
        n_below += np.uint32(sums[q] < limit)
    return n_below


@compiled
def _insert(near: Floats, places: NDArray[np.int64], value: np.float32, place: int) -> None:
    at = len(near) - 1
    while at > 0 and near[at - 1] > value:
        near[at], places[at] = near[at - 1], places[at - 1]
        at -= 1
    near[at], places[at] = value, place
