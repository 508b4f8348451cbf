"""Arrow IPC from Kafka, as a stream or a file: one message is one table of points.

Bytes from outside are checked before they are trusted: what compressed buffers claim to expand to,
that blocks of a file do not lie over each other, the number of rows, what dictionaries come to when
they are laid out, and offsets and texts by Arrow's full validation. Only the columns that the field
map names are read. Extension types are not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.codecs.arrow_claims import (
    DICTIONARY_BATCH,
    FILE_MAGIC,
    Message,
    claimed_by,
    file_messages,
    stream_messages,
)
from connectors.codecs.fields import FieldMap, numbers_to_ms, spellings, texts_to_ms
from connectors.codecs.json_lines import admit
from connectors.codecs.rows import (
    MAX_KEY_BYTES,
    Candidates,
    Fault,
    empty,
    finish,
    joined_key,
    mark_unheld,
    pass_over,
    settle,
    shorten,
    spread,
)
from streamad.records import Decoded, Rejected

MAX_EXPANSION = 16
"""Compressed buffers, and dictionaries laid out, may come to so many times the largest message."""

MAX_DICTIONARIES = 1_000
"""Dictionary batches of one message: each one may make Arrow copy all those before it."""

HAS_PANDAS = find_spec("pandas") is not None
"""Where it is not installed, `to_numpy` looks for it on the disk at every call."""

READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


class _RefusedError(ValueError):
    """A message is rejected as a whole, for a reason."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


READER_ERRORS = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    struct.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    MemoryError,
    OverflowError,
    NotImplementedError,
)


class ArrowCodec:
    """Decoder of Arrow IPC messages; fields are columns, a dot steps into a struct.

    Keys and tags are texts or integers, values integers or floats, the time a timestamp, or what
    ``time_unit`` says. Null and NaN mean the same: this row says nothing of that variate.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        self._fields = fields
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        self._plan: _Plan | None = None

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable rows of ``payloads`` and what had to be rejected; never raises."""
        rejected: list[Rejected] = []
        parts: list[_Part] = []
        admitted = admit(payloads, rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            try:
                parts.append(self._columns(self._read(text), place))
            except _RefusedError as error:
                rejected.append(_refuse(place, text, error.reason, str(error)))
            except READER_ERRORS as error:
                rejected.append(_refuse(place, text, INVALID, str(error) or type(error).__name__))
        tables = {part.place: part.table for part in parts}
        rows = self._candidates(parts)

        def explain(index: int, reason: str) -> Fault:
            table = tables[int(rows.message[index])]
            column = self._fields.time if reason == "bad_time" else ""
            return Fault(reason, "", _alone(table, int(rows.row[index])), column)

        good, refused = settle(rows, explain)
        return finish(good, rejected + refused, self._fields, offsets=offsets, broker_ms=broker_ms)

    def _read(self, text: bytes) -> pa.Table:
        body = pa.py_buffer(text)
        is_file = text[: len(FILE_MAGIC)] == FILE_MAGIC
        self._check_claims(file_messages(text) if is_file else stream_messages(body))
        opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
        with opened(body, options=READ_OPTIONS) as reader:
            plan = self._plan_of(reader.schema)
            if plan.takes_all:
                return self._table(reader, plan, is_file=is_file)
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=plan.wanted)
        with opened(body, options=options) as reader:
            return self._table(reader, plan, is_file=is_file)

    def _check_claims(self, messages: Iterable[Message]) -> None:
        """Refuse what would expand too far, before Arrow allocates it."""
        claimed = dictionaries = 0
        for message in messages:
            kind, expanded = claimed_by(message)
            claimed += expanded
            dictionaries += kind == DICTIONARY_BATCH
        self._check_expansion(claimed)
        if dictionaries > MAX_DICTIONARIES:
            detail = f"{dictionaries} dictionary batches, at most {MAX_DICTIONARIES} are read"
            raise _RefusedError(TOO_LARGE, detail)

    def _check_expansion(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes * MAX_EXPANSION:
            detail = f"it claims {n_bytes} bytes, at most {MAX_EXPANSION} times the bound are read"
            raise _RefusedError(TOO_LARGE, detail)

    def _plan_of(self, schema: pa.Schema) -> _Plan:
        """Return what to read of a schema; the last one is remembered, for most are alike."""
        if self._plan is None or not schema.equals(self._plan.schema):
            self._plan = self._new_plan(schema)
        return self._plan

    def _new_plan(self, schema: pa.Schema) -> _Plan:
        names = dict.fromkeys(way[0] for name in self._fields.names for way in spellings(name))
        found = [schema.get_all_field_indices(name) for name in names]
        if not any(found):
            raise _RefusedError(MISSING, f"none of {list(names)} among {schema.names[:50]}")
        wanted = sorted(indices[0] for indices in found if indices)
        kinds = [schema.field(index).type for index in wanted]
        flat = not any(pa.types.is_dictionary(kind) or kind.num_fields for kind in kinds)
        return _Plan(schema, wanted, len(wanted) == len(schema), flat)

    def _table(self, reader: Any, plan: _Plan, *, is_file: bool) -> pa.Table:
        numbers = range(reader.num_record_batches) if is_file else ()
        batches = map(reader.get_batch, numbers) if is_file else reader
        return pa.Table.from_batches(self._checked(batches, plan), reader.schema)

    def _checked(self, batches: Iterable[pa.RecordBatch], plan: _Plan) -> Iterator[pa.RecordBatch]:
        """Yield batches that may be looked at: flat ones as a whole, others column by column."""
        number = 0
        for batch in batches:
            number += batch.num_rows
            if number > self._max_rows:
                detail = f"more than {self._max_rows} rows; split the message"
                raise _RefusedError(TOO_MANY, detail)
            batch.validate(full=plan.flat)
            yield batch

    def _columns(self, table: pa.Table, place: int) -> _Part:
        fields = self._fields
        values = [self._value(table, name) for name in fields.values]
        needed = (*fields.key, fields.variate)
        return _Part(
            place,
            table,
            {name: self._text(table, name, needed=name in needed) for name in fields.texts},
            self._time(table),
            values[0].reshape(-1, 1)
            if len(values) == 1
            else np.stack(values, axis=1)
            if values
            else np.empty((table.num_rows, 0)),
        )

    def _candidates(self, parts: Sequence[_Part]) -> Candidates:
        """Put the columns of all messages together: checks cost by the batch, not the message."""
        fields = self._fields
        if not parts:
            return empty(fields.carried, len(fields.variate_names), fields)
        texts = {
            name: pl.Series(name, pa.chunked_array([part.texts[name] for part in parts], TEXT))
            for name in fields.texts
        }
        keys = [texts[name] for name in fields.key]
        values = np.concatenate([part.values for part in parts])
        sizes = [part.table.num_rows for part in parts]
        rows = Candidates(
            keys=joined_key(keys),
            time_ms=np.concatenate([part.time_ms for part in parts]),
            values=values,
            message=np.repeat(np.array([part.place for part in parts], np.int32), sizes),
            row=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
            tags={
                name: texts[name].fill_null("").str.slice(0, MAX_KEY_BYTES)
                for name in fields.carried
            },
            measured=fields.payload.measured,
        )
        pass_over(rows, texts, fields.where)
        if fields.variate is not None:
            spread(rows, values[:, 0], texts[fields.variate], fields.variates)
        mark_unheld(rows, fields)
        return rows

    def _column(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        found = next((at for way in spellings(name) if (at := _find(table, way)) is not None), None)
        if found is None:
            detail = f"no column {name!r} among {table.column_names}"
            raise _RefusedError(MISSING, detail)
        if not (self._flat() or pa.types.is_dictionary(found.type)):
            found.validate(full=True)
        return found

    def _flat(self) -> bool:
        return self._plan is not None and self._plan.flat

    def _text(self, table: pa.Table, name: str, *, needed: bool) -> pa.Array:
        if not needed and all(_find(table, way) is None for way in spellings(name)):
            return pa.nulls(table.num_rows, TEXT)
        found = self._column(table, name)
        if pa.types.is_dictionary(found.type):
            return self._plain(found)
        if not (_is_text(found.type) or pa.types.is_integer(found.type)):
            raise _RefusedError(WRONG, f"{name}: expected a text, got {found.type}")
        return _one(found.cast(TEXT))

    def _value(self, table: pa.Table, name: str) -> NDArray[np.float64]:
        if self._fields.roles and all(_find(table, way) is None for way in spellings(name)):
            return np.full(table.num_rows, np.nan)
        found = self._column(table, name)
        if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
            raise _RefusedError(WRONG, f"{name}: expected numbers, got {found.type}")
        # A signalling NaN of fewer bits is no reason for a warning: it is a NaN.
        with np.errstate(invalid="ignore"):
            return _numbers(found).astype(np.float64)

    def _plain(self, found: pa.ChunkedArray) -> pa.Array:
        """Lay a dictionary column out, its texts cut: one long text could stand in every row.

        Every batch brings its dictionary: a large one in thousands of batches is refused.
        """
        if not _is_text(found.type.value_type):
            raise _RefusedError(WRONG, f"expected a dictionary of texts, got {found.type}")
        read = laid_out = 0
        chunks = []
        for chunk in found.chunks:
            read += chunk.dictionary.nbytes
            self._check_expansion(read)
            chunk.validate(full=True)
            short = pc.utf8_slice_codeunits(chunk.dictionary.cast(TEXT), 0, MAX_KEY_BYTES + 1)
            laid_out += pc.sum(pc.binary_length(short).take(chunk.indices)).as_py() or 0
            self._check_expansion(laid_out)
            chunks.append(short.take(chunk.indices))
        return pa.concat_arrays(chunks) if chunks else pa.nulls(0, TEXT)

    def _time(self, table: pa.Table) -> NDArray[np.int64]:
        found, unit = self._column(table, self._fields.time), self._fields.time_unit
        if pa.types.is_timestamp(found.type):
            # The number alone is cast: a damaged time zone must not matter.
            return numbers_to_ms(_whole(found.cast(pa.int64())), found.type.unit)
        numeric = pa.types.is_integer(found.type) or pa.types.is_floating(found.type)
        if not (_is_text(found.type) if unit == "iso" else numeric):
            wanted = "texts" if unit == "iso" else f"a timestamp or numbers ({unit})"
            raise _RefusedError(WRONG, f"{self._fields.time}: expected {wanted}, got {found.type}")
        if unit == "iso":
            return texts_to_ms(pl.Series("", _one(found.cast(TEXT))))
        return numbers_to_ms(_whole(found), unit)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to read of messages with a schema.

    wanted : the numbers of the columns the field map names, the first of each name; flat : none of
        them has others inside, so that a batch is validated in one go
    """

    schema: pa.Schema
    wanted: list[int]
    takes_all: bool
    flat: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """The columns of one message that matter."""

    place: int
    table: pa.Table
    texts: dict[str, pa.Array]
    time_ms: NDArray[np.int64]
    values: NDArray[np.float64]


TEXT = pa.large_string()
INVALID, MISSING, WRONG = "invalid_arrow", "missing_field", "wrong_type"
TOO_MANY, TOO_LARGE = "too_many_rows", "oversized"


def _refuse(place: int, text: bytes, reason: str, detail: str) -> Rejected:
    return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _one(found: pa.ChunkedArray) -> pa.Array:
    combined = found.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _numbers(found: pa.ChunkedArray) -> NDArray[Any]:
    """Return the numbers of a validated column; nulls are NaN."""
    if HAS_PANDAS or found.null_count:
        return found.to_numpy()  # type: ignore[no-any-return]
    parts = [_view(chunk) for chunk in found.chunks if len(chunk)]
    kind = _dtype(found.type)
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, kind), *parts])


def _view(chunk: pa.Array) -> NDArray[Any]:
    kind = _dtype(chunk.type)
    return np.frombuffer(chunk.buffers()[1], kind, len(chunk), chunk.offset * kind.itemsize)


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    return np.dtype({"halffloat": "f2", "float": "f4", "double": "f8"}.get(str(kind), str(kind)))


def _whole(found: pa.ChunkedArray) -> NDArray[Any]:
    """Return numbers as they are; a null becomes a time that is none."""
    if pa.types.is_integer(found.type) and found.null_count:
        found = found.cast(pa.int64()).fill_null(-1)
    return _numbers(found)


def _find(table: pa.Table, way: tuple[str, ...]) -> pa.ChunkedArray | None:
    first, *rest = way
    # No name stands twice: only the first column of each was read.
    index = table.schema.get_field_index(first)
    if index < 0:
        return None
    found = table.column(index)
    for part in rest:
        if not pa.types.is_struct(found.type) or found.type.get_field_index(part) < 0:
            return None
        found = pc.struct_field(found, part)
    return found


def _alone(table: pa.Table, index: int) -> bytes:
    """Return a message of one row, so that it can be replayed without its neighbours.

    A dictionary would be written as a whole for its one text, and the schema's metadata each time.
    """
    row = table.slice(index, 1)
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in row.columns
    ]
    single = pa.table(columns, names=row.column_names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, single.schema) as writer:
        writer.write_table(single)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
