"""Words that explanations of edges share: numbers and spans as a person reads them."""

from __future__ import annotations

from streamad.shown import safe_text

MAX_NAME_CHARS = 120
_UNITS = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "min"), (1_000, "s"))


def shown(name: str | None) -> str:
    """Return a node's name as one short line that a terminal shows and does not obey."""
    return safe_text(name, MAX_NAME_CHARS) if name else "(no name)"


def number(value: float) -> str:
    """Return a count or a mean with as many digits as matter.

    >>> [number(x) for x in (0.0004, 1.3333, 42.0, 65009.5)]
    ['0.0004', '1.3', '42', '65,010']
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.3g}"


def plural(count: int, noun: str) -> str:
    """Return ``1 target``, ``2 targets``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def span(length_ms: int) -> str:
    """Return a length of time in its largest unit.

    >>> [span(ms) for ms in (250, 1_000, 120_000, 5_400_000, 518_400_000)]
    ['250 ms', '1 s', '2 min', '90 min', '6 days']
    """
    for unit_ms, name in _UNITS:
        # Below two of a unit the smaller one is more exact: 90 min, not 1 hour.
        least = 1 if name in {"min", "s"} else 2
        if length_ms >= least * unit_ms:
            count = round(length_ms / unit_ms)
            return plural(count, name) if name in {"day", "hour"} else f"{count} {name}"
    return f"{max(length_ms, 0)} ms"
