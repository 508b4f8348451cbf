"""A window of one series, small enough to stand beside a sentence: what was, and what was expected.

No script, no style sheet of its own: colours are the page's (``currentColor``) and fixed ones that
are read on light and on dark.
"""

from __future__ import annotations

from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.pictures.axes import shown_value
from streamad.shown import safe_text
from streamad.wording import clock

WIDTH, HEIGHT = 300, 60
_EDGE = 4
_LINE, _BAND, _EXPECTED = "#2f7fd0", "#d64545", "#3a9f6c"
MAX_NAME_CHARS = 120


def sparkline(
    time_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    event_ms: tuple[int, int],
    expected: float | None = None,
    name: str = "",
) -> str:
    """Return an SVG of 300 x 60 with the anomalous part as a band; empty where nothing is known.

    time_ms : int64 ``(n,)``, ascending; values : ``(n,)``, NaN where nothing was measured;
    event_ms : first and last time of the anomalous part; expected : the value there, drawn as a
    dashed line; name : of the series, for who reads the page by ear

    Examples
    --------
    >>> at = np.arange(3) * 1000
    >>> sparkline(at, np.array([1.0, 9.0, 1.0]), event_ms=(1000, 1000), name="<cpu>")[:57]
    '<svg xmlns="http://www.w3.org/2000/svg" class="spark" wid'
    >>> sparkline(at, np.full(3, np.nan), event_ms=(0, 0))
    ''
    """
    known = np.isfinite(values)
    if not known.any():
        return ""
    shown = values[known]
    ends = [float(shown.min()), float(shown.max())]
    if expected is not None and np.isfinite(expected):
        ends.append(expected)
    low, high = min(ends), max(ends)
    first, last = int(time_ms[0]), int(time_ms[-1])

    def x_of(ms: NDArray[np.int64]) -> NDArray[np.float64]:
        share = (ms - first) / max(last - first, 1)
        return np.asarray(_EDGE + (WIDTH - 2 * _EDGE) * np.clip(share, 0.0, 1.0))

    def y_of(value: NDArray[np.float64]) -> NDArray[np.float64]:
        share = (value - low) / (high - low) if high > low else np.full(np.shape(value), 0.5)
        return np.asarray(HEIGHT - _EDGE - (HEIGHT - 2 * _EDGE) * share)

    left, right = x_of(np.array(event_ms)).tolist()
    wide = max(right - left, 3.0)
    parts = [
        f'<rect x="{min(left, WIDTH - wide):.1f}" y="0" width="{wide:.1f}" height="{HEIGHT}" '
        f'fill="{_BAND}" fill-opacity=".25"/>'
    ]
    if expected is not None and np.isfinite(expected):
        y = float(y_of(np.array([expected]))[0])
        parts.append(
            f'<line x1="{max(left - 12, 0):.1f}" x2="{min(left + wide + 12, WIDTH):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}" stroke="{_EXPECTED}" stroke-width="1.5" '
            'stroke-dasharray="4 2"/>'
        )
    line = _line(x_of(time_ms[known]), y_of(shown))
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="1.3" '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )
    title = _title(name, (low, high), expected, event_ms)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="spark" width="{WIDTH}" '
        f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>'
        f"{''.join(parts)}</svg>"
    )


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Return points, of each pixel the least and the greatest: no spike is lost."""
    if len(x) == 1:
        return f"{x[0] - 1:.1f},{y[0]:.1f} {x[0] + 1:.1f},{y[0]:.1f}"
    if len(x) <= WIDTH:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    frame = pl.DataFrame({"x": np.floor(x), "y": y, "at": np.arange(len(x))})
    thin = (
        frame.group_by("x")
        .agg(
            low=pl.min("y"), high=pl.max("y"),
            falls=pl.col("y").arg_min() > pl.col("y").arg_max(),
        )
        .sort("x")
    )  # fmt: skip
    points = [
        f"{a:.0f},{b:.1f}"
        for a, low, high, falls in thin.iter_rows()
        for b in ((low,) if low == high else (high, low) if falls else (low, high))
    ]
    return " ".join(points)


def _title(
    name: str, span: tuple[float, float], expected: float | None, event_ms: tuple[int, int]
) -> str:
    low, high = map(shown_value, span)
    text = f"{safe_text(name, MAX_NAME_CHARS)}: {low} to {high}"
    if expected is not None and np.isfinite(expected):
        text += f", expected about {shown_value(expected)}"
    text += f"; anomalous {clock(event_ms[0], dated=True)} to {clock(event_ms[1], dated=True)} UTC"
    return escape(text)
