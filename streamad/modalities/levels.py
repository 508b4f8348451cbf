"""Levels of a pipeline's episodes, which all modalities have."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from streamad.config import PipelineConfig
from streamad.scoring.episodes import Level

CANDIDATE, EXIT = 0.85, 0.8
"""Without settings of their own, these levels are reached by a block as often as the alert level
to this power."""


class Levels(NamedTuple):
    """The levels at which an episode may begin, end and alert."""

    candidate: Level
    exit: Level
    alert: Level


def levels_of(config: PipelineConfig) -> Levels:
    """Return the levels of a pipeline."""
    alert = _level(config.alerts.level)
    return Levels(
        candidate=_level(config.scoring.candidate, alert, CANDIDATE),
        exit=_level(config.scoring.exit, alert, EXIT),
        alert=alert,
    )


def _level(rarity: float | None, alert: Level | None = None, power: float = 1.0) -> Level:
    if rarity is None:
        return replace(alert or Level(), power=power)
    if isinstance(rarity, int):
        return Level(period_ms=rarity)
    return Level(probability=rarity)
