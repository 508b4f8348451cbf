"""A shard's state as bytes and back: Arrow record batches, cut into chunks a broker takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from streamad.errors import ArtifactError, StateError
from streamad.operators.identity import StateIdentity
from streamad.operators.shard import APART, ShardState

CHUNK_BYTES = 900_000
"""The largest chunk: records of more than 1 MB need settings that nobody has changed yet."""

DAMAGE = (
    pa.ArrowException, pl.exceptions.PolarsError, ArtifactError, AttributeError, IndexError,
    KeyError, OverflowError, TypeError, ValueError,
)  # fmt: skip
"""What reading a snapshot can raise whose bytes are not what was written."""

_BATCH_BYTES = 4 * 2**20
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_META = b"streamad.shard"
_REST = pa.schema({"bytes": pa.binary()})


def encode(state: ShardState, *, identity: StateIdentity) -> list[bytes]:
    """Return the state as chunks of at most `CHUNK_BYTES`."""
    header, names, arrays = state.save(identity)
    # Those of keys that wait, and of a population, have lengths of their own: they go as a stream
    # of bytes at the end.
    apart = {n: arrays.pop(n) for n in list(arrays) if n.startswith(APART)}
    columns = {name: _as_column(array, len(names)) for name, array in arrays.items()}
    shapes = {name: [array.dtype.str, list(array.shape[1:])] for name, array in arrays.items()}
    rests = {n: [array.dtype.str, list(array.shape)] for n, array in apart.items()}
    about = json.dumps({"header": header, "arrays": shapes, "rests": rests})
    kept = {name: column for name, column in columns.items() if column is not None}
    table = pa.table({"key": names.cast(pl.String).to_arrow(), **kept}).replace_schema_metadata(
        {_META: about.encode()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        per_row = max(1, table.nbytes // max(1, len(table)))
        writer.write_table(table, max_chunksize=max(1, _BATCH_BYTES // per_row))
    with pa.ipc.new_stream(sink, _REST, options=_OPTIONS) as writer:
        for array in apart.values():
            raw = np.ascontiguousarray(array).tobytes()
            for start in range(0, len(raw), _BATCH_BYTES):
                piece = pa.array([raw[start : start + _BATCH_BYTES]], pa.binary())
                writer.write_batch(pa.record_batch([piece], schema=_REST))
    blob = memoryview(sink.getvalue())
    return [bytes(blob[start : start + CHUNK_BYTES]) for start in range(0, len(blob), CHUNK_BYTES)]


class MadeBy(NamedTuple):
    """What a state was made with: settings by dotted path, and the id of the artifact."""

    settings: dict[str, Any]
    artifact: str


def made_by(chunks: list[bytes]) -> MadeBy | None:
    """Return what a state was made with; None where it is damaged."""
    try:
        with pa.ipc.open_stream(pa.BufferReader(b"".join(chunks))) as reader:
            header = json.loads(reader.schema.metadata[_META])["header"]
        settings, artifact = header["settings"], header["artifact"]
    except (*DAMAGE, TypeError):
        return None
    known = isinstance(settings, dict) and isinstance(artifact, str)
    return MadeBy(settings, artifact) if known else None


def restore(
    state: ShardState,
    chunks: list[bytes],
    *,
    identity: StateIdentity,
    groups: Callable[[list[str]], NDArray[np.int32]] | None = None,
) -> None:
    """Fill an empty shard; raises StateError where the bytes or the configuration do not fit.

    groups : from keys to their training groups, where those of the state are another artifact's
    """
    try:
        source = pa.BufferReader(b"".join(chunks))
        with pa.ipc.open_stream(source) as reader:
            table = reader.read_all().combine_chunks()
        with pa.ipc.open_stream(source) as reader:
            rest = b"".join(batch.column(0)[0].as_py() for batch in reader)
        about = json.loads(table.schema.metadata[_META])
        names = pl.Series("key", table.column("key")).cast(pl.String)
        arrays = {
            name: _as_array(table, name, dtype, shape)
            for name, (dtype, shape) in about["arrays"].items()
        } | _rests(rest, about["rests"])
        if groups is not None:
            arrays["episodes.seed"] = groups(names.to_list())
        state.restore(about["header"], names, arrays, identity=identity)
    except DAMAGE as error:
        msg = f"the snapshot is damaged: {type(error).__name__} {error}"
        raise StateError(msg) from error


def _rests(raw: bytes, about: dict[str, tuple[str, list[int]]]) -> dict[str, NDArray[Any]]:
    """Cut arrays with lengths of their own out of their bytes; ValueError where some lack."""
    made, start = {}, 0
    for name, (dtype, shape) in about.items():
        n = int(np.prod(shape, dtype=np.int64))
        made[name] = np.frombuffer(raw, np.dtype(dtype), n, start).reshape(shape)
        start += n * np.dtype(dtype).itemsize
    return made


def _as_column(array: NDArray[Any], n: int) -> pa.Array | None:
    if len(array) != n:
        msg = f"state arrays must have one row per key ({n}), got shape {array.shape}"
        raise StateError(msg)
    flat = np.ascontiguousarray(array)
    width = flat.itemsize * int(np.prod(flat.shape[1:], dtype=np.int64))
    if width == 0 or n == 0:
        return None
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, pa.py_buffer(flat)])


def _as_array(table: pa.Table, name: str, dtype: str, shape: list[int]) -> NDArray[Any]:
    n = len(table)
    if name not in table.column_names:
        if n * int(np.prod(shape, dtype=np.int64)):
            msg = f"there is no array {name}"
            raise ValueError(msg)
        return np.empty((n, *shape), np.dtype(dtype))
    column = table.column(name)
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    width = chunk.type.byte_width
    raw = np.frombuffer(chunk.buffers()[1], np.uint8, n * width, chunk.offset * width)
    return raw.view(np.dtype(dtype)).reshape(n, *shape)
