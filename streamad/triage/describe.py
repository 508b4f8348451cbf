"""What the alerts of a group have in common, in a line that a person can name it by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from streamad.records import Alert
from streamad.shown import safe_text
from streamad.triage.features import DAY_MS, MAX_RATIO, N_NUMBERS, NUMBERS, vector_of
from streamad.wording import duration

MOST: Final = 0.6
"""A property is one of the group if at least so many of its alerts have it."""
MIXED: Final = 0.6
"""Directions of a group, summed, below which neither side is named."""
MAX_SERIES: Final = 3
MAX_TEXT_CHARS: Final = 200
_NIGHTS: Final = 0.75
"""Length of the mean hour, as a point on the clock, from which on a time of day is named."""
_AT: Final = {one.name: at for at, one in enumerate(NUMBERS)}


def describe(alerts: Sequence[Alert], breadths: Sequence[int]) -> str:
    """Return what most alerts of a group share; empty where there is none.

    breadths : as `streamad.triage.features.breadths_of` counts them
    """
    if not alerts:
        return ""
    rows = np.stack([vector_of(one)[:N_NUMBERS] for one in alerts])
    said = [
        _common(one.kind.replace("_", " ") for one in alerts),
        _common(_measured(one) for one in alerts),
        _side(rows),
        f"by {name}" if (name := _common(one.detector for one in alerts)) else "",
        _together(breadths),
        _lasting(alerts),
        _hours([one.began_ms for one in alerts]),
    ]
    return safe_text(", ".join(filter(None, said)), MAX_TEXT_CHARS)


def _common(texts: Iterable[str]) -> str:
    """Return the text that most have, empty where none is that frequent."""
    counted = Counter(texts)
    text, n = min(counted.items(), key=lambda one: (-one[1], one[0]))
    return text if n >= MOST * counted.total() else ""


def _measured(alert: Alert) -> str:
    """Return what an alert is about: the last part of its key, or the parts that stand out."""
    *who, what = alert.entity or {"": ""}
    if who:
        return alert.entity[what]
    shares = {name: share for name, share in alert.explanation.items() if math.isfinite(share)}
    largest = sorted(shares, key=lambda name: (-shares[name], name))[:MAX_SERIES]
    return " and ".join(sorted(largest))


def _side(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    direction = float(rows[:, _AT["direction"]].mean())
    if abs(direction) < MIXED:
        return ""
    ratio = float(np.median(rows[:, _AT["ratio"]]))
    if abs(ratio) >= 0.9 * MAX_RATIO:
        return "far above what is expected" if direction > 0 else "far below what is expected"
    side = "above" if direction > 0 else "below"
    times = math.exp(abs(ratio))
    # A negative number may be above what is expected and smaller in size.
    if times < 1.05 or (ratio > 0) != (direction > 0):
        return f"{side} what is expected"
    return f"about {math.exp(ratio):.2g} times what is expected"


def _together(breadths: Sequence[int]) -> str:
    n = int(np.median(breadths)) if len(breadths) else 1
    return f"{n} at a time" if n > 1 else ""


def _lasting(alerts: Sequence[Alert]) -> str:
    middle = int(np.median([max(one.until_ms - one.began_ms, 0) for one in alerts]))
    return f"for about {duration(middle)}" if middle >= 1_000 else ""


def _hours(began_ms: Sequence[int]) -> str:
    angles = 2j * np.pi * (np.array(began_ms, np.float64) % DAY_MS) / DAY_MS
    mean = complex(np.exp(angles).mean())
    if len(began_ms) < 5 or abs(mean) < _NIGHTS:
        return ""
    hour = (np.angle(mean) / (2 * np.pi) * 24) % 24
    return f"at about {round(float(hour)) % 24:02d}:00 UTC"
