"""Alerts that look like a named group have its name, from when they open on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from streamad.alerts.state import AlertState
from streamad.records import Alert
from streamad.shown import safe_text
from streamad.triage.features import GAP_MS, MAX_BREADTH
from streamad.triage.recognise import Recogniser

MAX_LOOKED_AT: Final = 512
"""Open alerts that are looked at for those that began together with a new one."""


class Naming:
    """Give alerts the name of the group they look like.

    An alert is looked at as it opens, and once more when it is over and all of it is known; in
    between it keeps its name. recogniser : None names nothing
    """

    def __init__(self, recogniser: Recogniser | None) -> None:
        self._recogniser = recogniser if recogniser is not None and recogniser.names else None

    def named(self, state: AlertState, alerts: Sequence[Alert]) -> list[Alert]:
        """Return alerts with what they look like, in their line too; the state keeps the name."""
        if self._recogniser is None:
            return list(alerts)
        return [self._named(self._recogniser, state, one) for one in alerts]

    @staticmethod
    def _named(recogniser: Recogniser, state: AlertState, alert: Alert) -> Alert:
        name = alert.looks_like
        if alert.state != "updated":
            name = recogniser.name_of(alert, breadth=_breadth(state, alert))
        life = state.life(alert.id)
        if life is not None:
            life.last = replace(life.last, looks_like=name)
        summary = safe_text(alert.summary + recogniser.line(name))
        return replace(alert, looks_like=name, summary=summary)


def _breadth(state: AlertState, alert: Alert) -> int:
    """Return how many open alerts of its group began at most `GAP_MS` before it, with it."""
    n = sum(
        other.id != alert.id
        and (other.tenant, other.group) == (alert.tenant, alert.group)
        and alert.began_ms - GAP_MS <= other.began_ms <= alert.began_ms
        for other in islice(state.lately_touched(), MAX_LOOKED_AT)
    )
    return min(n + 1, MAX_BREADTH)
