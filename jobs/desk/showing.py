"""Alerts and incidents as lines of text. Whatever came from outside is made safe to show."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from connectors.records.cloudevents import Record
from streamad.incidents import Digest, Feedback, Incident
from streamad.records import Alert, Part
from streamad.shown import safe_json, safe_text
from streamad.wording import clock, duration, number

ID_CHARS = 8
MAX_CELL_CHARS = 200


def out(lines: Iterable[str]) -> None:
    """Write lines to standard output, at once: somebody may be following."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def json_line(record: Record | dict[str, Any]) -> str:
    """Return a record as one line of JSON that a terminal does not obey."""
    given = record if isinstance(record, dict) else asdict(record)
    return safe_json(orjson.dumps(given, option=orjson.OPT_NON_STR_KEYS).decode())


def line(record: Record) -> str:
    """Return one line about a record: when, what, how severe, and its summary."""
    if isinstance(record, Digest):
        return f"{clock(record.to_ms, dated=True)}  {'digest':<10}      {_safe(record.summary)}"
    if not isinstance(record, Alert | Incident):
        return f"{'':19}  {type(record).__name__.lower():<10}"
    word = record.state if isinstance(record, Alert) else status(record)
    when = clock(record.time_ms, dated=True)
    name = _safe(record.id, 64)[:ID_CHARS]
    rank = severity(record.severity)
    return f"{when}  {_safe(word, 24):<10} {rank:>4}  {_safe(record.summary)}  [{name}]"


def status(incident: Incident) -> str:
    """Return what became of an incident in a word or two.

    A verdict says more than that somebody has seen it, and a page more than that it is open.
    """
    if incident.state == "resolved":
        return "resolved"
    if incident.verdict or incident.acknowledged:
        return (incident.verdict or "acknowledged").replace("_", " ")
    if incident.withheld:
        return f"withheld: {incident.withheld}"
    return "paged" if incident.paged_ms is not None else incident.state


def severity(value: float) -> str:
    """Return a severity as it is shown: one digit, ``-`` where nothing is known."""
    return "-" if value != value else f"{value:.1f}"  # noqa: PLR0124 - NaN


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the last column is as wide as it likes.

    Examples
    --------
    >>> table(["id", "what"], [["3f2a", "web-1 is slow"]])
    ['id    what', '3f2a  web-1 is slow']
    """
    safe = [[_safe(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[at]) for row in safe) for at in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in safe
    ]


def listed(incidents: Sequence[Incident]) -> list[str]:
    """Return a table of incidents."""
    return table(
        ["id", "since (UTC)", "severity", "status", "alerts", "summary"],
        [
            [
                one.id[:ID_CHARS],
                clock(one.began_ms, dated=True),
                severity(one.severity),
                status(one),
                f"{one.n_open}/{one.n_members}",
                one.summary,
            ]
            for one in incidents
        ],
    )


def told(
    incident: Incident,
    alerts: dict[str, Alert],
    answers: Sequence[Feedback],
    similar: Sequence[Incident],
) -> list[str]:
    """Return all there is to say of an incident."""
    lines = [_safe(incident.summary), "", *facts(incident)]
    if incident.causes:
        lines += ["", "Probable causes, the most probable first:"]
        lines += table(
            ["", "what", "why"],
            [[str(n), one.entity, one.reason] for n, one in enumerate(incident.causes, 1)],
        )
    lines += ["", f"Alerts ({incident.n_members}, open {incident.n_open}):"]
    lines += table(
        ["id", "began (UTC)", "severity", "detector", "series", "summary"],
        [
            [
                one.alert[:ID_CHARS],
                clock(one.began_ms, dated=True),
                severity(one.peak_severity) + ("" if one.open else ", over"),
                one.detector,
                one.key,
                one.summary,
            ]
            for one in incident.members
        ],
    )
    if incident.leader in alerts:
        lines += explained(alerts[incident.leader])
    if answers:
        lines += ["", "Answers:"]
        lines += table(
            ["when (UTC)", "by", "verdict", "comment"],
            [
                [clock(one.time_ms, dated=True), one.by, one.verdict.replace("_", " "), one.comment]
                for one in answers
            ],
        )
    if similar:
        lines += ["", "Similar ones in the past:", *listed(similar)]
    return lines


def facts(incident: Incident) -> list[str]:
    """Return what is known of an incident as a whole."""
    until = "still open"
    if incident.resolved_ms is not None:
        lasted = duration(max(incident.until_ms - incident.began_ms, 0))
        until = f"over since {clock(incident.until_ms, dated=True)} UTC, after {lasted}"
    page = f"withheld: {incident.withheld}" if incident.withheld else "not sent"
    if incident.paged_ms is not None:
        page = f"sent {clock(incident.paged_ms, dated=True)} UTC"
        page += ", overdrawn" if incident.overdrawn else ""
    found = {
        "incident": incident.id,
        "group": ", ".join(incident.groups),
        "pipelines": ", ".join(incident.pipelines),
        "entity": ", ".join(f"{k}={v}" for k, v in incident.entity.items()),
        "began": f"{clock(incident.began_ms, dated=True)} UTC, {until}",
        "severity": f"{severity(incident.severity)} {incident.level}".rstrip(),
        "evidence": f"{incident.strength:.1f} decades; the boundary is {incident.threshold:.1f}",
        "page": page,
        "answered": " ".join(filter(None, [incident.verdict, incident.acknowledged])),
        **{f"link {name}": link for name, link in incident.links.items()},
    }
    return table(["", ""], [[name, value] for name, value in found.items() if value])[1:]


def explained(alert: Alert) -> list[str]:
    """Return what of an alert was observed, expected, and how much it has to do with it."""
    names = sorted(alert.explanation, key=lambda name: (-(alert.explanation[name] or 0.0), name))
    if not names:
        return []
    rows = [
        [
            name,
            shown(alert.observed.get(name)),
            shown(alert.expected.get(name)),
            f"{100 * (alert.explanation[name] or 0.0):.0f} %",
        ]
        for name in names[:20]
    ]
    return [
        "",
        f"Why ({_safe(alert.key)}):",
        *table(["part", "observed", "expected", "share"], rows),
    ]


def shown(part: Part | None) -> str:
    """Return a value of an explanation; ``-`` where nothing is known."""
    if part is None or part != part:  # noqa: PLR0124 - NaN
        return "-"
    return part if isinstance(part, str) else number(part)


def _safe(text: str, limit: int = MAX_CELL_CHARS) -> str:
    return safe_text(text, limit)
