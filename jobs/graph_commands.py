"""``streamad score`` and ``streamad fit`` where a file holds graphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.build import check_detector, make, make_detector
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
from jobs.offline.item_files import Asked, pipeline_of, read_items
from jobs.pictures.graphs import shown_count
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.detectors.contract import ItemDetector
from streamad.operators.detect import DetectOperator
from streamad.records import RecordBatch
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
    learns_labels = "labels" in inspect.signature(DETECTORS.load(detector).fit).parameters
    marked = None
    if holds_windows(train):
        rows = read_items(train, "edges", asked)
        config = pipeline_of("edges", rows.fields, detector=detector, params=params)
        check_detector(config)
        batch = rows_of(rows.batch, np.flatnonzero(rows.usable))
        graphs = windows_of(batch, DetectOperator(config, make_detector(config)))
        notes = [*rows.notes, f"{len(graphs):,} graphs of {config.graphs.span // 1000} s"]
    else:
        table = read_graph_table(train, asked, labels=labels)
        config = pipeline_of("edges", ENDS, detector=detector, params=params)
        check_detector(config)
        graphs, marked = training_graphs(table, with_labels=learns_labels)
        notes = [*table.notes]
    for note in notes:
        say(note)
    with status(f"fitting {detector}") as tell:
        return fit_graphs(
            lambda _size: make(detector, params=config.detector.params),
            config,
            graphs,
            labels=marked,
            facts=facts,
            progress=tell,
        )


def fit_graphs_for(
    config: PipelineConfig,
    batch: RecordBatch[Any],
    *,
    facts: Mapping[str, str],
    progress: Callable[[str], None],
) -> Fitted:
    """Fit a pipeline's detector on the graphs that its windows make of edges."""

    def fresh(_size: int | None) -> ItemDetector[Any]:
        return make(config.detector.name, params=config.detector.params)

    graphs = windows_of(batch, DetectOperator(config, fresh(None)))
    return fit_graphs(fresh, config, graphs, facts=facts, progress=progress)
