"""A file of any common tool as one table: what it is is told by its content, not by its name."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from connectors.files.delimited import read_delimited
from connectors.files.documents import is_otlp, read_document, read_otlp, table_of, unpacked
from streamad.errors import ConfigError, SourceUnavailableError, StreamadError, nearest

MAX_BYTES = 4 * 2**30
"""Of a file, unpacked: it is read whole."""

READER_ERRORS = (pl.exceptions.PolarsError, OSError, EOFError, zlib.error)
GZIP, PARQUET, ARROW, ZIP = b"\x1f\x8b", b"PAR1", b"ARROW1", b"PK\x03\x04"
ARROW_STREAM = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A file as a table.

    frame : as it stands in the file, texts of CSV unread; separator : what parts cells of CSV, else
    ""; time, key : columns that the format itself names; notes : what a reader of the table must
    know of how it was read
    """

    name: str
    frame: pl.DataFrame
    separator: str = ""
    time: str | None = None
    key: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Return the file's name without what tells its format."""
        return self.name.partition(".")[0]


def read_sheet(path: str | Path) -> Sheet:
    """Read a file: delimited text, JSON lines, a JSON document, Parquet or Arrow, gzipped or not.

    Raises
    ------
    SourceUnavailableError
        where the file is not there or damaged
    ConfigError
        where it holds no table
    """
    path = Path(path)
    raw = read_bytes(path)
    sheet = _sheet(path, raw)
    if sheet.frame.is_empty() or sheet.frame.width == 0:
        msg = f"{path.name}: has no rows"
        raise ConfigError(msg)
    return sheet


def read_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked where it is gzipped."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except READER_ERRORS as error:
        raise unreadable(path, error) from error
    if len(raw) > MAX_BYTES:
        msg = (
            f"{path.name}: has more than {MAX_BYTES // 2**30} GiB unpacked; cut it, or use a topic"
        )
        raise ConfigError(msg)
    return raw


def unreadable(path: Path, error: Exception) -> StreamadError:
    """Return the error that names a file which is not there or damaged."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"there is no file {path}")
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return SourceUnavailableError(f"{path} cannot be read: {reason or type(error).__name__}")


def require_column(frame: pl.DataFrame, name: str, option: str) -> None:
    """Raise ConfigError where a table has no such column."""
    if name not in frame.columns:
        near = nearest(name, frame.columns)
        hint = f"did you mean {near!r}?" if near else f"it has: {', '.join(frame.columns)}"
        msg = f"{option}: the file has no column {name!r}; {hint}"
        raise ConfigError(msg)


def _sheet(path: Path, raw: bytes) -> Sheet:
    name = path.name
    if not raw.strip():
        msg = f"{name} is empty"
        raise ConfigError(msg)
    if raw.startswith(ZIP):
        msg = f"{name}: is a workbook or a zip archive; save the sheet as CSV"
        raise ConfigError(msg)
    binary = pl.read_ipc_stream if raw.startswith(ARROW_STREAM) else pl.read_ipc
    binary = pl.read_parquet if raw.startswith(PARQUET) else binary
    suffixes = path.name.lower().split(".")[1:]
    if raw.startswith((PARQUET, ARROW, ARROW_STREAM)) or "parquet" in suffixes:
        reader = pl.read_parquet if "parquet" in suffixes else binary
        try:
            return Sheet(name=name, frame=_plain(reader(io.BytesIO(raw))))
        except READER_ERRORS as error:
            raise unreadable(path, error) from error
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] in (b"{", b"[") or {"json", "jsonl", "ndjson"} & set(suffixes):
        return _json(start, name)
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        msg = f"{name}: holds no text; CSV, JSON, Parquet and Arrow files are read, gzipped or not"
        raise ConfigError(msg)
    made = read_delimited(raw, name)
    return Sheet(name=name, frame=made.frame, separator=made.separator, notes=made.notes)


def _json(raw: bytes, name: str) -> Sheet:
    lines = [line for line in raw.split(b"\n") if line.strip()]
    one_a_line = len(lines) > 1 and _is_record(lines[0])
    if is_otlp(lines[0] if one_a_line else raw):
        made = read_otlp(lines if one_a_line else [raw], name)
    elif one_a_line:
        return Sheet(name=name, frame=_of_lines(lines, name))
    else:
        made = read_document(raw, name)
    notes = (made.note,) if made.note else ()
    return Sheet(name=name, frame=made.frame, time=made.time, key=made.key, notes=notes)


def _of_lines(lines: list[bytes], name: str) -> pl.DataFrame:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{name}: line {number} is no JSON ({error})"
            raise ConfigError(msg) from error
        records += record if isinstance(record, list) else [record]
    if not all(isinstance(record, dict) for record in records):
        msg = f"{name}: its lines are not all JSON objects"
        raise ConfigError(msg)
    return table_of(unpacked(records)[0])


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), (dict, list))
    except orjson.JSONDecodeError:
        return False


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Take structs apart; their fields are named with dots."""
    while structs := [name for name in frame.columns if isinstance(frame[name].dtype, pl.Struct)]:
        for name in structs:
            inner = frame[name].struct.unnest()
            inner = inner.rename({field: f"{name}.{field}" for field in inner.columns})
            frame = frame.drop(name).with_columns(inner.get_columns())
    return frame
