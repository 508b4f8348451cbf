"""What all codecs end with: columns of candidate rows become usable rows and rejections."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.budget import MAX_LETTERS, Collected, rank_in_message, within_budget
from connectors.codecs.fields import BAD_TIME, FieldMap
from streamad.names import SEPARATOR
from streamad.records import MAX_ABS_VALUE, Decoded, RecordBatch, Rejected

MAX_KEY_BYTES = 512
"""Longer keys are rejected: a key is kept in state, in topics and in page texts for weeks."""

CUT_KEY_BYTES = MAX_KEY_BYTES + 4
"""To here a key may be cut before it is copied to many rows: it stays too long to be used."""

MAX_TAG_BYTES = 512
"""Longer tags are cut: they travel with every finding and alert of a key."""

MAX_DETAIL_CHARS = 300

REASONS: Mapping[str, str] = {
    "null_payload": "the message has no value (a tombstone)",
    "empty_message": "the message holds nothing but white space",
    "oversized": "the message is larger than max_message_bytes; only its offset is kept",
    "too_many_rows": "the message holds more than max_rows_per_message rows",
    "invalid_json": "not JSON, or not the shape the codec reads",
    "invalid_arrow": "not an Arrow IPC stream or file, or damaged",
    "invalid_otlp": "not an OTLP ExportMetricsServiceRequest",
    "invalid_remote_write": "not a snappy-compressed Prometheus WriteRequest",
    "wrong_type": "a field holds another type than it must",
    "missing_field": "a field that must be there is absent or null",
    "unequal_arrays": "the arrays of a columnar message differ in length",
    "bad_time": "the time cannot be read, lies outside 1970 to 2200, or has another unit",
    "not_finite": "a value is NaN or infinite",
    "too_large_value": "a value's magnitude is above 1e30",
    "empty_key": "the key is an empty text",
    "key_too_long": "the key is longer than 512 bytes",
    "unknown_variate": "the row names a variate that is not configured (counted, not an error)",
    "not_wanted": "the row does not meet input.fields.where (counted, not an error)",
    "other_measurement": "the row has other values than the pipeline's (counted, not an error)",
    "other_kind": "the row is of another kind than its series (counted, not an error)",
    "other_pipeline": "the message was sent again for another pipeline (counted, not an error)",
    "quarantined": "the job kept ending with the message in hand; only its offset is kept",
    "more_rejected": "more of the message was rejected than becomes records; counted by reason",
    "decoder_error": "the decoder failed on the message; the log names the exception",
    "unreadable": "the client cannot read the batch or the record; only its offset is kept",
    "no_rows": "the message holds no point (counted, not an error)",
}
"""Every reason a codec gives. They are stable: dashboards and replays select by them."""

UNUSED_REASONS = ("unknown_variate", "not_wanted", "other_measurement")

CODES = {reason: code for code, reason in enumerate(REASONS, start=1)}
NAMES = ("", *REASONS)
UNUSED = [CODES[reason] for reason in UNUSED_REASONS]


@dataclass(slots=True, kw_only=True)
class Candidates:
    """Rows before the checks that do not depend on the format.

    keys may hold nulls and time_ms ``BAD_TIME`` where ``code`` is set already; ``code`` uint8
    ``(n,)`` is 0 for rows nothing is known against, else ``CODES[reason]``. measured : a row
    without a value is of no use.
    """

    keys: pl.Series
    time_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    message: NDArray[np.int32]
    row: NDArray[np.int32]
    tags: dict[str, pl.Series] = field(default_factory=dict)
    code: NDArray[np.uint8] | None = None
    measured: bool = True

    def mark(self, mask: NDArray[np.bool_], reason: str) -> None:
        """Hold ``reason`` against the rows of ``mask``; the first reason of a row stays."""
        if not mask.any():
            return
        if self.code is None:
            self.code = np.zeros(len(self.time_ms), np.uint8)
        self.code[mask & (self.code == 0)] = CODES[reason]

    def keep(self, mask: NDArray[np.bool_]) -> Candidates:
        """Return the rows of ``mask`` alone."""
        chosen = pl.Series(mask)
        return Candidates(
            keys=self.keys.filter(chosen),
            time_ms=self.time_ms[mask],
            values=self.values[mask],
            message=self.message[mask],
            row=self.row[mask],
            tags={name: tag.filter(chosen) for name, tag in self.tags.items()},
            code=None if self.code is None else self.code[mask],
            measured=self.measured,
        )


class Fault(NamedTuple):
    """What is wrong with a row: a reason as exact, a detail, its bytes, the field at fault."""

    reason: str
    detail: str = ""
    payload: bytes | None = None
    column: str = ""


Explain = Callable[[int, str], Fault]
"""From the index of a bad row and its reason to what is wrong with it."""


def check_rows(rows: Candidates) -> None:
    """Mark the rows whose key, time or values break the rules that hold in every format."""
    if len(rows.time_ms) == 0:
        return
    lengths = rows.keys.str.len_bytes()
    if lengths.null_count():
        rows.mark(rows.keys.is_null().to_numpy(), "missing_field")
    if lengths.min() == 0:
        rows.mark(lengths.eq(0).fill_null(value=False).to_numpy(), "empty_key")
    longest = lengths.max()
    if isinstance(longest, int) and longest > MAX_KEY_BYTES:
        rows.mark(lengths.gt(MAX_KEY_BYTES).fill_null(value=False).to_numpy(), "key_too_long")
    rows.mark(rows.time_ms == BAD_TIME, "bad_time")
    _check_values(rows)
    longest_tags = extremes(rows.tags, pl.Expr.max)
    for name, tag in rows.tags.items():
        if longest_tags[name] > MAX_TAG_BYTES:
            rows.tags[name] = cut_texts(tag, MAX_TAG_BYTES)


def extremes(texts: Mapping[str, pl.Series], which: Callable[[pl.Expr], pl.Expr]) -> dict[str, int]:
    """Return the most, or the fewest, bytes of a text of each column: one pass over all columns.

    0 where a column holds no text.
    """
    if not texts:
        return {}
    named = pl.DataFrame({str(place): text for place, text in enumerate(texts.values())})
    row = named.select(which(pl.all().str.len_bytes())).row(0)
    return {name: int(found or 0) for name, found in zip(texts, row, strict=True)}


def filled(texts: pl.Series) -> pl.Series:
    """Return a column of texts in one piece, empty ones for those that are absent."""
    return (texts.fill_null("") if texts.null_count() else texts).rechunk()


def cut_texts(texts: pl.Series, limit: int) -> pl.Series:
    """Cut the texts of a column that are longer than ``limit`` bytes in UTF-8."""
    longest = texts.str.len_bytes().max()
    if not isinstance(longest, int) or longest <= limit:
        return texts
    long = texts.filter(texts.str.len_bytes() > limit).unique()
    short = [cut_text(text, limit) for text in long]
    return texts.replace(long, pl.Series(short, dtype=pl.String))


def cut_text(text: str, limit: int) -> str:
    """Cut a text to at most ``limit`` bytes in UTF-8, at the end of a character."""
    if len(text) * 4 <= limit:
        return text
    return text[:limit].encode()[:limit].decode(errors="ignore")


def _check_values(rows: Candidates) -> None:
    size = np.abs(rows.values)
    # NaN makes both comparisons false, so one pass finds all rows that need a closer look.
    if not (size <= MAX_ABS_VALUE).all():
        rows.mark(np.isinf(size).any(axis=1), "not_finite")
        rows.mark((size > MAX_ABS_VALUE).any(axis=1), "too_large_value")
        if rows.measured:
            rows.mark(np.isnan(size).all(axis=1), "not_finite")


def settle(rows: Candidates, explain: Explain) -> tuple[Candidates, list[Rejected]]:
    """Part the rows into those nothing is held against and the rejections."""
    check_rows(rows)
    code = rows.code
    if code is None:
        return rows, []
    unused = np.isin(code, UNUSED)
    rejected = _count_unused(rows, code, np.flatnonzero(unused))
    rejected += _explained(rows, code, np.flatnonzero((code != 0) & ~unused), explain)
    return rows.keep(code == 0), rejected


def _explained(
    rows: Candidates, code: NDArray[np.uint8], bad: NDArray[np.int64], explain: Explain
) -> list[Rejected]:
    """Explain the first bad rows of each message, and count those beyond its budget."""
    collected = Collected()
    beyond = rank_in_message(rows.message[bad]) >= MAX_LETTERS
    rest = bad[beyond]
    for index in bad[~beyond].tolist():
        reason, message = NAMES[code[index]], int(rows.message[index])
        if not collected.has_room(message):
            collected.count(message, {reason: 1})
            continue
        fault = explain(index, reason)
        collected.add(
            Rejected(
                message=message,
                row=int(rows.row[index]),
                reason=fault.reason,
                detail=shorten(fault.detail or describe(rows, index, fault.reason)),
                payload=fault.payload,
                column=fault.column,
            )
        )
    pairs = np.stack([rows.message[rest], code[rest].astype(np.int32)])
    which, numbers = np.unique(pairs, axis=1, return_counts=True)
    for message, reason_code, number in zip(*which.tolist(), numbers.tolist(), strict=True):
        collected.count(message, {NAMES[reason_code]: number})
    return collected.all()


def _count_unused(
    rows: Candidates, code: NDArray[np.uint8], unused: NDArray[np.int64]
) -> list[Rejected]:
    # One record a message: a topic may carry a hundred variates of which three are watched.
    pairs = np.stack([rows.message[unused], code[unused].astype(np.int32)])
    which, numbers = np.unique(pairs, axis=1, return_counts=True)
    return [
        Rejected(
            message=message,
            reason=NAMES[reason_code],
            detail=f"{number} row{'s' * (number > 1)}: {REASONS[NAMES[reason_code]]}",
            counts={NAMES[reason_code]: number},
        )
        for message, reason_code, number in zip(*which.tolist(), numbers.tolist(), strict=True)
    ]


def joined_key(parts: Sequence[pl.Series]) -> pl.Series:
    """Join the columns of a key's fields, as `streamad.names.join_key` does; blank if all are."""
    if len(parts) == 1:
        return parts[0]
    columns = pl.DataFrame([part.alias(str(number)) for number, part in enumerate(parts)])
    blank = pl.all_horizontal(pl.all() == "")
    texts = [
        # Few keys hold either: the others are joined as they are.
        pl.col(name).str.replace_all(r"([/\\])", r"\$1")
        if columns[name].str.contains(r"[/\\]").any()
        else pl.col(name)
        for name in columns.columns
    ]
    key = pl.concat_str(texts, separator=SEPARATOR)
    return columns.select(pl.when(blank).then(pl.lit("")).otherwise(key)).to_series()


def pass_over(
    rows: Candidates,
    texts: pl.DataFrame | Mapping[str, pl.Series],
    where: Sequence[tuple[str, str]],
) -> None:
    """Mark the rows that a condition leaves out; to be called before any other mark.

    where : fields and their shell patterns; texts : the columns of these fields
    """
    for name, pattern in where:
        # The engine of the columns knows no \Z; both mean the very end.
        regex = fnmatch.translate(pattern).removesuffix(r"\Z") + r"\z"
        met = texts[name].fill_null("").str.contains(regex)
        rows.mark(~met.to_numpy(), "not_wanted")


def spread(
    rows: Candidates, value: NDArray[np.float64], variate: pl.Series, names: Sequence[str]
) -> None:
    """Put long-form values into the columns of their variates; unknown variates are marked.

    value : float64 ``(n,)``; variate : String ``(n,)``. Sets ``rows.values``.
    """
    known = variate.replace_strict(
        list(names), list(range(len(names))), default=-1, return_dtype=pl.Int64
    ).fill_null(-1)
    column = known.to_numpy()
    rows.values = np.full((len(value), len(names)), np.nan)
    here = np.flatnonzero(column >= 0)
    rows.values[here, column[here]] = value[here]
    if len(here) < len(value):
        absent = variate.is_null().to_numpy()
        rows.mark((column < 0) & ~absent, "unknown_variate")
        rows.mark(absent, "missing_field")


def describe(rows: Candidates, index: int, reason: str) -> str:
    """Say what is wrong with a row as far as its columns show it."""
    if reason == "key_too_long":
        # Some codecs cut such a key before it is copied to every row: its length is not known.
        return f"the key has more than {MAX_KEY_BYTES} bytes: {rows.keys[index][:80]}"
    if reason in ("too_large_value", "not_finite"):
        return f"values {rows.values[index].tolist()}: {REASONS[reason]}"
    return REASONS[reason]


def mark_unheld(rows: Candidates, fields: FieldMap) -> None:
    """Mark rows that lack a text they need, or that hold nothing at all."""
    payload, held = fields.payload, dict(fields.roles)
    for role in payload.needed:
        rows.mark(rows.tags[held[role]].eq("").to_numpy(), "missing_field")
    if payload.any:
        nothing = np.isnan(rows.values).all(axis=1)
        for _, name in fields.roles:
            if not nothing.any():
                break
            nothing &= rows.tags[name].eq("").to_numpy()
        rows.mark(nothing, "missing_field")


def finish(
    rows: Candidates,
    rejected: list[Rejected],
    fields: FieldMap,
    *,
    offsets: NDArray[np.int64],
    broker_ms: NDArray[np.int64],
) -> Decoded:
    """Make the batch, with the rejections in message and row order, each message's in bounds."""
    if rejected:
        rejected = within_budget(rejected)
    texts = {role: rows.tags[name] for role, name in fields.roles}
    batch: RecordBatch[Any] = RecordBatch(
        keys=rows.keys.rechunk(),
        time_ms=rows.time_ms,
        values=fields.payload.rows(rows.time_ms, rows.values, texts, fields.named or fields.values),
        message=rows.message,
        row=rows.row,
        offsets=offsets,
        broker_ms=broker_ms,
        tags=(
            rows.tags
            if not fields.roles
            else {name: rows.tags[name] for name in rows.tags if name not in fields.only_held}
        ),
    )
    return Decoded(batch=batch, rejected=rejected)


def concat(parts: Sequence[Candidates], fields: FieldMap) -> Candidates:
    """Put parts together in message and row order (a stable sort, skipped where it is in order)."""
    filled = [part for part in parts if len(part.time_ms)]
    if len(filled) <= 1:
        return filled[0] if filled else empty(fields.carried, len(fields.variate_names), fields)
    message = np.concatenate([part.message for part in filled])
    row = np.concatenate([part.row for part in filled])
    order = np.lexsort((row, message))
    take = pl.Series(order)
    return Candidates(
        keys=pl.concat([part.keys for part in filled]).gather(take),
        time_ms=np.concatenate([part.time_ms for part in filled])[order],
        values=np.concatenate([part.values for part in filled])[order],
        message=message[order],
        row=row[order],
        tags={
            name: pl.concat([part.tags[name] for part in filled]).gather(take)
            for name in filled[0].tags
        },
        measured=filled[0].measured,
    )


def empty(tags: Sequence[str], n_variates: int, fields: FieldMap) -> Candidates:
    """Return no rows, with the right columns."""
    return Candidates(
        keys=pl.Series("key", [], dtype=pl.String),
        time_ms=np.empty(0, np.int64),
        values=np.empty((0, n_variates), np.float64),
        message=np.empty(0, np.int32),
        row=np.empty(0, np.int32),
        tags={name: pl.Series(name, [], dtype=pl.String) for name in tags},
        measured=fields.payload.measured,
    )


def shorten(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """Cut a text for people to a bounded length."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
