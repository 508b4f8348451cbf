"""Keys that have not sent enough for a window: their rows wait, at a few bytes per row.

What a detector and the laws of scores hold per key is a hundred times what a record is. A producer
with a new name in every record would fill the memory of a job with keys that never yield a window.
So the first rows of a key wait here, and the key gets arrays of its own just before the row that
might close its first window; they are then fed its rows, in order. Until then rows decide nothing
but whether later ones are late, so what a key yields is the same as without the wait.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import StateError
from streamad.windows.arrays import NEVER, KeyedArrays, lengthen, longer
from streamad.windows.keys import KeyTable
from streamad.windows.signals import WindowPlan
from streamad.windows.waiting_kernels import places_of, release_rows, take_rows

END_OF_TIME_MS = 2**43
_SAVED = (
    "clock", "edge", "grid", "first", "final", "n_rows", "selected", "kind", "silent", "silent_ms",
    "born_ms", "stands_in",
)  # fmt: skip
MOST_ROWS = 64
"""Rows a key may have waiting; large windows get their arrays somewhat early."""
_NONE = -1
_COMPACT = 1_024


class WaitingRoom:
    """The keys of a shard without a window, and their rows.

    Of the arrays: clock is the greatest event time of the key; first and final are the
    earliest and latest sample of its rows; newest and n_rows are of the list of its rows, each of
    which names the one before.
    """

    def __init__(self, plan: WindowPlan, max_keys: int) -> None:
        self.plan, self.keys = plan, KeyTable(max_keys)
        self.state = KeyedArrays(
            {
                "clock": ((), np.int64, NEVER),
                "edge": ((), np.int64, NEVER),
                "grid": ((2,), np.int64, 0),
                "first": ((), np.int64, 0),
                "final": ((), np.int64, 0),
                "newest": ((), np.int32, _NONE),
                "n_rows": ((), np.int32, 0),
                "selected": ((), np.bool_, False),
                "kind": ((), np.int8, 0),
                "silent": ((), np.int8, 0),
                "silent_ms": ((), np.int64, 0),
                "born_ms": ((), np.int64, 0),
                "stands_in": ((), np.bool_, False),
            }
        )
        self.tags: dict[int, dict[str, str]] = {}
        self._span_ms = (plan.begins - 2) * plan.step_ms
        self._settings = np.array(
            [plan.step_ms, plan.lateness_ms, rows_of(plan), self._span_ms], np.int64
        )
        self._n, self._free = 0, _NONE
        self._time = np.empty(0, np.int64)
        self._values = np.empty((0, plan.n_variates), np.float64)
        self._before = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bytes_per_row(self) -> int:
        """Return what a row that waits costs."""
        return 8 + 8 * self.plan.n_variates + 4

    def add(self, codes: list[int], selected: list[bool], tags: list[dict[str, str]]) -> None:
        """Make empty entries for new keys."""
        self.state.reserve(self.keys.capacity)
        rows = np.array(codes, np.int32)
        self.state.reset(rows)
        self.state["selected"][rows] = selected
        for code, tag in zip(codes, tags, strict=True):
            if tag:
                self.tags[code] = tag

    def take(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: NDArray[np.float64],
        room: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Take rows in offset order; return what became of each, and the keys that go.

        room : how many keys may go
        Rows of a key from the one on at which it goes are `GOES`: they are for its own arrays,
        after those that `leave` returns.
        """
        self._reserve(self._n + len(codes))
        s = self.state
        became = np.empty(len(codes), np.uint8)
        self._n, self._free, goers = take_rows(
            codes, time_ms, values, room, self._settings, s["clock"], s["edge"], s["grid"],
            s["first"], s["final"], s["newest"], s["n_rows"], s["selected"], self._time,
            self._values, self._before, self._n, self._free, became,
        )  # fmt: skip
        return became, goers

    def leave(
        self, codes: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows of keys, each key's in order: the place of the key in codes, and columns.

        The keys themselves stay until `drop`.
        """
        counts = self.state["n_rows"][codes]
        places = places_of(codes, self.state["newest"], counts, self._before)
        owner = np.repeat(np.arange(len(codes), dtype=np.int64), counts)
        return owner, self._time[places], self._values[places]

    def drop(self, codes: NDArray[np.int32]) -> None:
        """Forget keys and their rows."""
        self._free = release_rows(codes, self.state["newest"], self._before, self._free)
        self.keys.drop(codes)
        self.state.reset(codes)
        for code in codes.tolist():
            self.tags.pop(code, None)
        live = self.keys.live()
        if self._n > _COMPACT and 4 * int(self.state["n_rows"][live].sum()) < self._n:
            # A burst of keys must not keep its memory for ever.
            self._put(live, *self.leave(live)[1:])

    def save(self) -> dict[str, NDArray[Any]]:
        """Return all that waits as arrays; the first axis is the key, the row, or the byte."""
        live = self.keys.live()
        names = [str(self.keys.names[code]).encode() for code in live.tolist()]
        _, time_ms, values = self.leave(live)
        return {
            "names": np.frombuffer(b"".join(names), np.uint8),
            "ends": np.cumsum([len(name) for name in names], dtype=np.int64),
            **{name: self.state[name][live] for name in _SAVED},
            "time_ms": time_ms,
            "values": values,
        }

    def require(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise StateError where arrays do not belong together: kernels index by them."""
        ends, counts, times_ms = arrays["ends"], arrays["n_rows"], arrays["time_ms"]
        fits = (
            {len(arrays[name]) for name in _SAVED} == {len(ends)}
            and (np.diff(ends, prepend=0) >= 0).all()
            and (ends[-1] if len(ends) else 0) == len(arrays["names"])
            and ((counts >= 0) & (counts <= MOST_ROWS)).all()
            and ((times_ms >= -END_OF_TIME_MS) & (times_ms <= END_OF_TIME_MS)).all()
            and int(counts.sum()) == len(times_ms) == len(arrays["values"])
        )
        if not (fits and self._spans_hold(arrays)):
            msg = "the state of keys that wait for a window is damaged: its parts do not agree"
            raise StateError(msg)

    def _spans_hold(self, arrays: dict[str, NDArray[Any]]) -> bool:
        """Say whether each key's rows lie in its span, and the span in less than a window."""
        owner = np.repeat(np.arange(len(arrays["ends"])), arrays["n_rows"])
        step, time_ms = self.plan.step_ms, arrays["time_ms"]
        # A sample is named by a time less than two steps from its rows: see `follow`.
        first_ms, final_ms = arrays["first"][owner] - 2 * step, arrays["final"][owner] + 2 * step
        within = ((first_ms <= time_ms) & (time_ms <= final_ms)).all()
        known = (time_ms <= arrays["clock"][owner]).all()
        return bool(
            within
            and known
            and (not step or (final_ms - first_ms <= self._span_ms + 4 * step).all())
        )

    def load(self, arrays: dict[str, NDArray[Any]], tags: dict[str, dict[str, str]]) -> None:
        """Take back what `save` gave, into an empty room."""
        blob, ends = arrays["names"].tobytes(), arrays["ends"].tolist()
        if not ends:
            return
        names = [blob[a:b].decode() for a, b in pairwise([0, *ends])]
        self.keys.max_keys = max(self.keys.max_keys, len(names))
        codes, created = self.keys.encode(pl.Series(names, dtype=pl.String))
        self.add(created, [True] * len(created), [tags.get(name, {}) for name in names])
        for name in _SAVED:
            self.state[name][codes] = arrays[name]
        self._put(codes, arrays["time_ms"], arrays["values"])

    def _put(
        self, codes: NDArray[np.int32], time_ms: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        """Hold these rows and no others, each key's in order, as `leave` returns them."""
        n, counts = len(time_ms), self.state["n_rows"][codes].astype(np.int64)
        self._n, self._free = n, _NONE
        self._time, self._values = time_ms.copy(), values.copy()
        self._before = np.arange(-1, n - 1, dtype=np.int32)
        last = np.cumsum(counts)
        self._before[(last - counts)[counts > 0]] = _NONE
        self.state["newest"][codes] = np.where(counts > 0, last - 1, _NONE)

    def _reserve(self, n: int) -> None:
        if n <= len(self._time):
            return
        size = longer(len(self._time), n, 1024)
        lengthen(vars(self), ("_time", "_values", "_before"), size)


def rows_of(plan: WindowPlan) -> int:
    """Return how many rows of a key may wait: too few for a window, or to push a sample out."""
    most = min(plan.begins - 1, MOST_ROWS)
    if plan.lateness_ms and not plan.step_ms:
        return min(most, plan.reorder)
    return most
