"""The columns of events: categorical fields and numbers, at one time each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EventRows:
    """Events, one row each.

    time_ms : int64 ``(n,)``, event time
    fields : String columns of categorical fields, Float64 columns of numbers; null: missing
    """

    time_ms: NDArray[np.int64]
    fields: pl.DataFrame

    def __len__(self) -> int:
        return len(self.time_ms)

    def __getitem__(self, at: slice | NDArray[Any]) -> EventRows:
        """Return rows by a slice, an index or a mask."""
        if isinstance(at, slice):
            return EventRows(self.time_ms[at], self.fields[at])
        if at.dtype == np.bool_:
            at = np.flatnonzero(at)
        return EventRows(self.time_ms[at], self.fields[at.astype(np.int64)])

    @classmethod
    def join(cls, parts: Sequence[EventRows]) -> EventRows:
        """Return events of several batches, one after the other."""
        return cls(
            np.concatenate([part.time_ms for part in parts]),
            pl.concat([part.fields for part in parts], rechunk=True),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the fields, in order."""
        return tuple(self.fields.columns)
