"""Graphs in files: TU-format folders, the GIN text format (`graph_texts`), tables of edges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME
from connectors.files.graph_texts import (
    MAX_ALL,
    MAX_NODES,
    LabelledGraphs,
    read_gin,
    read_tu,
    require_small,
)
from connectors.files.moments import read_moments
from connectors.files.sheet import Sheet, read_sheet, require_column
from streamad.errors import ConfigError
from streamad.graphs.rows import Graphs
from streamad.shown import safe_text

COLUMNS: Final = {
    "graph": "graph", "source": "source", "target": "target", "source_type": "source_type",
    "target_type": "target_type", "weight": "weight", "label": "label", "time": "time",
}  # fmt: skip
_NEEDED: Final = ("graph", "source", "target")

Int64s = NDArray[np.int64]


def read_graphs(
    path: str | Path, columns: Mapping[str, str] | None = None, *, max_nodes: int = MAX_NODES
) -> LabelledGraphs:
    """Read graphs: a folder is in TU format, a ``.txt`` file in GIN's, others are tables of edges.

    columns : for tables, the names of columns by their role, see `COLUMNS`; roles left out have
        their own name, and those but graph, source and target may be absent
    max_nodes : a graph with more nodes is refused

    Raises
    ------
    ConfigError
        where a file is missing, too large, or holds something else; the message names the line
    SourceUnavailableError
        where a file is damaged
    """
    path = Path(path)
    if path.is_dir():
        return read_tu(path, max_nodes=max_nodes)
    if path.suffix == ".txt":
        return read_gin(path, max_nodes=max_nodes)
    return read_edges(path, columns, max_nodes=max_nodes)


# ------------------------------------------------------------------ tables of edges


def read_edges(
    path: Path, columns: Mapping[str, str] | None = None, *, max_nodes: int = MAX_NODES
) -> LabelledGraphs:
    """Read a table (CSV, Parquet, Arrow, JSON lines) with an edge per row and its graph's id.

    Graphs stand in the order they first appear in, and so do their nodes and edges; rows with the
    same source and target are one edge whose count is the sum of weights.
    """
    sheet = read_sheet(path)
    names = {**COLUMNS, **(columns or {})}
    for role in set(names) - set(COLUMNS):
        msg = f"columns: {role!r} is no role; expected some of {', '.join(COLUMNS)}"
        raise ConfigError(msg)
    for role, column in names.items():
        if role in _NEEDED or role in (columns or {}):
            require_column(sheet.frame, column, f"columns.{role}")
    frame = _edge_frame(sheet, names)
    if len(frame) > MAX_ALL:
        msg = f"{sheet.name}: has {len(frame):,} rows, expected {MAX_ALL:,} at most; cut it"
        raise ConfigError(msg)
    return _of_edges(sheet.name, frame, max_nodes)


def _edge_frame(sheet: Sheet, names: Mapping[str, str]) -> pl.DataFrame:
    """Return the table's columns under the names of their roles, typed."""
    made = {}
    for role, column in names.items():
        if column not in sheet.frame.columns:
            made[role] = pl.Series(role, [None] * len(sheet.frame), dtype=pl.String)
            continue
        made[role] = sheet.frame[column].cast(pl.String).alias(role)
    frame = pl.DataFrame(made)
    for role in _NEEDED:
        if frame[role].is_null().any():
            at = int(frame[role].is_null().arg_max() or 0)
            msg = f"{sheet.name}: row {at + 1} has no {names[role]}; fill it, or delete the row"
            raise ConfigError(msg)
    weight = frame["weight"].cast(pl.Float64, strict=False)
    wrong = frame["weight"].is_not_null() & ~(weight.is_finite() & (weight >= 0)).fill_null(
        value=False
    )
    if wrong.any():
        at = int(wrong.arg_max() or 0)
        got = safe_text(frame["weight"][at], 40)
        msg = (
            f"{sheet.name}: row {at + 1} has the {names['weight']} {got!r}, expected a number of "
            "at least 0; fix it, or leave the cell empty for 1"
        )
        raise ConfigError(msg)
    time = _edge_times(sheet, names["time"])
    return frame.with_columns(weight.fill_null(1.0).alias("weight"), time)


def _edge_times(sheet: Sheet, column: str) -> pl.Series:
    if column not in sheet.frame.columns:
        return pl.Series("time", np.zeros(len(sheet.frame), np.int64))
    moments = read_moments(sheet.frame[column])
    if moments is None:
        msg = f"{sheet.name}: {column} holds no times; expected dates or epochs in it"
        raise ConfigError(msg)
    if (moments.ms == BAD_TIME).any():
        at = int(np.flatnonzero(moments.ms == BAD_TIME)[0])
        msg = f"{sheet.name}: row {at + 1} has no time in {column}; fill it, or delete the row"
        raise ConfigError(msg)
    return pl.Series("time", moments.ms)


def _of_edges(name: str, frame: pl.DataFrame, max_nodes: int) -> LabelledGraphs:
    per_graph = frame.group_by("graph", maintain_order=True).agg(
        pl.col("label").drop_nulls().first(),
        pl.col("label").n_unique().alias("n_labels"),
        pl.col("time").min().alias("begin"),
        pl.col("time").max().alias("end"),
    )
    if (per_graph["n_labels"] > 1).any():
        at = int((per_graph["n_labels"] > 1).arg_max() or 0)
        msg = (
            f"{name}: graph {safe_text(per_graph['graph'][at], 40)!r} has several labels, expected "
            "the same in each of its rows; fix the label column"
        )
        raise ConfigError(msg)
    number = per_graph.select("graph").with_row_index("g").with_columns(pl.col("g").cast(pl.Int64))
    frame = frame.join(number, on="graph", how="left", maintain_order="left")
    ends = pl.concat(
        [
            frame.select("g", name=end, type=f"{end}_type", row=pl.int_range(pl.len()) * 2 + side)
            for side, end in enumerate(("source", "target"))
        ]
    ).sort("g", "row")
    nodes = ends.group_by("g", "name", maintain_order=True).agg(pl.col("type").drop_nulls().first())
    nodes = nodes.with_columns(place=pl.int_range(pl.len()).over("g"))
    edges = (
        frame.group_by("g", "source", "target", maintain_order=True)
        .agg(pl.col("weight").sum())
        .sort("g", maintain_order=True)
    )
    where = nodes.select("g", "name", "place")
    for end in ("source", "target"):
        edges = edges.join(
            where.rename({"name": end, "place": f"{end}_at"}),
            on=["g", end],
            how="left",
            maintain_order="left",
        )
    n = len(per_graph)
    graphs = Graphs(
        time_ms=np.ascontiguousarray(per_graph.select("begin", "end").to_numpy(), dtype=np.int64),
        node_from=_starts(nodes["g"], n),
        edge_from=_starts(edges["g"], n),
        names=nodes["name"],
        types=nodes["type"],
        source=edges["source_at"].to_numpy().astype(np.int32),
        target=edges["target_at"].to_numpy().astype(np.int32),
        count=edges["weight"].to_numpy().astype(np.float64),
        dropped=np.zeros(n, np.int64),
    )
    require_small(name, graphs, max_nodes)
    return LabelledGraphs(graphs=graphs, ids=per_graph["graph"], labels=per_graph["label"])


def _starts(graph: pl.Series, n: int) -> Int64s:
    counts = np.bincount(graph.to_numpy(), minlength=n)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
