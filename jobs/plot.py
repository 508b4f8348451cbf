"""Series and alerts as a picture: plain SVG, no dependency, opens anywhere."""

from __future__ import annotations

from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.backtest import Backtest, Span, spans
from streamad.config import PipelineConfig
from streamad.operators.wording import clock

WIDTH, HEIGHT, LEFT, TOP, GAP = 1_000, 120, 160, 30, 24
MAX_KEYS = 20
"""Rows of the picture: the keys with most alerts."""
COLOURS = ("#2f6fb0", "#3a8f5c", "#8a63b8", "#b07b2f", "#4d9aa8", "#9a4f7d")


def draw(made: Backtest, config: PipelineConfig, *, as_html: bool) -> str:
    """Return a picture: one row a key, its series, and a red band wherever an alert was open."""
    found = spans(made.alerts)
    keys = _chosen_keys(made, found)
    height = TOP + len(keys) * (HEIGHT + GAP) + 20
    body = [_row(made, found, key, TOP + i * (HEIGHT + GAP)) for i, key in enumerate(keys)]
    title = escape(f"{config.name}: {len(found)} alerts, {config.detector.name}")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="8" y="18" font-size="14" font-weight="bold">{title}</text>'
        f"{''.join(body)}{_axis(made, height)}</svg>"
    )
    if not as_html:
        return svg + "\n"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<body style="margin:0">{svg}</body></html>\n'
    )


def _chosen_keys(made: Backtest, found: list[Span]) -> list[str]:
    counts = dict.fromkeys(sorted(made.keys), 0)
    for span in found:
        counts[span.key] = counts.get(span.key, 0) + 1
    return sorted(counts, key=lambda key: -counts[key])[:MAX_KEYS]


def _row(made: Backtest, found: list[Span], key: str, top: int) -> str:
    time_ms, values = _series(made, key)
    label = escape(key if len(key) <= 22 else key[:21] + "…")
    parts = [f'<text x="8" y="{top + 14}">{label}</text>']
    parts += [_band(made, span, top) for span in found if span.key == key]
    for variate in range(values.shape[1] if len(values) else 0):
        colour = COLOURS[variate % len(COLOURS)]
        points = _line(made, time_ms, values[:, variate], top)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1"/>'
        )
    parts.append(
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" '
        f'stroke="#cccccc"/>'
    )
    return "".join(parts)


def _series(made: Backtest, key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    times, values = [], []
    for batch in made.points:
        own = np.flatnonzero((batch.keys == key).to_numpy())
        times.append(batch.time_ms[own])
        values.append(batch.values[own])
    if not times:
        return np.empty(0, np.int64), np.empty((0, 0))
    return np.concatenate(times), np.concatenate(values)


def _x(made: Backtest, time_ms: NDArray[np.int64] | int) -> NDArray[np.float64]:
    first, last = made.first_ms or 0, made.last_ms or 1
    share = (np.asarray(time_ms) - first) / max(last - first, 1)
    return np.asarray(LEFT + WIDTH * np.clip(share, 0.0, 1.0))


def _band(made: Backtest, span: Span, top: int) -> str:
    end = made.last_ms if span.resolved_ms is None else span.resolved_ms
    left, right = float(_x(made, span.opened_ms)), float(_x(made, end or 0))
    when = clock(span.opened_ms, dated=True)
    told = escape(f"{when} UTC: {span.summary} (peak {span.peak_severity:.1f})")
    return (
        f'<rect x="{left:.1f}" y="{top}" width="{max(right - left, 2):.1f}" height="{HEIGHT}" '
        f'fill="#d64545" fill-opacity="0.3"><title>{told}</title></rect>'
    )


def _line(made: Backtest, time_ms: NDArray[np.int64], values: NDArray[np.float64], top: int) -> str:
    """Return points of least and greatest value a pixel, so that no spike is lost."""
    known = np.isfinite(values)
    if not known.any():
        return ""
    low, high = float(values[known].min()), float(values[known].max())
    scale = (HEIGHT - 10) / (high - low) if high > low else 0.0
    frame = pl.DataFrame(
        {
            "x": np.floor(_x(made, time_ms[known])),
            "y": top + HEIGHT - 5 - (values[known] - low) * scale,
        }
    )
    thin = frame.group_by("x", maintain_order=True).agg(low=pl.min("y"), high=pl.max("y")).sort("x")
    pairs = [
        f"{x:.0f},{y:.1f}" for x, a, b in thin.iter_rows() for y in ((a,) if a == b else (a, b))
    ]
    return " ".join(pairs)


def _axis(made: Backtest, height: int) -> str:
    if made.first_ms is None or made.last_ms is None:
        return ""
    ticks = np.linspace(made.first_ms, made.last_ms, 5).astype(np.int64).tolist()
    anchors = ("start", "middle", "middle", "middle", "end")
    return "".join(
        f'<text x="{float(_x(made, tick)):.0f}" y="{height - 8}" text-anchor="{anchor}" '
        f'fill="#666666">{clock(tick, dated=True)}</text>'
        for tick, anchor in zip(ticks, anchors, strict=True)
    )
