"""The records of one alert put together: how it opened, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamad.records import Alert
from streamad.triage.features import Vector, breadths_of, vectors_of

MAX_STORIES: Final = 100_000
"""Alerts that are looked at; the oldest go where there are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The first and the last record of an alert; the same one where only one is kept."""

    first: Alert
    last: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Stories:
    """Alerts as raw vectors ``(n, N_FEATURES)``: as they opened, and as a whole."""

    alerts: Sequence[Alert]
    breadths: Sequence[int]
    opening: Vector
    whole: Vector

    def __len__(self) -> int:
        return len(self.alerts)


def stories_of(records: Iterable[Alert]) -> list[Story]:
    """Return alerts by their records, in the order they began; records may come in any order."""
    first: dict[str, Alert] = {}
    last: dict[str, Alert] = {}
    for one in records:
        if one.id not in first or one.sequence < first[one.id].sequence:
            first[one.id] = one
        if one.id not in last or one.sequence > last[one.id].sequence:
            last[one.id] = one
    made = [Story(first=first[name], last=one) for name, one in last.items()]
    made.sort(key=lambda story: (story.first.began_ms, story.last.id))
    return made[-MAX_STORIES:]


def vectors_of_stories(stories: Sequence[Story]) -> Stories:
    """Return alerts with their vectors, in the order given."""
    opened = [story.first for story in stories]
    breadths = breadths_of(opened)
    ended = [story.last for story in stories]
    return Stories(
        alerts=ended,
        breadths=breadths,
        opening=vectors_of(opened, breadths),
        whole=vectors_of(ended, breadths),
    )


def evenly(n: int, most: int) -> list[int]:
    """Return at most ``most`` of ``n`` positions, evenly spread."""
    return [int(at) for at in np.unique(np.linspace(0, n - 1, min(n, most)).round())]
