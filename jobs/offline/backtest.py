"""``streamad backtest``: which alerts a pipeline would have raised on what has already been.

The two operators that run live, over the same rows. Findings are taken in the order of their event
time and as if each had been written when its window closed, so that neither the size of batches nor
the day of the back-test changes an alert.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from jobs.build import build_detect
from jobs.console import Tell, bar, say
from jobs.explain.sources import scores_frame
from jobs.moments import parse_moment
from jobs.offline.judged import Account, with_dates
from jobs.offline.readiness import beyond_memory, still_learning
from jobs.offline.replay import Part, between, is_file, read_file, read_topic
from jobs.offline.score import key_spans
from jobs.offline.tables import check_output, check_plot, write_table
from jobs.pictures.graphs import draw_alerts, require_edges, shown_count
from jobs.settings import environment, kafka_settings
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError
from streamad.incidents import Digest, Incident
from streamad.operators.detect import DetectOperator, Position
from streamad.paging.desk import Desk
from streamad.records import Alert, Finding, ScoreBatch, SignalBatch
from streamad.wording import clock

DAY_MS = 86_400_000
FLAP_WINDOWS = 2
"""An alert that opens within so many windows' length of its key's last one is a flap."""


@dataclass(slots=True, kw_only=True)
class Backtest:
    """What a replay found.

    keys : first and last time of each; points, scores : what was judged and how, where they are
    kept: to be drawn, or written
    """

    alerts: list[Alert] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
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


def replay(
    operator: DetectOperator,
    parts: Iterable[Part],
    *,
    begin_ms: int | None = None,
    end_ms: int | None = None,
    keep_points: bool = False,
    keep_scores: bool = False,
) -> Backtest:
    """Run recorded input through detect and alert; each partition is a shard of its own."""
    made = Backtest()
    shards = {}
    spacing: list[int] = []
    for part in parts:
        if part.source not in shards:
            shards[part.source] = operator.new_state()
        batch = between(part.decoded.batch, begin_ms, end_ms)
        made.account.reject(part.decoded.rejected)
        at = Position(topic=part.source.topic, partition=part.source.partition)
        out = operator.process(shards[part.source], batch, at=at)
        made.account.reject(out.rejected)
        made.account.take(batch, out)
        made.counts.update({name: n for name, n in out.counts.items() if name != "rejected"})
        made.findings += out.findings
        spacing += [_spacing(scores.keys, scores.end_ms) for scores in out.scores]
        _enlarge(made, with_dates(batch))
        if keep_points:
            made.points.append(with_dates(batch))
        if keep_scores:
            made.scores += out.scores
    known = [ms for ms in spacing if ms > 0]
    made.window_ms = int(np.median(known)) * operator.detector.size if known else 0
    made.findings.sort(key=lambda f: (f.window_end_ms, f.key, f.kind, f.sequence))
    desk = Desk(operator.config)
    state = desk.new_state()
    told = desk.process(state, [(f, f.window_end_ms) for f in made.findings])
    made.alerts, made.incidents, made.digests = told.alerts, told.incidents, told.digests
    made.counts["withheld"] = state.alerts.counts["alerts_withheld"]
    return made


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

    scores : every window's score, Parquet; findings : JSON lines; both are read by ``explain``
    graphs : a folder for pictures of the graphs that alerted
    """

    alerts: str = "-"
    scores: Path | None = None
    findings: Path | None = None
    plot: Path | None = None
    graphs: Path | None = None

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


def backtest_pipeline(
    pipeline: Path,
    source: str,
    *,
    begin: str | None,
    end: str | None,
    files: Outputs,
    joint: bool = False,
) -> None:
    """Replay, write the alerts, print the report."""
    files.check()
    config = load_pipeline(pipeline, environment=environment())
    now_ms = time.time_ns() // 1_000_000
    begin_ms = None if begin is None else parse_moment(begin, now_ms=now_ms)
    end_ms = None if end is None else parse_moment(end, now_ms=now_ms)
    if files.graphs is not None:
        require_edges(config, "--graphs")
    operator = build_detect(config, strict=True)
    notes: list[str] = []
    with bar(f"replaying {source}") as tell:
        parts = _told(_parts(source, config, begin_ms=begin_ms, joint=joint, notes=notes), tell)
        made = replay(
            operator,
            parts,
            begin_ms=begin_ms,
            end_ms=end_ms,
            keep_points=files.plot is not None or files.graphs is not None,
            keep_scores=files.plot is not None or files.scores is not None,
        )
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
        notes.append(f"{files.graphs}: {shown_count(paths, len(spans(made.alerts)))}")
    _report(made, config, operator, notes)


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


def facts(made: Backtest, operator: DetectOperator) -> list[tuple[str, str]]:
    """Return the report as lines of a name and a value."""
    found = spans(made.alerts)
    per_day = len(found) / made.days if made.days else 0.0
    name, withheld = operator.detector.info.name, made.counts["withheld"]
    return [
        ("detector", f"{name} ({operator.degraded})" if operator.degraded else name),
        ("points", f"{made.counts['points']:,} of {len(made.keys):,} keys"),
        ("from, to", _range(made)),
        ("windows", f"{made.counts['windows']:,}, {made.counts['incomplete']:,} incomplete"),
        ("rejected, late", f"{made.account.rejected.total():,}, {made.counts['late']:,}"),
        ("alerts", f"{len(found):,}: {per_day:.2f} per day"),
        *([("not sent", f"{withheld:,} (alerts.limit)")] if withheld else []),
        ("flaps", f"{count_flaps(found, within_ms=FLAP_WINDOWS * made.window_ms):,}"),
        ("longest", _longest(found)),
        ("still open", f"{sum(span.resolved_ms is None for span in found):,}"),
    ]


def _range(made: Backtest) -> str:
    if made.first_ms is None or made.last_ms is None:
        return "nothing"
    first, last = clock(made.first_ms, dated=True), clock(made.last_ms, dated=True)
    return f"{first} to {last} UTC ({made.days:.2f} days)"


def _longest(found: list[Span]) -> str:
    ended = [span for span in found if span.resolved_ms is not None]
    if not ended:
        return "none"
    longest = max(ended, key=lambda span: (span.resolved_ms or 0) - span.opened_ms)
    hours = ((longest.resolved_ms or 0) - longest.opened_ms) / 3_600_000
    return f"{hours:.2f} h, {longest.key} at {clock(longest.opened_ms, dated=True)}"


def _report(
    made: Backtest, config: PipelineConfig, operator: DetectOperator, notes: list[str]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"back-test of {config.name}", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in facts(made, operator):
        table.add_row(name, value)
    Console(stderr=True).print(table)
    for line in notes:
        say(line)
    made.account.require(operator)
    for line in made.account.notes(operator):
        say(line)
    spans_ms = [
        last - first for key, (first, last) in made.keys.items() if not operator.covers(key)
    ]
    step_ms = made.window_ms // operator.detector.size or None
    young = still_learning(spans_ms, operator, step_ms=step_ms)
    for note in (young, beyond_memory(operator)):
        if note:
            say(note)
