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
Plan = tuple[int, int, int, int]
"""k, judged sample, learn_every, delay in samples."""


@compiled
def measure(series: Floats, loc: Floats, scale: Floats) -> None:
    """Write median and floored standard deviation of ``(n_variates, n)``; leave what has no data.

    Sums run in float64 and in one order, the same for ``fit`` and for a key's warm-up.
    """
    for v in range(len(series)):
        present = series[v][~np.isnan(series[v])]
        if len(present) == 0:
            continue
        middle = np.median(present)
        mean = 0.0
        for value in present:
            mean += value
        mean /= len(present)
        spread = 0.0
        for value in present:
            spread += (value - mean) * (value - mean)
        floor = max(np.sqrt(spread / len(present)), SCALE_SHARE * abs(middle))
        loc[v] = middle
        scale[v] = floor if floor > TINIEST else 1.0


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
def stitch(windows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Turn the windows of a group back into a series ``(n, n_variates)`` and a mask of use.

    Windows that do not overlap are parted by one unusable sample.
    """
    n_windows, size, n_variates = windows.shape
    series = np.empty((n_windows * (size + 1), n_variates), dtype=np.float32)
    usable = np.zeros(n_windows * (size + 1), dtype=np.bool_)
    end = 0
    for w in range(n_windows):
        stride = size if w == 0 else _overlap(windows[w - 1], windows[w])
        if w > 0 and stride == size:
            series[end] = np.nan
            end += 1
        for i in range(size - stride, size):
            series[end] = windows[w, i]
            usable[end] = not np.isnan(windows[w, i]).any()
            end += 1
    return series[:end].copy(), usable[:end].copy()


@compiled
def _overlap(one: Floats, other: Floats) -> int:
    """Return the smallest stride at which two windows overlap with equal values (else size)."""
    for stride in range(1, len(one)):
        if _continues(one[stride:], other):
            return stride
    return len(one)


@compiled
def _continues(tail: Floats, other: Floats) -> bool:
    for i in range(len(tail)):
        for v in range(tail.shape[1]):
            a, b = tail[i, v], other[i, v]
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
) -> tuple[Floats, Floats, Floats]:
    """Return scores, expected values at the judged sample and shares of the variates.

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
        told = (expected[w], share[w])
        scores[w] = _fused(query, (lived, runs, last - first), reference, plan, stretches, told)
        for v in range(n_variates):
            expected[w, v] = expected[w, v] * scale[slot, v] + loc[slot, v]
    return scores, expected, share


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
    told: tuple[Floats, Floats],
) -> np.float32:
    """Return the summed distances over all stretches; the last one fills ``told``."""
    k, judged = plan[0], plan[1]
    near = np.empty(k, dtype=np.float32)
    places = np.empty(k, dtype=np.int64)
    total = np.float32(0.0)
    n_used = 0
    for start, length in stretches:
        x = query[:, start : start + length]
        n_present = _count_present(x)
        if n_present == 0:
            continue
        near[:] = np.inf
        places[:] = -1
        _nearest(x, lived, near, places, 0)
        _nearest(x, reference, near, places, lived[2])
        if places[0] < 0:  # nothing to compare with: the distance is that to the median
            neighbour = np.zeros_like(x)
        elif places[0] < lived[2]:
            neighbour = lived[0][:, places[0] :]
        else:
            neighbour = reference[0][:, places[0] - lived[2] :]
        apart = _compare(x, neighbour, judged - start, told)
        if places[0] < 0:
            near[0] = apart
        total += _mean_root(near, n_present)
        n_used += 1
    return total * np.float32(len(stretches)) / np.float32(max(n_used, 1))


@compiled
def _count_present(x: Floats) -> int:
    n = 0
    for v in range(len(x)):
        for i in range(x.shape[1]):
            n += not np.isnan(x[v, i])
    return n


@compiled
def _mean_root(near: Floats, n_present: int) -> np.float32:
    """Return the mean over the neighbours found of the root mean square difference."""
    total = np.float32(0.0)
    n_found = 0
    for squares in near:
        if squares < np.inf:
            total += np.sqrt(squares / np.float32(n_present))
            n_found += 1
    return total / np.float32(n_found)


@compiled
def _compare(x: Floats, neighbour: Floats, judged: int, told: tuple[Floats, Floats]) -> np.float32:
    """Write the neighbour's judged sample and each variate's share of the squared difference.

    Returns the summed squared difference.
    """
    expected, share = told
    total = np.float32(0.0)
    for v in range(len(x)):
        expected[v] = neighbour[v, judged]
        share[v] = 0.0
        for i in range(x.shape[1]):
            if not np.isnan(x[v, i]):
                apart = x[v, i] - neighbour[v, i]
                share[v] += apart * apart
        total += share[v]
    for v in range(len(x)):
        share[v] = share[v] / total if total > 0.0 else np.float32(1.0) / np.float32(len(x))
    return total


@compiled
def _nearest(
    x: Floats, history: History, near: Floats, places: NDArray[np.int64], offset: int
) -> None:
    """Improve the k smallest squared distances, and their places, by those in one history.

    Exact: a block of places is given up only where none of them can be among the k nearest.
    """
    samples, runs, n_places = history
    sums = np.empty(BLOCK, dtype=np.float32)
    whole = not np.isnan(x).any()
    for first in range(0, n_places, BLOCK):
        for q in range(BLOCK):
            sums[q] = 0.0 if runs[first + q] >= x.shape[1] else np.inf
        step = _add_block(sums, x, samples[:, first:], near[-1], whole)
        for q in range(BLOCK):
            if sums[q] < near[-1]:
                total = _finish(sums[q], x, samples[:, first + q :], step, near[-1])
                if total < near[-1]:
                    _insert(near, places, total, offset + first + q)


@compiled
def _add_block(
    sums: Floats,
    x: Floats,
    samples: Floats,
    limit: np.float32,
    whole: bool,  # noqa: FBT001
) -> int:
    """Add differences until few places are below the limit; return how many steps were made."""
    n_variates, length = x.shape
    n_steps = (length + CHUNK - 1) // CHUNK
    step = 0
    while step < n_variates * n_steps and _count_below(sums, limit) > FEW:
        v, begin = step // n_steps, step % n_steps * CHUNK
        here = samples[v, begin : begin + BLOCK + CHUNK]
        if whole and begin + CHUNK <= length:
            _add(sums, x[v, begin : begin + CHUNK], here)
        else:
            _add_some(sums, x[v, begin : min(begin + CHUNK, length)], here)
        step += 1
    return step


@compiled
def _finish(
    begun: np.float32, x: Floats, samples: Floats, step: int, limit: np.float32
) -> np.float32:
    """Add what is missing to the sum of one place, from ``step`` on, in the order of `_add`."""
    n_variates, length = x.shape
    n_steps = (length + CHUNK - 1) // CHUNK
    total = begun
    while step < n_variates * n_steps and total < limit:
        v, begin = step // n_steps, step % n_steps * CHUNK
        for i in range(begin, min(begin + CHUNK, length)):
            if not np.isnan(x[v, i]):
                apart = x[v, i] - samples[v, i]
                total += apart * apart
        step += 1
    return total


@compiled
def _add(sums: Floats, x: Floats, history: Floats) -> None:
    """Add ``CHUNK`` squared differences to the sum of each place.

    Written out so that a sum is loaded and stored once for all of them; the unsigned index saves
    the check for a negative one, which would keep LLVM from using vector instructions.
    """
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for place in range(BLOCK):
        q = np.uint64(place)
        total = sums[q]
        apart = x0 - history[q]
        total += apart * apart
        apart = x1 - history[q + np.uint64(1)]
        total += apart * apart
        apart = x2 - history[q + np.uint64(2)]
        total += apart * apart
        apart = x3 - history[q + np.uint64(3)]
        total += apart * apart
        apart = x4 - history[q + np.uint64(4)]
        total += apart * apart
        apart = x5 - history[q + np.uint64(5)]
        total += apart * apart
        apart = x6 - history[q + np.uint64(6)]
        total += apart * apart
        apart = x7 - history[q + np.uint64(7)]
        total += apart * apart
        sums[q] = total


@compiled
def _add_some(sums: Floats, x: Floats, history: Floats) -> None:
    """Do as `_add` for fewer samples, or where some are missing."""
    for i in range(len(x)):
        if np.isnan(x[i]):
            continue
        for q in range(BLOCK):
            apart = x[i] - history[i + q]
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
