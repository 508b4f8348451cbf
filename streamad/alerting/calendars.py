"""Events of an iCalendar file (RFC 5545) as spans of time: holidays, freezes, maintenance.

Read are ``VEVENT`` with ``DTSTART``, ``DTEND`` or ``DURATION``, ``RRULE`` by the day or longer,
``RDATE``, ``EXDATE``, single occurrences that were moved (``RECURRENCE-ID``) or cancelled. Anything
else is passed over. A file is read once; all its occurrences until 2100 are kept as merged spans.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from dateutil.rrule import rrule, rrulestr
from numpy.typing import NDArray

from streamad.shown import safe_text
from streamad.small_files import read_small

MAX_BYTES: Final = 1_048_576
MAX_EVENTS: Final = 2_000
MAX_SPANS: Final = 50_000
LAST: Final = datetime(2100, 1, 1)  # noqa: DTZ001 - local times are compared with it
FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_REPEATED: Final = ("RDATE", "EXDATE")
_KNOWN: Final = ("UID", "DTSTART", "DTEND", "DURATION", "RRULE", "RECURRENCE-ID", "STATUS")
_DURATION = re.compile(
    r"\+?P(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,6})S)?)?"
)
_MOMENT = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?")
_RULE = re.compile(r"[A-Z]+=[A-Z0-9+,\-]+(?:;[A-Z]+=[A-Z0-9+,\-]+)*")


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of time that do not overlap: int64 ``(n,)`` each, ascending, in ms; ends exclusive."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def holds(self, at_ms: int) -> bool:
        """Say whether a time lies in one."""
        at = int(np.searchsorted(self.starts, at_ms, side="right")) - 1
        return at >= 0 and at_ms < int(self.ends[at])


@dataclass(slots=True)
class _Property:
    line: int
    value: str
    parameters: Mapping[str, str]


@dataclass(slots=True)
class _Event:
    line: int
    single: dict[str, _Property] = field(default_factory=dict)
    lists: dict[str, list[_Property]] = field(default_factory=dict)

    def take(self, name: str, one: _Property) -> None:
        """Keep a property that is read; of those given twice the first."""
        if name in _REPEATED:
            self.lists.setdefault(name, []).append(one)
        elif name in _KNOWN:
            self.single.setdefault(name, one)

    def text(self, name: str) -> str:
        """Return the value of a property, empty where there is none."""
        found = self.single.get(name)
        return found.value if found is not None else ""


@dataclass(frozen=True, slots=True)
class _Moment:
    """A local time without its zone beside it; ``whole``: a day."""

    local: datetime
    zone: tzinfo
    whole: bool


def read_calendar(path: str | Path, *, zone: ZoneInfo) -> Spans:
    """Read a file; raises ValueError that names the line, what was expected and what to do.

    zone : of days, and of times that have none
    """
    try:
        content = read_small(path, max_bytes=MAX_BYTES)
        return spans_of(content.decode("utf-8-sig", errors="replace"), zone)
    except ValueError as error:
        msg = f"the calendar {path}: {error}"
        raise ValueError(msg) from None


@lru_cache(maxsize=16)
def spans_of(text: str, zone: ZoneInfo) -> Spans:
    """Return the spans of a calendar's text; raises ValueError."""
    if "BEGIN:VCALENDAR" not in text[:10_000].upper():
        msg = "expected iCalendar (BEGIN:VCALENDAR), got something else"
        raise ValueError(msg)
    events = list(_events(text))
    moved: dict[str, list[datetime]] = {}
    for event in events:
        if "RECURRENCE-ID" in event.single:
            moment = _moment(
                event.single["RECURRENCE-ID"], event.single["RECURRENCE-ID"].value, zone
            )
            moved.setdefault(event.text("UID"), []).append(moment.local)
    found: list[tuple[int, int]] = []
    for event in events:
        if event.text("STATUS").upper() == "CANCELLED":
            continue
        try:
            found += _spans(event, zone, moved)
        except (ValueError, OverflowError, TypeError, AttributeError) as error:
            msg = f"line {event.line}: {safe_text(str(error), 300)}"
            raise ValueError(msg) from None
        if len(found) > MAX_SPANS:
            msg = (
                f"it has more than {MAX_SPANS} occurrences until {LAST.year}; give its rules an end"
            )
            raise ValueError(msg)
    return _merged(found)


def _events(text: str) -> Iterator[_Event]:
    """Yield the events; parts of an event that have parts (alarms) are passed over."""
    event: _Event | None = None
    inner = n_events = 0
    for number, name, parameters, value in _properties(text):
        if event is None:
            if name == "BEGIN" and value.upper() == "VEVENT":
                event, n_events = _Event(number), n_events + 1
        elif name == "END" and not inner:
            yield event
            event = None
        elif name in ("BEGIN", "END"):
            inner += 1 if name == "BEGIN" else -1
        elif not inner:
            event.take(name, _Property(number, value, parameters))
        if n_events > MAX_EVENTS:
            msg = f"line {number}: it has more than {MAX_EVENTS} events; keep those needed"
            raise ValueError(msg)


def _properties(text: str) -> Iterator[tuple[int, str, dict[str, str], str]]:
    """Yield line, name, parameters and value of each property; folded lines are one."""
    held, at = "", 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line[:1] in (" ", "\t"):
            held += line[1:]
            continue
        head, colon, value = held.partition(":")
        if colon:
            name, *rest = head.split(";")
            pairs = (one.partition("=") for one in rest)
            parameters = {key.upper(): given.strip('"') for key, _, given in pairs}
            yield at, name.strip().upper(), parameters, value.strip()
        held, at = line, number


def _spans(
    event: _Event, zone: ZoneInfo, moved: Mapping[str, Sequence[datetime]]
) -> list[tuple[int, int]]:
    if "DTSTART" not in event.single:
        msg = "an event without DTSTART"
        raise ValueError(msg)
    start = _moment(event.single["DTSTART"], event.text("DTSTART"), zone)
    length = _length(event, start, zone)
    gone = {one.local for one in _listed(event, "EXDATE", start, zone)}
    if "RECURRENCE-ID" not in event.single:
        gone |= set(moved.get(event.text("UID"), ()))
    occurrences: Iterable[datetime] = [start.local]
    if "RRULE" in event.single:
        occurrences = _occurrences(event.text("RRULE"), start)
    extra = [one.local for one in _listed(event, "RDATE", start, zone)]
    return [
        (_to_ms(local, start.zone, fold=0), _to_ms(local + length, start.zone, fold=1))
        for local in (*occurrences, *extra)
        if local not in gone
    ]


def _length(event: _Event, start: _Moment, zone: ZoneInfo) -> timedelta:
    if "DTEND" in event.single:
        end = _moment(event.single["DTEND"], event.text("DTEND"), zone)
        length = _in_zone(end, start.zone) - start.local
    elif "DURATION" in event.single:
        match = _DURATION.fullmatch(event.text("DURATION"))
        if match is None:
            msg = f"expected a DURATION such as PT2H, got {event.text('DURATION')!r:.40}"
            raise ValueError(msg)
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        length = timedelta(days=int(start.whole))
    if length < timedelta(0):
        msg = "DTEND is before DTSTART"
        raise ValueError(msg)
    return length


def _occurrences(text: str, start: _Moment) -> list[datetime]:
    """Return the local times at which an event begins; raises ValueError for what is not read."""
    if not _RULE.fullmatch(text.upper()):
        msg = f"expected an RRULE such as FREQ=WEEKLY;BYDAY=SA, got {text!r:.80}"
        raise ValueError(msg)
    parts = dict(part.split("=", 1) for part in text.upper().split(";"))
    if parts.get("FREQ") not in FREQUENCIES or parts.keys() & {"BYHOUR", "BYMINUTE", "BYSECOND"}:
        msg = f"expected an RRULE by one of {', '.join(FREQUENCIES)}, got {text!r:.80}"
        raise ValueError(msg)
    most, until = MAX_SPANS + 1, LAST
    if given := parts.pop("UNTIL", ""):
        read = _moment(_Property(0, given, {}), given, start.zone)
        # The day itself counts.
        until = (
            read.local + timedelta(days=1, microseconds=-1)
            if read.whole
            else _in_zone(read, start.zone)
        )
    if count := parts.pop("COUNT", ""):
        most = min(most, int(count))
    # A rule that nothing fits would be searched until the year 9999.
    rest = ";".join(f"{name}={value}" for name, value in parts.items())
    rule = rrulestr(f"RRULE:{rest}", dtstart=start.local)
    if not isinstance(rule, rrule):
        msg = f"expected one RRULE, got {text!r:.80}"
        raise TypeError(msg)
    found: list[datetime] = []
    for local in rule.replace(until=min(until, LAST)):
        if len(found) >= most:
            break
        found.append(local)
    return found


def _listed(event: _Event, name: str, start: _Moment, zone: ZoneInfo) -> Iterator[_Moment]:
    for one in event.lists.get(name, ()):
        for value in one.value.split(","):
            moment = _moment(one, value.partition("/")[0], zone)
            local = moment.local if moment.whole and start.whole else _in_zone(moment, start.zone)
            yield _Moment(local, start.zone, moment.whole)


def _moment(given: _Property, value: str, zone: tzinfo) -> _Moment:
    match = _MOMENT.fullmatch(value.strip())
    if match is None:
        msg = f"expected a time such as 20260301T220000, got {value!r:.40}"
        raise ValueError(msg)
    local = datetime.strptime(match[1] + (match[2] or "000000"), "%Y%m%d%H%M%S")  # noqa: DTZ007
    if match[3]:
        return _Moment(local, UTC, whole=False)
    name = given.parameters.get("TZID", "")
    if name:
        try:
            zone = ZoneInfo(name.lstrip("/"))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            msg = (
                f"expected the IANA name of a time zone such as Europe/Berlin, got {name!r:.60}: "
                "export the calendar with such names, or in UTC"
            )
            raise ValueError(msg) from None
    return _Moment(local, zone, whole=match[2] is None)


def _in_zone(moment: _Moment, zone: tzinfo) -> datetime:
    """Return a moment as the clocks of a zone show it."""
    if moment.zone == zone:
        return moment.local
    return moment.local.replace(tzinfo=moment.zone).astimezone(zone).replace(tzinfo=None)


def _to_ms(local: datetime, zone: tzinfo, *, fold: int) -> int:
    """Return a local time in ms; of one that comes twice, the first or the last (``fold``)."""
    return round(local.replace(tzinfo=zone, fold=fold).timestamp() * 1000)


def _merged(spans: Sequence[tuple[int, int]]) -> Spans:
    if not spans:
        return Spans(np.empty(0, np.int64), np.empty(0, np.int64))
    both = np.array(sorted(spans), np.int64)
    reach = np.maximum.accumulate(both[:, 1])
    first = np.concatenate([[True], both[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return Spans(both[first, 0], reach[last])
