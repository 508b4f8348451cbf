"""Graphs for tests: from lists of edges, at random, and of a small town of services."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs

Edge = tuple[str, str] | tuple[str, str, float]


def graphs_of(
    listed: Sequence[Sequence[Edge]],
    types: dict[str, str] | None = None,
    alone: Sequence[Sequence[str]] = (),
) -> Graphs:
    """Return a graph per list of edges ``(source, target)`` or ``(source, target, count)``.

    types : of nodes by name; the others' is what stands before the last ``-`` in their name
    alone : nodes without edges, a list per graph

    Examples
    --------
    >>> graphs_of([[("web-1", "db-1")], []]).names.to_list()
    ['web-1', 'db-1']
    """
    names: list[str] = []
    node_from, edge_from = [0], [0]
    rows: list[tuple[int, int, float]] = []
    for i, edges in enumerate(listed):
        place: dict[str, int] = {}
        for edge in edges:
            a, b = (place.setdefault(str(name), len(place)) for name in edge[:2])
            rows.append((a, b, float(edge[2]) if len(edge) > 2 else 1.0))
        for name in alone[i] if i < len(alone) else ():
            place.setdefault(name, len(place))
        names += place
        node_from.append(len(names))
        edge_from.append(len(rows))
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    n = len(listed)
    kinds = [(types or {}).get(name, name.rpartition("-")[0]) for name in names]
    return Graphs(
        time_ms=np.stack([np.arange(n), np.arange(1, n + 1)], axis=1).astype(np.int64) * 60_000,
        node_from=np.array(node_from, dtype=np.int64),
        edge_from=np.array(edge_from, dtype=np.int64),
        names=pl.Series("name", names, dtype=pl.String),
        types=pl.Series("type", kinds, dtype=pl.String),
        source=table[:, 0].astype(np.int32),
        target=table[:, 1].astype(np.int32),
        count=table[:, 2].copy(),
        dropped=np.zeros(n, np.int64),
    )


def permuted(graphs: Graphs, rng: np.random.Generator) -> Graphs:
    """Return the same graphs with their nodes and edges in another order."""
    nodes, edges, source, target = [], [], [], []
    for i in range(len(graphs)):
        first, last = (int(graphs.node_from[k]) for k in (i, i + 1))
        begin, end = (int(graphs.edge_from[k]) for k in (i, i + 1))
        order = rng.permutation(last - first)
        number = np.argsort(order).astype(np.int32)
        at = begin + rng.permutation(end - begin)
        nodes.append(first + order)
        edges.append(at)
        source.append(number[graphs.source[at]])
        target.append(number[graphs.target[at]])
    node_at = np.concatenate([np.zeros(0, np.int64), *nodes])
    edge_at = np.concatenate([np.zeros(0, np.int64), *edges])
    return Graphs(
        graphs.time_ms,
        graphs.node_from,
        graphs.edge_from,
        graphs.names[node_at],
        graphs.types[node_at],
        np.concatenate([graphs.source[:0], *source]),
        np.concatenate([graphs.target[:0], *target]),
        graphs.count[edge_at],
        graphs.dropped,
    )


def town(kinds: Sequence[str], *, seed: int = 0) -> Graphs:
    """Return a graph per kind: four web servers, three apps, two databases, in the usual traffic.

    kinds : ``usual``; ``scan``: ``web-1`` also reaches ten new apps; ``new``: a node of an unseen
        type; ``lateral``: web servers also talk to one another
    """
    rng = np.random.default_rng(seed)
    listed: list[list[Edge]] = []
    for kind in kinds:
        edges: list[tuple[str, str]] = []
        for w in range(4):
            edges += [(f"web-{w}", f"app-{a}") for a in rng.choice(3, 2, replace=False)]
        edges += [(f"app-{a}", f"db-{rng.integers(0, 2)}") for a in range(3)]
        if kind == "scan":
            edges += [("web-1", f"app-{a}") for a in range(10, 20)]
        if kind == "new":
            edges.append(("web-2", "miner-1"))
        if kind == "lateral":
            edges += [(f"web-{a}", f"web-{b}") for a in range(4) for b in range(a)]
        counts = 1.0 + rng.poisson(5, len(edges))
        listed.append([(a, b, float(c)) for (a, b), c in zip(edges, counts, strict=True)])
    return graphs_of(listed)


def random_graphs(n: int, *, n_nodes: int, n_edges: int, n_types: int = 4, seed: int = 0) -> Graphs:
    """Return graphs with edges drawn at random, repeated pairs and self loops among them."""
    rng = np.random.default_rng(seed)
    at = np.arange(n + 1, dtype=np.int64)
    ends: NDArray[np.int32] = rng.integers(0, n_nodes, (2, n * n_edges)).astype(np.int32)
    return Graphs(
        time_ms=np.zeros((n, 2), np.int64),
        node_from=at * n_nodes,
        edge_from=at * n_edges,
        names=pl.Series("name", [f"n{i}" for i in range(n_nodes)] * n, dtype=pl.String),
        types=pl.Series("type", [f"t{i}" for i in rng.integers(0, n_types, n * n_nodes)]),
        source=ends[0],
        target=ends[1],
        count=rng.integers(1, 9, n * n_edges).astype(np.float64),
        dropped=np.zeros(n, np.int64),
    )
