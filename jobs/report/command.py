"""``streamad backtest --report``: measure a replay, show it as a table, write it as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from jobs.console import displayable, say, status
from jobs.offline.backtest import FLAP_WINDOWS as FLAPS
from jobs.offline.backtest import Backtest, count_flaps, spans
from jobs.offline.backtest_command import Asked, Outputs
from jobs.offline.readiness import beyond_memory, still_learning
from jobs.offline.replay import Part, is_file
from jobs.report.budgets import Budgets
from jobs.report.labels import Labels, find_label
from jobs.report.measure import Inputs, measure
from jobs.report.page import page
from jobs.report.pictures import Pictures
from jobs.report.records import Report
from jobs.report.table import budget_table, calibration_table
from jobs.report.watch import MOST_ROWS, MOST_WINDOWS, Watch
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator, Position
from streamad.records import SignalBatch
from streamad.wording import clock

SHORT_WEEKS = 2.0


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Watch a replay for its report, and write that.

    reading : the pipeline as its input is read, with the column of labels
    """

    operator: DetectOperator
    source: str
    files: Sequence[Path]
    alerting: AlertingConfig
    reading: PipelineConfig
    budgets: Budgets
    labels: Labels | None = None
    watch: Watch = field(default_factory=Watch)

    @classmethod
    def of(
        cls,
        operator: DetectOperator,
        source: str,
        *,
        asked: Asked,
        files: Outputs,
        alerting: AlertingConfig | None,
    ) -> Reporter | None:
        """Return what writes the reports that are asked for; None: there are none."""
        config = operator.config
        if not files.reports:
            if asked.label is not None:
                msg = "--label is for --report, which compares pages with labels; give both"
                raise ConfigError(msg)
            return None
        column = asked.label
        if is_file(source):
            column = find_label(Path(source), config, asked.label)
        labels = None if column is None else Labels(column)
        return cls(
            operator=operator,
            source=Path(source).name if is_file(source) else source,
            files=files.reports,
            alerting=alerting or AlertingConfig.of(config),
            reading=config if labels is None else labels.asked(config),
            budgets=Budgets(operator, alerting=alerting),
            labels=labels,
        )

    def parts(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield input as the pipeline reads it; labels stay here."""
        return parts if self.labels is None else self.labels.taken(parts, self.operator.config)

    def take(self, batch: SignalBatch, out: DetectOutput, at: Position) -> None:
        """Take a batch and what was made of it."""
        self.watch.take(batch, out, at)
        self.budgets.take(batch, out, at)

    def report(self, made: Backtest) -> Report:
        """Return the report of a replay."""
        with status("deciding at several budgets"):
            tried = self.budgets.tried(made.findings, made.decided, end_ms=made.last_ms)
        anomalies = marked = None
        if self.labels is not None and self.labels.n_filled:
            anomalies = self.labels.anomalies(begin_ms=made.first_ms, end_ms=made.last_ms)
            marked = self.labels.marked
        return measure(
            Inputs(
                made=made,
                watch=self.watch,
                tried=tried,
                config=self.operator.config,
                source=self.source,
                soak_ms=self.alerting.budget.soak,
                gap_ms=self.alerting.incidents.gap,
                artifact=self.operator.artifact,
                degraded=self.operator.degraded,
                label=None if anomalies is None or self.labels is None else self.labels.column,
                anomalies=anomalies,
                marked=marked,
                notes=tuple(self._notes(made)),
            )
        )

    def write(self, made: Backtest) -> None:
        """Print the table and write the files."""
        from rich.console import Console

        report = self.report(made)
        console = Console(stderr=True)
        console.print(budget_table(report))
        if report.calibration:
            console.print(calibration_table(report))
        for note in report.notes:
            say(note)
        for path in self.files:
            if path.suffix == ".json":
                text = orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n"
            else:
                rows, variates = self.watch.rows, self.operator.config.input.columns
                pictures = Pictures(rows, variates, self.operator.config.input.records)
                text = page(report, pictures.of(report, window_ms=made.window_ms))
            path.write_text(text, encoding="utf-8")
            say(f"report written to {path}")

    def _notes(self, made: Backtest) -> Iterator[str]:
        weeks = made.days / 7
        if 0 < weeks < SHORT_WEEKS:
            yield (
                f"the replay is {made.days:.1f} days long: rates per week are rough, and a budget "
                "learns from four weeks"
            )
        if self.labels is not None and not self.labels.n_filled:
            yield f"--label {self.labels.column}: no row has a value there, so nothing is compared"
        if self.watch.n_windows > MOST_WINDOWS:
            yield (
                f"calibration is of the first {MOST_WINDOWS:,} of {self.watch.n_windows:,} windows"
            )
        if self.watch.n_rows > MOST_ROWS:
            yield f"pictures are of the first {MOST_ROWS:,} of {self.watch.n_rows:,} rows"
        if self.operator.degraded:
            yield f"a fallback judged: {self.operator.degraded}"


# ------------------------------------------------------------------ what every back-test prints


def facts(made: Backtest, operator: DetectOperator) -> list[tuple[str, str]]:
    """Return the report as lines of a name and a value."""
    found = spans(made.alerts)
    per_day = len(found) / made.days if made.days else 0.0
    name, limited = operator.detector.info.name, made.counts["withheld"]
    return [
        ("detector", f"{name} ({operator.degraded})" if operator.degraded else name),
        ("points", f"{made.counts['points']:,} of {len(made.keys):,} keys"),
        ("from, to", _range(made)),
        ("windows", f"{made.counts['windows']:,}, {made.counts['incomplete']:,} incomplete"),
        ("rejected, late", f"{made.account.rejected.total():,}, {made.counts['late']:,}"),
        ("alerts", f"{len(found):,}: {per_day:.2f} per day"),
        ("pages", _pages(made)),
        *([("not sent", f"{limited:,} (alerts.limit)")] if limited else []),
        ("flaps", f"{count_flaps(found, within_ms=FLAPS * made.window_ms):,}"),
        ("longest", _longest(made)),
        ("still open", f"{sum(span.resolved_ms is None for span in found):,}"),
    ]


def print_facts(made: Backtest, operator: DetectOperator, notes: Sequence[str]) -> None:
    """Print what a replay found, and what was not judged; raise where nothing was."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"back-test of {operator.config.name}", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in facts(made, operator):
        table.add_row(name, displayable(value))
    Console(stderr=True, markup=False).print(table)
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


def _pages(made: Backtest) -> str:
    last = {record.id: record for record in made.decided.incidents}
    pages = sum(record.paged_ms is not None for record in last.values())
    per_week = 7 * pages / made.days if made.days else 0.0
    held = len(last) - pages
    noun = "incident" if held == 1 else "incidents"
    left = f"; {held:,} {noun} did not page" if held else ""
    return f"{pages:,}: {per_week:.1f} per week{left}"


def _range(made: Backtest) -> str:
    if made.first_ms is None or made.last_ms is None:
        return "nothing"
    first, last = clock(made.first_ms, dated=True), clock(made.last_ms, dated=True)
    return f"{first} to {last} UTC ({made.days:.2f} days)"


def _longest(made: Backtest) -> str:
    ended = [span for span in spans(made.alerts) if span.resolved_ms is not None]
    if not ended:
        return "none"
    longest = max(ended, key=lambda span: (span.resolved_ms or 0) - span.opened_ms)
    hours = ((longest.resolved_ms or 0) - longest.opened_ms) / 3_600_000
    return f"{hours:.2f} h, {longest.key} at {clock(longest.opened_ms, dated=True)}"
