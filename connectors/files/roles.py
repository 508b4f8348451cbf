"""Which column of a table is the time, which name the series, and which hold measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME
from connectors.files.moments import Moments
from connectors.files.numbers import Numbers, has_decimal_commas, read_numbers
from connectors.files.sheet import Sheet, require_column
from connectors.files.times import find_time, with_clock
from streamad.errors import ConfigError

KEY_NAMES = ("key", "series", "series_id", "entity", "id")
LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly", "target", "class")
"""Columns that say what is an anomaly: never a variate, or the answer would be an input."""

FIELDS_TOO = ("target",)
"""Names of labels that are also those of ordinary fields: texts of several kinds are no labels."""

MAX_DOUBLE = 0.01
"""A share of rows: so few that were written twice show no second series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Columns of a table by what they are for.

    time : None where the row number serves; moments : its times; key : columns that together name
    the series; values : measurements; notes : what was found rather than given
    """

    frame: pl.DataFrame
    time: str | None
    moments: Moments | None
    key: tuple[str, ...]
    values: Mapping[str, Numbers]
    notes: tuple[str, ...] = ()


def find_roles(
    sheet: Sheet,
    *,
    time: str | None = None,
    key: Sequence[str] = (),
    values: Sequence[str] = (),
    taken: Sequence[str] = (),
    measure: bool = True,
) -> Roles:
    """Find the roles that are not given.

    taken : columns that have another role already; measure : look for measurements

    Raises
    ------
    ConfigError
        where a given column is not there or of another kind, or no column holds numbers
    """
    frame = sheet.frame
    for names, option in ((key, "--key"), (values, "--columns")):
        for name in names:
            require_column(frame, name, option)
    found, moments = find_time(sheet, time, taken={*key, *values, *taken})
    if found is not None and moments is not None:
        frame, found, moments = with_clock(frame, found, moments)
    commas = decimal_commas(sheet)
    numbers = {
        name: read_numbers(frame[name], commas=commas)
        for name in frame.columns
        if name not in (found, *key, *taken)
    }
    names, notes = tuple(key), []
    if not names:
        names, note = _find_key(sheet, frame, moments, numbers)
        notes = [note] if note else []
    measured = _measured(sheet, numbers, values, names) if measure else {}
    return Roles(
        frame=frame,
        time=found,
        moments=moments,
        key=names,
        values=measured,
        notes=(*notes, *_spelling(frame, measured, commas=commas)),
    )


def is_label(column: pl.Series) -> bool:
    """Say whether a column holds labels of anomalies, by its name and by what it holds.

    Examples
    --------
    >>> is_label(pl.Series("Label", [0, 1])), is_label(pl.Series("target", ["db", "web", "app"]))
    (True, False)
    """
    name = column.name.strip().lower()
    if name in FIELDS_TOO and column.dtype == pl.String:
        return column.drop_nulls().n_unique() <= 2
    return name in LABEL_NAMES


def label_of(frame: pl.DataFrame, *, taken: Collection[str | None] = ()) -> str | None:
    """Return the first column of labels; one that is read as something else (``taken``) is none."""
    return next((c.name for c in frame.iter_columns() if c.name not in taken and is_label(c)), None)


def decimal_commas(sheet: Sheet) -> bool:
    """Say whether the texts of a file have decimal commas."""
    texts = [column for column in sheet.frame.iter_columns() if column.dtype == pl.String]
    return has_decimal_commas(texts, separator=sheet.separator or ",")


def _measured(
    sheet: Sheet,
    numbers: Mapping[str, Numbers],
    given: Sequence[str],
    key: Sequence[str],
) -> dict[str, Numbers]:
    for name in given:
        if name not in numbers or not numbers[name].fits:
            dtype = sheet.frame[name].dtype
            held = "texts" if dtype == pl.String else str(dtype)
            msg = f"--columns: {name!r} holds {held}, and a variate must be numeric"
            raise ConfigError(msg)
    if given:
        return {name: numbers[name] for name in dict.fromkeys(given)}
    measured = {
        name: read
        for name, read in numbers.items()
        if read.fits and name not in key and name.strip().lower() not in LABEL_NAMES
    }
    if not measured:
        shown = ", ".join(sheet.frame.columns)
        msg = f"{sheet.name} has no numeric column to score; it has: {shown}"
        raise ConfigError(msg)
    return measured


def _spelling(frame: pl.DataFrame, measured: Mapping[str, Numbers], *, commas: bool) -> list[str]:
    notes = []
    texts = [frame[name] for name in measured if frame[name].dtype == pl.String]
    if commas and any(column.str.contains(",").any() for column in texts):
        notes.append("numbers are written with decimal commas")
    units = [f"{name} in {read.unit}" for name, read in measured.items() if read.unit]
    if units:
        notes.append("units: " + ", ".join(units))
    return notes


def _find_key(
    sheet: Sheet, frame: pl.DataFrame, moments: Moments | None, numbers: Mapping[str, Numbers]
) -> tuple[tuple[str, ...], str]:
    """Name the series by what the format or a usual name shows, or by texts if times repeat."""
    if sheet.key is not None and sheet.key in frame.columns:
        return (sheet.key,), ""
    folded = {name.strip().lower(): name for name in reversed(frame.columns)}
    usual = next((folded[name] for name in KEY_NAMES if name in folded), None)
    repeats = moments is not None and _repeats(frame, moments, ())
    if usual is not None and (usual not in numbers or (numbers[usual].fits and not repeats)):
        usual = None
    if moments is None or not repeats:
        return ((usual,), f"the series is named by {usual}") if usual else ((), "")
    chosen = [usual] if usual is not None else []
    for name, read in numbers.items():
        if chosen and not _repeats(frame, moments, chosen):
            break
        few = 1 < frame[name].n_unique() <= max(2, len(frame) // 2)
        if few and not read.fits and name not in chosen and not is_label(frame[name]):
            chosen.append(name)
    if not chosen:
        return (), "several rows have the same time, and no column of texts names their series"
    return tuple(chosen), f"times repeat: the series is named by {' and '.join(chosen)} (--key)"


def _repeats(frame: pl.DataFrame, moments: Moments, key: Sequence[str]) -> bool:
    known: NDArray[np.bool_] = moments.ms != BAD_TIME
    times = pl.Series("time in ms", moments.ms)
    whole = pl.DataFrame([times, *(frame[name] for name in key)]).filter(pl.Series(known))
    return whole.height - whole.n_unique() > MAX_DOUBLE * whole.height
