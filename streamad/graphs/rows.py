"""The columns of edges, and graphs as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EdgeRows:
    """Edges as they came, one row each.

    time_ms : int64 ``(n,)``, event time; source, target : String ``(n,)``, names of nodes
    source_type, target_type : String ``(n,)``, types of nodes (null: none was given)
    weight : float64 ``(n,)``, what the edge counts for (1.0 where it was not given)
    """

    time_ms: NDArray[np.int64]
    source: pl.Series
    target: pl.Series
    source_type: pl.Series
    target_type: pl.Series
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time_ms)

    def __getitem__(self, at: slice | NDArray[Any]) -> EdgeRows:
        """Return rows by a slice, an index or a mask."""
        if isinstance(at, slice):
            columns = (self.source[at], self.target[at], self.source_type[at], self.target_type[at])
            return EdgeRows(self.time_ms[at], *columns, self.weight[at])
        if at.dtype == np.bool_:
            at = np.flatnonzero(at)
        i = at.astype(np.int64)
        columns = (self.source[i], self.target[i], self.source_type[i], self.target_type[i])
        return EdgeRows(self.time_ms[i], *columns, self.weight[i])

    @classmethod
    def join(cls, parts: Sequence[EdgeRows]) -> EdgeRows:
        """Return edges of several batches, one after the other."""
        names = ("source", "target", "source_type", "target_type")
        columns = [pl.concat([getattr(part, name) for part in parts]) for name in names]
        return cls(
            np.concatenate([part.time_ms for part in parts]),
            columns[0],
            columns[1],
            columns[2],
            columns[3],
            np.concatenate([part.weight for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Graphs:
    """Graphs, one after the other in shared columns (compressed sparse rows).

    Nodes stand in the order in which they first appeared, edges (each distinct pair once, as given:
    from source to target) likewise. Graph ``i`` has nodes ``node_from[i]:node_from[i + 1]`` and
    edges ``edge_from[i]:edge_from[i + 1]``.

    time_ms : int64 ``(n, 2)``, begin and end of what each graph is of
    node_from, edge_from : int64 ``(n + 1,)``
    names, types : String ``(n_nodes,)``; types may be null
    source, target : int32 ``(n_edges,)``, places of nodes within their graph
    count : float64 ``(n_edges,)``, how often the edge was there, or its weight
    dropped : int64 ``(n,)``, edges that were left out because the graph was at its bounds
    """

    time_ms: NDArray[np.int64]
    node_from: NDArray[np.int64]
    edge_from: NDArray[np.int64]
    names: pl.Series
    types: pl.Series
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    count: NDArray[np.float64]
    dropped: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_ms)

    def __getitem__(self, at: slice | NDArray[Any]) -> Graphs:
        """Return graphs by a slice, an index or a mask."""
        picked = np.arange(len(self))[at]
        n_nodes = np.diff(self.node_from)[picked]
        n_edges = np.diff(self.edge_from)[picked]
        nodes = _runs(self.node_from[picked], n_nodes)
        edges = _runs(self.edge_from[picked], n_edges)
        return Graphs(
            time_ms=self.time_ms[picked],
            node_from=starts_of(n_nodes),
            edge_from=starts_of(n_edges),
            names=self.names[nodes],
            types=self.types[nodes],
            source=self.source[edges],
            target=self.target[edges],
            count=self.count[edges],
            dropped=self.dropped[picked],
        )

    @classmethod
    def join(cls, parts: Sequence[Graphs]) -> Graphs:
        """Return graphs of several batches, one after the other."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("time_ms", "source", "target", "count", "dropped")
        }
        sizes = (
            np.concatenate([np.diff(getattr(part, name)) for part in parts])
            for name in ("node_from", "edge_from")
        )
        n_nodes, n_edges = sizes
        return cls(
            node_from=starts_of(n_nodes),
            edge_from=starts_of(n_edges),
            names=pl.concat([part.names for part in parts]),
            types=pl.concat([part.types for part in parts]),
            **arrays,
        )

    @property
    def graph_of_node(self) -> NDArray[np.int64]:
        """Return the graph of each node, int64 ``(n_nodes,)``."""
        return np.repeat(np.arange(len(self)), np.diff(self.node_from))

    @property
    def graph_of_edge(self) -> NDArray[np.int64]:
        """Return the graph of each edge, int64 ``(n_edges,)``."""
        return np.repeat(np.arange(len(self)), np.diff(self.edge_from))


def starts_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where runs of these lengths start, and where the last one ends ``(n + 1,)``."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _runs(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``first[i], first[i] + 1, ...`` for ``counts[i]`` places, one run after the other."""
    shift = first - (np.cumsum(counts) - counts)
    return np.asarray(np.arange(counts.sum(), dtype=np.int64) + np.repeat(shift, counts))
