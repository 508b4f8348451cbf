"""Series in files (CSV, Parquet, JSON lines, gzipped or not) as the batches a topic would give."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.codecs import make_codec
from connectors.codecs.fields import FieldMap, TimeUnit, look_up, times_to_ms
from connectors.codecs.rows import Candidates, finish, joined_key, pass_over, settle, spread
from streamad.errors import ConfigError, SourceUnavailableError, nearest
from streamad.records import Decoded

BATCH_ROWS = 50_000
TIME_NAMES = ("timestamp", "time", "ts", "datetime", "date", "event_time", "timestamp_ms")
KEY_NAMES = ("key", "series", "series_id", "entity", "id")
LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly", "target", "class")
"""Columns that say what is an anomaly: never a variate, or the answer would be an input."""

MAX_SHARE_UNREAD = 0.2

NO_KEY = "\0file"
"""Stands for the key of a file that holds one series: it is named after the file."""

MAGNITUDES: Sequence[tuple[float, TimeUnit]] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
READER_ERRORS = (pl.exceptions.PolarsError, OSError, EOFError)


@dataclass(frozen=True, slots=True)
class _Series:
    """A file as columns, with the map that fits them."""

    path: Path
    frame: pl.DataFrame
    fields: FieldMap


def read_series(
    path: str | Path, fields: FieldMap | None = None, *, batch_rows: int = BATCH_ROWS
) -> Iterator[Decoded]:
    """Yield the rows of a file in batches; offsets are row numbers, from 0.

    fields : by default the time is a column with a usual name (its unit told by its size), the key
        a column with a usual name or else the file's own, and all other numeric columns are
        variates, labels excepted

    Raises ConfigError where a column is not there, SourceUnavailableError where the file cannot be
    read. Bad rows are rejections, as from a topic.
    """
    path = Path(path)
    kind = next((s for s in SUFFIXES if path.name.removesuffix(".gz").endswith(s)), None)
    if kind is None:
        msg = f"{path.name}: the name must end with one of {', '.join(SUFFIXES)}, or these and .gz"
        raise ConfigError(msg)
    if kind in (".jsonl", ".ndjson"):
        yield from _read_lines(path, fields, batch_rows)
        return
    frame = _read_columns(path, kind)
    series = _Series(path, frame, _fit(path, frame, fields))
    for start in range(0, frame.height, batch_rows):
        yield _decode(series, start, min(start + batch_rows, frame.height))


def detect_fields(path: str | Path) -> FieldMap:
    """Return the map that ``read_series`` would use for a file."""
    path = Path(path)
    kind = next((s for s in SUFFIXES if path.name.removesuffix(".gz").endswith(s)), ".csv")
    if kind in (".jsonl", ".ndjson"):
        return _fit_lines(path)
    return _fit(path, _read_columns(path, kind), None)


def _unreadable(path: Path, error: Exception) -> SourceUnavailableError:
    return SourceUnavailableError(f"{path} cannot be read: {str(error) or type(error).__name__}")


def _read_columns(path: Path, kind: str) -> pl.DataFrame:
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        # All columns as text: a bad cell then spoils its row, not its column.
        return pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True)
    except pl.exceptions.NoDataError as error:
        msg = f"{path.name} is empty"
        raise ConfigError(msg) from error
    except READER_ERRORS as error:
        raise _unreadable(path, error) from error


def _fit(path: Path, frame: pl.DataFrame, fields: FieldMap | None) -> FieldMap:
    if fields is None:
        return _guess(path, frame)
    for name in fields.names:
        if name not in frame.columns and name not in (*fields.tags, NO_KEY):
            near = nearest(name, frame.columns)
            hint = f"did you mean {near!r}? " if near else ""
            msg = f"{path.name} has no column {name!r}; {hint}it has {', '.join(frame.columns)}"
            raise ConfigError(msg)
    return fields


def _guess(path: Path, frame: pl.DataFrame) -> FieldMap:
    folded = {name.strip().lower(): name for name in reversed(frame.columns)}
    time = next((folded[name] for name in TIME_NAMES if name in folded), None)
    if time is None:
        msg = (
            f"{path.name} has no column that is named like a time ({', '.join(TIME_NAMES)}); "
            f"it has {', '.join(frame.columns)}: set fields.time"
        )
        raise ConfigError(msg)
    key = next((folded[name] for name in KEY_NAMES if name in folded), NO_KEY)
    values = tuple(
        name
        for name in frame.columns
        if name not in (time, key)
        and name.strip().lower() not in LABEL_NAMES
        and _is_numeric(frame[name])
    )
    if not values:
        msg = (
            f"{path.name} has no numeric column beside {time!r}; it has {', '.join(frame.columns)}"
        )
        raise ConfigError(msg)
    return FieldMap(key=(key,), time=time, time_unit=_unit(frame[time]), values=values)


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype.is_numeric():
        return True
    if column.dtype != pl.String:
        return False
    # A few bad cells are rows to reject; they do not make a column of measurements one of texts.
    given = column.head(1000).drop_nulls()
    unread = given.cast(pl.Float64, strict=False).null_count()
    return not given.is_empty() and unread <= MAX_SHARE_UNREAD * len(given)


def _unit(column: pl.Series) -> TimeUnit:
    if column.dtype.is_temporal():
        return "ms"
    numbers = column.head(1000).cast(pl.Float64, strict=False).drop_nulls().drop_nans()
    if numbers.is_empty():
        return "iso"
    middle = numbers.abs().median()
    size = middle if isinstance(middle, float) else 0.0
    return next((unit for bound, unit in MAGNITUDES if size < bound), "ns")


def _decode(series: _Series, start: int, stop: int) -> Decoded:
    """Turn rows ``start`` to ``stop`` into a batch; each row counts as one message."""
    fields = series.fields
    frame = series.frame[start:stop]
    number = stop - start
    texts = {name: _text(series, frame, name) for name in fields.texts}
    keys = [texts[name] for name in fields.key]
    values = np.column_stack([_numbers(frame[name]) for name in fields.values])
    rows = Candidates(
        keys=joined_key(keys),
        time_ms=_times(frame[fields.time], fields),
        values=values,
        message=np.arange(number, dtype=np.int32),
        row=np.zeros(number, np.int32),
        tags={name: texts[name].fill_null("") for name in fields.tags},
    )
    pass_over(rows, texts, fields.where)
    if fields.variate is not None:
        spread(rows, values[:, 0], texts[fields.variate], fields.variates)
    for name in fields.values:
        rows.mark((frame[name].is_not_null() & _unread(frame[name])).to_numpy(), "wrong_type")
    rows.mark(np.isnan(values).all(axis=1), "missing_field")

    def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
        row = {name: frame[name][index] for name in frame.columns}
        detail = f"{series.path.name}, row {start + index}: {reason}"
        return reason, detail, orjson.dumps(row, default=str)

    good, rejected = settle(rows, explain)
    offsets = np.arange(start, stop, dtype=np.int64)
    return finish(good, rejected, offsets=offsets, broker_ms=np.full(number, -1, np.int64))


def _text(series: _Series, frame: pl.DataFrame, name: str) -> pl.Series:
    if name == NO_KEY:
        stem = series.path.name.partition(".")[0]
        return pl.repeat(stem, frame.height, dtype=pl.String, eager=True)
    if name not in frame.columns:
        return pl.repeat("", frame.height, dtype=pl.String, eager=True)
    return frame[name].cast(pl.String)


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64, strict=False).to_numpy()


def _unread(column: pl.Series) -> pl.Series:
    # An empty cell of a CSV file is a missing value, as a null is elsewhere.
    blank = column.str.strip_chars() == "" if column.dtype == pl.String else pl.Series([False])
    return column.cast(pl.Float64, strict=False).is_null() & ~blank


def _times(column: pl.Series, fields: FieldMap) -> NDArray[np.int64]:
    if column.dtype.is_temporal():
        return times_to_ms(column.cast(pl.Datetime("ms")).dt.timestamp("ms"), "ms")
    if column.dtype == pl.String and fields.time_unit != "iso":
        whole = column.str.strip_chars().cast(pl.Int64, strict=False)
        if whole.null_count() == column.null_count():
            return times_to_ms(whole, fields.time_unit)
        return times_to_ms(column.cast(pl.Float64, strict=False), fields.time_unit)
    return times_to_ms(column, fields.time_unit)


def _open(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except READER_ERRORS as error:
        raise _unreadable(path, error) from error


def _fit_lines(path: Path) -> FieldMap:
    first = next((line for line in _open(path) if line.strip()), b"")
    try:
        record = orjson.loads(first)
    except ValueError as error:
        msg = f"{path.name}: its first line is no JSON object ({error})"
        raise ConfigError(msg) from error
    default = FieldMap()
    if not isinstance(record, dict) or all(look_up(record, name) for name in default.key):
        return default
    cells = {name: [value] for name, value in record.items() if not isinstance(value, (dict, list))}
    return _guess(path, pl.DataFrame(cells, strict=False))


def _read_lines(path: Path, fields: FieldMap | None, batch_rows: int) -> Iterator[Decoded]:
    found = _fit_lines(path) if fields is None else fields
    if NO_KEY in found.key:
        msg = f"{path.name}: its objects have no field for the key ({', '.join(KEY_NAMES)})"
        raise ConfigError(msg)
    codec = make_codec("json", found)
    lines = (line.rstrip(b"\r\n") for line in _open(path) if line.strip())
    start = 0
    while batch := list(islice(lines, batch_rows)):
        offsets = np.arange(start, start + len(batch), dtype=np.int64)
        yield codec.decode(batch, offsets, np.full(len(batch), -1, np.int64))
        start += len(batch)


def one_series(fields: FieldMap) -> FieldMap:
    """Return the map for a file that holds a single series, which is named after the file."""
    return replace(fields, key=(NO_KEY,))
