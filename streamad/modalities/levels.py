"""Levels of a pipeline's episodes, which all modalities have."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from streamad.config import PipelineConfig
from streamad.scoring.episodes import Level

CANDIDATE, EXIT = 0.85, 0.8
"""Without settings of their own, these levels are reached by a block as often as the alert level
to this power."""
EACH = 2.0
"""A series has so many candidates for each page of the budget."""
LEAST_PAGES = 1.5
"""Pages a week for which the candidates of the default ``alerts.level`` are enough."""
LEAST_CANDIDATE_MS = 4 * 3_600_000
SOMEWHAT = 0.85
"""What ends an episode is so much less rare than what begins one."""
WEEK_MS = 7 * 86_400_000


class Levels(NamedTuple):
    """The levels at which an episode may begin, end and alert."""

    candidate: Level
    exit: Level
    alert: Level


def levels_of(config: PipelineConfig) -> Levels:
    """Return the levels of a pipeline."""
    alert = _level(config.alerts.level)
    candidate, leave = config.scoring.candidate, config.scoring.exit
    pages = config.alerts.budget
    if pages is not None and candidate is None and leave is None and pages > LEAST_PAGES:
        # The budget can choose among what became a finding only.
        candidate = max(round(WEEK_MS / (EACH * pages)), LEAST_CANDIDATE_MS)
        leave = round(candidate * SOMEWHAT)
    return Levels(
        candidate=_level(candidate, alert, CANDIDATE),
        exit=_level(leave, alert, EXIT),
        alert=alert,
    )


def _level(rarity: float | None, alert: Level | None = None, power: float = 1.0) -> Level:
    if rarity is None:
        return replace(alert or Level(), power=power)
    if isinstance(rarity, int):
        return Level(period_ms=rarity)
    return Level(probability=rarity)
