"""Ticks that people read: round numbers, and round moments in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
STEPS_MS = (
    *(n * SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR for n in (1, 2, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 7, 14, 28, 91, 182, 364, 1820)),
)
UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def value_ticks(low: float, high: float, *, most: int = 4) -> list[float]:
    """Return round values from ``low`` to ``high``.

    Examples
    --------
    >>> value_ticks(0.0, 103.0), value_ticks(-0.02, 0.013)
    ([0.0, 50.0, 100.0], [-0.02, -0.01, 0.0, 0.01])
    """
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low] if math.isfinite(low) else []
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * magnitude for m in (1, 2, 5, 10, 20) if span / (m * magnitude) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12 - math.floor(math.log10(step))) for n in range(first, last + 1)]


def shown_value(value: float) -> str:
    """Return a value as it stands beside an axis.

    Examples
    --------
    >>> [shown_value(v) for v in (0.0, 0.25, 1500.0, 2.5e9, 1e-7, -40.0)]
    ['0', '0.25', '1.5k', '2.5G', '1e-07', '-40']
    """
    for factor, unit in UNITS:
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def time_ticks(first_ms: int, last_ms: int, *, most: int = 8) -> list[tuple[int, str]]:
    """Return round moments between two, each with its text; a day is named where it begins.

    Examples
    --------
    >>> [text for _, text in time_ticks(1_772_355_600_000, 1_772_391_600_000, most=4)]
    ['09:00', '12:00', '15:00', '18:00']
    """
    step = next((s for s in STEPS_MS if (last_ms - first_ms) / s <= most), STEPS_MS[-1])
    ticks = range(-(-first_ms // step) * step, last_ms + 1, step)
    return [(tick, _shown(tick, step)) for tick in ticks]


def _shown(time_ms: int, step: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    if step >= 91 * DAY:
        return moment.strftime("%b %Y")
    if time_ms % DAY == 0:
        return moment.strftime("%d %b").lstrip("0")
    return moment.strftime("%H:%M:%S" if step < MINUTE else "%H:%M")


def row_ticks(n_rows: int, row_ms: int) -> list[tuple[int, str]]:
    """Return round numbers of rows, where a row is all that is known of time."""
    return [
        (int(tick) * row_ms, f"row {int(tick):,}")
        for tick in value_ticks(0, n_rows, most=8)
        if tick == int(tick)
    ]
