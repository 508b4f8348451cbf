"""Graphs in files: scored one by one through what judges live, or cut out of edges with times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.files import read_sheet
from connectors.files.graphs import read_graphs
from connectors.files.sheet import require_column
from jobs.offline.item_files import MINUTE_MS, Asked, ItemTable
from jobs.offline.items import run_items
from jobs.offline.score import Progress
from jobs.pictures.graphs import draw_alerts, draw_judged
from streamad.errors import ConfigError
from streamad.graphs.rows import Graphs
from streamad.operators.detect import DetectOperator
from streamad.records import RecordBatch, ScoreBatch
from streamad.training.fit import rows_of
from streamad.windows.signals import WindowBlock

KEY = "graphs"
"""The key of graphs of a file that has no windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTable:
    """Graphs of a file; marked : which ones a label calls anomalous (None: no labels)."""

    graphs: Graphs
    ids: pl.Series
    marked: NDArray[np.bool_] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.graphs)


def holds_windows(path: Path) -> bool:
    """Return whether a file has edges that time parts into graphs, not a column of graphs."""
    if path.is_dir() or path.suffix == ".txt":
        return False
    return "graph" not in read_sheet(path).frame.columns


def read_graph_table(path: Path, asked: Asked, *, labels: Path | None = None) -> GraphTable:
    """Read a TU folder, a file in the GIN text format, or edges with a column ``graph``.

    labels : a file with a label per graph, a line each, in the order of the graphs
    asked : ``normal`` is the label of ordinary graphs; by default the commonest one is
    """
    roles = ("source", "target", "source_type", "target_type", "weight")
    columns = dict(zip(roles, asked.fields, strict=False))
    if asked.label is not None:
        columns["label"] = asked.label
    read = read_graphs(path, columns or None)
    given = read.labels if labels is None else _labels_of(labels, len(read.graphs))
    marked = None if given.null_count() == len(given) else _marked(given, asked.normal)
    n_nodes, n_edges = int(read.graphs.node_from[-1]), int(read.graphs.edge_from[-1])
    notes = [f"{path.name}: {len(read.graphs):,} graphs of {n_nodes:,} nodes and {n_edges:,} edges"]
    if marked is not None and asked.normal is None:
        notes.append(f"ordinary graphs are those with the commonest label; {_counts(given)}")
    return GraphTable(graphs=read.graphs, ids=read.ids, marked=marked, notes=tuple(notes))


def _labels_of(path: Path, n: int) -> pl.Series:
    frame = read_sheet(path).frame
    name = "label" if "label" in frame.columns else frame.columns[-1]
    require_column(frame, name, "--labels")
    if frame.height != n:
        msg = f"--labels: {path.name} has {frame.height:,} labels, and there are {n:,} graphs"
        raise ConfigError(msg)
    return frame[name].cast(pl.String)


def _marked(labels: pl.Series, normal: str | None) -> NDArray[np.bool_]:
    if normal is None:
        normal = str(labels.drop_nulls().value_counts(sort=True, name="n")[labels.name][0])
    if not labels.eq(normal).any():
        known = ", ".join(sorted(labels.drop_nulls().unique().to_list())[:10])
        msg = f"--normal: no graph has the label {normal!r}; there are {known}"
        raise ConfigError(msg)
    return (labels != normal).fill_null(value=False).to_numpy()


def _counts(labels: pl.Series) -> str:
    counted = labels.drop_nulls().value_counts(sort=True, name="n")
    return ", ".join(f"{n:,} of {label}" for label, n in counted.rows()[:5])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGraphs:
    """A row of scores per graph; draw : writes pictures of the graphs that alerted to a folder."""

    frame: pl.DataFrame
    n_alerts: int
    n_errors: int
    draw: Callable[[Path], list[Path]]


def score_graphs(table: GraphTable, operator: DetectOperator) -> ScoredGraphs:
    """Judge graphs in the order of the file, as one key's: its own scores are its history."""
    n = len(table)
    at = np.arange(n, dtype=np.int64) * MINUTE_MS
    block = WindowBlock(
        codes=np.zeros(n, np.int32),
        values=table.graphs,
        start_ms=at,
        end_ms=at + MINUTE_MS - 1,
        incomplete=np.zeros(n, np.bool_),
        row=np.arange(n, dtype=np.int64),
        still=np.zeros(n, np.int32),
    )
    out = operator.judge(operator.new_state(), KEY, block)
    frame = pl.DataFrame([table.ids.rename("graph")]).with_columns(*_columns(out.scores))
    n_alerts = sum(f.state == "began" for f in out.findings)

    def draw(folder: Path) -> list[Path]:
        names = table.ids.cast(pl.String).to_list()
        return draw_judged(folder, table.graphs, names, out.findings, MINUTE_MS)

    return ScoredGraphs(
        frame=frame, n_alerts=n_alerts, n_errors=out.counts["detector_errors"], draw=draw
    )


def score_windows(
    table: ItemTable, operator: DetectOperator, *, progress: Progress
) -> tuple[ScoredGraphs, Any]:
    """Cut edges into graphs by their times, and judge these; return also what became of rows."""
    ran = run_items(table, operator, progress=progress)
    columns = _columns(ran.scores)
    keys = (
        pl.concat([one.keys for one in ran.scores])
        if ran.scores
        else pl.Series([], dtype=pl.String)
    )
    ends = np.concatenate([one.end_ms for one in ran.scores] or [np.empty(0, np.int64)])
    span = operator.config.graphs.span
    frame = pl.DataFrame(
        [
            keys.rename("key"),
            pl.Series("begin_ms", ends + 1 - span),
            pl.Series("end_ms", ends + 1),
            *columns,
        ]
    )
    n_alerts = sum(alert.state == "opened" for alert in ran.alerts)

    def draw(folder: Path) -> list[Path]:
        return draw_alerts(folder, ran.alerts, ran.findings, [table.batch], operator.config)

    made = ScoredGraphs(frame=frame, n_alerts=n_alerts, n_errors=ran.n_errors, draw=draw)
    return made, ran.account


def _columns(scores: Sequence[ScoreBatch]) -> list[pl.Series]:
    """Return score, p_value and severity of each graph; of one the detector failed on, 0, 1, 0."""
    made = []
    for name, unknown in (("score", 0.0), ("p_value", 1.0), ("severity", 0.0)):
        column = np.concatenate([getattr(one, name) for one in scores] or [np.empty(0, np.float32)])
        made.append(pl.Series(name, np.where(np.isfinite(column), column, np.float32(unknown))))
    return made


def training_graphs(
    table: GraphTable, *, with_labels: bool
) -> tuple[Graphs, NDArray[np.bool_] | None]:
    """Return the graphs to fit on: all with their labels, or the ordinary ones."""
    if with_labels:
        if table.marked is None:
            msg = "the graphs have no labels; give --labels, or fit graph_vector, which needs none"
            raise ConfigError(msg)
        return table.graphs, table.marked
    if table.marked is None:
        return table.graphs, None
    return table.graphs[~table.marked], None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedGraphs:
    """Graphs of windows of keys, in the order in which they closed; keys : String ``(n,)``."""

    graphs: Graphs
    keys: pl.Series

    def __len__(self) -> int:
        return len(self.graphs)

    def take(self, rows: NDArray[np.int64]) -> KeyedGraphs:
        """Return these graphs, in this order."""
        return KeyedGraphs(graphs=self.graphs[rows], keys=self.keys.gather(rows))


def windows_of(batch: RecordBatch[Any], operator: DetectOperator) -> KeyedGraphs:
    """Return the graphs that edges make, of all keys."""
    batch = rows_of(batch, np.argsort(batch.time_ms, kind="stable"))
    names, codes = np.unique(batch.keys.to_numpy(), return_inverse=True)
    windows = operator.modality.windows()
    windows.state.reserve(len(names))
    late = np.zeros(len(batch), np.bool_)
    graphs, of = [], []
    for block in windows.ingest(codes.astype(np.int32), batch.time_ms, batch.values, late):
        graphs.append(block.values)
        of.append(np.array(block.codes))
    if not graphs:
        msg = (
            f"the edges fill no window of {operator.config.graphs.span // 1000} s; give a longer "
            "file, or set graphs.span in a pipeline"
        )
        raise ConfigError(msg)
    keys = pl.Series(names.astype(object), dtype=pl.String).gather(np.concatenate(of))
    return KeyedGraphs(graphs=Graphs.join(graphs), keys=keys)
