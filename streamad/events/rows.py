"""The columns of events: categorical fields and numbers, at one time each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a detector made of events; it goes along with them when they are parted.

    by : what encoded them; another one must not use it; codes : ids ``(n, m)``, where there are
    any; hashes : uint64 ``(n, m)``
    """

    by: object
    codes: NDArray[np.int32] | None
    hashes: NDArray[np.uint64]

    def __getitem__(self, at: Any) -> Encoded:
        """Return that of some rows."""
        codes = None if self.codes is None else self.codes[at]
        return Encoded(self.by, codes, self.hashes[at])


class EventRows:
    """Events, one row each.

    Columns of texts are only parted where somebody reads them: the events of a batch are judged in
    several rounds, and most rounds need no more than what was encoded before.

    Attributes
    ----------
    time_ms : int64 ``(n,)``, event time
    fields : String columns of categorical fields, Float64 columns of numbers; null: missing
    encoded : see `Encoded`; None where nobody has
    """

    __slots__ = ("_at", "_frame", "encoded", "time_ms")

    def __init__(
        self, time_ms: NDArray[np.int64], fields: pl.DataFrame, encoded: Encoded | None = None
    ) -> None:
        self.time_ms, self.encoded = time_ms, encoded
        self._frame = fields
        self._at: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.time_ms)

    def __getitem__(self, at: slice | NDArray[Any]) -> EventRows:
        """Return rows by a slice, an index or a mask."""
        if isinstance(at, slice):
            return EventRows(self.time_ms[at], self.fields[at], self._part(at))
        rows = np.flatnonzero(at) if at.dtype == np.bool_ else at.astype(np.int64)
        made = EventRows(self.time_ms[rows], self._frame, self._part(rows))
        made._at = rows if self._at is None else self._at[rows]
        return made

    @property
    def fields(self) -> pl.DataFrame:
        """Return the columns."""
        if self._at is not None:
            self._frame, self._at = self._frame[self._at], None
        return self._frame

    @classmethod
    def join(cls, parts: Sequence[EventRows]) -> Self:
        """Return events of several batches, one after the other."""
        return cls(
            np.concatenate([part.time_ms for part in parts]),
            pl.concat([part.fields for part in parts], rechunk=True),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the fields, in order."""
        return tuple(self._frame.columns)

    def _part(self, at: Any) -> Encoded | None:
        return None if self.encoded is None else self.encoded[at]
