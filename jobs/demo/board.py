"""What the demo shows, as values: the last readings of each metric, how strange, and its alerts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from streamad.records import (
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Alert,
    ScoreBatch,
    SignalBatch,
)
from streamad.wording import number

_KEPT: Final = 160
_GONE_AFTER: Final = 16
_EVENTS: Final = 500
_ORDER: Final = (
    "cpu_percent", "memory", "disk_read", "disk_write", "network", "disturbance", "load", "swap",
    "cpu",
)  # fmt: skip
"""Beginnings of metrics, the first to be shown first."""
_UNITS: Final = (("_bytes_per_s", " B/s"), ("_percent", " %"), ("_bytes", " B"))
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_SPARKS: Final = "_.-:=+*#"
_FLAT: Final = 0.05
"""A metric that moves by less than this share of itself is drawn flat."""


@dataclass(slots=True)
class Line:
    """A metric: its last values, how severe the last window was (None: it is still learned)."""

    key: str
    metric: str
    values: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    severity: float | None = None
    matters: bool = True
    alert: Alert | None = None
    last_reading: int = 0

    @property
    def label(self) -> str:
        """Return the metric's name with its unit as one writes it."""
        for ending, unit in _UNITS:
            if self.metric.endswith(ending):
                return self.metric.removesuffix(ending).replace("_", " ") + unit
        return self.metric.replace("_", " ")

    @property
    def now(self) -> str:
        """Return the newest value."""
        return number(self.values[-1]) if self.values else ""

    def sparkline(self, width: int, *, ascii_only: bool = False) -> str:
        """Return the last ``width`` values as a line, the newest at the right."""
        shown = list(self.values)[-width:] if width > 0 else []
        if not shown:
            return ""
        sparks = _ASCII_SPARKS if ascii_only else _SPARKS
        low, high = min(shown), max(shown)
        if self.metric.endswith(("_percent", "_per_s")):
            low = min(0.0, low)
        room = max(high - low, _FLAT * abs(high), 1e-9)
        places = [int((value - low) / room * (len(sparks) - 1) + 0.5) for value in shown]
        return "".join(sparks[place] for place in places)


class Board:
    """All metrics of a machine; `SignalBatch`, `ScoreBatch` and alerts go in."""

    def __init__(self) -> None:
        self.n_readings = 0
        self.lines: dict[str, Line] = {}
        self.events: list[Alert] = []

    def take(self, batch: SignalBatch) -> None:
        """Take a reading of all metrics."""
        self.n_readings += 1
        for key, value in zip(batch.keys.to_list(), batch.values[:, 0].tolist(), strict=True):
            if key not in self.lines:
                self.lines[key] = Line(key, key.partition("/")[2])
            self.lines[key].values.append(value)
            self.lines[key].last_reading = self.n_readings

    def take_scores(self, scores: ScoreBatch) -> None:
        """Take how severe the newest windows were."""
        columns = (scores.keys.to_list(), scores.severity.tolist(), scores.flags.tolist())
        for key, severity, flags in zip(*columns, strict=True):
            line = self.lines.get(key)
            if line is not None and not flags & (FLAG_WARMING | FLAG_INCOMPLETE):
                line.severity = None if math.isnan(severity) else severity
                line.matters = not flags & FLAG_SUPPRESSED

    def take_alerts(self, alerts: Iterable[Alert]) -> None:
        """Take alerts as they are sent; one id is one event, as last told."""
        for alert in alerts:
            line = self.lines.get(alert.key)
            if line is not None:
                line.alert = None if alert.state == "resolved" else alert
            for place, event in enumerate(self.events):
                if event.id == alert.id:
                    self.events[place] = alert
                    break
            else:
                self.events.append(alert)
        while len(self.events) > _EVENTS:
            # What is open stays, and the newest.
            ended = (i for i, one in enumerate(self.events) if one.state == "resolved")
            del self.events[next(ended, 0)]

    def shown(self, n: int) -> list[Line]:
        """Return the ``n`` lines most worth a look, in an order that does not jump.

        Metrics without a reading lately, of processes that have ended, are left out.
        """
        lines = [
            line
            for line in self.lines.values()
            if line.alert is not None or line.last_reading > self.n_readings - _GONE_AFTER
        ]
        lines.sort(key=lambda line: (_rank(line.metric), line.metric))
        first = sorted(lines, key=lambda line: line.alert is None)[:n]
        return [line for line in lines if any(line is one for one in first)]

    def told(self, n: int, *, first: Collection[str] = ()) -> list[Alert]:
        """Return the ``n`` events most worth a look, oldest first.

        These are open ones, then those whose ids are in ``first`` (the demo's own), then the latest
        """
        events = self.events
        order = sorted(
            range(len(events)),
            key=lambda place: (
                events[place].state != "resolved", events[place].id in first, place,
            ),
        )  # fmt: skip
        chosen = sorted(order[max(0, len(order) - n) :])
        return [events[place] for place in chosen]


def _rank(metric: str) -> int:
    for rank, beginning in enumerate(_ORDER):
        if metric.startswith(beginning):
            return rank
    return len(_ORDER)
