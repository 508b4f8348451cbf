"""Compiled loops over keys' own counts; see `streamad.detectors.events.peers`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
Counters = NDArray[np.uint8]
Halves = NDArray[np.uint16]

SHIFT = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


@compiled
def cell_of(hashed: np.uint64, row: int, width: int) -> np.int64:
    """Return the cell of a value in one row of a sketch: high and low half of its hash."""
    half = hashed >> SHIFT if row == 0 else hashed & LOW
    return np.int64((half * np.uint64(width)) >> SHIFT)


@compiled
def count_of(hashed: np.uint64, counts: Floats) -> np.float32:
    """Return how often a value was counted ``(2, width)``; never less than it was."""
    width = counts.shape[1]
    one = counts[0, cell_of(hashed, 0, width)]
    other = counts[1, cell_of(hashed, 1, width)]
    least: np.float32 = min(one, other)
    return least


@compiled
def habit_of(count: np.float64, total: np.float64, n_habits: int) -> np.int64:
    """Return how rare a value is for its key: 0 half of all events .. the last: never seen."""
    if count < 0.5 or total <= 0:
        return np.int64(n_habits - 1)
    share = count / total
    if share >= 1:
        return np.int64(0)
    rare = np.int64(-np.log2(share) / 1.5)
    return np.int64(n_habits - 2) if rare > n_habits - 2 else rare


@compiled
def judge_keys(
    hashes: Hashes,
    slots: Ints,
    share: Floats,
    held: tuple[Floats, Floats, Floats],
    least: float,
) -> Floats:
    """Return how strange each value is for its key ``(n, m, 2)``, ``-log10`` of probabilities.

    First: of values as rare as this, by the key's own habits in that field. Second: of seeing it so
    seldom, were the key like its peers: the Poisson deviance of its count, at most the lift.
    share : of the population that has the value ``(n, m)``, or ``(0, 0)``: nothing is known
    held : counts ``(n_slots, 2, width)``, totals, habits ``(n_slots, m, n_habits)``
    """
    counts, totals, habits = held
    n, m = hashes.shape
    n_habits = habits.shape[2]
    out = np.zeros((n, m, 2), np.float32)
    for row in range(n):
        slot = slots[row]
        total = np.float64(totals[slot])
        if total < least:
            continue
        for field in range(m):
            count = np.float64(count_of(hashes[row, field], counts[slot]))
            rare = habit_of(count, total, n_habits)
            rarer, known = 0.5, 1.0
            for habit in range(n_habits):
                known += habits[slot, field, habit]
                if habit > rare:
                    rarer += habits[slot, field, habit]
            rarer += 0.5 * habits[slot, field, rare]
            # Half of its own share is a bound: values as rare as this hold this one.
            chance = max(rarer / known, 0.5 * count / (total + 1.0))
            out[row, field, 0] = -np.log10(min(chance, 1.0))
            if share.shape[0] > 0:
                due = total * share[row, field]
                if count < due:
                    deviance = due - count
                    if count > 0:
                        deviance += count * np.log(count / due)
                    lift = np.log((due + 0.5) / (count + 0.5))
                    out[row, field, 1] = min(deviance, lift * 3.0) / np.log(10.0)
    return out


@compiled
def learn_keys(
    hashes: Hashes,
    slots: Ints,
    admit: Flags,
    held: tuple[Floats, Floats, Floats],
    waiting: tuple[Counters, Halves, Halves],
    banned: Counters,
    n_seen: Longs,
    plan: tuple[int, float],
) -> None:
    """Count events into the waiting room of their key; each ``every`` events it moves up.

    held : what `judge_keys` reads; waiting : counts ``(n_slots, 2, 2, width)``, events
    ``(n_slots, 2)``, habits ``(n_slots, 2, m, n_habits)``: the newest, and the ones before them
    banned : counts ``(n_slots, 2, width)`` of events that were not admitted
    """
    counts, totals, habits = held
    fresh, fresh_totals, fresh_habits = waiting
    every, decay = plan
    m, n_habits, width = hashes.shape[1], habits.shape[2], counts.shape[2]
    for row in range(len(slots)):
        slot = slots[row]
        n_seen[slot] += 1
        total = np.float64(totals[slot]) + fresh_totals[slot, 0] + fresh_totals[slot, 1]
        if admit[row]:
            banned[slot] = 0
            fresh_totals[slot, 0] += 1
        for field in range(m):
            count = np.float64(1e30)
            for line in range(2):
                cell = cell_of(hashes[row, field], line, width)
                here = np.float64(counts[slot, line, cell]) + fresh[slot, 0, line, cell]
                here += fresh[slot, 1, line, cell]
                if here < count:  # noqa: PLR1730 what min() makes of numpy types is no number
                    count = here
            for line in range(2):
                cell = cell_of(hashes[row, field], line, width)
                if admit[row]:
                    fresh[slot, 0, line, cell] = min(fresh[slot, 0, line, cell], 254) + 1
                else:
                    banned[slot, line, cell] = min(banned[slot, line, cell], 254) + 1
            if admit[row]:
                # Before anything is known all is new: that is no habit.
                if total >= 32:
                    rare = habit_of(count, total, n_habits)
                    fresh_habits[slot, 0, field, rare] += 1
        if n_seen[slot] % every == 0:
            counts[slot] = counts[slot] * np.float32(decay) + fresh[slot, 1]
            totals[slot] = totals[slot] * np.float32(decay) + fresh_totals[slot, 1]
            habits[slot] = habits[slot] * np.float32(decay) + fresh_habits[slot, 1]
            fresh[slot, 1] = fresh[slot, 0]
            fresh_totals[slot, 1] = fresh_totals[slot, 0]
            fresh_habits[slot, 1] = fresh_habits[slot, 0]
            fresh[slot, 0] = 0
            fresh_totals[slot, 0] = 0
            fresh_habits[slot, 0] = 0
