"""Read lines of JSON in one call, and find those that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.budget import Collected
from connectors.codecs.fields import column, nested, nested_schema, spellings
from connectors.codecs.json_lines import Lines, is_json, show_bytes
from connectors.codecs.rows import shorten
from streamad.records import Rejected

JSON_BEGINS = b'{["-0123456789tfn'

READER_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError)
"""A panic is no Exception in polars; one bad message must not end the process."""


class Shape:
    """What the columnar reader is to look for; dotted names become flat columns."""

    def __init__(self, leaves: Sequence[tuple[str, Any]]) -> None:
        self._leaves = dict(leaves)
        self._dotted = sorted(
            {
                json.dumps(name, ensure_ascii=False).encode()
                for leaf in self._leaves
                for way in spellings(leaf)
                for name in way
                if "." in name
            }
        )
        self._nested = nested_schema(leaves, nested)
        self._spelled = nested_schema(leaves)

    def read(self, joined: bytes, height: int) -> pl.DataFrame | None:
        """Read ``height`` lines, None where any of them cannot be read."""
        if not height:
            return self.nulls(0)
        if joined[0] not in JSON_BEGINS:
            # The reader would take gzip, zlib or zstd for a compressed file, and expand it.
            return None
        # Most messages nest: names with dots are looked for where there may be any.
        spelled = self._dotted and (b"\\u" in joined or any(n in joined for n in self._dotted))
        tree, ways = (self._spelled, spellings) if spelled else (self._nested, nested)
        try:
            frame = pl.read_ndjson(joined, schema=tree, ignore_errors=True)
        except READER_ERRORS:
            return None
        if frame.height != height:
            return None
        if not self._dotted:
            return frame
        return frame.select(column(name, ways) for name in self._leaves)

    def nulls(self, height: int) -> pl.DataFrame:
        """Return rows that say nothing."""
        return pl.DataFrame(schema=self._leaves).clear(height)


def reread(lines: Lines, chosen: NDArray[np.int64], shape: Shape) -> pl.DataFrame:
    """Read lines known to be JSON in another shape."""
    frame = shape.read(lines.pick(chosen), len(chosen))
    return shape.nulls(len(chosen)) if frame is None else frame


def parse(lines: Lines, shape: Shape) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Read all lines at once; where that fails, those that are JSON, and say which they are."""
    if not _has_odd_escapes(lines.joined) and not _has_broken_end(lines):
        frame = shape.read(lines.joined, len(lines))
        if frame is not None:
            return frame, np.arange(len(lines))
    return _sift(lines, shape)


def _has_broken_end(lines: Lines) -> bool:
    """Say whether a line is cut off for sure: reading all of them would be in vain."""
    if not len(lines):
        return False
    odd = np.flatnonzero(lines.open_ended())
    return len(odd) > 0 and not all(is_json(lines.texts()[line]) for line in odd[:8].tolist())


def _has_odd_escapes(joined: bytes) -> bool:
    # Half a surrogate pair is read by the columnar reader as some other character: such lines are
    # checked one by one. One search for a backslash decides in most batches.
    return b"\\" in joined and (b"\\ud" in joined or b"\\uD" in joined)


def _sift(lines: Lines, shape: Shape) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Find the lines that are JSON: first doubt those that look wrong, then every line."""
    texts = lines.texts()
    bad = {line for line in lines.doubtful().tolist() if not is_json(texts[line])}
    good = [line for line in range(len(texts)) if line not in bad]
    frame = shape.read(b"\n".join([texts[line] for line in good]), len(good))
    if frame is None:
        good = [line for line in good if is_json(texts[line])]
        frame, good = _halve(texts, good, shape)
    return frame, np.array(good, np.int64)


def _halve(texts: list[bytes], lines: list[int], shape: Shape) -> tuple[pl.DataFrame, list[int]]:
    """Leave out lines that only the columnar reader refuses."""
    frame = shape.read(b"\n".join([texts[line] for line in lines]), len(lines))
    if frame is not None:
        return frame, lines
    if len(lines) == 1:
        return shape.nulls(0), []
    middle = len(lines) // 2
    left, left_lines = _halve(texts, lines[:middle], shape)
    right, right_lines = _halve(texts, lines[middle:], shape)
    return pl.concat([left, right]), left_lines + right_lines


def reject_lines(lines: Lines, kept: NDArray[np.int64]) -> list[Rejected]:
    """Reject the lines that are not among those ``kept``, each with the reason."""
    bad = np.ones(len(lines), np.bool_)
    bad[kept] = False
    collected = Collected()
    found, texts = lines.message, lines.texts()
    for line in np.flatnonzero(bad).tolist():
        message = int(found[line])
        if not collected.has_room(message):
            collected.count(message, {"invalid_json": 1})
            continue
        reason, detail = _why_no_json(texts[line])
        collected.add(
            Rejected(
                message=message,
                row=int(lines.row[line]),
                reason=reason,
                detail=detail,
                payload=texts[line],
            )
        )
    return collected.all()


def _why_no_json(text: bytes) -> tuple[str, str]:
    try:
        orjson.loads(text)
    except ValueError as error:
        detail = f"{error}: {show_bytes(text)}"
    else:
        return "invalid_json", f"refused by the columnar reader: {show_bytes(text)}"
    if b"NaN" in text or b"Infinity" in text or "infinity" in detail:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return "invalid_json", shorten(detail)
        return "not_finite", shorten(f"JSON has no NaN, Infinity or larger numbers: {detail}")
    return "invalid_json", shorten(detail)
