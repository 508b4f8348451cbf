"""Where a partition is begun that nobody has worked on yet."""

from __future__ import annotations

from datetime import UTC, datetime

from streamad.errors import ConfigError
from streamad.ports import Log, Source


def start_time_ms(start: str) -> int | None:
    """Return the time ``input.start`` names, None for earliest and latest.

    Examples
    --------
    >>> start_time_ms("2026-01-01T00:00:00Z")
    1767225600000
    """
    if start in ("earliest", "latest"):
        return None
    try:
        moment = datetime.fromisoformat(start)
    except ValueError as error:
        msg = f"input.start must be earliest, latest or an ISO 8601 time, got {start!r}"
        raise ConfigError(msg) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def start_offset(start: str, log: Log, source: Source, first: int, after: int) -> int:
    """Return the offset to begin with; ``first`` and ``after`` bound the partition."""
    time_ms = start_time_ms(start)
    if time_ms is not None:
        return log.offset_at(source, time_ms)
    return first if start == "earliest" else after
