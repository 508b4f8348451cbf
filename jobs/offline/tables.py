"""Series in files as one batch of points, and tables as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME
from connectors.files import Roles, find_roles, label_of, points_of, read_sheet
from connectors.files.sheet import require_column
from streamad.errors import ConfigError
from streamad.records import MAX_ABS_VALUE, SignalBatch
from streamad.shown import safe_text

LABELLED = ("1", "1.0", "true", "anomaly", "anomalous", "yes")
"""What marks a row in a column of labels, in lower case."""

MOST_SHOWN = 8
MAX_CELL_CHARS = 40

SERIES = "series"
"""The name of a series where no column names any, and of the column that names a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A file as points of series, in the order of time.

    frame : a row a point: its time as it stands in the file, and what names its series; row : where
    that stands in the file; batch : the same, typed; usable : points with a key and a time that can
    be read; columns : the variates; measured : columns of the file that were read; time : name of a
    column (None: the row number); key : columns that name the series; n_rows : rows of the file;
    n_unreadable : cells that are no finite number and count as missing; dated : times are moments,
    not numbers of rows; labelled : points that a column of the file marks as anomalies; notes : how
    it was read; faults : what could not be read, by column.
    """

    frame: pl.DataFrame
    row: NDArray[np.int64]
    batch: SignalBatch
    usable: NDArray[np.bool_]
    columns: tuple[str, ...]
    measured: tuple[str, ...]
    time: str | None
    key: tuple[str, ...]
    n_rows: int
    n_unreadable: int
    dated: bool
    labelled: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def width(self) -> int:
        """Return how many points a row of the file has."""
        return len(self) // self.n_rows


def read_table(
    path: Path,
    *,
    columns: Sequence[str] = (),
    time: str | None = None,
    key: Sequence[str] = (),
    joint: bool = False,
    label: str | None = None,
) -> Table:
    """Read a file; by default every numeric column is a series, labels excepted.

    time : a column, or ``row`` for the row number; by default the one with a usual name or with
        times in it; key : columns that together name the series; by default those with a usual name
        or, where times repeat, those with texts; joint : take the columns for the variates of one
        series; label : the column that marks anomalies, by default one with a usual name
    """
    sheet = read_sheet(path)
    if label is not None:
        require_column(sheet.frame, label, "--label")
    taken = () if label is None else (label,)
    roles = find_roles(sheet, time=time, key=key, values=columns, taken=taken)
    points = points_of(roles, one=SERIES, joint=joint)
    values = points.values.copy()
    bad = ~(np.abs(values) <= MAX_ABS_VALUE)
    values[bad] = np.nan
    usable = (points.ms != BAD_TIME) & points.keys.is_not_null().to_numpy()
    n = len(points.ms)
    batch = SignalBatch(
        keys=points.keys.fill_null(""),
        time_ms=points.ms,
        values=values,
        # Each point a message, as it comes live: one message alone makes no level normal.
        message=np.arange(n, dtype=np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.arange(n, dtype=np.int64),
        broker_ms=np.full(n, -1, np.int64),
    )
    own = [name for name in (roles.time, *roles.key) if name is not None]
    shown = [roles.frame[name].gather(points.row) for name in own]
    if points.separate:
        names = pl.Series(SERIES, list(roles.values), dtype=pl.String)
        shown.append(names.gather(np.tile(np.arange(len(names)), n // len(names))))
    return Table(
        frame=pl.DataFrame(shown),
        row=points.row,
        batch=batch,
        usable=usable,
        columns=points.variates,
        measured=tuple(roles.values),
        time=roles.time,
        key=(*roles.key, *((SERIES,) if points.separate else ())),
        n_rows=roles.frame.height,
        n_unreadable=int(bad.sum()),
        labelled=_labelled(roles, points.row, label),
        dated=roles.moments is not None and roles.moments.unit != "row",
        notes=(*sheet.notes, *points.notes),
        faults=tuple(_faults(roles)),
    )


def _faults(roles: Roles) -> Iterator[str]:
    """Yield what cannot be read of a file, by column: how many cells, and an example."""
    cells = []
    for name, read in roles.values.items():
        size = read.values.abs().fill_nan(None)
        absent, large = int(size.null_count()), int((size > MAX_ABS_VALUE).sum())
        unread = int(read.unread.sum())
        held = f"{unread:,} such as {example_of(roles.frame[name], read.unread)}"
        parts = [f"{absent - unread:,} empty"] if absent > unread else []
        parts += [held] if unread else []
        parts += [f"{large:,} larger than {MAX_ABS_VALUE:.0e}"] if large else []
        if parts:
            cells.append(f"{name}: {', '.join(parts)}")
    if cells:
        more = f"; and {len(cells) - MOST_SHOWN:,} more columns" if len(cells) > MOST_SHOWN else ""
        yield f"cells that count as missing: {'; '.join(cells[:MOST_SHOWN])}{more}"
    if roles.time is not None and roles.moments is not None:
        yield from rows_without(roles.frame, roles.time, roles.moments.ms == BAD_TIME, "time")
    for name in roles.key:
        yield from rows_without(roles.frame, name, absent_in(roles.frame[name]), "key")


def rows_without(
    frame: pl.DataFrame, name: str, lacking: NDArray[np.bool_], what: str
) -> Iterator[str]:
    """Yield how many rows of a file have nothing that can be read in a column, and an example."""
    number = int(lacking.sum())
    if number:
        n_empty = int((absent_in(frame[name]) & lacking).sum())
        held = lacking & ~absent_in(frame[name])
        such = f"{number - n_empty:,} such as {example_of(frame[name], pl.Series(held))}"
        parts = [f"{n_empty:,} empty"] if n_empty else []
        parts += [such] if number > n_empty else []
        yield f"{number:,} of {frame.height:,} rows have no {what} in {name}: {', '.join(parts)}"


def absent_in(column: pl.Series) -> NDArray[np.bool_]:
    """Return which cells of a column hold nothing, or an empty text."""
    texts = column.cast(pl.String, strict=False)
    return (texts.is_null() | (texts.str.strip_chars() == "")).to_numpy()


def example_of(column: pl.Series, chosen: pl.Series) -> str:
    """Return the first of some cells as a message shows it; "" where there is none."""
    held = column.filter(chosen)
    return repr(safe_text(str(held[0]), MAX_CELL_CHARS)) if len(held) else ""


def _labelled(
    roles: Roles, row: NDArray[np.int64], given: str | None = None
) -> NDArray[np.bool_] | None:
    """Return which points a column of the file labels an anomaly, None where there is none."""
    taken = {*roles.values, *roles.key, roles.time}
    name = given or label_of(roles.frame, taken=taken)
    if name is None:
        return None
    texts = roles.frame[name].cast(pl.String).str.to_lowercase().str.strip_chars()
    marked = texts.is_in(LABELLED).fill_null(value=False).to_numpy()
    return np.asarray(marked[row])


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write CSV, Parquet or JSON lines, by the suffix."""
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)


def check_output(path: Path) -> None:
    """Refuse a suffix nothing is written for, before any work is done."""
    if path.suffix not in {".csv", ".parquet", ".jsonl", ".ndjson"}:
        msg = f"{path}: the output must end with .csv, .parquet or .jsonl"
        raise ConfigError(msg)


def check_plot(path: Path | None) -> None:
    """Refuse a suffix nothing is drawn for, before any work is done."""
    if path is not None and path.suffix not in {".html", ".svg"}:
        msg = f"--plot {path}: drawings are written as .html or .svg"
        raise ConfigError(msg)
