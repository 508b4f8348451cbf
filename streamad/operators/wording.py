"""What an alert says in one line: what is strange, how far off, since when, how bad.

Read at 3 a.m. by someone who knows the service and not streamad: no jargon, no units invented,
numbers with as many digits as tell observed from expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from streamad.records import Explanation, Finding

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS: Final = 86_400_000
_ALSO_SHARE: Final = 0.2
"""Variates with at least this share of the score are named beside the first."""
_MOST_ALSO: Final = 2
_MAX_REASON_CHARS: Final = 160


def summarise(
    finding: Finding,
    *,
    resolved: bool,
    peak_severity: float,
    began_ms: int,
    past: bool = False,
    n_errors: int = 1,
) -> str:
    """Return the line; ``finding`` is the newest of its episode, ``began_ms`` when that began."""
    ended_ms = finding.window_end_ms
    dated = past or ended_ms - began_ms >= _DAY_MS
    since = f"since {clock(began_ms, dated=dated)} UTC"
    lasted = f"{clock(began_ms, dated=dated)} to {clock(ended_ms, dated=dated)} UTC"
    if finding.kind == "no_data":
        text = _no_data(finding, since=since, lasted=lasted, resolved=resolved)
    elif finding.kind == "error":
        text = _error(finding, since=since, lasted=lasted, resolved=resolved, n_errors=n_errors)
    else:
        text = _anomaly(finding, since=since, lasted=lasted, resolved=resolved)
        text += f"; {'peak severity' if resolved else 'severity'} {peak_severity:.1f}"
    if finding.degraded:
        text += f" [degraded: {finding.degraded}]"
    return text + " [past: it was found long after it happened]" if past else text


def _no_data(finding: Finding, *, since: str, lasted: str, resolved: bool) -> str:
    if not resolved:
        return f"{finding.key} sends no data {since}"
    how = finding.reason or "data again"
    return f"{finding.key}: {one_line(how)} (no data from {lasted})"


def _error(finding: Finding, *, since: str, lasted: str, resolved: bool, n_errors: int) -> str:
    times = f"{n_errors} windows" if n_errors > 1 else "1 window"
    if resolved:
        return f"{finding.key} is judged again; {finding.detector} failed on {times} from {lasted}"
    why = one_line(finding.reason)
    return f"{finding.key} is not judged: {finding.detector} failed on {times} {since} ({why})"


def _anomaly(finding: Finding, *, since: str, lasted: str, resolved: bool) -> str:
    if not resolved:
        return f"{_what(finding)} ({since})"
    if finding.reason:
        subject = _what(finding) if finding.explanation is not None else finding.key
        return f"{subject}: {one_line(finding.reason)} (strange from {lasted})"
    return f"{finding.key} is as usual again (strange from {lasted})"


def _what(finding: Finding) -> str:
    """Return ``host-1/cpu is 97.2, expected about 12.4``: the variate that tells most."""
    why = finding.explanation
    name = _first(why) if why is not None else None
    if why is None or name is None:
        return f"{finding.key} behaves strangely"
    observed, expected = numbers(why.observed[name], why.expected[name])
    subject = finding.key if len(why.observed) == 1 else f"{finding.key} {name}"
    return f"{subject} is {observed}, expected about {expected}{_also(why, name)}"


def _first(why: Explanation) -> str | None:
    """Return the variate with the largest share of those with known values."""
    known = [
        name for name in why.variates if _finite(why.observed, name) and _finite(why.expected, name)
    ]
    return max(known, key=lambda name: why.variates[name]) if known else None


def _also(why: Explanation, first: str) -> str:
    others = sorted(
        (name for name, share in why.variates.items() if name != first and share >= _ALSO_SHARE),
        key=lambda name: -why.variates[name],
    )
    return f"; also {' and '.join(others[:_MOST_ALSO])}" if others else ""


def _finite(values: Mapping[str, float], name: str) -> bool:
    value = values.get(name)
    return value is not None and math.isfinite(value)


def numbers(observed: float, expected: float) -> tuple[str, str]:
    """Return two numbers with as few digits as tell them apart, three at least.

    Examples
    --------
    >>> numbers(97.21, 12.4)
    ('97.2', '12.4')
    >>> numbers(1013.4, 1013.2)
    ('1013.4', '1013.2')
    >>> numbers(1.25e9, 310_000_000)
    ('1.25G', '310M')
    """
    for digits in range(3, 8):
        texts = number(observed, digits=digits), number(expected, digits=digits)
        if texts[0] != texts[1]:
            return texts
    return number(observed), number(expected)


def number(value: float, *, digits: int = 3) -> str:
    """Return a number as one says it: ``0.00123``, ``97.2``, ``12,400``, ``1.24M``.

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


def clock(time_ms: int, *, dated: bool = False) -> str:
    """Return a time of day in UTC, with its date where that matters.

    Examples
    --------
    >>> clock(1_700_000_000_123), clock(1_700_000_000_123, dated=True)
    ('22:13:20', '2023-11-14 22:13:20')
    """
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")


def one_line(text: str) -> str:
    """Return a reason that may hold a whole message as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_REASON_CHARS else line[: _MAX_REASON_CHARS - 3] + "..."
