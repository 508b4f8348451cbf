"""Silences, of the alerting file or given while the desk runs, against the page of an incident.

An incident is silent if each of its alerts is: an alert that no silence is about pages for all.
A silence counts for an alert while it is in force, and for an alert whose event lies in it as a
whole: such an event is often found a little later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from streamad.alerting.matchers import SEVERITY, Matcher, fits, parse_matchers
from streamad.alerting.times import SilenceConfig, Times
from streamad.incidents import ALL_TENANTS, Affected
from streamad.paging.notes import SILENCE
from streamad.paging.state import DeskState, Life

SILENCED: Final = "silence"
MAX_REMEMBERED: Final = 100_000
"""Alerts of which it is remembered which silences match: matchers are looked at once an alert."""


class InForce(Protocol):
    """What knows its times."""

    def active(self, at_ms: int) -> bool:
        """Say whether it is in force at a time."""
        ...


@dataclass(frozen=True, slots=True)
class _Silence:
    """A silence; tenant : the one it is of, None: of all; levels : matchers on the severity."""

    name: str
    matchers: tuple[Matcher, ...]
    levels: tuple[Matcher, ...]
    times: InForce
    tenant: str | None = None

    @classmethod
    def of(
        cls, name: str, matchers: Sequence[str], times: InForce, tenant: str | None = None
    ) -> _Silence:
        parsed = parse_matchers(tuple(matchers))
        return cls(
            name=name,
            matchers=tuple(one for one in parsed if one.name != SEVERITY),
            levels=tuple(one for one in parsed if one.name == SEVERITY),
            times=times,
            tenant=tenant,
        )

    def holds(self, member: Affected, now_ms: int) -> bool:
        times = self.times
        within = times.active(now_ms) or (
            times.active(member.began_ms) and times.active(member.until_ms)
        )
        # Asked each time: an alert that grows beyond a silence of lesser ones pages.
        return within and fits(self.levels, member)


@dataclass(slots=True)
class _Known:
    """What a state's silences are, and which of them match an alert."""

    version: tuple[tuple[str, int], ...]
    silences: list[_Silence]
    matching: dict[str, tuple[_Silence, ...]] = field(default_factory=dict)


class Silences:
    """The silences of an alerting file, and those in the state of a desk."""

    def __init__(self, configs: Sequence[SilenceConfig]) -> None:
        self._own = [_Silence.of(one.name, one.matchers, Times(one)) for one in configs]

    def against(self, state: DeskState, life: Life) -> str:
        """Return ``silence: NAME`` where all alerts of an incident are silent, else nothing."""
        known = self._known(state)
        if not known.silences:
            return ""
        tenant, now_ms = life.last.tenant, state.clock_ms
        for member in life.members.values():
            if not _name_of(known, member, tenant, now_ms):
                return ""
        name = _name_of(known, life.members[life.last.leader], tenant, now_ms)
        # The name of a ledger's line must not hold a slash: it parts the line from its series.
        return f"{SILENCED}: {name.replace('/', ' ')}"

    def _known(self, state: DeskState) -> _Known:
        version = tuple((name, note["at_ms"]) for name, note in state.notes_of(SILENCE))
        known = state.scratch.get(SILENCED)
        if not isinstance(known, _Known) or known.version != version:
            given = [
                _Silence.of(
                    str(note["name"]),
                    tuple(map(str, note["matchers"])),
                    _Once(note["starts_ms"], note["ends_ms"]),
                    None if note["tenant"] == ALL_TENANTS else str(note["tenant"]),
                )
                for _, note in state.notes_of(SILENCE)
            ]
            known = state.scratch[SILENCED] = _Known(version, [*self._own, *given])
        return known


class _Once:
    """One span of time."""

    def __init__(self, starts_ms: int, ends_ms: int) -> None:
        self._starts_ms, self._ends_ms = starts_ms, ends_ms

    def active(self, at_ms: int) -> bool:
        """Say whether it is in force at a time."""
        return self._starts_ms <= at_ms < self._ends_ms


def _name_of(known: _Known, member: Affected, tenant: str, now_ms: int) -> str:
    """Return the name of the silence of an alert, empty where it has none."""
    matching = known.matching.get(member.alert)
    if matching is None:
        if len(known.matching) >= MAX_REMEMBERED:
            known.matching.clear()
        matching = known.matching[member.alert] = tuple(
            one
            for one in known.silences
            if one.tenant in (None, tenant) and fits(one.matchers, member)
        )
    return next((one.name for one in matching if one.holds(member, now_ms)), "")
