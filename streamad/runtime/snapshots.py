"""A shard's state as bytes and back: Arrow record batches, cut into chunks a broker takes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from streamad.errors import ArtifactError, StateError
from streamad.operators.identity import StateIdentity
from streamad.operators.shard import Part, ShardState

CHUNK_BYTES = 900_000
"""The largest chunk: records of more than 1 MB need settings that nobody has changed yet."""

DAMAGE = (
    pa.ArrowException, pl.exceptions.PolarsError, ArtifactError, AttributeError, IndexError,
    KeyError, OSError, OverflowError, StopIteration, TypeError, ValueError,
)  # fmt: skip
"""What reading a snapshot can raise whose bytes are not what was written."""

_BATCH_BYTES = 4 * 2**20
_READ_BYTES = 2**16
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_META = b"streamad.shard"
_REST = pa.schema({"bytes": pa.binary()})


class Chunks:
    """The state of a shard as chunks of at most `CHUNK_BYTES`, made while they are read.

    Some keys are copied at a time, so a snapshot takes no second copy of the state. The state must
    stay as it is meanwhile.

    n_bytes : of the chunks that were read
    """

    def __init__(self, state: ShardState, *, identity: StateIdentity) -> None:
        self._state, self._identity = state, identity
        self.n_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks, in order."""
        self.n_bytes = 0
        sink = _Sink()
        for _ in _write(self._state, self._identity, sink):
            yield from self._counted(sink.take(CHUNK_BYTES))
        yield from self._counted(sink.take(1))

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.n_bytes += len(chunk)
            yield chunk


def encode(state: ShardState, *, identity: StateIdentity) -> list[bytes]:
    """Return the state as chunks of at most `CHUNK_BYTES`."""
    return list(Chunks(state, identity=identity))


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, more: Any, /) -> int:
        self._held += more
        return len(more)

    def take(self, least: int) -> Iterator[bytes]:
        """Yield chunks while there are ``least`` bytes or more."""
        while len(self._held) >= least:
            yield bytes(self._held[:CHUNK_BYTES])
            del self._held[:CHUNK_BYTES]


def _write(state: ShardState, identity: StateIdentity, sink: _Sink) -> Iterator[None]:
    """Write a stream of keys, and one of what has no row per key; yield after each piece."""
    live = state.keys.live()
    # Those of keys that wait, and of a population, have lengths of their own: they go as a stream
    # of bytes at the end.
    apart, none = state.apart(live), state.rows(live[:0])
    about = {
        "header": state.header(identity),
        "arrays": {name: [array.dtype.str, list(array.shape[1:])] for name, array in none.items()},
        "rests": {name: [array.dtype.str, list(array.shape)] for name, array in apart.items()},
    }
    widths = {name: _width(array) for name, array in none.items()}
    if not len(live):
        widths = {}
    fields = [pa.field("key", pa.large_string())]
    fields += [pa.field(name, pa.binary(width)) for name, width in widths.items() if width]
    schema = pa.schema(fields, {_META: json.dumps(about).encode()})
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
        if len(live):
            names = state.keys.decode(live).to_arrow()
            at_once = max(1, _BATCH_BYTES // (sum(widths.values()) + names.nbytes // len(live)))
            for start in range(0, len(live), at_once):
                some = live[start : start + at_once]
                arrays = state.rows(some)
                columns = [_as_column(arrays[field.name], len(some)) for field in fields[1:]]
                columns = [names.slice(start, len(some)), *columns]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                yield
    with pa.ipc.new_stream(sink, _REST, options=_OPTIONS) as writer:
        for array in apart.values():
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for start in range(0, len(raw), _BATCH_BYTES):
                piece = pa.array([raw[start : start + _BATCH_BYTES].tobytes()], pa.binary())
                writer.write_batch(pa.record_batch([piece], schema=_REST))
                yield


class MadeBy(NamedTuple):
    """What a state was made with: settings by dotted path, and the id of the artifact."""

    settings: dict[str, Any]
    artifact: str


def made_by(chunks: Sequence[bytes]) -> MadeBy | None:
    """Return what a state was made with; None where it is damaged."""
    try:
        with pa.ipc.open_stream(_opened(chunks)) as reader:
            header = json.loads(reader.schema.metadata[_META])["header"]
        settings, artifact = header["settings"], header["artifact"]
    except (*DAMAGE, TypeError):
        return None
    known = isinstance(settings, dict) and isinstance(artifact, str)
    return MadeBy(settings, artifact) if known else None


def restore(
    state: ShardState,
    chunks: Sequence[bytes],
    *,
    identity: StateIdentity,
    groups: Callable[[list[str]], NDArray[np.int32]] | None = None,
) -> None:
    """Fill an empty shard; raises StateError where the bytes or the configuration do not fit.

    groups : from keys to their training groups, where those of the state are another artifact's
    """
    try:
        about, apart = _ends(chunks)

        def parts() -> Iterator[Part]:
            yield from _parts(chunks, about["arrays"], groups)

        state.restore_parts(about["header"], parts, apart, identity=identity)
    except DAMAGE as error:
        msg = f"the snapshot is damaged: {type(error).__name__} {error}"
        raise StateError(msg) from error


class _Source(io.RawIOBase):
    """Reads chunks one after the other, without a copy of them all."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        super().__init__()
        self._chunks, self._number, self._at = chunks, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, wanted: Any, /) -> int:
        while self._number < len(self._chunks):
            chunk = self._chunks[self._number]
            piece = memoryview(chunk)[self._at : self._at + len(wanted)]
            if len(piece):
                wanted[: len(piece)] = piece
                self._at += len(piece)
                return len(piece)
            self._number, self._at = self._number + 1, 0
        return 0


def _opened(chunks: Sequence[bytes]) -> pa.PythonFile:
    return pa.PythonFile(io.BufferedReader(_Source(chunks), _READ_BYTES), mode="r")


def _ends(chunks: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what stands at the beginning of a snapshot and at its end: header, and the rests."""
    source = _opened(chunks)
    messages = pa.ipc.MessageReader.open_stream(source)
    schema = pa.ipc.read_schema(messages.read_next_message())
    # Unpacked are the rests alone.
    while _has_more(messages):
        pass
    with pa.ipc.open_stream(source) as reader:
        rest = b"".join(batch.column(0)[0].as_py() for batch in reader)
    about = json.loads(schema.metadata[_META])
    return about, _rests(rest, about["rests"])


def _has_more(messages: pa.ipc.MessageReader) -> bool:
    try:
        messages.read_next_message()
    except StopIteration:
        return False
    return True


def _parts(
    chunks: Sequence[bytes],
    shapes: dict[str, tuple[str, list[int]]],
    groups: Callable[[list[str]], NDArray[np.int32]] | None,
) -> Iterator[Part]:
    """Yield the keys of a snapshot, some at a time; at least once, of no key if need be."""
    with pa.ipc.open_stream(_opened(chunks)) as reader:
        batch = None
        for batch in reader:
            yield _part_of(batch, shapes, groups)
        if batch is None:
            none = pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield _part_of(none, shapes, groups)


def _part_of(
    batch: pa.RecordBatch,
    shapes: dict[str, tuple[str, list[int]]],
    groups: Callable[[list[str]], NDArray[np.int32]] | None,
) -> Part:
    names = pl.Series("key", batch.column("key")).cast(pl.String)
    arrays = {name: _as_array(batch, name, dtype, shape) for name, (dtype, shape) in shapes.items()}
    if groups is not None:
        arrays["episodes.seed"] = groups(names.to_list())
    return names, arrays


def _rests(raw: bytes, about: dict[str, tuple[str, list[int]]]) -> dict[str, NDArray[Any]]:
    """Cut arrays with lengths of their own out of their bytes; ValueError where some lack."""
    made, start = {}, 0
    for name, (dtype, shape) in about.items():
        n = int(np.prod(shape, dtype=np.int64))
        made[name] = np.frombuffer(raw, np.dtype(dtype), n, start).reshape(shape)
        start += n * np.dtype(dtype).itemsize
    return made


def _width(array: NDArray[Any]) -> int:
    """Return the bytes of one row."""
    return array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))


def _as_column(array: NDArray[Any], n: int) -> pa.Array:
    if len(array) != n:
        msg = f"state arrays must have one row per key ({n}), got shape {array.shape}"
        raise StateError(msg)
    flat = np.ascontiguousarray(array)
    kind = pa.binary(_width(flat))
    return pa.FixedSizeBinaryArray.from_buffers(kind, n, [None, pa.py_buffer(flat)])


def _as_array(batch: pa.RecordBatch, name: str, dtype: str, shape: list[int]) -> NDArray[Any]:
    n = len(batch)
    if name not in batch.schema.names:
        if n * int(np.prod(shape, dtype=np.int64)):
            msg = f"there is no array {name}"
            raise ValueError(msg)
        return np.empty((n, *shape), np.dtype(dtype))
    column = batch.column(name)
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], np.uint8, n * width, column.offset * width)
    return raw.view(np.dtype(dtype)).reshape(n, *shape)
