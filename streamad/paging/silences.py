"""Silences, of the alerting file or given while the desk runs, against the page of an incident.

An incident is silent if each of its alerts is: an alert that no silence is about pages for all.
A silence counts for an alert while it is in force, and for an alert whose event lies in it as a
whole: such an event is often found a little later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamad.paging.matchers import Matcher, fits, parse_matchers
from streamad.paging.notes import SILENCE
from streamad.paging.records import Affected
from streamad.paging.state import DeskState, Life
from streamad.paging.times import SilenceConfig, Times

SILENCED = "silence"


class InForce(Protocol):
    """What knows its times."""

    def active(self, at_ms: int) -> bool:
        """Say whether it is in force at a time."""
        ...


Named = tuple[str, tuple[Matcher, ...], InForce]


class Silences:
    """The silences of an alerting file, and those in the state of a desk."""

    def __init__(self, configs: Sequence[SilenceConfig]) -> None:
        self._own: list[Named] = [
            (one.name, parse_matchers(one.matchers), Times(one)) for one in configs
        ]

    def against(self, state: DeskState, life: Life) -> str:
        """Return ``silence: NAME`` where all alerts of an incident are silent, else nothing."""
        given: list[Named] = [
            (str(note["name"]), _matchers(note), _Once(note["starts_ms"], note["ends_ms"]))
            for _, note in state.notes_of(SILENCE)
            if note["ends_ms"] > life.last.began_ms and note.get("tenant") == life.last.tenant
        ]
        every = [*self._own, *given]
        if not every:
            return ""
        names = [_of(every, member, state.clock_ms) for member in life.members.values()]
        if not all(names):
            return ""
        name = _of(every, life.members[life.last.leader], state.clock_ms)
        # The name of a ledger's line must not hold a slash: it parts the line from its series.
        return f"{SILENCED}: {name.replace('/', ' ')}"


class _Once:
    """One span of time."""

    def __init__(self, starts_ms: int, ends_ms: int) -> None:
        self._starts_ms, self._ends_ms = starts_ms, ends_ms

    def active(self, at_ms: int) -> bool:
        """Say whether it is in force at a time."""
        return self._starts_ms <= at_ms < self._ends_ms


def _of(silences: Sequence[Named], member: Affected, now_ms: int) -> str:
    """Return the name of the silence of an alert, empty where it has none."""
    for name, matchers, times in silences:
        if not fits(matchers, member):
            continue
        if times.active(now_ms) or (
            times.active(member.began_ms) and times.active(member.until_ms)
        ):
            return name
    return ""


def _matchers(note: dict[str, object]) -> tuple[Matcher, ...]:
    given = note["matchers"]
    return parse_matchers(tuple(map(str, given)) if isinstance(given, list) else ())
