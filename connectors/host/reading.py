"""What all sources of this machine share: when to read, what may fail, names, and columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import polars as pl
import psutil
from numpy.typing import NDArray

from streamad.errors import ConfigError, nearest
from streamad.names import join_key
from streamad.records import RecordBatch, Rows

UNREADABLE: Final = (psutil.Error, OSError, NotImplementedError, RuntimeError, ValueError)
"""What psutil raises where a kernel or a container does not tell."""
LEAST_INTERVAL_MS: Final = 100
"""Kernels count CPU time in ticks of about 10 ms: a share over fewer than ten says little."""
UNNAMED: Final = "process"

Held = TypeVar("Held", bound=Rows)


def now_ms() -> int:
    """Return the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


class Pace:
    """When a source reads: at marks of the clock ``interval_ms`` apart.

    A reading that is overdue is made at once; those missed in between are not made up for.

    interval_ms : milliseconds between readings, 100 or more
    clock, sleep : wall clock in ms, and how to wait for seconds
    """

    def __init__(
        self, interval_ms: int, clock: Callable[[], int], sleep: Callable[[float], None]
    ) -> None:
        if interval_ms < LEAST_INTERVAL_MS:
            msg = f"interval_ms must be {LEAST_INTERVAL_MS} or more, got {interval_ms}"
            raise ConfigError(msg)
        self.interval_ms, self._clock, self._sleep = interval_ms, clock, sleep
        self.before_ms = clock()
        # A mark right after the first reading is let pass: no tick of CPU time may lie between.
        self._due_ms = self._mark_after(self.before_ms + interval_ms // 2)

    @property
    def is_due(self) -> bool:
        """Return whether `wait` would return at once."""
        return self._clock() >= self._due_ms

    def wait(self) -> tuple[int, int]:
        """Wait until a reading is due; return its time, and the time since the one before, in ms.

        A clock set back makes no time stand still: time goes on by a millisecond.
        """
        time_ms = self._clock()
        if time_ms < self._due_ms:
            self._sleep((self._due_ms - time_ms) / 1000)
            time_ms = self._clock()
        time_ms = max(time_ms, self.before_ms + 1)
        passed_ms, self.before_ms = time_ms - self.before_ms, time_ms
        self._due_ms = self._mark_after(time_ms)
        return time_ms, passed_ms

    def _mark_after(self, time_ms: int) -> int:
        return time_ms - time_ms % self.interval_ms + self.interval_ms


def name_of(process: psutil.Process) -> str:
    """Return the name of a process, on one line; `UNREADABLE` where it cannot be read.

    A thread of the kernel is called ``kworker/0:1``; a slash would part its key.
    """
    return "-".join(process.name().replace("/", " ").split()) or UNNAMED


class Names:
    """Names of processes by id, each read once; for one reading, as ids are given out again."""

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {}

    def of(self, pid: int | None) -> str | None:
        """Return the name of a process, None where it cannot be read or has ended."""
        if not pid:
            return None
        if pid not in self._known:
            try:
                self._known[pid] = name_of(psutil.Process(pid))
            except UNREADABLE:
                self._known[pid] = None
        return self._known[pid]


def known_fields(given: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Return field names, each one of ``known``; ConfigError with the nearest where one is not."""
    for name in given:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(known)}"
            msg = f"{what} have no field {name!r}; {hint}"
            raise ConfigError(msg)
    if not given:
        msg = f"{what} need at least one field, of {', '.join(known)}; got none"
        raise ConfigError(msg)
    return tuple(given)


def keys_of(columns: Mapping[str, Sequence[str | None]], names: Sequence[str]) -> pl.Series:
    """Return the keys that columns make, as a decoder joins them; what is missing is empty."""
    rows = zip(*(columns[name] for name in names), strict=True)
    return pl.Series("key", [join_key(part or "" for part in row) for row in rows], pl.String)


def one_message(
    keys: pl.Series, time_ms: Iterable[int] | NDArray[np.int64], rows: Held, *, offset: int, at: int
) -> RecordBatch[Held]:
    """Return a reading as a message: ``offset`` its number from 0, ``at`` when it was made."""
    n = len(keys)
    return RecordBatch(
        keys=keys,
        time_ms=np.fromiter(time_ms, np.int64, n),
        values=rows,
        message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.array([offset], np.int64),
        broker_ms=np.array([at], np.int64),
    )
