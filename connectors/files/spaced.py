"""Columns padded by spaces, as tools print them, as text separated by tabs.

A space may stand inside a cell (``2026-03-02 12:00``, ``12 ms``) or part two of them. The columns
are known where all lines have as many, or where the line of names shows which words are one time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from connectors.files.moments import is_time
from connectors.files.numbers import read_numbers
from streamad.errors import ConfigError

SAMPLE_LINES = 150
LOOKED_AT = 5
"""Rows whose words are tried as a time."""

APART, WORDS = re.compile(r"[ \t]{2,}|\t"), re.compile(r"[ \t]+")
RULE = re.compile(r"[-=+| \t]{3,}")
"""A line drawn below the names."""
DECIMAL = re.compile(r"[+-]?[0-9][0-9.]*,[0-9]+%?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaced:
    """How lines are parted.

    parts : what stands between columns; names : of the columns, None where no line has them;
    begin : the first line of measurements, from 1; width : columns; merged : place and number of
    the words that are one time; sample : the cells of the first rows
    """

    parts: re.Pattern[str]
    names: tuple[str, ...] | None
    begin: int
    width: int
    merged: tuple[int, int] | None
    sample: tuple[tuple[str, ...], ...]

    def fits_beside(self, separator: str) -> bool:
        """Say whether nothing shows that another separator is meant: it stands in numbers alone."""
        cells = (cell for row in (self.names or (), *self.sample) for cell in row)
        return all(DECIMAL.fullmatch(cell) for cell in cells if separator in cell)


def find_spaced(text: str) -> Spaced | None:
    """Return how a text's columns are padded by spaces, None where they are not."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n", SAMPLE_LINES)[:SAMPLE_LINES], start=1)
        if line.strip() and not RULE.fullmatch(line.strip())
    ]
    given = [(number, line) for number, line in lines if not line.startswith("#")]
    if len(given) < 2 or _one_column([line for _, line in given[1:]]):
        return None
    return next((found for parts in (APART, WORDS) for found in _parted(lines, given, parts)), None)


def require_columns(text: str, name: str) -> None:
    """Refuse a text whose lines are words and numbers, but not as many in each.

    Raises
    ------
    ConfigError
        with the line that differs
    """
    rows = [
        (number, WORDS.split(line.strip()))
        for number, line in enumerate(text.split("\n", SAMPLE_LINES)[:SAMPLE_LINES], start=1)
        if line.strip() and not RULE.fullmatch(line.strip())
    ]
    several = [(number, words) for number, words in rows if len(words) > 1]
    counted = [words for _, words in several if sum(map(_is_number, words)) > 0]
    if 2 * len(counted) <= len(rows) or len(rows[0][1]) == 1:
        return
    usual = Counter(len(words) for _, words in rows[1:]).most_common(1)[0][0]
    number, words = next(((n, w) for n, w in rows if len(w) != usual), (0, []))
    if not number or _one_column([" ".join(words) for _, words in rows[1:]]):
        return
    msg = (
        f"{name}: its columns are parted by spaces alone, and line {number} has {len(words)} words "
        f"where most have {usual}: separate them by commas or tabs"
    )
    raise ConfigError(msg)


def with_tabs(text: str, found: Spaced, name: str) -> str:
    """Return the rows of a text with a tab between columns, after a line of names if it has one.

    Raises
    ------
    ConfigError
        where a line has more or fewer columns than the others: what is missing is not known
    """
    lines = pl.Series(text.split("\n")[found.begin - 1 :]).str.strip_chars()
    number = pl.int_range(found.begin, found.begin + len(lines), eager=True)
    table = lines != ""
    table &= ~lines.str.starts_with("#") & ~lines.str.contains(f"^{RULE.pattern}$")
    body = lines.filter(table).str.replace_all(found.parts.pattern, "\t")
    wrong = (body.str.count_matches("\t") + 1 != found.width).arg_true()
    if len(wrong):
        has = body[int(wrong[0])].count("\t") + 1
        msg = (
            f"{name}: line {number.filter(table)[int(wrong[0])]} has {has} fields and the others "
            f"{found.width} (separated by spaces: a cell that is empty or has a space in it shows "
            "nowhere; separate them by commas or tabs)"
        )
        raise ConfigError(msg)
    if found.merged is not None:
        place, words = found.merged
        before = rf"^((?:[^\t]*\t){{{place}}}[^\t]*)\t"
        for _ in range(words - 1):
            body = body.str.replace(before, "$1 ")
    head = [] if found.names is None else ["\t".join(found.names)]
    return "\n".join([*head, *body.to_list()]) + "\n"


def _one_column(lines: Sequence[str]) -> bool:
    """Say whether lines are numbers with a unit each: one column that has a space in its cells."""
    return read_numbers(pl.Series(lines)).fits


def _parted(
    lines: Sequence[tuple[int, str]], given: Sequence[tuple[int, str]], parts: re.Pattern[str]
) -> Iterator[Spaced]:
    rows = [(number, parts.split(line)) for number, line in given]
    width = len(rows[-1][1])
    first = len(rows) - 1
    while first and len(rows[first - 1][1]) == width:
        first -= 1
    names: tuple[str, ...] | None = None
    merged: tuple[int, int] | None = None
    if width == 1 or len(rows) - first < 2 or any(_is_row(row) for _, row in rows[:first]):
        return
    before = [line for at, line in lines if at < rows[first][0]]
    cells = [row for _, row in rows[first:]]
    fitted = None if not before else _fitted(before[-1].lstrip("# \t"), cells)
    if fitted is not None and (fitted[1] is not None or _is_row(cells[0])):
        names, merged = fitted
    elif not _is_row(cells[0]):
        names, first = tuple(cells[0]), first + 1
    elif before:
        return
    body = [tuple(row) for _, row in rows[first:]]
    if parts is APART and any(_several_numbers(cell) for row in body for cell in row):
        return
    yield Spaced(
        parts=parts, names=names, begin=rows[first][0], width=width, merged=merged,
        sample=tuple(body),
    )  # fmt: skip


def _fitted(
    line: str, rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], tuple[int, int] | None] | None:
    """Give the names of a line to the columns below: several words may be one time, or one name."""
    width, few = len(rows[0]), rows[:LOOKED_AT]
    counts = [row[0] for row in rows]
    counted = any(counts == [str(n) for n in range(i, i + len(rows))] for i in (0, 1))
    for parts in (WORDS, APART):
        names = tuple(parts.split(line))
        for lead in (0, 1) if counted else (0,):
            words = width - len(names) - lead + 1
            if words == 1:
                return ("",) * lead + names, None
            for place in range(lead, width - words + 1) if words > 1 else ():
                if all(is_time(" ".join(row[place : place + words])) for row in few):
                    return ("",) * lead + names, (place, words)
    return None


def _is_row(cells: Sequence[str]) -> bool:
    """Say whether cells are measurements: a time is among them, or nothing but numbers."""
    return any(is_time(cell) for cell in cells) or all(map(_is_number, cells))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _several_numbers(cell: str) -> bool:
    words = WORDS.split(cell)
    return len(words) > 1 and all(map(_is_number, words))
