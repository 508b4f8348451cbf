"""Series in files: CSV, Parquet or JSON lines as one batch of rows, every row kept in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME, texts_to_ms
from connectors.files import LABEL_NAMES, MAX_SHARE_UNREAD, TIME_NAMES
from streamad.errors import ConfigError, nearest
from streamad.records import MAX_ABS_VALUE, SignalBatch

BY_ROW = "row"
ONE_KEY = "series"
# Times up to these magnitudes are seconds, milliseconds, microseconds; beyond, nanoseconds.
_MAGNITUDES = ((1e11, 1_000.0), (1e14, 1.0), (1e17, 1e-3))
_SMALLEST_SECONDS = 1e8
ROW_MS = 300_000
"""What a row counts for where there is no time: five minutes, so that days mean something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file as rows of series.

    frame : the columns that matter, as they stand in the file; batch : the same, typed, one row a
    row of the file; usable : rows with a key and a time that can be read; columns : the variates;
    time, key : names of columns (None: the row number; one series); n_unreadable : cells that are
    no finite number and count as missing.
    """

    frame: pl.DataFrame
    batch: SignalBatch
    usable: NDArray[np.bool_]
    columns: tuple[str, ...]
    time: str | None
    key: str | None
    n_unreadable: int

    def __len__(self) -> int:
        return len(self.batch)


def read_table(
    path: Path,
    *,
    columns: Sequence[str] = (),
    time: str | None = None,
    key: str | None = None,
) -> Table:
    """Read a file; by default all numeric columns are variates, labels excepted.

    time : a column, or ``row`` for the row number; by default a column with a usual name
    """
    frame = _read(path)
    found_time = _time_column(frame, time)
    if key is not None:
        _require(frame, key, "--key")
    chosen = _value_columns(frame, columns, taken={found_time, key})
    values, n_unreadable = _values(frame, chosen)
    time_ms = _times(frame, found_time)
    keys = pl.Series(ONE_KEY, [ONE_KEY], dtype=pl.String).new_from_index(0, len(frame))
    if key is not None:
        keys = frame[key].cast(pl.String)
    usable = (time_ms != BAD_TIME) & keys.is_not_null().to_numpy()
    n = len(frame)
    batch = SignalBatch(
        keys=keys.fill_null(""),
        time_ms=time_ms,
        values=values,
        message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.zeros(1, np.int64),
        broker_ms=np.full(1, -1, np.int64),
    )
    return Table(
        frame=frame,
        batch=batch,
        usable=usable,
        columns=tuple(chosen),
        time=found_time,
        key=key,
        n_unreadable=n_unreadable,
    )


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write CSV, Parquet or JSON lines, by the suffix."""
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)


def check_output(path: Path) -> None:
    """Refuse a suffix nothing is written for, before any work is done."""
    if path.suffix not in {".csv", ".parquet", ".jsonl", ".ndjson"}:
        msg = f"{path}: the output must end with .csv, .parquet or .jsonl"
        raise ConfigError(msg)


def _read(path: Path) -> pl.DataFrame:
    readers = {
        ".csv": lambda: pl.read_csv(path, infer_schema_length=None, try_parse_dates=False),
        ".parquet": lambda: pl.read_parquet(path),
        ".jsonl": lambda: pl.read_ndjson(path, infer_schema_length=None),
        ".ndjson": lambda: pl.read_ndjson(path, infer_schema_length=None),
    }
    if path.suffix not in readers:
        msg = f"{path}: expected a .csv, .parquet or .jsonl file"
        raise ConfigError(msg)
    try:
        frame = readers[path.suffix]()
    except (OSError, pl.exceptions.PolarsError) as error:
        msg = f"{path}: cannot be read ({str(error).splitlines()[0]})"
        raise ConfigError(msg) from error
    if frame.width == 0 or len(frame) == 0:
        msg = f"{path}: has no rows"
        raise ConfigError(msg)
    return frame


def _require(frame: pl.DataFrame, name: str, option: str) -> None:
    if name not in frame.columns:
        near = nearest(name, frame.columns)
        hint = f"did you mean {near!r}?" if near else f"it has: {', '.join(frame.columns)}"
        msg = f"{option}: the file has no column {name!r}; {hint}"
        raise ConfigError(msg)


def _time_column(frame: pl.DataFrame, given: str | None) -> str | None:
    if given is not None:
        if given == BY_ROW and given not in frame.columns:
            return None
        _require(frame, given, "--time")
        return given
    lowered = {name.lower(): name for name in reversed(frame.columns)}
    return next((lowered[name] for name in TIME_NAMES if name in lowered), None)


def _value_columns(
    frame: pl.DataFrame, given: Sequence[str], *, taken: set[str | None]
) -> list[str]:
    for name in given:
        _require(frame, name, "--columns")
        if not _is_numeric(frame[name]):
            held = "texts" if frame[name].dtype == pl.String else str(frame[name].dtype)
            msg = f"--columns: {name!r} holds {held}, and a variate must be numeric"
            raise ConfigError(msg)
    if given:
        return list(dict.fromkeys(given))
    chosen = [
        name
        for name in frame.columns
        if name not in taken and name.lower() not in LABEL_NAMES and _is_numeric(frame[name])
    ]
    if not chosen:
        msg = f"the file has no numeric column to score; it has: {', '.join(frame.columns)}"
        raise ConfigError(msg)
    return chosen


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return column.dtype.is_numeric() or column.dtype == pl.Boolean
    # A few bad cells are missing values; they do not make a column of measurements one of texts.
    given = column.drop_nulls()
    bad = given.cast(pl.Float64, strict=False).null_count()
    return not given.is_empty() and bad <= MAX_SHARE_UNREAD * len(given)


def _values(frame: pl.DataFrame, columns: list[str]) -> tuple[NDArray[np.float64], int]:
    parts = [frame[name].cast(pl.Float64, strict=False).to_numpy() for name in columns]
    values = np.column_stack(parts).astype(np.float64)
    bad = ~(np.abs(values) <= MAX_ABS_VALUE)
    values[bad] = np.nan
    return values, int(bad.sum())


def _times(frame: pl.DataFrame, name: str | None) -> NDArray[np.int64]:
    """Return milliseconds; `BAD_TIME` where a cell holds no time.

    The unit of plain numbers is told from the first of them alone, so that no row depends on a
    later one.
    """
    if name is None:
        return np.arange(len(frame), dtype=np.int64) * ROW_MS
    column = frame[name]
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        whole = column.str.strip_chars().cast(pl.Int64, strict=False)
        first = column.is_not_null().arg_max() or 0
        if len(column) == 0 or numbers[first] is None:
            return texts_to_ms(column)
        column = whole if whole.null_count() == numbers.null_count() else numbers
    if column.dtype.is_temporal():
        physical = column.cast(pl.Datetime("ms")).to_physical()
        return physical.fill_null(BAD_TIME).to_numpy().astype(np.int64)
    if not column.dtype.is_numeric():
        msg = f"--time: column {name!r} holds {column.dtype}, which is not a time; try --time row"
        raise ConfigError(msg)
    return _numbers(column)


def _numbers(column: pl.Series) -> NDArray[np.int64]:
    known = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    finite = np.isfinite(known)
    first = float(np.abs(known[finite][0])) if finite.any() else 0.0
    factor = next((factor for limit, factor in _MAGNITUDES if first < limit), 1e-6)
    if column.dtype.is_integer() and first < _SMALLEST_SECONDS:
        # Steps of 1 count rows; of other numbers the order is all that matters.
        steps = np.diff(known[finite])
        factor = ROW_MS if len(steps) == 0 or np.median(steps) == 1.0 else 1.0
    result = np.full(len(column), BAD_TIME, np.int64)
    if column.dtype.is_integer() and factor >= 1.0:
        result[finite] = column.drop_nulls().to_numpy().astype(np.int64) * int(factor)
        return result
    result[finite] = np.floor(known[finite] * factor).astype(np.int64)
    return result
