"""Times as tools and people write them: epochs of any unit, ISO 8601, dates of many countries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import (
    BAD_TIME,
    FIRST_S,
    TimeUnit,
    plausible,
    texts_to_ms,
    times_to_ms,
    unit_of,
)
from streamad.errors import ConfigError

MAGNITUDES: Sequence[tuple[float, TimeUnit]] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
SAMPLE = 1_000
MIN_SHARE_READ = 0.5
"""Of a column's cells, so that some that are none do not make it another column."""

ROW_MS = 300_000
"""What a row counts for where there is no time: five minutes, so that days mean something."""

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d.%m.%y",
    "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%m-%d-%Y", "%d-%m-%Y",
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d %B %Y", "%b %d, %Y", "%b %d %Y",
    "%B %d, %Y",
    "%Y.%m.%d.", "%Y. %m. %d.", "%d. %m. %Y", "%d.%m. %Y",
)  # fmt: skip
CLOCKS = (
    "", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p", " %I:%M%p", ", %H:%M",
    ", %H:%M:%S%.f", ", %I:%M %p", ", %I:%M:%S %p", ":%H:%M:%S", "T%H:%M:%S%.f",
)  # fmt: skip
ZONES = ("", " %z", "%z")
WHOLE = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%b %d %H:%M:%S %Y")
"""Patterns of a date and its time of day together."""

_LOOKS = {
    "%.f": r"(\.\d+)?", "%Y": r"\d{4}", "%y": r"\d{2}", "%b": r"[A-Za-z]{3,4}", "%B": r"[A-Za-z]+",
    "%p": "[AaPp][Mm]", "%z": r"[+-]\d{2}:?\d{2}",
    **dict.fromkeys(("%m", "%d", "%H", "%I", "%M", "%S"), r"\d{1,2}"),
}  # fmt: skip

MIN_DIGITS = 3
"""Of a date: 1/1/6 has as many."""

FEW = 5
"""Cells that are looked at before a whole column is."""

_BEGINS = re.compile(
    r"(?i)[0-9]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun"
)

CLOCK = r"^[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[AaPp][Mm])?$"
"""A time of day alone, as it stands beside a column of dates."""


@dataclass(frozen=True, slots=True)
class Moments:
    """A column read as times.

    ms : int64 ``(n,)``, ``BAD_TIME`` where a cell is empty or no time; unit : of epochs, else
    ``iso`` or the pattern of the dates
    """

    ms: NDArray[np.int64]
    unit: str


@lru_cache(maxsize=4096)
def is_time(text: str) -> bool:
    """Say whether a cell alone is a time of these years: no name of a column is one.

    Examples
    --------
    >>> is_time("2026-03-02 00:00"), is_time("1772409600"), is_time("51.17"), is_time("cpu")
    (True, True, False, False)
    """
    text = text.strip()
    try:
        return unit_of(float(text)) is not None
    except ValueError:
        pass
    if sum(letter.isdigit() for letter in text) < MIN_DIGITS or not _BEGINS.match(text):
        return False
    cell = pl.Series([text])
    return bool(texts_to_ms(cell)[0] != BAD_TIME) or next(_fitting(_tidy(cell)), None) is not None


def read_moments(column: pl.Series) -> Moments | None:
    """Read a column as times; None where most of its cells are none.

    Raises
    ------
    ConfigError
        where days and months cannot be told apart
    """
    if column.dtype.is_temporal():
        if column.dtype in (pl.Time, pl.Duration):
            return None
        stamps = column.cast(pl.Datetime("ms")).to_physical().fill_null(BAD_TIME)
        return Moments(stamps.to_numpy().astype(np.int64), "ms")
    if column.dtype.is_numeric():
        return _epochs(column)
    if column.dtype != pl.String:
        return None
    texts = column.str.strip_chars()
    texts = texts.set(texts == "", None)
    return None if texts.null_count() == len(texts) else _of_texts(texts)


def _of_texts(texts: pl.Series) -> Moments | None:
    numbers = texts.cast(pl.Float64, strict=False)
    given = len(texts) - texts.null_count()
    if given - (numbers.null_count() - texts.null_count()) > MIN_SHARE_READ * given:
        whole = texts.cast(pl.Int64, strict=False)
        exact = whole.null_count() == numbers.null_count()
        # A date without separators is a number, too.
        dates = None if plain_epochs(numbers) else _dates(texts)
        return dates or _epochs(whole if exact else numbers)
    ms = texts_to_ms(texts)
    if _share_read(ms, texts) >= MIN_SHARE_READ:
        return Moments(ms, "iso")
    return _dates(texts)


def plain_epochs(numbers: pl.Series) -> bool:
    """Say whether numbers are epochs of these years."""
    middle = numbers.head(SAMPLE).drop_nulls().median()
    return isinstance(middle, float) and unit_of(middle) is not None


def epoch_unit(numbers: pl.Series) -> TimeUnit:
    """Return the unit of epochs, by the size of the first of them."""
    known = numbers.head(SAMPLE).cast(pl.Float64).drop_nulls().drop_nans()
    middle = known.abs().median()
    size = middle if isinstance(middle, float) else 0.0
    return next((unit for bound, unit in MAGNITUDES if size < bound), "ns")


def _epochs(column: pl.Series) -> Moments | None:
    known = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    finite = np.isfinite(known) & (np.abs(known) < END_OF_NUMBERS)
    if not finite.any():
        return None
    if np.median(np.abs(known[finite][:SAMPLE])) >= FIRST_S:
        unit = epoch_unit(column)
        whole = column.fill_nan(None) if column.dtype.is_float() else column
        return Moments(times_to_ms(whole, unit), unit)
    # Numbers of rows, or seconds from a beginning of their own.
    steps = np.diff(known[finite])
    rows = column.dtype.is_integer() and (len(steps) == 0 or np.median(steps) == 1)
    per = ROW_MS if rows else 1000
    ms = np.where(finite, np.floor(np.where(finite, known, 0) * per), float(BAD_TIME))
    return Moments(ms.astype(np.int64), "row" if rows else "s")


END_OF_NUMBERS = 2.0**63


def _dates(texts: pl.Series) -> Moments | None:
    tidy = _tidy(texts)
    found: dict[bytes, tuple[str, NDArray[np.int64]]] = {}
    for pattern in _fitting(tidy):
        ms = _parse(tidy, pattern)
        found.setdefault(ms.tobytes(), (pattern, ms))
    if not found:
        return None
    best = max(_share_read(ms, texts) for _, ms in found.values())
    fits = [(pattern, ms) for pattern, ms in found.values() if _share_read(ms, texts) == best]
    if len(fits) > 1:
        steps = [_unevenness(ms) for _, ms in fits]
        order = np.argsort(steps)
        if not steps[order[0]] * 4 < steps[order[1]]:
            example = texts.drop_nulls()[0]
            ways = " or ".join(_shown(ms) for _, ms in fits[:2])
            msg = f"the time {example!r} is {ways}; write dates as 2026-01-31, then days are known"
            raise ConfigError(msg)
        fits = [fits[order[0]]]
    pattern, ms = fits[0]
    return Moments(ms, pattern)


def _fitting(tidy: pl.Series) -> Iterator[str]:
    """Yield the patterns that most of a column's cells follow."""
    sample = tidy.drop_nulls().head(SAMPLE)
    few = [cell for cell in sample.head(FEW).to_list() if _BEGINS.match(cell)]
    parts = (part for part in product(DATES, CLOCKS, ZONES) if part[1] or not part[2])
    for pattern in chain(map("".join, parts), WHOLE) if few else ():
        if not any(map(_shape(pattern).fullmatch, few)):
            continue
        if _parse_texts(sample, pattern).null_count() <= (1 - MIN_SHARE_READ) * len(sample):
            yield pattern


@cache
def _shape(pattern: str) -> re.Pattern[str]:
    """Return what cells of a pattern look like: far quicker to try than to read a column."""
    shape = re.escape(pattern)
    for code, look in _LOOKS.items():
        shape = shape.replace(re.escape(code), look)
    return re.compile(shape)


def _tidy(texts: pl.Series) -> pl.Series:
    """Take off what says nothing more: names of weekdays, UTC, commas before fractions."""
    return (
        texts.str.strip_chars()
        .str.replace(r"^(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? ", "")
        .str.replace(r" ?(?:\(?UTC\)?|GMT|Z)$", "")
        .str.replace(r" (?:UTC|GMT)( [0-9]{4})$", "$1")
        .str.replace("([0-9]+)年 ?([0-9]+)月 ?([0-9]+)日", "$1-$2-$3")
        .str.replace("([0-9]+)[时時] ?([0-9]+)分 ?([0-9]+)秒$", "$1:$2:$3")
        .str.replace("([0-9]+)[时時] ?([0-9]+)分$", "$1:$2")
        .str.replace(r"(:[0-9]{2}),([0-9]+)", "$1.$2")
        .str.replace_all(r"[\s\x{a0}\x{202f}]+", " ")
    )


def _parse_texts(tidy: pl.Series, pattern: str) -> pl.Series:
    try:
        return tidy.str.to_datetime(pattern, time_unit="ms", strict=False, exact=True)
    except pl.exceptions.PolarsError:
        return pl.repeat(None, len(tidy), dtype=pl.Datetime("ms"), eager=True)


def _parse(tidy: pl.Series, pattern: str) -> NDArray[np.int64]:
    read = _parse_texts(tidy, pattern)
    ms = read.to_physical().fill_null(BAD_TIME).to_numpy().astype(np.int64)
    return np.where(plausible(ms), ms, BAD_TIME)


def _share_read(ms: NDArray[np.int64], texts: pl.Series) -> float:
    given = len(texts) - texts.null_count()
    return float((ms != BAD_TIME).sum()) / max(given, 1)


def _unevenness(ms: NDArray[np.int64]) -> float:
    """Return the largest step over the usual one: less where day and month are not exchanged."""
    steps = np.abs(np.diff(ms[ms != BAD_TIME]))
    steps = steps[steps > 0]
    return float(steps.max() / np.median(steps)) if len(steps) else 1.0


def _shown(ms: NDArray[np.int64]) -> str:
    first = ms[ms != BAD_TIME][0]
    return str(np.datetime64(int(first), "ms").astype("datetime64[D]"))
