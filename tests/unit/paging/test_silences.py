"""When nothing pages: local times, clocks that change, calendars, and matchers without traps."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from streamad.alerting.calendars import MAX_SPANS, spans_of
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.alerting.matchers import parse_matcher
from streamad.alerting.times import SilenceConfig, Times
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.paging.desk import Desk
from tests.machine import least_cpu_s
from tests.unit.paging.test_answers import NOON, Stage, finding

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = 60_000


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def times(**settings: object) -> Times:
    return Times(SilenceConfig.model_validate({"name": "s", "zone": "Europe/Berlin", **settings}))


def minutes_silent(one: Times, day: str) -> int:
    """Return how many minutes of a day of Berlin, which may have 23 or 25 hours, are silent."""
    first = ms(f"{day}T00:00", "Europe/Berlin")
    after = datetime.fromtimestamp(first / 1000 + 30 * 3600, tz=BERLIN).strftime("%Y-%m-%d")
    last = ms(f"{after}T00:00", "Europe/Berlin")
    return sum(one.active(at) for at in range(first, last, MINUTE))


def test_once_in_the_zone_it_names():
    one = times(starts="2026-07-01T22:00", ends="2026-07-02T02:00")
    edges = ("2026-07-01T19:59", "2026-07-01T20:00", "2026-07-01T23:59", "2026-07-02T00:00")
    assert [one.active(ms(at)) for at in edges] == [False, True, True, False]


def test_a_span_over_midnight_belongs_to_the_day_it_begins_on():
    one = times(days=["fri"], hours="23:30-00:45")
    local = ("2026-07-03T23:29", "2026-07-03T23:30", "2026-07-04T00:44", "2026-07-04T00:45")
    assert [one.active(ms(at, "Europe/Berlin")) for at in local] == [False, True, True, False]
    assert not one.active(ms("2026-07-03T00:10", "Europe/Berlin")), "of Thursday night"
    assert not one.active(ms("2026-07-04T23:45", "Europe/Berlin")), "Saturday"


@pytest.mark.parametrize(
    ("day", "silent"),
    [
        ("2026-03-28", 90),
        ("2026-03-29", 30),  # 02:00 to 03:00 does not come
        ("2026-10-25", 150),  # and comes twice
        ("2026-10-26", 90),
    ],
)
def test_a_span_follows_the_clock_on_the_wall_both_ways(day: str, silent: int):
    assert minutes_silent(times(hours="02:00-03:30"), day) == silent


def test_a_night_is_silent_throughout_when_clocks_change():
    assert minutes_silent(times(days=["sat", "sun"]), "2026-03-29") == 23 * 60
    assert minutes_silent(times(days=["sat", "sun"]), "2026-10-25") == 25 * 60


CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:freeze
DTSTART;TZID=Europe/Berlin:20260301T220000
DTEND;TZID=Europe/Berlin:20260302T020000
RRULE:FREQ=WEEKLY;BYDAY=SU;UNTIL=20260531T200000Z
EXDATE;TZID=Europe/Berlin:20260315T220000
BEGIN:VALARM
TRIGGER:-PT15M
DURATION:PT999H
END:VALARM
END:VEVENT
BEGIN:VEVENT
UID:freeze
RECURRENCE-ID;TZID=Europe/Berlin:20260322T220000
DTSTART;TZID=Europe/Berlin:20260323T
 220000
DURATION:PT1H
END:VEVENT
BEGIN:VEVENT
UID:holiday
DTSTART;VALUE=DATE:20251225
DTEND;VALUE=DATE:20251227
RRULE:FREQ=YEARLY
END:VEVENT
BEGIN:VEVENT
UID:off
STATUS:CANCELLED
DTSTART:20260601T000000Z
DURATION:P30D
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("at", "silent"),
    [
        ("2026-03-01T22:00", True),
        ("2026-03-02T01:59", True),
        ("2026-03-02T02:00", False),
        ("2026-03-15T23:00", False),  # left out
        ("2026-03-22T23:00", False),  # moved ...
        ("2026-03-23T22:30", True),  # ... to here, on a folded line
        ("2026-03-29T22:30", True),  # the clocks have changed
        ("2026-05-31T22:00", True),  # the last: UNTIL is 22:00 here
        ("2026-06-07T23:00", False),
        ("2029-12-26T23:59", True),
        ("2029-12-27T00:00", False),
        ("2026-06-15T12:00", False),
    ],
)
def test_a_calendar_is_read_with_its_rules_and_exceptions(at: str, silent: object, tmp_path: Path):
    (tmp_path / "team.ics").write_text(CALENDAR, newline="")
    one = times(calendar=str(tmp_path / "team.ics"))
    assert one.active(ms(at, "Europe/Berlin")) is silent


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("DTSTART:20260101T000000Z\nRRULE:FREQ=SECONDLY", "RRULE by one of DAILY"),
        ("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;BYMINUTE=1,2,3", "RRULE by one of DAILY"),
        ("DTSTART:2026-01-01", "expected a time such as 20260301T220000"),
        ("DTSTART;TZID=W. Europe Standard Time:20260101T000000", "IANA name"),
        ("SUMMARY:nothing", "without DTSTART"),
    ],
)
def test_a_calendar_that_cannot_be_read_names_the_line(lines: str, why: str):
    text = f"BEGIN:VCALENDAR\nBEGIN:VEVENT\n{lines}\nEND:VEVENT\nEND:VCALENDAR"
    with pytest.raises(ValueError, match=why) as error:
        spans_of(text, BERLIN)
    assert str(error.value).startswith("line 2")


def test_a_rule_that_nothing_fits_and_one_without_end_take_no_time():
    never = "DTSTART:19700101T000000Z\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31;COUNT=3"
    daily = "DTSTART:20200101T000000Z\nDURATION:PT1M\nRRULE:FREQ=DAILY"
    event = "BEGIN:VEVENT\n{}\nEND:VEVENT\n"
    began = time.process_time()
    text = f"BEGIN:VCALENDAR\n{event.format(never)}{event.format(daily)}END:VCALENDAR"
    assert 29_000 < len(spans_of(text, BERLIN).starts) < MAX_SPANS
    assert time.process_time() - began < 20
    with pytest.raises(ValueError, match=f"more than {MAX_SPANS}"):
        spans_of(f"BEGIN:VCALENDAR\n{event.format(daily) * 3}END:VCALENDAR", BERLIN)


@pytest.mark.parametrize(
    ("text", "value", "fits"),
    [
        ('service="pay"', "pay", True),
        ("service!=pay", "pay", False),
        ('host=~"web-[0-9]+"', "web-12", True),
        ('host=~"web"', "web-12", False),  # anchored
        ('host!~"web-.*|db"', "db", False),
        ('host=~""', "", True),
        (r'path="a\"b\\c"', 'a"b\\c', True),
    ],
)
def test_matchers_are_those_of_alertmanager(text: str, value: str, fits: object):
    assert parse_matcher(text).matches(value) is fits


@pytest.mark.parametrize(
    "text",
    ["service", '="x"', 'a=~"("', 'a=~"x)|(?:y"', r'a=~"(a)\1"', 'a=~"(?=x)"', "a=" + "x" * 600],
)
def test_what_is_no_matcher_is_refused_with_the_reason(text: str):
    with pytest.raises(ValueError, match=r"matcher such as|regular expression of RE2"):
        parse_matcher(text)


def test_no_expression_takes_long():
    began = time.process_time()
    assert not parse_matcher('a=~"(a*)*(a|a)*(a|aa)+b"').matches("a" * 100_000)
    with pytest.raises(ValueError, match="RE2"):
        parse_matcher('a=~"(?:(?:(?:a{900}){900}){900})"')
    assert time.process_time() - began < 5


def test_many_silences_take_no_time_where_many_incidents_are_open():
    """Matchers are looked at once an alert; each second only those silences that match."""
    silences = [
        {"name": f"s{n}", "matchers": [f'key=~"db-{n}-.*"'], "hours": "00:00-23:59"}
        for n in range(99)
    ]
    stage = Stage(silences=[*silences, {"name": "all", "hours": "00:00-23:59"}])
    for n in range(300):
        stage.find(finding(f"e{n}", key=f"k{n}", entity={"host": f"k{n}"}, group=f"g{n}"))
    assert len(stage.state.incidents) == 300
    stage.desk.tick(stage.state, NOON + 20_000)
    work = itertools.count(21_000, 1_000)
    spent_s = least_cpu_s(lambda: stage.desk.tick(stage.state, NOON + next(work)), allowed_s=0.1)
    assert spent_s < 0.1
    assert {life.last.withheld for life in stage.state.incidents.values()} == {"silence: all"}


def test_a_silence_without_an_end_and_other_mistakes_are_told_with_their_line(tmp_path: Path):
    file = tmp_path / "alerting.yaml"
    top = "name: ops\nfindings: streamad.p.findings\nsilences:\n  - name: s\n"
    for lines, why in [
        ("    matchers: ['a=b']", "has no end"),
        ("    hours: 22-6", "expected a span of local times"),
        ("    hours: 22:00-06:00\n    zone: CEST", "IANA name"),
        ("    days: [sunday]", "days"),
        ("    starts: 2026-03-01T22:00\n    ends: 2026-03-01T21:00", "must be later than"),
        ("    calendar: nowhere.ics", "cannot be read"),
        ("    hours: 1:00-2:00\n    matchers: ['a=~\"(\"']", "RE2"),
    ]:
        file.write_text(f"{top}{lines}\n")
        with pytest.raises(ConfigError, match=why):
            load_alerting(file, environment={})


def test_the_defaults_of_a_pipeline_have_no_silence():
    config = AlertingConfig.of(PipelineConfig(name="p"))
    assert Desk(config).config.silences == ()
