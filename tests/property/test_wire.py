"""Laws of the frame that a schema registry's clients put before a value."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.records.cloudevents import decode, encode
from connectors.records.typed_json import ShapeError
from connectors.records.wire import MAX_ID, frame_of, unframed
from streamad.records import Rejected
from tests.unit.pagers.made import INCIDENT

EVENT = encode(INCIDENT)
IDS = st.integers(0, MAX_ID)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(IDS, st.dictionaries(st.text(), JSON, max_size=4))
def test_a_framed_object_is_what_it_was(schema_id: int, body: dict[str, object]):
    value = orjson.dumps(body)
    framed = frame_of(schema_id) + value
    assert len(framed) == len(value) + 5
    assert framed[0] == 0
    assert int.from_bytes(framed[1:5], "big") == schema_id
    assert unframed(framed) == unframed(value) == value


@given(IDS)
def test_the_id_of_a_frame_changes_nothing_of_the_record(schema_id: int):
    assert decode(frame_of(schema_id) + EVENT.value, EVENT.headers) == INCIDENT


@given(IDS, st.integers(1, len(EVENT.value) + 4))
def test_a_frame_that_is_cut_off_is_a_rejection_with_its_bytes(schema_id: int, n_bytes: int):
    value = (frame_of(schema_id) + EVENT.value)[:n_bytes]
    read = decode(value, EVENT.headers, message=3)
    assert isinstance(read, Rejected)
    assert (read.message, read.reason, read.payload) == (3, "invalid_json", value)


@given(IDS, st.binary(max_size=200))
def test_garbage_in_a_frame_is_a_record_or_a_rejection(schema_id: int, garbage: bytes):
    read = decode(frame_of(schema_id) + garbage, EVENT.headers)
    assert isinstance(read, Rejected)
    assert "\n" not in read.detail


@given(st.binary(max_size=40))
def test_bytes_without_a_frame_are_left_as_they_are(value: bytes):
    if value[:1] != b"\0":
        assert unframed(value) == value
        return
    with contextlib.suppress(ShapeError):
        assert value[5:] == unframed(value)


@given(st.integers().filter(lambda n: not 0 <= n <= MAX_ID))
def test_what_is_no_id_makes_no_frame(number: int):
    with pytest.raises(ValueError, match="expected an id of a schema"):
        frame_of(number)


def test_avro_behind_a_frame_is_named():
    read = decode(frame_of(7) + b"\x02\x06abc", EVENT.headers)
    assert isinstance(read, Rejected)
    assert "schema 7" in read.detail
    assert "Avro" in read.detail
