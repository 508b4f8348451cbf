"""Values of a pipeline file that people write with a unit: durations, sizes, how rare something is.

Durations are written ``300ms``, ``10s``, ``5m``, ``2h``, ``7d``; a bare number is refused, because
nobody remembers which unit it was.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


def parse_duration(value: Any) -> int:
    """Return milliseconds for ``"10s"`` and the like.

    Examples
    --------
    >>> parse_duration("1.5m")
    90000
    """
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return round(float(match[1]) * _UNITS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    msg = f"expected a duration such as 500ms, 10s, 5m, 2h or 7d, got {value!r}"
    raise ValueError(msg)


def format_duration(value_ms: int) -> str:
    """Return a duration as it is written in a pipeline file, in its largest whole unit.

    Examples
    --------
    >>> format_duration(90_000), format_duration(300), format_duration(86_400_000)
    ('90s', '300ms', '1d')
    """
    unit, length = next(u for u in reversed(_UNITS.items()) if value_ms % u[1] == 0)
    return f"{value_ms // length}{unit}" if value_ms else "0s"


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _DURATION.pattern}, {"const": 0}],
            "description": "A duration such as 500ms, 10s, 5m, 2h or 7d.",
        },
        mode="validation",
    ),
]


_SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)\s*$")


def parse_size(value: Any) -> int:
    """Return bytes for ``"4GiB"`` and the like.

    Examples
    --------
    >>> parse_size("1.5KiB")
    1536
    """
    if isinstance(value, str) and (match := _SIZE.match(value)):
        return round(float(match[1]) * _SIZES[match[2]])
    msg = f"expected a size such as 512MiB or 4GiB, got {value!r}"
    raise ValueError(msg)


def format_size(value: int) -> str:
    """Return a size as it is written in a pipeline file, in its largest whole unit.

    Examples
    --------
    >>> format_size(4 * 2**30), format_size(1536), format_size(1500)
    ('4GiB', '1536B', '1500B')
    """
    unit, size = next(u for u in reversed(_SIZES.items()) if value % u[1] == 0)
    return f"{value // size}{unit}"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _SIZE.pattern,
            "description": "A size such as 512MiB or 4GiB.",
        },
        mode="validation",
    ),
]
Probability = Annotated[float, Field(gt=0, lt=1)]


def _parse_level(value: Any) -> Any:
    if isinstance(value, str) and not _NUMBER.match(value):
        period = parse_duration(value)
        if period < 1000:
            msg = f"expected a return period of at least 1s, got {value!r}"
            raise ValueError(msg)
        return period
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(value, bool) or not 0 < share < 1:
        msg = (
            "expected how rare it must be: a return period such as 7d, or the probability of a "
            f"window, above 0 and below 1, got {value!r}"
        )
        raise ValueError(msg)
    return share


def write_level(value: float) -> Any:
    """Return how rare something is as a pipeline file writes it."""
    return format_duration(value) if isinstance(value, int) else value


_NUMBER = re.compile(r"^\s*[-+0-9.eE]+\s*$")
Rarity = Annotated[
    int | float,
    BeforeValidator(_parse_level),
    PlainSerializer(write_level, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"{_DURATION.pattern}|{_NUMBER.pattern}"},
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ],
            "description": "A return period such as 7d, or a probability between 0 and 1.",
        },
        mode="validation",
    ),
]
"""How rare something is: a return period (int, milliseconds) or a window's probability (float)."""

MAX_PAGES = 10_000.0
_PAGES = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:per|/|a)\s*(day|week|month)\s*$")
_WEEKS = {"day": 7.0, "week": 1.0, "month": 7 / 30.4375}


def parse_pages(value: Any) -> Any:
    """Return pages a week for ``"10 per week"``.

    Examples
    --------
    >>> parse_pages("10 per week"), parse_pages("2 per day")
    (10.0, 14.0)
    """
    if isinstance(value, float) and 0 < value <= MAX_PAGES:
        return value
    if isinstance(value, str) and (match := _PAGES.match(value)):
        pages = float(match[1]) * _WEEKS[match[2]]
        if 0 < pages <= MAX_PAGES:
            return pages
    msg = (
        "expected a number of pages in a time, such as '10 per week' or '2 per day', above 0 and "
        f"at most {MAX_PAGES:,.0f} a week, got {value!r}"
    )
    raise ValueError(msg)


def format_pages(value: float) -> str:
    """Return a budget as it is written.

    Examples
    --------
    >>> format_pages(10.0)
    '10 per week'
    """
    return f"{value:g} per week"


Pages = Annotated[
    float,
    BeforeValidator(parse_pages),
    PlainSerializer(format_pages, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _PAGES.pattern,
            "description": "Pages in a time, such as '10 per week'.",
        },
        mode="validation",
    ),
]
"""A number of pages a week."""
