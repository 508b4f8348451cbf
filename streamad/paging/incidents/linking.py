"""Which open incident an alert belongs to: one at the same time, about what is linked to it.

Overlap in time alone joins nothing: unrelated things happen at once. Three rules keep an incident
from growing without end, or from being two:

- **cap**: later than ``incidents.span`` after it opened an incident takes only alerts that share an
  entity with a member that is still open;
- **merging**: an alert that links two incidents, opened within ``span`` of each other, makes one of
  them. The one that somebody was paged for stays, of two such the older one, so that a merge never
  pages; the other is resolved, and its record names the one that took its alerts. More than one
  step in the topology, and what was learned, is evidence enough to join and not to merge: in a
  graph where everything is near everything, strangers would become one;
- **choice**: where an alert fits several incidents that stay apart, it joins by its strongest link
  (entity, one step in the topology, group, more steps, learned), and of equal ones the one that
  opened last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamad.alerting.config import IncidentsConfig
from streamad.incidents import Affected
from streamad.paging.incidents.habits import Habits, hash_of
from streamad.paging.incidents.index import OpenIndex
from streamad.paging.incidents.links import ENTITY, GROUP, LEARNED, Linking, Mark
from streamad.paging.incidents.topology import Topology

if TYPE_CHECKING:
    from streamad.paging.state import DeskState, Life


@dataclass(frozen=True, slots=True)
class Place:
    """The incident an alert joins, and those that become part of it."""

    life: Life
    absorbs: tuple[Life, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fit:
    life: Life
    link: int
    within: bool


class Linker:
    """Find the incident that an alert joins."""

    def __init__(self, config: IncidentsConfig, topology: Topology | None = None) -> None:
        self._config = config
        self.linking = Linking(config, topology)

    def new_index(self) -> OpenIndex:
        """Return an index of open incidents by these links."""
        return OpenIndex(self._marks)

    def find(self, state: DeskState, tenant: str, member: Affected) -> Place | None:
        """Return where an alert that opens belongs; None: it is an incident of its own."""
        fits = self._fits(state, tenant, member)
        if not fits:
            return None
        merging = [fit.life for fit in fits if fit.within and fit.link <= GROUP]
        if len(merging) > 1:
            stays = min(merging, key=_seniority)
            near = (one for one in merging if one is not stays and self._are_near(stays, one))
            return Place(stays, tuple(sorted(near, key=_seniority)))
        return Place(min(fits, key=lambda fit: (not fit.within, fit.link, -fit.life.number)).life)

    def learn(self, habits: Habits, tenant: str, member: Affected) -> None:
        """Take into account for later that an alert began."""
        name = self._habit_of(tenant, member)
        habits.learn(name, member.began_ms, gap_ms=self._config.gap)

    def _fits(self, state: DeskState, tenant: str, member: Affected) -> list[_Fit]:
        """Return the incidents at the time of an alert that are linked to it, each once."""
        until_ms = max(member.until_ms, member.began_ms)
        best: dict[str, _Fit] = {}
        for mark in self._probes(state.habits, tenant, member):
            for incident, spot in state.index.at(mark):
                life, link = state.incidents[incident], mark[0]
                within = member.began_ms <= life.last.opened_ms + self._config.span
                if not within and not (link == ENTITY and spot.n_open):
                    continue
                known = best.get(incident)
                if known is not None and known.link <= link:
                    continue
                if spot.meets(member.began_ms, until_ms, self._config.gap):
                    best[incident] = _Fit(life, link, within)
        return list(best.values())

    def _are_near(self, one: Life, other: Life) -> bool:
        return abs(one.last.opened_ms - other.last.opened_ms) <= self._config.span

    def _marks(self, tenant: str, member: Affected) -> tuple[Mark, ...]:
        own: Mark = (LEARNED, tenant, "", self._habit_of(tenant, member))
        return (*self.linking.of(tenant, member).marks, own)

    def _probes(self, habits: Habits, tenant: str, member: Affected) -> Iterator[Mark]:
        yield from self.linking.of(tenant, member).probes
        name = self._habit_of(tenant, member)
        for partner in habits.partners(name, gap_ms=self._config.gap):
            yield (LEARNED, tenant, "", partner)

    def _habit_of(self, tenant: str, member: Affected) -> str:
        main = self.linking.main(member)
        return hash_of(tenant, main.kind, main.value)


def _seniority(life: Life) -> tuple[bool, int]:
    """Order incidents by which of them stays when they become one."""
    return life.last.paged_ms is None, life.number
