"""The scores log: scored windows as Arrow IPC messages that any Arrow reader can open.

A message is one stream of one record batch, its buffers compressed with LZ4. Keys are plain text:
live, a key closes one window a batch, and a dictionary of keys that do not repeat costs three times
the work and more bytes. The schema's metadata says where the scores came from: that is what
recovery and ``streamad explain`` go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from streamad.records import Rejected, ScoreBatch

MAX_MESSAGE_BYTES = 900_000
"""Below the 1 MB that brokers take when nobody changed ``message.max.bytes``."""

ROWS_PER_MESSAGE = 32_768

FORMAT = "streamad.scores.v2"
METADATA_KEY = b"streamad"
OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("end_ms", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("p_value", pa.float32(), nullable=False),
        pa.field("level", pa.float32(), nullable=False),
        pa.field("newest", pa.float32(), nullable=False),
        pa.field("newest_p", pa.float32(), nullable=False),
        pa.field("newest_level", pa.float32(), nullable=False),
        pa.field("severity", pa.float32(), nullable=False),
        pa.field("flags", pa.uint8(), nullable=False),
    ]
)
CERTAIN = SCHEMA.append(pa.field("certainty", pa.float32(), nullable=False))
"""Of a detector that tells how certain it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresOrigin:
    """Where the scores of a message come from.

    first_offset, next_offset : the input records the windows were closed by, ``[first, next)``;
    part, parts : which piece this is, where one batch needed several messages (all say the same
    offsets, so a reader is done with them only after the last); notes : what else recovery needs,
    small (artifact swaps, admissions, what the wall clock decided).
    """

    pipeline: str
    detector: str
    artifact: str
    topic: str
    partition: int
    first_offset: int
    next_offset: int
    part: int = 0
    parts: int = 1
    notes: dict[str, str] = field(default_factory=dict)


def encode(
    scores: ScoreBatch, origin: ScoresOrigin, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> list[bytes]:
    """Write the scores as one or more messages, each at most ``max_bytes`` long.

    No scores make one message too: what the notes say must not be lost.
    """
    table = _record_batch(scores)
    rows = min(ROWS_PER_MESSAGE, max(len(scores), 1))
    while True:
        starts = range(0, max(len(scores), 1), rows)
        messages = [
            _write(table.slice(start, rows), origin, part=part, parts=len(starts))
            for part, start in enumerate(starts)
        ]
        if rows == 1 or max(map(len, messages)) <= max_bytes:
            return messages
        rows = max(rows // 2, 1)


def _record_batch(scores: ScoreBatch) -> pa.RecordBatch:
    schema, more = SCHEMA, []
    if scores.certainty is not None:
        schema, more = CERTAIN, [_column(scores.certainty, pa.float32())]
    return pa.record_batch(
        [
            scores.keys.to_arrow(),
            _column(scores.end_ms, pa.timestamp("ms", tz="UTC")),
            _column(scores.ordinal, pa.int64()),
            _column(scores.score, pa.float32()),
            _column(scores.p_value, pa.float32()),
            _column(scores.level, pa.float32()),
            _column(scores.newest, pa.float32()),
            _column(scores.newest_p, pa.float32()),
            _column(scores.newest_level, pa.float32()),
            _column(scores.severity, pa.float32()),
            _column(scores.flags, pa.uint8()),
            *more,
        ],
        names=schema.names,
    )


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    # `pa.array` of numpy values imports pandas where it is installed: three seconds at the first.
    flat = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])


def _write(rows: pa.RecordBatch, origin: ScoresOrigin, *, part: int, parts: int) -> bytes:
    about = {
        "format": FORMAT,
        **{name: getattr(origin, name) for name in ORIGIN_TYPES},
        "part": part,
        "parts": parts,
        "notes": origin.notes,
    }
    kind = SCHEMA if rows.num_columns == len(SCHEMA) else CERTAIN
    schema = kind.with_metadata({METADATA_KEY: orjson.dumps(about)})
    columns = [rows.column(0).cast(pa.string()), *rows.columns[1:]]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=OPTIONS) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


ORIGIN_TYPES: Mapping[str, type] = {
    "pipeline": str,
    "detector": str,
    "artifact": str,
    "topic": str,
    "partition": int,
    "first_offset": int,
    "next_offset": int,
    "part": int,
    "parts": int,
}


def decode(value: bytes | None, *, message: int = 0) -> tuple[ScoresOrigin, ScoreBatch] | Rejected:
    """Read one message of a scores log; never raises.

    message : index of the record in its batch, for the rejection
    """
    if value is None:
        return Rejected(message=message, reason="null_payload", detail="the message has no value")
    try:
        with pa.ipc.open_stream(value, options=READ_OPTIONS) as reader:
            if not (reader.schema.equals(SCHEMA) or reader.schema.equals(CERTAIN)):
                return _refuse(message, value, f"not {FORMAT}: {reader.schema.names}")
            origin = _origin(reader.schema.metadata)
            table = reader.read_all().combine_chunks()
            table.validate(full=True)
            if any(column.null_count for column in table.columns):
                return _refuse(message, value, "a column holds nulls")
            return origin, _scores(table)
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError, MemoryError) as error:
        return _refuse(message, value, str(error))
    except Exception as error:  # noqa: BLE001 - a damaged record must not end the recovery
        return _refuse(message, value, f"reading it failed with {type(error).__name__}")


def _refuse(message: int, value: bytes, detail: str) -> Rejected:
    return Rejected(message=message, reason="invalid_scores", detail=detail[:300], payload=value)


def _origin(metadata: Mapping[bytes, bytes] | None) -> ScoresOrigin:
    about = orjson.loads((metadata or {})[METADATA_KEY])
    wrong = [name for name, kind in ORIGIN_TYPES.items() if type(about[name]) is not kind]
    notes = about["notes"]
    if wrong or about["format"] != FORMAT or not isinstance(notes, dict):
        msg = f"the metadata is not that of {FORMAT}: {wrong or about}"
        raise ValueError(msg)
    return ScoresOrigin(**{name: about[name] for name in ORIGIN_TYPES}, notes=notes)


def _scores(table: pa.Table) -> ScoreBatch:
    return ScoreBatch(
        keys=pl.Series("key", table.column("key"), dtype=pl.String),
        end_ms=_numbers(table, "end_ms", np.dtype(np.int64)),
        ordinal=_numbers(table, "ordinal", np.dtype(np.int64)),
        score=_numbers(table, "score", np.dtype(np.float32)),
        p_value=_numbers(table, "p_value", np.dtype(np.float32)),
        level=_numbers(table, "level", np.dtype(np.float32)),
        newest=_numbers(table, "newest", np.dtype(np.float32)),
        newest_p=_numbers(table, "newest_p", np.dtype(np.float32)),
        newest_level=_numbers(table, "newest_level", np.dtype(np.float32)),
        severity=_numbers(table, "severity", np.dtype(np.float32)),
        flags=_numbers(table, "flags", np.dtype(np.uint8)),
        certainty=_numbers(table, "certainty", np.dtype(np.float32))
        if "certainty" in table.column_names
        else None,
    )


def _numbers(table: pa.Table, name: str, dtype: np.dtype[np.generic]) -> np.ndarray:  # type: ignore[type-arg]
    return table.column(name).to_numpy().astype(dtype, copy=False)  # type: ignore[no-any-return]
