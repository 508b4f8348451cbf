"""What ``streamad score``, ``run`` and ``topics create`` do with their arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from connectors.files import ROW_MS
from jobs.build import detector_info, records_of
from jobs.console import bar, say
from jobs.graph_commands import score_graph_file
from jobs.item_commands import score_rows
from jobs.offline.item_files import Asked
from jobs.offline.score import Scored, describe, pipeline_for, score_table
from jobs.offline.tables import Table, check_output, check_plot, read_table, write_table
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import load_alerting
from streamad.artifacts import load_manifest
from streamad.config import load_pipeline
from streamad.errors import ConfigError
from streamad.training.fit import rows_of

DEFAULT_DETECTOR = "auto"
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
    tell_reading(table, file)
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


def tell_reading(table: Table, file: Path) -> None:
    """Report how a file was read."""
    time = f"time {table.time}" if table.time else "the row number as time"
    key = f", keys {' and '.join(table.key)}" if table.key else ""
    shown = ", ".join(table.measured[:MAX_SHOWN])
    more = f" and {len(table.measured) - MAX_SHOWN} more" if len(table.measured) > MAX_SHOWN else ""
    say(f"{file.name}: {table.n_rows} rows of {shown}{more}; {time}{key}")
    for note in table.notes:
        say(note)
    for fault in table.faults:
        say(fault)
    lost = int((~table.usable).sum())
    if lost:
        say(f"{lost} of {len(table)} points are without a time or a key, and marked incomplete")


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


def show_schemas(file: Path, *, register: bool) -> None:
    """Print the schemas of a file's topics as JSON lines, with their ids where registered."""
    from connectors.registry.client import Registry
    from connectors.registry.settings import RegistrySettings
    from jobs.plain.frames import subjects_of
    from jobs.plain.topics import Config
    from jobs.validate import is_alerting

    given = environment()
    load: Callable[..., Config] = load_alerting if is_alerting(file) else load_pipeline
    registry = Registry(RegistrySettings.from_environment(given)) if register else None
    for one in subjects_of(load(file, environment=given)):
        line: dict[str, Any] = {}
        if registry is not None:
            line["id"] = registry.register(one.name, one.schema)
        line |= {"subject": one.name, "role": one.role, "schemaType": "JSON", "schema": one.schema}
        sys.stdout.write(json.dumps(line) + "\n")


def make_topics(pipeline: Path) -> None:
    """Create the output topics of a pipeline."""
    from jobs.plain.topics import create_topics

    config = load_pipeline(pipeline, environment=environment())
    made = create_topics(config, kafka_settings(environment()))
    sys.stdout.writelines(f"{name}\n" for name in made)
    say(f"{len(made)} topics created" if made else "all topics exist already")
