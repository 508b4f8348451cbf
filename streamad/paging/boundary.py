"""Is an episode strong enough? The boundary that its group affords, and the group's ledger."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from streamad.alerting.assets import Assets
from streamad.alerting.config import AlertingConfig
from streamad.alerts.severity import Beside
from streamad.incidents import Digest
from streamad.paging import wording
from streamad.paging.budget import DAY_MS, GroupBudget, strength
from streamad.paging.state import DeskState
from streamad.records import Finding

LEAST_P, MOST_P = 1e-30, 0.9
HAS_WEIGHT: Final = ("anomaly", "no_data")
"""Kinds that are about an asset; others are about the pipeline."""


class Boundary:
    """Set the boundary of findings by the budgets of their groups."""

    def __init__(self, config: AlertingConfig) -> None:
        self._config = config
        self._assets = Assets(config.assets)

    def judge(self, state: DeskState, finding: Finding) -> tuple[Finding, Beside]:
        """Return a finding with the boundary its group affords, and what else is evidence.

        The episode is noted for those to come. An open alert keeps the boundary it opened at, and
        what it opened with: its severity is to be compared with itself.
        """
        if finding.kind not in HAS_WEIGHT:
            return finding, Beside()
        asset = math.log10(self._assets.weight(finding))
        pages = self._config.budget.of(finding.group)
        life = state.alerts.life(finding.id)
        if pages is None or finding.kind != "anomaly":
            return finding, Beside.of_record(life.last.evidence) if life else Beside(asset=asset)
        group, budget = self.budget(state, finding.group)
        budget.tenant = finding.tenant
        gap_ms, memory_ms = self._config.incidents.gap, self._config.budget.memory
        breadth = 1
        if finding.state != "ended":
            breadth = budget.breadth(finding.key, began_ms=finding.began_ms, gap_ms=gap_ms)
        beside = Beside(breadth=math.log10(breadth), asset=asset)
        needed = budget.threshold(memory_ms)
        day = budget.note(
            finding.id,
            finding.key,
            began_ms=finding.began_ms,
            value=max(strength(finding.peak_p_value) + beside.total, 0.0),
            alert_p=finding.alert_p,
        )
        state.change_day(group, day)
        if life is not None:
            judged = replace(finding, alert_p=life.last.threshold_p)
            return judged, Beside.of_record(life.last.evidence)
        return replace(finding, alert_p=min(max(10.0**-needed, LEAST_P), MOST_P)), beside

    def budget(self, state: DeskState, group: str) -> tuple[str, GroupBudget]:
        """Return the name and the budget that a group has now."""
        name, budget = state.budget(group, self._config.budget.of(group) or 0.0)
        for day in budget.advance(state.clock_ms, memory_ms=self._config.budget.memory):
            state.change_day(name, day)
        return name, budget

    def enter(self, state: DeskState, group: str, what: str, key: str) -> None:
        """Write a line of a group's ledger."""
        name, budget = self.budget(state, group)
        budget.enter(what, key)
        state.change_day(name, state.clock_ms // DAY_MS)

    def digests(self, state: DeskState) -> list[Digest]:
        """Return the digests that are due."""
        every, made = self._config.budget.digest_every, []
        for group, one in sorted(state.budgets.items()):
            if state.clock_ms < one.digest_ms + every:
                continue
            name, known = self.budget(state, group)
            digest = wording.digest(self._config, name, known, now_ms=state.clock_ms)
            known.digest_ms = state.clock_ms
            if digest is not None:
                made.append(digest)
        return made
