"""The course of the demo: learn, disturb, recover; and what came of it. Pure: time comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from jobs.demo.kinds import KINDS, METRICS, Kind
from streamad.records import Alert

Phase = Literal["learning", "disturbing", "recovering", "watching", "over"]

_PATIENCE_MS: Final = 6_000
"""After the disturbance, how long an alert for it may still come."""
_LONGER_MS: Final = 10_000
"""After the surest of its alerts, how long the others of the disturbance are waited for."""
_LINGER_MS: Final = 3_000
"""How long the end stays on the screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen.

    needed : readings until the pipelines judge; interval_ms : between readings; longest_ms : after
    which it ends whatever has happened; keep_going : watch on after it all, until interrupted;
    kinds : what is watched and disturbed, metrics first
    """

    needed: int
    interval_ms: int
    longest_ms: int
    burst_ms: int = 9_000
    disturb: bool = True
    keep_going: bool = False
    kinds: Sequence[Kind] = KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Caused:
    """An alert of the disturbance: when it was raised and, perhaps, resolved."""

    alert: Alert
    opened_ms: int
    resolved_ms: int | None = None


class Script:
    """Where the demo stands; `step` with every reading and the alerts it made.

    silent : names of kinds of which nothing can be read on this machine
    """

    def __init__(self, plan: Plan, *, start_ms: int) -> None:
        self.plan, self.start_ms, self.now_ms = plan, start_ms, start_ms
        self.phase: Phase = "learning"
        self.n_readings = 0
        self.began_ms: dict[str, int] = {}
        self.starting: list[Kind] = []
        self.silent: set[str] = set()
        self.caused: dict[str, Caused] = {}
        self.others: dict[str, Alert] = {}
        self.deadline_ms = start_ms + plan.longest_ms
        self._over_ms: int | None = None

    def step(self, now_ms: int, alerts: Iterable[Alert]) -> Phase:
        """Return the phase after a reading; `starting`: the kinds to be disturbed from now."""
        self.now_ms = now_ms
        self.n_readings += 1
        for alert in alerts:
            self._note(alert)
        self.phase = self._next()
        self.starting = self._due() if self.phase == "disturbing" else []
        self.began_ms.update(dict.fromkeys((kind.name for kind in self.starting), now_ms))
        return self.phase

    @property
    def doing(self) -> str:
        """Return what was done last on purpose, in words."""
        begun = [kind.doing for kind in self.plan.kinds if kind.name in self.began_ms]
        return begun[-1] if begun else ""

    @property
    def burst_end_ms(self) -> int | None:
        """Return when the disturbance ends, None where it has not begun."""
        began_ms = self.began_ms.get(METRICS.name)
        return None if began_ms is None else began_ms + self.plan.burst_ms

    def main(self, kind: Kind) -> Caused | None:
        """Return the surest alert that the disturbance of a kind raised."""
        ranked = ((kind.rank(caused.alert), caused) for caused in self.caused.values())
        mine = [(rank, caused) for rank, caused in ranked if rank is not None]
        return min(mine, key=lambda one: one[0])[1] if mine else None

    @property
    def mains(self) -> dict[str, Caused]:
        """Return the surest alert of each kind that has one, by the kind's name."""
        found = ((kind.name, self.main(kind)) for kind in self.plan.kinds)
        return {name: caused for name, caused in found if caused is not None}

    @property
    def failed(self) -> list[Kind]:
        """Return the kinds that were disturbed and raised no alert, though they can be read."""
        return [
            kind
            for kind in self.plan.kinds
            if kind.name in self.began_ms
            and kind.name not in self.silent
            and self.main(kind) is None
        ]

    @property
    def still_open(self) -> list[Alert]:
        """Return the alerts that are not resolved, as last told."""
        every = [*(caused.alert for caused in self.caused.values()), *self.others.values()]
        return [alert for alert in every if alert.state != "resolved"]

    @property
    def left_s(self) -> float:
        """Return the seconds this phase will last, as far as one knows."""
        if self.phase == "learning":
            return max(self.plan.needed - self.n_readings, 0) * self._pace_ms() / 1000
        end_ms = self.burst_end_ms if self.phase == "disturbing" else self.deadline_ms
        return max((end_ms or self.now_ms) - self.now_ms, 0) / 1000

    @property
    def progress(self) -> float:
        """Return how much of this phase is done, 0 to 1."""
        if self.phase == "learning":
            return min(self.n_readings / self.plan.needed, 1.0)
        if self.phase == "disturbing":
            return min(1.0 - self.left_s * 1000 / self.plan.burst_ms, 1.0)
        return 1.0

    def _pace_ms(self) -> float:
        """Return the time a reading takes: more than asked for on a machine that is too busy."""
        made = self.now_ms - self.start_ms
        return max(made / max(self.n_readings, 1), self.plan.interval_ms)

    def _due(self) -> list[Kind]:
        """Return the kinds whose disturbance is to begin now; the first begins at once."""
        began_ms = self.began_ms.get(METRICS.name, self.now_ms)
        return [
            kind
            for kind in self.plan.kinds
            if kind.name not in self.began_ms and self.now_ms - began_ms >= kind.after_ms
        ]

    def _next(self) -> Phase:
        if self.now_ms >= self.deadline_ms and not self.plan.keep_going:
            return "over"
        if self.phase == "learning":
            return self._after_learning()
        if self.phase == "disturbing":
            return "recovering" if self.now_ms >= (self.burst_end_ms or 0) else "disturbing"
        if self.phase == "recovering":
            return self._after_recovering()
        return self.phase

    def _after_learning(self) -> Phase:
        if self.n_readings < self.plan.needed:
            return "learning"
        return "disturbing" if self.plan.disturb else "watching"

    def _after_recovering(self) -> Phase:
        if self._over_ms is None and self._is_settled():
            self._over_ms = self.now_ms + _LINGER_MS
        if self._over_ms is None or self.now_ms < self._over_ms:
            return "recovering"
        return "watching" if self.plan.keep_going else "over"

    def _is_settled(self) -> bool:
        """Return whether all alerts came and those of metrics ended, or were waited for in vain."""
        late = self.now_ms >= (self.burst_end_ms or 0) + _PATIENCE_MS
        if self.failed and not late:
            return False
        main = self.main(METRICS)
        if main is None:
            return True
        mine = [one for one in self.caused.values() if METRICS.rank(one.alert) is not None]
        calm = all(one.resolved_ms for one in mine)
        waited = self.now_ms >= (main.resolved_ms or self.now_ms) + _LONGER_MS
        return main.resolved_ms is not None and (calm or waited)

    def _note(self, alert: Alert) -> None:
        if alert.id in self.caused:
            before = self.caused[alert.id]
            resolved = self.now_ms if alert.state == "resolved" else before.resolved_ms
            self.caused[alert.id] = Caused(
                alert=alert, opened_ms=before.opened_ms, resolved_ms=resolved
            )
        elif self._is_caused(alert):
            self.caused[alert.id] = Caused(alert=alert, opened_ms=self.now_ms)
        else:
            self.others[alert.id] = alert

    def _is_caused(self, alert: Alert) -> bool:
        return (
            self.phase in {"disturbing", "recovering"}
            and alert.state == "opened"
            and alert.opened_ms <= (self.burst_end_ms or 0)
            and any(
                kind.name in self.began_ms and kind.rank(alert) is not None
                for kind in self.plan.kinds
            )
        )
