"""Whatever stands in a batch, reading it ends, and what is good in it is read."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c

from connectors.kafka import batches as module
from connectors.kafka.columns import MAX_HEADERS, messages_of, unreadable
from streamad.ports import Messages, Source

PART = TopicPartition("in", 0)
HEADER = DefaultRecordBatch.HEADER_STRUCT

Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


class Name(str):
    """A header name whose bytes are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:  # type: ignore[override]
        return b"od\xffd"


def java_snappy(data: bytes) -> bytes:
    blocks = [
        bytes(cramjam.snappy.compress_raw(data[at : at + 50])) for at in range(0, len(data), 50)
    ]
    framed = [struct.pack(">i", len(block)) + block for block in blocks]
    return b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(framed)


PACK = {
    "none": (0, bytes),
    "gzip": (1, cramjam.gzip.compress),
    "snappy": (2, cramjam.snappy.compress_raw),
    "xerial": (2, java_snappy),
    "lz4": (3, cramjam.lz4.compress),
    "zstd": (4, cramjam.zstd.compress),
}


def sealed(head: list[int], body: bytes) -> bytes:
    """Put a batch together, its length and checksum right."""
    head[1] = HEADER.size + len(body) - DefaultRecordBatch.AFTER_LEN_OFFSET
    data = bytearray(HEADER.pack(*head) + body)
    crc = calc_crc32c(memoryview(data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", data, DefaultRecordBatch.CRC_OFFSET, crc)
    return bytes(data)


def plain(rows: list[Row]) -> tuple[list[int], bytes]:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**30)
    for offset, (key, value, headers) in enumerate(rows):
        builder.append(offset, 1_000 + offset, key, value, headers)
    data = bytes(builder.build())
    return list(HEADER.unpack_from(data)), data[HEADER.size :]


def batch(rows: list[Row], codec: str = "none", *, base: int = 0) -> bytes:
    head, body = plain(rows)
    number, pack = PACK[codec]
    head[0], head[5] = base, number
    return sealed(head, bytes(pack(body)))


def consumer(data: bytes, *, start: int = 0, columns: bool = False) -> Any:
    """Return a client's reader of an answer, guarded."""
    fetcher = SimpleNamespace(PartitionRecords=Fetcher.PartitionRecords, _append=None)
    module.guard(SimpleNamespace(_fetcher=fetcher), columns=columns)
    return fetcher.PartitionRecords(start, PART, MemoryRecords(data))


def read(data: bytes, *, start: int = 0) -> list[Any]:
    return consumer(data, start=start).take()


def good(number: int, *, size: int = 30) -> list[Row]:
    return [(b"k%d" % i, b"v%d" % i * size, [("h", b"x"), ("none", None)]) for i in range(number)]


@pytest.mark.parametrize("codec", PACK)
def test_every_codec_is_read(codec: str):
    rows = [*good(50), (None, None, []), (b"", b"", [])]
    records = read(batch(rows, codec, base=7))
    assert [(r.key, r.value, r.headers) for r in records] == rows
    assert [r.offset for r in records] == list(range(7, 7 + len(rows)))
    assert [r.timestamp for r in records] == list(range(1_000, 1_000 + len(rows)))
    assert [unreadable(r) for r in records] == [None] * len(rows)


def test_a_header_name_that_is_no_text_hides_nothing():
    rows = [*good(1), (b"k", b"v", [(Name("x"), b"1")]), *good(1)]
    records = read(batch(rows))
    assert [r.value for r in records] == [b"v0" * 30, b"v", b"v0" * 30]
    assert records[1].headers == [("od�d", b"1")]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "xerial", "lz4", "zstd"])
def test_a_batch_that_expands_too_far_is_passed_over(codec: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 2**20)
    bomb = batch([*good(3), (b"k", bytes(2**21), [])], codec, base=10)
    records = read(batch(good(2)) + bomb + batch(good(1), base=14))
    assert [r.offset for r in records] == [0, 1, 13, 14]
    assert "offsets 10 to 13" in unreadable(records[2])
    assert f"expand to more than {2**20} bytes" in unreadable(records[2])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "xerial", "lz4", "zstd"])
def test_damaged_data_are_passed_over(codec: str):
    head, body = plain(good(3))
    head[5], pack = PACK[codec]
    records = read(sealed(head, bytes(pack(body))[:-9]) + batch(good(1), base=3))
    assert [r.offset for r in records] == [2, 3]
    assert "damaged" in unreadable(records[0])


def test_an_unknown_codec_is_passed_over():
    head, body = plain(good(3))
    head[5] = 5
    records = read(sealed(head, body))
    assert [unreadable(r) is None for r in records] == [False]


def test_too_many_headers_cost_one_record():
    many: list[tuple[str, bytes | None]] = [("", None)] * (MAX_HEADERS + 1)
    records = read(batch([*good(1), (b"k", b"v", many), *good(1)]))
    assert [r.offset for r in records] == [0, 1, 2]
    assert "10001 headers" in unreadable(records[1])


def test_reading_in_the_middle_of_a_batch_goes_on_there():
    assert [r.offset for r in read(batch(good(9)), start=4)] == [4, 5, 6, 7, 8]


def test_a_wrong_checksum_is_raised_each_time_and_leaves_nothing_in_line():
    data = bytearray(batch(good(3)))
    data[-1] ^= 1
    reading = consumer(bytes(data))
    with pytest.raises(CorruptRecordError):
        reading.take()
    assert not reading


def test_good_records_come_before_the_error_behind_them():
    data = bytearray(batch(good(3), base=2))
    data[-1] ^= 1
    reading = consumer(batch(good(2)) + bytes(data))
    assert [r.offset for r in reading.take(10)] == [0, 1]
    with pytest.raises(CorruptRecordError):
        reading.take(10)


def test_a_poll_takes_no_more_than_its_budget(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_POLL_BYTES", 10_000)

    def append(drained: list[Any], part: Any, most: int) -> int:
        taken = part.take(most)
        drained += taken
        return len(taken)

    fetcher = SimpleNamespace(PartitionRecords=Fetcher.PartitionRecords, _append=append)
    module.guard(SimpleNamespace(_fetcher=fetcher))
    data = batch(good(100, size=200))
    waiting = [fetcher.PartitionRecords(0, PART, MemoryRecords(data)) for _ in range(2)]
    polls = []
    while waiting:
        polls.append([])
        left = 1_000
        while left > 0 and waiting:
            left -= fetcher._append(polls[-1], waiting[0], left)
            if not waiting[0]:
                waiting.pop(0)
    assert sum(map(len, polls)) == 200
    assert max(sum(len(r.value) for r in poll) for poll in polls) < 11_000


@given(
    data=st.data(),
    codec=st.sampled_from(sorted(PACK)),
    number=st.integers(1, 6),
)
def test_no_damage_ends_reading(data: st.DataObject, codec: str, number: int):
    """Every batch of an answer is passed, whatever stands in it, and its neighbours are read."""
    head, body = plain(good(number))
    packed = bytearray(PACK[codec][1](body))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] = data.draw(st.integers(0, 255))
    head[0], head[5] = 1, PACK[codec][0]
    head[12] = data.draw(st.sampled_from([number, 0, 1, number + 1, 2**31 - 1]))
    answer = batch(good(1)) + sealed(head, bytes(packed)) + batch(good(1), base=1 + number)
    records = read(answer)
    offsets = [r.offset for r in records]
    assert offsets == sorted(set(offsets))
    assert (offsets[0], offsets[-1]) == (0, 1 + number)


def held(made: Messages) -> list[tuple[Any, ...]]:
    parts = (made.payloads, made.offsets.tolist(), made.broker_ms.tolist(), made.raw)
    return [
        (value, offset, time_ms, raw.key, list(raw.headers), made.unreadable.get(offset))
        for value, offset, time_ms, raw in zip(*parts, strict=True)
    ]


@given(
    data=st.data(),
    codec=st.sampled_from(sorted(PACK)),
    numbers=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    by_broker=st.booleans(),
    start=st.integers(0, 12),
)
@settings(deadline=None)
def test_columns_hold_what_records_hold(
    data: st.DataObject,
    codec: str,
    numbers: list[int],
    by_broker: bool,  # noqa: FBT001
    start: int,
):
    """However many are polled at once, from wherever, and whatever is damaged."""
    answer, base = b"", 0
    for number in numbers:
        rows = data.draw(st.permutations([*good(number - 1), (None, None, []), (b"", b"", [])]))
        head, body = plain(rows)
        damaged = bytearray(body)
        for _ in range(data.draw(st.integers(0, 1))):
            damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        head[0], head[5] = base, PACK[codec][0] | (8 if by_broker else 0)
        head[12] = data.draw(st.sampled_from([len(rows), len(rows), 0, 1, 2**31 - 1]))
        answer += sealed(head, bytes(PACK[codec][1](bytes(damaged))))
        base += len(rows)
    one_by_one = messages_of(Source("in", 0), read(answer, start=start))
    reading = consumer(answer, start=start, columns=True)
    parts, places = [], []
    while reading:
        most = data.draw(st.integers(1, 7))
        taken = reading.take(most)
        assert sum(len(messages_of(Source("in", 0), [one])) for one in taken) == reading.n_taken
        assert reading.n_taken <= most
        made = messages_of(Source("in", 0), taken)
        parts += held(made)
        places += [reading.next_fetch_offset == made.offsets[-1] + 1] if reading and taken else []
        assert made.raw.headed() == [i for i, one in enumerate(made.raw) if one.headers]
        assert [one.key for one in made.raw[1:]] == [one.key for one in made.raw][1:]
    assert parts == held(one_by_one)
    assert all(places)


def test_the_budget_of_a_poll_cuts_a_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_POLL_BYTES", 3_000)
    monkeypatch.setattr(module._Budget, "left", 3_000)
    reading = consumer(batch(good(100, size=200)), columns=True)
    first = messages_of(Source("in", 0), reading.take(1_000))
    assert 3 <= len(first) < 10
    assert reading.next_fetch_offset == len(first)
    rest = []
    while reading:
        reading._budget.left = 3_000
        rest += messages_of(Source("in", 0), reading.take(1_000)).offsets.tolist()
    assert [*first.offsets.tolist(), *rest] == list(range(100))


def test_what_cannot_be_read_is_told_from_a_tombstone():
    rows: list[Row] = [(b"k", None, []), (b"k", b"v", [("", None)] * (MAX_HEADERS + 1))]
    made = messages_of(Source("in", 0), read(batch(rows)))
    assert made.payloads == [None, None]
    assert list(made.unreadable) == [1]
    assert np.array_equal(made.offsets, [0, 1])
