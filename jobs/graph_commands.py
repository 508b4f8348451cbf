"""``streamad score`` and ``streamad fit`` where a file holds graphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.build import check_detector, make
from jobs.console import bar, say, status
from jobs.item_commands import operator_of, write
from jobs.offline.graphs import (
    ScoredGraphs,
    holds_windows,
    read_graph_table,
    score_graphs,
    score_windows,
    training_graphs,
    windows_of,
)
from jobs.offline.item_files import Asked, ItemTable, pipeline_of, read_items
from jobs.pictures.graphs import shown_count
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.errors import ConfigError
from streamad.graphs.rows import Graphs
from streamad.operators.detect import DetectOperator
from streamad.records import RecordBatch
from streamad.training.answers import Period, labels_of, spans_left_out
from streamad.training.fit import Fitted, rows_of
from streamad.training.items import fit_graphs

ENDS: Mapping[str, Any] = {"source": "source", "target": "target"}
"""Fields of a pipeline that stands for a file of graphs."""


def score_graph_file(  # noqa: PLR0913 - one argument an option
    file: Path,
    records: str,
    asked: Asked,
    *,
    detector: str,
    artifact: str | None,
    params: Mapping[str, Any],
    out: str,
    graphs: Path | None = None,
) -> None:
    """Score each graph of a file and write the scores, in the order of the file.

    graphs : a folder for pictures of those that alerted
    """

    def pipeline(fields: Mapping[str, Any]) -> PipelineConfig:
        made = pipeline_of(records, fields, detector=detector, params=params, artifact=artifact)
        check_detector(made)
        return made

    if holds_windows(file):
        scored = _score_edges(file, asked, pipeline)
    else:
        table = read_graph_table(file, asked)
        say(table.notes[0])
        scored = score_graphs(table, operator_of(pipeline(ENDS)))
    write(scored.frame, out)
    say(
        f"{detector}: {len(scored.frame):,} graphs scored, {scored.n_alerts} "
        f"alert{'' if scored.n_alerts == 1 else 's'}"
    )
    if graphs is not None:
        say(f"{graphs}: {shown_count(scored.draw(graphs), scored.n_alerts)}")
    if scored.n_errors:
        say(f"{scored.n_errors} graphs could not be scored: the detector failed on them")


def _score_edges(
    file: Path, asked: Asked, pipeline: Callable[[Mapping[str, Any]], PipelineConfig]
) -> ScoredGraphs:
    """Cut the edges of a file into graphs by their times, and score these."""
    rows = read_items(file, "edges", asked)
    for note in rows.notes:
        say(note)
    operator = operator_of(pipeline(rows.fields))
    with bar("scoring") as tell:
        scored, account = score_windows(rows, operator, progress=tell)
    for note in account.notes(operator, dated=rows.dated):
        say(note)
    account.require(operator)
    return scored


def fit_graph_file(
    detector: str,
    train: Path,
    asked: Asked,
    *,
    labels: Path | None,
    params: Mapping[str, Any],
    facts: Mapping[str, str],
) -> Fitted:
    """Fit a detector on the graphs of a file."""
    learns = learns_labels(detector)
    marked = None
    if holds_windows(train):
        rows = read_items(train, "edges", asked)
        for note in rows.notes:
            say(note)
        config = pipeline_of("edges", rows.fields, detector=detector, params=params)
        check_detector(config)
        batch = rows_of(rows.batch, np.flatnonzero(rows.usable))
        graphs, marked = _chosen(config, batch, _marks(rows), labelled=rows.marked is not None)
    else:
        table = read_graph_table(train, asked, labels=labels)
        config = pipeline_of("edges", ENDS, detector=detector, params=params)
        check_detector(config)
        graphs, marked = training_graphs(table, with_labels=learns)
        for note in table.notes:
            say(note)
    return _fitted(config, graphs, marked, facts=facts)


def fit_graphs_for(
    config: PipelineConfig,
    batch: RecordBatch[Any],
    *,
    periods: Sequence[Period] | None = None,
    facts: Mapping[str, str],
) -> Fitted:
    """Fit a pipeline's detector on the graphs that its windows make of edges.

    periods : what people answered (None: nobody was asked)
    """
    labelled = periods is not None
    graphs, marked = _chosen(config, batch, periods or (), labelled=labelled)
    return _fitted(config, graphs, marked, facts=facts)


def learns_labels(detector: str) -> bool:
    """Return whether a detector learns from labels which items are anomalous."""
    return "labels" in inspect.signature(DETECTORS.load(detector).fit).parameters


def _chosen(
    config: PipelineConfig,
    batch: RecordBatch[Any],
    periods: Sequence[Period],
    *,
    labelled: bool,
) -> tuple[Graphs, NDArray[np.bool_] | None]:
    """Cut edges into graphs; return those to fit on, and for who learns it which are anomalous.

    A window that somebody has seen and gave no verdict on is neither, and is left out there.
    """
    name = config.detector.name
    operator = DetectOperator(config, make(name, params=config.detector.params))
    windows = windows_of(batch, operator)
    say(f"{len(windows):,} graphs of {config.graphs.span // 1000} s")
    begin, end = windows.graphs.time_ms[:, 0], windows.graphs.time_ms[:, 1] - 1
    if not labelled and learns_labels(name):
        msg = (
            f"{name} learns from graphs that are labelled, and these have no labels; give answers "
            "with --feedback and --pipeline, a column with --label, or fit graph_vector, which "
            "needs none"
        )
        raise ConfigError(msg)
    if not learns_labels(name):
        left = spans_left_out(windows.keys, begin, end, periods)
        if left.any():
            say(f"{int(left.sum()):,} of them are anomalous and are not learned")
        return windows.graphs[np.flatnonzero(~left)], None
    labels = labels_of(windows.keys, begin, end, periods)
    kept = np.flatnonzero(~labels.unknown)
    marked = labels.anomalous[kept]
    n_seen = int((labels.answered & ~labels.anomalous).sum())
    parts = [f"{int(marked.sum()):,} of them are anomalous", f"{n_seen:,} were answered ordinary"]
    if len(kept) < len(windows):
        parts.append(f"{len(windows) - len(kept):,} were seen without a verdict and are left out")
    say(f"{', '.join(parts)}; all others count as ordinary")
    return windows.graphs[kept], marked


def _marks(rows: ItemTable) -> list[Period]:
    """Return the moments at which a label calls an edge anomalous, as if people had said so."""
    if rows.marked is None:
        return []
    own = np.flatnonzero(rows.usable & rows.marked)
    found = pl.DataFrame({"key": rows.batch.keys.gather(own), "at": rows.batch.time_ms[own]})
    return [
        Period(key=key, began_ms=at, until_ms=at, verdict="real")
        for key, at in found.unique().rows()
    ]


def _fitted(
    config: PipelineConfig,
    graphs: Graphs,
    labels: NDArray[np.bool_] | None,
    *,
    facts: Mapping[str, str],
) -> Fitted:
    name = config.detector.name
    with status(f"fitting {name}") as tell:
        return fit_graphs(
            lambda _size: make(name, params=config.detector.params),
            config,
            graphs,
            labels=labels,
            facts=facts,
            progress=tell,
        )
