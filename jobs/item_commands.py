"""``streamad score`` and ``streamad fit`` where a file holds events or edges."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.build import check_detector, from_artifact, make, make_detector, require_trained
from jobs.console import bar, say, status
from jobs.offline.item_files import Asked, ItemTable, pipeline_of, read_items
from jobs.offline.items import score_items
from jobs.offline.tables import write_table
from jobs.pictures.graphs import draw_alerts, require_edges, shown_count
from streamad.artifacts import load_artifact, load_manifest
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.training.fit import Fitted, rows_of
from streamad.training.items import fit_items


def score_rows(  # noqa: PLR0913 - one argument an option
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
    """Score each row of a file and write the scores, in the order of the file.

    graphs : a folder for pictures of the edges about those that alerted
    """
    known = None
    if artifact is not None:
        manifest = load_manifest(artifact)
        theirs = manifest.fields.model_dump(exclude_defaults=True)
        known = {name: value for name, value in theirs.items() if name not in _OF_A_FILE}
        named = manifest.fields.key
        asked = replace(asked, key=asked.key or (() if named == ("key",) else named))
    table = read_items(file, records, asked, known=known)
    config = pipeline_of(records, table.fields, detector=detector, params=params, artifact=artifact)
    check_detector(config)
    if graphs is not None:
        require_edges(config, "--graphs")
    for note in table.notes:
        say(note)
    operator = operator_of(config)
    with bar("scoring") as tell:
        scored = score_items(table, operator, progress=tell)
    write(scored.frame, out)
    n_alerts = sum(alert.state == "opened" for alert in scored.alerts)
    n_left = int(scored.frame["incomplete"].sum())
    say(
        f"{operator.detector.info.name}: {len(table):,} {records} scored one by one, {n_left:,} "
        f"incomplete, {n_alerts} alert{'' if n_alerts == 1 else 's'}"
    )
    if graphs is not None:
        paths = draw_alerts(graphs, scored.alerts, scored.findings, [table.batch], config)
        say(f"{graphs}: {shown_count(paths, n_alerts)}")
    for note in scored.account.notes(operator, dated=table.dated):
        say(note)
    if scored.n_errors:
        say(f"{scored.n_errors} rows could not be scored: the detector failed on them")
    scored.account.require(operator)
    if table.marked is not None:
        say(ranking(table.marked, scored.frame))


def ranking(marked: NDArray[np.bool_], frame: pl.DataFrame) -> str:
    """Return in words how well scores rank rows that labels call anomalous above the others.

    marked : of each row of the file; frame : its scores; rows without one do not count
    """
    from streamad.evaluation.vus import auc_pr, auc_roc

    scored = frame["incomplete"].to_numpy() == 0
    labels, scores = marked[scored], frame["score"].to_numpy()[scored]
    n, n_marked = len(labels), int(labels.sum())
    told = f"{n_marked:,} of {n:,} scored rows are labelled anomalous"
    if n_marked in (0, n):
        return f"{told}: there are no figures"
    alerted = frame["alert"].to_numpy()[scored] == 1
    found = int((alerted & labels).sum())
    return (
        f"{told}: AUC-ROC {auc_roc(labels, scores):.3f}, AUC-PR {auc_pr(labels, scores):.3f} "
        f"(by chance 0.500 and {n_marked / n:.3f}); {found:,} of them lie in an alert, as do "
        f"{int(alerted.sum()) - found:,} others"
    )


def operator_of(config: PipelineConfig) -> DetectOperator:
    """Return the operator of a file's pipeline: its artifact's, or an untrained one."""
    if config.detector.artifact is None:
        require_trained(config)
        return DetectOperator(config, make_detector(config))
    return from_artifact(config, *load_artifact(config.detector.artifact, config))


def write(frame: pl.DataFrame, out: str) -> None:
    """Write a table of scores to a file, or as CSV to standard output."""
    if out == "-":
        sys.stdout.write(frame.write_csv())
    else:
        write_table(frame, Path(out))


_OF_A_FILE = ("key", "time", "time_unit", "where", "rows", "tags")
"""Fields that say how a file or a topic is read, and nothing of what a detector judges."""


def fit_rows(
    detector: str,
    train: Path,
    records: str,
    asked: Asked,
    *,
    params: Mapping[str, Any],
    facts: Mapping[str, str],
) -> Fitted:
    """Fit a detector on the rows of a file that no label calls anomalous."""
    numeric = DETECTORS.load(detector).info.numeric
    table = read_items(train, records, replace(asked, measured=numeric))
    for note in table.notes:
        say(note)
    config = pipeline_of(records, table.fields, detector=detector, params=params)
    check_detector(config)
    rows = _ordinary(table, asked)
    counts = None if table.counts is None else table.counts[rows]
    with status(f"fitting {detector}") as tell:
        return fit_items(
            lambda _size: make(detector, params=config.detector.params),
            config,
            rows_of(table.batch, rows),
            counts=counts,
            facts=facts,
            progress=tell,
        )


def _ordinary(table: ItemTable, asked: Asked) -> Any:
    """Return the rows to fit on: usable, and ordinary where labels say which are."""
    chosen = table.usable.copy()
    if table.marked is not None:
        chosen &= ~table.marked
        left = int(table.marked.sum())
        if left:
            named = f"--normal {asked.normal}" if asked.normal is not None else "its label"
            say(f"{left:,} rows are left out: they are anomalous by {named}")
    if not chosen.any():
        msg = "no row is left to fit on; see --label and --normal"
        raise ConfigError(msg)
    return np.flatnonzero(chosen)
