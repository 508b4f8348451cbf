"""The scores log: messages stay small, say where they come from, and stand damage."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pyarrow as pa

from connectors.records.scores_log import MAX_MESSAGE_BYTES, ScoresOrigin, decode, encode
from streamad.records import Rejected, ScoreBatch

ORIGIN = ScoresOrigin(
    pipeline="shop",
    detector="robust_z",
    artifact="robust_z-1",
    topic="metrics",
    partition=3,
    first_offset=10,
    next_offset=25,
    notes={"tick_ms": "5"},
)


def scores(number: int, key: str = "host-{}/cpu") -> ScoreBatch:
    rng = np.random.default_rng(1)
    return ScoreBatch(
        keys=pl.Series("key", [key.format(i) for i in range(number)], dtype=pl.String),
        end_ms=1_700_000_000_000 + np.arange(number),
        ordinal=np.arange(number),
        score=rng.normal(size=number).astype(np.float32),
        p_value=rng.random(number).astype(np.float32),
        level=rng.random(number).astype(np.float32),
        newest=rng.normal(size=number).astype(np.float32),
        newest_p=rng.random(number).astype(np.float32),
        newest_level=np.full(number, np.nan, np.float32),
        severity=rng.random(number).astype(np.float32),
        flags=np.arange(number).astype(np.uint8),
    )


def test_many_scores_become_messages_that_brokers_take():
    given = scores(70_000, key="{:0>40}")
    messages = encode(given, ORIGIN)
    assert max(map(len, messages)) <= MAX_MESSAGE_BYTES
    read = [one for one in map(decode, messages) if not isinstance(one, Rejected)]
    assert [origin.part for origin, _ in read] == list(range(len(messages)))
    assert {origin.parts for origin, _ in read} == {len(messages)}
    assert pl.concat([batch.keys for _, batch in read]).equals(given.keys)
    np.testing.assert_array_equal(np.concatenate([b.score for _, b in read]), given.score)


def test_long_keys_make_more_messages_and_not_larger_ones():
    rng = random.Random(2)  # noqa: S311
    given = scores(3000)
    noise = pl.Series("key", [f"{rng.getrandbits(2000):0500x}" for _ in range(3000)])
    given = ScoreBatch(**{f: getattr(given, f) for f in given.__slots__ if f != "keys"}, keys=noise)
    messages = encode(given, ORIGIN, max_bytes=200_000)
    assert len(messages) > 3
    assert max(map(len, messages)) <= 200_000


def test_no_scores_are_one_message_for_what_the_notes_say():
    (message,) = encode(scores(0), ORIGIN)
    read = decode(message)
    assert not isinstance(read, Rejected)
    assert read[0] == ORIGIN
    assert len(read[1]) == 0


def test_any_arrow_reader_opens_a_message():
    (message,) = encode(scores(2), ORIGIN)
    table = pa.ipc.open_stream(message).read_all()
    assert table.column_names == [
        "key", "end_ms", "ordinal", "score", "p_value", "level", "newest", "newest_p",
        "newest_level", "severity", "flags",
    ]  # fmt: skip
    assert b"robust_z-1" in table.schema.metadata[b"streamad"]


def test_damage_is_a_rejection_or_other_scores():
    rng = random.Random(3)  # noqa: S311
    (message,) = encode(scores(20), ORIGIN)
    for _ in range(500):
        damaged = bytearray(message)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        read = decode(bytes(damaged), message=4)
        assert not isinstance(read, Rejected) or (read.message, read.reason) == (
            4,
            "invalid_scores",
        )


def test_a_table_of_others_is_rejected():
    table = pa.table({"key": ["a"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert isinstance(decode(sink.getvalue().to_pybytes()), Rejected)
    assert isinstance(decode(None), Rejected)
