"""The RQ network's forward pass, one graph at a time in one order of operations, without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Floats = NDArray[np.float32]
SLOPE = np.float32(0.01)


@compiled
def _add_product(row: Floats, matrix: Floats, out: Floats) -> None:
    """Add ``row @ matrix`` to ``out``."""
    for k in range(len(row)):
        a = row[k]
        if a == 0:
            continue
        line = matrix[k]
        for j in range(len(out)):
            out[j] += a * line[j]


@compiled
def _leak(values: Floats) -> None:
    for j in range(len(values)):
        if values[j] < 0:
            values[j] *= SLOPE


@compiled
def score_graphs(
    node_from: NDArray[np.int64],
    begins: NDArray[np.int64],
    neighbours: NDArray[np.int32],
    shares: Floats,
    codes: NDArray[np.int32],
    quotients: Floats,
    table: Floats,
    mix: Floats,
    mix_bias: Floats,
    embed: Floats,
    embed_bias: Floats,
    pool: Floats,
    pool_bias: Floats,
    pool_out: Floats,
    pool_out_bias: Floats,
    branch: Floats,
    branch_bias: Floats,
    head: Floats,
    head_bias: Floats,
) -> Floats:
    """Return the log odds of being anomalous, float32 ``(n_graphs,)``.

    The arrays behind ``quotients`` are those of `streamad.training.rqgnn.export_arrays`. Cost per
    node: ``mix.size + embed.size`` multiplications, and ``n_terms * F`` per neighbour.
    """
    n_graphs, width, hidden = len(node_from) - 1, table.shape[1], len(mix_bias)
    n_terms = len(mix) // width
    scores = np.empty(n_graphs, dtype=np.float32)
    wanted, between = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    pooled = np.empty(hidden, np.float32)
    for g in range(n_graphs):
        base, n = node_from[g], node_from[g + 1] - node_from[g]
        between[:] = pool_bias
        _add_product(quotients[g], pool, between)
        _leak(between)
        wanted[:] = pool_out_bias
        _add_product(between, pool_out, wanted)
        _leak(wanted)
        # Chebyshev terms, two at a time: each newest takes the place of the one before the last.
        newest = np.empty((n, width), np.float32)
        before = np.zeros((n, width), np.float32)
        made = np.empty((n, hidden), np.float32)
        for u in range(n):
            newest[u] = table[codes[base + u]]
            made[u] = mix_bias
            _add_product(newest[u], mix[:width], made[u])
        for k in range(1, n_terms):
            before, newest = newest, before
            twice = np.float32(1 if k == 1 else 2)
            for u in range(n):
                for f in range(width):
                    newest[u, f] = -newest[u, f]
                for p in range(begins[base + u], begins[base + u + 1]):
                    share, v = twice * shares[p], neighbours[p] - base
                    for f in range(width):
                        newest[u, f] -= share * before[v, f]
                _add_product(newest[u], mix[k * width : (k + 1) * width], made[u])
        pooled[:] = 0
        for u in range(n):
            _leak(made[u])
            between[:] = embed_bias
            _add_product(made[u], embed, between)
            _leak(between)
            score = np.float32(0)
            for j in range(hidden):
                score += between[j] * wanted[j]
            for j in range(hidden):
                pooled[j] += score * between[j]
        between[:] = branch_bias
        _add_product(quotients[g], branch, between)
        _leak(between)
        total = head_bias[0]
        for j in range(hidden):
            total += head[j] * pooled[j]
        for j in range(hidden):
            total += head[hidden + j] * between[j]
        scores[g] = total
    return scores


@compiled
def squared_lengths(
    deviations: NDArray[np.float64], whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``|W z|^2`` of every row z, float64 ``(n,)``, summed in one order."""
    n, width = deviations.shape
    lengths = np.zeros(n, dtype=np.float64)
    for i in range(n):
        for a in range(width):
            total = 0.0
            for b in range(a + 1):  # W is the inverse of a Cholesky factor: lower triangular
                total += whitening[a, b] * deviations[i, b]
            lengths[i] += total * total
    return lengths
