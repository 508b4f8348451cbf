"""Graphs in the TU format and in the GIN text format.

TU format (Morris et al., TUDataset, 2020): ``NAME_A.txt`` (a pair of node numbers per line, from
1), ``NAME_graph_indicator.txt`` (the graph of each node), ``NAME_graph_labels.txt`` and
``NAME_node_labels.txt``. GIN text format (Xu et al., ICLR 2019): a line with the number of graphs;
for each graph a line ``nodes label`` and for each node a line ``tag m neighbour ...``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.files.sheet import read_bytes
from streamad.errors import ConfigError
from streamad.graphs.rows import Graphs
from streamad.shown import safe_text

MAX_NODES: Final = 1_000_000
"""Of one graph."""
MAX_ALL: Final = 50_000_000
"""Nodes, and edges, of all graphs of a file: they are held in memory."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledGraphs:
    """Graphs of a file; ids, labels : String ``(n,)``, labels null where there are none."""

    graphs: Graphs
    ids: pl.Series
    labels: pl.Series


# ------------------------------------------------------------------ TU format


def read_tu(folder: Path, *, max_nodes: int = MAX_NODES) -> LabelledGraphs:
    """Read a folder of the TU format; types of nodes are their labels, names their numbers."""
    found = sorted(folder.glob("*_A.txt")) if folder.is_dir() else []
    if len(found) != 1:
        msg = f"{folder}: expected one file NAME_A.txt, got {len(found)}; name a TU folder"
        raise ConfigError(msg)
    stem = found[0].name.removesuffix("_A.txt")
    of_node = _numbers(folder / f"{stem}_graph_indicator.txt")
    labels = _numbers(folder / f"{stem}_graph_labels.txt")
    pairs = _numbers(found[0], width=2)
    n_graphs = len(labels)
    _require_range(f"{stem}_graph_indicator.txt", of_node, 1, n_graphs, "graphs")
    _require_range(found[0].name, pairs.ravel(), 1, len(of_node), "nodes", width=2)
    if (np.diff(of_node) < 0).any():
        at = int(np.flatnonzero(np.diff(of_node) < 0)[0]) + 2
        msg = f"{stem}_graph_indicator.txt: line {at} steps back; sort nodes by their graph"
        raise ConfigError(msg)
    types = _types(folder / f"{stem}_node_labels.txt", len(of_node))
    graph = of_node - 1
    if (graph[pairs[:, 0] - 1] != graph[pairs[:, 1] - 1]).any():
        at = int(np.flatnonzero(graph[pairs[:, 0] - 1] != graph[pairs[:, 1] - 1])[0]) + 1
        msg = f"{found[0].name}: line {at} links nodes of two graphs; expected one graph per edge"
        raise ConfigError(msg)
    graphs = _undirected(graph, n_graphs, pairs - 1, types, first_name=1, name=folder.name)
    require_small(folder.name, graphs, max_nodes)
    ids = pl.Series("graph", np.arange(1, n_graphs + 1)).cast(pl.String)
    return LabelledGraphs(graphs=graphs, ids=ids, labels=pl.Series("label", labels).cast(pl.String))


def _types(path: Path, n_nodes: int) -> pl.Series:
    if not path.exists():
        return pl.Series("type", [None] * n_nodes, dtype=pl.String)
    tags = _numbers(path)
    if len(tags) != n_nodes:
        msg = (
            f"{path.name}: has {len(tags)} lines, expected {n_nodes} as in graph_indicator; "
            "take both from the same data set"
        )
        raise ConfigError(msg)
    return pl.Series("type", tags).cast(pl.String)


def _numbers(path: Path, *, width: int = 1) -> Int64s:
    """Return the whole numbers of a file, ``(n_lines,)`` or ``(n_lines, width)``."""
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError as error:
        msg = f"{path.name}: is no text; expected {width} whole number(s) per line"
        raise ConfigError(msg) from error
    lines = pl.Series("line", text.splitlines(), dtype=pl.String)
    if len(lines) > 2 * MAX_ALL:
        msg = f"{path.name}: has {len(lines):,} lines, expected {2 * MAX_ALL:,} at most; cut it"
        raise ConfigError(msg)
    cells = lines.str.split(",")
    numbers = cells.list.eval(pl.element().str.strip_chars().cast(pl.Int64, strict=False))
    wrong = (numbers.list.len() != width) | (numbers.list.eval(pl.element().is_null()).list.any())
    if wrong.any():
        at = int(wrong.arg_max() or 0)
        msg = (
            f"{path.name}: line {at + 1} is {safe_text(lines[at], 60)!r}, expected {width} whole "
            f"number(s); fix the line"
        )
        raise ConfigError(msg)
    made = numbers.explode().to_numpy().astype(np.int64)
    return made if width == 1 else made.reshape(-1, width)


def _require_range(
    name: str, values: Int64s, low: int, high: int, of: str, *, width: int = 1
) -> None:
    wrong = np.flatnonzero((values < low) | (values > high))
    if len(wrong):
        at = int(wrong[0])
        msg = (
            f"{name}: line {at // width + 1} names {int(values[at])}, expected {low} to {high}, as "
            f"there are {high} {of}; the files do not belong together"
        )
        raise ConfigError(msg)


# ------------------------------------------------------------------ GIN text format


def read_gin(path: Path, *, max_nodes: int = MAX_NODES) -> LabelledGraphs:
    """Read the GIN text format; types of nodes are their tags, names their places from 0.

    What follows the neighbours in a node's line, continuous attributes, is left out.
    """
    raw = read_bytes(path)
    lines = raw.split(b"\n")
    n_graphs = _header(path.name, lines, 0, 1)[0]
    if n_graphs > len(lines):
        msg = f"{path.name}: line 1 announces {n_graphs} graphs, got {len(lines)} lines; cut short"
        raise ConfigError(msg)
    labels: list[str] = []
    sizes: list[int] = []
    tags: list[str] = []
    pairs: list[tuple[int, int]] = []
    at = 1
    for _ in range(n_graphs):
        n, label = _header(path.name, lines, at, 2)
        at += 1
        if not 0 <= n <= max_nodes:
            msg = f"{path.name}: line {at} has a graph of {n} nodes, expected 0 to {max_nodes}"
            raise ConfigError(msg)
        found, linked = _gin_nodes(path.name, lines, at, n)
        pairs += [(len(tags) + u, len(tags) + v) for u, v in linked]
        tags += found
        at += n
        labels.append(str(label))
        sizes.append(n)
    graph = np.repeat(np.arange(n_graphs), sizes)
    types = pl.Series("type", tags, dtype=pl.String)
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    graphs = _undirected(graph, n_graphs, table, types, first_name=0, name=path.name)
    ids = pl.Series("graph", np.arange(n_graphs)).cast(pl.String)
    return LabelledGraphs(
        graphs=graphs, ids=ids, labels=pl.Series("label", labels, dtype=pl.String)
    )


def _gin_nodes(
    name: str, lines: list[bytes], at: int, n: int
) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the tags of ``n`` nodes in lines from ``at`` on, and the pairs they name."""
    tags, pairs = [], []
    for u in range(n):
        tag, n_linked, *rest = _header(name, lines, at + u, 2, more=True)
        if n_linked < 0 or len(rest) < n_linked or not _inside(rest[:n_linked], n):
            msg = (
                f"{name}: line {at + u + 1} names {n_linked} neighbours, expected as many places "
                f"in 0 to {n - 1} behind it; fix the line"
            )
            raise ConfigError(msg)
        tags.append(str(tag))
        pairs += [(u, v) for v in rest[:n_linked]]
    return tags, pairs


def _header(name: str, lines: list[bytes], at: int, width: int, *, more: bool = False) -> list[int]:
    """Return the whole numbers of a line, ``width`` of them (or ``more``)."""
    cells = lines[at].split() if at < len(lines) else []
    numbers: list[int] = []
    for cell in cells:
        try:
            numbers.append(int(cell))
        except ValueError:
            break  # continuous attributes may stand behind the neighbours
    if len(numbers) < width or (len(cells) > width and not more):
        got = repr(safe_text(lines[at].decode(errors="replace"), 60)) if at < len(lines) else "none"
        msg = (
            f"{name}: line {at + 1} is {got}, expected {width}{' or more' * more} whole number(s) "
            "of the GIN text format; fix the line, or name a CSV file of edges"
        )
        raise ConfigError(msg)
    return numbers


def _inside(places: list[int], n: int) -> bool:
    return all(0 <= place < n for place in places)


def _undirected(
    graph: Int64s, n_graphs: int, pairs: Int64s, types: pl.Series, *, first_name: int, name: str
) -> Graphs:
    """Return graphs of pairs of nodes ``(n, 2)`` numbered over all graphs, each pair once."""
    if max(len(graph), len(pairs)) > 2 * MAX_ALL:
        msg = f"{name}: has {len(pairs):,} pairs of nodes, expected {2 * MAX_ALL:,} at most; cut it"
        raise ConfigError(msg)
    sizes = np.bincount(graph, minlength=n_graphs)
    node_from = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    ordered = np.sort(pairs, axis=1)
    frame = pl.DataFrame({"a": ordered[:, 0], "b": ordered[:, 1]}).unique(maintain_order=True)
    low, high = frame["a"].to_numpy(), frame["b"].to_numpy()
    of_edge = graph[low] if len(low) else np.zeros(0, np.int64)
    order = np.argsort(of_edge, kind="stable")
    low, high, of_edge = low[order], high[order], of_edge[order]
    per_graph = np.bincount(of_edge, minlength=n_graphs)
    places = np.arange(len(graph)) - node_from[graph] + first_name
    return Graphs(
        time_ms=np.zeros((n_graphs, 2), np.int64),
        node_from=node_from,
        edge_from=np.concatenate([np.zeros(1, np.int64), np.cumsum(per_graph, dtype=np.int64)]),
        names=pl.Series("name", places).cast(pl.String),
        types=types,
        source=(low - node_from[of_edge]).astype(np.int32),
        target=(high - node_from[of_edge]).astype(np.int32),
        count=np.ones(len(low)),
        dropped=np.zeros(n_graphs, np.int64),
    )


def require_small(name: str, graphs: Graphs, max_nodes: int) -> None:
    """Raise ConfigError where a graph has more nodes than ``max_nodes``."""
    sizes = np.diff(graphs.node_from)
    if len(sizes) and sizes.max() > max_nodes:
        at = int(sizes.argmax())
        msg = (
            f"{name}: graph {at + 1} has {int(sizes[at]):,} nodes, expected {max_nodes:,} at most; "
            "raise max_nodes, or leave the graph out"
        )
        raise ConfigError(msg)
