"""The state of the alert stage: alerts that are open, resolved lately, or not sent; bounded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, TypeVar

from streamad.alerts.limits import MAX_COUNT, Opened, opened_of
from streamad.errors import StateError
from streamad.records import Alert, Explanation, Finding

Value = TypeVar("Value")

ENDLESS: Final = ("error", "clock")
"""Kinds of findings that have no end: those of a key share one alert, which ends by itself."""
ERROR_QUIET_MS: Final = 600_000
"""An error has no end of its own: its alert resolves when the log is this far past the last one."""
NEVER_MS: Final = -(2**63)
MAX_MS: Final = 2**43
"""Times of records lie within: 278 years around 1970. Sums of larger ones overflow."""
MAX_OPEN: Final = 100_000
MAX_CLOSED: Final = 10_000
"""How many alerts are held, open and (against findings delivered again) resolved."""
MAX_WITHHELD: Final = 10_000
"""Episodes that are remembered because their alert was not sent: each is counted once, and its
alert opens later if it lasts."""
_LIMIT: Final = "limit/"
"""Begins the names of the records that hold what opened in a group."""
RECORD_VERSION: Final = 3
"""Of the records of `AlertState`. It rises when an older streamad can no longer read them; a field
with a default may be added under the same version. Records without a version are of version 1."""


@dataclass(slots=True)
class Life:
    """An open alert: its last record, and what the findings since have changed.

    sequence : of the last finding taken; began_ms, until_ms : of the event; peak : greatest
    severity so far; reported_peak, reported_ms : of the last alert sent; touched_ms : the log's
    clock at the last finding; n_errors : windows an error alert stands for, or
    alerts a flood does; strongest : explanation of the strongest finding, finite values only;
    strength : that finding's severity and score; incident : the one that counts this alert and does
    not hold it, see `streamad.paging.state`.
    """

    last: Alert
    sequence: int
    began_ms: int
    peak: float
    reported_peak: float
    reported_ms: int
    touched_ms: int
    n_errors: int = 0
    until_ms: int = NEVER_MS
    strongest: Explanation | None = None
    strength: tuple[float, float] = (-1.0, 0.0)
    incident: str = ""

    def take(self, finding: Finding, value: float) -> None:
        """Keep the times of the event and the values at its worst.

        value : severity of the finding's own window
        """
        self.began_ms = min(self.began_ms, finding.began_ms)
        self.until_ms = max(self.until_ms, finding.until_ms)
        strength = (value, number_of(finding.score))
        # The window that ends an episode is ordinary: its values are not of the event.
        inside = finding.state != "ended" and finding.explanation is not None
        if inside and strength > self.strength:
            self.strongest, self.strength = finite(finding.explanation), strength


class AlertState:
    """Open alerts, and the ids of those resolved lately; bounded.

    It can live in a compacted topic: `drain_changes` gives what changed since it was last asked, by
    alert id (None: forget it), and `load` takes such records back.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.clock_ms = NEVER_MS
        # Both in the order of their last touch, oldest first.
        self._open: dict[str, Life] = {}
        self._closed: dict[str, int] = {}
        self._withheld: dict[str, int] = {}
        self._errors: dict[tuple[str, str, str], str] = {}
        self._floods: dict[str, str] = {}
        self._opened: dict[str, Opened] = {}
        self._period = NEVER_MS
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def open_alerts(self) -> list[Alert]:
        """Return the open alerts as last sent, the longest untouched first."""
        return [life.last for life in self._open.values()]

    def lately_touched(self) -> Iterator[Alert]:
        """Yield the open alerts as last sent, the last touched first."""
        return (life.last for life in reversed(self._open.values()))

    def drain_changes(self) -> dict[str, dict[str, Any] | None]:
        """Return records changed since the last call, JSON-ready; None stands for a tombstone."""
        changed, self._changed = self._changed, {}
        return {alert_id: self._record(alert_id) for alert_id in changed}

    def change_all(self) -> None:
        """Have `drain_changes` give all there is, as for a topic that was deleted."""
        ids = (*self._open, *self._closed, *self._withheld, *(_LIMIT + g for g in self._opened))
        self._changed |= dict.fromkeys(ids)

    def load(self, records: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str]:
        """Take back what `drain_changes` gave, the newest of each id, into an empty state.

        Returns the ids whose record cannot be read, and why: they are left out, for one record must
        not keep all others from being resolved. Raises StateError for a record of a newer version.
        """
        read: dict[str, tuple[int, Life | str]] = {}
        damaged: dict[str, str] = {}
        for name, record in records.items():
            if record is None:
                continue
            _check_version(name, record)
            try:
                touched_ms = _time_ms("touched_ms", record["touched_ms"])
                if name.startswith(_LIMIT):
                    self._opened[name.removeprefix(_LIMIT)] = opened_of(record)
                    continue
                ended = next((one for one in ("closed", "withheld") if one in record), None)
                read[name] = touched_ms, ended or _life_of(name, record)
            except _UNREADABLE as error:
                damaged[name] = f"{type(error).__name__}: {error}"
        for name in sorted(read, key=lambda name: (read[name][0], name)):
            touched_ms, what = read[name]
            self.clock_ms = max(self.clock_ms, touched_ms)
            if isinstance(what, Life):
                self._put(name, what)
            else:
                (self._closed if what == "closed" else self._withheld)[name] = touched_ms
        self._changed.clear()
        return damaged

    def _record(self, alert_id: str) -> dict[str, Any] | None:
        if alert_id in self._open:
            return {"version": RECORD_VERSION, **asdict(self._open[alert_id])}
        if alert_id in self._closed:
            touched_ms = self._closed[alert_id]
            return {"version": RECORD_VERSION, "closed": True, "touched_ms": touched_ms}
        if alert_id in self._withheld:
            touched_ms = self._withheld[alert_id]
            return {"version": RECORD_VERSION, "withheld": True, "touched_ms": touched_ms}
        opened = self._opened.get(alert_id.removeprefix(_LIMIT))
        if opened is not None and alert_id.startswith(_LIMIT):
            return {"version": RECORD_VERSION, "touched_ms": self.clock_ms, **asdict(opened)}
        return None

    # ------------------------------------------------------------------ for the operator alone

    def is_closed(self, alert_id: str) -> bool:
        """Say whether the alert was resolved lately."""
        return alert_id in self._closed

    def life(self, alert_id: str) -> Life | None:
        """Return an open alert."""
        return self._open.get(alert_id)

    def error_of(self, finding: Finding) -> str:
        """Return the id of the one alert the errors of this detector and key share."""
        return self._errors.get((finding.kind, finding.detector, finding.key), finding.id)

    def touch(self, alert_id: str, life: Life) -> None:
        """Keep an open alert, as the last one touched."""
        self._open.pop(alert_id, None)
        life.touched_ms = self.clock_ms
        self._put(alert_id, life)
        self._changed[alert_id] = None

    def assign(self, alert_id: str, incident: str) -> None:
        """Note which incident counts an alert without holding it, while the alert is open."""
        life = self._open.get(alert_id)
        if life is not None:
            life.incident = incident
            self._changed[alert_id] = None

    def assigned(self) -> dict[str, str]:
        """Return the open alerts that an incident counts without holding them, and which one."""
        return {name: life.incident for name, life in self._open.items() if life.incident}

    def opened(self, group: str, period: int) -> Opened:
        """Return what opened in a group in this period of the log's time."""
        known = self._opened.get(group)
        return known if known is not None and known.period == period else Opened(period)

    def count(self, group: str, opened: Opened, key: str) -> None:
        """Count an alert that opens."""
        opened.add(key)
        self._opened[group] = opened
        self._changed[_LIMIT + group] = None

    def is_withheld(self, alert_id: str) -> bool:
        """Return whether the alert was counted as one that is not sent."""
        return alert_id in self._withheld

    def withhold(self, alert_id: str) -> None:
        """Remember an alert that is not sent."""
        self._withheld[alert_id] = self.clock_ms
        self._changed[alert_id] = None
        self._trim(self._withheld, MAX_WITHHELD)

    def release(self, alert_id: str, *, over: bool) -> None:
        """Forget that an alert was not sent: it is sent now, or its episode is over."""
        if self._withheld.pop(alert_id, None) is not None:
            self._changed[alert_id] = None
            if over:
                self._remember(alert_id)

    def flood_of(self, group: str) -> Life | None:
        """Return the open alert that reports what is not sent of a group."""
        alert_id = self._floods.get(group)
        return None if alert_id is None else self._open[alert_id]

    def close(self, alert_id: str) -> None:
        """Turn an open alert into one that is remembered as resolved."""
        last = self._open.pop(alert_id).last
        if last.kind in ENDLESS:
            self._errors.pop((last.kind, last.detector, last.key), None)
        elif last.kind == "flood":
            self._floods.pop(last.group, None)
        self._remember(alert_id)

    def _remember(self, alert_id: str) -> None:
        self._closed[alert_id] = self.clock_ms
        self._changed[alert_id] = None
        self._trim(self._closed, MAX_CLOSED)

    def _trim(self, table: dict[str, int], most: int) -> None:
        while len(table) > most:
            oldest = next(iter(table))
            del table[oldest]
            self._changed[oldest] = None

    def forget_opened(self, period: int) -> None:
        """Drop what opened in periods that are over."""
        if period <= self._period:
            return  # What opened since is of this period: 10,000 groups are not gone through again.
        self._period = period
        for group in [g for g, opened in self._opened.items() if opened.period < period]:
            del self._opened[group]
            self._changed[_LIMIT + group] = None

    def abandoned(self, *, stale_ms: int, flood_ms: int) -> list[Life]:
        """Return alerts whose end will not come: quiet errors, stale ones, those over the bound.

        flood_ms : a flood is over once it is so long that the last alert was not sent
        """
        gone: dict[str, Life] = {}
        for alert_id in self._floods.values():
            if self._open[alert_id].touched_ms + flood_ms <= self.clock_ms:
                gone[alert_id] = self._open[alert_id]
        # Both tables are in the order of touch, so nothing is looked at beyond the first fresh one.
        for alert_id in self._errors.values():
            if self._open[alert_id].touched_ms + ERROR_QUIET_MS > self.clock_ms:
                break
            gone[alert_id] = self._open[alert_id]
        surplus = len(self._open) - MAX_OPEN
        for place, (alert_id, life) in enumerate(self._open.items()):
            if life.touched_ms + stale_ms > self.clock_ms and place >= surplus:
                break
            gone[alert_id] = life
        return list(gone.values())

    def _put(self, alert_id: str, life: Life) -> None:
        self._open[alert_id] = life
        if life.last.kind in ENDLESS:
            at = (life.last.kind, life.last.detector, life.last.key)
            self._errors.pop(at, None)
            self._errors[at] = alert_id
        elif life.last.kind == "flood":
            self._floods[life.last.group] = alert_id


def _check_version(alert_id: str, record: Mapping[str, Any]) -> None:
    version = record.get("version", 1)
    if isinstance(version, int) and version > RECORD_VERSION:
        msg = (
            f"the state of alert {alert_id} has format {version!r}, and this streamad reads up to "
            f"{RECORD_VERSION}: a newer one wrote it. Run that version; or, to give up the alerts "
            "that are open, delete the pipeline's alert-state topic"
        )
        raise StateError(msg)


_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def _life_of(alert_id: str, record: Mapping[str, Any]) -> Life:
    """Build an open alert from a record of this version or an earlier one."""
    last = Alert(**_fields_of(Alert, record["last"]))
    if last.id != alert_id:
        msg = f"it is of alert {last.id!r:.40}"
        raise ValueError(msg)
    life = Life(**{**_fields_of(Life, record), "last": last})
    if isinstance(record.get("strongest"), Mapping):
        life.strongest = Explanation(**_fields_of(Explanation, record["strongest"]))
    life.strength = (float(life.strength[0]), float(life.strength[1]))
    _check_numbers(life)
    if record.get("version", 1) == 1:
        # Version 1 kept neither the event's end nor its worst values: the last record stands in.
        life.until_ms = max(life.began_ms, last.window_end_ms)
        life.last = replace(last, began_ms=life.began_ms, until_ms=life.until_ms)
        if last.explanation:
            life.strongest = Explanation(
                observed=last.observed,
                expected=last.expected,
                variates=last.explanation,
                time_ms=last.window_end_ms,
            )
            life.strength = (life.peak, number_of(last.score))
    return life


def _check_numbers(life: Life) -> None:
    """Raise TypeError where a time or a number of an open alert is none."""
    counts = ("sequence", "n_errors", "peak", "reported_peak")
    own = (*counts, "began_ms", "until_ms", "touched_ms", "reported_ms")
    times = ("opened_ms", "began_ms", "until_ms", "time_ms", "window_start_ms", "window_end_ms")
    found = [(name, getattr(life, name)) for name in own]
    found += [(name, getattr(life.last, name)) for name in times]
    found += list(life.last.evidence.items())
    for name, value in found:
        if name.endswith("_ms"):
            _time_ms(name, value)
        elif not isinstance(value, (int, float)) or abs(value) > MAX_COUNT:
            msg = f"{name} is {value!r:.40}"
            raise TypeError(msg)


def _time_ms(name: str, value: object) -> int:
    """Return a time; raises ValueError where it is none that an event can have."""
    if not isinstance(value, int) or (abs(value) > MAX_MS and value != NEVER_MS):
        msg = f"{name} is {value!r:.40}"
        raise ValueError(msg)
    return value


def _fields_of(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what this version does not know; what is missing has the default of its field."""
    return {one.name: record[one.name] for one in fields(kind) if one.name in record}


def finite(why: Explanation | None) -> Explanation | None:
    """Leave out of an explanation what is not finite."""
    if why is None:
        return None
    return Explanation(
        observed=_known(why.observed),
        expected=_known(why.expected),
        variates=_known(why.variates),
        time_ms=why.time_ms,
        text=why.text,
        entities=why.entities,
        note=why.note,
    )


def number_of(value: float | None) -> float:
    """Return a number, 0 where it is not finite."""
    return value if value is not None and math.isfinite(value) else 0.0


def _known(values: Mapping[str, Value]) -> dict[str, Value]:
    """Leave out what is not finite: JSON cannot hold it."""
    return {name: value for name, value in values.items() if _is_known(value)}


def _is_known(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, (int, float)) and math.isfinite(value))
