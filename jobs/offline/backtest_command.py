"""``streamad backtest``: read, replay, write what was asked for, and print the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from jobs.build import build_detect
from jobs.console import Tell, bar
from jobs.explain.sources import scores_frame
from jobs.moments import parse_moment
from jobs.offline.backtest import Backtest, replay, spans
from jobs.offline.replay import Part, is_file, read_file, read_topic
from jobs.offline.tables import check_output, check_plot, write_table
from jobs.pictures.graphs import draw_alerts, require_edges, shown_count
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import load_alerting
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a back-test writes: alerts ("-" prints them), and what else is asked for.

    scores : every window's score, Parquet; findings : JSON lines; both are read by ``explain``;
    graphs : a folder for pictures of the graphs that alerted; reports : what would page at several
    budgets, HTML or JSON
    """

    alerts: str = "-"
    scores: Path | None = None
    findings: Path | None = None
    plot: Path | None = None
    graphs: Path | None = None
    reports: tuple[Path, ...] = ()

    def check(self) -> None:
        """Refuse files that could not be written, before hours of work."""
        if self.alerts != "-":
            check_output(Path(self.alerts))
        for path in (self.scores, self.findings):
            if path is not None:
                check_output(path)
        if self.scores is not None and self.scores.suffix != ".parquet":
            msg = f"{self.scores}: scores are written as Parquet; name a file that ends in .parquet"
            raise ConfigError(msg)
        check_plot(self.plot)
        for path in self.reports:
            if path.suffix not in {".html", ".json"}:
                msg = f"--report {path}: reports are written as .html or .json"
                raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of a source is replayed, and how; moments are as people write them.

    label : the column that marks anomalies; alerting : a file in place of the pipeline's alerts
    """

    begin: str | None = None
    end: str | None = None
    joint: bool = False
    label: str | None = None
    alerting: Path | None = None


def backtest_pipeline(pipeline: Path, source: str, *, asked: Asked, files: Outputs) -> None:
    """Replay, write the alerts, print the report."""
    from jobs.report.command import Reporter, print_facts

    files.check()
    config = load_pipeline(pipeline, environment=environment())
    alerting = None
    if asked.alerting is not None:
        alerting = load_alerting(asked.alerting, environment=environment())
    now_ms = time.time_ns() // 1_000_000
    begin_ms = None if asked.begin is None else parse_moment(asked.begin, now_ms=now_ms)
    end_ms = None if asked.end is None else parse_moment(asked.end, now_ms=now_ms)
    if files.graphs is not None:
        require_edges(config, "--graphs")
    operator = build_detect(config, strict=True)
    reporter = Reporter.of(operator, source, asked=asked, files=files, alerting=alerting)
    notes: list[str] = []
    reading = config if reporter is None else reporter.reading
    with bar(f"replaying {source}") as tell:
        parts = _parts(source, reading, begin_ms=begin_ms, joint=asked.joint, notes=notes)
        made = replay(
            operator,
            _told(parts if reporter is None else reporter.parts(parts), tell),
            begin_ms=begin_ms,
            end_ms=end_ms,
            keep_points=files.plot is not None or files.graphs is not None,
            keep_scores=files.plot is not None or files.scores is not None,
            alerting=alerting,
            watch=reporter,
        )
    notes += _write_files(made, config, files)
    print_facts(made, operator, notes)
    if reporter is not None:
        reporter.write(made)


def _write_files(made: Backtest, config: PipelineConfig, files: Outputs) -> list[str]:
    """Write what was asked for; return what there is to report about it."""
    _write(made, files.alerts)
    if files.scores is not None:
        write_table(scores_frame(made.scores), files.scores)
    if files.findings is not None:
        files.findings.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in made.findings))
    if files.plot is not None:
        picture = drawn(made, config, as_html=files.plot.suffix == ".html")
        files.plot.write_text(picture, encoding="utf-8")
    if files.graphs is not None:
        paths = draw_alerts(files.graphs, made.alerts, made.findings, made.points, config)
        return [f"{files.graphs}: {shown_count(paths, len(spans(made.alerts)))}"]
    return []


def drawn(made: Backtest, config: PipelineConfig, *, as_html: bool) -> str:
    """Return a picture of the series that raised alerts."""
    from jobs.pictures import Picture, draw, panels_of
    from jobs.pictures.counts import counts_of

    points, variates = made.points, config.input.columns
    if config.input.records != "signals":
        points, name = counts_of(points, config.input.records.removesuffix("s"))
        variates = (name,)
    panels, left_out = panels_of(points, made.scores, made.alerts)
    n_alerts = len(spans(made.alerts))
    title = f"{config.name}: {n_alerts} alert{'' if n_alerts == 1 else 's'}, {config.detector.name}"
    picture = Picture(
        title=title,
        panels=panels,
        variates=variates,
        n_alerts=n_alerts,
        left_out=left_out,
    )
    return draw(picture, as_html=as_html)


def _parts(
    source: str, config: PipelineConfig, *, begin_ms: int | None, joint: bool, notes: list[str]
) -> Iterator[Part]:
    if is_file(source):
        yield from read_file(Path(source), config, joint=joint, notes=notes)
        return
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.backtest")
    try:
        yield from read_topic(log, source, config, begin_ms=begin_ms)
    finally:
        log.close()


def _told(parts: Iterable[Part], tell: Tell) -> Iterator[Part]:
    done = 0
    for part in parts:
        yield part
        done += len(part.decoded.batch)
        tell(done, None)


def _write(made: Backtest, out: str) -> None:
    if out == "-" or not out.endswith((".csv", ".parquet")):
        lines = b"".join(orjson.dumps(alert) + b"\n" for alert in made.alerts)
        if out == "-":
            sys.stdout.buffer.write(lines)
        else:
            Path(out).write_bytes(lines)
        return
    rows = spans(made.alerts)
    schema = {
        "id": pl.String, "key": pl.String, "kind": pl.String, "opened_ms": pl.Int64,
        "resolved_ms": pl.Int64, "peak_severity": pl.Float64, "summary": pl.String,
    }  # fmt: skip
    columns = {name: [getattr(row, name) for row in rows] for name in schema}
    frame = pl.DataFrame(columns, schema=schema)
    moments = [
        pl.from_epoch(name, time_unit="ms")
        .dt.replace_time_zone("UTC")
        .alias(name.removesuffix("_ms"))
        for name in ("opened_ms", "resolved_ms")
    ]
    write_table(frame.with_columns(moments), Path(out))
