"""Show an account: a panel for eyes, or JSON for programs."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobs.explain.account import Account
from jobs.explain.window import Around
from streamad.records import Finding, as_dict
from streamad.shown import safe_text
from streamad.wording import both_numbers, clock, number, one_line

BARS = "▁▂▃▄▅▆▇█"
NOT_SCORED = "·"

HEADLINES = {
    "alert": ("part of an alert", "bold red"),
    "finding": ("part of a finding, but no alert", "bold yellow"),
    "silent": ("silent: it sent no data", "bold red"),
    "failing": ("not judged: the detector failed", "bold red"),
    "candidate": ("a candidate, but no finding", "yellow"),
    "suppressed": ("anomalous, but suppressed", "yellow"),
    "ordinary": ("ordinary: no finding, no alert", "green"),
    "not_scored": ("not scored", "dim"),
}


def as_json(account: Account) -> dict[str, Any]:
    """Return an account as plain JSON-ready values; what is not known is null."""
    body: dict[str, Any] = as_dict(account)
    around = body["around"]
    for name in ("score", "level"):
        around[name] = [None if math.isnan(value) else value for value in around[name]]
    return body


def panel(account: Account) -> Panel:
    """Return an account as a panel: verdict, reasons, numbers, and the scores about that time."""
    words, style = HEADLINES[account.outcome]
    title = f"{safe_text(account.key)} · {clock(account.window_end_ms, dated=True)} UTC"
    drawn = " (look at the newest samples)" if account.decided_by == "newest" else ""
    parts = [Text(words, style=style), Text()]
    parts += [Text(f"• {safe_text(reason)}") for reason in account.reasons]
    return Panel(
        Group(*parts, Text(), _facts(account), Text(), *sparkline(account.around, of=drawn)),
        title=Text(title, style="bold"),
        title_align="left",
        expand=False,
    )


def _facts(account: Account) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(account):
        # As texts: a variate's name is no markup.
        table.add_row(Text(safe_text(name), style="dim"), Text(safe_text(value)))
    return table


def _rows(account: Account) -> list[tuple[str, str]]:
    rows = _of_looks(account)
    if account.severity is not None:
        rows.append(("severity", number(account.severity)))
    if account.flags:
        rows.append(("flags", ", ".join(account.flags)))
    if account.finding is not None:
        rows += _of_finding(account.finding)
    return rows


def _of_finding(finding: Finding) -> list[tuple[str, str]]:
    """Return what the nearest finding of the episode says; it need not be of this very window."""
    why, rows = finding.explanation, []
    if why is not None:
        at = clock(why.time_ms)
        if why.text:
            rows.append(("because", one_line(why.text)))
        for name, share in sorted(why.variates.items(), key=lambda item: -item[1]):
            observed, expected = both_numbers(why, name)
            usual = f", expected about {expected}" if name in why.expected else ""
            text = f"{observed} at {at}{usual} ({share:.0%} of the score)"
            rows.append((name, text))
    windows = f"{finding.n_windows} window{'' if finding.n_windows == 1 else 's'}"
    by = f"{finding.detector} {finding.artifact}".strip()
    return [*rows, ("finding", f"{finding.id} ({windows} so far)"), ("scored by", by)]


def _of_looks(account: Account) -> list[tuple[str, str]]:
    looks = [
        ("score", account.score, account.level, account.p_value),
        ("score of newest", account.newest, account.newest_level, account.newest_p),
    ]
    return [
        (name, f"{number(score)} (entry level {number(level)}, p = {p_value:.2g})")
        for name, score, level, p_value in looks
        if score is not None and level is not None and p_value is not None
    ]


def sparkline(around: Around, *, of: str = "") -> list[Text]:
    """Return the scores as bars, red from the level on, with a mark below the window asked for.

    of : which look's scores they are, for the legend; the level stands at half the height of a bar
    """
    levels = [level for level in around.level if math.isfinite(level)]
    known = [score for score in around.score if math.isfinite(score)]
    # Twice the level is as high as a bar goes: beside a spike in full the rest would be flat.
    top = 2 * max(levels, default=0.0) or max(known, default=1.0)
    bars = Text()
    for score, level in zip(around.score, around.level, strict=True):
        bars.append(*_bar(score, level, top))
    mark = Text(" " * around.place + "▲", style="bold")
    first, last = clock(around.end_ms[0]), clock(around.end_ms[-1])
    legend = (
        f"scores of {len(around.score)} windows{of}, {first} to {last} UTC; "
        "the level is at half height"
    )
    return [bars, mark, Text(legend, style="dim")]


def _bar(score: float, level: float, top: float) -> tuple[str, str]:
    if not math.isfinite(score):
        return NOT_SCORED, "dim"
    step = int(max(0.0, min(1.0, score / top if top > 0 else 0.0)) * (len(BARS) - 1) + 0.5)
    return BARS[step], "red" if score >= level else "cyan"
