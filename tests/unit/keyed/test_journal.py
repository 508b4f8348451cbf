"""Journals come back as they were written; damaged bytes raise StateError and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.errors import StateError
from streamad.runtime.keyed import journal
from streamad.runtime.keyed.journal import Entry, Judged, Scored, SetAside, Ticked, decode

LARGE = "\n".join(
    json.dumps({"key": f"host-{i % 9}", "ts": 1_700_000_000_000 + i, "value": i / 7})
    for i in range(200)
).encode()

ENTRIES = {
    "plain": Entry(offset=7, broker_ms=1_700_000_000_000, payload=b"{}"),
    "tombstone": Entry(offset=0, broker_ms=-1, payload=None, key=b"k"),
    "no key": Entry(offset=2**62, broker_ms=-1, payload=b"x", key=None),
    "empty key and payload": Entry(offset=1, broker_ms=0, payload=b"", key=b""),
    "headers": Entry(
        offset=1,
        broker_ms=5,
        payload=b"x",
        key=b"k",
        headers=(("a", b""), ("b", bytes(range(256))), ("a", b"again"), ("", b"no name")),
    ),
    "header names": Entry(
        offset=1, broker_ms=5, payload=None, headers=(("größe", b"1"), ("名前", b"2"), ("🜁", b""))
    ),
    "large": Entry(offset=1, broker_ms=5, payload=LARGE, key=b"k", headers=(("h", b"v"),)),
    "a long name": Entry(offset=1, broker_ms=5, payload=b"x", headers=(("n" * 70_000, b"v"),)),
    "many headers": Entry(offset=1, broker_ms=5, payload=b"x", headers=(("n", b"v"),) * 70_000),
}
OTHERS = {
    "judged": (journal.JUDGED, Judged()),
    "ticked": (journal.ticked(1_700_000_000_000), Ticked(1_700_000_000_000)),
    "set aside": (journal.set_aside(2**62), SetAside(2**62)),
    "scored": (journal.scored(b"\x00arrow"), Scored(b"\x00arrow")),
    "scored nothing": (journal.scored(b""), Scored(b"")),
}
# Not those of 70,000 headers: each length is tried.
SMALL = [name for name, entry in ENTRIES.items() if len(entry.encode()) < 10_000]


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_message_comes_back_as_it_was(entry):
    assert decode(entry.encode()) == entry


@pytest.mark.parametrize(("data", "meant"), OTHERS.values(), ids=OTHERS)
def test_notes_come_back_as_they_were(data, meant):
    assert decode(data) == meant


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    entry=st.builds(
        Entry,
        offset=st.integers(0, 2**63 - 1),
        broker_ms=st.integers(-1, 2**62),
        payload=st.none() | st.binary(max_size=2_000),
        key=st.none() | st.binary(max_size=50),
        headers=st.lists(
            st.tuples(st.text(st.characters(codec="utf-8"), max_size=9), st.binary(max_size=9)),
            max_size=4,
        ).map(tuple),
    )
)
def test_any_message_comes_back_as_it_was(entry):
    assert decode(entry.encode()) == entry


def test_large_payloads_get_smaller_and_small_ones_hardly_grow():
    assert len(ENTRIES["large"].encode()) < len(LARGE) / 3
    assert len(Entry(offset=1, broker_ms=1, payload=b"x" * 100).encode()) < 140


def test_the_size_of_a_message_is_that_of_its_payload_unpacked():
    assert ENTRIES["large"].size == len(LARGE)
    assert ENTRIES["tombstone"].size == 0


@pytest.mark.parametrize("name", SMALL)
def test_a_message_cut_off_anywhere_is_damaged(name):
    data = ENTRIES[name].encode()
    for length in range(len(data)):
        with pytest.raises(StateError, match="journal of a shard"):
            decode(data[:length])


@pytest.mark.parametrize(("data", "meant"), OTHERS.values(), ids=OTHERS)
def test_a_note_cut_off_is_damaged_or_says_less(data, meant):
    for length in range(len(data)):
        try:
            assert decode(data[:length]) != meant
        except StateError:
            continue


def test_an_unknown_kind_is_told():
    for kind in set(range(256)) - set(b"MJTSQ"):
        with pytest.raises(StateError, match="unknown entry"):
            decode(bytes([kind]) + b"\x00" * 40)


@pytest.mark.parametrize("name", SMALL)
def test_a_flipped_bit_is_told_or_says_something(name):
    data = ENTRIES[name].encode()
    read = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read.append(decode(bytes(flipped)))
        except StateError:
            continue
    assert all(isinstance(one, Entry | Judged | Ticked | Scored) for one in read)


def test_a_size_nothing_could_hold_takes_no_room():
    packed = Entry(offset=1, broker_ms=5, payload=b"a" * 1_000).encode()
    head = len(Entry(offset=1, broker_ms=5, payload=b"").encode())
    # The three high bytes of the size LZ4 was told: up to 2 GB, or less than nothing.
    for value in (
        b"\xff\xff\xff\x7f",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x80",
        b"\x00\x00\x00\x10",
    ):
        with pytest.raises(StateError, match="damaged"):
            decode(packed[:head] + value + packed[head + 4 :])
