"""The ways shippers spell the same record: dotted names, numbers as texts, batches, prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.codecs import FieldMap, make_codec
from streamad.errors import ConfigError
from streamad.records import Decoded

T = 1_772_409_600_000
DOTTED = FieldMap(
    key=("host.name",), time="@timestamp", time_unit="iso", values=("system.cpu.pct",)
)


def decode(fields: FieldMap, *payloads: bytes, codec: str = "json") -> Decoded:
    n = len(payloads)
    return make_codec(codec, fields).decode(list(payloads), np.arange(n), np.full(n, -1))


def rows(decoded: Decoded) -> list[tuple[str, int, list[float]]]:
    batch = decoded.batch
    return list(
        zip(batch.keys.to_list(), batch.time_ms.tolist(), batch.values.tolist(), strict=True)
    )


def told(decoded: Decoded) -> list[tuple[str, str]]:
    return [(rejected.reason, rejected.detail) for rejected in decoded.rejected]


def spelled(draw: Any, leaves: dict[str, Any]) -> dict[str, Any]:
    """Put dotted leaves into objects; each dot is a step or a part of the name."""
    record: dict[str, Any] = {}
    for path, value in leaves.items():
        node, name = record, ""
        for part in path.split("."):
            if name and draw(st.booleans()):
                inner = node.setdefault(name, {})
                node, name = inner, part
            else:
                name = f"{name}.{part}" if name else part
        node[name] = value
    return record


@given(st.data())
def test_a_dot_is_a_step_or_part_of_a_name(data: st.DataObject):
    leaves = {"host.name": "a", "@timestamp": "2026-03-02T00:00:00Z", "system.cpu.pct": 0.5}
    records = [spelled(data.draw, leaves) for _ in range(3)]
    payloads = [orjson.dumps(record) for record in records]
    wanted = [("a", T, [0.5])]
    assert rows(decode(DOTTED, *payloads)) == wanted * 3
    assert rows(decode(DOTTED, b"[" + b",".join(payloads) + b"]")) == wanted * 3
    for payload in payloads:
        assert rows(decode(DOTTED, payload)) == wanted


@given(st.data())
def test_columns_may_be_spelled_either_way(data: st.DataObject):
    times = ["2026-03-02T00:00:00Z", "2026-03-02T00:00:01Z"]
    leaves = {"host.name": "a", "@timestamp": times, "system.cpu.pct": [0.5, "0.25"]}
    decoded = decode(DOTTED, orjson.dumps(spelled(data.draw, leaves)))
    assert rows(decoded) == [("a", T, [0.5]), ("a", T + 1000, [0.25])]


def test_arrow_columns_may_have_dots_in_their_names():
    table = pa.table({"host.name": ["a"], "t": [T], "cpu": [{"pct": 0.5}]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    fields = FieldMap(key=("host.name",), time="t", values=("cpu.pct",))
    decoded = decode(fields, sink.getvalue().to_pybytes(), codec="arrow")
    assert rows(decoded) == [("a", T, [0.5])]


@pytest.mark.parametrize(
    ("value", "number"), [("1.5", 1.5), (" 1.5 ", 1.5), ("-2e3", -2000.0), ("0", 0.0), ("+7", 7.0)]
)
def test_a_number_may_stand_as_a_text(value: str, number: float):
    record = {"key": "a", "ts": str(T), "value": value}
    assert rows(decode(FieldMap(), orjson.dumps(record))) == [("a", T, [number])]


def test_text_numbers_keep_all_their_digits():
    record = {"key": "a", "ts": f"{T}123456", "value": "1"}
    assert rows(decode(FieldMap(time_unit="ns"), orjson.dumps(record)))[0][1] == T


@pytest.mark.parametrize("text", ["NaN", "nan", "Infinity", "-inf"])
def test_what_is_no_number_is_missing_and_alone_is_rejected(text: str):
    alone = decode(FieldMap(), orjson.dumps({"key": "a", "ts": T, "value": text}))
    assert [reason for reason, _ in told(alone)] == ["not_finite"]
    two = FieldMap(values=("u", "v"))
    (row,) = rows(decode(two, orjson.dumps({"key": "a", "ts": T, "u": text, "v": 1})))
    assert np.isnan(row[2][0])
    assert row[2][1] == 1


@pytest.mark.parametrize(
    ("unit", "time", "reads"),
    [
        ("ms", T // 1000, "s"),
        ("s", T, "ms"),
        ("s", T * 1000, "us"),
        ("ns", T, "ms"),
        ("ns", T // 1000, "s"),
        ("us", T // 1000, "s"),
        ("ms", str(T // 1000), "s"),
        ("ms", "2026-03-02T00:00:00Z", "iso"),
        ("iso", T, "ms"),
        ("iso", T // 1000, "s"),
    ],
)
def test_a_time_in_another_unit_is_told_with_the_unit_that_reads_it(
    unit: Any, time: Any, reads: Any
):
    payload = orjson.dumps({"key": "a", "ts": time, "value": 1})
    ((_, detail),) = told(decode(FieldMap(time_unit=unit), payload))
    assert detail.endswith(f"; time_unit: {reads} reads it")
    assert len(decode(FieldMap(time_unit=reads), payload).batch) == 1


def test_rows_may_stand_in_an_array_with_what_they_share_beside_it():
    fields = FieldMap(key=("host", "name"), time="timestamp", time_unit="s", values=("v",))
    inside = [{"name": "cpu", "timestamp": T // 1000, "v": 1}, {"name": "mem", "host": "b", "v": 2}]
    batch = orjson.dumps({"metrics": inside, "host": "a", "timestamp": T // 1000 + 1})
    ((_, detail), *_) = told(decode(fields, batch))
    assert detail.endswith("the rows stand in it: input.fields.rows: metrics")
    read = FieldMap(key=fields.key, time="timestamp", time_unit="s", values=("v",), rows="metrics")
    assert rows(decode(read, batch)) == [("a/cpu", T, [1.0]), ("b/mem", T + 1000, [2.0])]
    # Rows that stand by themselves, beside batches, are read as they are.
    single = orjson.dumps({"name": "cpu", "host": "c", "timestamp": T // 1000, "v": 3})
    assert rows(decode(read, single, batch))[0] == ("c/cpu", T, [3.0])


def test_a_batch_in_an_object_has_the_bound_of_every_message():
    fields = FieldMap(rows="metrics")
    rows_ = [{"key": "a", "ts": T, "value": i} for i in range(11)]
    codec = make_codec("json", fields, max_rows_per_message=10)
    decoded = codec.decode([orjson.dumps({"metrics": rows_})], np.arange(1), np.arange(1))
    assert [reason for reason, _ in told(decoded)] == ["too_many_rows"]


def test_a_long_text_beside_many_rows_is_not_copied_to_all_of_them():
    fields = FieldMap(tags=("note",), rows="metrics")
    inside = [{"key": "a", "ts": T + i, "value": 1} for i in range(1000)]
    payload = orjson.dumps({"note": "x" * 900_000, "metrics": inside})
    decoded = decode(fields, payload)
    assert len(decoded.batch) == 1000
    assert max(map(len, decoded.batch.tags["note"])) <= 512


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\0\0\0\0\x07", b"\0\0\0\0\x07 ", b"  "])
def test_what_serializers_put_before_the_text_is_passed_over(before: bytes):
    record = orjson.dumps({"key": "a", "ts": T, "value": 1})
    if before.startswith(b"\0") and before.endswith(b" "):
        before = before[:-1]
    assert rows(decode(FieldMap(), before + record)) == [("a", T, [1.0])]
    assert rows(decode(FieldMap(), before + b"[" + record + b"]")) == [("a", T, [1.0])]


def test_avro_and_protobuf_are_named():
    ((reason, detail),) = told(decode(FieldMap(), b"\0\0\0\0\x2a\x02\x0alatency\x80"))
    assert reason == "invalid_json"
    assert "schema registry" in detail
    assert "schema 42" in detail


TELEGRAF = FieldMap(
    key=("tags.host",), time="timestamp", time_unit="s", values=("fields.usage_idle",)
)


def telegraf(name: str, **fields: Any) -> bytes:
    record = {"name": name, "tags": {"host": "a"}, "timestamp": T // 1000, "fields": fields}
    return orjson.dumps(record)


def test_rows_of_another_measurement_are_counted_and_no_letter_is_written():
    decoded = decode(TELEGRAF, telegraf("cpu", usage_idle=90), telegraf("mem", free=1))
    assert rows(decoded) == [("a", T, [90.0])]
    (passed_over,) = decoded.rejected
    assert passed_over.counts == {"other_measurement": 1}


def test_a_value_that_is_null_is_no_other_measurement():
    decoded = decode(TELEGRAF, telegraf("cpu", usage_idle=None, usage_user=1))
    assert [reason for reason, _ in told(decoded)] == ["missing_field"]


@pytest.mark.parametrize("codec", ["json", "arrow"])
def test_only_rows_that_meet_where_are_read(codec: str):
    fields = FieldMap(where=(("name", "cpu*"),))
    records = [
        {"key": "a", "ts": T, "value": 1.0, "name": name} for name in ("cpu", "cpu0", "mem", None)
    ]
    if codec == "arrow":
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(records)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        payloads = [sink.getvalue().to_pybytes()]
    else:
        payloads = [orjson.dumps(record) for record in records]
    decoded = decode(fields, *payloads, codec=codec)
    assert len(decoded.batch) == 2
    assert {reason for reason, _ in told(decoded)} <= {"not_wanted"}


def test_a_slash_in_a_field_names_another_series():
    fields = FieldMap(key=("service", "endpoint"))
    pairs = [("shop", "eu/cart"), ("shop/eu", "cart"), ("shop\\", "/eu")]
    payloads = [orjson.dumps({"service": s, "endpoint": e, "ts": T, "value": 1}) for s, e in pairs]
    keys = [key for key, *_ in rows(decode(fields, *payloads))]
    assert len(set(keys)) == 3


def test_where_must_not_ask_for_a_number():
    with pytest.raises(ConfigError, match="cannot be both a number and"):
        FieldMap(where=(("value", "1"),))
