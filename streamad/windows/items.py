"""Rows that are judged one by one, each as it comes: events and edges.

A key's clock is its greatest event time so far, in offset order. A row is judged when it comes and
bears its own time; a row that lies further behind the clock than the lateness is late. As with
windows of signals, what a key yields depends on its own rows and their order alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.windows.arrays import NEVER, KeyedArrays
from streamad.windows.kernels import ingest_items
from streamad.windows.signals import WindowBlock

LEAST_LATENESS_MS = 3_600_000
"""Rows need no order to be judged: shippers that catch up deliver an hour of them in any."""


class ItemWindows:
    """The clock of each key of one shard, all that rows judged one by one need."""

    def __init__(self, lateness_ms: int) -> None:
        self.state = KeyedArrays(
            {
                "clock": ((), np.int64, NEVER),
                # What scores of late have together, and when; see `streamad.scoring.evidence`.
                "evidence": ((), np.float64, 0.0),
                "evidence_ms": ((), np.int64, 0),
            }
        )
        self._lateness = max(lateness_ms, LEAST_LATENESS_MS)

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
        """Return that no kernel indexes with what is kept."""
        return {}

    def ingest(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: Any,
        late: NDArray[np.bool_],
        kinds: NDArray[np.int8] | None = None,
    ) -> Iterator[WindowBlock]:
        """Take rows in offset order; yield them as one block, but for those marked in ``late``."""
        del kinds
        clock = self.state["clock"]
        if not len(clock):
            return
        row, end_ms = ingest_items(codes, time_ms, self._lateness, clock, late)
        if not len(row):
            return
        whole = len(row) == len(codes)
        yield WindowBlock(
            codes=codes if whole else codes[row],
            values=values if whole else values[row],
            start_ms=time_ms[row],
            end_ms=end_ms,
            incomplete=np.zeros(len(row), np.bool_),
            row=row,
            still=np.zeros(len(row), np.int32),
        )
