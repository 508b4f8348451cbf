"""Graphs for other libraries: networkx, and PyTorch Geometric under its own names and shapes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from streamad.errors import ConfigError
from streamad.graphs.rows import Graphs
from streamad.graphs.vector import Vocabulary, one_hot

if TYPE_CHECKING:
    Directed = nx.DiGraph[str]
else:
    Directed = nx.DiGraph


def to_networkx(graphs: Graphs, i: int) -> Directed:
    """Return graph ``i``: nodes by name with ``type``, edges with ``count``.

    Nodes and edges are in the order of `Graphs`; ``graph`` has ``begin_ms``, ``end_ms`` and
    ``dropped``.

    Examples
    --------
    >>> import polars as pl
    >>> one = Graphs(
    ...     np.array([[0, 60_000]]), np.array([0, 2]), np.array([0, 1]),
    ...     pl.Series(["web-1", "db-9"]), pl.Series(["web", "db"]),
    ...     np.array([0], np.int32), np.array([1], np.int32), np.array([3.0]), np.array([0]),
    ... )
    >>> list(to_networkx(one, 0).edges(data=True))
    [('web-1', 'db-9', {'count': 3.0})]
    """
    nodes = slice(int(graphs.node_from[i]), int(graphs.node_from[i + 1]))
    edges = slice(int(graphs.edge_from[i]), int(graphs.edge_from[i + 1]))
    begin, end = (int(t) for t in graphs.time_ms[i])
    made: Directed = nx.DiGraph(begin_ms=begin, end_ms=end, dropped=int(graphs.dropped[i]))
    names = graphs.names[nodes].to_list()
    for name, kind in zip(names, graphs.types[nodes].to_list(), strict=True):
        made.add_node(name, type=kind)
    for a, b, count in zip(
        graphs.source[edges], graphs.target[edges], graphs.count[edges], strict=True
    ):
        made.add_edge(names[a], names[b], count=float(count))
    return made


def to_pyg(graphs: Graphs, i: int, vocabulary: Vocabulary | None = None) -> Any:
    """Return graph ``i`` as ``torch_geometric.data.Data``.

    x : float32 ``(n_nodes, n_types)``, one-hot types where there is a ``vocabulary``
    edge_index : int64 ``(2, n_edges)``, from source to target
    edge_attr : float32 ``(n_edges, 1)``, counts
    num_nodes, time_ms ``(1, 2)``, and ``names``, a list

    Raises
    ------
    ConfigError
        where PyTorch Geometric is not installed
    """
    try:
        torch, data = import_module("torch"), import_module("torch_geometric.data")
    except ModuleNotFoundError as error:
        msg = (
            f"to_pyg needs PyTorch Geometric ({error}); install it with: "
            "pip install 'streamad-pipeline[graphs]'"
        )
        raise ConfigError(msg) from error
    nodes = slice(int(graphs.node_from[i]), int(graphs.node_from[i + 1]))
    edges = slice(int(graphs.edge_from[i]), int(graphs.edge_from[i + 1]))
    pairs = np.stack([graphs.source[edges], graphs.target[edges]]).astype(np.int64)
    fields: dict[str, Any] = {
        "edge_index": torch.from_numpy(pairs),
        "edge_attr": torch.from_numpy(graphs.count[edges].astype(np.float32)[:, None]),
        "num_nodes": nodes.stop - nodes.start,
        "time_ms": torch.from_numpy(graphs.time_ms[i : i + 1].copy()),
        "names": graphs.names[nodes].to_list(),
    }
    if vocabulary is not None:
        hot = one_hot(vocabulary.encode(graphs.types[nodes]), len(vocabulary))
        fields["x"] = torch.from_numpy(hot.astype(np.float32))
    return data.Data(**fields)
