"""The compiled pass from points to windows; `streamad.windows.signals` says what it means."""

import numpy as np

from streamad.compiled import compiled
from streamad.windows.kinds import COUNTER, DELTA

NEVER_SEEN = -(2**62)

LAST, MEAN, MAX, SUM = range(4)
NONE, PREVIOUS, LINEAR, ZERO = range(4)
APART = 3
"""So many readings in a row about a step apart give a key cells of its own, for good."""
PULL = 16
"""A reading moves the middle of its key's cells by this part of its distance from it."""


@compiled
def follow(t, clock, step, shift, run):
    """Return shift and run of a key after a reading: ``t + shift`` is on the wall clock's grid.

    Where each cell holds one reading, jitter about a border would leave a cell empty and put two
    into the next. Cells of such a key are put about its readings and follow them, a little at a
    time: schedulers drift, and begin again at another second. A label is at most a quarter of a
    step after its reading, so readings just before the full minute count as that minute's.
    """
    gap = t - clock
    if run < APART:
        if gap <= 0:
            return shift, run
        run = run + 1 if 4 * gap >= 3 * step else 0
        if run < APART:
            return shift, run
        past = t % step
        shift = step // 2 - past
        return (shift + step if 4 * past > 3 * step else shift), run
    if 2 * gap >= step:
        away = (t + shift) % step - step // 2
        shift -= (away + PULL // 2) // PULL
        if 2 * shift <= -step:
            shift += step
        elif shift > step:
            shift -= step
    return shift, run


# One function on purpose: handing twenty arrays to a helper costs more (reference counts) than the
# work the helper would do, inlined or not.
@compiled
def ingest_points(
    at, room, codes, time_ms, values, settings, limits, kinds,
    clock, edge, grid, n_samples, last, n_pending, pending_ms, pending_value, pending_weight,
    previous, previous_ms, ring, missing, sums, gap_ms, still, late,
    out_code, out_values, out_start, out_end, out_incomplete, out_row, out_still,
):  # fmt: skip
    size, stride, step, lateness = settings[0], settings[1], settings[2], settings[3]
    min_periods = settings[6]
    most = pending_ms.shape[1] - 1
    v = values.shape[1]
    made = 0
    sample = np.empty(v, np.float64)
    before = np.empty(v, np.float64)
    for i in range(at, len(codes)):
        if made > room:
            return i, made
        k = codes[i]
        if k < 0:
            continue
        t = time_ms[i]
        kind = kinds[k]
        counter = kind == COUNTER
        aggregate = SUM if kind == DELTA else settings[4]
        fill = settings[5]
        if fill < 0:
            fill = ZERO if kind == DELTA else PREVIOUS
        # A late row moves nothing, the grid included.
        shift, run = grid[k, 0], grid[k, 1]
        if step and n_samples[k] + n_pending[k] > 0:
            shift, run = follow(t, clock[k], step, shift, run)
        start = t + shift - (t + shift) % step if step else t
        if start <= last[k] or start + step + lateness <= edge[k]:
            late[i] = True
            continue
        clock[k] = max(clock[k], t)
        edge[k] = max(edge[k], t + shift)
        grid[k, 0], grid[k, 1] = shift, run

        # Find the open sample this row belongs to, or make room for it in time order.
        n = n_pending[k]
        p = n
        while p > 0 and pending_ms[k, p - 1] > start:
            p -= 1
        if p > 0 and pending_ms[k, p - 1] == start:
            p -= 1
        else:
            for q in range(n, p, -1):
                pending_ms[k, q] = pending_ms[k, q - 1]
                for j in range(v):
                    pending_value[k, q, j] = pending_value[k, q - 1, j]
                    pending_weight[k, q, j] = pending_weight[k, q - 1, j]
            for j in range(v):
                pending_value[k, p, j] = np.nan
                pending_weight[k, p, j] = 0.0
            pending_ms[k, p] = start
            n += 1
        for j in range(v):
            x = values[i, j]
            had = pending_value[k, p, j]
            if x != x:
                continue
            if had != had:
                pending_value[k, p, j] = x
                pending_weight[k, p, j] = 1.0 if aggregate == MEAN else float(t)
            elif aggregate == LAST:
                if t >= pending_weight[k, p, j]:
                    pending_value[k, p, j] = x
                    pending_weight[k, p, j] = float(t)
            elif aggregate == MAX:
                pending_value[k, p, j] = max(had, x)
            else:
                pending_value[k, p, j] = had + x
                pending_weight[k, p, j] += 1.0

        # Release every sample that is due, oldest first.
        while n > 0 and (n > most or pending_ms[k, 0] + step + lateness <= edge[k]):
            due = pending_ms[k, 0]
            for j in range(v):
                x = pending_value[k, 0, j]
                sample[j] = x / pending_weight[k, 0, j] if aggregate == MEAN and x == x else x
            for q in range(1, n):
                pending_ms[k, q - 1] = pending_ms[k, q]
                for j in range(v):
                    pending_value[k, q - 1, j] = pending_value[k, q, j]
                    pending_weight[k, q - 1, j] = pending_weight[k, q, j]
            n -= 1

            begun = True
            if counter:  # to rates a second; a fall is a reset, counted from zero
                begun = n_samples[k] > 0
                for j in range(v):
                    x, was, when = sample[j], previous[k, j], previous_ms[k, j]
                    if x == x:
                        previous[k, j] = x
                        previous_ms[k, j] = due
                    if x != x or was != was:
                        sample[j] = np.nan
                    else:
                        sample[j] = (x - was if x >= was else x) / ((due - when) / 1000.0)
                        begun = True

            gap = 0
            if step and n_samples[k] > 0:
                gap = (due - last[k]) // step - 1
            if min_periods < size and fill != ZERO and gap * v > limits[0]:
                # A partial window says more, and sooner, than one that is filled in for the most.
                n_samples[k], still[k], gap = 0, 0, 0
                sums[k, 0] = sums[k, 1] = 0
                missing[k, :], ring[k, :] = 0, 0.0
            # Of a gap longer than the ring only the end is walked: the rest turns it for nothing.
            first = max(0, gap - size) if begun else gap + 1
            head = n_samples[k] % size
            newest = (head if head > 0 else size) - 1
            for j in range(v):
                before[j] = ring[k, newest * v + j]
            for g in range(first, gap + 1):
                absent = 0
                moved = False
                for j in range(v):
                    x, was = sample[j], before[j]
                    if fill == ZERO and (g < gap or x != x):
                        x = 0.0  # nothing happened, which is a value like any other
                        moved = moved or before[j] != 0.0
                    elif g < gap or x != x:
                        absent += 1
                        if fill == NONE or n_samples[k] == 0:
                            x = np.nan
                        elif fill == LINEAR and x == x and was == was:
                            x = was + (x - was) * ((g + 1.0) / (gap + 1.0))
                        else:
                            x = was
                    elif np.float32(x) != before[j]:
                        moved = True
                    old = ring[k, head * v + j]
                    if old != old:
                        sums[k, 1] -= 1
                    if x != x:
                        sums[k, 1] += 1
                    ring[k, head * v + j] = x
                sums[k, 0] += absent - np.int64(missing[k, head])
                missing[k, head] = absent
                # Filled-in samples neither stand still nor move.
                if moved:
                    still[k] = 0
                elif absent == 0:
                    still[k] += 1
                end = due - (gap - g) * step
                if step == 0:
                    since = min(end - last[k], 4294967295) if n_samples[k] > 0 else 0
                    sums[k, 2] += since - np.int64(gap_ms[k, head])
                    gap_ms[k, head] = since
                n_samples[k] += 1
                head = head + 1 if head + 1 < size else 0
                # On a grid the phase is absolute, so it does not depend on what came first.
                phase = end // step if step else n_samples[k]
                if n_samples[k] < min_periods or (stride > 1 and phase % stride != 0):
                    continue
                held = min(n_samples[k], size)
                row, window = ring[k], out_values[made]
                split = head * v
                window[: size * v - split] = row[split:]
                window[size * v - split :] = row[:split]
                # What a partial window does not hold yet is not known.
                window[: (size - held) * v] = np.nan
                if step:
                    out_start[made] = end - (size - 1) * step
                elif held == size:
                    # The oldest sample's gap reaches back to one that has left the window.
                    out_start[made] = end - (sums[k, 2] - np.int64(gap_ms[k, head]))
                else:
                    # The first sample has no gap. Were the window full it would begin about here.
                    out_start[made] = end - sums[k, 2] * (size - 1) // max(held - 1, 1)
                out_code[made] = k
                out_end[made] = end
                part = held / size
                out_incomplete[made] = (
                    sums[k, 0] > limits[0] * part or sums[k, 1] > limits[1] * part
                )
                out_row[made] = i
                out_still[made] = still[k]
                made += 1
            last[k] = due
        n_pending[k] = n
    return len(codes), made


@compiled
def ingest_items(codes, time_ms, lateness, clock, late):
    """Return the rows to judge and their keys' clocks after each of them."""
    row = np.empty(len(codes), np.int64)
    end_ms = np.empty(len(codes), np.int64)
    n = 0
    for i in range(len(codes)):
        k = codes[i]
        if k < 0:
            continue
        t = time_ms[i]
        if t < clock[k] - lateness:
            late[i] = True
            continue
        clock[k] = max(clock[k], t)
        row[n] = i
        end_ms[n] = clock[k]
        n += 1
    return row[:n].copy(), end_ms[:n].copy()


@compiled
def advance_clocks(at, codes, time_ms, settings, clock, done, late):
    """Return where to go on, rows that are taken, and those that close windows of their key.

    Stops before a row that lies inside a window closed since ``at``: it is no part of that one.
    done : the first pane of the earliest window of each key that is still open
    """
    slide, span, lateness = settings[0], settings[1], settings[2]
    taken = np.empty(len(codes), np.int64)
    moved = np.empty((len(codes), 3), np.int64)
    ended = np.full(len(clock), NEVER_SEEN, np.int64)
    n = m = 0
    stop = len(codes)
    for i in range(at, len(codes)):
        k = codes[i]
        if k < 0:
            continue
        t = time_ms[i]
        if t < ended[k] and t // slide >= done[k]:
            stop = i
            break
        if clock[k] == NEVER_SEEN:
            done[k] = t // slide - span // slide + 1
        elif t // slide < done[k]:
            late[i] = True
            continue
        taken[n] = i
        n += 1
        if t > clock[k] or clock[k] == NEVER_SEEN:
            clock[k] = t
            # A window that begins at pane p is closed once p * slide + span + lateness <= clock.
            first = (t - lateness - span) // slide + 1
            if first > done[k]:
                moved[m, 0], moved[m, 1], moved[m, 2] = i, done[k], first
                m += 1
                done[k] = first
                ended[k] = (first - 1) * slide + span
    return stop, taken[:n].copy(), moved[:m].copy()
