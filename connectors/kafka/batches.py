"""Record batches as a consumer reads them: whatever a producer wrote, reading comes to its end.

kafka-python expands a batch without limit, knows zstd and snappy only where further libraries are
installed, and on a batch or a header that it cannot read raises once and then waits for ever. Here
every codec of Kafka is read, up to a bound; what cannot be read comes as a record without a value
that says why, and the stream goes on behind it. A batch whose checksum is wrong was not written by
a producer: it is read anew, and reported each time (`connectors.kafka.member` gives up in the end).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import numpy as np
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from numpy.typing import NDArray

from connectors.kafka.columns import HEADER_BYTES, Block, UnreadableError, content_of

MAX_BATCH_BYTES = 64 * 2**20
"""A batch that expands to more is not read: brokers limit what is sent, not what it becomes."""

MAX_POLL_BYTES = 64 * 2**20
"""One poll stops after so many bytes: of what comes from few compressed ones there is no end."""

Out = NDArray[np.uint8]

_LEAST_BYTES = 2**18
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_FULL = "write whole buffer"


class _Unreadable(DefaultRecord):  # type: ignore[misc]
    """Stands for what cannot be read; ``checksum``, which no producer can set, says why."""

    __slots__ = ("_why",)

    def __init__(self, offset: int, batch: DefaultRecordBatch, why: str) -> None:
        super().__init__(0, offset, batch.first_timestamp, batch.timestamp_type, None, None, [])
        self._why = why

    @property
    def checksum(self) -> str:
        """Return the reason."""
        return self._why


class RecordBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that iterates to its end: one record stands for what cannot be read.

    columns : whether one record, whose value is a `Block`, stands for the plain ones at its begin
    """

    __slots__ = ("_columns",)

    def __init__(self, buffer: Any, *, columns: bool = False) -> None:
        super().__init__(buffer)
        self._columns = columns

    def __iter__(self) -> Iterator[DefaultRecord]:
        """Yield the records; offsets rise, and none is above that of the batch's last."""
        before, pos, done = self.base_offset - 1, 0, 0
        try:
            data = expanded(bytes(memoryview(self._buffer)[self._pos :]), self.compression_type)
            if self._columns:
                block, pos = self._plain(data)
                if block is not None:
                    before, done = block.offset, len(block)
                    yield DefaultRecord(
                        block.size, before, self.max_timestamp, self.timestamp_type, None, block, []
                    )
                    if before >= self.last_offset:
                        return
            for _ in range(done, self._num_records):
                record, pos = self._read(data, pos, before)
                before = record.offset
                yield record
                if before >= self.last_offset:
                    return
        except UnreadableError as error:
            part = f"the batch of offsets {before + 1} to {self.last_offset}"
            yield _Unreadable(self.last_offset, self, f"{part} cannot be read: {error}")

    def _plain(self, data: bytes) -> tuple[Block | None, int]:
        by_broker = self.timestamp_type == self.LOG_APPEND_TIME
        return Block.read(
            data,
            self._num_records,
            (self.base_offset, self.last_offset),
            self.max_timestamp if by_broker else self.first_timestamp,
            by_broker=by_broker,
        )

    def _read(self, data: bytes, pos: int, before: int) -> tuple[DefaultRecord, int]:
        """Read one record; raises UnreadableError where its end or its offset cannot be told."""
        try:
            length, start = decode_varint(data, pos)
            _, pos = decode_varint(data, start)
            ts_delta, pos = decode_varint(data, pos)
            offset_delta, pos = decode_varint(data, pos)
        except (ValueError, IndexError):
            msg = "a record is cut off"
            raise UnreadableError(msg) from None
        end, offset = start + length, self.base_offset + offset_delta
        if not pos <= end <= len(data):
            msg = "a record is longer than its batch"
            raise UnreadableError(msg)
        if not before < offset <= self.last_offset:
            msg = "offsets do not rise"
            raise UnreadableError(msg)
        try:
            key, value, headers = content_of(data, pos, end)
        except (ValueError, IndexError) as error:
            return _Unreadable(offset, self, f"the record cannot be read: {error}"), end
        by_broker = self.timestamp_type == self.LOG_APPEND_TIME
        time_ms = self.max_timestamp if by_broker else self.first_timestamp + ts_delta
        made = DefaultRecord(length, offset, time_ms, self.timestamp_type, key, value, headers)
        return made, end


def expanded(data: bytes, codec: int) -> bytes:
    """Return the records of a batch; raises UnreadableError, also beyond `MAX_BATCH_BYTES`.

    codec : of the batch's attributes: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd
    """
    if codec == DefaultRecordBatch.CODEC_NONE:
        return data
    if codec not in _CODECS:
        msg = f"codec {codec} is unknown"
        raise UnreadableError(msg)
    name, into = _CODECS[codec]
    room = min(max(_LEAST_BYTES, 8 * len(data)), MAX_BATCH_BYTES)
    while True:
        # Filled from the front: what is not needed is never touched.
        out = np.empty(room, np.uint8)
        try:
            return out[: into(data, out)].tobytes()
        except cramjam.DecompressionError as error:
            full = _FULL in str(error)
            if not full:
                msg = f"its {name} data are damaged"
                raise UnreadableError(msg) from None
        if room == MAX_BATCH_BYTES:
            msg = f"its {name} data expand to more than {MAX_BATCH_BYTES} bytes"
            raise UnreadableError(msg)
        room = min(8 * room, MAX_BATCH_BYTES)


def _snappy_into(data: bytes, out: Out) -> int:
    """Expand snappy, of one block or framed as the Java client does (xerial)."""
    if not data.startswith(_XERIAL):
        return _block_into(data, out)
    done, pos = 0, _XERIAL_HEADER_BYTES
    while pos < len(data):
        if len(data) < pos + 4:
            raise cramjam.DecompressionError
        (number,) = struct.unpack_from(">i", data, pos)
        pos += 4
        if not 0 < number <= len(data) - pos:
            raise cramjam.DecompressionError
        done += _block_into(data[pos : pos + number], out[done:])
        pos += number
    return done


def _block_into(data: bytes, out: Out) -> int:
    if cramjam.snappy.decompress_raw_len(data) > len(out):
        raise cramjam.DecompressionError(_FULL)
    written: int = cramjam.snappy.decompress_raw_into(data, out.data)
    return written


_CODECS: dict[int, tuple[str, Callable[[Any, Any], int]]] = {
    DefaultRecordBatch.CODEC_GZIP: ("gzip", cramjam.gzip.decompress_into),
    DefaultRecordBatch.CODEC_SNAPPY: ("snappy", _snappy_into),
    DefaultRecordBatch.CODEC_LZ4: ("lz4", cramjam.lz4.decompress_into),
    DefaultRecordBatch.CODEC_ZSTD: ("zstd", cramjam.zstd.decompress_into),
}


class _Records:
    """The batches of one answer, those with records of producers as `RecordBatch`."""

    def __init__(self, inner: Any, *, columns: bool) -> None:
        self._inner, self._columns = inner, columns

    def next_batch(self) -> Any:
        batch = self._inner.next_batch()
        if isinstance(batch, DefaultRecordBatch) and not batch.is_control_batch:
            made_from = batch._buffer  # noqa: SLF001 - it is not kept elsewhere
            return RecordBatch(made_from, columns=self._columns)
        return batch


class _Budget:
    """What one poll may still take."""

    left = MAX_POLL_BYTES


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one answer for one partition.

    n_taken : records of the last `take`, those in blocks counted one by one
    """

    def __init__(self, budget: _Budget, columns: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001
        self._budget, self._columns = budget, columns
        self._rest: Any = None
        self.n_taken = 0
        super().__init__(*args, **kwargs)

    def take(self, n: int | None = None) -> list[Any]:
        """Return the next records, as many as wanted and as the poll may still take."""
        taken: list[Any] = []
        self.n_taken = 0
        try:
            self._maybe_raise_next_inline_exception()
            while (record := self._next()) is not None:
                if isinstance(record.value, Block):
                    most = len(record.value) if n is None else n - self.n_taken
                    record = self._part(record, most)
                    if record is None:
                        continue
                taken.append(record)
                self.n_taken += len(record.value) if isinstance(record.value, Block) else 1
                self._budget.left -= _size(record)
                if self.n_taken == n or self._budget.left <= 0:
                    break
        except Exception as error:
            if not taken:
                # It would stay in line, without records and without an end, for ever.
                self.drain()
                raise
            self._next_inline_exception = error
        return taken

    def drain(self) -> None:
        """Forget what is left."""
        self._rest = None
        super().drain()

    def _next(self) -> Any:
        record, self._rest = self._rest, None
        if record is None and self.record_iterator is not None:
            record = next(self.record_iterator, None)
        return record

    def _part(self, record: Any, most: int) -> Any:
        """Return what may be taken of a block; the rest is the next to come."""
        first, left = self.fetch_offset, max(self._budget.left, 1)
        part, rest = record.value.split(first, most, left)
        if rest is not None:
            self._rest = record._replace(value=rest)
        if part is None:
            return None
        self.next_fetch_offset = part.offset + 1
        return record._replace(value=part, offset=part.offset)

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        yield from super()._unpack_records(
            tp, _Records(records, columns=self._columns), *deserializers
        )


def guard(consumer: KafkaConsumer, *, columns: bool = False) -> KafkaConsumer:
    """Let a consumer read by the rules of this module; returns it.

    columns : `poll` returns blocks of records, for `connectors.kafka.columns.messages_of`
    """
    fetcher, budget = consumer._fetcher, _Budget()  # noqa: SLF001 - it has no setting for this
    append = fetcher._append  # noqa: SLF001

    def append_within_budget(drained: Any, part: Any, max_records: int, *rest: Any) -> int:
        if not drained:
            budget.left = MAX_POLL_BYTES
        part.n_taken = 0
        append(drained, part, max_records, *rest)
        return int(part.n_taken) if budget.left > 0 else max_records

    fetcher.PartitionRecords = functools.partial(_PartitionRecords, budget, columns)
    fetcher._append = append_within_budget  # noqa: SLF001
    return consumer


def _size(record: Any) -> int:
    if isinstance(record.value, Block):
        return record.value.size
    about: int = max(0, record.serialized_header_size) + HEADER_BYTES * (1 + len(record.headers))
    return len(record.key or b"") + len(record.value or b"") + about
