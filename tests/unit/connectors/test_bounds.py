"""No message costs more than its budget, none raises, and none vanishes."""

from __future__ import annotations

import logging

import numpy as np
import orjson
import polars as pl
import pytest

from connectors.codecs import FieldMap, guard, make_codec
from connectors.codecs.budget import MAX_LETTER_BYTES, MAX_LETTERS, within_budget
from connectors.codecs.rows import cut_texts
from streamad.records import Decoded, Rejected

START_MS = 1_700_000_000_000
GOOD = b'{"key":"a","ts":1700000000000,"value":1}'


def decode(*payloads: bytes, codec: str = "json", fields: FieldMap | None = None) -> Decoded:
    offsets = np.arange(len(payloads))
    return make_codec(codec, fields or FieldMap()).decode(payloads, offsets, offsets)


def columns(key: object, number: int, value: float = 1.0) -> bytes:
    times = [START_MS + i for i in range(number)]
    return orjson.dumps({"key": key, "ts": times, "value": [value] * number})


# ---------------------------------------------------------------------- what used to raise


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [250, 300, 900])
def test_columns_nested_deeper_than_the_writer_goes_are_rejected(depth: int):
    message = b'{"key":[%s],"ts":[1],"value":[-1e31]}' % nested(depth)
    decoded = decode(GOOD, message, GOOD)
    assert decoded.batch.message.tolist() == [0, 2]
    assert {(r.message, r.row, r.reason) for r in decoded.rejected} == {(1, 0, "wrong_type")}


@pytest.mark.parametrize(
    "message",
    [
        b'{"ts":[1,3],"":[0,0,2],"ts":[[]]}',
        b'{"ts":[1,3],"ts":5}',
        b'{"ts":5,"ts":[1,3]}',
        b'{"key":["a"],"key":[],"ts":[1],"value":[1e31]}',
    ],
)
def test_members_that_stand_twice_read_the_same_alone_and_among_others(message: bytes):
    alone = decode(message)
    assert len(alone.rejected) + len(alone.batch) > 0
    for neighbour in (GOOD, columns(["a", "b"], 2)):
        decoded = decode(neighbour, message)
        mine = decoded.batch.message == 1
        assert decoded.batch.time_ms[mine].tolist() == alone.batch.time_ms.tolist()
        theirs = [(r.row, r.reason, r.payload) for r in decoded.rejected if r.message == 1]
        assert theirs == [(r.row, r.reason, r.payload) for r in alone.rejected]


def test_columns_without_rows_are_an_empty_message():
    (rejected,) = decode(b'{"key":[],"ts":[],"value":[]}').rejected
    assert (rejected.reason, rejected.row) == ("empty_message", None)


def test_columns_on_several_lines_hold_only_so_many_rows_together():
    line = columns("a", 600)
    codec = make_codec("json", FieldMap(), max_rows_per_message=1_000)
    offsets = np.arange(2)
    decoded = codec.decode([line + b"\n" + line, line], offsets, offsets)
    assert set(decoded.batch.message.tolist()) == {1}
    assert [(r.message, r.reason) for r in decoded.rejected] == [(0, "too_many_rows")] * 2


# ---------------------------------------------------------------------- the catch-all


class Broken:
    """Fails on one message, and passes another over."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._codec = make_codec("json", FieldMap())

    def decode(self, payloads, offsets, broker_ms):
        if b"secret" in payloads:
            raise self._error
        made = self._codec.decode(payloads, offsets, broker_ms)
        kept = [r for r in made.rejected if r.reason != "invalid_json"]
        return Decoded(batch=made.batch, rejected=kept)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), MemoryError(), pl.exceptions.PanicException("secret")], ids=type
)
def test_what_nobody_foresaw_becomes_a_rejection_and_a_log_line(error, caplog):
    codec = guard.GuardedCodec(Broken(error), "broken")
    payloads = [GOOD, b"secret", GOOD, b"{", GOOD]
    offsets = np.arange(5)
    with caplog.at_level(logging.ERROR):
        decoded = codec.decode(payloads, offsets, offsets)
    assert decoded.batch.message.tolist() == [0, 2, 4]
    assert decoded.batch.keys.to_list() == ["a"] * 3
    assert [(r.message, r.reason, r.payload) for r in decoded.rejected] == [
        (1, "decoder_error", b"secret"),
        (3, "no_rows", None),
    ]
    assert type(error).__name__ in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in decoded.rejected[0].detail


@pytest.mark.parametrize("number", [1, 3, 200])
def test_what_yields_nothing_is_found_beside_few_rows_and_many(number: int):
    empty = Broken(ValueError())
    codec = guard.GuardedCodec(empty, "x")
    payloads = [b"{", columns("a", number), b"{", columns("a", number), b"{"]
    decoded = codec.decode(payloads, np.arange(5), np.arange(5))
    assert [(r.message, r.reason) for r in decoded.rejected] == [
        (0, "no_rows"), (2, "no_rows"), (4, "no_rows"),
    ]  # fmt: skip


def test_an_interrupt_gets_through_the_catch_all():
    offsets = np.arange(1)
    with pytest.raises(KeyboardInterrupt):
        guard.GuardedCodec(Broken(KeyboardInterrupt()), "x").decode([b"secret"], offsets, offsets)


# ---------------------------------------------------------------------- the budget of a message


@pytest.mark.parametrize("line", [b"1", b"{", b'{"key":"a","ts":1,"value":null}'])
def test_many_bad_lines_become_so_many_rejections_and_a_count(line: bytes):
    decoded = decode(GOOD, b"\n".join([line] * 50_000), GOOD)
    assert decoded.batch.message.tolist() == [0, 2]
    *kept, more = sorted(decoded.rejected, key=lambda r: r.reason == "more_rejected")
    assert len(kept) == MAX_LETTERS
    assert [r.row for r in kept] == list(range(MAX_LETTERS))
    assert (more.message, more.row, more.payload) == (1, None, None)
    assert sum(more.counts.values()) == 50_000 - MAX_LETTERS
    assert "49,900 more rejected" in more.detail


def test_bytes_are_bounded_as_numbers_are():
    line = b'{"key":"%s","ts":1,"value":1}' % (b"k" * 60_000)
    decoded = decode(b"\n".join([line] * 20))
    kept = [r for r in decoded.rejected if r.payload is not None]
    assert sum(len(r.payload) for r in kept) <= MAX_LETTER_BYTES
    assert [r.row for r in kept] == list(range(4))
    (more,) = [r for r in decoded.rejected if r.reason == "more_rejected"]
    assert more.counts == {"key_too_long": 16}


def test_one_rejection_is_kept_however_large_it_is():
    large = Rejected(message=0, row=0, reason="x", detail="d", payload=b"x" * MAX_LETTER_BYTES * 2)
    small = Rejected(message=0, row=1, reason="y", detail="d", payload=b"x")
    kept, more = sorted(within_budget([small, large]), key=lambda r: r.reason == "more_rejected")
    assert kept is large
    assert more.counts == {"y": 1}


def test_of_two_kinds_of_bad_lines_the_first_in_the_message_are_kept():
    lines = [b"{" if i % 3 else b"1" for i in range(1_000)]
    kept = [r for r in decode(b"\n".join(lines)).rejected if r.reason != "more_rejected"]
    assert [r.row for r in kept] == list(range(MAX_LETTERS))
    (more,) = [r for r in decode(b"\n".join(lines)).rejected if r.reason == "more_rejected"]
    assert sum(more.counts.values()) == 900


def test_one_long_key_for_all_rows_is_not_copied_to_each():
    decoded = decode(columns("k" * 2_000_000, 99_999), columns("b", 2))
    assert decoded.batch.keys.to_list() == ["b", "b"]
    assert sum(len(r.payload or b"") for r in decoded.rejected) < 3_000_000
    (more,) = [r for r in decoded.rejected if r.reason == "more_rejected"]
    assert more.counts == {"key_too_long": 99_998}


def test_one_text_for_all_rows_fills_the_rows_of_its_message_alone():
    fields = FieldMap(key=("host", "disk"), tags=("dc",))
    times = [START_MS, START_MS + 1]
    one = {"host": "h", "disk": ["a", "b"], "dc": "x", "ts": times, "value": [1, 2]}
    two = {"host": ["g", "i"], "disk": "c", "dc": ["y", None], "ts": times, "value": [3, 4]}
    batch = decode(orjson.dumps(one), orjson.dumps(two), fields=fields).batch
    assert batch.keys.to_list() == ["h/a", "h/b", "g/c", "i/c"]
    assert batch.tags["dc"].to_list() == ["x", "x", "y", ""]


@pytest.mark.parametrize("tag", ["x" * 5_000, "\N{GRINNING FACE}" * 200, "é" * 300])
def test_long_tags_are_cut_at_a_character(tag: str):
    fields = FieldMap(tags=("dc",))
    row = {"key": "a", "ts": START_MS, "value": 1, "dc": tag}
    batch = decode(orjson.dumps(row), orjson.dumps({**row, "dc": "b"}), fields=fields).batch
    cut, other = batch.tags["dc"]
    assert other == "b"
    assert tag.startswith(cut)
    assert 508 < len(cut.encode()) <= 512


def test_short_texts_are_left_as_they_are():
    texts = pl.Series(["a", None, "é" * 256])
    assert cut_texts(texts, 512) is texts
