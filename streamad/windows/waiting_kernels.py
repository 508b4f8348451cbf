"""The compiled passes over rows that wait; `streamad.windows.waiting` says what they mean."""

import numpy as np

from streamad.compiled import compiled
from streamad.windows.kernels import follow

LATE, WAITS, GOES, REFUSED = range(4)
"""What became of a row: it is late, it waits, its key has got arrays, or there is no room."""


@compiled
def take_rows(
    codes, time_ms, values, room, settings, clock, edge, grid, first, final, newest, n_rows,
    selected, kept_ms, kept_values, before, n, free, became,
):  # fmt: skip
    step, lateness, most, span = settings[0], settings[1], settings[2], settings[3]
    going = np.zeros(len(clock), np.bool_)
    goers = np.empty(min(len(codes), max(room, 0)), np.int32)
    n_goers = 0
    for i in range(len(codes)):
        k, t = codes[i], time_ms[i]
        if going[k]:
            became[i] = GOES
            continue
        if not selected[k]:
            clock[k] = max(clock[k], t)
            became[i] = WAITS
            continue
        shift, run = grid[k, 0], grid[k, 1]
        if step and n_rows[k] > 0:
            shift, run = follow(t, clock[k], step, shift, run)
        start = t + shift - (t + shift) % step if step else t
        # As in `ingest_points`; nothing was pushed out of the few samples that are open.
        if start + step + lateness <= edge[k]:
            became[i] = LATE
            continue
        low = min(first[k], start) if n_rows[k] > 0 else start
        high = max(final[k], start) if n_rows[k] > 0 else start
        if n_rows[k] >= most or (step > 0 and high - low > span):
            if n_goers >= room:
                became[i] = REFUSED
                continue
            going[k] = True
            goers[n_goers] = k
            n_goers += 1
            became[i] = GOES
            continue
        if free >= 0:
            place = free
            free = before[free]
        else:
            place = n
            n += 1
        kept_ms[place] = t
        kept_values[place] = values[i]
        before[place] = newest[k]
        newest[k] = place
        n_rows[k] += 1
        first[k], final[k] = low, high
        clock[k] = max(clock[k], t)
        edge[k] = max(edge[k], t + shift)
        grid[k, 0], grid[k, 1] = shift, run
        became[i] = WAITS
    return n, free, goers[:n_goers].copy()


@compiled
def places_of(codes, newest, counts, before):
    places = np.empty(counts.sum(), np.int64)
    end = 0
    for i in range(len(codes)):
        end += counts[i]
        place = newest[codes[i]]
        for back in range(counts[i]):
            places[end - 1 - back] = place
            place = before[place]
    return places


@compiled
def release_rows(codes, newest, before, free):
    for code in codes:
        place = newest[code]
        while place >= 0:
            after = before[place]
            before[place] = free
            free = place
            place = after
    return free
