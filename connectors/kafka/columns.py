"""Records as columns: what a poll brings, without an object per record.

A record of a client is a dozen Python objects, most of which nobody looks at. Here a compiled pass
finds where the parts of each record lie in its batch; values are cut out at once, and the whole
record is made where somebody wants its key or its headers. What the pass does not find to be plain
is read as before, record by record (`connectors.kafka.batches`), with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, overload

import numpy as np
from kafka.record.util import decode_varint
from numpy.typing import NDArray

from streamad.ports import Messages, RawRecord, Source

MAX_HEADERS = 10_000
"""A record with more headers is not read."""

HEADER_BYTES = 128
"""What a header costs as objects, beside its bytes."""

OFFSET, TIME, CONTENT, END, VALUE, N_VALUE, N_HEADERS, SIZE = range(8)
"""Columns of `find_records`: offset and time; where key, value and headers begin and end in the
batch; where the value begins, and its bytes (-1: there is none); headers; bytes for the budget."""
N_COLUMNS = 8
LEAST_BYTES = 7
"""A record is at least as long: seven numbers of a byte each."""

_HeaderList = list[tuple[str, bytes | None]]


class UnreadableError(ValueError):
    """A batch or a record that cannot be read; says why."""


def content_of(data: bytes, pos: int, end: int) -> tuple[bytes | None, bytes | None, _HeaderList]:
    """Return key, value and headers (KIP-98); names that are not UTF-8 are read all the same."""
    key_bytes, pos = decode_varint(data, pos)
    key = data[pos : pos + key_bytes] if key_bytes >= 0 else None
    pos += max(0, key_bytes)
    value_bytes, pos = decode_varint(data, pos)
    value = data[pos : pos + value_bytes] if value_bytes >= 0 else None
    pos += max(0, value_bytes)
    number, pos = decode_varint(data, pos)
    if not 0 <= number <= MAX_HEADERS:
        msg = f"it has {number} headers, {MAX_HEADERS} are allowed"
        raise UnreadableError(msg)
    headers: _HeaderList = []
    for _ in range(number):
        name_bytes, pos = decode_varint(data, pos)
        name = data[pos : pos + max(0, name_bytes)].decode("utf-8", "replace")
        pos += max(0, name_bytes)
        about_bytes, pos = decode_varint(data, pos)
        headers.append((name, data[pos : pos + about_bytes] if about_bytes >= 0 else None))
        pos += max(0, about_bytes)
    if pos != end:
        msg = "its parts are not as long as they claim"
        raise UnreadableError(msg)
    return key, value, headers


class Block:
    """Records of one batch that follow each other; stands for them as one value.

    data : the records of the batch, expanded; columns : of `find_records`, ``(n, 8)``, n of 1 or
    more
    """

    __slots__ = ("columns", "data")

    def __init__(self, data: bytes, columns: NDArray[np.int64]) -> None:
        self.data, self.columns = data, columns

    @classmethod
    def read(
        cls, data: bytes, number: int, offsets: tuple[int, int], time_ms: int, *, by_broker: bool
    ) -> tuple[Block | None, int]:
        """Return the plain records that a batch begins with, and where the next one begins.

        number : of records that the batch claims; offsets : its first and its last; time_ms : what
        times are counted from, or the time of all records where it is ``by_broker``
        """
        most = min(number, len(data) // LEAST_BYTES)
        if most <= 0:
            return None, 0
        find_records = _kernels().find_records
        columns = np.empty((most, N_COLUMNS), np.int64)
        text = np.frombuffer(data, np.uint8)
        n, pos = find_records(text, most, *offsets, time_ms, by_broker, columns)
        return (cls(data, columns[:n]) if n else None), pos

    def __len__(self) -> int:
        return len(self.columns)

    def part(self, start: int, stop: int) -> Block:
        """Return some of the records."""
        return Block(self.data, self.columns[start:stop])

    @property
    def offset(self) -> int:
        """Return the offset of the last record."""
        return int(self.columns[-1, OFFSET])

    @property
    def size(self) -> int:
        """Return about how many bytes the records take as objects."""
        return int(self.columns[:, SIZE].sum())

    def split(self, first: int, most: int, n_bytes: int) -> tuple[Block | None, Block | None]:
        """Return the records from an offset on, as many as wanted, and those behind them.

        The last record of the first part may be the one that goes beyond ``n_bytes``.
        """
        columns = self.columns
        start = int(np.searchsorted(columns[:, OFFSET], first))
        stop = start + most
        sizes = np.cumsum(columns[start:stop, SIZE])
        stop = min(stop, start + int(np.searchsorted(sizes, n_bytes)) + 1, len(columns))
        taken = self.part(start, stop) if stop > start else None
        return taken, (self.part(stop, len(columns)) if stop < len(columns) else None)

    def payloads(self) -> list[bytes | None]:
        """Return the values, None where there is none."""
        data, starts, sizes = self.data, self.columns[:, VALUE], self.columns[:, N_VALUE]
        stops = (starts + sizes).tolist()
        found: list[bytes | None] = [
            data[start:stop] for start, stop in zip(starts.tolist(), stops, strict=True)
        ]
        for place in np.flatnonzero(sizes < 0).tolist():
            found[place] = None
        return found


@cache
def _kernels() -> Any:
    """Load the compiled pass where it is needed: a command that reads no topic starts without."""
    return import_module("connectors.kafka.kernels")


class Whole(NamedTuple):
    """What a record has beside its value, offset and time."""

    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class BlockRecords(Sequence[RawRecord]):
    """The records of blocks, each made when it is asked for.

    data : of the blocks; block : int64 ``(n,)``, which of them each record is of, -1 one that was
    read apart; columns : of all, ``(n, 8)``; apart : records by their offset
    """

    __slots__ = ("_apart", "_block", "_columns", "_data")

    def __init__(
        self,
        data: Sequence[bytes],
        block: NDArray[np.int64],
        columns: NDArray[np.int64],
        apart: Mapping[int, RawRecord],
    ) -> None:
        self._data, self._block, self._columns, self._apart = data, block, columns, apart

    def __len__(self) -> int:
        return len(self._block)

    @overload
    def __getitem__(self, at: int) -> RawRecord: ...
    @overload
    def __getitem__(self, at: slice) -> BlockRecords: ...
    def __getitem__(self, at: int | slice) -> RawRecord | BlockRecords:
        """Return one record, or the records of a slice."""
        if isinstance(at, slice):
            return BlockRecords(self._data, self._block[at], self._columns[at], self._apart)
        block, columns = int(self._block[at]), self._columns[at]
        if block < 0:
            return self._apart[int(columns[OFFSET])]
        key, _, headers = content_of(self._data[block], int(columns[CONTENT]), int(columns[END]))
        return Whole(key, headers)

    def __iter__(self) -> Iterator[RawRecord]:
        """Yield the records."""
        return map(self.__getitem__, range(len(self)))

    def headed(self) -> list[int]:
        """Return the places of records with headers."""
        places: list[int] = np.flatnonzero(self._columns[:, N_HEADERS]).tolist()
        return places


def messages_of(source: Source, records: Sequence[Any]) -> Messages:
    """Turn what a client returns into columns; the values of its records may be a `Block` each."""
    payloads: list[bytes | None] = []
    columns: list[NDArray[np.int64]] = []
    data: list[bytes] = []
    blocks: list[int] = []
    apart: dict[int, RawRecord] = {}
    why: dict[int, str] = {}
    for record in records:
        block = record.value
        if isinstance(block, Block):
            blocks += [len(data)]
            data.append(block.data)
            columns.append(block.columns)
            payloads += block.payloads()
            continue
        row = np.zeros((1, N_COLUMNS), np.int64)
        row[0, [OFFSET, TIME, N_HEADERS]] = record.offset, record.timestamp, len(record.headers)
        columns.append(row)
        blocks += [-1]
        payloads.append(record.value)
        apart[record.offset] = record
        reason = unreadable(record) if record.value is None else None
        if reason is not None:
            why[record.offset] = reason
    sizes = np.array([len(part) for part in columns], np.int64)
    whole = np.concatenate([np.empty((0, N_COLUMNS), np.int64), *columns])
    return Messages(
        source=source,
        payloads=payloads,
        offsets=np.ascontiguousarray(whole[:, OFFSET]),
        broker_ms=np.ascontiguousarray(whole[:, TIME]),
        raw=BlockRecords(data, np.repeat(np.array(blocks, np.int64), sizes), whole, apart),
        unreadable=why,
    )


def unreadable(record: Any) -> str | None:
    """Return why a consumer's record could not be read, None where it could."""
    why = record.checksum
    return why if isinstance(why, str) else None
