"""Arrow IPC from Kafka, as a stream or a file: one message is one table of points.

Bytes from outside are checked before they are trusted: what compressed buffers claim to expand to,
the number of rows, and offsets and texts by Arrow's full validation. Extension types are not used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap, numbers_to_ms, texts_to_ms
from connectors.codecs.json_lines import admit
from connectors.codecs.rows import (
    MAX_KEY_BYTES,
    Candidates,
    empty,
    finish,
    settle,
    shorten,
    spread,
)
from streamad.records import Decoded, Rejected

MAX_EXPANSION = 16
"""Compressed buffers may claim no more than this many times the largest message."""

FILE_MAGIC = b"ARROW1"

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

        def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
            table = tables[int(rows.message[index])]
            return reason, "", _alone(table, int(rows.row[index]))

        good, refused = settle(rows, explain)
        return finish(good, rejected + refused, offsets=offsets, broker_ms=broker_ms)

    def _read(self, text: bytes) -> pa.Table:
        body = pa.py_buffer(text)
        is_file = text[: len(FILE_MAGIC)] == FILE_MAGIC
        claimed = sum(map(_claimed_by, file_messages(text) if is_file else stream_messages(body)))
        if claimed > self._max_bytes * MAX_EXPANSION:
            detail = f"its buffers claim {claimed} bytes, at most {MAX_EXPANSION} times the bound"
            raise _RefusedError(TOO_LARGE, detail)
        opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
        with opened(body, options=READ_OPTIONS) as reader:
            numbers = range(reader.num_record_batches) if is_file else ()
            batches = map(reader.get_batch, numbers) if is_file else reader
            return pa.Table.from_batches(self._checked(batches), reader.schema)

    def _checked(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        number = 0
        for batch in batches:
            number += batch.num_rows
            if number > self._max_rows:
                detail = f"more than {self._max_rows} rows; split the message"
                raise _RefusedError(TOO_MANY, detail)
            batch.validate(full=True)
            yield batch

    def _columns(self, table: pa.Table, place: int) -> _Part:
        fields = self._fields
        values = [self._value(table, name) for name in fields.values]
        return _Part(
            place,
            table,
            {
                name: self._text(table, name, needed=name not in fields.tags)
                for name in fields.texts
            },
            self._time(table),
            values[0].reshape(-1, 1) if len(values) == 1 else np.column_stack(values),
        )

    def _candidates(self, parts: Sequence[_Part]) -> Candidates:
        """Put the columns of all messages together: checks cost by the batch, not the message."""
        fields = self._fields
        if not parts:
            return empty(fields.tags, len(fields.variate_names))
        texts = {
            name: pl.Series(name, pa.chunked_array([part.texts[name] for part in parts], TEXT))
            for name in fields.texts
        }
        keys = [texts[name] for name in fields.key]
        values = np.concatenate([part.values for part in parts])
        sizes = [part.table.num_rows for part in parts]
        rows = Candidates(
            keys=keys[0] if len(keys) == 1 else pl.select(_joined(keys)).to_series(),
            time_ms=np.concatenate([part.time_ms for part in parts]),
            values=values,
            message=np.repeat(np.array([part.place for part in parts], np.int32), sizes),
            row=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
            tags={
                name: texts[name].fill_null("").str.slice(0, MAX_KEY_BYTES) for name in fields.tags
            },
        )
        if fields.variate is not None:
            spread(rows, values[:, 0], texts[fields.variate], fields.variates)
        rows.mark(np.isnan(values).all(axis=1), "missing_field")
        return rows

    def _column(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        first, *rest = name.split(".")
        if first not in table.column_names:
            detail = f"no column {name!r} among {table.column_names}"
            raise _RefusedError(MISSING, detail)
        found = table.column(table.column_names.index(first))
        for part in rest:
            found = pc.struct_field(found, part)
        return found

    def _text(self, table: pa.Table, name: str, *, needed: bool) -> pa.Array:
        if not needed and name.partition(".")[0] not in table.column_names:
            return pa.nulls(table.num_rows, TEXT)
        found = self._column(table, name)
        if pa.types.is_dictionary(found.type):
            return _plain(found)
        if not (_is_text(found.type) or pa.types.is_integer(found.type)):
            raise _RefusedError(WRONG, f"{name}: expected a text, got {found.type}")
        return _one(found.cast(TEXT))

    def _value(self, table: pa.Table, name: str) -> NDArray[np.float64]:
        found = self._column(table, name)
        if not (pa.types.is_integer(found.type) or pa.types.is_floating(found.type)):
            raise _RefusedError(WRONG, f"{name}: expected numbers, got {found.type}")
        return found.to_numpy().astype(np.float64)  # type: ignore[no-any-return]

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


def _whole(found: pa.ChunkedArray) -> NDArray[Any]:
    """Return numbers as they are; a null becomes a time that is none."""
    if pa.types.is_integer(found.type) and found.null_count:
        found = found.cast(pa.int64()).fill_null(-1)
    return found.to_numpy()  # type: ignore[no-any-return]


def _plain(found: pa.ChunkedArray) -> pa.Array:
    """Lay a dictionary column out, its texts cut first: one long text could stand in every row."""
    if not _is_text(found.type.value_type):
        raise _RefusedError(WRONG, f"expected a dictionary of texts, got {found.type}")
    chunks = [
        pc.utf8_slice_codeunits(chunk.dictionary.cast(TEXT), 0, MAX_KEY_BYTES + 1).take(
            chunk.indices
        )
        for chunk in found.chunks
    ]
    return pa.concat_arrays(chunks) if chunks else pa.nulls(0, TEXT)


def _joined(keys: Sequence[pl.Series]) -> pl.Expr:
    return pl.concat_str([pl.lit(key) for key in keys], separator="/")


def _alone(table: pa.Table, index: int) -> bytes:
    """Return a message of one row, so that it can be replayed without its neighbours."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.slice(index, 1))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


# The few fields of Arrow's flatbuffers that say what a compressed buffer expands to. Arrow itself
# allocates that many bytes before it looks at the data.
HEADER_TYPE, HEADER = 1, 2
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
DICTIONARY_DATA = 1
BUFFERS, COMPRESSION = 2, 3
BUFFER_BYTES = 16
FOOTER_DICTIONARIES, FOOTER_BATCHES = 2, 3
BLOCK_BYTES = 24
CONTINUES = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an IPC stream or file: its flatbuffer, where that begins, and its body."""

    metadata: memoryview
    body: memoryview


def stream_messages(body: pa.Buffer) -> Iterator[Message]:
    """Yield the messages of a stream; raises an Arrow error where it is none."""
    for message in pa.ipc.MessageReader.open_stream(body):
        yield Message(memoryview(message.metadata), memoryview(message.body or b""))


def file_messages(text: bytes) -> Iterator[Message]:
    """Yield the batches that a file's footer lists; raises ``struct.error`` or ``ValueError``."""
    view = memoryview(text)
    tail = len(text) - len(FILE_MAGIC) - 4
    length = struct.unpack_from("<i", view, max(tail, 0))[0]
    if not 0 < length <= tail:
        msg = "the file has no footer"
        raise ValueError(msg)
    footer = view[tail - length : tail]
    root = struct.unpack_from("<I", footer, 0)[0]
    for listed in (FOOTER_DICTIONARIES, FOOTER_BATCHES):
        at = _field(footer, root, listed)
        if at:
            yield from _blocks(view, footer, _follow(footer, at))


def _blocks(view: memoryview, footer: memoryview, vector: int) -> Iterator[Message]:
    number = struct.unpack_from("<I", footer, vector)[0]
    if number > len(footer) // BLOCK_BYTES:
        msg = f"{number} blocks do not fit the footer"
        raise ValueError(msg)
    for index in range(number):
        start, head, size = struct.unpack_from("<qi4xq", footer, vector + 4 + index * BLOCK_BYTES)
        if min(start, head, size) < 0:
            msg = "a block of the footer lies outside the file"
            raise ValueError(msg)
        metadata = view[start : start + head]
        # Writers before 2019 put only the length before the flatbuffer, others a mark first.
        skip = 8 if metadata[:4] == CONTINUES else 4
        yield Message(metadata[skip:], view[start + head : start + head + size])


def _claimed_by(message: Message) -> int:
    """Return how many bytes the compressed buffers of a message say they expand to."""
    metadata = message.metadata
    root = struct.unpack_from("<I", metadata, 0)[0]
    kind_at = _field(metadata, root, HEADER_TYPE)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH):
        return 0
    batch = _follow(metadata, _field(metadata, root, HEADER))
    if kind == DICTIONARY_BATCH:
        batch = _follow(metadata, _field(metadata, batch, DICTIONARY_DATA))
    if not _field(metadata, batch, COMPRESSION):
        return 0
    vector = _follow(metadata, _field(metadata, batch, BUFFERS))
    number = struct.unpack_from("<I", metadata, vector)[0]
    if number > len(metadata) // BUFFER_BYTES:
        msg = f"{number} buffers do not fit the message"
        raise ValueError(msg)
    total = 0
    for index in range(number):
        start, length = struct.unpack_from("<qq", metadata, vector + 4 + index * BUFFER_BYTES)
        if length > 0:
            # -1 marks a buffer that was left as it is.
            total += max(struct.unpack_from("<q", message.body, start)[0], 0)
    return total


def _field(metadata: memoryview, table: int, field: int) -> int:
    """Return where a field of a flatbuffer table lies, 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        msg = "a flatbuffer points outside itself"
        raise ValueError(msg)
    slot = 4 + 2 * field
    if slot + 2 > struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + slot)[0]
    return table + offset if offset else 0


def _follow(metadata: memoryview, at: int) -> int:
    return at + int(struct.unpack_from("<I", metadata, at)[0])
