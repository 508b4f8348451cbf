"""An incident that comes and goes is one that flaps: one incident, one page, and a count.

A series flaps once its incidents have opened ``flapping.times`` times within ``flapping.within``.
The incident that opens last is marked: it takes the alerts of its series as they come back, counts
them, and is over only once it was quiet for that long.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamad.alerting.config import IncidentsConfig
from streamad.incidents import Affected
from streamad.paging.notes import FLAPS
from streamad.paging.state import DeskState, Life

MAX_KEY_CHARS: Final = 1_024


class Flapping:
    """Tell incidents that come and go from those that come once."""

    def __init__(self, config: IncidentsConfig) -> None:
        self._gap_ms = config.gap
        self._times, self._within_ms = config.flapping.times, config.flapping.within

    def quiet_for(self, life: Life) -> int:
        """Return how long an incident must be quiet to be over."""
        return max(self._gap_ms, self._within_ms) if life.last.flaps else self._gap_ms

    def opened(self, state: DeskState, life: Life, member: Affected) -> None:
        """Note that an incident opened with an alert; mark it where the alert's series flaps."""
        if not self._within_ms:
            return
        key = member.key[:MAX_KEY_CHARS]
        name, now_ms = f"{FLAPS}/{life.last.tenant}/{key}", state.clock_ms
        note = state.notes.get(name, {"opened": []})
        opened = [ms for ms in note["opened"] if ms > now_ms - self._within_ms] + [now_ms]
        state.put_note(name, {"at_ms": now_ms, "opened": opened[-self._times :]})
        if len(opened) >= self._times:
            life.flaps_since_ms = opened[0]
            life.last = replace(life.last, flaps=len(opened))
            state.flap(life, member.key)

    def came_back(self, state: DeskState, tenant: str, member: Affected) -> Life | None:
        """Return the incident in which the series of an alert flaps, with the alert counted."""
        life = state.flapping(tenant, member.key)
        if life is not None and life.quiet_ms:
            life.last = replace(life.last, flaps=life.last.flaps + 1)
        return life

    @staticmethod
    def merged(state: DeskState, life: Life, into: Life) -> None:
        """Have an incident flap as the one that it takes the alerts of."""
        if life.last.flaps and not into.last.flaps:
            into.last = replace(into.last, flaps=life.last.flaps)
            into.flaps_since_ms = life.flaps_since_ms
            state.flap(into, life.flaps_key)
