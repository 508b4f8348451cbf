"""The pipeline as a commented file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.codecs import FieldMap
from connectors.files import BY_ROW
from connectors.files.times import TICK
from jobs.init.items import Items
from jobs.init.look import Look
from jobs.init.measure import Measure
from streamad.config.values import format_duration
from streamad.wording import duration

SILENT_STEPS = 10
"""A series is silent after so many readings that did not come."""
LEAST_SILENCE_MS = 60_000
HOUR_MS = 3_600_000
AHEAD_MS = HOUR_MS // 2
HEADER_WIDTH = 96


def items_text(  # noqa: PLR0913 - what the file is of
    name: str, source: str, topic: str, look: Look, items: Items, *, report: str, gap_ms: int
) -> str:
    """Return the text of a pipeline file for events or edges.

    report : what was looked at; gap_ms : the longest time without a row
    """
    fields, why = items.fields, items.why
    lines = [
        f"# Made by `streamad init` from {report} in {_plain(source)}.",
        *(f"# {_plain(note)}" for note in look.notes),
        f"name: {json.dumps(name)}",
        "",
        "input:",
        f"  topics: {json.dumps(topic)}",
        f"  format: {look.format}",
        f"  records: {items.records}",
        "  fields:",
        f"    # {why['key']}",
        f"    key: {_listed(fields['key'])}",
    ]
    lines += _time(fields)
    for role, value in fields.items():
        if role in ("key", "time", "time_unit") or not value:
            continue
        lines += [f"    # {why[role]}"] if role in why else []
        lines.append(f"    {role}: {_shown(value)}")
    if look.fields is not None and look.fields.rows is not None:
        lines += [
            "    # A message holds its rows in this array.",
            f"    rows: {json.dumps(look.fields.rows)}",
        ]
    lines += [
        "",
        "series:",
        "  # Keep what is known of a key that sends nothing for a month.",
        "  ttl: 30d",
        *_ahead(gap_ms),
        "",
        f"# {why['detector']}",
        f"detector: {items.detector}",
        "",
        *_alerts("key"),
    ]
    return "\n".join(lines)


def _time(fields: Mapping[str, Any]) -> list[str]:
    """Return the lines on the field of times; none where the format brings its own."""
    if "time" not in fields:
        return []
    lines = []
    if fields["time"] == BY_ROW:
        lines.append(
            "    # The file has no times: a row counts as 5 min. Name the field of a topic."
        )
    elif fields["time"].strip().lower() == TICK:
        lines.append("    # Numbers of ticks: each is read as a second.")
    unit = fields["time_unit"]
    return [*lines, f"    time: {json.dumps(fields['time'])}", f"    time_unit: {unit}"]


def pipeline_text(name: str, source: str, topic: str, look: Look, found: Measure) -> str:
    """Return the text of a pipeline file for what was found in a source of signals."""
    lines = [
        f"# Made by `streamad init` from {found.n_rows:,} readings of {found.n_keys:,} series in "
        f"{_plain(source)}.",
        *(f"# {_plain(note)}" for note in look.notes),
        f"name: {json.dumps(name)}",
        "",
        "input:",
        f"  topics: {json.dumps(topic)}",
        f"  format: {look.format}",
        *_fields(look),
        "",
        "series:",
        *_series(found),
        "",
        "windows:",
        *_windows(found),
        "",
        "detector: auto",
        "",
        *_alerts("series"),
    ]
    return "\n".join(lines)


def _ahead(gap_ms: int) -> list[str]:
    """Return how far ahead a row may be, where rows are rarer than the default allows."""
    if gap_ms <= AHEAD_MS:
        return []
    return [
        f"  # Up to {duration(gap_ms)} pass without a row: what comes then is no error.",
        f"  max_ahead: {format_duration(-(-2 * gap_ms // HOUR_MS) * HOUR_MS)}",
    ]


def _alerts(what: str) -> list[str]:
    return [
        "alerts:",
        f"  # An ordinary {what} shows something as rare about once in this time.",
        "  level: 5d",
        "",
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())[:HEADER_WIDTH]


def _fields(look: Look) -> list[str]:
    fields, default = look.fields, FieldMap()
    if fields is None:
        return ["  # Series are named by the metric and its labels; fields.key names others."]
    lines = ["  fields:"]
    if not look.table or fields.key != default.key:
        lines += ["    # What names a series; alerts show it.", f"    key: {_listed(fields.key)}"]
    if not look.table or fields.time != default.time:
        lines.append(f"    time: {json.dumps(fields.time)}")
    lines.append(f"    time_unit: {fields.time_unit}")
    if look.table and fields.values == default.values:
        lines.append(
            "    # Every numeric column is a series; `values: [a, b]` makes one of several."
        )
    else:
        if len(fields.values) > 1:
            lines.append("    # Judged together, as one series; leave out what has no bearing.")
        lines.append(f"    values: {_listed(fields.values)}")
    if fields.rows is not None:
        lines += [
            "    # A message holds its rows in this array.",
            f"    rows: {json.dumps(fields.rows)}",
        ]
    if fields.where:
        shown = _shown(dict(fields.where))
        lines += ["    # Only these rows; others are counted.", f"    where: {shown}"]
    return lines


def _shown(value: str | Mapping[str, str] | Sequence[str]) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        pairs = (f"{_shown(name)}: {_shown(one)}" for name, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    return _listed(value)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(json.dumps(name, ensure_ascii=False) for name in names)}]"


def _series(found: Measure) -> list[str]:
    lines = []
    if found.step_ms:
        how = "nearly always" if found.even else "usually, but not always,"
        lines.append(f"  # Readings of a series are {how} {duration(found.step_ms)} apart. Without")
        lines.append("  # `step` each is a sample; with it, those of one step are put together.")
        lines.append(f"  # step: {format_duration(found.step_ms)}")
        silence = max(SILENT_STEPS * found.step_ms, LEAST_SILENCE_MS)
        if silence < 86_400_000:
            lines += [
                f"  # No data for {SILENT_STEPS} readings is a finding (`no_data`).",
                f"  silence: {format_duration(silence)}",
            ]
            return lines
    return [
        *lines,
        "  # Keep what is known of a series that sends nothing for a month.",
        "  ttl: 30d",
    ]


def _windows(found: Measure) -> list[str]:
    if found.period and found.step_ms:
        after = duration(found.period * found.step_ms)
        lines = [f"  # Most series repeat after {found.period:,} samples ({after})."]
    else:
        lines = ["  # Nothing was found that repeats."]
    return [*lines, f"  size: {found.size}"]
