"""Which column of a table is its time."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from connectors.codecs.fields import BAD_TIME
from connectors.files.moments import CLOCK, Moments, plain_epochs, read_moments
from connectors.files.sheet import Sheet, require_column
from streamad.errors import ConfigError

TIME_NAMES = (
    "timestamp", "time", "ts", "datetime", "date", "event_time", "timestamp_ms", "@timestamp",
    "_time", "date_time", "date time", "timestamp_utc", "time_utc", "utc", "epoch", "unix_time",
    "ds", "datum", "zeit", "fecha",
)  # fmt: skip

BY_ROW = "row"
"""Asked for as the time: the number of the row."""

TICK = "tick"
"""The name of a column of numbers that count on where there are no moments."""

MOST_TICKS = 100_000_000
DAY_MS = 86_400_000


def find_time(
    sheet: Sheet, given: str | None, *, taken: Collection[str]
) -> tuple[str | None, Moments | None]:
    """Return the column of times and what it holds; None, None where the row number serves.

    Raises
    ------
    ConfigError
        where the given column is not there or holds no times
    """
    frame = sheet.frame
    if given == BY_ROW and given not in frame.columns:
        return None, None
    if given is not None:
        return given, _given(frame, given)
    folded = {name.strip().lower(): name for name in reversed(frame.columns)}
    usual = [sheet.time, *(folded.get(name) for name in TIME_NAMES)]
    by_name = [name for name in usual if name is not None]
    # By content only what can be nothing else.
    by_content = [name for name in frame.columns if _is_nothing_else(frame[name])]
    for name in dict.fromkeys((*by_name, *by_content)):
        moments = read_moments(frame[name]) if name not in taken else None
        if moments is not None:
            return name, moments
    return None, None


def tick_column(frame: pl.DataFrame) -> str | None:
    """Return the column of ticks: numbers too small for moments, under that name."""
    name = next((name for name in frame.columns if name.strip().lower() == TICK), None)
    return name if name is not None and is_ticks(frame[name]) else None


def is_ticks(column: pl.Series) -> bool:
    """Say whether a column holds whole numbers that are too small to be moments."""
    numbers = column.cast(pl.Int64, strict=False)
    most = numbers.max()
    return not numbers.null_count() and isinstance(most, int) and most < MOST_TICKS


def _given(frame: pl.DataFrame, name: str) -> Moments:
    require_column(frame, name, "--time")
    moments = read_moments(frame[name])
    if moments is None:
        example = next((str(cell) for cell in frame[name].drop_nulls().head(1)), "nothing")
        msg = (
            f"--time: column {name!r} holds no times ({example!r} ...); try --time row, which "
            "takes the number of the row"
        )
        raise ConfigError(msg)
    return moments


def _is_nothing_else(column: pl.Series) -> bool:
    if column.dtype.is_temporal():
        return True
    if column.dtype != pl.String and not column.dtype.is_numeric():
        return False
    numbers = column.cast(pl.Float64, strict=False)
    texts = column.dtype == pl.String and numbers.null_count() == len(column)
    return texts or plain_epochs(numbers)


def with_clock(
    frame: pl.DataFrame, time: str, moments: Moments
) -> tuple[pl.DataFrame, str, Moments]:
    """Join a column of dates alone with the one of times of day beside it, where there is one."""
    known = moments.ms[moments.ms != BAD_TIME]
    if frame[time].dtype == pl.String and len(known) and (known % DAY_MS == 0).all():
        for name in frame.columns:
            if name != time and _is_clock(frame[name]):
                both = (frame[time] + " " + frame[name]).alias(f"{time} {name}")
                read = read_moments(both)
                if read is not None:
                    return frame.with_columns(both).drop(time, name), both.name, read
    return frame, time, moments


def _is_clock(cells: pl.Series) -> bool:
    if cells.dtype != pl.String or cells.null_count() == len(cells):
        return False
    return bool(cells.drop_nulls().str.strip_chars().str.contains(CLOCK).all())
