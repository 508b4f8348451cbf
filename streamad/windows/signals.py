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
from numba import njit
from numpy.typing import NDArray

from streamad.windows.arrays import KeyedArrays

NEVER = np.int64(-(2**62))
_BLOCK_BYTES = 4 * 2**20
_BLOCK_WINDOWS = 16_384

_KINDS = {"gauge": 0, "delta": 0, "counter": 1}
_AGGREGATES = {"last": 0, "mean": 1, "max": 2, "sum": 3}
_FILLS = {"none": 0, "previous": 1, "linear": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """How samples are made and windows cut.

    size, stride : samples; step_ms : the grid (0: every row is a sample); lag : samples by which
    the judged sample precedes the last one; nan_limit : share of missing cells above which a window
    is incomplete; max_missing : share of filled-in cells above which it is incomplete.
    """

    size: int
    stride: int
    n_variates: int
    step_ms: int = 0
    lateness_ms: int = 0
    kind: Literal["gauge", "counter", "delta"] = "gauge"
    aggregate: Literal["last", "mean", "max", "sum"] = "mean"
    fill: Literal["none", "previous", "linear"] = "previous"
    max_missing: float = 0.2
    nan_limit: float = 0.0
    reorder: int = 64
    lag: int = 0

    @property
    def pending(self) -> int:
        """Return how many samples a key may hold open."""
        if self.step_ms:
            return self.lateness_ms // self.step_ms + 2
        return self.reorder if self.lateness_ms else 1


@dataclass(frozen=True, slots=True)
class WindowBlock:
    """Windows that closed, in the order their keys' points came; valid until the next is asked for.

    codes : int32 ``(n,)``; values : float32 ``(n, size, n_variates)``; start_ms, end_ms,
    judged_ms : int64 ``(n,)``, times of the first, the last and the judged sample;
    incomplete : bool ``(n,)``; row : int64 ``(n,)``, the input row that closed the window.
    """

    codes: NDArray[np.int32]
    values: NDArray[np.float32]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    judged_ms: NDArray[np.int64]
    incomplete: NDArray[np.bool_]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.codes)


class SignalWindows:
    """The open samples and the ring of each key of one shard."""

    def __init__(self, plan: WindowPlan) -> None:
        self.plan = plan
        v, size, pending = plan.n_variates, plan.size, plan.pending
        rated = v if plan.kind == "counter" else 0
        # One place more than the plan keeps open: a new sample goes in before the oldest goes out.
        pending += 1
        self.state = KeyedArrays(
            {
                "clock": ((), np.int64, NEVER),
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

    def ingest(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: NDArray[np.float64],
        late: NDArray[np.bool_],
    ) -> Iterator[WindowBlock]:
        """Take rows in offset order; yield the windows they close, and mark late rows in ``late``.

        The state must have rows for all codes (`KeyedArrays.reserve`) before the call.
        """
        plan, at, n = self.plan, 0, len(codes)
        v = plan.n_variates
        settings = np.array(
            [
                plan.size, plan.stride, plan.step_ms, plan.lateness_ms, plan.lag,
                _KINDS[plan.kind], _AGGREGATES[plan.aggregate], _FILLS[plan.fill],
            ],
            np.int64,
        )  # fmt: skip
        limits = np.array(
            [plan.max_missing * plan.size * v, plan.nan_limit * plan.size * v], np.float64
        )
        s, out = self.state, self._out
        while at < n:
            at, made = _ingest(
                at, self._capacity, codes, time_ms, values, settings, limits,
                s["clock"], s["n_samples"], s["last"], s["n_pending"], s["pending_ms"],
                s["pending_value"], s["pending_weight"], s["previous"], s["previous_ms"],
                s["ring"].reshape(len(s["clock"]), -1), s["missing"], s["sums"], s["gap_ms"], late,
                out.codes, out.values.reshape(len(out.codes), -1), out.start, out.end, out.judged, out.incomplete, out.row,
            )  # fmt: skip
            if made:
                yield out.take(made)


class _Block:
    def __init__(self, n: int, size: int, v: int) -> None:
        self.codes = np.empty(n, np.int32)
        self.values = np.empty((n, size, v), np.float32)
        self.start = np.empty(n, np.int64)
        self.end = np.empty(n, np.int64)
        self.judged = np.empty(n, np.int64)
        self.incomplete = np.empty(n, np.bool_)
        self.row = np.empty(n, np.int64)

    def take(self, n: int) -> WindowBlock:
        return WindowBlock(
            self.codes[:n], self.values[:n], self.start[:n], self.end[:n],
            self.judged[:n], self.incomplete[:n], self.row[:n],
        )  # fmt: skip


# One function on purpose: handing twenty arrays to a helper costs more (reference counts) than the
# work the helper would do, inlined or not.
@njit(cache=True)
def _ingest(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0913, PLR0915, C901
    at, room, codes, time_ms, values, settings, limits,
    clock, n_samples, last, n_pending, pending_ms, pending_value, pending_weight,
    previous, previous_ms, ring, missing, sums, gap_ms, late,
    out_code, out_values, out_start, out_end, out_judged, out_incomplete, out_row,
):  # fmt: skip
    size, stride, step, lateness, lag = settings[0], settings[1], settings[2], settings[3], settings[4]
    counters, aggregate, fill = settings[5] == 1, settings[6], settings[7]
    most = pending_ms.shape[1] - 1
    v = values.shape[1]
    made = 0
    sample = np.empty(v, np.float64)
    before = np.empty(v, np.float64)
    for i in range(at, len(codes)):
        if made > room:
            return i, made
        k = codes[i]
        if k < 0:
            continue
        t = time_ms[i]
        start = t - t % step if step else t
        if start <= last[k] or start + step + lateness <= clock[k]:
            late[i] = True
            continue
        clock[k] = max(clock[k], t)

        # Find the open sample this row belongs to, or make room for it in time order.
        n = n_pending[k]
        p = n
        while p > 0 and pending_ms[k, p - 1] > start:
            p -= 1
        if p > 0 and pending_ms[k, p - 1] == start:
            p -= 1
        else:
            for q in range(n, p, -1):
                pending_ms[k, q] = pending_ms[k, q - 1]
                for j in range(v):
                    pending_value[k, q, j] = pending_value[k, q - 1, j]
                    pending_weight[k, q, j] = pending_weight[k, q - 1, j]
            for j in range(v):
                pending_value[k, p, j] = np.nan
                pending_weight[k, p, j] = 0.0
            pending_ms[k, p] = start
            n += 1
        for j in range(v):
            x = values[i, j]
            had = pending_value[k, p, j]
            if x != x:
                continue
            if had != had:
                pending_value[k, p, j] = x
                pending_weight[k, p, j] = 1.0 if aggregate == 1 else float(t)
            elif aggregate == 0:
                if t >= pending_weight[k, p, j]:
                    pending_value[k, p, j] = x
                    pending_weight[k, p, j] = float(t)
            elif aggregate == 2:
                pending_value[k, p, j] = max(had, x)
            else:
                pending_value[k, p, j] = had + x
                pending_weight[k, p, j] += 1.0

        # Release every sample that is due, oldest first.
        while n > 0 and (n > most or pending_ms[k, 0] + step + lateness <= clock[k]):
            due = pending_ms[k, 0]
            for j in range(v):
                x = pending_value[k, 0, j]
                sample[j] = x / pending_weight[k, 0, j] if aggregate == 1 and x == x else x
            for q in range(1, n):
                pending_ms[k, q - 1] = pending_ms[k, q]
                for j in range(v):
                    pending_value[k, q - 1, j] = pending_value[k, q, j]
                    pending_weight[k, q - 1, j] = pending_weight[k, q, j]
            n -= 1

            begun = True
            if counters:  # to rates a second; a fall is a reset, counted from zero
                begun = n_samples[k] > 0
                for j in range(v):
                    x, was, when = sample[j], previous[k, j], previous_ms[k, j]
                    if x == x:
                        previous[k, j] = x
                        previous_ms[k, j] = due
                    if x != x or was != was:
                        sample[j] = np.nan
                    else:
                        sample[j] = (x - was if x >= was else x) / ((due - when) / 1000.0)
                        begun = True

            gap = 0
            if step and n_samples[k] > 0:
                gap = (due - last[k]) // step - 1
            # Of a gap longer than the ring only the end is walked: the rest turns it for nothing.
            first = max(0, gap - size) if begun else gap + 1
            head = n_samples[k] % size
            newest = (head if head > 0 else size) - 1
            for j in range(v):
                before[j] = ring[k, newest * v + j]
            for g in range(first, gap + 1):
                absent = 0
                for j in range(v):
                    x, was = sample[j], before[j]
                    if g < gap or x != x:
                        absent += 1
                        if fill == 0 or n_samples[k] == 0:
                            x = np.nan
                        elif fill == 2 and x == x and was == was:
                            x = was + (x - was) * ((g + 1.0) / (gap + 1.0))
                        else:
                            x = was
                    old = ring[k, head * v + j]
                    if old != old:
                        sums[k, 1] -= 1
                    if x != x:
                        sums[k, 1] += 1
                    ring[k, head * v + j] = x
                sums[k, 0] += absent - np.int64(missing[k, head])
                missing[k, head] = absent
                end = due - (gap - g) * step
                if step == 0:
                    since = min(end - last[k], 4294967295) if n_samples[k] > 0 else 0
                    sums[k, 2] += since - np.int64(gap_ms[k, head])
                    gap_ms[k, head] = since
                n_samples[k] += 1
                head = head + 1 if head + 1 < size else 0
                # On a grid the phase is absolute, so it does not depend on what came first.
                phase = end // step if step else n_samples[k]
                if n_samples[k] < size or (stride > 1 and phase % stride != 0):
                    continue
                row, window = ring[k], out_values[made]
                split = head * v
                window[: size * v - split] = row[split:]
                window[size * v - split :] = row[:split]
                if step:
                    out_start[made] = end - (size - 1) * step
                    out_judged[made] = end - lag * step
                else:
                    judged = end
                    for r in range(lag):
                        judged -= gap_ms[k, (n_samples[k] - 1 - r) % size]
                    # The oldest sample's gap reaches back to one that has left the window.
                    out_start[made] = end - (sums[k, 2] - np.int64(gap_ms[k, head]))
                    out_judged[made] = judged
                out_code[made] = k
                out_end[made] = end
                out_incomplete[made] = sums[k, 0] > limits[0] or sums[k, 1] > limits[1]
                out_row[made] = i
                made += 1
            last[k] = due
        n_pending[k] = n
    return len(codes), made


def bytes_per_key(plan: WindowPlan) -> int:
    """Return what the windows of one key cost in memory."""
    return SignalWindows(plan).state.bytes_per_row


def describe(plan: WindowPlan) -> dict[str, Any]:
    """Return the plan in the words of the configuration, for logs and reports."""
    return {"size": plan.size, "stride": plan.stride, "step_ms": plan.step_ms or None}
