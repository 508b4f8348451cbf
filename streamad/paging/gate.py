"""Does an incident page? Once, if nothing stands against it; what does not page is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from streamad.alerting.config import AlertingConfig
from streamad.paging.answers import Answers
from streamad.paging.boundary import Boundary
from streamad.paging.budget import DAY_MS
from streamad.paging.incidents.members import evidence
from streamad.paging.silences import Silences
from streamad.paging.state import DeskState, Life
from streamad.records import UNKNOWN_MS, Finding

SOAK, BUDGET, PAST, HOLD, KIND = "soak", "budget", "past", "hold", "kind"
"""Reasons for which an incident does not page; silences and answers bring their own."""
_UNCOUNTED: Final = (HOLD,)

Lead = Callable[[Life], None]


class Gate:
    """Decide which incidents page.

    lead : has the probable cause lead an incident, just before it pages
    """

    def __init__(
        self,
        config: AlertingConfig,
        *,
        boundary: Boundary,
        silences: Silences,
        answers: Answers,
        lead: Lead,
    ) -> None:
        self._config, self._boundary = config, boundary
        self._silences, self._answers, self._lead = silences, answers, lead

    def soaks_until(self, finding: Finding | None) -> int:
        """Return until when a series is too new to page."""
        if finding is None or finding.born_ms == UNKNOWN_MS:
            return 0
        return finding.born_ms + self._config.budget.soak

    def page(self, state: DeskState, life: Life) -> bool:
        """Decide whether an incident pages; return whether that is another answer than before."""
        if life.last.paged_ms is not None:
            return False
        name, budget = self._boundary.budget(state, life.last.group)
        budget.tenant = life.last.tenant
        many = len(state.tally(life).detectors) >= self._config.budget.overdraft
        affords = budget.affords(_strength_of(life) - life.last.threshold)
        why = self._against(state, life, affords=affords or many)
        if why and why == life.last.withheld:
            return False
        life.last = replace(life.last, withheld=why)
        if not why:
            self._lead(life)
        leader = life.members[life.last.leader]
        if not why:
            budget.spend(leader.key, overdrawn=not affords)
            life.last = replace(life.last, paged_ms=state.clock_ms, overdrawn=not affords)
            state.counts["pages" if affords else "pages_overdrawn"] += 1
        elif why not in _UNCOUNTED:
            budget.enter(why, leader.key)
            state.counts[f"withheld_{why.partition(':')[0]}"] += 1
        state.change_day(name, state.clock_ms // DAY_MS)
        life.due = True
        return True

    def _against(self, state: DeskState, life: Life, *, affords: bool) -> str:
        """Return what stands against a page; empty: nothing does."""
        kinds = state.tally(life).kinds.keys()
        if life.past:
            return PAST
        if not kinds & set(self._config.budget.kinds):
            return KIND
        if why := self._silences.against(state, life) or self._answers.against(state, life):
            return why
        if state.clock_ms < life.soaking_until_ms:
            return SOAK
        if state.clock_ms < life.opened_clock_ms + self._config.incidents.hold:
            return HOLD
        return "" if affords else BUDGET


def _strength_of(life: Life) -> float:
    return max(map(evidence, life.members.values()))
