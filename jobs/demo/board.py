"""What the demo shows, as values: the last readings, how strange they were, and the alerts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.demo.kinds import COUNTED, Counted
from streamad.records import (
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Alert,
    RecordBatch,
    ScoreBatch,
    SignalBatch,
)
from streamad.wording import number

_KEPT: Final = 160
_GONE_AFTER: Final = 16
_EVENTS: Final = 500
_HELD: Final = 24
"""Readings of metrics for which the strangest event or edge stays in sight."""
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


@dataclass(slots=True)
class Tally:
    """Rows that come one by one, events or edges: how many, and the strangest of late in words."""

    how: Counted
    line: Line
    arrived: deque[int]
    strangest: str = ""
    strangest_reading: int = -_HELD
    rows: RecordBatch[Any] | None = None

    @classmethod
    def of(cls, name: str) -> Tally:
        """Return an empty one, of a pipeline."""
        how = COUNTED[name]
        return cls(how, Line(name, how.label), deque([0], maxlen=max(how.within, 1)))

    def take(self, batch: RecordBatch[Any]) -> None:
        """Take rows; some may be judged next."""
        self.rows = batch
        if self.how.within:
            self.arrived[-1] += len(batch)
        else:
            self.arrived[-1] = len(batch)
        if len(batch) and self.line.severity is None:
            self.strangest = self.how.text(batch.values, len(batch) - 1)

    def take_scores(self, scores: ScoreBatch, reading: int) -> None:
        """Take how severe the rows taken last were."""
        severity = [one if one == one else 0.0 for one in scores.severity.tolist()]  # noqa: PLR0124
        if self.rows is None or not severity:
            return
        most = max(severity)
        held = reading - self.strangest_reading < _HELD
        if held and most < (self.line.severity or 0.0):
            return
        self.line.severity, self.strangest_reading = most, reading
        # As many rows as scores, in the same order, but for rows that came too late.
        place = min(severity.index(most), len(self.rows) - 1)
        self.strangest = self.how.text(self.rows.values, place)

    def mark(self, reading: int) -> None:
        """Let a reading of metrics begin; what was strange some readings ago no longer is."""
        if reading - self.strangest_reading >= _HELD and self.line.severity is not None:
            self.line.severity = 0.0
        self.line.values.append(float(sum(self.arrived)))
        if self.how.within:
            self.arrived.append(0)


class Board:
    """All metrics of a machine, its events and edges, and their alerts."""

    def __init__(self) -> None:
        self.n_readings = 0
        self.lines: dict[str, Line] = {}
        self.tallies = {name: Tally.of(name) for name in COUNTED}
        self.events: list[Alert] = []

    def take_rows(self, name: str, batch: RecordBatch[Any]) -> None:
        """Take what a pipeline read: metrics, or rows that are counted."""
        tally = self.tallies.get(name)
        if tally is None:
            self.take(batch)
        else:
            tally.take(batch)

    def take(self, batch: SignalBatch) -> None:
        """Take a reading of all metrics."""
        self.n_readings += 1
        for tally in self.tallies.values():
            tally.mark(self.n_readings)
        for key, value in zip(batch.keys.to_list(), batch.values[:, 0].tolist(), strict=True):
            if key not in self.lines:
                self.lines[key] = Line(key, key.partition("/")[2])
            self.lines[key].values.append(value)
            self.lines[key].last_reading = self.n_readings

    def take_scores(self, name: str, scores: ScoreBatch) -> None:
        """Take how severe the newest windows of a pipeline were, or the rows taken last."""
        if name in self.tallies:
            self.tallies[name].take_scores(scores, self.n_readings)
            return
        columns = (scores.keys.to_list(), scores.severity.tolist(), scores.flags.tolist())
        for key, severity, flags in zip(*columns, strict=True):
            line = self.lines.get(key)
            if line is not None and not flags & (FLAG_WARMING | FLAG_INCOMPLETE):
                line.severity = None if math.isnan(severity) else severity
                line.matters = not flags & FLAG_SUPPRESSED

    def take_alerts(self, alerts: Iterable[Alert]) -> None:
        """Take alerts as they are sent; one id is one event, as last told."""
        for alert in alerts:
            tally = self.tallies.get(alert.pipeline)
            line = self.lines.get(alert.key) if tally is None else tally.line
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

    def told(
        self, n: int, *, always: Collection[str] = (), first: Collection[str] = ()
    ) -> list[Alert]:
        """Return the ``n`` events most worth a look, oldest first.

        These are those whose ids are in ``always`` (the surest of each kind), then open ones, then
        those in ``first`` (the demo's own), then the latest.
        """
        events = self.events
        order = sorted(
            range(len(events)),
            key=lambda place: (
                events[place].id in always,
                events[place].state != "resolved",
                events[place].id in first,
                place,
            ),
        )
        chosen = sorted(order[max(0, len(order) - n) :])
        return [events[place] for place in chosen]


def _rank(metric: str) -> int:
    for rank, beginning in enumerate(_ORDER):
        if metric.startswith(beginning):
            return rank
    return len(_ORDER)
