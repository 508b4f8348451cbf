"""Offsets of a time zone over time, as arrays that a kernel can search."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

FIRST_YEAR, LAST_YEAR = 1970, 2070
_LONG_AGO = -(2**62)


def is_zone(name: str) -> bool:
    """Say whether a time zone of this name is known.

    Examples
    --------
    >>> is_zone("Europe/Berlin"), is_zone("Europe/Atlantis")
    (True, False)
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


@lru_cache(maxsize=32)
def offsets(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return from which times (ms UTC, ascending) which offsets to UTC (ms) hold.

    Examples
    --------
    >>> begins, offset = offsets("Europe/Berlin")
    >>> at = np.searchsorted(begins, 1_782_000_000_000, side="right") - 1  # June 2026
    >>> int(offset[at]) // 3_600_000
    2
    """
    zone = ZoneInfo(name)

    def offset(at: datetime) -> int:
        found = at.astimezone(zone).utcoffset() or timedelta()
        return int(found.total_seconds() * 1000)

    at = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    begins, found = [_LONG_AGO], [offset(at)]
    end, step = datetime(LAST_YEAR, 1, 1, tzinfo=UTC), timedelta(days=7)
    while at < end:
        after = at + step
        if offset(after) != found[-1]:
            low, high = at, after
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if offset(middle) == found[-1] else (low, middle)
            minute = high.replace(second=0, microsecond=0)
            begins.append(int(minute.timestamp() * 1000))
            found.append(offset(after))
        at = after
    return np.array(begins, np.int64), np.array(found, np.int64)
