"""Points of many keys to sliding windows, each key in its own event time.

A key's clock is its greatest event time so far, in offset order. A sample is released when that
clock passes its end plus ``lateness``; windows close with their last sample. So what a key yields
depends on its own points and their order alone, however batches are cut: the kernel is one strictly
sequential pass, and everything it keeps is in `SignalWindows.state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamad.windows.arrays import MAX_COUNT, NEVER, KeyedArrays
from streamad.windows.kernels import ingest_points
from streamad.windows.kinds import CODES, GAUGE

_BLOCK_BYTES = 4 * 2**20
_BLOCK_WINDOWS = 16_384

_AGGREGATES = {"last": 0, "mean": 1, "max": 2, "sum": 3}
_FILLS = {None: -1, "none": 0, "previous": 1, "linear": 2, "zero": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """How samples are made and windows cut.

    size, stride : samples; min_periods : samples from which a key has windows (None: ``size``); of
    a partial one what it does not hold, the oldest, is NaN and not missing, and after a gap of more
    than may be missing of a full one a key begins with partial ones again; step_ms : the grid (0:
    every row is a sample); nan_limit : share of missing cells above which a window is incomplete;
    max_missing : share of filled-in cells above which it is.
    """

    size: int
    stride: int
    n_variates: int
    step_ms: int = 0
    lateness_ms: int = 0
    kind: Literal["auto", "gauge", "counter", "delta"] = "gauge"
    aggregate: Literal["last", "mean", "max", "sum"] = "mean"
    fill: Literal["none", "previous", "linear", "zero"] | None = None
    max_missing: float = 0.2
    nan_limit: float = 0.0
    reorder: int = 64
    min_periods: int | None = None

    @property
    def begins(self) -> int:
        """Return the number of samples with which a key has its first window."""
        return self.size if self.min_periods is None else min(self.min_periods, self.size)

    @property
    def pending(self) -> int:
        """Return how many samples a key may hold open."""
        if self.step_ms:
            return self.lateness_ms // self.step_ms + 2
        return self.reorder if self.lateness_ms else 1


@dataclass(frozen=True, slots=True)
class WindowBlock:
    """Windows that closed, in the order their keys' points came; valid until the next is asked for.

    codes : int32 ``(n,)``; values : the items, of signals float32 ``(n, size, n_variates)``;
    start_ms, end_ms : int64 ``(n,)``, times of the first and the last sample, the first as if the
    window were full;
    incomplete : bool ``(n,)``; row : int64 ``(n,)``, the input row that closed the window;
    still : int32 ``(n,)``, samples for which no variate has changed its value.
    """

    codes: NDArray[np.int32]
    values: Any
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    incomplete: NDArray[np.bool_]
    row: NDArray[np.int64]
    still: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.codes)


class SignalWindows:
    """The open samples and the ring of each key of one shard."""

    def __init__(self, plan: WindowPlan) -> None:
        self.plan = plan
        v, size, pending = plan.n_variates, plan.size, plan.pending
        rated = v if plan.kind in {"auto", "counter"} else 0
        # One place more than the plan keeps open: a new sample goes in before the oldest goes out.
        pending += 1
        self.state = KeyedArrays(
            {
                "clock": ((), np.int64, NEVER),
                # The clock on the key's own grid, and that grid: shift, run; see `follow`.
                "edge": ((), np.int64, NEVER),
                "grid": ((2,), np.int64, 0),
                "n_samples": ((), np.int64, 0),
                "last": ((), np.int64, NEVER),
                "n_pending": ((), np.int32, 0),
                "pending_ms": ((pending,), np.int64, 0),
                "pending_value": ((pending, v), np.float64, np.nan),
                "pending_weight": ((pending, v), np.float64, 0.0),
                "previous": ((rated,), np.float64, np.nan),
                "previous_ms": ((rated,), np.int64, 0),
                "ring": ((size, v), np.float32, 0.0),
                "missing": ((size,), np.uint8, 0),
                # Sums over the ring, kept as it turns: missing cells, unknown (NaN) cells, time.
                "sums": ((3,), np.int64, 0),
                "still": ((), np.int32, 0),
                # Times of irregular samples, as milliseconds since the sample before.
                "gap_ms": ((0 if plan.step_ms else size,), np.uint32, 0),
            }
        )
        per_window = size * v * 4
        self._capacity = max(64, min(_BLOCK_WINDOWS, _BLOCK_BYTES // per_window))
        # One point may release every open sample, each after a gap of up to a whole ring.
        self._reserve = (pending + 1) * (size // plan.stride + 2)
        # One block, used again: fresh pages would cost more than the windows put in them.
        self._out = _Block(self._capacity + self._reserve, size, v)

    def reset(self, codes: NDArray[np.int32]) -> None:
        """Empty these keys."""
        self.state.reset(codes)

    def apart(self, codes: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return nothing: all that keys hold are arrays with a row per key."""
        del codes
        return {}

    def load_apart(self, codes: NDArray[np.int32], arrays: dict[str, NDArray[Any]]) -> None:
        """Take nothing back."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with, by name."""
        return {
            "n_pending": (0, self.plan.pending), "n_samples": (0, MAX_COUNT),
            "still": (0, MAX_COUNT),
        }  # fmt: skip

    def ingest(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: NDArray[np.float64],
        late: NDArray[np.bool_],
        kinds: NDArray[np.int8] | None = None,
    ) -> Iterator[WindowBlock]:
        """Take rows in offset order; yield the windows they close, and mark late rows in ``late``.

        The state must have rows for all codes (`KeyedArrays.reserve`) before the call.
        kinds : of each key by its code; by default all are of the plan's (``auto``: gauges)
        """
        plan, at, n = self.plan, 0, len(codes)
        v = plan.n_variates
        settings = np.array(
            [
                plan.size, plan.stride, plan.step_ms, plan.lateness_ms,
                _AGGREGATES[plan.aggregate], _FILLS[plan.fill], plan.begins,
            ],
            np.int64,
        )  # fmt: skip
        limits = np.array(
            [plan.max_missing * plan.size * v, plan.nan_limit * plan.size * v], np.float64
        )
        s, out = self.state, self._out
        if not len(s["clock"]):  # no key has arrays yet
            return
        if kinds is None:
            kinds = np.full(len(s["clock"]), CODES.get(plan.kind, GAUGE), np.int8)
        while at < n:
            at, made = ingest_points(
                at, self._capacity, codes, time_ms, values, settings, limits, kinds,
                s["clock"], s["edge"], s["grid"], s["n_samples"], s["last"], s["n_pending"],
                s["pending_ms"],
                s["pending_value"], s["pending_weight"], s["previous"], s["previous_ms"],
                s["ring"].reshape(len(s["clock"]), -1), s["missing"], s["sums"], s["gap_ms"],
                s["still"], late,
                out.codes, out.values.reshape(len(out.codes), -1), out.start, out.end,
                out.incomplete, out.row, out.still,
            )  # fmt: skip
            if made:
                yield out.take(made)


class _Block:
    def __init__(self, n: int, size: int, v: int) -> None:
        self.codes = np.empty(n, np.int32)
        self.values = np.empty((n, size, v), np.float32)
        self.start = np.empty(n, np.int64)
        self.end = np.empty(n, np.int64)
        self.incomplete = np.empty(n, np.bool_)
        self.row = np.empty(n, np.int64)
        self.still = np.empty(n, np.int32)

    def take(self, n: int) -> WindowBlock:
        return WindowBlock(
            self.codes[:n], self.values[:n], self.start[:n], self.end[:n],
            self.incomplete[:n], self.row[:n], self.still[:n],
        )  # fmt: skip


def bytes_per_key(plan: WindowPlan) -> int:
    """Return what the windows of one key cost in memory."""
    return SignalWindows(plan).state.bytes_per_row
