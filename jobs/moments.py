"""Moments as people write them: ISO 8601, epoch milliseconds, ``10m ago``, ``now``."""

from __future__ import annotations

from datetime import UTC, datetime

from streamad.config.values import parse_duration
from streamad.errors import ConfigError

_SECONDS_BELOW = 10**11
"""Smaller whole numbers are seconds: in milliseconds they would lie before March 1973."""


def parse_moment(text: str, *, now_ms: int) -> int:
    """Return milliseconds UTC; a time without a zone is UTC, as in everything streamad prints.

    Examples
    --------
    >>> parse_moment("2023-11-14T22:13:20Z", now_ms=0)
    1700000000000
    >>> parse_moment("1700000000", now_ms=0) == parse_moment("1700000000000", now_ms=0)
    True
    >>> parse_moment("10m ago", now_ms=700_000)
    100000
    """
    given = text.strip()
    if given.lower() == "now":
        return now_ms
    if given.removeprefix("-").isdigit():
        number = int(given)
        return number * 1000 if abs(number) < _SECONDS_BELOW else number
    try:
        if given.lower().endswith("ago"):
            return now_ms - parse_duration(given[:-3].strip())
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        msg = (
            f"{text!r} is not a time; write 2026-03-01T12:00:00Z, milliseconds since 1970, "
            "'10m ago' or 'now'"
        )
        raise ConfigError(msg) from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
