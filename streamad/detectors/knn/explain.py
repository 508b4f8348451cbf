"""What a window should have looked like, and which of its samples do not: explanations of k-NN.

The past that matches most of a window best tells what was due where it does not match. Differences
count up to a cap only, so that the anomaly does not choose its own neighbour: by plain distance the
nearest past of an outage is another low, and the ordinary samples around it would stand out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats, Ints
from streamad.detectors.knn.kernels import (
    COLD,
    LEAST_DISTANCE,
    Counts,
    Held,
    Plan,
    lay_out,
    visible_span,
)
from streamad.detectors.knn.search import History
from streamad.detectors.scales import place_sample

N_MATCHES = 3
N_NOISE = 4.0
"""Times the usual distance from which on a sample counts as anomalous."""
PEAK_SHARE = 0.25
"""And the share of the farthest sample's distance."""
RIVAL = 0.5
"""Of two events in a window the later is told, if it is so much of the stronger one."""
NO_EVENT = -1
BRIDGE = 3
"""Ordinary samples in a row that do not end an event."""


@compiled
def explain_windows(
    windows: Floats,
    turns: tuple[Ints, NDArray[np.int64]],
    reference: History,
    memory: tuple[Held, Counts],
    plan: Plan,
) -> tuple[Floats, Floats, Ints]:
    """Return expected values and shares ``(n, n_variates)``, and ``(n, 3)``: the event's samples.

    The three are the sample that departs most, the first, and the last of the event.
    """
    slots, order = turns
    held, counts = memory
    _, _, loc, scale, usual = held
    n, size, n_variates = windows.shape
    expected = np.zeros((n, n_variates), dtype=np.float32)
    share = np.full((n, n_variates), 1.0 / n_variates, dtype=np.float32)
    event = np.full((n, 3), size - 1, dtype=np.int32)
    lived = np.zeros((n_variates, held[0].shape[2]), dtype=np.float32)
    runs = np.zeros(lived.shape[1], dtype=np.int32)
    query = np.empty((n_variates, size), dtype=np.float32)
    due = np.empty((n_variates, size), dtype=np.float32)
    apart = np.empty(size, dtype=np.float32)
    cost = np.empty(N_MATCHES, dtype=np.float32)
    place = np.empty(N_MATCHES, dtype=np.int64)
    rank = 0
    for j in range(n):
        w = order[j]
        slot = slots[w]
        rank = rank + 1 if j > 0 and slots[order[j - 1]] == slot else 0
        if counts[4][slot] == COLD:
            expected[w] = windows[w, size - 1]
            continue
        first, _, newest = visible_span(slot, rank, size, held[0].shape[2], counts, plan)
        lay_out(slot, (first, newest), held, lived, runs)
        for v in range(n_variates):
            for i in range(size):
                query[v, i] = place_sample(windows[w, i, v], loc[slot, v], scale[slot, v])
        # The last row but one is of the longest stretch, the whole window.
        noise = np.float32(N_NOISE) * max(usual[slot, plan[1] - 1, 0], np.float32(LEAST_DISTANCE))
        cost[:] = np.inf
        place[:] = -1
        n_lived = max(newest - first - size + 1, 0)
        _match(query, (lived, runs, n_lived), noise, cost, place, 0)
        _match(query, reference, noise, cost, place, n_lived)
        for v in range(n_variates):
            for i in range(size):
                due[v, i] = _middle(lived, reference[0], place, n_lived, v, i)
        _event(query, due, noise, apart, event[w])
        at = event[w, 0]
        first_told, past_told = _span(event[w])
        total = np.float32(0.0)
        for v in range(n_variates):
            expected[w, v] = due[v, at] * scale[slot, v] + loc[slot, v]
            share[w, v] = 0.0
            for i in range(first_told, past_told):
                if not np.isnan(query[v, i]):
                    share[w, v] += (query[v, i] - due[v, i]) * (query[v, i] - due[v, i])
            total += share[w, v]
        for v in range(n_variates):
            share[w, v] = share[w, v] / total if total > 0.0 else np.float32(1.0 / n_variates)
    return expected, share, event


@compiled
def _span(event: Ints) -> tuple[int, int]:
    """Return the event's first sample and one past its last; the told one where there is none."""
    if event[1] == NO_EVENT:
        return event[0], event[0] + 1
    return event[1], event[2] + 1


@compiled
def _match(
    query: Floats,
    history: History,
    noise: np.float32,
    cost: Floats,
    place: NDArray[np.int64],
    offset: int,
) -> None:
    """Improve the best matches by those in one history; differences count up to ``noise``."""
    samples, runs, n_places = history
    size = query.shape[1]
    cap = noise * noise
    for p in range(n_places):
        if runs[p] < size:
            continue
        total = np.float32(0.0)
        worst = cost[N_MATCHES - 1]
        for i in range(size):
            for v in range(len(query)):
                if not np.isnan(query[v, i]):
                    d = query[v, i] - samples[v, p + i]
                    total += min(d * d, cap)
            if total >= worst:
                break
        if total < worst:
            at = N_MATCHES - 1
            while at > 0 and cost[at - 1] > total:
                cost[at], place[at] = cost[at - 1], place[at - 1]
                at -= 1
            cost[at], place[at] = total, offset + p


@compiled
def _middle(
    lived: Floats, reference: Floats, place: NDArray[np.int64], n_lived: int, v: int, i: int
) -> np.float32:
    """Return the middle of the matches at one sample; the median of the series without any."""
    if place[0] < 0:
        return np.float32(0.0)
    values = np.empty(N_MATCHES, dtype=np.float32)
    for m in range(N_MATCHES):
        at = place[m] if place[m] >= 0 else place[0]
        values[m] = lived[v, at + i] if at < n_lived else reference[v, at - n_lived + i]
    a, b, c = values[0], values[1], values[2]
    return max(min(a, b), min(max(a, b), c))


@compiled
def _event(query: Floats, due: Floats, noise: np.float32, apart: Floats, event: Ints) -> None:
    """Write the sample that departs most, and the first and last one of its event."""
    size = query.shape[1]
    farthest = np.float32(0.0)
    for i in range(size):
        apart[i] = 0.0
        for v in range(len(query)):
            if not np.isnan(query[v, i]):
                apart[i] = max(apart[i], abs(query[v, i] - due[v, i]))
        farthest = max(farthest, apart[i])
    level = max(noise, np.float32(PEAK_SHARE) * farthest)
    if farthest < level:
        for i in range(size):
            if apart[i] >= farthest:
                event[0] = i
        event[1] = event[2] = NO_EVENT
        return
    # Runs above the level, from the newest back; the first that holds its own is the event.
    i = size - 1
    while i >= 0:
        if apart[i] < level:
            i -= 1
            continue
        last, first, peak, quiet = i, i, i, 0
        while i >= 0 and quiet <= BRIDGE:
            if apart[i] >= level:
                first, quiet = i, 0
                if apart[i] > apart[peak]:
                    peak = i
            else:
                quiet += 1
            i -= 1
        if apart[peak] >= np.float32(RIVAL) * farthest:
            event[0], event[1], event[2] = peak, first, last
            return
        i = first - 1
