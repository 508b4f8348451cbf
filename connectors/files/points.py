"""The rows of a table as points of series, in the order of their times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME
from connectors.codecs.rows import joined_key
from connectors.files.moments import ROW_MS
from connectors.files.roles import Roles
from streamad.names import SEPARATOR

VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points of a table.

    keys : names of the series, null where one lacks; ms : int64 ``(n,)``, ``BAD_TIME`` where there
    is none; values : float64 ``(n, V)``; unread : cells ``(n, V)`` that hold something and no
    number; row : where each stood in the file, from 0; variates : names of the ``V`` columns;
    separate : every column is a series of its own
    """

    keys: pl.Series
    ms: NDArray[np.int64]
    values: NDArray[np.float64]
    unread: NDArray[np.bool_]
    row: NDArray[np.int64]
    variates: tuple[str, ...]
    separate: bool
    notes: tuple[str, ...] = ()


def points_of(roles: Roles, *, one: str, joint: bool) -> Points:
    """Return the points of a table; see `Points`.

    one : the name of the series where no column names any; joint : take several columns for the
    variates of one series, not for a series each
    """
    frame, names = roles.frame, list(roles.values)
    n = frame.height
    ms = np.arange(n, dtype=np.int64) * ROW_MS if roles.moments is None else roles.moments.ms
    values, unread = np.empty((n, 0)), np.zeros((n, 0), np.bool_)
    if roles.values:
        values = np.column_stack([read.values.to_numpy() for read in roles.values.values()])
        unread = np.column_stack([read.unread.to_numpy() for read in roles.values.values()])
    values = np.where(np.isnan(values), np.nan, values).astype(np.float64)
    keys = pl.repeat(one, n, dtype=pl.String, eager=True)
    if roles.key:
        keys = joined_key([frame[name].cast(pl.String) for name in roles.key])
        keys = keys.set(keys == "", None)
    row, notes = np.arange(n), list(roles.notes)
    known = ms[ms != BAD_TIME]
    if len(known) > 1 and (np.diff(known) < 0).any():
        # What has no time stays behind the row before it.
        place = np.maximum.accumulate(np.where(ms == BAD_TIME, -1, np.arange(n)))
        stands = np.where(place < 0, known.min(), ms[np.maximum(place, 0)])
        row = np.argsort(stands, kind="stable")
        backwards = bool((np.diff(known) <= 0).all())
        notes.append(
            "the file has the newest row first: its rows are put in the order of time"
            if backwards
            else "rows are put in the order of their times"
        )
    separate = len(names) > 1 and not joint
    if separate:
        columns = pl.Series(names, dtype=pl.String)
        keys = _each(keys, columns, row, named=bool(roles.key))
        notes.append(
            f"each of the {len(names)} columns is a series of its own (--joint: one of all of them)"
        )
        row, width = np.repeat(row, len(names)), 1
    else:
        keys, width = keys.gather(row), len(names)
    order = row if not separate else row[:: len(names)]
    return Points(
        keys=keys,
        ms=ms[row],
        values=values[order].reshape(len(row), width),
        unread=unread[order].reshape(len(row), width),
        row=row,
        variates=(VALUE,) if separate else tuple(names),
        separate=separate,
        notes=tuple(notes),
    )


def _each(keys: pl.Series, columns: pl.Series, row: NDArray[np.int64], *, named: bool) -> pl.Series:
    """Return the keys of every column of every row."""
    width = len(columns)
    of_column = columns.gather(np.tile(np.arange(width), len(row)))
    if not named:
        return of_column
    escaped = of_column.str.replace_all(r"([/\\])", r"\$1")
    return keys.gather(np.repeat(row, width)) + SEPARATOR + escaped
