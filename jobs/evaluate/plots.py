"""The pictures of an evaluation: figures with intervals, and series with scores and alerts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.pictures.axes import shown_value, value_ticks
from streamad.evaluation.intervals import Interval
from streamad.shown import safe_text

WIDTH, LEFT, RIGHT, ROW = 900, 170, 70, 26
INNER = WIDTH - LEFT - RIGHT
VALUES, STRIP = 90, 30
COLUMNS = 600
MAX_NAME = 26
STYLE = """
.chart{display:block;width:100%;height:auto} .chart text{font:13px system-ui,sans-serif;
fill:var(--ink)} .chart .quiet{fill:var(--dim)} .chart .grid{stroke:var(--rule)}
.chart .zero{stroke:var(--dim);stroke-dasharray:4 3} .chart .span{stroke:var(--page);
stroke-width:3;stroke-linecap:round} .chart .dot{fill:var(--page)} .chart .chance{
stroke:var(--over);stroke-width:3} .chart .plain .span{stroke:var(--held)} .chart .plain .dot{
fill:var(--held)} .chart .line{fill:none;stroke:var(--page);stroke-width:1.1}
.chart .score{fill:var(--page);fill-opacity:.55} .chart .label{fill:#e0a100;fill-opacity:.35}
.chart .alert{fill:var(--bad);fill-opacity:.85} .chart .open{stroke:var(--bad);stroke-width:2}
.chart .train{fill:var(--soft)} .chart .base{stroke:var(--rule)}
.k-label{background:#e0a100} .k-alert{background:var(--bad)} .k-chance{background:var(--over)}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure of one detector; plain : it is a baseline; mark : another figure, as a tick."""

    name: str
    interval: Interval
    plain: bool
    mark: float | None = None


def intervals(rows: Sequence[Row], *, zero: bool = False) -> str:
    """Return a chart with a dot and an interval per detector.

    zero : draw the line of no difference, and signs
    """
    known = [row for row in rows if math.isfinite(row.interval.value)]
    if not known:
        return '<p class="dim">No series has an anomaly after its training part.</p>'
    low, high = _ends(known, zero=zero)
    height = ROW * len(known) + 30
    parts = []
    for tick in value_ticks(low, high, most=6):
        x = _x(tick, low, high)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 24}"/>'
            f'<text class="quiet" x="{x:.1f}" y="{height - 6}" text-anchor="middle">'
            f"{shown_value(tick)}</text>"
        )
    if zero:
        x = _x(0.0, low, high)
        parts.append(f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 24}"/>')
    for at, row in enumerate(known):
        parts.append(_row(row, ROW * at + ROW / 2 + 4, low, high, sign=zero))
    return _chart(height, parts)


def _ends(rows: Sequence[Row], *, zero: bool) -> tuple[float, float]:
    values = [v for row in rows for v in (*row.interval[:3], row.mark) if v is not None]
    values = [v for v in values if math.isfinite(v)] + [0.0]
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.5
    return (low - room if zero or low < 0 else 0.0), high + room


def _x(value: float, low: float, high: float) -> float:
    return LEFT + INNER * (value - low) / (high - low)


def _row(row: Row, y: float, low: float, high: float, *, sign: bool) -> str:
    value, begin, end, n = row.interval
    at = _x(value, low, high)
    parts = [
        f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{_name(row.name)}</text>',
        f'<circle class="dot" cx="{at:.1f}" cy="{y:.1f}" r="5"/>',
    ]
    if math.isfinite(begin):
        left, right = _x(begin, low, high), _x(end, low, high)
        parts.insert(
            1,
            f'<line class="span" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
        )
    if row.mark is not None and math.isfinite(row.mark):
        x = _x(row.mark, low, high)
        parts.append(
            f'<line class="chance" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}"/>'
        )
    shown = f"{value:+.3f}" if sign else f"{value:.3f}"
    parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 4:.1f}">{shown}</text>')
    known = f" ({begin:.3f} to {end:.3f})" if math.isfinite(begin) else ""
    title = f"<title>{_name(row.name)}: {shown}{known}, {n} series</title>"
    kind = ' class="plain"' if row.plain else ""
    return f"<g{kind}>{title}{''.join(parts)}</g>"


# ------------------------------------------------------------------ series


def series_picture(
    values: NDArray[np.float64],
    labels: NDArray[np.bool_],
    traces: Mapping[str, Mapping[str, Any]],
    *,
    train_end: int,
) -> str:
    """Return a series with its labels, and below it a strip per detector: score and alerts.

    values, labels : ``(n,)``; traces : of each detector, as `run` keeps them
    """
    n = len(values)
    height = VALUES + 8 + len(traces) * (STRIP + 8) + 20
    parts = []
    if train_end:
        parts.append(
            f'<rect class="train" x="{LEFT}" y="0" width="{INNER * train_end / n:.1f}" '
            f'height="{height - 20}"/>'
        )
    edges = np.flatnonzero(np.diff(labels.astype(np.int8), prepend=0, append=0))
    for begin, end in edges.reshape(-1, 2).tolist():
        left, wide = _span(begin, end - 1, n)
        parts.append(
            f'<rect class="label" x="{left:.1f}" y="0" width="{wide:.1f}" height="{height - 20}">'
            f"<title>labelled: rows {begin:,} to {end - 1:,}</title></rect>"
        )
    parts.append(_values(values))
    for at, (name, trace) in enumerate(traces.items()):
        parts.append(_strip(name, trace, VALUES + 8 + at * (STRIP + 8), n))
    for tick in value_ticks(0, n - 1, most=8):
        x = LEFT + INNER * tick / n
        parts.append(
            f'<text class="quiet" x="{x:.1f}" y="{height - 4}" text-anchor="middle">'
            f"{tick:,.0f}</text>"
        )
    return _chart(height, parts)


def _span(begin: int, end: int, n: int, least: float = 2.0) -> tuple[float, float]:
    left = LEFT + INNER * begin / n
    wide = max(INNER * (end + 1 - begin) / n, least)
    return min(left, LEFT + INNER - wide), wide


def _values(values: NDArray[np.float64]) -> str:
    """Return the line, of each column the least and the greatest value: no spike is lost."""
    known = np.isfinite(values)
    if not known.any():
        return ""
    low, high = float(values[known].min()), float(values[known].max())
    columns = np.arange(len(values)) * COLUMNS // len(values)
    starts = np.flatnonzero(np.diff(columns[known], prepend=-1))
    lows = np.minimum.reduceat(values[known], starts)
    highs = np.maximum.reduceat(values[known], starts)
    xs = LEFT + INNER * (columns[known][starts] + 0.5) / COLUMNS
    room = high - low or 1.0
    points = [
        f"{x:.1f},{4 + (VALUES - 8) * (1 - (value - low) / room):.1f}"
        for x, a, b in zip(xs.tolist(), lows.tolist(), highs.tolist(), strict=True)
        for value in ((a,) if a == b else (a, b))
    ]
    ends = "".join(
        f'<text class="quiet" x="{LEFT - 8}" y="{y}" text-anchor="end">{shown_value(v)}</text>'
        for v, y in ((high, 14), (low, VALUES - 4))
    )
    return f'{ends}<polyline class="line" points="{" ".join(points)}"/>'


def _strip(name: str, trace: Mapping[str, Any], top: int, n: int) -> str:
    """Return a detector's score as an area, its alerts as bars, and a tick where each opened."""
    bottom, score = top + STRIP, trace["score"]
    wide = INNER / max(len(score), 1)
    steps = "".join(
        f"M{LEFT + at * wide:.1f} {bottom}v{-(STRIP - 8) * value / 99:.1f}h{wide:.2f}V{bottom}z"
        for at, value in enumerate(score)
        if value
    )
    parts = [
        f'<text x="{LEFT - 12}" y="{bottom - 4}" text-anchor="end">{_name(name)}</text>',
        f'<line class="base" x1="{LEFT}" x2="{LEFT + INNER}" y1="{bottom}" y2="{bottom}"/>',
        f'<path class="score" d="{steps}"/>',
    ]
    for opened, first, last in trace["alerts"]:
        left, width = _span(first, last, n, least=3.0)
        x = LEFT + INNER * opened / n
        parts.append(
            f'<rect class="alert" x="{left:.1f}" y="{top}" width="{width:.1f}" height="5">'
            f"<title>{_name(name)}: rows {first:,} to {last:,}, opened at {opened:,}</title></rect>"
            f'<line class="open" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + 12}"/>'
        )
    return "".join(parts)


def _name(text: str) -> str:
    return escape(safe_text(text, MAX_NAME))


def _chart(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'
    )
