"""Open incidents by what links to them: a flood costs microseconds per alert.

Nothing here is saved: all of it follows from the members of the open incidents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from streamad.incidents import Affected
from streamad.paging.incidents.links import Mark

ENDLESS_MS: Final = 2**62
MarksOf = Callable[[str, Affected], tuple[Mark, ...]]


@dataclass(slots=True)
class Spot:
    """The members of one incident under one mark, and the time they span.

    members : began, until (endless while open) by alert; ``stale`` after one was taken out
    """

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    began_ms: int = ENDLESS_MS
    until_ms: int = -ENDLESS_MS
    n_open: int = 0
    stale: bool = False

    def put(self, alert: str, began_ms: int, until_ms: int) -> None:
        """Enter a member, or what became of it."""
        known = self.members.get(alert)
        self.members[alert] = began_ms, until_ms
        if known is not None:
            self.n_open -= known[1] == ENDLESS_MS
            self.stale |= known[1] == ENDLESS_MS != until_ms
        self.n_open += until_ms == ENDLESS_MS
        self.began_ms = min(self.began_ms, began_ms)
        self.until_ms = max(self.until_ms, until_ms)

    def drop(self, alert: str) -> None:
        """Take a member out."""
        _, until_ms = self.members.pop(alert)
        self.n_open -= until_ms == ENDLESS_MS
        self.stale = True

    def meets(self, began_ms: int, until_ms: int, gap_ms: int) -> bool:
        """Return whether it was there at a time, but for a gap."""
        if self.stale:
            self.began_ms = min(began for began, _ in self.members.values())
            self.until_ms = max(until for _, until in self.members.values())
            self.stale = False
        return self.began_ms - gap_ms <= until_ms and began_ms <= self.until_ms + gap_ms


@dataclass(slots=True)
class Tally:
    """What is asked of an incident with every alert, without going through its members."""

    members: dict[str, Affected] = field(default_factory=dict)
    n_open: int = 0
    peak: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    detectors: Counter[str] = field(default_factory=Counter)
    weakest: str | None = None
    """The member that makes room for a stronger one, where it is known."""


class OpenIndex:
    """Which open incidents have a member under a mark."""

    def __init__(self, marks_of: MarksOf) -> None:
        self._marks_of = marks_of
        self._spots: dict[Mark, dict[str, Spot]] = {}
        self._marks: dict[str, tuple[Mark, ...]] = {}
        self._tallies: dict[str, Tally] = {}

    def tally(self, incident: str) -> Tally:
        """Return what is known of an incident's members as a whole."""
        return self._tallies.get(incident) or Tally()

    def at(self, mark: Mark) -> Iterator[tuple[str, Spot]]:
        """Yield the incidents with members under a mark."""
        yield from self._spots.get(mark, {}).items()

    def put(self, incident: str, tenant: str, member: Affected) -> None:
        """Enter a member of an incident, or what became of it."""
        tally = self._tallies.setdefault(incident, Tally())
        known = tally.members.get(member.alert)
        if known is None:
            self._marks[member.alert] = self._marks_of(tenant, member)
            tally.kinds[member.kind] += 1
            tally.detectors[member.detector] += 1
        tally.n_open += member.open - (known is not None and known.open)
        tally.peak = max(tally.peak, member.peak_severity)
        if known is None or member.alert == tally.weakest:
            tally.weakest = None
        tally.members[member.alert] = member
        span = member.began_ms, ENDLESS_MS if member.open else member.until_ms
        if known is not None and (known.began_ms, known.until_ms, known.open) == (
            member.began_ms, member.until_ms, member.open
        ):  # fmt: skip
            return
        for mark in self._marks[member.alert]:
            self._spots.setdefault(mark, {}).setdefault(incident, Spot()).put(member.alert, *span)

    def drop(self, incident: str, alert: str) -> None:
        """Take a member out of an incident."""
        tally = self._tallies[incident]
        member = tally.members.pop(alert)
        for mark in self._marks.pop(alert):
            spots = self._spots[mark]
            spots[incident].drop(alert)
            if not spots[incident].members:
                del spots[incident]
                if not spots:
                    del self._spots[mark]
        tally.n_open -= member.open
        tally.weakest = None
        if member.peak_severity >= tally.peak:
            tally.peak = max((one.peak_severity for one in tally.members.values()), default=0.0)
        for counted, name in ((tally.kinds, member.kind), (tally.detectors, member.detector)):
            counted[name] -= 1
            if not counted[name]:
                del counted[name]

    def forget(self, incident: str) -> None:
        """Take an incident out."""
        for alert in list(self.tally(incident).members):
            self.drop(incident, alert)
        self._tallies.pop(incident, None)
