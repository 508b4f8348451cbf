"""The compiled passes of the operators: partition time (see `operators.ahead`), runs and counts."""

import numpy as np

from streamad.compiled import compiled
from streamad.windows.arrays import NEVER

SLOTS = 1_024
MOST_KEYS = 64
LEAST_MESSAGES = 3
SUSTAINED_MESSAGES = 64

LATE_RUN = 64
"""Late records of a key without one that is not, after which a finding reports it."""

SHOWN, GAP, HIGHEST, LOWEST, MESSAGES, LAST, KEYS = range(7)


@compiled
def bound_ahead(time_ms, message, hashes, usable, max_ahead, clock, active, witnesses, shown):
    for i in range(len(time_ms)):
        shown[i] = clock[SHOWN]
        if not usable[i]:
            continue
        t, key = time_ms[i], hashes[i]
        allowed = max(max_ahead, 2 * clock[GAP])
        if clock[SHOWN] == NEVER:
            clock[SHOWN] = t
        if t <= clock[SHOWN] + allowed:
            if t > clock[SHOWN] - allowed:
                # Somebody still is in the present: whoever is ahead of it is alone.
                clock[MESSAGES] = 0
                slot = np.int64(key % np.uint64(SLOTS))
                active[slot] = max(active[slot], t)
            if t > clock[SHOWN]:
                clock[GAP] = max(t - clock[SHOWN], clock[GAP] - clock[GAP] // 16)
                clock[SHOWN] = t
            continue
        if clock[MESSAGES] == 0:
            clock[HIGHEST] = clock[LOWEST] = t
            clock[MESSAGES] = 1
            clock[KEYS] = 0
        elif message[i] != clock[LAST]:
            clock[MESSAGES] += 1
        clock[LAST] = message[i]
        clock[HIGHEST] = max(clock[HIGHEST], t)
        clock[LOWEST] = min(clock[LOWEST], t)
        known = False
        for j in range(clock[KEYS]):
            known = known or witnesses[j] == key
        if not known and clock[KEYS] < MOST_KEYS:
            witnesses[clock[KEYS]] = key
            clock[KEYS] += 1
        n_active = 0
        for j in range(SLOTS):
            if active[j] > clock[SHOWN] - allowed:
                n_active += 1
        needed = 1 if n_active < 2 else min(n_active // 2 + 1, MOST_KEYS)
        several = clock[MESSAGES] >= LEAST_MESSAGES and clock[KEYS] >= needed
        lasted = clock[HIGHEST] - clock[LOWEST] >= max_ahead
        usable[i] = False
        if several or (clock[MESSAGES] >= SUSTAINED_MESSAGES and lasted):
            # What all of them show is that the present is no earlier than the earliest.
            clock[GAP] = clock[LOWEST] - clock[SHOWN]
            clock[SHOWN] = clock[LOWEST]
            clock[MESSAGES] = 0
            active[:] = NEVER
            if t <= clock[SHOWN] + max(max_ahead, 2 * clock[GAP]):
                active[np.int64(key % np.uint64(SLOTS))] = t
                clock[SHOWN] = max(clock[SHOWN], t)
                usable[i] = True


@compiled
def late_runs(codes, late, run):
    """Count each key's late rows in a row; return the rows at which a run is long enough."""
    found = np.empty(len(codes), np.int64)
    n = 0
    for i in range(len(codes)):
        k = codes[i]
        if k < 0:
            continue
        if not late[i]:
            run[k] = 0
            continue
        run[k] += 1
        if run[k] == LATE_RUN:
            found[n] = i
            n += 1
    return found[:n].copy()


@compiled
def blind_runs(codes, incomplete, run, limit, ends, tells):
    """Mark windows at which a key has been blind for long, and those at which it mostly is.

    run : of each key its incomplete windows in a row, and by how many there were more of them than
        of others
    """
    for i in range(len(codes)):
        k = codes[i]
        run[k, 0] = run[k, 0] + 1 if incomplete[i] else 0
        ends[i] = run[k, 0] == limit
        run[k, 1] = min(run[k, 1] + 1, 2 * limit) if incomplete[i] else max(run[k, 1] - 1, 0)
        tells[i] = incomplete[i] and run[k, 1] == limit


@compiled
def numbered(codes, counts):
    """Return each window's ordinal, and count it: ``counts`` are the windows of each key."""
    ordinal = np.empty(len(codes), np.int64)
    for i in range(len(codes)):
        ordinal[i] = counts[codes[i]]
        counts[codes[i]] += 1
    return ordinal


@compiled
def marked_before(codes, ends):
    """Return how many windows of its key before each are marked."""
    before = np.empty(len(codes), np.int64)
    so_far = np.zeros(codes.max() + 1, np.int64)
    for i in range(len(codes)):
        before[i] = so_far[codes[i]]
        so_far[codes[i]] += ends[i]
    return before
