"""How often series are sent, how long they are known, and what repeats in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from streamad.records import SignalBatch
from streamad.training.fit import split
from streamad.windows.period import choose_size, period_of

MAX_SERIES = 20
DEFAULT_SIZE = 64
LEAST_ROWS = 1_000
MAX_PERIODS = 50
"""Series longer than so many windows are looked at from their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What was measured.

    n_keys, n_rows : of what was looked at; step_ms : usual time between readings of a series;
    even : nearly all readings are so far apart; size : samples per window that suit the series;
    period : samples after which most series repeat, 0 where they do not; span_ms : from the first
    to the last reading
    """

    n_keys: int
    n_rows: int
    step_ms: int
    even: bool
    size: int
    period: int
    span_ms: int


def measure(batch: SignalBatch) -> Measure:
    """Measure the series of a batch."""
    frame = pl.DataFrame({"key": batch.keys, "time": batch.time_ms}).sort("key", "time")
    steps = frame.select(pl.col("time").diff().over("key"))["time"].drop_nulls().to_numpy()
    steps = steps[steps > 0]
    step = int(np.median(steps)) if len(steps) else 0
    near = np.abs(steps - step) <= 0.2 * step if step else np.zeros(0, np.bool_)
    longest = sorted(split(batch), key=len, reverse=True)[:MAX_SERIES]
    values = [one.values[np.argsort(one.time_ms, kind="stable")] for one in longest]
    values = [one[-DEFAULT_SIZE * MAX_PERIODS :] for one in values]
    periods = [period_of(one[:, column]) for one in values for column in range(one.shape[1])]
    repeating = [period for period in periods if period]
    return Measure(
        n_keys=batch.keys.n_unique(),
        n_rows=len(batch),
        step_ms=step,
        even=bool(len(near) and near.mean() > 0.95),
        # What comes is longer than what is there now.
        size=choose_size(values, default=DEFAULT_SIZE, n_rows=max(LEAST_ROWS, *map(len, values))),
        period=int(np.median(repeating)) if 2 * len(repeating) > len(periods) else 0,
        span_ms=int(batch.time_ms.max() - batch.time_ms.min()) if len(batch) else 0,
    )
