"""When nothing pages: silences of the alerting file, once, again and again, or by a calendar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from streamad.alerting.calendars import Spans, read_calendar
from streamad.alerting.matchers import parse_matchers
from streamad.config.section import Section

WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
_HOURS = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class SilenceConfig(Section):
    """A time in which matching incidents do not page."""

    name: str = Field(pattern=r"^[^/\x00-\x1f\x7f]{1,128}$")
    """Shown where it kept something from paging."""
    matchers: tuple[str, ...] = ()
    """As in Alertmanager: ``service=~"pay.*"``; all must match; none: everything matches. Names
    are entity fields, ``key``, ``group``, ``pipeline``, ``detector`` and ``kind``."""
    starts: str | None = None
    """ISO 8601; in ``zone`` where it has no offset: ``2026-03-01T22:00``."""
    ends: str | None = None
    """Its end; required with ``starts`` where nothing repeats."""
    days: tuple[Weekday, ...] = ()
    """Repeats on these days: ``[sat, sun]``; unset with ``hours``: every day."""
    hours: str = ""
    """Repeats between these local times: ``23:30-00:45``. A span over midnight belongs to the day
    it begins on."""
    calendar: str | None = None
    """A file of events in iCalendar: ``holidays.ics``."""
    zone: str = "UTC"
    """The time zone of all times without one: ``Europe/Berlin``."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        made = dict(given)
        for name in ("matchers", "days"):
            if isinstance(made.get(name), str):
                made[name] = (made[name],)
        for name in ("starts", "ends"):
            # YAML takes some of them for times.
            if isinstance(made.get(name), date):
                made[name] = made[name].isoformat()
        return made

    @field_validator("matchers")
    @classmethod
    def _readable(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        parse_matchers(given)
        return given

    @field_validator("hours")
    @classmethod
    def _is_span(cls, given: str) -> str:
        if given:
            parse_hours(given)
        return given

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, given: str) -> str:
        zone_of(given)
        return given

    @model_validator(mode="after")
    def _has_an_end(self) -> SilenceConfig:
        Times(self)
        repeats = self.days or self.hours or self.calendar
        if not repeats and not self.ends:
            msg = f"silence {self.name!r} has no end: give ends, or days, hours or a calendar"
            raise ValueError(msg)
        return self


class Times:
    """When a silence is in force.

    Local times are compared as clocks on the wall show them. So where clocks go back, an hour that
    comes twice is silent twice; where they go forward, an hour that does not come is not.
    """

    def __init__(self, config: SilenceConfig) -> None:
        self._zone = zone_of(config.zone)
        self._from_ms = _moment("starts", config.starts, self._zone)
        self._to_ms = _moment("ends", config.ends, self._zone)
        if self._from_ms is not None and self._to_ms is not None and self._to_ms <= self._from_ms:
            msg = f"ends ({config.ends}) must be later than starts ({config.starts})"
            raise ValueError(msg)
        self._days = frozenset(map(WEEK.index, config.days)) or frozenset(range(7))
        self._hours = parse_hours(config.hours) if config.hours else (0, DAY_MINUTES)
        self._repeats = bool(config.days or config.hours)
        self._spans: Spans | None = None
        if config.calendar:
            self._spans = read_calendar(config.calendar, zone=self._zone)

    def active(self, at_ms: int) -> bool:
        """Say whether it is in force at a time."""
        if self._from_ms is not None and at_ms < self._from_ms:
            return False
        if self._to_ms is not None and at_ms >= self._to_ms:
            return False
        if self._repeats and not self._repeated(at_ms):
            return False
        return self._spans is None or self._spans.holds(at_ms)

    def _repeated(self, at_ms: int) -> bool:
        local = datetime.fromtimestamp(at_ms / 1000, tz=self._zone)
        minute, (first, last) = local.hour * 60 + local.minute, self._hours
        day = local.weekday()
        if first < last:
            return day in self._days and first <= minute < last
        if minute >= first:
            return day in self._days
        return minute < last and (day - 1) % 7 in self._days


def parse_hours(text: str) -> tuple[int, int]:
    """Return the minutes of the day of a span's begin and end; raises ValueError.

    Examples
    --------
    >>> parse_hours("23:30-00:45"), parse_hours("22:00-24:00")
    ((1410, 45), (1320, 1440))
    """
    match = _HOURS.fullmatch(text)
    if match:
        first, last = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
        minutes = max(int(match[2]), int(match[4]))
        if minutes < 60 and first < DAY_MINUTES and last <= DAY_MINUTES and first != last:
            return first, last
    msg = f"expected a span of local times such as 22:00-06:00, got {text!r:.40}"
    raise ValueError(msg)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone; raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"expected the IANA name of a time zone such as Europe/Berlin, got {name!r:.60}"
        raise ValueError(msg) from None


def _moment(what: str, text: str | None, zone: ZoneInfo) -> int | None:
    """Return a time in ms; one without an offset is of the zone. Raises ValueError."""
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{what}: expected a time such as 2026-03-01T22:00, got {text!r:.40}"
        raise ValueError(msg) from None
    if read.tzinfo is None:
        # Of an hour that comes twice, a silence has both.
        read = read.replace(tzinfo=zone, fold=int(what == "ends"))
    return round(read.astimezone(UTC).timestamp() * 1000)
