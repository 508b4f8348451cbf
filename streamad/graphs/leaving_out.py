"""Copies of a graph without some of its edges, and without the nodes only they brought in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs


def without_edges(graphs: Graphs, i: int, left_out: Sequence[NDArray[np.bool_]]) -> Graphs:
    """Return a copy of graph ``i`` for each mask, without the edges it marks.

    left_out : bool ``(n_edges_of_i,)`` each. A node all of whose edges are left out goes with
        them: it was in the graph because of them.
    """
    nodes = slice(int(graphs.node_from[i]), int(graphs.node_from[i + 1]))
    edges = slice(int(graphs.edge_from[i]), int(graphs.edge_from[i + 1]))
    source, target, count = graphs.source[edges], graphs.target[edges], graphs.count[edges]
    n_nodes = nodes.stop - nodes.start
    linked = _touched(n_nodes, source, target)
    places: list[NDArray[np.int64]] = []
    columns: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]] = []
    for mask in left_out:
        s, t = source[~mask], target[~mask]
        kept = _touched(n_nodes, s, t) | ~linked
        number = np.cumsum(kept) - 1
        places.append(np.flatnonzero(kept))
        columns.append((number[s].astype(np.int32), number[t].astype(np.int32), count[~mask]))
    n = len(left_out)
    at = np.concatenate([np.zeros(0, np.int64), *places]) + nodes.start
    return Graphs(
        time_ms=np.repeat(graphs.time_ms[i : i + 1], n, axis=0),
        node_from=_starts([len(one) for one in places]),
        edge_from=_starts([len(one[0]) for one in columns]),
        names=graphs.names[at],
        types=graphs.types[at],
        source=np.concatenate([source[:0], *(one[0] for one in columns)]),
        target=np.concatenate([target[:0], *(one[1] for one in columns)]),
        count=np.concatenate([count[:0], *(one[2] for one in columns)]),
        dropped=np.repeat(graphs.dropped[i : i + 1], n),
    )


def with_type(graphs: Graphs, i: int, held: NDArray[np.bool_], name: str) -> Graphs:
    """Return graph ``i`` with the type ``name`` for the nodes marked in ``held``."""
    one = graphs[i : i + 1]
    types = one.types.cast(pl.String).scatter(np.flatnonzero(held), name)
    return Graphs(
        one.time_ms,
        one.node_from,
        one.edge_from,
        one.names,
        types,
        one.source,
        one.target,
        one.count,
        one.dropped,
    )


def _touched(n: int, source: NDArray[np.int32], target: NDArray[np.int32]) -> NDArray[np.bool_]:
    made = np.zeros(n, np.bool_)
    made[source] = True
    made[target] = True
    return made


def _starts(sizes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(sizes, dtype=np.int64))])
