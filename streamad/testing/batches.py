"""Signal batches written literally, for tests: only what matters needs to be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.records import SignalBatch

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


def cut(batch: SignalBatch, sizes: Sequence[int]) -> Iterator[SignalBatch]:
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
