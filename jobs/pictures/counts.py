"""Events and edges for a picture: how many there are, since what they hold is no curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from streamad.records import RecordBatch, SignalBatch
from streamad.wording import duration

BINS = 300
"""Columns of a panel that can be told apart."""
NICE_MS = (
    1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 21_600_000,
    86_400_000, 604_800_000,
)  # fmt: skip


def counts_of(
    batches: Sequence[RecordBatch[Any]], unit: str, *, bins: int = BINS
) -> tuple[list[SignalBatch], str]:
    """Return the number of rows of each key per time, and what to call it.

    bins : so many times at most

    Examples
    --------
    >>> from streamad.testing.batches import make_events
    >>> rows = make_events([("a", t, {"x": "y"}) for t in (0, 100, 2_500)])
    >>> made, name = counts_of([rows], "event")
    >>> made[0].values.tolist(), name
    ([[2.0], [0.0], [1.0]], 'events per 1 s')
    """
    filled = [batch for batch in batches if len(batch)]
    if not filled:
        return [], f"{unit}s"
    first = min(int(batch.time_ms.min()) for batch in filled)
    last = max(int(batch.time_ms.max()) for batch in filled)
    step = next((one for one in NICE_MS if (last - first) // one < bins), NICE_MS[-1])
    every_bin = pl.DataFrame({"bin": np.arange(first // step, last // step + 1)})
    rows = pl.concat([pl.DataFrame({"key": b.keys, "bin": b.time_ms // step}) for b in filled])
    counted = rows.group_by("key", "bin").len()
    every = rows.select(pl.col("key").unique(maintain_order=True)).join(every_bin, how="cross")
    frame = every.join(counted, on=["key", "bin"], how="left", maintain_order="left").fill_null(0)
    n = frame.height
    made: SignalBatch = RecordBatch(
        keys=frame["key"],
        time_ms=(frame["bin"] * step).to_numpy(),
        values=frame["len"].cast(pl.Float64).to_numpy()[:, None],
        message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.zeros(1, np.int64),
        broker_ms=np.full(1, -1, np.int64),
    )
    return [made], f"{unit}s per {duration(step)}"
