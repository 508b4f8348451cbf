"""Series in files as the batches a topic would give: tables by columns, JSON lines as messages."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.codecs import Codec, make_codec
from connectors.codecs.fields import PER_SECOND, FieldMap, TimeUnit, look_up, times_to_ms, unit_of
from connectors.codecs.json_diagnosis import unit_hint
from connectors.codecs.rows import (
    Candidates,
    Fault,
    finish,
    mark_unheld,
    pass_over,
    settle,
    shorten,
    spread,
)
from connectors.files.documents import table_of
from connectors.files.moments import ROW_MS, Moments, read_moments
from connectors.files.numbers import read_numbers
from connectors.files.points import points_of
from connectors.files.roles import KEY_NAMES, Roles, decimal_commas, find_roles
from connectors.files.sheet import (
    GZIP,
    READER_ERRORS,
    Sheet,
    read_bytes,
    read_sheet,
    unreadable,
)
from connectors.files.times import BY_ROW
from streamad.errors import ConfigError, nearest
from streamad.records import MAX_ABS_VALUE, Decoded

BATCH_ROWS = 50_000
LINES = 20_000
DEFAULT = FieldMap()


@dataclass(slots=True)
class SeriesFile:
    """A file as batches.

    batches : to be read once; notes : what a reader must know of how it is read, complete once the
    first batch is there
    """

    batches: Iterator[Decoded]
    notes: list[str] = field(default_factory=list)


def read_series(
    path: str | Path,
    fields: FieldMap | None = None,
    *,
    codec: Codec | None = None,
    joint: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> SeriesFile:
    """Read a file in batches; offsets are numbers of rows (of lines), from 0.

    fields : names of columns; those of `FieldMap`'s defaults that the file lacks are found: the
        time by its name or content, the series by a usual name or where times repeat, and every
        other numeric column is a series of its own, labels excepted
    codec : reads the messages of JSON lines; by default JSON of these fields
    joint : take several found columns for the variates of one series

    Raises
    ------
    ConfigError
        where a column is not there or of a kind that cannot serve
    SourceUnavailableError
        where the file is not there or damaged

    Bad rows are rejections, as from a topic.
    """
    path, asked = Path(path), fields or DEFAULT
    if is_lines(path):
        reader = codec or make_codec("json", asked if fields is not None else _fit_lines(path))
        return SeriesFile(_read_lines(path, reader, min(batch_rows, LINES)))
    sheet = read_sheet(path)
    notes = list(sheet.notes)
    made = _rows(sheet, asked, joint=joint, notes=notes)
    batches = (
        made.decode(start, min(start + batch_rows, len(made)))
        for start in range(0, len(made), batch_rows)
    )
    return SeriesFile(batches, notes)


def read_messages(path: Path, codec: Codec) -> Iterator[Decoded]:
    """Read a file of messages: one a line where each line is JSON, else the file is one."""
    raw = read_bytes(path)
    messages = [line for line in raw.split(b"\n") if line.strip()]
    if not _are_records(messages):
        messages = [raw]
    for start in range(0, len(messages), LINES):
        batch = messages[start : start + LINES]
        offsets = np.arange(start, start + len(batch), dtype=np.int64)
        yield codec.decode(batch, offsets, np.full(len(batch), -1, np.int64))


def _are_records(lines: Sequence[bytes]) -> bool:
    try:
        return isinstance(orjson.loads(lines[0]), dict)
    except (ValueError, IndexError):
        return False


def is_lines(path: Path) -> bool:
    """Say whether a file holds messages, one a line, by its name."""
    return path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))


# ------------------------------------------------------------------ tables


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """A table as typed columns, in the order of time; ``row`` is where each stood in the file."""

    name: str
    frame: pl.DataFrame
    keys: pl.Series
    ms: NDArray[np.int64]
    values: NDArray[np.float64]
    unread: NDArray[np.bool_]
    row: NDArray[np.int64]
    texts: dict[str, pl.Series]
    fields: FieldMap
    time: str
    measured: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ms)

    def decode(self, start: int, stop: int) -> Decoded:
        """Turn some rows into a batch; each row counts as one message."""
        number, fields = stop - start, self.fields
        values, unread = self.values[start:stop], self.unread[start:stop]
        texts = {name: column[start:stop] for name, column in self.texts.items()}
        rows = Candidates(
            keys=self.keys[start:stop],
            time_ms=self.ms[start:stop],
            values=values,
            message=np.arange(number, dtype=np.int32),
            row=np.zeros(number, np.int32),
            tags={name: texts[name].fill_null("") for name in fields.carried},
            measured=fields.payload.measured,
        )
        pass_over(rows, texts, fields.where)
        if fields.variate is not None:
            spread(rows, values[:, 0], texts[fields.variate], fields.variates)
        rows.mark(unread.any(axis=1), "wrong_type")
        mark_unheld(rows, fields)

        def explain(index: int, reason: str) -> Fault:
            at = int(self.row[start + index])
            cells = {name: self.frame[name][at] for name in self.frame.columns}
            detail = f"{self.name}, row {at}: {self._why(cells, reason)}"
            column = self._at_fault(start + index, reason)
            return Fault(reason, detail, orjson.dumps(cells, default=str), column)

        good, rejected = settle(rows, explain)
        offsets = np.arange(start, stop, dtype=np.int64)
        broker_ms = np.full(number, -1, np.int64)
        return finish(good, rejected, fields, offsets=offsets, broker_ms=broker_ms)

    def _at_fault(self, index: int, reason: str) -> str:
        """Return the column for which a row is refused, empty where it is not one."""
        if reason == "bad_time":
            return self.time
        odd = np.empty(0, np.bool_)
        if reason == "wrong_type":
            odd = self.unread[index]
        elif reason == "too_large_value":
            odd = np.abs(self.values[index]) > MAX_ABS_VALUE
        if odd.any() and len(odd) == len(self.measured):
            return self.measured[int(odd.argmax())]
        if reason in ("empty_key", "key_too_long") and len(self.fields.key) == 1:
            return self.fields.key[0]
        if reason == "missing_field":
            names = dict(self.fields.roles)
            needed = (names[role] for role in self.fields.payload.needed)
            lacking = (name for name in needed if self.texts[name][index] in (None, ""))
            return next(lacking, "")
        return ""

    def _why(self, cells: dict[str, object], reason: str) -> str:
        named = {"bad_time": (self.time,), "wrong_type": self.measured}.get(reason, ())
        held = [f"{name} is {shorten(repr(cells[name]), 60)}" for name in named[:3]]
        hint = unit_hint(cells[self.time], self.fields.time_unit) if reason == "bad_time" else ""
        return (f"{reason} ({', '.join(held)})" if held else reason) + hint


def _roles(sheet: Sheet, fields: FieldMap) -> Roles:
    """Take the columns that the fields name; find what they name by default alone and is absent."""
    frame = sheet.frame
    asked = dict.fromkeys((*fields.key, fields.time, *fields.values, *_conditions(fields)))
    lost = {name for name in asked if name not in frame.columns}
    by_row = fields.time in lost and fields.time == BY_ROW
    lost -= {fields.time} if by_row else set()
    own = {*DEFAULT.key, DEFAULT.time, *DEFAULT.values}
    if fields.variate is not None or lost & {*_conditions(fields)}:
        own = set(DEFAULT.key)
    for name in asked:
        if name in lost and name not in own:
            near = nearest(name, frame.columns)
            hint = f"did you mean {near!r}? " if near else ""
            msg = f"{sheet.name} has no column {name!r}; {hint}it has {', '.join(frame.columns)}"
            raise ConfigError(msg)
    named = not lost & {*fields.values}
    found = Roles(frame=frame, time=fields.time, moments=None, key=fields.key, values={})
    if lost:
        found = find_roles(
            sheet,
            time=BY_ROW if by_row else None if fields.time in lost else fields.time,
            key=() if lost & {*fields.key} else fields.key,
            taken=(*(fields.values if named else ()), *_conditions(fields)),
            measure=not named,
        )
    if found.time is None and not by_row:
        msg = f"{sheet.name} has no column of times; it has {', '.join(frame.columns)}"
        raise ConfigError(msg)
    moments, values = found.moments, found.values
    if fields.time not in lost and not by_row:
        moments = Moments(_times(frame[fields.time], fields, sheet.name), fields.time_unit)
    if named:
        values = {
            name: read_numbers(frame[name], commas=decimal_commas(sheet)) for name in fields.values
        }
    return replace(found, moments=moments, values=values)


def _conditions(fields: FieldMap) -> tuple[str, ...]:
    variate = () if fields.variate is None else (fields.variate,)
    return (*variate, *(name for name, _ in fields.where))


def _rows(sheet: Sheet, fields: FieldMap, *, joint: bool, notes: list[str]) -> _Rows:
    roles = _roles(sheet, fields)
    named = tuple(roles.values) == fields.values
    points = points_of(roles, one=sheet.stem, joint=joint or named)
    if roles.moments is None:
        notes.append(f"the file has no times: each row counts as {ROW_MS // 60_000} min")
    elif roles.time != fields.time:
        notes.append(f"the time is {roles.time}")
    notes += points.notes
    texts = {name: _text(roles.frame, name).gather(points.row) for name in fields.texts}
    return _Rows(
        name=sheet.name,
        frame=roles.frame,
        keys=points.keys,
        ms=points.ms,
        values=points.values,
        unread=points.unread,
        row=points.row,
        texts=texts,
        fields=fields,
        time=str(roles.time),
        measured=tuple(roles.values),
    )


def _text(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        return pl.repeat("", frame.height, dtype=pl.String, eager=True)
    return frame[name].cast(pl.String)


def _times(column: pl.Series, fields: FieldMap, name: str) -> NDArray[np.int64]:
    """Read a column of times in the unit that the fields name."""
    if column.dtype.is_temporal() or (column.dtype == pl.String and fields.time_unit == "iso"):
        made = read_moments(column)
        # Epochs need their unit.
        if made is None or (column.dtype == pl.String and made.unit in (*PER_SECOND, "row")):
            return times_to_ms(column.cast(pl.String), "iso")
        return made.ms
    if column.dtype == pl.String:
        whole = column.str.strip_chars().cast(pl.Int64, strict=False)
        if whole.null_count() == column.null_count():
            return times_to_ms(whole, fields.time_unit)
        return times_to_ms(
            column.str.strip_chars().cast(pl.Float64, strict=False), fields.time_unit
        )
    if not column.dtype.is_numeric():
        msg = f"{name}: column {fields.time!r} holds {column.dtype}, which is no time"
        raise ConfigError(msg)
    if fields.time_unit == "iso":
        first = next(iter(column.drop_nulls()), 0.0)
        fits = unit_of(float(first))
        hint = f"; time_unit: {fits} reads it" if fits else ""
        msg = f"{name}: time_unit is iso, and column {fields.time!r} holds numbers ({first}){hint}"
        raise ConfigError(msg)
    return times_to_ms(column, fields.time_unit)


# ------------------------------------------------------------------ JSON lines


def _fit_lines(path: Path) -> FieldMap:
    """Return the fields of the first line."""
    first = next((line for line in _open(path) if line.strip()), b"")
    try:
        record = orjson.loads(first)
    except ValueError as error:
        msg = f"{path.name}: its first line is no JSON object ({error})"
        raise ConfigError(msg) from error
    if not isinstance(record, dict) or all(look_up(record, name) for name in DEFAULT.names):
        return DEFAULT
    sheet = Sheet(name=path.name, frame=table_of([record]))
    roles = find_roles(sheet)
    key = next((n for n in sheet.frame.columns if n.strip().lower() in KEY_NAMES), None)
    if key is None:
        msg = f"{path.name}: its objects have no field for the key ({', '.join(KEY_NAMES)})"
        raise ConfigError(msg)
    if roles.time is None or roles.moments is None:
        msg = f"{path.name}: its objects have no field for the time; they have {', '.join(record)}"
        raise ConfigError(msg)
    unit = roles.moments.unit if roles.moments.unit in PER_SECOND else "iso"
    values = tuple(name for name in roles.values if name != key)
    return FieldMap(key=(key,), time=roles.time, time_unit=cast("TimeUnit", unit), values=values)


def _read_lines(path: Path, codec: Codec, batch_rows: int) -> Iterator[Decoded]:
    lines = (line.rstrip(b"\r\n") for line in _open(path) if line.strip())
    start = 0
    while batch := list(islice(lines, batch_rows)):
        offsets = np.arange(start, start + len(batch), dtype=np.int64)
        yield codec.decode(batch, offsets, np.full(len(batch), -1, np.int64))
        start += len(batch)


def _open(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            yield from file
    except READER_ERRORS as error:
        raise unreadable(path, error) from error
