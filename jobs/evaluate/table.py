"""An evaluation in a terminal: how scores rank, and what alerts are worth."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from jobs.evaluate.summary import Line, Summary
from streamad.evaluation.alerts import PROMISES
from streamad.evaluation.intervals import Interval
from streamad.shown import safe_text
from streamad.wording import duration


def print_summary(summary: Summary, console: Console) -> None:
    """Print the tables."""
    console.print(ranking_table(summary))
    console.print(alerts_table(summary))


def ranking_table(summary: Summary) -> Table:
    """Return the measures of scores, the best first, and differences from the reference."""
    table = _table(
        f"how well scores rank: mean over series; compared with {safe_text(summary.reference, 30)}",
        "detector", "series", "VUS-PR", "95 %", "differs", "VUS-ROC", "AUC-PR", "AUC-ROC",
    )  # fmt: skip
    for line in summary.lines:
        head = line.measures["vus_pr"]
        table.add_row(
            safe_text(line.detector, 40), str(line.labelled), share(head.value), bounds(head),
            difference(line.differences.get("vus_pr")),
            *(share(line.measures[m].value) for m in ("vus_roc", "auc_pr", "auc_roc")),
        )  # fmt: skip
    return table


def alerts_table(summary: Summary) -> Table:
    """Return what alerts are worth, in the same order."""
    n = summary.anomalies
    length = f"{summary.weeks:,.1f} weeks" if summary.weeks else "no times"
    table = _table(
        f"what alerts are worth: {n:,} {'anomaly' if n == 1 else 'anomalies'}, {length}",
        "detector", "found", "chance", "after", "per week", "false/week", "right", "NAB",
        f"p<{PROMISES[1]:g}",
    )  # fmt: skip
    for line in summary.lines:
        table.add_row(
            safe_text(line.detector, 40), share(line.found.value), share(line.by_chance),
            after(line), number(line.per_week.value), number(line.false_per_week.value),
            share(line.right.value), number(line.nab["standard"], 1),
            percent(line.below[1]) if line.below else "-",
        )  # fmt: skip
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(
        title=title, title_style="bold", title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left", no_wrap=True)
    return table


def share(value: float) -> str:
    """Return a figure of 0 .. 1.

    >>> share(0.5612), share(float("nan"))
    ('.561', '-')
    """
    if not math.isfinite(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def percent(value: float) -> str:
    """Return a share in per cent.

    >>> percent(0.0012), percent(0.0)
    ('0.12%', '0%')
    """
    return f"{100 * value:.2g}%"


def number(value: float, digits: int = 2) -> str:
    """Return a figure with so many digits behind the point; "-" where it is not known."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def bounds(interval: Interval) -> str:
    """Return the bounds of an interval.

    >>> bounds(Interval(0.5, 0.4, 0.6, 9))
    '.400 to .600'
    """
    if not math.isfinite(interval.low):
        return "-"
    return f"{share(interval.low)} to {share(interval.high)}"


def difference(interval: Interval | None) -> str:
    """Return a difference, marked where its interval does not hold 0.

    >>> difference(Interval(-0.1, -0.2, -0.05, 9)), difference(Interval(0.01, -0.1, 0.1, 9))
    ('-.100 *', '+.010  ')
    """
    if interval is None or not math.isfinite(interval.value):
        return "  "
    sure = math.isfinite(interval.low) and not interval.low <= 0 <= interval.high
    sign = "+" if interval.value >= 0 else "-"
    return f"{sign}{share(abs(interval.value))} {'*' if sure else ' '}"


def after(line: Line) -> str:
    """Return how long after its begin an anomaly is found: in time where there are times."""
    if line.delay_ms is not None:
        sign = "-" if line.delay_ms < 0 else ""
        return sign + duration(int(abs(line.delay_ms))) if line.delay_ms else "at once"
    return "-" if line.delay_rows is None else f"{line.delay_rows:.0f} rows"
