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

from connectors.codecs.fields import FieldMap, look_up, times_to_ms
from connectors.codecs.json_diagnosis import diagnose
from connectors.codecs.json_lines import (
    Lines,
    Messages,
    Shape,
    admit,
    gather,
    parse,
    reject_lines,
    reread,
)
from connectors.codecs.rows import Candidates, concat, finish, settle, shorten, spread
from streamad.records import Decoded, Rejected


class JsonCodec:
    """Decoder of JSON messages of any of the four shapes, mixed freely.

    A message holds one object, an array of objects, one object a line, or an object whose fields
    are arrays of equal length (columnar: the fastest; its keys and tags may also be single texts).
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
        self._scalars = Shape(texts)
        self._loose = Shape([(name, pl.String()) for name in fields.values])
        self._loose_lists = Shape([(name, pl.List(pl.String())) for name in fields.values])
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
        lines, frame, kept, refused = self._read_messages(messages)
        rejected += refused
        if len(kept) < len(lines):
            rejected += reject_lines(lines, kept)
        parts = self._rows_and_series(lines, frame, kept, rejected)
        rows = concat(parts, self._fields)
        return finish(rows, rejected, offsets=offsets, broker_ms=broker_ms)

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
        """Say which lines hold arrays: those whose time is one."""
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
        for index in doubtful.tolist():
            text = lines.texts()[kept[index]]
            found[index] = b"[" in text and isinstance(
                look_up(orjson.loads(text), self._fields.time), list
            )
        return found

    def _rows(
        self,
        lines: Lines,
        frame: pl.DataFrame,
        kept: NDArray[np.int64],
        rejected: list[Rejected],
    ) -> Candidates:
        """Turn lines of one object each into rows."""

        def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
            text = lines.texts()[kept[index]]
            return *diagnose(text, reason, self._fields), text

        def loosely(rows: NDArray[np.int64]) -> pl.DataFrame:
            return reread(lines, kept[rows], self._loose)

        whole = len(kept) == len(lines)
        message, row = lines.message, lines.row
        candidates = self._candidates(frame, loosely)
        candidates.message = message if whole else message[kept]
        candidates.row = row if whole else row[kept]
        self._doubt_texts(candidates, lambda index: lines.texts()[kept[index]])
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
            return orjson.loads(lines.texts()[line])

        def text(index: int) -> bytes:
            return self._element(record(int(kept[source[index]])), int(within[index]))

        def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
            element = text(index)
            return *diagnose(element, reason, self._fields), element

        def loosely(rows: NDArray[np.int64]) -> pl.DataFrame:
            loose = reread(lines, kept, self._loose_lists)
            return _explode(loose, self._fields.values, number)[rows]

        flat = _explode(self._with_scalars(lines, frame, kept), self._fields.names, number)
        candidates = self._candidates(flat, loosely)
        candidates.message = lines.message[kept][source]
        candidates.row = (lines.row[kept][source] + within).astype(np.int32)
        self._doubt_texts(candidates, text)
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
        few = number <= self._max_rows
        for index in np.flatnonzero(~(same & few)).tolist():
            found = {name: size for name, size in sizes.row(index, named=True).items() if size}
            rejected.append(
                Rejected(
                    message=int(lines.message[kept[index]]),
                    reason="unequal_arrays" if few[index] else "too_many_rows",
                    detail=shorten(f"lengths {found}, at most {self._max_rows} are allowed"),
                    payload=lines.texts()[kept[index]],
                )
            )
        return same & few & (number > 0), number

    def _with_scalars(
        self, lines: Lines, frame: pl.DataFrame, kept: NDArray[np.int64]
    ) -> pl.DataFrame:
        """Give every row of a columnar message the single text it has for a key or a tag."""
        single = [name for name in self._fields.texts if frame[name].null_count()]
        if not single:
            return frame
        scalars = reread(lines, kept, self._scalars)
        number = pl.col(self._fields.time).list.len()
        extra = scalars.select(pl.col(name).alias(f"{name}\0") for name in single)
        return frame.with_columns(extra).select(
            pl.coalesce(pl.col(name), pl.col(f"{name}\0").repeat_by(number)).alias(name)
            if name in single
            else pl.col(name)
            for name in self._fields.names
        )

    def _candidates(
        self, flat: pl.DataFrame, loosely: Callable[[NDArray[np.int64]], pl.DataFrame]
    ) -> Candidates:
        """Name the columns, read the times and mark what is absent or of a wrong type.

        ``loosely`` reads the values of some rows as texts: what is null even so was not there.
        """
        fields = self._fields
        keys = [flat[name] for name in fields.key]
        rows = Candidates(
            keys=keys[0] if len(keys) == 1 else flat.select(_joined(fields.key)).to_series(),
            time_ms=times_to_ms(flat[fields.time], fields.time_unit),
            values=flat.select(fields.values).to_numpy(),
            message=np.empty(0, np.int32),
            row=np.empty(0, np.int32),
            tags={name: flat[name].fill_null("").rechunk() for name in fields.tags},
        )
        if fields.variate is not None:
            spread(rows, rows.values[:, 0], flat[fields.variate], fields.variates)
        time = flat[fields.time]
        if time.null_count():
            rows.mark(time.is_null().to_numpy(), "missing_field")
        nulls = [flat[name] for name in fields.values if flat[name].null_count()]
        if nulls:
            absent = np.isnan(flat.select(fields.values).to_numpy())
            rows.mark(absent.all(axis=1), "missing_field")
            _mark_wrong_types(rows, absent, loosely)
        return rows

    def _doubt_texts(self, rows: Candidates, text: Callable[[int], bytes]) -> None:
        """Mark keys that are objects or arrays: the reader turns those into text of its own."""
        bracketed = rows.keys.str.starts_with("{") | rows.keys.str.starts_with("[")
        if len(self._fields.key) > 1:
            bracketed = rows.keys.str.contains(r"(^|/)[\[{]")
        if not bracketed.any():
            return
        wrong = np.zeros(len(rows.keys), np.bool_)
        for index in np.flatnonzero(bracketed.fill_null(value=False).to_numpy()).tolist():
            record = orjson.loads(text(index))
            wrong[index] = any(
                isinstance(look_up(record, name), (dict, list)) for name in self._fields.key
            )
        rows.mark(wrong, "wrong_type")

    def _element(self, record: object, index: int) -> bytes:
        """Return one row of a columnar message as a message of its own, for the dead letters."""
        row: dict[str, Any] = {}
        for name in self._fields.names:
            value = look_up(record, name)
            if isinstance(value, list):
                value = value[index]
            elif name in self._fields.values:
                value = None
            node = row
            *parents, last = name.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        return orjson.dumps(row)


def _explode(frame: pl.DataFrame, names: Sequence[str], number: NDArray[np.int64]) -> pl.DataFrame:
    """Lay arrays of equal length out as rows; an absent array counts as nulls."""
    columns = []
    for name in names:
        series = frame[name]
        if series.null_count():
            inner = series.dtype.inner  # type: ignore[attr-defined]
            nothing = pl.lit(None, dtype=inner).repeat_by(pl.lit(pl.Series(number)))
            series = pl.select(pl.coalesce(pl.lit(series), nothing).alias(name)).to_series()
        columns.append(series.explode())
    return pl.DataFrame(columns)


def _joined(names: Sequence[str]) -> pl.Expr:
    texts = [pl.col(name) for name in names]
    blank = pl.all_horizontal(text == "" for text in texts)
    return pl.when(blank).then(pl.lit("")).otherwise(pl.concat_str(texts, separator="/"))


def _mark_wrong_types(
    rows: Candidates,
    absent: NDArray[np.bool_],
    loosely: Callable[[NDArray[np.int64]], pl.DataFrame],
) -> None:
    """Mark rows of which one variate is no number, though others are fine."""
    some = np.flatnonzero(absent.any(axis=1) & ~absent.all(axis=1))
    if not len(some):
        return
    loose = loosely(some)
    wrong = np.zeros(len(absent), np.bool_)
    for index, name in enumerate(loose.columns):
        wrong[some] |= loose[name].is_not_null().to_numpy() & absent[some, index]
    rows.mark(wrong, "wrong_type")
