"""Compiled loops over graphs: adjacency, Rayleigh quotients, eigenvalue estimates, components.

Every graph is handled on its own and in one fixed order of operations, so what a graph gets does
not depend on the batch it stands in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

BLOCK = 4
"""Vectors of the subspace iteration: two are wanted, two more speed it up."""
ROUNDS = 40
SHIFT = 0.4
"""Taken off the Laplacian: eigenvalue 0 then counts less than any eigenvalue near 1."""
MOST_COUNT = 1e15
"""Larger counts of an edge weigh the same."""
TINY = 1e-12


@compiled
def join_edges(
    node_from: Int64s,
    edge_from: Int64s,
    source: NDArray[np.int32],
    target: NDArray[np.int32],
    count: Float64s,
    logs: bool,  # noqa: FBT001 numba takes arguments by place
) -> tuple[Int64s, NDArray[np.int32], Float64s]:
    """Return the undirected simple graph as sorted rows: where they begin, neighbours, weights.

    Self loops are dropped, both directions of a pair and repeated pairs are one edge whose count is
    their sum. An edge's weight is ``log(1 + count)`` with ``logs``, else 1. Counts below 0 and NaN
    are 0. Neighbours are places in the whole batch.
    """
    n_nodes, n_graphs = node_from[-1], len(node_from) - 1
    entries = 0
    for i in range(len(source)):
        if source[i] != target[i]:
            entries += 2
    neighbours = np.empty(entries, dtype=np.int32)
    weights = np.empty(entries, dtype=np.float64)
    begins = np.zeros(n_nodes + 1, dtype=np.int64)
    filled = 0
    for g in range(n_graphs):
        base, n = node_from[g], node_from[g + 1] - node_from[g]
        first, last = edge_from[g], edge_from[g + 1]
        size = np.zeros(n + 1, dtype=np.int64)
        total = 0
        for i in range(first, last):
            if source[i] != target[i]:
                size[source[i] + 1] += 1
                size[target[i] + 1] += 1
                total += 2
        for u in range(n):
            size[u + 1] += size[u]
        # Two counting sorts, by the far node and then by the near one, leave each row in order.
        place = size[:n].copy()
        near = np.empty(total, dtype=np.int32)
        far = np.empty(total, dtype=np.int32)
        held = np.empty(total, dtype=np.float64)
        for i in range(first, last):
            s, t = source[i], target[i]
            if s == t:
                continue
            c = count[i]
            c = min(c, MOST_COUNT) if c > 0 else 0.0
            for u, v in ((s, t), (t, s)):
                p = place[v]
                place[v] += 1
                near[p], far[p], held[p] = u, v, c
        place = size[:n].copy()
        row = np.empty(total, dtype=np.int32)
        amount = np.empty(total, dtype=np.float64)
        for p in range(total):
            q = place[near[p]]
            place[near[p]] += 1
            row[q], amount[q] = far[p], held[p]
        for u in range(n):
            start = filled
            for p in range(size[u], size[u + 1]):
                v = row[p] + base
                if filled > start and neighbours[filled - 1] == v:
                    weights[filled - 1] += amount[p]
                else:
                    neighbours[filled] = v
                    weights[filled] = amount[p]
                    filled += 1
            begins[base + u + 1] = filled
    for p in range(filled):
        weights[p] = np.log1p(weights[p]) if logs else 1.0
    return begins, neighbours[:filled].copy(), weights[:filled].copy()


@compiled
def normalise(begins: Int64s, neighbours: NDArray[np.int32], weights: Float64s) -> Float64s:
    """Return ``w_uv / sqrt(d_u d_v)`` for every entry, 0 where a node's degree is 0."""
    n_nodes = len(begins) - 1
    root = np.zeros(n_nodes, dtype=np.float64)
    for u in range(n_nodes):
        degree = 0.0
        for p in range(begins[u], begins[u + 1]):
            degree += weights[p]
        root[u] = np.sqrt(degree)
    shares = np.zeros(len(weights), dtype=np.float64)
    for u in range(n_nodes):
        for p in range(begins[u], begins[u + 1]):
            both = root[u] * root[neighbours[p]]
            if both > 0:
                shares[p] = weights[p] / both
    return shares


@compiled
def quadratic_forms(
    node_from: Int64s,
    begins: Int64s,
    neighbours: NDArray[np.int32],
    shares: Float64s,
    signals: Float64s,
) -> tuple[Float64s, Float64s]:
    """Return ``x^T L x`` and ``x^T x`` of every signal in every graph, each ``(n_graphs, F)``.

    Signals are divided by their largest magnitude in the graph first, as the quotient does not
    change and squares then stay finite; both forms are of the divided signals.
    """
    n_graphs, n_signals = len(node_from) - 1, signals.shape[1]
    forms = np.zeros((n_graphs, n_signals), dtype=np.float64)
    squares = np.zeros((n_graphs, n_signals), dtype=np.float64)
    image = np.empty(n_signals, dtype=np.float64)
    most = np.empty(n_signals, dtype=np.float64)
    for g in range(n_graphs):
        most[:] = 0.0
        for u in range(node_from[g], node_from[g + 1]):
            for f in range(n_signals):
                most[f] = max(most[f], abs(signals[u, f]))
        for f in range(n_signals):
            most[f] = 1.0 / most[f] if most[f] > 1e-300 else 0.0
        for u in range(node_from[g], node_from[g + 1]):
            image[:] = 0.0
            linked = False
            for p in range(begins[u], begins[u + 1]):
                share, v = shares[p], neighbours[p]
                linked = linked or share > 0
                for f in range(n_signals):
                    image[f] += share * signals[v, f]
            for f in range(n_signals):
                x = signals[u, f] * most[f]
                squares[g, f] += x * x
                if linked:
                    forms[g, f] += x * (x - image[f] * most[f])
    return forms, squares


@compiled
def _image(
    base: int,
    n: int,
    begins: Int64s,
    neighbours: NDArray[np.int32],
    shares: Float64s,
    vectors: Float64s,
    images: Float64s,
) -> None:
    """Write ``L v`` of the first ``n`` rows of ``vectors`` into ``images``."""
    for u in range(n):
        for b in range(vectors.shape[1]):
            images[u, b] = 0.0
        linked = False
        for p in range(begins[base + u], begins[base + u + 1]):
            share, v = shares[p], neighbours[p] - base
            linked = linked or share > 0
            for b in range(vectors.shape[1]):
                images[u, b] -= share * vectors[v, b]
        if linked:
            for b in range(vectors.shape[1]):
                images[u, b] += vectors[u, b]


@compiled
def _orthonormal(n: int, vectors: Float64s) -> None:
    """Make the columns orthonormal in place (modified Gram-Schmidt, twice); vanished ones are 0."""
    width = vectors.shape[1]
    for b in range(width):
        before = 0.0
        for u in range(n):
            before += vectors[u, b] * vectors[u, b]
        for _ in range(2):
            for a in range(b):
                along = 0.0
                for u in range(n):
                    along += vectors[u, a] * vectors[u, b]
                for u in range(n):
                    vectors[u, b] -= along * vectors[u, a]
        norm = 0.0
        for u in range(n):
            norm += vectors[u, b] * vectors[u, b]
        scale = 1.0 / np.sqrt(norm) if norm > 1e-20 * before and norm > 0 else 0.0
        for u in range(n):
            vectors[u, b] *= scale


@compiled
def _eigenvalues(matrix: Float64s) -> Float64s:
    """Return the eigenvalues of a small symmetric matrix, largest first (cyclic Jacobi)."""
    width = len(matrix)
    for _ in range(30):
        rest = 0.0
        for a in range(width):
            for b in range(a):
                rest += matrix[a, b] * matrix[a, b]
        if rest < 1e-28:
            break
        for a in range(width - 1):
            for b in range(a + 1, width):
                if abs(matrix[a, b]) < 1e-300:
                    continue
                ratio = (matrix[b, b] - matrix[a, a]) / (2.0 * matrix[a, b])
                tangent = 1.0 / (abs(ratio) + np.sqrt(ratio * ratio + 1.0))
                if ratio < 0:
                    tangent = -tangent
                cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
                sine = tangent * cosine
                for k in range(width):
                    x, y = matrix[k, a], matrix[k, b]
                    matrix[k, a], matrix[k, b] = cosine * x - sine * y, sine * x + cosine * y
                for k in range(width):
                    x, y = matrix[a, k], matrix[b, k]
                    matrix[a, k], matrix[b, k] = cosine * x - sine * y, sine * x + cosine * y
    values = np.empty(width, dtype=np.float64)
    for a in range(width):
        values[a] = matrix[a, a]
    return np.sort(values)[::-1].copy()


@compiled
def top_eigenvalues(
    node_from: Int64s, begins: Int64s, neighbours: NDArray[np.int32], shares: Float64s
) -> Float64s:
    """Return estimates of each Laplacian's two largest eigenvalues, ``(n_graphs, 2)``, in [0, 2].

    Subspace iteration with Rayleigh-Ritz (Parlett, The Symmetric Eigenvalue Problem, 1998, ch. 14)
    from a fixed start, `ROUNDS` times; exact up to rounding for graphs of up to `BLOCK` nodes.
    """
    n_graphs = len(node_from) - 1
    found = np.zeros((n_graphs, 2), dtype=np.float64)
    for g in range(n_graphs):
        base, n = node_from[g], node_from[g + 1] - node_from[g]
        if n == 0 or begins[base] == begins[base + n]:
            continue
        width = min(BLOCK, n)
        vectors = np.empty((n, width), dtype=np.float64)
        images = np.empty((n, width), dtype=np.float64)
        seed = np.uint64(88172645463325252)
        for u in range(n):
            for b in range(width):
                seed ^= seed << np.uint64(13)
                seed ^= seed >> np.uint64(7)
                seed ^= seed << np.uint64(17)
                vectors[u, b] = np.float64(seed >> np.uint64(11)) / 9007199254740992.0 - 0.5
        _orthonormal(n, vectors)
        for r in range(ROUNDS):
            _image(base, n, begins, neighbours, shares, vectors, images)
            for u in range(n):
                for b in range(width):
                    vectors[u, b] = images[u, b] - SHIFT * vectors[u, b]
            if r % 4 == 3:
                _orthonormal(n, vectors)
        _image(base, n, begins, neighbours, shares, vectors, images)
        small = np.zeros((width, width), dtype=np.float64)
        for a in range(width):
            for b in range(width):
                for u in range(n):
                    small[a, b] += 0.5 * (
                        vectors[u, a] * images[u, b] + vectors[u, b] * images[u, a]
                    )
        values = _eigenvalues(small)
        for b in range(min(2, width)):
            found[g, b] = min(max(values[b], 0.0), 2.0)
    return found


@compiled
def count_components(
    node_from: Int64s, begins: Int64s, neighbours: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return how many connected parts each graph has, isolated nodes included."""
    n_nodes, n_graphs = node_from[-1], len(node_from) - 1
    found = np.zeros(n_graphs, dtype=np.int64)
    seen = np.zeros(n_nodes, dtype=np.bool_)
    waiting = np.empty(n_nodes, dtype=np.int64)
    for g in range(n_graphs):
        for begin in range(node_from[g], node_from[g + 1]):
            if seen[begin]:
                continue
            found[g] += 1
            seen[begin] = True
            n_waiting = 1
            waiting[0] = begin
            while n_waiting:
                n_waiting -= 1
                u = waiting[n_waiting]
                for p in range(begins[u], begins[u + 1]):
                    v = neighbours[p]
                    if not seen[v]:
                        seen[v] = True
                        waiting[n_waiting] = v
                        n_waiting += 1
    return found
