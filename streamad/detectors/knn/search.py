"""Exact search of the nearest neighbours of nested stretches in a history, compiled.

A distance is a sum over the samples of a stretch in one fixed order in float32, whatever the batch,
the place in the history, the width of the processor's vectors or the order in which places are
looked at: a window scores the same bits alone. What only rules places out may sum in any order,
since it allows for the rounding (`_with_margin`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats, Ints

BLOCK = 64
"""Places of a history compared at once."""
CHUNK = 8
"""Samples compared before it is looked whether any place of a block can still be a neighbour;
`search` spells them out."""
REFERENCE = 1 << 40
"""Places of the reference count from here, those of the key's own past from 0."""
History = tuple[Floats, Ints, int]
"""Scaled samples ``(n_variates, n or more)``, usable samples from each place on, and ``n``."""
Int64s = NDArray[np.int64]


@compiled
def steps_of(nested: Ints, n_variates: int) -> Ints:
    """Return the order in which samples are compared, from the innermost stretch out.

    Parameters
    ----------
    nested : ``(n_nested, 2)``, first sample and length of stretches, each inside the next

    Returns
    -------
    A row per step: variate, first sample, samples (8, 4, 2 or 1), the stretch they are a part of,
    and 1 where that ends with this step.
    """
    size = 0
    for s in range(len(nested)):
        size += n_variates * (nested[s, 1] + 2)
    steps = np.zeros((size, 5), dtype=np.int32)
    n = 0
    begun, ended = nested[0, 0], nested[0, 0]
    for s in range(len(nested)):
        start, stop = nested[s, 0], nested[s, 0] + nested[s, 1]
        for v in range(n_variates):
            for side in range(2):
                i, end = (start, begun) if side == 0 else (ended, stop)
                while i < end:
                    length = CHUNK
                    while length > end - i:
                        length //= 2
                    steps[n, 0], steps[n, 1], steps[n, 2], steps[n, 3] = v, i, length, s
                    i += length
                    n += 1
        steps[n - 1, 4] = 1
        begun, ended = start, stop
    return steps[:n].copy()


@compiled
def search(
    query: Floats,
    nested: Ints,
    steps: Ints,
    lived: History,
    reference: History,
    seeds: Int64s,
    near: Floats,
    places: Int64s,
) -> None:
    """Find the nearest places of stretches of a window, each inside the next.

    One long function: counting references to arrays that are handed to helpers took most of the
    time (docs/adr/0002).

    Parameters
    ----------
    query : ``(n_variates, size)``, scaled; missing samples are left out
    nested : ``(n_nested, 2)``, first sample and length of each stretch, the innermost first
    steps : what `steps_of` makes of it
    seeds : ``(n_nested, k)``, places to begin with (-1: none), all different: the neighbours of the
        window before, moved on. They change how soon others are given up, and nothing else.
    near, places : ``(n_nested, k)``, written: the smallest sums, and where
    """
    n_variates, n_nested, k = len(query), len(nested), near.shape[1]
    inner = nested[0, 0]
    complete = True
    for v in range(n_variates):
        for i in range(query.shape[1]):
            complete = complete and not np.isnan(query[v, i])
    near[:] = np.inf
    places[:] = -1
    # What a sum must be below to be noted, and up to what a rough one is looked into: sums of n
    # squares in any order are off by n units in the last place at most (Higham, Accuracy and
    # Stability, 4.2). Beyond `reach` no stretch from this one out is of interest.
    limit = np.full(n_nested, np.inf, dtype=np.float32)
    rough = np.full(n_nested, np.inf, dtype=np.float32)
    reach = np.full(n_nested, np.inf, dtype=np.float32)
    sums = np.zeros(BLOCK, dtype=np.float32)
    # No sum is negative, and such floats are ordered as their bits are. The least of integers is
    # found by vector instructions; numba's rules for NaN keep that of floats from it.
    bits, rough_bits, reach_bits = (
        sums.view(np.int32),
        rough.view(np.int32),
        reach.view(np.int32),
    )
    for s in range(n_nested):
        limit[s] = limit_from(query, nested[s, 0], nested[s, 1], lived, reference, seeds[s])
    _widen(limit, nested, n_variates, rough, reach)
    for h in range(2):
        samples, runs, n = lived if h == 0 else reference
        base = 0 if h == 0 else REFERENCE
        for first in range(0, n - nested[0, 1] + 1, BLOCK):
            sums[:] = 0.0
            for step in range(len(steps)):
                v, begin, width = steps[step, 0], steps[step, 1], steps[step, 2]
                s, ends = steps[step, 3], steps[step, 4]
                before = inner - nested[s, 0]
                low = max(before - first, 0)
                high = min(BLOCK, n - nested[s, 1] + 1 + before - first)
                # Unsigned indices save the check for negative ones, which would keep LLVM from
                # using vector instructions.
                row, into, of = np.uint64(v), np.uint64(low), np.uint64(first + low + begin - inner)
                if complete and width == 8:
                    x0, x1 = query[v, begin], query[v, begin + 1]
                    x2, x3 = query[v, begin + 2], query[v, begin + 3]
                    x4, x5 = query[v, begin + 4], query[v, begin + 5]
                    x6, x7 = query[v, begin + 6], query[v, begin + 7]
                    for c in range(high - low):
                        q, i = into + np.uint64(c), of + np.uint64(c)
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
                elif complete and width == 4:
                    x0, x1 = query[v, begin], query[v, begin + 1]
                    x2, x3 = query[v, begin + 2], query[v, begin + 3]
                    for c in range(high - low):
                        q, i = into + np.uint64(c), of + np.uint64(c)
                        total = sums[q]
                        apart = x0 - samples[row, i]
                        total += apart * apart
                        apart = x1 - samples[row, i + np.uint64(1)]
                        total += apart * apart
                        apart = x2 - samples[row, i + np.uint64(2)]
                        total += apart * apart
                        apart = x3 - samples[row, i + np.uint64(3)]
                        total += apart * apart
                        sums[q] = total
                else:
                    for j in range(width):
                        x = query[v, begin + j]
                        if not np.isnan(x):
                            for c in range(high - low):
                                q = into + np.uint64(c)
                                apart = x - samples[row, of + np.uint64(j) + np.uint64(c)]
                                sums[q] += apart * apart
                lowest = bits[into]
                for c in range(high - low):
                    lowest = min(lowest, bits[into + np.uint64(c)])
                if lowest >= reach_bits[s]:
                    break
                if not ends or lowest >= rough_bits[s]:
                    continue
                start, length = nested[s, 0], nested[s, 1]
                origin = first + start - inner
                for q in range(low, high):
                    place = origin + q
                    if sums[q] >= rough[s] or runs[place] < length:
                        continue
                    total = np.float32(0.0)
                    for u in range(n_variates):
                        for i in range(length):
                            x = query[u, start + i]
                            apart = x - samples[u, place + i]
                            total += np.float32(0.0) if np.isnan(x) else apart * apart
                        if total >= limit[s]:
                            break
                    if total >= limit[s]:
                        continue
                    j = k - 1
                    while j > 0 and near[s, j - 1] > total:
                        near[s, j], places[s, j] = near[s, j - 1], places[s, j - 1]
                        j -= 1
                    near[s, j], places[s, j] = total, base + place
                    limit[s] = min(limit[s], near[s, k - 1])
                    _widen(limit, nested, n_variates, rough, reach)


@compiled
def limit_from(
    query: Floats,
    start: int,
    length: int,
    lived: History,
    reference: History,
    seeds: Int64s,
) -> np.float32:
    """Return what a sum must be below to be one of the k smallest: just above the largest of k.

    Those are the sums at ``seeds``; infinite where they are not k places.
    """
    largest = np.float32(0.0)
    for j in range(len(seeds)):
        if seeds[j] < 0:
            return np.float32(np.inf)
        in_reference = seeds[j] >= REFERENCE
        samples, runs, n = reference if in_reference else lived
        place = seeds[j] - REFERENCE if in_reference else seeds[j]
        if place < 0 or place > n - length or runs[place] < length:
            return np.float32(np.inf)
        total = np.float32(0.0)
        for v in range(len(query)):
            for i in range(length):
                x = query[v, start + i]
                apart = x - samples[v, place + i]
                total += np.float32(0.0) if np.isnan(x) else apart * apart
        largest = max(largest, total)
    return np.nextafter(largest, np.float32(np.inf))


@compiled
def _widen(limit: Floats, nested: Ints, n_variates: int, rough: Floats, reach: Floats) -> None:
    """Set up to what a sum in another order is looked into; the constant is for tiny squares."""
    largest = np.float32(0.0)
    for s in range(len(nested) - 1, -1, -1):
        share = np.float32(1.0 + 4e-7 * (n_variates * nested[s, 1] + 8))
        rough[s] = limit[s] * share + np.float32(1e-37) if limit[s] > 0.0 else 0.0
        largest = max(largest, rough[s])
        reach[s] = largest


@compiled
def distance_of(query: Floats, stretch: Ints, near: Floats, places: Int64s) -> np.float32:
    """Return the mean over the neighbours found of the root mean square difference.

    Without any it is the distance to the median; nan where no sample is present.
    """
    start, stop = stretch[0], stretch[0] + stretch[1]
    n_present = count_present(query, start, stop)
    if places[0] < 0:
        total = np.float32(0.0)
        for v in range(len(query)):
            for i in range(start, stop):
                if not np.isnan(query[v, i]):
                    total += query[v, i] * query[v, i]
        near[0] = total
    total = np.float32(0.0)
    n_found = 0
    for i in range(len(near)):
        if near[i] < np.inf:
            total += np.sqrt(near[i] / np.float32(n_present))
            n_found += 1
    return total / np.float32(n_found)


@compiled
def count_present(query: Floats, start: int, stop: int) -> int:
    """Return how many values of a stretch are present."""
    n = 0
    for v in range(len(query)):
        for i in range(start, stop):
            n += not np.isnan(query[v, i])
    return n
