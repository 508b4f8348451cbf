"""Delimited text of any common tool as columns: separators, encodings, headers, what stands before.

Cells stay texts; what they mean is read later. A file is read whole, so its first lines may decide
what its columns are.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from connectors.files.moments import is_time
from connectors.files.spaced import find_spaced, require_columns, with_tabs
from streamad.errors import ConfigError

SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
SAMPLE_LINES = 100
MAX_PREAMBLE = 50
MAX_FACTS = 6
"""Lines of names and of facts about the columns before the first measurement."""
ANNOTATIONS = ("#datatype", "#group", "#default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delimited:
    """Columns of texts; ``line`` is that of the file in which the first row stands, from 1."""

    frame: pl.DataFrame
    separator: str
    line: int
    notes: tuple[str, ...] = ()


def read_delimited(raw: bytes, name: str) -> Delimited:
    """Read delimited text.

    Raises
    ------
    ConfigError
        where there are no columns, or lines differ in how many they have
    """
    text, notes = _decode(raw)
    stated = None
    first, _, rest = text.partition("\n")
    if (found := first.strip().strip('"')).lower().startswith("sep=") and len(found) == len(
        "sep=;"
    ):
        stated, text = found[-1], rest
    offset = 0 if stated is None else 1
    if text.lstrip("\r\n \t").startswith(ANNOTATIONS):
        return _annotated(text, name, notes)
    separator = stated or _separator(text)
    rows = _sample(text, separator)
    if stated is None and (padded := _padded(text, name, separator, rows, notes)) is not None:
        return padded
    if not rows:
        msg = f"{name}: has no rows"
        raise ConfigError(msg)
    begin, header = _header(rows)
    skipped = rows[begin][0] - 1
    body = text.split("\n", skipped)[-1] if skipped else text
    if skipped:
        notes.append(f"the first {skipped + offset} lines are no table and are passed over")
    if separator != ",":
        notes.append(f"separated by {NAMES.get(separator, repr(separator))}")
    if not header:
        notes.append("no line with names: columns are named column_1, column_2 ...")
    frame = _parse(body, name, separator, header=header, line=skipped + offset + 1)
    return Delimited(
        frame=_named(frame),
        separator=separator,
        line=skipped + offset + 1 + header,
        notes=tuple(notes),
    )


def _decode(raw: bytes) -> tuple[str, list[str]]:
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        if raw.startswith(mark):
            return _lines(raw[len(mark) :].decode(encoding, errors="replace")), []
    try:
        return _lines(raw.decode("utf-8")), []
    except UnicodeDecodeError:
        return _lines(raw.decode("cp1252", errors="replace")), [
            "read as Windows-1252, as it is no UTF-8"
        ]


def _lines(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _separator(text: str) -> str:
    """Return the separator under which most lines have the same number of fields, more than one."""
    best, found = (0.0, 0), ","
    for separator in SEPARATORS:
        widths = Counter(len(fields) for _, fields in _sample(text, separator))
        if not widths:
            continue
        width, number = max(widths.items(), key=lambda item: (item[1] * (item[0] > 1), item[0]))
        score = (number / sum(widths.values()) if width > 1 else 0.0, width)
        # Decimal commas part every line of numbers as evenly as a separator, but not the names.
        if score[0] > best[0] + 0.05 or (
            score[0] > best[0] - 0.05 and _parts_names(text, separator, found)
        ):
            best, found = score, separator
    return found


def _parts_names(text: str, separator: str, other: str) -> bool:
    """Say whether the first line is parted by one separator and not, or less, by another."""
    first = next(iter(text.lstrip("\n").split("\n", 1)))
    return first.count(separator) > 0 and first.count(other) < first.count(separator)


def _sample(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return the first lines that are not blank as their number, from 1, and their fields."""
    head = "\n".join(text.split("\n", MAX_PREAMBLE + SAMPLE_LINES)[: MAX_PREAMBLE + SAMPLE_LINES])
    reader = csv.reader(io.StringIO(head), delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for fields in reader:
            if any(field.strip() for field in fields) and not fields[0].startswith("#"):
                rows.append((before + 1, fields))
            elif fields and fields[0].startswith("#") and rows == []:
                # A name may follow the sign: `#time,value` is a header.
                rows += [(before + 1, fields)] if len(fields) > 1 else []
            before = reader.line_num
    except csv.Error:
        pass
    return rows


def _header(rows: Sequence[tuple[int, list[str]]]) -> tuple[int, bool]:
    """Return which of the rows is the first of the table, and whether it holds the names."""
    widths = Counter(len(fields) for _, fields in rows)
    width = max(widths, key=lambda w: (widths[w], w))
    begin = next(i for i, (_, fields) in enumerate(rows) if len(fields) == width)
    if begin > MAX_PREAMBLE:
        begin = 0
    if begin and len(rows[begin - 1][1]) > 1 and not _is_data(rows[begin - 1][1]):
        # A line with names that has another number of them: let the reader refuse it by its number.
        names = rows[begin - 1][1]
        if abs(len(names) - width) == 1 and _is_data(rows[begin][1]):
            begin -= 1
    first = rows[begin][1]
    if not _is_data(first) and not _is_one_of(first, [fields for _, fields in rows[begin + 1 :]]):
        # Exports put facts about the columns first (CloudWatch): the names stand last of these.
        head = [fields for _, fields in rows[begin + 1 : begin + MAX_FACTS + 1]]
        facts = next((n for n, fields in enumerate(head) if _is_data(fields)), 0)
        if all(_looks_like_names(fields) for fields in head[:facts]):
            begin += facts
        return begin, True
    return begin, False


def _is_one_of(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a row is no line of names: numbers in it, and a text its column has again.

    Names may be numbers (years), but none stands among its own values.
    """
    alike = [fields for fields in rows if len(fields) == len(first)]
    if not alike or sum(map(_is_number, first)) < len(first) // 4 + 1:
        return False
    return any(
        text.strip() and not _is_number(text) and any(fields[place] == text for fields in alike)
        for place, text in enumerate(first)
    )


def _padded(
    text: str,
    name: str,
    separator: str,
    rows: Sequence[tuple[int, list[str]]],
    notes: Sequence[str],
) -> Delimited | None:
    """Read columns that spaces part; None where a separator does."""
    begin, header = _header(rows) if rows else (0, False)
    widths = {len(fields) for _, fields in rows[begin:]}
    even = len(widths) == 1 and widths != {1}
    data = rows[begin + header :][:1]
    # Two tabs for one, so that columns stand below their names.
    aligned = separator == "\t" and header and not all(map(str.strip, rows[begin][1][1:]))
    plain = bool(data) and all(map(_is_cell, data[0][1]))
    if even and not aligned and (separator != "," or plain):
        return None
    found = find_spaced(text)
    if found is None or not found.fits_beside(separator):
        if widths == {1}:
            require_columns(text, name)
        return None
    body = with_tabs(text, found, name)
    frame = _parse(body, name, "\t", header=found.names is not None, line=found.begin)
    told = [*notes, "separated by spaces"]
    if found.names is None:
        told.append("no line with names: columns are named column_1, column_2 ...")
    return Delimited(frame=_named(frame), separator=" ", line=found.begin, notes=tuple(told))


def _is_cell(text: str) -> bool:
    return not text.strip() or _is_number(text) or is_time(text)


def _looks_like_names(fields: Sequence[str]) -> bool:
    given = [field.strip() for field in fields]
    return all(given) and len(set(given)) == len(given) and not any(map(_is_number, given))


def _is_data(fields: Sequence[str]) -> bool:
    """Say whether a row holds measurements: a time, or nothing but numbers."""
    given = [field.strip() for field in fields if field.strip()]
    if any(is_time(field) for field in given):
        return True
    counted = [str(number) for number in range(len(fields))]
    if list(fields) == counted or list(fields[1:]) == counted[:-1]:
        return False
    return bool(given) and all(_is_number(field) for field in given)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _parse(body: str, name: str, separator: str, *, header: bool, line: int) -> pl.DataFrame:
    data = body.encode()
    try:
        frame = pl.read_csv(data, separator=separator, has_header=header, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(_complaint(body, name, separator, line, error)) from error
    if not header:
        frame.columns = [f"column_{number}" for number in range(1, frame.width + 1)]
    return frame


def _complaint(body: str, name: str, separator: str, line: int, error: Exception) -> str:
    """Say which line differs from the first."""
    reader = csv.reader(io.StringIO(body), delimiter=separator)
    width = 0
    try:
        for fields in reader:
            if not width:
                width = len(fields)
            elif len(fields) != width and fields:
                at = line + reader.line_num - 1
                return (
                    f"{name}: line {at} has {len(fields)} fields and the first line {width} "
                    f"(separated by {NAMES.get(separator, separator)})"
                )
    except csv.Error as problem:
        return f"{name}: line {line + reader.line_num - 1} cannot be read ({problem})"
    return f"{name}: cannot be read ({str(error).splitlines()[0]})"


def _named(frame: pl.DataFrame) -> pl.DataFrame:
    """Give columns plain names; a first column without one that counts rows is left out."""
    frame = frame.rename(
        {name: name.strip().removeprefix("#").strip() or name for name in frame.columns}
    )
    first = frame.columns[0]
    if first.strip() in ("", "Unnamed: 0", "column_1") and frame.width > 1:
        counts = frame[first].cast(pl.Int64, strict=False)
        if (
            counts.null_count() == 0
            and bool((counts.diff().drop_nulls() == 1).all())
            and len(counts) > 1
        ):
            if first.strip() in ("", "Unnamed: 0"):
                frame = frame.drop(first)
        elif first.strip() == "":
            frame = frame.rename({first: "index"})
    return frame


# ------------------------------------------------------------------ InfluxDB's annotated CSV


def _annotated(text: str, name: str, notes: list[str]) -> Delimited:
    """Read InfluxDB's annotated CSV: tables, each with its own annotations and names."""
    tables: list[pl.DataFrame] = []
    for section in _sections(text):
        lines = section.split("\n")
        body = "\n".join(line for line in lines if not line.startswith("#"))
        if body.count("\n") < 1 or body.split("\n", 1)[0].startswith("error"):
            continue
        frame = _parse(body, name, ",", header=True, line=1)
        unnamed = [column for column in frame.columns if not column.strip()]
        tables.append(frame.drop(*unnamed, "result", "table", "_start", "_stop", strict=False))
    if not tables:
        msg = f"{name}: has no rows"
        raise ConfigError(msg)
    return Delimited(
        frame=pl.concat(tables, how="diagonal"),
        separator=",",
        line=1,
        notes=(*notes, "InfluxDB's annotated CSV"),
    )


def _sections(text: str) -> list[str]:
    """Cut at each first line of annotations."""
    sections: list[list[str]] = [[]]
    annotated = False
    for line in text.split("\n"):
        if line.startswith("#"):
            if not annotated:
                sections.append([])
            annotated = True
        elif line.strip():
            annotated = False
        if line.strip():
            sections[-1].append(line)
    return ["\n".join(section) for section in sections if section]
