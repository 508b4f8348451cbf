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
SCALE_SHARE = 1e-6
"""Smallest scale, as a share of ``|median|``: what float32 can tell apart. Below it a series counts
as constant."""
TINIEST = 1e-30
COLD, WARM, SEEDED = 0, 1, 2
USABLE, BANNED, PENDING, MISSING = 0, 1, 2, 4
"""Marks of a sample. A ban is pending until the period of ``learn_every`` windows is over in which
it was spoken, or what a window sees would depend on how batches were cut."""
NEWEST_DELAY = 32
"""Samples behind the last period that the look at the newest samples sees of the key's past."""
MEASURE_AT = (256, 1024)
"""Windows of a key at which its scale and its usual distances are measured again."""
N_QUERIES = 32
"""Stretches of the past whose distances to the rest of it say what is usual."""
USUAL_SHARE = 0.9
LEAST_SPREAD = 0.3
"""Least spread of usual distances, as a share of their median."""
LEAST_DISTANCE = 0.02
"""Least spread, in scales of the series: the past of a noiseless series has distance 0."""
CONSTANT = 100.0
"""How many scales from a constant past its first departure is."""
Held = tuple[Floats, NDArray[np.uint8], Floats, Floats, Floats]
"""Of a memory: samples, marks, loc, scale, usual."""
Int64s = NDArray[np.int64]
Counts = tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.uint8]]
"""Of a memory: n_windows, n_samples, warm_samples, stride, phase."""
History = tuple[Floats, Ints, int]
"""Scaled samples ``(n_variates, n + room)``, usable samples from each place on, and ``n``."""
Part = tuple[int, int, int]
"""Of a query: first sample of a stretch, one past its last, and how many are present in it."""
Plan = tuple[int, int, int, int]
"""k, stretches that are seen around the judged sample (the others are newest), learn_every, delay
in samples."""


@compiled
def measure(series: Floats, loc: Floats, scale: Floats) -> None:
    """Write median and standard deviation of ``(n_variates, n)``; leave what has no data.

    The deviation is 0 where the series is constant: its first departure decides (see `_place`).
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
        deviation = np.sqrt(spread / n)
        loc[v] = middle
        constant = deviation <= max(SCALE_SHARE * abs(middle), TINIEST)
        scale[v] = 0.0 if constant else deviation


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
    settings: tuple[int, int, int, int],
    stretches: Ints,
    held: Held,
    counts: Counts,
    adopting: NDArray[np.uint8],
) -> None:
    """Append windows to their keys' rings, in order; measure a key when its warm-up ends.

    ``settings`` is stride, warm-up in windows, ``learn_every``, and k.
    """
    n_windows, n_samples, _, strides, phase = counts
    stride, warm_up, learn_every, _ = settings
    size, capacity = windows.shape[1], held[0].shape[2]
    for w in range(len(windows)):
        slot = slots[w]
        n_new = size if n_windows[slot] == 0 else stride
        if n_new > size:  # samples between two windows that no window holds
            n_samples[slot] += n_new - size
            for i in range(n_samples[slot] - min(n_new - size, capacity), n_samples[slot]):
                held[1][slot, i % capacity] = MISSING
            n_new = size
        for i in range(size - n_new, size):
            _append(windows[w, i], slot, n_samples[slot] % capacity, held)
            n_samples[slot] += 1
        if not admit[w]:
            for i in range(n_samples[slot] - size, n_samples[slot]):
                if held[1][slot, i % capacity] == USABLE:
                    held[1][slot, i % capacity] = PENDING
        n_windows[slot] += 1
        strides[slot] = stride
        if phase[slot] == COLD and n_windows[slot] >= warm_up:
            _measure_key(slot, settings, stretches, size, held, counts)
            counts[2][slot] = n_samples[slot]
            phase[slot] = WARM
        if n_windows[slot] % learn_every == 0:
            _end_period(slot, settings, stretches, size, held, counts, adopting)


@compiled
def _append(values: Floats, slot: int, at: int, held: Held) -> None:
    """Write one sample of a key, in units of the input; a missing one stays unusable."""
    samples, marks, loc, _, _ = held
    marks[slot, at] = USABLE
    for v in range(len(values)):
        samples[slot, v, at] = values[v]
        if np.isnan(values[v]):
            marks[slot, at] = MISSING
            samples[slot, v, at] = loc[slot, v]


@compiled
def _end_period(
    slot: int,
    settings: tuple[int, int, int, int],
    stretches: Ints,
    size: int,
    held: Held,
    counts: Counts,
    adopting: NDArray[np.uint8],
) -> None:
    """Let what was decided in a period of ``learn_every`` windows take effect: bans, adoptions."""
    n_windows, n_samples, _, _, phase = counts
    stride, _, learn_every, _ = settings
    marks = held[1]
    capacity = held[0].shape[2]
    recent = min(size + learn_every * stride, capacity, n_samples[slot])
    if adopting[slot]:
        recent = min(capacity, n_samples[slot])
    for i in range(n_samples[slot] - recent, n_samples[slot]):
        mark = marks[slot, i % capacity]
        if mark == PENDING:
            mark = BANNED
        if adopting[slot] and mark == BANNED:
            mark = USABLE
        marks[slot, i % capacity] = mark
    again = phase[slot] == WARM and (
        n_windows[slot] == MEASURE_AT[0] or n_windows[slot] == MEASURE_AT[1]
    )
    if adopting[slot] or again:
        _measure_key(slot, settings, stretches, size, held, counts)
    adopting[slot] = 0


@compiled
def _measure_key(
    slot: int,
    settings: tuple[int, int, int, int],
    stretches: Ints,
    size: int,
    held: Held,
    counts: Counts,
) -> None:
    """Take a key's scale, and what distances are usual in its past, from what its ring holds."""
    samples, marks, loc, scale, usual = held
    n_samples = counts[1]
    n_variates, capacity = samples.shape[1:]
    n_held = min(n_samples[slot], capacity)
    seen = np.full((n_variates, n_held), np.nan, dtype=np.float32)
    for i in range(n_held):
        at = (n_samples[slot] - n_held + i) % capacity
        if marks[slot, at] == USABLE:
            seen[:, i] = samples[slot, :, at]
    scale[slot] = 1.0
    measure(seen, loc[slot], scale[slot])
    lived = np.zeros((n_variates, n_held + PAD + size), dtype=np.float32)
    usable = np.zeros(n_held + PAD + size, dtype=np.bool_)
    for i in range(n_held):
        usable[i] = not np.isnan(seen[0, i])
        for v in range(n_variates):
            if usable[i]:
                lived[v, i] = _place(seen[v, i], loc[slot, v], scale[slot, v])
    measure_usual((lived, run_lengths(usable), n_held), size, settings[3], stretches, usual[slot])


@compiled
def measure_usual(history: History, size: int, k: int, stretches: Ints, usual: Floats) -> None:
    """Write median and spread of the distances of a past to itself into ``usual``.

    A row per stretch around the judged sample, and one for the sum of those at the newest samples.
    A stretch is compared with what does not overlap it, as far as there is enough.
    """
    samples, runs, n = history
    apart = max(min(size, n // 4), 1)
    n_rows = len(usual)
    found = np.zeros((n_rows, N_QUERIES), dtype=np.float32)
    n_found = 0
    allowed = np.zeros(len(runs), dtype=np.int32)
    query = np.empty((len(samples), size), dtype=np.float32)
    near = np.empty(k, dtype=np.float32)
    places = np.empty(k, dtype=np.int64)
    last = max(n - size, 0)
    for q in range(N_QUERIES):
        at = last * q // max(N_QUERIES - 1, 1)
        if runs[at] < size or n < size:
            continue
        for v in range(len(samples)):
            for i in range(size):
                query[v, i] = samples[v, at + i]
        for s in range(len(stretches)):
            start, length = stretches[s]
            own = at + start
            allowed[:] = runs
            allowed[max(own - apart, 0) : own + apart + 1] = 0
            distance = _distance(
                query, (start, start + length, len(samples) * length),
                (samples, allowed, n - length + 1), (samples, allowed, 0), near, places,
            )  # fmt: skip
            found[min(s, n_rows - 1), n_found] += distance
        n_found += 1
    for row in range(n_rows):
        ordered = np.sort(found[row, :n_found])
        middle, high = np.float32(0.0), np.float32(0.0)
        if n_found > 0:
            middle = ordered[n_found // 2]
            high = ordered[int(USUAL_SHARE * (n_found - 1))]
        usual[row, 0] = middle
        least = LEAST_DISTANCE * (len(stretches) - n_rows + 1 if row == n_rows - 1 else 1)
        usual[row, 1] = max(high - middle, np.float32(LEAST_SPREAD) * middle, np.float32(least))


@compiled
def _place(value: np.float32, loc: np.float32, scale: np.float32) -> np.float32:
    """Return a sample in scales from the median.

    Whatever departs from a constant past (scale 0) is `CONSTANT` scales from it, so that its unit
    does not matter.
    """
    apart = np.float32(value) - np.float32(loc)
    if scale == 0.0:
        if apart != apart or not (abs(apart) > SCALE_SHARE * abs(loc) and abs(apart) > TINIEST):
            return apart * np.float32(0.0)
        return np.float32(CONSTANT) if apart > 0 else np.float32(-CONSTANT)
    placed = apart / np.float32(scale)
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
) -> Floats:
    """Return ``(n_windows, 2)``: how strange the judged sample's surroundings are, and the newest.

    ``turns`` is the slot of each window, and an order key by key and in time inside a key, so that
    what a key may see is laid out once for windows that may see the same. Both are distances in
    spreads from what is usual for the key.
    """
    slots, order = turns
    held, counts = memory
    _, _, loc, scale, usual = held
    n, size, n_variates = windows.shape
    looks = np.zeros((n, 2), dtype=np.float32)
    lived = np.zeros((n_variates, held[0].shape[2] + PAD + size), dtype=np.float32)
    runs = np.zeros(lived.shape[1], dtype=np.int32)
    query = np.empty((n_variates, size), dtype=np.float32)
    near = np.empty(plan[0], dtype=np.float32)
    places = np.empty(plan[0], dtype=np.int64)
    seen = (-1, 0, 0)
    rank = 0
    for j in range(n):
        w = order[j]
        slot = slots[w]
        rank = rank + 1 if j > 0 and slots[order[j - 1]] == slot else 0
        if counts[4][slot] == COLD:
            continue
        first, last, newest = _visible(slot, rank, size, held[0].shape[2], counts, plan)
        if seen != (slot, first, newest):
            _lay_out(slot, (first, newest), held, lived, runs)
            seen = (slot, first, newest)
        for v in range(n_variates):
            for i in range(size):
                query[v, i] = _place(windows[w, i, v], loc[slot, v], scale[slot, v])
        centred, total, n_used = np.float32(-1e30), np.float32(0.0), 0
        for s in range(len(stretches)):
            start, length = stretches[s]
            part = (start, start + length, _count_present(query, start, start + length))
            if part[2] == 0:
                continue
            end = last if s < plan[1] else newest
            distance = _distance(
                query, part, (lived, runs, end - first - length + 1), reference, near, places
            )
            if s < plan[1]:
                centred = max(centred, (distance - usual[slot, s, 0]) / usual[slot, s, 1])
            else:
                total += distance
                n_used += 1
        looks[w, 0] = max(centred, np.float32(0.0))
        if n_used > 0:
            total = total * np.float32(len(stretches) - plan[1]) / np.float32(n_used)
            at = plan[1]
            looks[w, 1] = max((total - usual[slot, at, 0]) / usual[slot, at, 1], np.float32(0.0))
    return looks


@compiled
def _visible(
    slot: int, rank: int, size: int, capacity: int, counts: Counts, plan: Plan
) -> tuple[int, int, int]:
    """Return which of its samples a key's window may see: first, one past the last of each look.

    ``rank`` counts windows of the key since those learned. Only samples that are in the ring
    however batches were cut: those known at the last multiple of ``learn_every`` windows, less a
    delay; and as many as the ring still holds when the windows up to the next multiple have been
    learned.
    """
    n_windows, _, warm_samples, strides, _ = counts
    _, _, learn_every, delay = plan
    stride = strides[slot]
    whole = (n_windows[slot] + rank) // learn_every * learn_every
    if whole == 0:
        return 0, 0, 0
    end = size + (whole - 1) * stride
    last = max(end - delay, min(warm_samples[slot], end - size))
    first = max(end + learn_every * stride - capacity, 0)
    newest = max(last, end - NEWEST_DELAY)
    return first, max(last, first), max(newest, first)


@compiled
def _lay_out(slot: int, span: tuple[int, int], held: Held, lived: Floats, runs: Ints) -> None:
    """Copy the visible samples of a key out of its ring, scaled, and count runs of usable ones."""
    samples, marks, loc, scale, _ = held
    first, last = span
    n_variates, capacity = samples.shape[1:]
    n_seen = last - first
    for v in range(n_variates):
        for i in range(n_seen):
            value = samples[slot, v, (first + i) % capacity]
            lived[v, i] = _place(value, loc[slot, v], scale[slot, v])
    runs[n_seen:] = 0
    run = 0
    for i in range(n_seen - 1, -1, -1):
        mark = marks[slot, (first + i) % capacity]
        run = 0 if mark == BANNED or mark == MISSING else run + 1
        runs[i] = run


@compiled
def _distance(
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
