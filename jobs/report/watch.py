"""What a report needs of a replay beside its findings: windows, first scores, and rows to draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.operators.call import DetectOutput
from streamad.operators.detect import Position
from streamad.records import SignalBatch
from streamad.windows.keys import KeyTable

MOST_WINDOWS = 10_000_000
"""Windows whose p-values are kept, 21 bytes each; the report shows where there were more."""
MOST_ROWS = 10_000_000
"""Rows that are kept to be drawn."""
NEVER = np.iinfo(np.int64).max

_SCHEMA = {"code": pl.Int32, "end": pl.Int64, "p": pl.Float32, "newest_p": pl.Float32}


@dataclass(slots=True)
class Watch:
    """Collect it, within bounds; rows to draw are those of the replay's beginning."""

    rows: list[SignalBatch] = field(default_factory=list)
    n_rows: int = 0
    n_windows: int = 0
    _keys: KeyTable = field(default_factory=lambda: KeyTable(2**31 - 1))
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _first: NDArray[np.int64] = field(default_factory=lambda: np.full(64, NEVER, np.int64))
    _kept: int = 0

    def take(self, batch: SignalBatch, out: DetectOutput, at: Position) -> None:
        """Take a batch and what was made of it."""
        if self.n_rows < MOST_ROWS:
            self.rows.append(batch)
        self.n_rows += len(batch)
        for scores in out.scores:
            known = np.isfinite(scores.p_value)
            self.n_windows += int(known.sum())
            if not known.any():
                continue
            codes = self._keys.encode(scores.keys.filter(pl.Series(known)))[0]
            end_ms = scores.end_ms[known]
            self._note_first(codes, end_ms)
            if self._kept < MOST_WINDOWS:
                self._kept += len(codes)
                columns = codes, end_ms, scores.p_value[known], scores.newest_p[known]
                self._parts.append(
                    pl.DataFrame(dict(zip(_SCHEMA, columns, strict=True)), schema=_SCHEMA)
                )

    def _note_first(self, codes: NDArray[np.int32], end_ms: NDArray[np.int64]) -> None:
        if self._keys.capacity > len(self._first):
            grown = np.full(2 * self._keys.capacity, NEVER, np.int64)
            grown[: len(self._first)] = self._first
            self._first = grown
        np.minimum.at(self._first, codes, end_ms)

    @property
    def first_judged(self) -> dict[str, int]:
        """Return when each series had its first p-value: the end of that window."""
        return {
            name: int(self._first[code])
            for code, name in enumerate(self._keys.names)
            if name is not None
        }

    def windows(self) -> pl.DataFrame:
        """Return the windows that were kept: ``key``, ``end``, ``p`` and ``newest_p``."""
        whole = pl.concat([pl.DataFrame(schema=_SCHEMA), *self._parts])
        names = pl.Series("key", self._keys.names, dtype=pl.String)
        return whole.select(names.gather(whole["code"]), "end", "p", "newest_p")
