"""Batches written literally, for tests: only what matters needs to be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows
from streamad.records import Held, RecordBatch, SignalBatch

Row = tuple[str, int, float] | tuple[str, int, Sequence[float]]


def make_batch(rows: Sequence[Row], *, offset: int = 0, broker_ms: int = -1) -> SignalBatch:
    """Return rows ``(key, time_ms, value or values)`` as a batch, a message a row.

    offset : of the first row's message; broker_ms : the broker's clock at every message.

    Examples
    --------
    >>> batch = make_batch([("a", 0, 1.0), ("b", 5, 2.0)], offset=7)
    >>> batch.keys.to_list(), batch.values.tolist(), batch.offsets.tolist()
    (['a', 'b'], [[1.0], [2.0]], [7, 8])
    """
    n = len(rows)
    values = [np.atleast_1d(np.asarray(value, np.float64)) for _, _, value in rows]
    return SignalBatch(
        keys=pl.Series("key", [key for key, _, _ in rows], pl.String),
        time_ms=np.array([time_ms for _, time_ms, _ in rows], np.int64),
        values=np.stack(values) if n else np.empty((0, 1), np.float64),
        message=np.arange(n, dtype=np.int32),
        row=np.zeros(n, np.int32),
        offsets=np.arange(offset, offset + n, dtype=np.int64),
        broker_ms=np.full(n, broker_ms, np.int64),
    )


def cut(batch: RecordBatch[Held], sizes: Sequence[int]) -> Iterator[RecordBatch[Held]]:
    """Yield a batch in parts of the given sizes, and what is left as the last part.

    Examples
    --------
    >>> batch = make_batch([("a", t, 0.0) for t in range(5)])
    >>> [len(part) for part in cut(batch, [1, 3, 9])]
    [1, 3, 1]
    """
    start = 0
    for size in [*sizes, len(batch)]:
        stop = min(start + size, len(batch))
        if stop > start:
            yield batch.take(start, stop)
        start = stop


def make_columns(
    keys: Sequence[str],
    time_ms: Sequence[int] | NDArray[np.int64],
    values: Sequence[float] | NDArray[np.float64],
    *,
    broker_ms: int = -1,
    tags: dict[str, Sequence[str]] | None = None,
    per_message: int = 1,
) -> SignalBatch:
    """Return columns of one length as a batch, a message a row; values ``(n,)`` or ``(n, v)``.

    per_message : rows a message instead
    """
    n = len(keys)
    message, row = np.divmod(np.arange(n, dtype=np.int32), np.int32(per_message))
    n_messages = -(-n // per_message)
    return SignalBatch(
        keys=pl.Series("key", list(keys), dtype=pl.String),
        time_ms=np.asarray(time_ms, np.int64),
        values=np.asarray(values, np.float64).reshape(n, -1) if n else np.empty((0, 1)),
        message=message,
        row=row,
        offsets=np.arange(n_messages, dtype=np.int64),
        broker_ms=np.full(n_messages, broker_ms, np.int64),
        tags={
            name: pl.Series(name, list(column), dtype=pl.String)
            for name, column in (tags or {}).items()
        },
    )


def make_events(
    rows: Sequence[tuple[str, int, dict[str, str | float | None]]], *, per_message: int = 1
) -> RecordBatch[EventRows]:
    """Return events ``(key, time_ms, fields)`` as a batch, a message a row.

    Examples
    --------
    >>> batch = make_events([("alice", 5, {"process": "cat"}), ("bob", 6, {"process": "nc"})])
    >>> batch.values.fields["process"].to_list()
    ['cat', 'nc']
    """
    fields = pl.DataFrame([fields for _, _, fields in rows], infer_schema_length=None)
    time_ms = np.array([time_ms for _, time_ms, _ in rows], np.int64)
    keys = [key for key, _, _ in rows]
    return make_held(keys, EventRows(time_ms, fields), per_message=per_message)


def make_edges(
    rows: Sequence[tuple[str, int, str, str]], *, per_message: int = 1
) -> RecordBatch[EdgeRows]:
    """Return edges ``(key, time_ms, source, target)`` as a batch, a message a row.

    Examples
    --------
    >>> batch = make_edges([("net", 5, "web-1", "db-1")])
    >>> batch.values.source.to_list(), batch.values.weight.tolist()
    (['web-1'], [1.0])
    """
    n = len(rows)
    none = pl.repeat(None, n, dtype=pl.String, eager=True)
    edges = EdgeRows(
        time_ms=np.array([row[1] for row in rows], np.int64),
        source=pl.Series([row[2] for row in rows], dtype=pl.String),
        target=pl.Series([row[3] for row in rows], dtype=pl.String),
        source_type=none,
        target_type=none,
        weight=np.ones(n),
    )
    return make_held([row[0] for row in rows], edges, per_message=per_message)


def make_held(keys: Sequence[str], values: Any, *, per_message: int = 1) -> RecordBatch[Any]:
    """Return rows that bear their own times (``values.time_ms``) as a batch."""
    n = len(keys)
    message, row = np.divmod(np.arange(n, dtype=np.int32), np.int32(per_message))
    n_messages = -(-n // per_message)
    return RecordBatch(
        keys=pl.Series("key", list(keys), dtype=pl.String),
        time_ms=values.time_ms,
        values=values,
        message=message,
        row=row,
        offsets=np.arange(n_messages, dtype=np.int64),
        broker_ms=np.full(n_messages, -1, np.int64),
    )
