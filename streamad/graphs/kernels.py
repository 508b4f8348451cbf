"""Compiled kernels over edges: stable hashes of names, and the count-min sketches of MIDAS.

Hashes are ours alone, so that a state means the same in every process, version and machine. Edges
are judged strictly one after the other: nothing depends on how batches are cut.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Hashes = NDArray[np.uint64]
Int64s = NDArray[np.int64]
Floats64 = NDArray[np.float64]
Settings = tuple[int, float, float, int, int]
"""Seed, decay, threshold, adopt_after (0: never), horizon."""
Sketches = tuple[Floats64, Floats64, NDArray[np.int32]]
"""Of a memory, each ``(3, rows, buckets)``: current counts, totals, how long a bucket is held."""

FNV_BASIS = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_A = np.uint64(0xBF58476D1CE4E5B9)
MIX_B = np.uint64(0x94D049BB133111EB)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
EDGE, SOURCE, TARGET = 0, 1, 2
"""The three sketches."""
MOST_WEIGHT = 1e12
MOST_COUNT = 1e18
"""Bounds of one weight and of a bucket: their squares stay far inside float64."""
MOST_HELD = 2**30
PRIOR = 1.0
"""Edges, and ticks, that every usual count starts with (Laplace)."""
LN10 = math.log(10.0)


@compiled
def mixed(z: Any) -> Any:
    """Return a uint64 whose every bit depends on every bit of ``z`` (SplitMix64's finaliser)."""
    z = (z ^ (z >> S30)) * MIX_A
    z = (z ^ (z >> S27)) * MIX_B
    return z ^ (z >> S31)


@compiled
def hash_names(offsets: Int64s, data: NDArray[np.uint8]) -> Hashes:
    """Return FNV-1a of 64 bits of each name, mixed once more.

    offsets : ``(n + 1,)``, name ``i`` is ``data[offsets[i]:offsets[i + 1]]``, in UTF-8
    """
    found = np.empty(len(offsets) - 1, dtype=np.uint64)
    for i in range(len(found)):
        h = FNV_BASIS
        for at in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[at])) * FNV_PRIME
        found[i] = mixed(h)
    return found


@compiled
def hash_pair(source: Any, target: Any) -> Any:
    """Return the uint64 of an edge; the two directions differ."""
    return mixed(source * GOLDEN + mixed(target + GOLDEN))


@compiled
def bucket_of(key: Any, row: int, seed: int, n_buckets: int) -> Any:
    """Return the bucket of a key in one row of a sketch."""
    h = mixed(key + np.uint64(seed * 64 + row + 1) * GOLDEN)
    return np.int64(((h >> S32) * np.uint64(n_buckets)) >> S32)


@compiled
def adopted(current: float, total: float, n_ticks: int) -> float:
    """Return the total of a bucket whose present level becomes the usual one."""
    return max(total, current * n_ticks)


@compiled
def ended(current: float, total: float, held: int, plan: tuple[float, float]) -> float:
    """Return the total of a bucket after a tick has ended.

    MIDAS-F, algorithm 4: what is not held adds its count; what is held adds its usual count, so
    that its mean stays. plan : one over the ticks before, share of a total that is kept.
    """
    added = current if held == 0 else total * plan[0]
    return min((total + added) * plan[1], MOST_COUNT)


@compiled
def plan_of(n_ticks: int, horizon: int) -> tuple[float, float]:
    """Return what `ended` needs to know, with ``n_ticks`` learned before the tick that ends."""
    keep = horizon / (horizon + 1.0) if n_ticks >= horizon else 1.0
    return 1.0 / max(n_ticks, 1), keep


@compiled
def end_tick(n_passed: int, n_ticks: int, settings: Settings, sketches: Sketches) -> None:
    """End a tick in all buckets: totals learn, current counts fade once for each tick passed.

    Beyond the publication, a level that was held for ``adopt_after`` ticks becomes the usual one,
    and totals fade where there are more ticks than the horizon.
    """
    _, decay, _, adopt_after, horizon = settings
    current, total, held = sketches[0].ravel(), sketches[1].ravel(), sketches[2].ravel()
    fade = decay ** float(n_passed)
    plan = plan_of(n_ticks, horizon)
    if 0 < adopt_after <= held.max():
        for b in range(len(held)):
            if held[b] >= adopt_after:
                total[b] = adopted(current[b], total[b], n_ticks)
                held[b] = 0
    # No branches: this loop is to run several buckets at a time.
    for b in range(len(held)):
        total[b] = ended(current[b], total[b], held[b], plan)
        held[b] = min(held[b] + (held[b] > 0), MOST_HELD)
        current[b] *= fade


@compiled
def is_held(count: float, total: float, n_ticks: int, threshold: float) -> bool:
    """Return whether MIDAS-F holds a count back: its statistic reaches the threshold.

    (a + s - a t)^2 / (s (t - 1)) with t = n_ticks + 1; 0 where nothing was seen before.
    """
    if total <= 0.0 or n_ticks == 0:
        return False
    gap = total - count * n_ticks
    return gap * gap >= threshold * total * n_ticks


@compiled
def surprise(count: float, usual: float) -> float:
    """Return by how many decades a count is too high to be usual: -log10 of a bound of its tail.

    Chernoff's bound of the geometric distribution of mean ``usual`` (a Poisson count whose rate
    varies exponentially): 10^-surprise >= P(X >= count). For large counts it depends on their ratio
    alone: c/u - 1 - ln(c/u) nats. 0 at or below the usual.
    """
    if count <= usual:
        return 0.0
    over = count * math.log1p((count - usual) / ((count + 1.0) * usual))
    return max(over - math.log((count + 1.0) / (usual + 1.0)), 0.0) / LN10


@compiled
def sound(weight: float) -> float:
    """Return what an edge counts for: 0 for what is no number above 0, and no more than a bound."""
    return min(weight, MOST_WEIGHT) if weight > 0.0 else 0.0


@compiled
def key_of(kind: int, source: Any, target: Any) -> Any:
    """Return the key an edge has in one of the three sketches."""
    if kind == EDGE:
        return hash_pair(source, target)
    return source if kind == SOURCE else target


@compiled
def observe_edges(
    ticks: Int64s,
    nodes: tuple[Hashes, Hashes],
    weights: Floats64,
    settings: Settings,
    clock: Int64s,
    sketches: Sketches,
    judged: tuple[NDArray[np.float32], Floats64, Floats64],
) -> None:
    """Judge each edge against what came before it, then record it.

    ticks : ``(n,)``, number of the tick of event time each edge is of
    nodes : hashes of sources and targets, each ``(n,)``; weights : ``(n,)``
    clock : ``(3,)``: the current tick, ticks learned, 1 once there is a current tick
    judged : written: scores ``(n,)``; counts and usual counts, ``(n, 3)``
    """
    seed, _, threshold, _, horizon = settings
    current, total, held = sketches
    scores, counts, usuals = judged
    _, rows, n_buckets = current.shape
    places = np.empty(rows, dtype=np.int64)
    for i in range(len(ticks)):
        if clock[2] == 0:
            clock[0], clock[2] = ticks[i], 1
        elif ticks[i] > clock[0]:
            end_tick(ticks[i] - clock[0], clock[1], settings, sketches)
            clock[0], clock[1] = ticks[i], min(clock[1] + 1, horizon)
        n_ticks = clock[1]
        weight = sound(weights[i])
        score = 0.0
        for kind in range(3):
            key = key_of(kind, nodes[0][i], nodes[1][i])
            count, least = MOST_COUNT, MOST_COUNT
            for row in range(rows):
                b = bucket_of(key, row, seed, n_buckets)
                places[row] = b
                current[kind, row, b] = min(current[kind, row, b] + weight, MOST_COUNT)
                count = min(count, current[kind, row, b])
                least = min(least, total[kind, row, b])
            hold = is_held(count, least, n_ticks, threshold)
            for row in range(rows):
                was = held[kind, row, places[row]]
                held[kind, row, places[row]] = max(was, 1) if hold else 0
            usual = (least + PRIOR) / (n_ticks + PRIOR)
            counts[i, kind], usuals[i, kind] = count, usual
            if n_ticks > 0:
                score = max(score, surprise(count, usual))
        scores[i] = score


@compiled
def peek_edges(
    ticks: Int64s,
    nodes: tuple[Hashes, Hashes],
    weights: Floats64,
    settings: Settings,
    clock: Int64s,
    sketches: Sketches,
    judged: tuple[NDArray[np.float32], Floats64, Floats64],
) -> None:
    """Judge each edge as if it came next, and record nothing; see `observe_edges`."""
    seed, decay, _, _, horizon = settings
    current, total, held = sketches
    scores, counts, usuals = judged
    _, rows, n_buckets = current.shape
    for i in range(len(ticks)):
        n_passed = max(ticks[i] - clock[0], 0) if clock[2] else 0
        n_ticks = min(clock[1] + 1, horizon) if n_passed else clock[1]
        fade = decay ** float(n_passed)
        plan = plan_of(clock[1], horizon)
        score = 0.0
        for kind in range(3):
            key = key_of(kind, nodes[0][i], nodes[1][i])
            count, least = MOST_COUNT, MOST_COUNT
            for row in range(rows):
                b = bucket_of(key, row, seed, n_buckets)
                seen, learned = current[kind, row, b], total[kind, row, b]
                if n_passed > 0:
                    hold = held[kind, row, b]
                    if 0 < settings[3] <= hold:
                        learned, hold = adopted(seen, learned, clock[1]), 0
                    learned = ended(seen, learned, hold, plan)
                    seen = seen * fade
                count = min(count, seen + sound(weights[i]))
                least = min(least, learned)
            usual = (least + PRIOR) / (n_ticks + PRIOR)
            counts[i, kind], usuals[i, kind] = count, usual
            if n_ticks > 0:
                score = max(score, surprise(count, usual))
        scores[i] = score
