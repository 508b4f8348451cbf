"""A shard's state as bytes and back: Arrow record batches, cut into chunks a broker takes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from streamad.errors import StateError
from streamad.operators.identity import StateIdentity
from streamad.operators.shard import ShardState

CHUNK_BYTES = 900_000
"""The largest chunk: records of more than 1 MB need settings that nobody has changed yet."""

_BATCH_BYTES = 4 * 2**20
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_META = b"streamad.shard"


def encode(state: ShardState, *, identity: StateIdentity) -> list[bytes]:
    """Return the state as chunks of at most `CHUNK_BYTES`."""
    header, names, arrays = state.save(identity)
    columns = {name: _as_column(array, len(names)) for name, array in arrays.items()}
    shapes = {name: [array.dtype.str, list(array.shape[1:])] for name, array in arrays.items()}
    about = json.dumps({"header": header, "arrays": shapes})
    kept = {name: column for name, column in columns.items() if column is not None}
    table = pa.table({"key": names.cast(pl.String).to_arrow(), **kept}).replace_schema_metadata(
        {_META: about.encode()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        per_row = max(1, table.nbytes // max(1, len(table)))
        writer.write_table(table, max_chunksize=max(1, _BATCH_BYTES // per_row))
    blob = memoryview(sink.getvalue())
    return [bytes(blob[start : start + CHUNK_BYTES]) for start in range(0, len(blob), CHUNK_BYTES)]


def restore(state: ShardState, chunks: list[bytes], *, identity: StateIdentity) -> None:
    """Fill an empty shard; raises StateError where the bytes or the configuration do not fit."""
    try:
        with pa.ipc.open_stream(b"".join(chunks)) as reader:
            table = reader.read_all().combine_chunks()
        about = json.loads(table.schema.metadata[_META])
        names = pl.Series("key", table.column("key")).cast(pl.String)
        arrays = {
            name: _as_array(table, name, dtype, shape)
            for name, (dtype, shape) in about["arrays"].items()
        }
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        msg = f"the snapshot is damaged: {error}"
        raise StateError(msg) from error
    state.restore(about["header"], names, arrays, identity=identity)


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
        return np.empty((n, *shape), np.dtype(dtype))
    column = table.column(name)
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    width = chunk.type.byte_width
    raw = np.frombuffer(chunk.buffers()[1], np.uint8, n * width, chunk.offset * width)
    return raw.view(np.dtype(dtype)).reshape(n, *shape)
