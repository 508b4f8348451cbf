"""The report in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from jobs.report.records import PROMISES, Report
from streamad.shown import safe_text
from streamad.wording import duration


def budget_table(report: Report) -> Table:
    """Return a row for each budget: what was asked, what came, what was withheld, what it found."""
    n = report.n_anomalies
    labelled = report.configured.found is not None
    title = f"pages of {safe_text(report.pipeline, 60)} at several budgets"
    if labelled:
        title += f"; {n:,} labelled anomal{'y' if n == 1 else 'ies'}"
    table = Table(title=title, title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("budget", no_wrap=True)
    more = ["found", "false pages", "after"] if labelled else ["flaps"]
    for name in ("per week", "pages", "withheld", *more):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report.outcomes:
        cells = [f"{one.per_week:.1f}", f"{one.pages:,}",
                 f"{sum(one.withheld.values()):,}"]  # fmt: skip
        if one.found is None:
            cells.append(f"{one.flaps:,}")
        else:
            cells += [str(one.found), str(one.false_pages), after(one.delay_ms)]
        shown = Text(one.name + (" (configured)" if one.configured else ""))
        table.add_row(shown, *cells, style="bold" if one.configured else None)
    return table


def after(delay_ms: int | None) -> str:
    """Return how long something took to page.

    >>> after(None), after(0), after(90_000)
    ('-', 'at once', '1 min 30 s')
    """
    if delay_ms is None:
        return "-"
    return duration(delay_ms) if delay_ms else "at once"


def share(seen: float) -> str:
    """Return a small share with the digits that it has.

    >>> share(0.0437), share(0.0007), share(0.0)
    ('4.37%', '0.07%', '0%')
    """
    return f"{100 * seen:.3g}%" if seen < 0.9995 else "100%"


def calibration_table(report: Report) -> Table:
    """Return how often windows were as rare as promised."""
    table = Table(title="how often a window is as rare as promised", title_style="bold", box=None)
    for name in ("windows", "number", *(f"p < {promise:g}" for promise in PROMISES)):
        table.add_column(name, justify="left" if name == "windows" else "right")
    for one in report.calibration:
        table.add_row(f"{one.of}, {one.look}", f"{one.windows:,}", *map(share, one.seen))
    return table
