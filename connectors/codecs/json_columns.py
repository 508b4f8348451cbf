"""Columns that the JSON reader gave: arrays laid out, texts read as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap, numbers_of, text_times_to_ms, times_to_ms
from connectors.codecs.rows import Candidates


def explode(frame: pl.DataFrame, names: Sequence[str], number: NDArray[np.int64]) -> pl.DataFrame:
    """Lay arrays of equal length out as rows; an absent array counts as nulls."""
    columns = []
    for name in names:
        series = frame[name]
        if series.null_count():
            inner = series.dtype.inner  # type: ignore[attr-defined]
            nothing = pl.lit(None, dtype=inner).repeat_by(pl.lit(pl.Series(number)))
            series = pl.select(pl.coalesce(pl.lit(series), nothing).alias(name)).to_series()
        columns.append(series.explode())
    return pl.DataFrame(columns)


def numbers_in(flat: pl.DataFrame, fields: FieldMap) -> NDArray[np.float64]:
    """Return the numbers of rows ``(n, n_numbers)``, of which there may be none."""
    if not fields.values:
        return np.empty((flat.height, 0), np.float64)
    return flat.select(fields.values).to_numpy()


@dataclass(frozen=True, slots=True)
class Texts:
    """What the numbers of some rows are where they stand as texts.

    values : float64 ``(n, V)`` of all rows; time_ms int64 ``(len(rows),)`` of ``rows``, where the
        reader found no time; wrong, empty, absent : bool ``(n,)``, rows with a text that is no
        number, with nothing but texts such as ``NaN``, with no value at all; no_time : bool
        ``(n,)``
    """

    values: NDArray[np.float64]
    rows: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    no_time: NDArray[np.bool_]

    def mark(self, rows: Candidates) -> None:
        """Put the times in, and hold against each row what was found."""
        rows.time_ms[self.rows] = self.time_ms
        rows.mark(self.no_time, "missing_field")
        rows.mark(self.wrong, "wrong_type")
        rows.mark(self.empty, "not_finite")
        rows.mark(self.absent, "missing_field")


def read_texts(
    flat: pl.DataFrame, rows: NDArray[np.int64], loose: pl.DataFrame, fields: FieldMap
) -> Texts:
    """Read numbers that stand as texts (``"51.17"``): JSON has no NaN and no decimals.

    loose : time and values of ``rows`` as texts. ``NaN`` and infinities say that there is no value.
    """
    values = numbers_in(flat, fields).copy()
    number = len(values)
    wrong, empty, no_time = (np.zeros(number, np.bool_) for _ in range(3))
    for index, name in enumerate(fields.values):
        column = values[rows, index]
        gone = np.isnan(column)
        given = loose[name].is_not_null().to_numpy() & gone
        if not given.any():
            continue
        read = numbers_of(loose[name])
        found = read.to_numpy()
        values[rows, index] = np.where(given & np.isfinite(found), found, column)
        unread = read.is_null().to_numpy()
        wrong[rows] |= given & unread
        empty[rows] |= given & ~unread & ~np.isfinite(found)
    nothing = np.isnan(values).all(axis=1)
    time = flat[fields.time].gather(rows)
    time_ms = times_to_ms(time, fields.time_unit)
    missing = time.is_null()
    if missing.any() and fields.time_unit != "iso":
        texts = loose[fields.time]
        time_ms = np.where(missing, text_times_to_ms(texts, fields.time_unit), time_ms)
        missing &= numbers_of(texts).is_null()
    no_time[rows] = missing.to_numpy()
    return Texts(
        values=values,
        rows=rows,
        time_ms=time_ms,
        wrong=wrong,
        empty=empty & nothing,
        absent=nothing & fields.payload.measured,
        no_time=no_time,
    )
