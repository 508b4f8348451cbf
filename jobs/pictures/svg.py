"""A picture as SVG, alone or in a page: no script, no dependency, dark on a dark screen."""

from __future__ import annotations

from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.pictures.axes import row_ticks, shown_value, time_ticks, value_ticks
from jobs.pictures.panels import Band, Panel, Picture
from streamad.shown import safe_text
from streamad.wording import clock

WIDTH, LEFT, RIGHT = 1_000, 70, 20
TOP, TITLE, VALUES, SEVERITY, GAP, BOTTOM = 58, 20, 130, 36, 26, 34
PANEL = TITLE + VALUES + SEVERITY + GAP
MOST_SEVERE = 4.0
"""Severities beyond are drawn at the upper edge."""
MAX_TITLE_CHARS = 110

STYLE = """
text{font:12px system-ui,sans-serif;fill:#1c2330} .dim{fill:#697386} .name{font-weight:600}
.title{font-size:16px;font-weight:600} .page{fill:#fff} .frame{fill:none;stroke:#c4cbd6}
.grid{stroke:#e6eaf0} .band{fill:#d64545;fill-opacity:.22} .label{fill:#e0a100}
.severity{fill:#d64545;fill-opacity:.55} .level{stroke:#d64545;stroke-dasharray:4 3}
.expected{stroke-width:1.5;stroke-dasharray:5 3} polyline{fill:none;stroke-width:1.1}
@media (prefers-color-scheme:dark){text{fill:#e6e9ef} .dim{fill:#98a2b3} .frame{stroke:#475063}
.grid{stroke:#2a3140} .page{fill:#161b24} body{background:#161b24}}
"""
_SWATCH = ' y="38" height="10"'
COLOURS = ("#2f7fd0", "#3a9f6c", "#9a73c8", "#c08b2f", "#4daab8", "#b05f8d")


def draw(picture: Picture, *, as_html: bool) -> str:
    """Return a picture: a panel a series with its values, severity, alerts and labels."""
    height = TOP + len(picture.panels) * PANEL + BOTTOM
    title = escape(safe_text(picture.title, MAX_TITLE_CHARS))
    body = [_panel(picture, panel, TOP + i * PANEL) for i, panel in enumerate(picture.panels)]
    whole = LEFT + WIDTH + RIGHT
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" role="img">'
        f"<title>{title}</title><style>{STYLE}</style>"
        f'<rect class="page" width="100%" height="100%"/>'
        f'<text class="title" x="12" y="26">{title}</text>{_legend(picture)}'
        f"{_times(picture, height)}{''.join(body)}</svg>"
    )
    if not as_html:
        return svg + "\n"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><body style="margin:0">{svg}</body>'
        "</html>\n"
    )


def _legend(picture: Picture) -> str:
    parts, x = [], 12
    shown = [
        (name, f'fill="{COLOURS[i % len(COLOURS)]}"') for i, name in enumerate(picture.variates)
    ]
    if len(shown) == 1:
        # The name of a lone variate is that of its series; what was counted has no other place.
        name = shown[0][0] if " per " in shown[0][0] else "value"
        shown = [(name, shown[0][1])]
    shown += [("alert", 'class="band"'), ("severity (1.0: alert level)", 'class="severity"')]
    if any(panel.labels for panel in picture.panels):
        shown.append(("labelled", 'class="label"'))
    if any(band.expected for panel in picture.panels for band in panel.bands):
        shown.append(("expected", f'class="expected" height="0.1" stroke="{COLOURS[0]}" y="43"'))
    for name, look in shown:
        text = safe_text(name, 40)
        parts.append(
            f'<rect x="{x}" width="12" {look}{_SWATCH if "height" not in look else ""}/>'
            f'<text class="dim" x="{x + 15}" y="47">{escape(text)}</text>'
        )
        x += 32 + 7 * len(text)
    if picture.left_out:
        parts.append(
            f'<text class="dim" x="{LEFT + WIDTH}" y="47" text-anchor="end">'
            f"{picture.left_out:,} other series are not drawn</text>"
        )
    return "".join(parts)


def _panel(picture: Picture, panel: Panel, top: int) -> str:
    upper, lower = top + TITLE, top + TITLE + VALUES
    known = panel.values[np.isfinite(panel.values)]
    expected = [value for band in panel.bands for value in band.expected.values()]
    low, high = _range(
        [*known[[known.argmin(), known.argmax()]].tolist(), *expected] if len(known) else []
    )
    n = len(panel.bands)
    count = f"{n} alert{'' if n == 1 else 's'}"
    parts = [
        f'<text class="name" x="{LEFT}" y="{top + 13}">{escape(safe_text(panel.key, 90))}</text>',
        f'<text class="dim" x="{LEFT + WIDTH}" y="{top + 13}" text-anchor="end">{count}</text>',
        *(_tick(value, _y(value, low, high, upper)) for value in value_ticks(low, high)),
    ]
    for begin, end in panel.labels:
        left, right = _x(picture, begin), _x(picture, end)
        parts.append(
            f'<rect class="label" x="{left:.1f}" y="{upper}" width="{max(right - left, 2):.1f}" '
            f'height="5"><title>labelled {clock(begin, dated=True)} to {clock(end, dated=True)} UTC'
            "</title></rect>"
        )
    parts += [_band(picture, panel, band, top, low, high) for band in panel.bands]
    for variate in range(panel.values.shape[1]):
        colour = COLOURS[variate % len(COLOURS)]
        line = _line(picture, panel.time_ms, panel.values[:, variate], (low, high), upper)
        parts.append(f'<polyline points="{line}" stroke="{colour}"/>')
    parts.append(_severity(picture, panel, lower))
    height = VALUES + SEVERITY
    parts.append(f'<rect class="frame" x="{LEFT}" y="{upper}" width="{WIDTH}" height="{height}"/>')
    return "".join(parts)


def _range(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def _y(value: float, low: float, high: float, upper: int) -> float:
    return upper + VALUES * (1 - (value - low) / (high - low))


def _x(picture: Picture, time_ms: int) -> float:
    return float(_xs(picture, np.array([time_ms]))[0])


def _xs(picture: Picture, time_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    first, last = picture.span
    share = (time_ms - first) / max(last - first, 1)
    return np.asarray(LEFT + WIDTH * np.clip(share, 0.0, 1.0))


def _tick(value: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="dim" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown_value(value)}'
        "</text>"
    )


def _band(picture: Picture, panel: Panel, band: Band, top: int, low: float, high: float) -> str:
    end = picture.span[1] if band.end_ms is None else band.end_ms
    left, right = _x(picture, band.begin_ms), _x(picture, end)
    wide = max(right - left, 3)
    text = f"{clock(band.begin_ms, dated=True)} UTC, peak severity {band.severity:.1f}: {band.text}"
    parts = [
        f'<rect class="band" x="{left:.1f}" y="{top + TITLE}" width="{wide:.1f}" '
        f'height="{VALUES + SEVERITY}"><title>{escape(safe_text(text, 400))}</title></rect>'
    ]
    for variate, name in enumerate(picture.variates[: panel.values.shape[1]]):
        if (value := band.expected.get(name)) is not None and np.isfinite(value):
            y = _y(value, low, high, top + TITLE)
            colour = COLOURS[variate % len(COLOURS)]
            parts.append(
                f'<line class="expected" stroke="{colour}" x1="{left - 4:.1f}" '
                f'x2="{left + wide + 4:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
    return "".join(parts)


def _line(
    picture: Picture,
    time_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    span: tuple[float, float],
    upper: int,
) -> str:
    """Return points of least and greatest value a pixel, so that no spike is lost."""
    known = np.isfinite(values)
    low, high = span
    frame = pl.DataFrame(
        {
            "x": np.floor(_xs(picture, time_ms[known])),
            "y": upper + VALUES * (1 - (values[known] - low) / (high - low)),
        }
    )
    thin = frame.group_by("x", maintain_order=True).agg(low=pl.min("y"), high=pl.max("y")).sort("x")
    pairs = [
        f"{x:.0f},{y:.1f}" for x, a, b in thin.iter_rows() for y in ((a,) if a == b else (a, b))
    ]
    return " ".join(pairs)


def _severity(picture: Picture, panel: Panel, top: int) -> str:
    """Return the greatest severity a pixel as an area under the values, and the alert level."""
    bottom, known = top + SEVERITY, np.isfinite(panel.severity)
    level = bottom - SEVERITY / MOST_SEVERE
    parts = [
        f'<line class="frame" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{top}" y2="{top}"/>',
        f'<line class="level" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{level:.1f}" y2="{level:.1f}"/>',
        f'<text class="dim" x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">1.0</text>',
    ]
    if known.any():
        heights = np.clip(panel.severity[known], 0, MOST_SEVERE) * (SEVERITY / MOST_SEVERE)
        frame = pl.DataFrame({"x": np.floor(_xs(picture, panel.end_ms[known])), "h": heights})
        thin = frame.group_by("x").agg(pl.max("h")).filter(pl.col("h") > 0.2).sort("x")
        steps = "".join(
            f"M{x:.0f},{bottom}v{-height:.1f}h1v{height:.1f}z" for x, height in thin.iter_rows()
        )
        parts.append(f'<path class="severity" d="{steps}"/>')
    return "".join(parts)


def _times(picture: Picture, height: int) -> str:
    if not picture.panels:
        return f'<text class="dim" x="{LEFT}" y="{TOP + 16}">no series was judged</text>'
    first, last = picture.span
    if picture.row_ms:
        ticks = row_ticks(last // picture.row_ms, picture.row_ms)
    else:
        ticks = time_ticks(first, last)
    parts = []
    bottom = height - BOTTOM
    for time_ms, text in ticks:
        x = _x(picture, time_ms)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + TITLE}" y2="{bottom}" '
            f'opacity=".6"/><text class="dim" x="{x:.1f}" y="{bottom + 4}" '
            f'text-anchor="middle">{text}</text>'
        )
    if not picture.row_ms:
        begin, end = clock(first, dated=True), clock(last, dated=True)
        parts.append(f'<text class="dim" x="{LEFT}" y="{bottom + 22}">{begin} to {end} UTC</text>')
    return "".join(parts)
