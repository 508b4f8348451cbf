"""What ``streamad fit`` does with its arguments: rows of a file or of topics to an artifact."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.build import check_detector, detector_info, make, records_of
from jobs.commands import tell_reading
from jobs.console import bar, say, status
from jobs.graph_commands import fit_graph_file, fit_graphs_for
from jobs.item_commands import fit_rows
from jobs.offline.item_files import Asked
from jobs.offline.recent import MOST_ROWS, Rows, rows_of_file, rows_of_topics
from jobs.offline.replay import is_file
from jobs.offline.score import fit_table, pipeline_for
from jobs.offline.tables import Table, read_table
from jobs.settings import environment, kafka_settings
from streamad.artifacts import save_artifact
from streamad.config import PipelineConfig, load_pipeline
from streamad.config.values import parse_duration
from streamad.errors import ConfigError
from streamad.records import RecordBatch
from streamad.training.answers import Period, left_out, read_periods
from streamad.training.fit import Fitted, fit_detector, rows_of
from streamad.training.items import fit_items

CONFIGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """How much of topics is fitted on.

    last : a duration that ends now, as people write it (None: all that the topics hold)
    rows : at most so many, the newest (None: the default)
    """

    last: str | None = None
    rows: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Return the options that were given."""
        options = (("--last", self.last), ("--rows", self.rows))
        return tuple(name for name, value in options if value is not None)


def fit_file(  # noqa: PLR0913 - one argument an option, all by keyword
    detector: str,
    train: Path | str | None,
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
    recent: Recent | None = None,
) -> None:
    """Fit a detector on a file or on topics and write the artifact; asked : as `score_file` has it.

    train : a file, or with a pipeline the name of a topic (None: the topics of the pipeline)
    feedback : answers, or the pipeline or alerting file of a desk that has them, whose periods are
        not learned as ordinary; detectors that learn from labels take them for labels
    """
    facts = {
        "licence": licence,
        "created": now_text(),
        "detector_version": version("streamad-pipeline"),
    }
    recent = recent or Recent()
    if pipeline is not None:
        if columns or time or key or joint or size or params:
            msg = "--pipeline sets columns, time, key, joint, size and params; give it alone"
            raise ConfigError(msg)
        periods = None if feedback is None else read_answers(feedback)
        source = None if train is None else str(train)
        _keep(_fit_for_pipeline(detector, source, pipeline, facts, periods, recent), out)
        return
    file = _file_of(train, recent)
    periods = [] if feedback is None else read_answers(feedback)
    if (records := records_of(detector)) == "signals":
        table = read_table(file, columns=columns, time=time, key=key, joint=joint)
        tell_reading(table, file)
        config = pipeline_for(table, detector=detector, params=params, size=size)
        fitted = _fit_series(table, config, periods, facts)
    elif periods:
        msg = "--feedback needs --pipeline here: it names series as the pipeline does"
        raise ConfigError(msg)
    else:
        given = asked or Asked()
        said = replace(given, fields=given.fields or columns, key=key, time=time)
        if detector_info(detector).modality == "graphs":
            fitted = fit_graph_file(detector, file, said, labels=labels, params=params, facts=facts)
        else:
            fitted = fit_rows(detector, file, records, said, params=params, facts=facts)
    _keep(fitted, out)


def _fit_series(
    table: Table, config: PipelineConfig, periods: Sequence[Period], facts: Mapping[str, str]
) -> Fitted:
    check_detector(config)
    if periods:
        table = replace(table, usable=table.usable & ~_answered(table.batch, periods))
    with status(f"fitting {config.detector.name}") as tell:
        return fit_table(table, config, facts=facts, progress=tell)


def _keep(fitted: Fitted, out: str) -> None:
    """Write an artifact and report what it is of."""
    manifest = save_artifact(out, fitted.detector, fitted.manifest, seeds=fitted.seeds)
    tail = "its default tail" if manifest.tail is None else "a tail measured out of sample"
    what = f"{manifest.trained.windows:,} {detector_info(manifest.detector).modality}"
    if manifest.records == "signals":
        what = f"{manifest.trained.windows} windows of {manifest.size} samples"
    say(
        f"{manifest.detector} fitted on {what}, {len(manifest.groups)} series, {tail}; artifact "
        f"{manifest.id} in {out}"
    )


def _file_of(train: Path | str | None, recent: Recent) -> Path:
    """Return the file to fit on, where there is no pipeline that could name topics."""
    if train is None:
        msg = "give a file to fit on, or --pipeline to fit on the topics of a pipeline"
        raise ConfigError(msg)
    if recent.given:
        msg = f"{recent.given[0]} is for topics, and needs --pipeline to read them by"
        raise ConfigError(msg)
    if not is_file(str(train)):
        msg = f"there is no file {str(train)!r}; to fit on a topic give --pipeline, too"
        raise ConfigError(msg)
    return Path(train)


def read_answers(source: Path) -> list[Period]:
    """Return answers: of a file of JSON lines, or of the feedback topic that a configuration names.

    source : as ``streamad alerts answers`` writes it, or a pipeline or alerting file
    """
    if source.suffix in CONFIGS:
        from jobs.desk.reading import periods_of

        periods = periods_of(source)
        say(f"--feedback: {len(periods):,} answers on series, of the desk of {source}")
        return periods
    try:
        return read_periods(source.read_bytes().splitlines(), name=str(source))
    except OSError as error:
        msg = (
            f"{source}: cannot be read ({error.strerror}); give a file of 'streamad alerts "
            "answers', or the pipeline file of a desk that runs"
        )
        raise ConfigError(msg) from error


def _answered(batch: RecordBatch[Any], periods: Sequence[Period]) -> NDArray[np.bool_]:
    """Return the rows that are not ordinary by what people answered, and report how many."""
    rows = left_out(batch, periods)
    say(f"--feedback: {int(rows.sum())} of {len(rows)} rows are anomalous and are not learned")
    return rows


def _fit_for_pipeline(
    detector: str,
    source: str | None,
    pipeline: Path,
    facts: Mapping[str, str],
    periods: Sequence[Period] | None,
    recent: Recent,
) -> Fitted:
    config = load_pipeline(pipeline, environment=environment())
    if config.detector.name != detector:
        msg = f"{pipeline} names the detector {config.detector.name!r}, not {detector!r}"
        raise ConfigError(msg)
    check_detector(config)
    rows = _rows(config, source, recent)
    for note in rows.notes:
        say(note)
    batch = rows.batch
    if detector_info(detector).modality == "graphs":
        return fit_graphs_for(config, batch, periods=periods, facts=facts)
    if periods:
        batch = rows_of(batch, np.flatnonzero(~_answered(batch, periods)))
    with status(f"fitting {detector}") as tell:
        fit: Any = fit_detector if config.input.records == "signals" else fit_items
        fitted: Fitted = fit(
            lambda chosen: make(detector, size=chosen, params=config.detector.params),
            config,
            batch,
            facts=facts,
            progress=tell,
        )
        return fitted


def _rows(config: PipelineConfig, source: str | None, recent: Recent) -> Rows:
    """Return the rows of a file, of a topic, or of the topics of the pipeline."""
    if source is not None and is_file(source):
        if recent.given:
            msg = f"{recent.given[0]} is for topics, and {source} is a file"
            raise ConfigError(msg)
        return rows_of_file(Path(source), config)
    topics = config.input.topics if source is None else (source,)
    if not topics:
        msg = "input.topics: the pipeline names no topic; name one, or give a file to fit on"
        raise ConfigError(msg)
    most = MOST_ROWS if recent.rows is None else recent.rows
    if most < 1:
        msg = f"--rows is {most}; it must be at least 1"
        raise ConfigError(msg)
    now_ms = clock.time_ns() // 1_000_000
    begin_ms = None if recent.last is None else now_ms - _duration(recent.last)
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.fit")
    try:
        with bar(f"reading {', '.join(topics)}") as tell:
            return rows_of_topics(
                log,
                config,
                topics=topics,
                begin_ms=begin_ms,
                # What is written ahead of its time is judged, too, up to that bound.
                end_ms=now_ms + config.series.max_ahead,
                most=most,
                progress=tell,
            )
    finally:
        log.close()


def _duration(text: str) -> int:
    try:
        found = parse_duration(text)
    except ValueError as error:
        msg = f"--last is {text!r}; it must be a duration such as 14d, 36h or 90m"
        raise ConfigError(msg) from error
    if found <= 0:
        msg = f"--last is {text!r}; it must be longer than nothing, such as 14d"
        raise ConfigError(msg)
    return found


def now_text() -> str:
    """Return the moment, for the record: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
