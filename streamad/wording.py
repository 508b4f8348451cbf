"""The one line of an alert: which value is anomalous, how far off, since when, how severe.

Read at 3 a.m. by someone who knows the service and not streamad: no jargon, no units invented,
numbers with as many digits as tell observed from expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from streamad.records import Explanation, Finding, Part
from streamad.shown import safe_text

ADOPTED: Final = "adopted as the new normal"
DATA_AGAIN: Final = "data again"
"""Reasons of findings that have a line of their own; any other is added as it stands."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_SHORT_MS: Final = 10 * _MINUTE_MS
"""Spans shorter than this are given to the second, unless both ends are whole minutes."""
_LATE_SHARE: Final = 0.075
"""An event is over once more than this share of the newest window, at its end, holds none of it:
2 samples of 16, 5 of 64."""
_NOTHING: Final = 1e-6
"""Share of the other number below which a number is told as 0."""
_ALSO_SHARE: Final = 0.2
"""Variates with at least this share of the score are named beside the first."""
_MOST_ALSO: Final = 2
_MAX_REASON_CHARS: Final = 160
_PAST: Final = " [past: found long after it happened]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What an alert knows of its event beside the newest finding.

    began_ms, until_ms : first and last anomalous sample; shown : the values to name, from inside
    the event; over : it ended before it was reported; past : reported long after it happened;
    n_errors : windows the detector failed on, or alerts that were not sent.
    """

    began_ms: int
    until_ms: int
    peak_severity: float
    shown: Explanation | None
    over: bool = False
    past: bool = False
    n_errors: int = 1


def summarise(finding: Finding, event: Event, *, resolved: bool) -> str:
    """Return the line; ``finding`` is the newest one of the event."""
    if finding.kind == "no_data":
        text = _no_data(finding, event, resolved=resolved)
    elif finding.kind == "error":
        text = _error(finding, event, resolved=resolved)
    elif finding.kind == "quarantine":
        text = f"{finding.key}: a message is quarantined {_since(event, finding.window_end_ms)}"
        text += _because(finding)
    elif finding.kind == "clock":
        since = _since(event, finding.window_end_ms)
        text = f"{finding.key}: event times are not usable {since}{_because(finding)}"
    elif finding.kind == "flood":
        since = _since(event, finding.window_end_ms)
        text = f"{not_sent(finding.key, event.n_errors)} {since}{_because(finding)}"
    elif resolved:
        text = f"{_ended(finding, event)}{_note(event)}; peak severity {event.peak_severity:.1f}"
    else:
        text = f"{_open(finding, event)}{_note(event)}; severity {event.peak_severity:.1f}"
        text += _because(finding)
    if finding.degraded:
        text += f" [degraded: {finding.degraded}]"
    # Keys and reasons are what producers sent; this line is read on terminals.
    return safe_text(text + _PAST if event.past else text)


def is_over(finding: Finding, *, began_ms: int, until_ms: int) -> bool:
    """Say whether the event of an open episode had ended well before the newest window did.

    began_ms, until_ms : of the event by all its findings

    Where the last anomalous sample is the one the score belongs to, nothing after it was looked at
    yet, and the event may go on; a single sample is no more than that sample either way.
    """
    tail_ms = finding.window_end_ms - until_ms
    if tail_ms <= (finding.window_end_ms - finding.window_start_ms) * _LATE_SHARE:
        return False
    why = finding.explanation
    return why is None or until_ms > why.time_ms or until_ms == began_ms


def flapping(times: int, within_ms: int) -> str:
    """Return the reason of a finding on a key whose episodes begin and end again and again.

    >>> flapping(5, 3_600_000)
    'began 5 times in 1 h'
    """
    return f"began {times} times in {duration(within_ms)}"


def frozen(samples: int) -> str:
    """Return the reason of a finding on a series that stands still where it never did.

    >>> frozen(48)
    'the value has not changed for 48 samples'
    """
    return f"the value has not changed for {samples} samples"


# ---------------------------------------------------------------------- kinds of alerts


def _no_data(finding: Finding, event: Event, *, resolved: bool) -> str:
    if not resolved:
        return f"{finding.key} has sent no data {_since(event, finding.window_end_ms)}"
    lasted, times = duration(event.until_ms - event.began_ms), _span(event)
    if finding.reason in ("", DATA_AGAIN):
        return f"{finding.key} is sending data again after {lasted} without ({times})"
    return f"{finding.key} sent no data for {lasted} ({times}){_because(finding)}"


def _error(finding: Finding, event: Event, *, resolved: bool) -> str:
    if resolved:
        return f"{resumed(finding.key, finding.detector, event.n_errors)} ({_when(event)})"
    windows = _windows(event.n_errors)
    since, why = _since(event, finding.window_end_ms), one_line(finding.reason)
    text = f"detector failing on {finding.key}: {finding.detector} failed on {windows} {since}"
    return f"{text} ({why})" if why else text


def resumed(key: str, detector: str, n_errors: int) -> str:
    """Return what an error alert says once windows of its key are scored again."""
    return f"scoring resumed on {key}: {detector} had failed on {_windows(n_errors)}"


def not_sent(group: str, n: int) -> str:
    """Return what a flood alert reports.

    >>> not_sent("web", 57)
    'too many alerts of web: 57 were not sent'
    """
    return f"too many alerts of {group}: {n} {'was' if n == 1 else 'were'} not sent"


def _windows(n: int) -> str:
    return "1 window" if n == 1 else f"{n} windows"


def _open(finding: Finding, event: Event) -> str:
    subject = f"{finding.key} {_variate(event.shown)}".rstrip()
    if event.shown is not None and event.shown.text:
        subject += ":"
    if not event.over and not event.past:
        state = _values(event.shown, "is") or "has been anomalous"
        return f"{subject} {state}{_comma(event)}{_since(event, finding.window_end_ms)}"
    state = _values(event.shown, "was") or "was anomalous"
    near_ms = finding.window_end_ms
    when = _when(event, near_ms=near_ms) if event.over else _since(event, near_ms)
    return f"{subject} {state}{_comma(event)}{when}"


def _comma(event: Event) -> str:
    return ", " if _values(event.shown, "is") else " "


def _ended(finding: Finding, event: Event) -> str:
    single = event.until_ms <= event.began_ms
    lasted = "" if single else f" after {duration(event.until_ms - event.began_ms)}"
    variate, values = _variate(event.shown), _values(event.shown, "was")
    subject = f"{finding.key} {variate}".rstrip()
    if event.shown is not None and event.shown.text and finding.reason != ADOPTED:
        subject += ":"
    if finding.reason == ADOPTED:
        level = _level(event.shown)
        return f"{subject}: new {level} adopted as normal{lasted} ({_when(event)})"
    if finding.reason:
        values = values or "was anomalous"
        return f"{subject} {values}{_comma(event)}{_when(event)}{_because(finding)}"
    text = f"{finding.key} is back to normal"
    named = f"{variate} {values}".lstrip()
    if single and values:
        return f"{text}: {named}, {_when(event)}"
    return f"{text}{lasted} ({_when(event)})" + (f": {named}" if values else "")


def _note(event: Event) -> str:
    """Return what the detector adds of itself, as one that knows how certain it is."""
    return f"; {one_line(event.shown.note)}" if event.shown and event.shown.note else ""


def _because(finding: Finding) -> str:
    return f"; {one_line(finding.reason)}" if finding.reason else ""


# ---------------------------------------------------------------------- values


def _variate(why: Explanation | None) -> str:
    """Return the variate with most of the score, empty where there is only one, or a reason."""
    if why is None or why.text or len(why.variates) < 2:
        return ""
    return _first(why) or ""


def _values(why: Explanation | None, verb: str) -> str:
    """Return ``is 97.2, expected about 12.4``, or the reason; empty where nothing is known."""
    if why is not None and why.text:
        return one_line(why.text)
    name = _first(why)
    if why is None or name is None:
        return ""
    observed, expected = both_numbers(why, name)
    return f"{verb} {observed}, expected about {expected}{_also(why, name)}"


def _level(why: Explanation | None) -> str:
    name = _first(why)
    if why is None or name is None:
        return "behaviour"
    return f"level about {both_numbers(why, name)[0]}"


def _first(why: Explanation | None) -> str | None:
    """Return the variate with the largest share of those with known values."""
    if why is None:
        return None
    known = [
        name for name in why.variates if _finite(why.observed, name) and _finite(why.expected, name)
    ]
    return max(known, key=lambda name: why.variates[name]) if known else None


def _also(why: Explanation, first: str) -> str:
    others = sorted(
        (name for name, share in why.variates.items() if name != first and share >= _ALSO_SHARE),
        key=lambda name: -why.variates[name],
    )
    return f" (also {' and '.join(others[:_MOST_ALSO])})" if others else ""


def _finite(values: Mapping[str, Part], name: str) -> bool:
    value = values.get(name)
    return isinstance(value, (int, float)) and math.isfinite(value)


def both_numbers(why: Explanation, name: str) -> tuple[str, str]:
    """Return what was observed and expected of a part as texts; ``-`` where nothing is known."""
    observed, expected = why.observed.get(name), why.expected.get(name)
    if isinstance(observed, (int, float)) and isinstance(expected, (int, float)):
        return numbers(observed, expected)
    return _text_of(observed), _text_of(expected)


def _text_of(part: Part | None) -> str:
    if part is None:
        return "-"
    return part if isinstance(part, str) else number(part)


def numbers(observed: float, expected: float) -> tuple[str, str]:
    """Return two numbers with as few digits as tell them apart, three at least.

    Less than a millionth of the other number is 0: nobody is told of 1.52e-09 per cent.

    Examples
    --------
    >>> numbers(97.21, 12.4)
    ('97.2', '12.4')
    >>> numbers(1013.4, 1013.2)
    ('1013.4', '1013.2')
    >>> numbers(1.25e9, 310_000_000)
    ('1.25G', '310M')
    >>> numbers(100.0, 1.52e-9)
    ('100', '0')
    """
    least = max(abs(observed), abs(expected)) * _NOTHING
    observed, expected = (0.0 if abs(x) < least else x for x in (observed, expected))
    for digits in range(3, 8):
        texts = number(observed, digits=digits), number(expected, digits=digits)
        if texts[0] != texts[1]:
            return texts
    return number(observed), number(expected)


def number(value: float, *, digits: int = 3) -> str:
    """Return a number as one reads it aloud: ``0.00123``, ``97.2``, ``12,400``, ``1.24M``.

    Examples
    --------
    >>> [number(x) for x in (0, 0.00123456, -97.25, 1234.5, 12_400, 1.244e6, 3e-7)]
    ['0', '0.00123', '-97.2', '1234', '12,400', '1.24M', '3e-07']
    """
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-4 <= size < 1e15:
        return f"{value:.{digits}g}"
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= scale:
            return _rounded(value / scale, digits) + suffix
    return _rounded(value, digits)


def _rounded(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}" if abs(value) >= 10_000 else f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# ---------------------------------------------------------------------- times


def duration(length_ms: int) -> str:
    """Return a length of time in the units a person reads it in, two of them at most.

    >>> [duration(ms) for ms in (250, 40_000, 90_000, 745_000, 12_000_000, 187_200_000)]
    ['250 ms', '40 s', '1 min 30 s', '12 min', '3 h 20 min', '2 d 4 h']
    """
    if length_ms < _SECOND_MS:
        return f"{length_ms} ms"
    unit = _SECOND_MS if length_ms < _SHORT_MS else _MINUTE_MS if length_ms < _DAY_MS else _HOUR_MS
    left, words = (length_ms + unit // 2) // unit * unit, []
    for size, name in ((_DAY_MS, "d"), (_HOUR_MS, "h"), (_MINUTE_MS, "min"), (_SECOND_MS, "s")):
        if left >= size:
            words.append(f"{left // size} {name}")
            left %= size
    return " ".join(words)


def _since(event: Event, now_ms: int) -> str:
    """Return ``since 12:25 UTC``, dated if that was another day; ``from`` of an old event."""
    began = event.began_ms
    seconds = now_ms - began < _SHORT_MS
    hour = _hour(began, seconds=seconds)
    word = "from" if event.past else "since"
    if not event.past and _day(began, year=True) == _day(now_ms, year=True):
        return f"{word} {hour} UTC"
    year = event.past or _year(began) != _year(now_ms)
    return f"{word} {_day(began, year=year)} {hour} UTC"


def _when(event: Event, *, near_ms: int | None = None) -> str:
    """Return ``12:25 to 12:37 UTC, 1 March``, or ``at 12:25 UTC, 1 March`` of a single sample.

    near_ms : leave the date out if it is the one of this time, that of the report
    """
    began, until = event.began_ms, event.until_ms
    if until > began:
        return _span(event, near_ms=near_ms)
    text = f"at {_hour(began, seconds=True)} UTC"
    return text + _dated(event, near_ms)


def _span(event: Event, *, near_ms: int | None = None) -> str:
    began, until = event.began_ms, max(event.began_ms, event.until_ms)
    seconds = until - began < _SHORT_MS and bool(began % _MINUTE_MS or until % _MINUTE_MS)
    first, last = (_hour(ms, seconds=seconds, whole=False) for ms in (began, until))
    if _day(began, year=True) == _day(until, year=True):
        return f"{first} to {last} UTC{_dated(event, near_ms)}"
    year = event.past or _year(began) != _year(until)
    return f"{_day(began, year=year)} {first} to {_day(until, year=year)} {last} UTC"


def _dated(event: Event, near_ms: int | None) -> str:
    until = max(event.began_ms, event.until_ms)
    day = _day(until, year=True)
    if near_ms is not None and not event.past and day == _day(near_ms, year=True):
        return ""
    return f", {day if event.past else _day(until)}"


def _moment(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)


def _year(time_ms: int) -> int:
    return _moment(time_ms).year


def _day(time_ms: int, *, year: bool = False) -> str:
    moment = _moment(time_ms)
    date = f"{moment.day} {_MONTHS[moment.month - 1]}"
    return f"{date} {moment.year}" if year else date


def _hour(time_ms: int, *, seconds: bool, whole: bool = True) -> str:
    """Return a time of day; with ``whole``, seconds are left out where they are zero."""
    moment = _moment(time_ms)
    return f"{moment:%H:%M:%S}" if seconds and (moment.second or not whole) else f"{moment:%H:%M}"


def clock(time_ms: int, *, dated: bool = False) -> str:
    """Return a time of day in UTC, with its date where that matters.

    Examples
    --------
    >>> clock(1_700_000_000_123), clock(1_700_000_000_123, dated=True)
    ('22:13:20', '2023-11-14 22:13:20')
    """
    return _moment(time_ms).strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")


def one_line(text: str) -> str:
    """Return a reason that may hold a whole message as one short line."""
    return safe_text(" ".join(text.split()), _MAX_REASON_CHARS)
