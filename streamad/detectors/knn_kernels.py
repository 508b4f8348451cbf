"""Compiled kernels of `streamad.detectors.knn`: histories, rings, exact neighbour search.

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
CLIP = 1e6
"""Scaled samples end here, so that their squares stay finite in float32."""
SCALE_SHARE = 1e-4
"""Smallest scale, as a share of ``|median|``; a series constant at 0 has scale 1."""
TINIEST = 1e-30
COLD, WARM = 0, 1

Held = tuple[Floats, NDArray[np.uint8], Floats, Floats]
"""Of a memory: samples, banned, loc, scale."""
Int64s = NDArray[np.int64]
Counts = tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.uint8]]
"""Of a memory: n_windows, n_samples, warm_samples, stride, phase."""
History = tuple[Floats, Ints, int]
"""Scaled samples ``(n_variates, n + room)``, usable samples from each place on, and ``n``."""
Part = tuple[int, int, int]
"""Of a query: first sample of a stretch, one past its last, and how many are present in it."""
Plan = tuple[int, int, int, int]
"""k, judged sample, learn_every, delay in samples."""


@compiled
def measure(series: Floats, loc: Floats, scale: Floats) -> None:
    """Write median and floored standard deviation of ``(n_variates, n)``; leave what has no data.

    Sums run in float64 and in one order, the same for ``fit`` and for a key's warm-up.
    """
    present = np.empty(series.shape[1], dtype=np.float32)
    for v in range(len(series)):
        n = 0
        mean = 0.0
        for i in range(series.shape[1]):
            value = series[v, i]
            if not np.isnan(value):
                present[n] = value
                mean += value
                n += 1
        if n == 0:
            continue
        mean /= n
        spread = 0.0
        for i in range(n):
            spread += (present[i] - mean) * (present[i] - mean)
        middle = (np.float64(_nth(present, n, (n - 1) // 2)) + _nth(present, n, n // 2)) / 2.0
        floor = max(np.sqrt(spread / n), SCALE_SHARE * abs(middle))
        loc[v] = middle
        scale[v] = floor if floor > TINIEST else 1.0


@compiled
def _nth(values: Floats, n: int, rank: int) -> np.float32:
    """Return the value of a rank among the first ``n``, which are put in another order (Hoare)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return np.float32(values[rank])


@compiled
def run_lengths(usable: NDArray[np.bool_]) -> Ints:
    """Return for each place how many usable samples follow without a gap, itself included."""
    runs = np.zeros(len(usable), dtype=np.int32)
    run = 0
    for i in range(len(usable) - 1, -1, -1):
        run = run + 1 if usable[i] else 0
        runs[i] = run
    return runs


@compiled
def strides_of(windows: Floats) -> Ints:
    """Return by how many samples each window follows the one before (size: they do not overlap)."""
    n_windows, size, _ = windows.shape
    strides = np.full(n_windows, size, dtype=np.int32)
    for w in range(1, n_windows):
        stride = 1
        while stride < size and not _overlap(windows, w, stride):
            stride += 1
        strides[w] = stride
    return strides


@compiled
def _overlap(windows: Floats, w: int, stride: int) -> bool:
    _, size, n_variates = windows.shape
    for i in range(size - stride):
        for v in range(n_variates):
            a, b = windows[w - 1, i + stride, v], windows[w, i, v]
            if a != b and not (np.isnan(a) and np.isnan(b)):
                return False
    return True


@compiled
def learn_windows(
    windows: Floats,
    slots: Ints,
    admit: NDArray[np.bool_],
    settings: tuple[int, int],
    held: Held,
    counts: Counts,
) -> None:
    """Append windows to their keys' rings, in order; take a key's scale when its warm-up ends.

    ``settings`` is stride and warm-up, in windows.
    """
    n_windows, n_samples, _, strides, phase = counts
    stride, warm_up = settings
    size, capacity = windows.shape[1], held[0].shape[2]
    for w in range(len(windows)):
        slot = slots[w]
        n_new = size if n_windows[slot] == 0 else stride
        if n_new > size:  # samples between two windows that no window holds
            n_samples[slot] += n_new - size
            _ban(held[1][slot], n_samples[slot], min(n_new - size, capacity))
            n_new = size
        for i in range(size - n_new, size):
            _append(windows[w, i], slot, n_samples[slot] % capacity, held, phase[slot])
            n_samples[slot] += 1
        if not admit[w]:
            _ban(held[1][slot], n_samples[slot], size)
        n_windows[slot] += 1
        strides[slot] = stride
        if phase[slot] == COLD and n_windows[slot] >= warm_up:
            _warm(slot, held, counts)


@compiled
def _ban(banned: NDArray[np.uint8], end: int, n: int) -> None:
    for i in range(end - n, end):
        banned[i % len(banned)] = 1


@compiled
def _append(values: Floats, slot: int, at: int, held: Held, phase: int) -> None:
    """Write one sample of a key, scaled once its scale is known; a missing one stays unusable."""
    samples, banned, loc, scale = held
    banned[slot, at] = 0
    for v in range(len(values)):
        value = values[v]
        if np.isnan(value):
            banned[slot, at] = 1
            value = loc[slot, v]
        if phase == WARM:
            value = _place(value, loc[slot, v], scale[slot, v])
        samples[slot, v, at] = value


@compiled
def _warm(slot: int, held: Held, counts: Counts) -> None:
    """Take a key's scale from what its ring holds, and bring the ring into that scale."""
    samples, banned, loc, scale = held
    _, n_samples, warm_samples, _, phase = counts
    n_variates, capacity = samples.shape[1:]
    n_held = min(n_samples[slot], capacity)
    seen = np.full((n_variates, n_held), np.nan, dtype=np.float32)
    for i in range(n_held):
        at = (n_samples[slot] - n_held + i) % capacity
        if not banned[slot, at]:
            seen[:, i] = samples[slot, :, at]
    scale[slot] = 1.0
    measure(seen, loc[slot], scale[slot])
    for v in range(n_variates):
        for i in range(capacity):
            samples[slot, v, i] = _place(samples[slot, v, i], loc[slot, v], scale[slot, v])
    warm_samples[slot] = n_samples[slot]
    phase[slot] = WARM


@compiled
def _place(value: np.float32, loc: np.float32, scale: np.float32) -> np.float32:
    placed = (np.float32(value) - np.float32(loc)) / np.float32(scale)
    if placed > CLIP:
        return np.float32(CLIP)
    return np.float32(-CLIP) if placed < -CLIP else placed  # a missing sample stays missing


@compiled
def score_windows(
    windows: Floats,
    turns: tuple[Ints, NDArray[np.int64]],
    reference: History,
    memory: tuple[Held, Counts],
    plan: Plan,
    stretches: Ints,
) -> tuple[Floats, Floats, Floats, Ints]:
    """Return scores; expected values at the most telling sample, shares of variates; its place.

    ``turns`` is the slot of each window, and an order key by key and in time inside a key, so that
    what a key may see is laid out once for windows that may see the same.
    """
    slots, order = turns
    held, counts = memory
    _, _, loc, scale = held
    n, size, n_variates = windows.shape
    scores = np.zeros(n, dtype=np.float32)
    expected = np.zeros((n, n_variates), dtype=np.float32)
    share = np.zeros((n, n_variates), dtype=np.float32)
    position = np.full(n, plan[1], dtype=np.int32)
    lived = np.zeros((n_variates, held[0].shape[2] + PAD + size), dtype=np.float32)
    runs = np.zeros(lived.shape[1], dtype=np.int32)
    query = np.empty((n_variates, size), dtype=np.float32)
    seen = (-1, 0, 0)
    rank = 0
    for j in range(n):
        w = order[j]
        slot = slots[w]
        rank = rank + 1 if j > 0 and slots[order[j - 1]] == slot else 0
        if counts[4][slot] == COLD:
            expected[w] = windows[w, plan[1]]
            share[w] = np.float32(1.0) / np.float32(n_variates)
            continue
        first, last = _visible(slot, rank, size, held[0].shape[2], counts, plan)
        if seen != (slot, first, last):
            _lay_out(slot, (first, last), held, lived, runs)
            seen = (slot, first, last)
        for v in range(n_variates):
            for i in range(size):
                query[v, i] = _place(windows[w, i, v], loc[slot, v], scale[slot, v])
        told = (expected[w], share[w], position[w : w + 1])
        scores[w] = _fused(query, (lived, runs, last - first), reference, plan, stretches, told)
        for v in range(n_variates):
            expected[w, v] = expected[w, v] * scale[slot, v] + loc[slot, v]
    return scores, expected, share, position


@compiled
def _visible(
    slot: int, rank: int, size: int, capacity: int, counts: Counts, plan: Plan
) -> tuple[int, int]:
    """Return which of its samples a key's window may see, first and one past the last.

    ``rank`` counts windows of the key since those learned. Only samples that are in the ring
    however batches were cut: those known at the last multiple of ``learn_every`` windows, less the
    delay; and as many as the ring still holds when the windows up to the next multiple have been
    learned. Later windows can ban none of these: they begin after them.
    """
    n_windows, _, warm_samples, strides, _ = counts
    _, _, learn_every, delay = plan
    stride = strides[slot]
    whole = (n_windows[slot] + rank) // learn_every * learn_every
    if whole == 0:
        return 0, 0
    end = size + (whole - 1) * stride
    last = max(end - delay, min(warm_samples[slot], end - size))
    first = max(end + learn_every * stride - capacity, 0)
    return (first, last) if last > first else (0, 0)


@compiled
def _lay_out(slot: int, span: tuple[int, int], held: Held, lived: Floats, runs: Ints) -> None:
    """Copy the visible samples of a key out of its ring, and count runs of usable ones."""
    samples, banned, _, _ = held
    first, last = span
    n_variates, capacity = samples.shape[1:]
    n_seen = last - first
    for v in range(n_variates):
        for i in range(n_seen):
            lived[v, i] = samples[slot, v, (first + i) % capacity]
    runs[n_seen:] = 0
    run = 0
    for i in range(n_seen - 1, -1, -1):
        run = 0 if banned[slot, (first + i) % capacity] else run + 1
        runs[i] = run


@compiled
def _fused(
    query: Floats,
    lived: History,
    reference: History,
    plan: Plan,
    stretches: Ints,
    told: tuple[Floats, Floats, Ints],
) -> np.float32:
    """Return the summed distances over all stretches; the last one fills ``told``."""
    k = plan[0]
    near = np.empty(k, dtype=np.float32)
    places = np.empty(k, dtype=np.int64)
    nothing = np.zeros(query.shape, dtype=np.float32)
    total = np.float32(0.0)
    n_used = 0
    for s in range(len(stretches)):
        start, stop = stretches[s, 0], stretches[s, 0] + stretches[s, 1]
        part = (start, stop, _count_present(query, start, stop))
        if part[2] == 0:
            continue
        for i in range(k):
            near[i] = np.inf
            places[i] = -1
        offset = 0
        for history in (lived, reference):  # one call, or the kernel would be compiled in twice
            _nearest(query, part, history, near, places, offset)
            offset += history[2]
        neighbour, at = nothing, 0  # with nothing to compare with: the distance to the median
        if places[0] >= lived[2]:
            neighbour, at = reference[0], places[0] - lived[2]
        elif places[0] >= 0:
            neighbour, at = lived[0], places[0]
        apart = _compare(query, part, neighbour, at - start, told)
        if places[0] < 0:
            near[0] = apart
        total += _mean_root(near, part[2])
        n_used += 1
    return total * np.float32(len(stretches)) / np.float32(max(n_used, 1))


@compiled
def _count_present(query: Floats, start: int, stop: int) -> int:
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
def _compare(
    query: Floats,
    part: Part,
    neighbour: Floats,
    shift: int,
    told: tuple[Floats, Floats, Ints],
) -> np.float32:
    """Write where the two lie farthest apart, the neighbour there, and shares of the variates.

    Sample ``i`` of the query stands beside ``i + shift`` of the neighbour. Returns the summed
    squared difference.
    """
    expected, share, position = told
    position[0] = _farthest_apart(query, part, neighbour, shift)
    total = np.float32(0.0)
    for v in range(len(query)):
        expected[v] = neighbour[v, position[0] + shift]
        share[v] = 0.0
        for i in range(part[0], part[1]):
            if not np.isnan(query[v, i]):
                apart = query[v, i] - neighbour[v, i + shift]
                share[v] += apart * apart
        total += share[v]
    for v in range(len(query)):
        share[v] = share[v] / total if total > 0.0 else np.float32(1.0) / np.float32(len(query))
    return total


@compiled
def _farthest_apart(query: Floats, part: Part, neighbour: Floats, shift: int) -> int:
    farthest, place = np.float32(-1.0), part[0]
    for i in range(part[0], part[1]):
        here = np.float32(0.0)
        for v in range(len(query)):
            if not np.isnan(query[v, i]):
                apart = query[v, i] - neighbour[v, i + shift]
                here += apart * apart
        # Of equals the newest: it is what has changed.
        if here >= farthest:
            farthest, place = here, i
    return place


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
            sums[q] = 0.0 if runs[first + q] >= length else np.inf
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
