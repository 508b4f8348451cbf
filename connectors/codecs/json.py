"""JSON from Kafka: objects, arrays of objects, JSON lines and objects of arrays, columnar.

All messages of a batch are joined and read in one call of a columnar reader. One line that is no
JSON fails that whole call, so a failing batch is sifted line by line, and what is good is read
again: what a row yields never depends on its neighbours. Python looks at rejected rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.budget import Collected
from connectors.codecs.fields import FieldMap, look_up, times_to_ms
from connectors.codecs.json_columns import explode, numbers_in, read_texts
from connectors.codecs.json_diagnosis import diagnose, is_other
from connectors.codecs.json_frames import Shape, parse, reject_lines, reread
from connectors.codecs.json_lines import Lines, Messages, admit, gather
from connectors.codecs.json_wrappers import unwrap
from connectors.codecs.rows import (
    CODES,
    CUT_KEY_BYTES,
    Candidates,
    Fault,
    concat,
    cut_texts,
    filled,
    finish,
    joined_key,
    mark_unheld,
    pass_over,
    settle,
    shorten,
    spread,
)
from streamad.records import Decoded, Rejected


class JsonCodec:
    """Decoder of JSON: an object, an array or lines of them, or columns; a dot is a step or a dot.

    A message holds one object, an array of objects, one object a line, or an object whose fields
    are arrays of equal length (columnar: the fastest; its keys and tags may also be single texts).
    A field ``host.name`` is read from ``{"host": {"name": ...}}`` and from ``{"host.name": ...}``;
    numbers and epoch times may stand as texts.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        self._fields = fields
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        time = {"iso": pl.String(), "ns": pl.Int64()}.get(fields.time_unit, pl.Float64())
        texts = [(name, pl.String()) for name in fields.texts]
        values = [(name, pl.Float64()) for name in fields.values]
        leaves: list[tuple[str, Any]] = [*texts, (fields.time, time), *values]
        self._flat = Shape(leaves)
        self._lists = Shape([(name, pl.List(dtype)) for name, dtype in leaves])
        self._times = Shape([(fields.time, pl.List(time))])
        self._scalars = Shape(texts)
        numbers = (fields.time, *fields.values)
        self._loose = Shape([(name, pl.String()) for name in numbers])
        self._loose_lists = Shape([(name, pl.List(pl.String())) for name in numbers])
        # What the last batch held: decides only which reader is tried first, never the result.
        self._columnar = False

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable rows of ``payloads`` and what had to be rejected; never raises."""
        rejected: list[Rejected] = []
        messages = admit(payloads, rejected, max_bytes=self._max_bytes)
        if self._fields.rows is not None:
            texts = [unwrap(text, self._fields, self._max_rows) for text in messages.texts]
            messages = messages.replace(texts)
        lines, frame, kept, refused = self._read_messages(messages)
        rejected += refused
        if len(kept) < len(lines):
            rejected += reject_lines(lines, kept)
        parts = self._rows_and_series(lines, frame, kept, rejected)
        rows = concat(parts, self._fields)
        return finish(rows, rejected, self._fields, offsets=offsets, broker_ms=broker_ms)

    def _read_messages(
        self, messages: Messages
    ) -> tuple[Lines, pl.DataFrame, NDArray[np.int64], list[Rejected]]:
        shape = self._lists if self._columnar else self._flat
        lines, refused = gather(messages, max_rows=self._max_rows, exact=False)
        frame, kept = parse(lines, shape)
        if lines.quick and len(kept) < len(lines):
            # An array cut at every "},{" may have been cut inside a text: cut it exactly.
            lines, refused = gather(messages, max_rows=self._max_rows, exact=True)
            frame, kept = parse(lines, shape)
        return lines, frame, kept, refused

    def _rows_and_series(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        kept: NDArray[np.int64],
        rejected: list[Rejected],
    ) -> list[Candidates]:
        """Treat columnar lines and others each in their way, whatever they were read as."""
        is_series = self._find_series(lines, frame, kept)
        if not is_series.any():
            if self._columnar:
                frame = reread(lines, kept, self._flat)
            self._columnar = False
            return [self._rows(lines, frame, kept, rejected)]
        if self._columnar:
            series, flat = frame.filter(is_series), reread(lines, kept[~is_series], self._flat)
        else:
            series, flat = reread(lines, kept[is_series], self._lists), frame.filter(~is_series)
        self._columnar = True
        number = series[self._fields.time].list.len().to_numpy()
        lines.count_rows(kept[is_series], number)
        return [
            self._rows(lines, flat, kept[~is_series], rejected),
            self._series(lines, series, kept[is_series], rejected),
        ]

    def _find_series(
        self, lines: Lines, frame: pl.DataFrame, kept: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Say which lines hold arrays: those whose time the columnar reader reads as one."""
        time = frame[self._fields.time]
        if self._columnar:
            return time.is_not_null().to_numpy()
        found = np.zeros(len(kept), np.bool_)
        if self._fields.time_unit == "iso":
            doubtful = np.flatnonzero(time.str.starts_with("[").fill_null(value=False).to_numpy())
        elif not time.null_count():
            return found
        else:
            doubtful = np.flatnonzero(time.is_null().to_numpy())
        texts = lines.texts()
        doubtful = np.array([i for i in doubtful.tolist() if b"[" in texts[kept[i]]], np.int64)
        if len(doubtful):
            # The same reader decides in either mode: where a member stands twice, another reader
            # may read the other one.
            times = reread(lines, kept[doubtful], self._times)
            found[doubtful] = times[self._fields.time].is_not_null().to_numpy()
        return found

    def _rows(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        kept: NDArray[np.int64],
        rejected: list[Rejected],
    ) -> Candidates:
        """Turn lines of one object each into rows."""

        @lru_cache(maxsize=1)
        def record(index: int) -> object:
            return _load(lines.texts()[kept[index]])

        def explain(index: int, reason: str) -> Fault:
            fault = self._diagnose(record(index), reason)
            return fault._replace(payload=lines.texts()[kept[index]])

        def look(index: int, name: str) -> object:
            return look_up(record(index), name)

        def loosely(rows: NDArray[np.int64]) -> pl.DataFrame:
            return reread(lines, kept[rows], self._loose)

        whole = len(kept) == len(lines)
        message, row = lines.message, lines.row
        candidates = self._candidates(frame, loosely)
        candidates.message = message if whole else message[kept]
        candidates.row = row if whole else row[kept]
        self._pass_over_others(candidates, record)
        self._doubt_texts(candidates, look)
        rows, refused = settle(candidates, explain)
        rejected += refused
        return rows

    def _series(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        kept: NDArray[np.int64],
        rejected: list[Rejected],
    ) -> Candidates:
        """Turn lines of one object of arrays each into rows."""
        fine, number = self._check_series(lines, frame, kept, rejected)
        frame, kept, number = frame.filter(fine), kept[fine], number[fine]
        source = np.repeat(np.arange(len(kept)), number)
        within = np.arange(len(source)) - np.repeat(np.cumsum(number) - number, number)

        @lru_cache(maxsize=1)
        def record(line: int) -> object:
            # Kept for the next row: a message of bad rows must not be parsed once a row.
            return _load(lines.texts()[line])

        def look(index: int, name: str) -> object:
            value = look_up(record(int(kept[source[index]])), name)
            return _item(value, int(within[index])) if isinstance(value, list) else value

        def explain(index: int, reason: str) -> Fault:
            line, numbers = record(int(kept[source[index]])), self._fields.values
            element = {
                name: look(index, name)
                for name in self._fields.names
                # One number for all rows is no array, and was not read.
                if name not in numbers or isinstance(look_up(line, name), list)
            }
            return self._explain_element(element, reason)

        def loosely(rows: NDArray[np.int64]) -> pl.DataFrame:
            loose = reread(lines, kept, self._loose_lists)
            return explode(loose, (self._fields.time, *self._fields.values), number)[rows]

        flat = explode(frame, self._fields.names, number)
        flat = self._with_scalars(lines, frame, flat, kept, source)
        candidates = self._candidates(flat, loosely)
        candidates.message = lines.message[kept][source]
        candidates.row = (lines.row[kept][source] + within).astype(np.int32)
        self._doubt_texts(candidates, look)
        rows, refused = settle(candidates, explain)
        rejected += refused
        return rows

    def _check_series(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        kept: NDArray[np.int64],
        rejected: list[Rejected],
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Reject columnar messages that are too long or whose arrays differ in length."""
        sizes = frame.select(pl.col(name).list.len() for name in self._fields.names)
        number = sizes[self._fields.time].to_numpy().astype(np.int64)
        same = np.ones(len(kept), np.bool_)
        for name in self._fields.names:
            # A null is no array: a single text for all rows, or a variate this message lacks.
            same &= sizes[name].fill_null(sizes[self._fields.time]).to_numpy() == number
        # A message of several such lines holds the rows of all of them.
        owner = lines.owner[kept]
        few = np.bincount(owner, weights=number)[owner] <= self._max_rows
        filled = number > 0
        collected, messages = Collected(), lines.message[kept]
        for index in np.flatnonzero(~(same & few & filled)).tolist():
            message, reason = int(messages[index]), "unequal_arrays"
            if not few[index]:
                reason = "too_many_rows"
            elif same[index]:
                reason = "empty_message"
            if not collected.has_room(message):
                collected.count(message, {reason: 1})
                continue
            found = {name: size for name, size in sizes.row(index, named=True).items() if size}
            collected.add(
                Rejected(
                    message=message,
                    reason=reason,
                    detail=shorten(f"lengths {found}, at most {self._max_rows} are allowed"),
                    payload=lines.texts()[kept[index]],
                )
            )
        rejected += collected.all()
        return same & few & filled, number

    def _with_scalars(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        flat: pl.DataFrame,
        kept: NDArray[np.int64],
        source: NDArray[np.int64],
    ) -> pl.DataFrame:
        """Give every row of a columnar message the single text it has for a key or a tag.

        The text is cut first, and rows refer to it: a long one must not be copied to every row.
        """
        single = [name for name in self._fields.texts if frame[name].null_count()]
        if not single:
            return flat
        scalars = reread(lines, kept, self._scalars)
        rows = pl.Series(source)
        columns = []
        for name in single:
            absent = frame[name].is_null().gather(rows)
            text = cut_texts(scalars[name], CUT_KEY_BYTES).gather(rows)
            columns.append(text.zip_with(absent, flat[name]).alias(name))
        return flat.with_columns(columns)

    def _candidates(
        self, flat: pl.DataFrame, loosely: Callable[[NDArray[np.int64]], pl.DataFrame]
    ) -> Candidates:
        """Name the columns, read the times and mark what is absent or of a wrong type.

        ``loosely`` reads time and values of some rows as texts: what is null even so was not there.
        """
        fields = self._fields
        keys = [flat[name] for name in fields.key]
        values = numbers_in(flat, fields)
        texts = None
        incomplete = any(flat[name].null_count() for name in (fields.time, *fields.values))
        if incomplete:
            absent = np.isnan(values)
            some = np.flatnonzero(absent.any(axis=1) | flat[fields.time].is_null().to_numpy())
            texts = read_texts(flat, some, loosely(some), fields)
            values = texts.values
        rows = Candidates(
            keys=joined_key(keys),
            time_ms=times_to_ms(flat[fields.time], fields.time_unit),
            values=values,
            message=np.empty(0, np.int32),
            row=np.empty(0, np.int32),
            tags={name: filled(flat[name]) for name in fields.carried},
            measured=fields.payload.measured,
        )
        pass_over(rows, flat, fields.where)
        if fields.variate is not None:
            spread(rows, rows.values[:, 0], flat[fields.variate], fields.variates)
        if texts is not None:
            texts.mark(rows)
        if not rows.measured:
            mark_unheld(rows, fields)
        return rows

    def _pass_over_others(self, rows: Candidates, record: Callable[[int], object]) -> None:
        """Mark rows that have other values where ours would stand: another measurement's."""
        if rows.code is None or not all("." in name for name in self._fields.values):
            return
        missing = np.flatnonzero(rows.code == CODES["missing_field"]).tolist()
        others = np.zeros(len(rows.code), np.bool_)
        for index in missing:
            others[index] = is_other(record(index), self._fields)
        rows.code[others] = CODES["other_measurement"]

    def _doubt_texts(self, rows: Candidates, look: Callable[[int, str], object]) -> None:
        """Mark keys that are objects or arrays: the reader turns those into text of its own.

        look : returns the value of a row's field
        """
        bracketed = rows.keys.str.starts_with("{") | rows.keys.str.starts_with("[")
        if len(self._fields.key) > 1:
            bracketed = rows.keys.str.contains(r"(^|/)[\[{]")
        if not bracketed.any():
            return
        wrong = np.zeros(len(rows.keys), np.bool_)
        for index in np.flatnonzero(bracketed.fill_null(value=False).to_numpy()).tolist():
            values = (look(index, name) for name in self._fields.key)
            wrong[index] = any(isinstance(value, (dict, list)) for value in values)
        rows.mark(wrong, "wrong_type")

    def _diagnose(self, record: object, reason: str) -> Fault:
        if record is _UNREADABLE:
            return Fault("invalid_json", "two JSON readers disagree on this text")
        return diagnose(record, reason, self._fields)

    def _explain_element(self, element: dict[str, object], reason: str) -> Fault:
        """Explain a row of a columnar message; it becomes a message of its own."""
        if any(value is _UNREADABLE for value in element.values()):
            why = "a member of the object is repeated with another length"
            return Fault("invalid_json", why)
        row: dict[str, Any] = {}
        for name in self._fields.names:
            value, node = element.get(name), row
            *parents, last = name.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        try:
            payload = orjson.dumps(row)
        except orjson.JSONEncodeError:
            # Its writer nests less deeply than its reader: the whole message stands for the row.
            payload = None
        return diagnose(row, reason, self._fields)._replace(payload=payload)


_UNREADABLE = object()
"""Stands for a value that the two readers of JSON do not agree on."""


def _load(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _UNREADABLE


def _item(values: list[Any], index: int) -> object:
    return values[index] if index < len(values) else _UNREADABLE
