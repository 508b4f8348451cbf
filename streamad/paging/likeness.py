"""Whether an incident is like one that was dismissed before.

What is compared is the shape of the alert that leads it: which detector, which variates, above or
below, how far beyond the boundary, at which hour of the day. Not its moment, nor its exact values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streamad.records import Alert, Part

ALIKE: Final = 0.6
"""Traits at least so similar (0 to 1) count as alike."""
MAX_REMEMBERED: Final = 32
"""Dismissed ones that are remembered of a group."""
MAX_VARIATES: Final = 8
MAX_NAME_CHARS: Final = 80
HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24
OTHER_SERIES: Final = 0.8
"""How much alike of another series is."""


def traits_of(alert: Alert) -> dict[str, Any]:
    """Return what an alert is like, as JSON-ready values."""
    largest = sorted(alert.explanation.items(), key=lambda item: (-item[1], item[0]))
    names = [name for name, share in largest[:MAX_VARIATES] if share > 0]
    return {
        "kind": alert.kind,
        "detector": alert.detector,
        "key": alert.key[:MAX_NAME_CHARS],
        "shares": {name[:MAX_NAME_CHARS]: round(alert.explanation[name], 3) for name in names},
        "above": {
            name[:MAX_NAME_CHARS]: sign
            for name in names
            if (sign := _direction(alert.observed.get(name), alert.expected.get(name)))
        },
        "size": round(alert.peak_severity, 3) if math.isfinite(alert.peak_severity) else 0.0,
        "hour": alert.began_ms // HOUR_MS % DAY_HOURS,
    }


def n_alike(traits: Mapping[str, Any], dismissed: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of those dismissed are like this one; what is damaged is like nothing."""
    return sum(_similarity(traits, one) >= ALIKE for one in dismissed)


def _similarity(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how alike two traits are, 0 to 1."""
    try:
        return similarity(one, other)
    except (KeyError, TypeError, ValueError, AttributeError):
        return 0.0


def similarity(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how alike two traits are, 0 to 1; raises KeyError or TypeError for what is none.

    The cosine of the variates' shares, times the part of it that goes the same way, times the root
    of the ratio of sizes; the hour of the day and another series take away a part.
    """
    if (one["kind"], one["detector"]) != (other["kind"], other["detector"]):
        return 0.0
    sizes = sorted((max(one["size"], 0.1), max(other["size"], 0.1)))
    apart = abs(one["hour"] - other["hour"]) % DAY_HOURS
    apart = min(apart, DAY_HOURS - apart)
    alike: float = (
        _cosine(one["shares"], other["shares"])
        * _same_way(one, other)
        * math.sqrt(sizes[0] / sizes[1])
        * (1.0 - 0.25 * min(apart / 6, 1.0))
        * (1.0 if one["key"] == other["key"] else OTHER_SERIES)
    )
    return alike


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    if not one and not other:
        return 1.0
    length = math.hypot(*one.values()) * math.hypot(*other.values())
    return (
        sum(share * other.get(name, 0.0) for name, share in one.items()) / length if length else 0
    )


def _same_way(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the share of the variates that go the same way, of those that both know."""
    both = {name: one["shares"].get(name, 0.0) for name in one["above"] if name in other["above"]}
    total = float(sum(both.values()))
    if not total:
        return 1.0
    same = (share for name, share in both.items() if one["above"][name] == other["above"][name])
    return float(sum(same)) / total


def _direction(observed: Part | None, expected: Part | None) -> int:
    if (
        isinstance(observed, str)
        or isinstance(expected, str)
        or observed is None
        or expected is None
    ):
        return 0
    return (observed > expected) - (observed < expected)
