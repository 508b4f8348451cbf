"""Compiled kernels of `streamad.detectors.knn`: rings of samples per key, and what a window sees.

What a window may see depends on how many its key has closed, never on how batches were cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats, Ints
from streamad.detectors.knn.search import (
    REFERENCE,
    History,
    count_present,
    distance_of,
    search,
    steps_of,
)
from streamad.detectors.scales import measure, place_sample, place_samples

COLD, WARM, SEEDED = 0, 1, 2
USABLE, BANNED, PENDING, MISSING = 0, 1, 2, 4
"""Marks of a sample. A ban is pending until the period of ``learn_every`` windows is over in which
it was spoken, or what a window sees would depend on how batches were cut."""
NEWEST_DELAY = 32
"""Samples behind the last period that the look at the newest samples sees of the key's past."""
MEASURE_AT = (256, 512, 1024)
"""Windows of a key at which its scale and its usual distances are measured again."""
N_QUERIES = 32
"""Stretches of the past whose distances to the rest of it say what is usual."""
USUAL_SHARE = 0.9
LEAST_SPREAD = 0.3
"""Least spread of usual distances, as a share of their median."""
LEAST_DISTANCE = 0.02
"""Least spread, in scales of the series: the past of a noiseless series has distance 0."""
Held = tuple[Floats, NDArray[np.uint8], Floats, Floats, Floats]
"""Of a memory: samples, marks, loc, scale, usual."""
Int64s = NDArray[np.int64]
Counts = tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.uint8]]
"""Of a memory: n_windows, n_samples, warm_samples, stride, phase."""
Plan = tuple[int, int, int, int]
"""k, stretches that are seen around the judged sample (the others are newest), learn_every, delay
in samples."""


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
    again = adopting[slot] != 0
    if phase[slot] == WARM:
        for n in MEASURE_AT:
            again = again or n_windows[slot] == n
    if again:
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
    lived = np.zeros((n_variates, n_held), dtype=np.float32)
    usable = np.zeros(n_held, dtype=np.bool_)
    for i in range(n_held):
        usable[i] = not np.isnan(seen[0, i])
        for v in range(n_variates):
            if usable[i]:
                lived[v, i] = place_sample(seen[v, i], loc[slot, v], scale[slot, v])
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
    measured = np.zeros((n_rows, N_QUERIES), dtype=np.float32)
    n_found = 0
    allowed = np.zeros(len(runs), dtype=np.int32)
    query = np.empty((len(samples), size), dtype=np.float32)
    near, places = np.empty((1, k), dtype=np.float32), np.empty((1, k), dtype=np.int64)
    no_seeds = np.full((1, k), -1, dtype=np.int64)
    last = max(n - size, 0)
    for q in range(N_QUERIES):
        at = last * q // max(N_QUERIES - 1, 1)
        if n < size or runs[at] < size:
            continue
        query[:] = samples[:, at : at + size]
        for s in range(len(stretches)):
            own = at + stretches[s, 0]
            allowed[:] = runs
            allowed[max(own - apart, 0) : own + apart + 1] = 0
            search(
                query, stretches[s : s + 1], steps_of(stretches[s : s + 1], len(samples)),
                (samples, allowed, n), (samples, allowed, 0), no_seeds, near, places,
            )  # fmt: skip
            distance = distance_of(query, stretches[s], near[0], places[0])
            measured[min(s, n_rows - 1), n_found] += distance
        n_found += 1
    for row in range(n_rows):
        ordered = np.sort(measured[row, :n_found])
        middle, high = np.float32(0.0), np.float32(0.0)
        if n_found > 0:
            middle = ordered[n_found // 2]
            high = ordered[int(USUAL_SHARE * (n_found - 1))]
        usual[row, 0] = middle
        least = LEAST_DISTANCE * (len(stretches) - n_rows + 1 if row == n_rows - 1 else 1)
        usual[row, 1] = max(high - middle, np.float32(LEAST_SPREAD) * middle, np.float32(least))


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
    lived = np.zeros((n_variates, held[0].shape[2]), dtype=np.float32)
    runs = np.zeros(lived.shape[1], dtype=np.int32)
    query = np.empty((n_variates, size), dtype=np.float32)
    k, n_around, n_stretches = plan[0], plan[1], len(stretches)
    around, newest_ones = stretches[:n_around], stretches[n_around:]
    steps_around, steps_newest = steps_of(around, n_variates), steps_of(newest_ones, n_variates)
    near = np.empty((n_stretches, k), dtype=np.float32)
    places = np.full((n_stretches, k), -1, dtype=np.int64)
    seeds = np.full((n_stretches, k), -1, dtype=np.int64)
    seen = (-1, 0, 0)
    rank = 0
    for j in range(n):
        w = order[j]
        slot = slots[w]
        rank = rank + 1 if j > 0 and slots[order[j - 1]] == slot else 0
        if counts[4][slot] == COLD:
            continue
        first, last, newest = visible_span(slot, rank, size, held[0].shape[2], counts, plan)
        if seen[0] == slot:
            _move_on(places, counts[3][slot], first - seen[1], seeds)
        else:
            seeds[:] = -1
        if seen != (slot, first, newest):
            lay_out(slot, (first, newest), held, lived, runs)
            seen = (slot, first, newest)
        for v in range(n_variates):
            for i in range(size):
                query[v, i] = place_sample(windows[w, i, v], loc[slot, v], scale[slot, v])
        search(
            query, around, steps_around, (lived, runs, last - first), reference,
            seeds[:n_around], near[:n_around], places[:n_around],
        )  # fmt: skip
        search(
            query, newest_ones, steps_newest, (lived, runs, newest - first), reference,
            seeds[n_around:], near[n_around:], places[n_around:],
        )  # fmt: skip
        total, n_used = np.float32(0.0), 0
        for s in range(n_stretches):
            if count_present(query, stretches[s, 0], stretches[s, 0] + stretches[s, 1]) == 0:
                continue
            distance = distance_of(query, stretches[s], near[s], places[s])
            if s < n_around:
                strange = (distance - usual[slot, s, 0]) / usual[slot, s, 1]
                looks[w, 0] = max(looks[w, 0], strange)
            else:
                total += distance
                n_used += 1
        if n_used > 0:
            total = total * np.float32(n_stretches - n_around) / np.float32(n_used)
            middle, spread = usual[slot, n_around]
            looks[w, 1] = max((total - middle) / spread, np.float32(0.0))
    return looks


@compiled
def _move_on(places: Int64s, by: int, gone: int, seeds: Int64s) -> None:
    """Write where the neighbours of a window lie for the next: ``by`` samples on, as its own are.

    gone : samples the key's visible past has lost at its beginning since
    """
    for s in range(len(places)):
        for i in range(places.shape[1]):
            place = places[s, i]
            if place >= REFERENCE:
                seeds[s, i] = place + by
            elif place >= 0:
                seeds[s, i] = max(place + by - gone, -1)
            else:
                seeds[s, i] = -1


@compiled
def visible_span(
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
def lay_out(slot: int, span: tuple[int, int], held: Held, lived: Floats, runs: Ints) -> None:
    """Copy the visible samples of a key out of its ring, scaled, and count runs of usable ones."""
    samples, marks, loc, scale, _ = held
    first, last = span
    n_variates, capacity = samples.shape[1:]
    n_seen = last - first
    # In two pieces, up to where the ring turns and from there on: no remainder at every sample.
    turn = min(n_seen, capacity - first % capacity)
    for piece in range(2):
        begin, end = (0, turn) if piece == 0 else (turn, n_seen)
        at = (first + begin) % capacity
        n = end - begin
        for v in range(n_variates):
            place_samples(
                samples[slot, v, at : at + n], loc[slot, v], scale[slot, v], lived[v, begin:end]
            )
    runs[n_seen:] = 0
    run = 0
    at = (first + n_seen - 1) % capacity
    for i in range(n_seen - 1, -1, -1):
        mark = marks[slot, at]
        run = 0 if mark == BANNED or mark == MISSING else run + 1
        runs[i] = run
        at = at - 1 if at > 0 else capacity - 1
