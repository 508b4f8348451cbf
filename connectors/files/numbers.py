"""Numbers as tools and people write them into cells: ``29.3%``, ``1.234,5``, ``12 ms``, ``N/A``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

MAX_SHARE_UNREAD = 0.2
"""A few bad cells are missing values; they do not make a column of measurements one of texts."""

SAMPLE = 1_000

MISSING = (
    "", "-", "--", "—", "nan", "na", "n/a", "#n/a", "null", "none", "nil", "undefined", "missing",
    "?", "\\n", "inf", "+inf", "-inf", "infinity", "-infinity", "no data",
)  # fmt: skip
"""What stands in a cell that has no (finite) number, in lower case."""

UNITS: Mapping[str, Mapping[str, float]] = {
    "bytes": {
        "b": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
        "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50,
        "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50,
    },
    "seconds": {
        "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "secs": 1,
        "min": 60, "mins": 60, "h": 3600, "hour": 3600, "hours": 3600, "day": 86400, "days": 86400,
    },
    "": {"k": 1e3, "mil": 1e6, "m": 1e6, "bil": 1e9, "g": 1e9, "t": 1e12, "tri": 1e12, "": 1},
}  # fmt: skip
"""Units that dashboards mix in one column as the size of a value wants it, and their factors."""

SIZES: Mapping[str, float] = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "m": 1e-3,
    "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15,
}  # fmt: skip
"""What stands before the unit of a measurement, or a count per second, and its factor."""

_BITS = re.compile("[kKMGTP]?b(?:/s|ps|it/s)?")

_WHOLE = r"(?:[0-9]{1,3}(?:[.,' \x{a0}\x{202f}][0-9]{3})+|[0-9]+)"
_NUMBER = r"^([+\-\x{2212}]?(?:" + _WHOLE + r"(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+\-]?[0-9]+)?)"
_CELL = _NUMBER + r"[\s\x{a0}]*([\p{L}%°$€£].*)?$"
_POINTS = (
    r"^[+\-]?(?:[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})|0\.[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+)\D*$"
)
_COMMAS = (
    r"^[+\-]?(?:[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})|0,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)\D*$"
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column read as numbers.

    values : Float64, null where a cell is empty or no number; unread : cells that hold something
    and no number; unit : the unit the cells have, "" where they have none
    """

    values: pl.Series
    unread: pl.Series
    unit: str = ""

    @property
    def fits(self) -> bool:
        """Say whether this is a column of numbers, with a few bad cells at most."""
        given = self.values.len() - (self.values.null_count() - int(self.unread.sum()))
        return given > 0 and int(self.unread.sum()) <= MAX_SHARE_UNREAD * given


def has_decimal_commas(columns: Iterable[pl.Series], *, separator: str) -> bool:
    """Say whether the texts of a file write ``1,5`` for one and a half.

    Where no cell decides it (``1,234``), the separator does: files separated by commas have quoted
    thousands, others decimal commas.
    """
    points = commas = False
    for column in columns:
        texts = column.drop_nulls().head(SAMPLE).str.strip_chars()
        points |= bool(texts.str.contains(_POINTS).any())
        commas |= bool(texts.str.contains(_COMMAS).any())
    if points != commas:
        return commas
    return separator != "," and not points


def read_numbers(column: pl.Series, *, commas: bool = False) -> Numbers:
    """Read a column as numbers.

    Examples
    --------
    >>> read_numbers(pl.Series(["29.3%", "30 %", "N/A"])).values.to_list()
    [29.3, 30.0, None]
    >>> read_numbers(pl.Series(["1.234,5", "0,5"]), commas=True).values.to_list()
    [1234.5, 0.5]
    >>> read_numbers(pl.Series(["1.5 kB", "2 MB"])).values.to_list()
    [1500.0, 2000000.0]
    """
    if column.dtype != pl.String:
        known = column.dtype.is_numeric() or column.dtype == pl.Boolean
        nothing = column.is_null() if column.dtype == pl.Null else None
        if not known and nothing is None:
            return Numbers(_nulls(column), column.is_not_null())
        values = column.cast(pl.Float64).fill_nan(None)
        return Numbers(values, pl.repeat(value=False, n=len(column), dtype=pl.Boolean, eager=True))
    texts = column.str.strip_chars()
    texts = texts.set(texts.str.to_lowercase().is_in(MISSING), None)
    values = texts.cast(pl.Float64, strict=False)
    unread = texts.is_not_null() & values.is_null()
    if not unread.any():
        return Numbers(values, unread)
    return _with_units(texts, commas=commas)


def _with_units(texts: pl.Series, *, commas: bool) -> Numbers:
    parts = texts.to_frame("cell").select(
        number=pl.col("cell").str.extract(_CELL, 1), unit=pl.col("cell").str.extract(_CELL, 2)
    )
    plain = (
        parts["number"]
        .str.replace_all(r"[' \x{a0}\x{202f}]", "")
        .str.replace("\N{MINUS SIGN}", "-")
    )
    if commas:
        plain = plain.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    else:
        plain = plain.str.replace_all(r",([0-9]{3})", "$1")
    values = plain.cast(pl.Float64, strict=False)
    units = parts["unit"].fill_null("").str.strip_chars()
    found = [unit for unit in units.filter(values.is_not_null()).unique().sort() if unit]
    if len(found) > 1 or (found and (units == "").filter(values.is_not_null()).any()):
        kind, factors = _one_kind(units.filter(values.is_not_null()))
        if factors is None:
            return Numbers(_nulls(texts), texts.is_not_null())
        values *= units.replace_strict(factors, default=None, return_dtype=pl.Float64)
        found = [kind] if kind else []
    return Numbers(values, texts.is_not_null() & values.is_null(), found[0] if found else "")


def _one_kind(units: pl.Series) -> tuple[str, Mapping[str, float] | None]:
    """Return the kind of mixed units and their factors, None where they do not go together."""
    given = units.unique().to_list()
    names = {name: name.lower() for name in given}
    for per in ("", "/s"):
        bare = {name: low.removesuffix(per) for name, low in names.items()}
        if per and not all(low.endswith(per) for low in names.values() if low):
            continue
        for kind, factors in UNITS.items():
            # A zero is often written without its unit.
            known = {*bare.values()} - {""} <= factors.keys()
            if known and (kind == "" or "" not in bare.values()) and (kind or not per):
                # Of bits and bytes the letter alone shows which.
                bits = kind == "bytes" and any(_BITS.fullmatch(name) for name in given)
                shown = "bits" if bits else kind
                return shown + per, {name: float(factors[low]) for name, low in bare.items()}
    if len({*names.values()} - {""}) == 1:
        return next(name for name in given if name), dict.fromkeys(given, 1.0)
    return _scaled([name for name in given if name])


def _scaled(given: Sequence[str]) -> tuple[str, Mapping[str, float] | None]:
    """Take the sizes (``k``, ``M``) off units that are the same without: ``1.2 kW``, ``800 W``."""
    ways = [
        {
            name[len(size) :].strip(): factor
            for size, factor in SIZES.items()
            if name.startswith(size)
        }
        for name in given
    ]
    shared = set.intersection(*map(set, ways)) - {""}
    if not shared:
        return "", None
    word = max(shared, key=len)
    factors = {name: way[word] for name, way in zip(given, ways, strict=True)}
    return word, {**factors, "": 1.0}


def _nulls(column: pl.Series) -> pl.Series:
    return pl.repeat(None, len(column), dtype=pl.Float64, eager=True)
