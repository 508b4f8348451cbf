"""CloudEvents of other programs as input: binary, structured and batched, by the same names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from connectors.codecs import FieldMap, make_codec
from streamad.ports import Messages, Source
from streamad.records import Decoded
from streamad.runtime.decoding import decode

NAMES = ("type", "subject", "data.action", "datacontenttype")
FIELDS = FieldMap(
    key=("data.user",),
    time="time",
    time_unit="iso",
    records="events",
    roles=tuple((name, name) for name in NAMES),
    values=("data.bytes",),
    tags=("source",),
)
ATTRIBUTES = {
    "specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.login",
    "time": "2026-03-01T12:00:00.123Z", "subject": 'a "b"',
}  # fmt: skip
DATA = {"user": "alice", "action": "login", "bytes": 12}
BINARY = [(f"ce_{name}", text.encode()) for name, text in ATTRIBUTES.items()]
JSON = [("content-type", b"application/json; charset=utf-8")]
Header = list[tuple[str, Any]]


def read(*messages: tuple[bytes | None, Header], fields: FieldMap = FIELDS) -> Decoded:
    """Decode messages with their headers, as a job does."""
    n = len(messages)
    given = Messages(
        source=Source("t", 0),
        payloads=[payload for payload, _ in messages],
        offsets=np.arange(n),
        broker_ms=np.full(n, -1),
        raw=[SimpleNamespace(key=None, headers=headers) for _, headers in messages],
    )
    return decode(make_codec("cloudevents", fields), given, pipeline="p")


def test_all_modes_read_the_same():
    whole = {**ATTRIBUTES, "datacontenttype": "application/json; charset=utf-8", "data": DATA}
    mode = [("Content-Type", b"application/CloudEvents+json; charset=UTF-8")]
    batched = [("content-type", b"application/cloudevents-batch+json")]
    made = read(
        (orjson.dumps(DATA, option=orjson.OPT_INDENT_2), BINARY + JSON),
        (orjson.dumps(whole), mode),
        (orjson.dumps([whole, whole]), batched),
        (orjson.dumps(whole), []),
    )
    assert made.rejected == []
    assert made.batch.message.tolist() == [0, 1, 2, 2, 3]
    rows = made.batch.values.fields.to_dicts()
    assert rows[0] == {
        "type": "com.example.login", "subject": 'a "b"', "data.action": "login",
        "datacontenttype": "application/json; charset=utf-8", "data.bytes": 12.0,
    }  # fmt: skip
    assert all(row == rows[0] for row in rows)
    assert set(made.batch.keys) == {"alice"}
    assert set(made.batch.tags["source"]) == {"/shop"}
    assert set(made.batch.time_ms) == {1_772_366_400_123}


def test_attributes_count_where_data_is_something_else():
    fields = FieldMap(
        records="events", roles=(("type", "type"), ("data", "data_base64")), values=()
    )
    made = read(
        (b"\0\1", [*BINARY, ("content-type", b"application/avro")]), (b"", BINARY),
        (b"not json", BINARY), fields=fields,
    )  # fmt: skip
    assert made.rejected == []
    assert made.batch.keys.to_list() == ["/shop"] * 3
    assert made.batch.values.fields["data"].to_list() == ["AAE=", None, "bm90IGpzb24="]


def test_what_is_refused_replays_with_its_headers():
    """A dead letter keeps the headers of its message; its value may be the event as a whole."""
    bad = {name: text for name, text in DATA.items() if name != "user"}
    made = read((orjson.dumps(bad), BINARY + JSON), (b'{"user": "a"', BINARY + JSON))
    assert [one.reason for one in made.rejected] == ["missing_field", "invalid_json"]
    again = read(*((one.payload, BINARY + JSON) for one in made.rejected))
    assert [(one.reason, one.detail) for one in again.rejected] == [
        (one.reason, one.detail) for one in made.rejected
    ]
    mended = orjson.dumps({**orjson.loads(made.rejected[0].payload or b""), "data": DATA})
    assert read((mended, BINARY + JSON)).batch.keys.to_list() == ["alice"]


def test_broken_data_cannot_pose_as_attributes():
    made = read((b'{"user": "a"}, "time": "2020-01-01T00:00:00Z"', BINARY + JSON))
    assert [one.reason for one in made.rejected] == ["invalid_json"]


@pytest.mark.parametrize("data", [[DATA, {"action": "x"}], DATA])
def test_an_array_of_data_can_be_rows(data: Any):
    fields = FieldMap(
        key=("user",), time="time", time_unit="iso", records="events", rows="data",
        roles=(("type", "type"), ("action", "action")), values=(),
    )  # fmt: skip
    made = read((orjson.dumps(data), BINARY + JSON), fields=fields)
    assert made.batch.keys.to_list() == ["alice"]
    assert made.batch.values.fields["type"].to_list() == ["com.example.login"]
    assert len(made.rejected) == (1 if isinstance(data, list) else 0)
    for one in made.rejected:
        (again,) = read((one.payload, BINARY + JSON), fields=fields).rejected
        assert (again.reason, again.detail) == (one.reason, one.detail)


def test_a_tombstone_and_edges():
    fields = FieldMap(
        key=("source",), time="time", time_unit="iso", records="edges", values=(),
        roles=(("source", "data.user"), ("target", "data.action")),
    )  # fmt: skip
    made = read((None, BINARY), (orjson.dumps(DATA), BINARY + JSON), fields=fields)
    assert [one.reason for one in made.rejected] == ["null_payload"]
    assert made.batch.values.source.to_list() == ["alice"]
