"""Compiled kernels of `streamad.detectors.graphs.changes`: bounded tables of nodes and of edges.

Both tables are sets of eight places: a hash chooses the set, and where it is full the least useful
of the eight goes. The edges of a source are linked, so that those that fell silent are found when
the source is active again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.graphs.kernels import S32, Floats64, Hashes, Int64s, hash_pair, surprise

WAYS = 8
NAME_BYTES = 64
BITS = 512
WORDS = BITS // 64
N_CHECKS = 4
"""Other edges of a source that are looked at when it is active, in turn."""
SLOWEST = 0.05
"""Least weight of the newest value in a running mean: it follows about the last 20."""
LEAST_WINDOWS = 3
"""Windows of a source after which its usual fan-out counts as known."""
EMPTY = np.uint64(0)

FIRST_MS, LAST_TICK, ACTIVE, N_OUT, N_IN, HEAD, CURSOR = 0, 1, 2, 3, 4, 5, 6
SENT, SENT_AT, BORN, BORN_AT = 7, 8, 9, 10
GOT, GOT_AT, MET, MET_AT = 11, 12, 13, 14
WINDOW, N_WINDOWS, N_SET = 15, 16, 17
N_NODE = 18
"""Columns of a node. Sent: ticks in which it was a source; born: ticks in which an edge from it was
new. Got and met: the same as a target. ``_at``: the newest such tick."""
SOURCE, BEGAN_MS, SEEN_MS, SEEN, SEEN_AT, USED, NEXT, PREV, GONE = 0, 1, 2, 3, 4, 5, 6, 7, 8
N_EDGE = 9
"""Columns of an edge. Seen: ticks in which it was there; seen_at: its source's ``sent`` then."""
NOTHING, NEW, VANISHED, FAN_OUT = 0, 1, 2, 3
"""Kinds of findings."""
N_FACTS = 6
NOW, STARTED, LOST_NODES, LOST_EDGES = 0, 1, 2, 3

Nodes = tuple[Hashes, Int64s, Floats64, Hashes, NDArray[np.uint8]]
"""Hashes ``(n,)``, columns, usual fan-out ``(n,)``, bits ``(n, WORDS)``, names."""
Edges = tuple[Hashes, Hashes, Int64s, Floats64]
"""Hashes of pairs and of targets ``(n,)``, columns, mean gap and its mean deviation ``(n, 2)``."""
Name = tuple[Any, Int64s, NDArray[np.uint8], int]
"""Hash, offsets and data of all names, and which of them."""
Found = tuple[NDArray[np.float32], NDArray[np.int8], Floats64, Int64s, Hashes]
"""Written: scores, kinds, facts ``(n, N_FACTS)``, place and hash of the node that is missed."""


@compiled
def set_of(h: Any, n_places: int) -> Any:
    """Return the first place of the set a hash belongs to."""
    return np.int64(((h >> S32) * np.uint64(n_places // WAYS)) >> S32) * WAYS


@compiled
def find(hashes: Hashes, h: Any) -> int:
    """Return the place of a hash, -1 where it has none."""
    first = set_of(h, len(hashes))
    for at in range(first, first + WAYS):
        if hashes[at] == h:
            return at
    return -1


@compiled
def use_of(active: int, last: int, now: int) -> float:
    """Return how useful an entry is: ticks in which it was seen, over ticks since.

    A flood of names seen once leaves what has been there for long.
    """
    return active / (1.0 + max(now - last, 0))


@compiled
def drop_edge(e: int, nodes: Nodes, edges: Edges) -> None:
    """Take an edge out of its table and out of its source's list."""
    node, edge = nodes[1], edges[2]
    source, after, before = edge[e, SOURCE], edge[e, NEXT], edge[e, PREV]
    if before >= 0:
        edge[before, NEXT] = after
    else:
        node[source, HEAD] = after
    if after >= 0:
        edge[after, PREV] = before
    if node[source, CURSOR] == e:
        node[source, CURSOR] = after
    node[source, N_OUT] -= 1
    target = find(nodes[0], edges[1][e])
    if target >= 0:
        node[target, N_IN] = max(node[target, N_IN] - 1, 0)
    edges[0][e] = EMPTY


@compiled
def place_node(
    name: Name, time_ms: int, keep: int, counters: Int64s, both: tuple[Nodes, Edges]
) -> int:
    """Return the place of a node, which is made where it is new; ``keep`` is not given up."""
    nodes, edges = both
    hashes, node, usual, bits, names = nodes
    h, offsets, data, i = name
    at = find(hashes, h)
    if at >= 0:
        return at
    first = set_of(h, len(hashes))
    at, least = first, np.inf
    for place in range(first, first + WAYS):
        use = use_of(node[place, ACTIVE], node[place, LAST_TICK], counters[NOW])
        if hashes[place] == EMPTY:
            use = -1.0
        if place != keep and use < least:
            at, least = place, use
    if hashes[at] != EMPTY:
        counters[LOST_NODES] += 1
        while node[at, HEAD] >= 0:
            drop_edge(node[at, HEAD], nodes, edges)
            counters[LOST_EDGES] += 1
    hashes[at] = h
    node[at] = 0
    node[at, FIRST_MS], node[at, HEAD], node[at, CURSOR] = time_ms, -1, -1
    node[at, SENT_AT] = node[at, BORN_AT] = node[at, GOT_AT] = node[at, MET_AT] = counters[NOW] - 1
    node[at, LAST_TICK] = counters[NOW] - 1
    usual[at] = 0.0
    bits[at] = 0
    names[at] = 0
    for k in range(min(offsets[i + 1] - offsets[i], NAME_BYTES)):
        names[at, k] = data[offsets[i] + k]
    return at


@compiled
def place_edge(
    h: Any, source: int, target_hash: Any, counters: Int64s, both: tuple[Nodes, Edges]
) -> Any:
    """Return the place of a new edge of a source, linked as the first of its list."""
    nodes, edges = both
    node, edge = nodes[1], edges[2]
    first = set_of(h, len(edges[0]))
    at, least = first, np.inf
    for place in range(first, first + WAYS):
        use = use_of(edge[place, SEEN], edge[place, USED], counters[NOW])
        if edges[0][place] == EMPTY:
            use = -1.0
        if use < least:
            at, least = place, use
    if edges[0][at] != EMPTY:
        counters[LOST_EDGES] += 1
        drop_edge(at, nodes, edges)
    edges[0][at], edges[1][at] = h, target_hash
    edge[at] = 0
    edges[3][at] = 0.0
    edge[at, SOURCE], edge[at, PREV], edge[at, NEXT] = source, -1, node[source, HEAD]
    if node[source, HEAD] >= 0:
        edge[node[source, HEAD], PREV] = at
    node[source, HEAD] = at
    node[source, N_OUT] += 1
    return at


@compiled
def novelty(born: int, spoken: int) -> float:
    """Return how likely a tick of a node is to bring a new edge: Laplace's rule over past ticks."""
    return min((born + 1.0) / (spoken + 2.0), 1.0)


@compiled
def judge_new(s: int, t: int, time_ms: int, node: Int64s, facts: Floats64) -> float:
    """Return how unlikely a new edge is for both its ends, in decades: the lesser of the two.

    A source that often meets new targets, or a target that often meets new sources, explains it;
    so does an end of which little is known.
    """
    by_source = novelty(node[s, BORN], node[s, SENT] - 1)
    by_target = novelty(node[t, MET], node[t, GOT] - 1)
    facts[0], facts[1] = max(time_ms - node[s, FIRST_MS], 0), node[s, N_OUT]
    facts[2], facts[3] = max(time_ms - node[t, FIRST_MS], 0), node[t, N_IN]
    facts[4], facts[5] = by_source, by_target
    return -math.log10(max(by_source, by_target))


@compiled
def see_edge(e: int, sent: int, time_ms: int, now: int, edges: Edges) -> None:
    """Record that an edge was there, and its gap in ticks in which its source was active."""
    edge, gaps = edges[2], edges[3]
    gap = sent - edge[e, SEEN_AT]
    if edge[e, SEEN] == 0:
        edge[e, BEGAN_MS] = edge[e, SEEN_MS] = time_ms
        edge[e, SEEN] = 1
    elif gap > 0:
        if edge[e, GONE] == 0:
            n = edge[e, SEEN]
            share = max(1.0 / n, SLOWEST)
            if n > 1:
                gaps[e, 1] += share * (abs(gap - gaps[e, 0]) - gaps[e, 1])
            gaps[e, 0] += share * (gap - gaps[e, 0])
        edge[e, SEEN] += 1
    edge[e, SEEN_AT], edge[e, USED], edge[e, GONE] = sent, now, 0
    edge[e, SEEN_MS] = max(edge[e, SEEN_MS], time_ms)


@compiled
def find_silent(
    s: int, own: int, limits: tuple[int, float], both: tuple[Nodes, Edges], facts: Floats64
) -> tuple[float, int]:
    """Return how overdue an edge of a source is, in decades, and its place (-1: none is).

    limits : ticks an edge must have been seen in, and its usual gaps after which it has vanished.
    At most `N_CHECKS` edges are looked at, where the last call left off. An edge is reported once.
    """
    nodes, edges = both
    node, edge, gaps = nodes[1], edges[2], edges[3]
    for _ in range(min(N_CHECKS, node[s, N_OUT])):
        e = node[s, CURSOR]
        if e < 0:
            e = node[s, HEAD]
        node[s, CURSOR] = edge[e, NEXT]
        if e == own or edge[e, GONE] != 0 or edge[e, SEEN] < limits[0]:
            continue
        silent = node[s, SENT] - edge[e, SEEN_AT]
        usual = max(gaps[e, 0] + 2.0 * gaps[e, 1], 1.0)
        if silent > limits[1] * usual:
            edge[e, GONE] = 1
            facts[0], facts[1], facts[2] = edge[e, SEEN_MS], silent, gaps[e, 0]
            facts[3], facts[4] = edge[e, SEEN], edge[e, BEGAN_MS]
            return silent / usual * math.log10(math.e), e
    return 0.0, -1


@compiled
def count_targets(n_set: int) -> float:
    """Return the distinct targets behind bits that are set (linear counting, Whang et al. 1990)."""
    return -BITS * math.log(max(BITS - n_set, 0.5) / BITS)


@compiled
def judge_fan(s: int, target_hash: Any, window: int, nodes: Nodes, facts: Floats64) -> float:
    """Record a target of a source, and return how unusual its number of targets is, in decades.

    What a window may teach is bounded: a scan does not become usual by itself.
    """
    node, usual, bits = nodes[1], nodes[2], nodes[3]
    if node[s, WINDOW] != window:
        if node[s, N_SET] > 0:
            seen = count_targets(node[s, N_SET])
            n = node[s, N_WINDOWS]
            if n >= LEAST_WINDOWS:
                seen = min(seen, 3.0 * usual[s] + 3.0)
            usual[s] += max(1.0 / (n + 1), SLOWEST) * (seen - usual[s])
            node[s, N_WINDOWS] += 1
        node[s, WINDOW], node[s, N_SET] = window, 0
        bits[s] = 0
    bit = np.int64(target_hash & np.uint64(BITS - 1))
    mask = np.uint64(1) << np.uint64(bit & 63)
    if bits[s, bit >> 6] & mask == EMPTY:
        bits[s, bit >> 6] |= mask
        node[s, N_SET] += 1
    facts[0], facts[1], facts[2] = count_targets(node[s, N_SET]), usual[s], node[s, N_WINDOWS]
    if node[s, N_WINDOWS] < LEAST_WINDOWS:
        return 0.0
    return surprise(facts[0], max(usual[s], 1.0))


@compiled
def observe_changes(
    times: tuple[Int64s, Int64s],
    names: tuple[Any, Any],
    plan: tuple[int, int, float],
    counters: Int64s,
    nodes: Nodes,
    edges: Edges,
    found: Found,
) -> None:
    """Judge each edge by what changed, then record it.

    times : milliseconds and number of the tick of each edge; names : of sources and of targets,
    each hashes, offsets and data; plan : ticks per window, least ticks seen, gaps to vanish
    """
    window_ticks, least_seen, n_gaps = plan
    scores, kinds, facts, place, missed = found
    both = (nodes, edges)
    node = nodes[1]
    held = np.zeros((3, N_FACTS))
    for i in range(len(scores)):
        time_ms = times[0][i]
        now = times[1][i]
        if counters[STARTED] != 0:
            now = max(now, counters[NOW])
        counters[NOW], counters[STARTED] = now, 1
        (hash_s, from_s, data_s), (hash_t, from_t, data_t) = names
        s = place_node((hash_s[i], from_s, data_s, i), time_ms, -1, counters, both)
        t = place_node((hash_t[i], from_t, data_t, i), time_ms, s, counters, both)
        for at in (s, t):
            if node[at, LAST_TICK] != now:
                node[at, ACTIVE] += 1
                node[at, LAST_TICK] = now
        if node[s, SENT_AT] != now:
            node[s, SENT], node[s, SENT_AT] = node[s, SENT] + 1, now
        if node[t, GOT_AT] != now:
            node[t, GOT], node[t, GOT_AT] = node[t, GOT] + 1, now
        h = hash_pair(hash_s[i], hash_t[i])
        if h == EMPTY:
            h = np.uint64(1)
        e = find(edges[0], h)
        score, kind, gone = 0.0, NOTHING, -1
        if e < 0:
            score, kind = judge_new(s, t, time_ms, node, held[0]), NEW
            if node[s, BORN_AT] != now:
                node[s, BORN], node[s, BORN_AT] = node[s, BORN] + 1, now
            if node[t, MET_AT] != now:
                node[t, MET], node[t, MET_AT] = node[t, MET] + 1, now
            e = place_edge(h, s, hash_t[i], counters, both)
            node[t, N_IN] += 1
        see_edge(e, node[s, SENT], time_ms, now, edges)
        overdue, gone = find_silent(s, e, (least_seen, n_gaps), both, held[1])
        if overdue > score:
            score, kind = overdue, VANISHED
        fan = judge_fan(s, hash_t[i], now // window_ticks, nodes, held[2])
        if fan > score:
            score, kind = fan, FAN_OUT
        scores[i], kinds[i], place[i] = score, kind, -1
        if kind != NOTHING:
            facts[i] = held[kind - 1]
        if kind == VANISHED:
            missed[i] = edges[1][gone]
            place[i] = find(nodes[0], missed[i])
