"""What each column of a table is: a moment, an id, a category, a number, or of no use."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import polars as pl

from connectors.files import LABEL_NAMES
from connectors.files.moments import CLOCK, read_moments
from connectors.files.roles import decimal_commas
from connectors.files.sheet import Sheet
from streamad.errors import ConfigError

MOST_CODES = 100
"""A column of so many different whole numbers at the most holds codes of something."""
MOST_NEW = 0.25
"""Values per row: where there are more, a column names rows, or small groups of them."""
MOST_ALONE = 0.25
"""A share of rows: where more of them have a value that no other has, it is no kind of anything."""
SPELLED = r"[0-9][-/.:, ]"
"""What the parts of a moment as text have between them."""
MOST_LETTERS = 200
"""Of a usual value: longer ones are sentences, which say the same in ever other words."""
LEAST_HELD = 0.002
"""A share of rows: what fewer have is an exception, and no field to judge by."""
LEAST_ROWS = 20
"""Of fewer nothing can be told: each value is taken for one that comes again."""
AMBIGUOUS = ("target", "class")
"""Names of labels that are also those of ordinary fields; two values make them labels."""
NUMBERED = frozenset({"pid", "ppid", "tid", "id", "uid", "gid", "line", "lineid", "seq", "offset"})
"""Words of names: whole numbers of many kinds under them name something, and measure nothing."""
PORTS = frozenset({"port", "sport", "dport", "pt", "srcport", "dstport"})
COUNTED = ("count", "n", "multiplicity")
"""Names of columns that say how often a row happened."""

TIMED = frozenset({"time", "timestamp", "date", "ts", "datetime", "epoch"})
"""Words in names of numbers that are times."""
LOOKED_AT = 200

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table by what they are, in its order.

    categories, numbers : what describes a row; held : share of rows that have a category;
    kinds : how many values it has; constant : with one value in all rows; texts : what is no
    number; fractions : numbers that are not all whole; why : of what is left out, the reason
    """

    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    fractions: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    held: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def columns_of(sheet: Sheet, *, taken: Collection[str] = ()) -> Columns:
    """Return what the columns of a table are, but those that have a role already."""
    frame, commas = sheet.frame, decimal_commas(sheet)
    categories: list[str] = []
    numbers: list[str] = []
    fractions: list[str] = []
    constant: list[str] = []
    texts: set[str] = set()
    held: dict[str, float] = {}
    kinds: dict[str, int] = {}
    why: dict[str, str] = {}
    for name in frame.columns:
        if name in taken:
            continue
        one = _read(frame[name], commas=commas)
        held[name] = 1 - one.cells.null_count() / max(len(one.cells), 1)
        kinds[name] = one.n_kinds
        reason = _useless(one)
        if reason is None and (measured := _measures(one)):
            numbers.append(name)
            fractions += [name] if measured == "fractions" else []
            continue
        reason = reason or _names_rows(one)
        texts |= {name} if one.numbers is None else set()
        if reason is not None:
            why[name] = reason
        elif kinds[name] == 1 and not one.cells.null_count():
            constant.append(name)
        else:
            categories.append(name)
    categories, same = _once(frame, categories)
    why |= {name: f"says the same as {other}" for name, other in same.items()}
    return Columns(
        categories=tuple(categories),
        numbers=tuple(numbers),
        fractions=tuple(fractions),
        constant=tuple(constant),
        texts=frozenset(texts),
        held=held,
        kinds=kinds,
        why=why,
    )


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a column's name, in lower case.

    Examples
    --------
    >>> words_of("user.userName"), words_of("dest_port")
    (('user', 'user', 'name'), ('dest', 'port'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


@dataclass(frozen=True, slots=True)
class _Cells:
    """A column as it describes rows; numbers : None where a cell is none."""

    name: str
    cells: pl.Series
    numbers: pl.Series | None
    n_kinds: int

    @property
    def given(self) -> pl.Series:
        """Return what is not missing."""
        return self.cells.drop_nulls()


def _read(column: pl.Series, *, commas: bool) -> _Cells:
    """Read a column; null where a text is empty or a dash, as logs write what is missing."""
    cells = column
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        cells = texts.set(texts.is_in(["", "-"]).fill_null(value=True), None)
    spelled = cells
    if commas and cells.dtype == pl.String:
        spelled = cells.str.replace(",", ".", literal=True)
    numbers = None
    if cells.dtype == pl.String or cells.dtype.is_numeric():
        cast = spelled.cast(pl.Float64, strict=False)
        fits = cast.null_count() == cells.null_count() < len(cells)
        numbers = cast.drop_nulls() if fits and bool(cast.drop_nulls().is_finite().all()) else None
    return _Cells(column.name, cells, numbers, cells.drop_nulls().n_unique())


def _useless(one: _Cells) -> str | None:
    """Return why a column is nothing to judge by, None where it may be."""
    folded, dtype, n = one.name.strip().lower(), one.cells.dtype, len(one.cells)
    labels = folded in LABEL_NAMES and (folded not in AMBIGUOUS or one.n_kinds <= 2)
    plain = dtype == pl.String or dtype.is_numeric() or dtype == pl.Boolean
    reasons = (
        (one.n_kinds == 0, "is empty"),
        (labels, "says what is an anomaly"),
        (
            folded in COUNTED and one.numbers is not None,
            "says how often a row happened (`streamad fit --count`)",
        ),
        (
            one.cells.null_count() > (1 - LEAST_HELD) * n,
            f"fewer than {LEAST_HELD:.1%} of rows have it",
        ),
        (dtype.is_temporal() or (plain and _is_moment(one)), "holds times"),
        (dtype == pl.String and _are_lists(one.given), "holds lists"),
        (not plain, f"holds {dtype}"),
        (not all(one.name.split(".")), "has a name that no field of a message can have"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _are_lists(given: pl.Series) -> bool:
    return 2 * int(given.str.contains(r"^[\[{]").sum()) > len(given)


def _is_moment(one: _Cells) -> bool:
    given = one.given.head(LOOKED_AT)
    if one.cells.dtype == pl.Boolean or not len(given):
        return False
    if one.numbers is None:
        if bool(given.str.contains(CLOCK).all()):
            return True
        if not given.str.contains(SPELLED).all():
            return False
    elif not TIMED & {*words_of(one.name)}:
        return False
    try:
        return read_moments(given) is not None
    except ConfigError:
        return True  # dates, of which days and months cannot be told apart


def _measures(one: _Cells) -> str | None:
    """Return what a column measures: "fractions", or "counts" of very many kinds; None: nothing."""
    if one.numbers is None:
        return None
    if not bool((one.numbers == one.numbers.floor()).all()):
        return "fractions"
    last = words_of(one.name)[-1:]
    return None if one.n_kinds <= MOST_CODES or {*last} & (NUMBERED | PORTS) else "counts"


def _names_rows(one: _Cells) -> str | None:
    """Return why a column of texts or codes names rows rather than kinds of them."""
    given = one.given
    if len(given) > LEAST_ROWS:
        alone = int((given.value_counts(name="n")["n"] == 1).sum())
        if alone == len(given):
            return "every row has another value"
        if one.n_kinds > MOST_NEW * len(given) or alone > MOST_ALONE * len(given):
            return f"{one.n_kinds:,} different values in {len(given):,} rows"
    if one.numbers is not None:
        if one.n_kinds > MOST_CODES and {*words_of(one.name)[-1:]} & NUMBERED:
            return f"holds {one.n_kinds:,} different numbers that name something"
        return None
    length = given.str.len_chars().median() if given.dtype == pl.String else 0
    if isinstance(length, float) and length > MOST_LETTERS:
        return f"holds sentences of {length:.0f} letters"
    return None


def _once(frame: pl.DataFrame, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return columns of which none says the same as one before it, and those that do."""
    kept: list[str] = []
    same: dict[str, str] = {}
    codes = {name: frame[name].cast(pl.String).fill_null("").rank("dense") for name in names}
    for name in names:
        twin = next(
            (
                other
                for other in kept
                if codes[other].max() == codes[name].max()
                and pl.DataFrame([codes[other].alias("a"), codes[name].alias("b")]).n_unique()
                == codes[name].max()
            ),
            None,
        )
        if twin is None:
            kept.append(name)
        else:
            same[name] = twin
    return kept, same
