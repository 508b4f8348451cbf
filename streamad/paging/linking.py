"""Which open incident an alert belongs to: one at the same time, about what is linked to it."""

from __future__ import annotations

from collections.abc import Iterator

from streamad.paging.config import IncidentsConfig
from streamad.paging.records import Cause
from streamad.paging.state import DeskState, Life
from streamad.records import Alert


class Linker:
    """Find the incident that an alert joins.

    Overlap in time alone joins nothing: unrelated things happen at once.
    """

    def __init__(self, config: IncidentsConfig) -> None:
        self._config = config

    def find(self, state: DeskState, alert: Alert) -> Life | None:
        """Return the open incident an alert joins, the one opened last; None: it is a new one."""
        wanted = dict(self.links(alert))
        best: Life | None = None
        for life in reversed(list(state.incidents.values())):
            if life.last.tenant != alert.tenant or not self._same_time(life, alert):
                continue
            if any(wanted.get(name) == value for name, value in self._links_of(life)):
                best = life
                break
        return best

    def links(self, alert: Alert) -> Iterator[tuple[str, str]]:
        """Yield what links an alert to others: the name and the value."""
        if alert.group != alert.pipeline:
            yield "group", alert.group
        names = self._config.links or tuple(alert.entity)[: max(len(alert.entity) - 1, 1)]
        for name in names:
            if name in alert.entity:
                yield name, alert.entity[name]

    def _links_of(self, life: Life) -> Iterator[tuple[str, str]]:
        for member in life.members.values():
            if member.group != member.pipeline:
                yield "group", member.group
            names = self._config.links or tuple(member.entity)[: max(len(member.entity) - 1, 1)]
            for name in names:
                if name in member.entity:
                    yield name, member.entity[name]

    def _same_time(self, life: Life, alert: Alert) -> bool:
        gap, span = self._config.gap, self._config.span
        if alert.began_ms > life.last.opened_ms + span:
            return False
        return any(
            member.began_ms - gap <= alert.until_ms
            and (member.open or member.until_ms + gap >= alert.began_ms)
            for member in life.members.values()
        )

    def causes(self, life: Life) -> list[Cause]:
        """Return the probable causes of an incident, the most probable first."""
        members = sorted(life.members.values(), key=lambda m: (-m.strength, m.began_ms, m.alert))
        return (
            [
                Cause(entity=m.key, reason="deviates most", score=round(m.strength, 3))
                for m in members[:3]
            ]
            if len(members) > 1
            else []
        )
