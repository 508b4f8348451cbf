"""What ``streamad score`` and ``streamad fit`` do with their arguments."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.files import ROW_MS
from jobs.build import check_detector, detector_info, make, records_of
from jobs.console import bar, say, status
from jobs.graph_commands import fit_graph_file, fit_graphs_for, score_graph_file
from jobs.item_commands import fit_rows, score_rows
from jobs.offline.item_files import Asked
from jobs.offline.judged import Account
from jobs.offline.replay import joined, read_file
from jobs.offline.score import Scored, describe, fit_table, pipeline_for, score_table
from jobs.offline.tables import Table, check_output, check_plot, read_table, write_table
from jobs.settings import environment, kafka_settings
from streamad.artifacts import Manifest, load_manifest, save_artifact
from streamad.config import load_pipeline
from streamad.errors import ConfigError
from streamad.records import RecordBatch
from streamad.training.answers import Period, left_out, read_periods
from streamad.training.fit import Fitted, fit_detector, rows_of
from streamad.training.items import fit_items

DEFAULT_DETECTOR = "knn_fused"
MAX_SHOWN = 12


def score_file(  # noqa: PLR0913 - one argument an option, all by keyword
    file: Path,
    *,
    out: str,
    detector: str | None,
    artifact: str | None,
    columns: Sequence[str],
    time: str | None,
    key: Sequence[str],
    joint: bool,
    train_end: int | None,
    size: int | None,
    params: Mapping[str, Any],
    plot: Path | None = None,
    graphs: Path | None = None,
    asked: Asked | None = None,
) -> None:
    """Score a file and write the scores.

    graphs : a folder for pictures of graphs that alerted; asked : what a caller says of columns
    that only events and edges have
    """
    check_plot(plot)
    if detector is not None and artifact is not None:
        msg = "give --detector or --artifact, not both: an artifact names its detector"
        raise ConfigError(msg)
    if out != "-":
        check_output(Path(out))
    name = detector or DEFAULT_DETECTOR
    if artifact is not None:
        manifest = load_manifest(artifact)
        name = manifest.detector
        if manifest.records == "signals":
            columns = columns or _known_columns(manifest.variates, file, key)
        joint = joint or len(manifest.variates) > 1
    if (records := records_of(name)) != "signals":
        given = asked or Asked()
        said = replace(given, fields=given.fields or columns, key=key, time=time)
        score = score_graph_file if detector_info(name).modality == "graphs" else score_rows
        score(
            file, records, said, detector=name, artifact=artifact, params=params, out=out,
            graphs=graphs,
        )  # fmt: skip
        return
    for unfit, why in (
        (graphs is not None, "--graphs is for edges; {} scores signals: see --plot"),
        (
            asked is not None and bool(asked.fields),
            "--fields is for events and edges; {} scores signals: see --columns",
        ),
    ):
        if unfit:
            raise ConfigError(why.format(name))
    label = None if asked is None else asked.label
    _score_series(
        read_table(file, columns=columns, time=time, key=key, joint=joint, label=label),
        file,
        out=out,
        detector=name,
        artifact=artifact,
        train_end=train_end,
        size=size,
        params=params,
        plot=plot,
    )


def _score_series(  # noqa: PLR0913 - one argument an option, all but two by keyword
    table: Table,
    file: Path,
    *,
    out: str,
    detector: str,
    artifact: str | None,
    train_end: int | None,
    size: int | None,
    params: Mapping[str, Any],
    plot: Path | None,
) -> None:
    _tell_reading(table, file)
    config = pipeline_for(table, detector=detector, params=params, size=size, artifact=artifact)
    with bar("scoring") as tell:
        scored = score_table(table, config, train_end=train_end, progress=tell)
    if out == "-":
        sys.stdout.write(scored.frame.write_csv())
    else:
        write_table(scored.frame, Path(out))
    if plot is not None:
        plot.write_text(drawn(table, scored, file.name, as_html=plot.suffix == ".html"), "utf-8")
    say(describe(scored, train_end=train_end))
    for note in scored.notes:
        say(note)
    if scored.n_errors:
        say(f"{scored.n_errors} windows could not be scored: the detector failed on them")
    scored.account.require(scored.operator)
    if table.labelled is not None:
        _show_figures(table, scored, train_end=train_end, name=file.name)


def _show_figures(table: Table, scored: Scored, *, train_end: int | None, name: str) -> None:
    """Print what the scores and alerts are worth against the labels of the file."""
    from rich.console import Console

    from jobs.evaluate.one_file import summary_of
    from jobs.evaluate.table import print_summary

    summary = summary_of(table, scored, train_end=train_end, name=name)
    if summary is None or not summary.anomalies:
        say(f"no row from row {train_end or 0} on is labelled an anomaly: there are no figures")
        return
    print_summary(summary, Console(stderr=True))


def drawn(table: Table, scored: Scored, name: str, *, as_html: bool) -> str:
    """Return a picture of the series with alerts or labels."""
    from jobs.pictures import Picture, draw, panels_of
    from jobs.pictures.panels import spans_of

    known = rows_of(table.batch, np.flatnonzero(table.usable))
    labels = {}
    if table.labelled is not None:
        marked = table.labelled[table.usable]
        for key in known.keys.filter(pl.Series(marked)).unique():
            own = (known.keys == key).to_numpy()
            labels[str(key)] = spans_of(known.time_ms[own], marked[own])
    panels, left_out = panels_of([known], scored.scores, scored.alerts, labels=labels)
    n_alerts = sum(alert.state == "opened" for alert in scored.alerts)
    title = f"{name}: {n_alerts} alert{'' if n_alerts == 1 else 's'}, {scored.detector}"
    picture = Picture(
        title=title,
        panels=panels,
        variates=table.columns,
        n_alerts=n_alerts,
        left_out=left_out,
        row_ms=ROW_MS if table.time is None else 0,
    )
    return draw(picture, as_html=as_html)


def _known_columns(variates: Sequence[str], file: Path, key: Sequence[str]) -> Sequence[str]:
    """Return the artifact's own columns where the file has them all."""
    held = read_table(file, key=key).measured
    return variates if set(variates) <= set(held) else ()


def _tell_reading(table: Table, file: Path) -> None:
    time = f"time {table.time}" if table.time else "the row number as time"
    key = f", keys {' and '.join(table.key)}" if table.key else ""
    shown = ", ".join(table.measured[:MAX_SHOWN])
    more = f" and {len(table.measured) - MAX_SHOWN} more" if len(table.measured) > MAX_SHOWN else ""
    say(f"{file.name}: {table.n_rows} rows of {shown}{more}; {time}{key}")
    for note in table.notes:
        say(note)
    if table.n_unreadable:
        say(f"{table.n_unreadable} cells are not finite numbers and count as missing")
    lost = int((~table.usable).sum())
    if lost:
        say(f"{lost} rows have no readable time or no key; they are marked incomplete")


def fit_file(  # noqa: PLR0913 - one argument an option, all by keyword
    detector: str,
    train: Path,
    *,
    out: str,
    columns: Sequence[str],
    time: str | None,
    key: Sequence[str],
    joint: bool,
    size: int | None,
    params: Mapping[str, Any],
    pipeline: Path | None,
    licence: str,
    asked: Asked | None = None,
    labels: Path | None = None,
    feedback: Path | None = None,
) -> None:
    """Fit a detector on a file and write the artifact; asked : as `score_file` has it.

    feedback : answers whose periods are not learned as ordinary
    """
    periods = [] if feedback is None else read_answers(feedback)
    facts = {
        "licence": licence,
        "created": now_text(),
        "detector_version": version("streamad-pipeline"),
    }
    if pipeline is not None:
        if columns or time or key or joint or size or params:
            msg = "--pipeline sets columns, time, key, joint, size and params; give it alone"
            raise ConfigError(msg)
        fitted = _fit_for_pipeline(detector, train, pipeline, facts, periods)
    elif (records := records_of(detector)) != "signals":
        if periods:
            msg = "--feedback needs --pipeline here: it names series as the pipeline does"
            raise ConfigError(msg)
        given = asked or Asked()
        said = replace(given, fields=given.fields or columns, key=key, time=time)
        if detector_info(detector).modality == "graphs":
            fitted = fit_graph_file(
                detector, train, said, labels=labels, params=params, facts=facts
            )
        else:
            fitted = fit_rows(detector, train, records, said, params=params, facts=facts)
    else:
        table = read_table(train, columns=columns, time=time, key=key, joint=joint)
        _tell_reading(table, train)
        if periods:
            table = replace(table, usable=table.usable & ~_answered(table.batch, periods))
        config = pipeline_for(table, detector=detector, params=params, size=size)
        check_detector(config)
        with status(f"fitting {detector}") as tell:
            fitted = fit_table(table, config, facts=facts, progress=tell)
    _report_fit(save_artifact(out, fitted.detector, fitted.manifest, seeds=fitted.seeds), out)


def _report_fit(manifest: Manifest, out: str) -> None:
    tail = "its default tail" if manifest.tail is None else "a tail measured out of sample"
    what = f"{manifest.trained.windows:,} {detector_info(manifest.detector).modality}"
    if manifest.records == "signals":
        what = f"{manifest.trained.windows} windows of {manifest.size} samples"
    say(
        f"{manifest.detector} fitted on {what}, {len(manifest.groups)} series, {tail}; artifact "
        f"{manifest.id} in {out}"
    )


def read_answers(file: Path) -> list[Period]:
    """Return the answers of a file of JSON lines, as ``streamad alerts answers`` writes it."""
    try:
        return read_periods(file.read_bytes().splitlines(), name=str(file))
    except OSError as error:
        msg = f"{file}: cannot be read ({error.strerror}); give a file of 'streamad alerts answers'"
        raise ConfigError(msg) from error


def _answered(batch: RecordBatch[Any], periods: Sequence[Period]) -> NDArray[np.bool_]:
    """Return the rows that are not ordinary by what people answered, and report how many."""
    rows = left_out(batch, periods)
    say(f"--feedback: {int(rows.sum())} of {len(rows)} rows are anomalous and are not learned")
    return rows


def _fit_for_pipeline(
    detector: str,
    train: Path,
    pipeline: Path,
    facts: Mapping[str, str],
    periods: Sequence[Period],
) -> Fitted:
    config = load_pipeline(pipeline, environment=environment())
    if config.detector.name != detector:
        msg = f"{pipeline} names the detector {config.detector.name!r}, not {detector!r}"
        raise ConfigError(msg)
    check_detector(config)
    notes: list[str] = []
    parts = [part.decoded for part in read_file(train, config, notes=notes)]
    account = Account()
    for part in parts:
        account.reject(part.rejected)
    batches: list[Any] = [part.batch for part in parts]
    if periods:
        whole = joined(batches)
        batches = [rows_of(whole, np.flatnonzero(~_answered(whole, periods)))]
    for note in (*notes, *([account.rejections()] if account.rejected else [])):
        say(note)
    with status(f"fitting {detector}") as tell:
        if detector_info(detector).modality == "graphs":
            batch = joined(batches)
            return fit_graphs_for(config, batch, facts=facts, progress=tell)
        fit: Any = fit_detector if config.input.records == "signals" else fit_items
        fitted: Fitted = fit(
            lambda chosen: make(detector, size=chosen, params=config.detector.params),
            config,
            joined(batches),
            facts=facts,
            progress=tell,
        )
        return fitted


def run_pipeline(
    pipeline: Path | None,
    *,
    alerting: Path | None,
    role: str,
    strict: bool,
    options: Mapping[str, object],
) -> None:
    """Run a pipeline or an alerting file, having told every mistake before anything starts."""
    from jobs.plain.serve import serve
    from jobs.validate import check

    given = environment()
    wanted = {f"STREAMAD_{n.upper()}": str(v) for n, v in options.items() if v is not None}
    if alerting is not None and pipeline is None:
        serve(alerting, alerting=True, role=role, environment=given, options=wanted)
        return
    if pipeline is None or alerting is not None:
        msg = "give either a pipeline file, or --alerting with an alerting file"
        raise ConfigError(msg)
    if role != "alert":
        check(pipeline, load_pipeline(pipeline, environment=given), strict=strict)
    serve(pipeline, role=role, environment=given, options=wanted)


def make_topics(pipeline: Path) -> None:
    """Create the output topics of a pipeline."""
    from jobs.plain.topics import create_topics

    config = load_pipeline(pipeline, environment=environment())
    made = create_topics(config, kafka_settings(environment()))
    sys.stdout.writelines(f"{name}\n" for name in made)
    say(f"{len(made)} topics created" if made else "all topics exist already")


def now_text() -> str:
    """Return the moment, for the record: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
