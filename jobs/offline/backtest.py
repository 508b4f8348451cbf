"""``streamad backtest``: which alerts a pipeline would have raised on what has already been.

The two operators that run live, over the same rows. Findings are taken in the order of their event
time and as if each had been written when its window closed, so that neither the size of batches nor
the day of the back-test changes an alert.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
import polars as pl

from jobs.build import build_detect
from jobs.console import Tell, bar
from jobs.explain.sources import scores_frame
from jobs.moments import parse_moment
from jobs.offline.judged import Account, with_dates
from jobs.offline.pauses import with_pauses
from jobs.offline.replay import Part, between, is_file, read_file, read_topic
from jobs.offline.score import key_spans
from jobs.offline.tables import check_output, check_plot, write_table
from jobs.pictures.graphs import draw_alerts, require_edges, shown_count
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError
from streamad.incidents import Digest, Incident
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator, Position
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.state import DeskState
from streamad.records import Alert, Finding, ScoreBatch, SignalBatch

DAY_MS = 86_400_000
TICK_MS = 60_000
"""How often time passes while no finding comes, as in the alert stage."""
STEPS = 20
"""Longer pauses are passed in steps of this share of the time that has passed already."""
FLAP_WINDOWS = 2
"""An alert that opens within so many windows' length of its key's last one is a flap."""


class Watch(Protocol):
    """Who else wants to see each batch and what the operator yielded."""

    def take(self, batch: SignalBatch, out: DetectOutput, at: Position) -> None:
        """Take a batch; it decides nothing of the replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a desk made of findings.

    n_limited : alerts that ``alerts.limit`` kept back; groups : that could page
    """

    alerts: list[Alert] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    n_limited: int = 0
    groups: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Backtest:
    """What a replay found.

    keys : first and last time of each; points, scores : what was judged and how, where they are
    kept: to be drawn, or written
    """

    decided: Decided = field(default_factory=Decided)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    window_ms: int = 0
    account: Account = field(default_factory=Account)
    points: list[SignalBatch] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)

    @property
    def alerts(self) -> list[Alert]:
        """Return the alerts of the settings as they are."""
        return self.decided.alerts

    @property
    def incidents(self) -> list[Incident]:
        """Return the records of incidents of the settings as they are."""
        return self.decided.incidents

    @property
    def digests(self) -> list[Digest]:
        """Return what did not page, as it would have been reported."""
        return self.decided.digests

    @property
    def days(self) -> float:
        """Return how much event time was replayed."""
        if self.first_ms is None or self.last_ms is None:
            return 0.0
        return max(self.last_ms - self.first_ms, 1) / DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The times between which an alert was open (None: it still is)."""

    id: str
    key: str
    kind: str
    opened_ms: int
    resolved_ms: int | None
    peak_severity: float
    summary: str


def replay(  # noqa: PLR0913 - all but two by keyword
    operator: DetectOperator,
    parts: Iterable[Part],
    *,
    begin_ms: int | None = None,
    end_ms: int | None = None,
    keep_points: bool = False,
    keep_scores: bool = False,
    alerting: AlertingConfig | None = None,
    watch: Watch | None = None,
) -> Backtest:
    """Run recorded input through detect and alert; each partition is a shard of its own.

    alerting : in place of what the pipeline alone asks for
    """
    made = Backtest()
    shards = {}
    spacing: list[int] = []
    asked = ((part, between(part.decoded.batch, begin_ms, end_ms)) for part in parts)
    read = with_pauses(asked, max_ahead=operator.config.series.max_ahead)
    for (part, batch), resumed in read:
        if part.source not in shards:
            shards[part.source] = operator.new_state()
        made.account.reject(part.decoded.rejected)
        at = Position(topic=part.source.topic, partition=part.source.partition)
        out = operator.process(shards[part.source], batch, at=at, resumed=resumed)
        made.account.reject(out.rejected)
        made.account.take(batch, out)
        made.counts.update({name: n for name, n in out.counts.items() if name != "rejected"})
        made.findings += out.findings
        spacing += [_spacing(scores.keys, scores.end_ms) for scores in out.scores]
        _enlarge(made, with_dates(batch))
        if watch is not None:
            watch.take(batch, out, at)
        if keep_points:
            made.points.append(with_dates(batch))
        if keep_scores:
            made.scores += out.scores
    known = [ms for ms in spacing if ms > 0]
    made.window_ms = int(np.median(known)) * operator.detector.size if known else 0
    in_order(made.findings)
    config = alerting or AlertingConfig.of(operator.config)
    made.decided = decide(config, made.findings, end_ms=made.last_ms)
    made.counts["withheld"] = made.decided.n_limited
    return made


def in_order(findings: list[Finding]) -> None:
    """Sort findings as a desk is to take them: by event time, whatever the batches were."""
    findings.sort(key=lambda f: (f.window_end_ms, f.key, f.kind, f.sequence))


def decide(
    config: AlertingConfig, findings: Sequence[Finding], *, end_ms: int | None = None
) -> Decided:
    """Return what a desk makes of findings in order, each as if written when its window closed.

    end_ms : when the replay ends: until then what was quiet resolves, and what was held back pages

    Time passes between findings, too, as it does live.
    """
    desk = Desk(config)
    state, out = desk.new_state(), DeskOutput()
    first = 0
    for after in [*_pauses(findings), len(findings)]:
        _add(out, desk.process(state, [(f, f.window_end_ms) for f in findings[first:after]]))
        until_ms = findings[after].window_end_ms if after < len(findings) else end_ms
        if until_ms is not None:
            _wait(desk, state, until_ms, out)
        first = after
    if end_ms is not None:
        _add(out, desk.tick(state, end_ms))
    return Decided(
        alerts=out.alerts,
        incidents=out.incidents,
        digests=out.digests,
        n_limited=state.alerts.counts["alerts_withheld"],
        groups=tuple(state.budgets),
    )


def _pauses(findings: Sequence[Finding]) -> list[int]:
    """Return the findings before which none came for a while, by number."""
    end_ms = np.array([one.window_end_ms for one in findings], np.int64)
    return [int(at) + 1 for at in np.flatnonzero(np.diff(end_ms) > TICK_MS)]


def _wait(desk: Desk, state: DeskState, until_ms: int, out: DeskOutput) -> None:
    """Let time pass before ``until_ms``, in steps that grow with the time that has passed."""
    began_ms = now_ms = state.clock_ms
    if began_ms < 0:
        return  # No finding has come.
    while (now_ms := now_ms + max(TICK_MS, (now_ms - began_ms) // STEPS)) < until_ms:
        _add(out, desk.tick(state, now_ms))


def _add(out: DeskOutput, more: DeskOutput) -> None:
    out.alerts += more.alerts
    out.incidents += more.incidents
    out.digests += more.digests


def _spacing(keys: pl.Series, end_ms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    """Return the median time between two windows of a key, 0 where no key has two."""
    steps = pl.DataFrame({"key": keys, "end": end_ms}).select(pl.col("end").diff().over("key"))
    median = steps["end"].median()
    return int(median) if isinstance(median, float) else 0


def _enlarge(made: Backtest, batch: SignalBatch) -> None:
    if not len(batch):
        return
    first, last = int(batch.time_ms.min()), int(batch.time_ms.max())
    made.first_ms = first if made.first_ms is None else min(made.first_ms, first)
    made.last_ms = last if made.last_ms is None else max(made.last_ms, last)
    for key, first, last in key_spans(batch).rows():
        known = made.keys.get(key, (first, last))
        made.keys[key] = min(known[0], first), max(known[1], last)


def spans(alerts: Iterable[Alert]) -> list[Span]:
    """Return one span an alert, in the order they opened."""
    opened: dict[str, Alert] = {}
    last: dict[str, Alert] = {}
    for alert in alerts:
        opened.setdefault(alert.id, alert)
        last[alert.id] = alert
    return [
        Span(
            id=alert.id,
            key=alert.key,
            kind=alert.kind,
            opened_ms=alert.opened_ms,
            resolved_ms=last[alert.id].resolved_ms,
            peak_severity=last[alert.id].peak_severity,
            summary=alert.summary,
        )
        for alert in opened.values()
    ]


def count_flaps(found: list[Span], *, within_ms: int) -> int:
    """Return how many alerts opened right after their key's last one had been resolved."""
    ended: dict[tuple[str, str], int] = {}
    flaps = 0
    for span in sorted(found, key=lambda s: s.opened_ms):
        before = ended.get((span.key, span.kind))
        if before is not None and span.opened_ms - before <= within_ms:
            flaps += 1
        if span.resolved_ms is not None:
            ended[span.key, span.kind] = span.resolved_ms
    return flaps


# ------------------------------------------------------------------ the command


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
