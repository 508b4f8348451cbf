"""JSON messages: the four shapes, what is refused and why, and what is never lost with it."""

from __future__ import annotations

import gzip

import numpy as np
import orjson
import pytest

from connectors.codecs import FieldMap, make_codec
from streamad.errors import ConfigError
from streamad.records import Decoded

A = b'{"key":"a","ts":1,"value":1.5}'
B = b'{"key":"b","ts":2,"value":2.5}'


def decode(*payloads: bytes | None, fields: FieldMap | None = None, **bounds: int) -> Decoded:
    number = len(payloads)
    codec = make_codec("json", fields or FieldMap(), **bounds)
    return codec.decode(list(payloads), np.arange(number), np.full(number, -1))


def rows(decoded: Decoded) -> list[tuple[str, int, list[float], int, int]]:
    batch = decoded.batch
    return list(
        zip(
            batch.keys.to_list(),
            batch.time_ms.tolist(),
            batch.values.tolist(),
            batch.message.tolist(),
            batch.row.tolist(),
            strict=True,
        )
    )


def reasons(decoded: Decoded) -> list[tuple[int, int | None, str]]:
    return [(r.message, r.row, r.reason) for r in decoded.rejected]


A_ROW, B_ROW = ("a", 1, [1.5]), ("b", 2, [2.5])


@pytest.mark.parametrize(
    "payload",
    [
        A + b"\n" + B,
        A + b"\n" + B + b"\n",
        b"\n \n" + A + b"\r\n\n" + B,
        b"  " + A + b"\n  " + B,
        b"[" + A + b"," + B + b"]",
        b"[" + A + b", " + B + b"]",
        b" [ " + A + b"\n,\n" + B + b" ] ",
        b'[{\n"key":"a",\n"ts":1,"value":1.5},\n{"key":"b","ts":2,"value":2.5}\n]',
        b'{"key":["a","b"],"ts":[1,2],"value":[1.5,2.5]}',
        b'{"value":[1.5,2.5],"more":{"x":[1]},"ts":[1.0,2],"key":["a","b"]}',
        b'{"key":["a"],"ts":[1],"value":[1.5]}\n' + B,
    ],
    ids=range(11),
)
def test_two_points_read_the_same_in_every_shape(payload: bytes):
    decoded = decode(payload)
    assert decoded.rejected == []
    assert rows(decoded) == [(*A_ROW, 0, 0), (*B_ROW, 0, 1)]


def test_one_object_may_be_spread_over_lines():
    assert rows(decode(b'{\n  "key": "a",\n  "ts": 1,\n  "value": 1.5\n}\n')) == [(*A_ROW, 0, 0)]


def test_shapes_may_be_mixed_in_one_batch():
    columnar = b'{"key":"c","ts":[3,4],"value":[3,4]}'
    decoded = decode(A, b"[" + A + b"," + B + b"]", columnar, B + b"\n" + A)
    assert [(key, message, row) for key, _, _, message, row in rows(decoded)] == [
        ("a", 0, 0),
        ("a", 1, 0),
        ("b", 1, 1),
        ("c", 2, 0),
        ("c", 2, 1),
        ("b", 3, 0),
        ("a", 3, 1),
    ]


def test_rows_after_a_columnar_line_go_on_counting():
    decoded = decode(b'{"key":"c","ts":[3,4],"value":[3,4]}\n' + A)
    assert [row for *_, row in rows(decoded)] == [0, 1, 2]


def test_the_shape_of_the_last_batch_changes_nothing():
    columnar = b'{"key":["a","b"],"ts":[1,2],"value":[1.5,2.5]}'
    codec = make_codec("json", FieldMap())
    offsets = np.arange(2)
    results = [
        codec.decode(payloads, offsets, offsets)
        for payloads in ([columnar, A], [A, A], [columnar, A], [columnar, columnar], [A, columnar])
    ]
    assert [len(decoded.batch) for decoded in results] == [3, 2, 3, 4, 3]
    assert rows(results[0]) == rows(results[2])
    assert all(decoded.rejected == [] for decoded in results)


@pytest.mark.parametrize(
    ("payload", "reason", "said"),
    [
        (b"garbage", "invalid_json", "unexpected character"),
        (A[:-1], "invalid_json", "column"),
        (A + A, "invalid_json", "after document"),
        (b"[" + A, "invalid_json", "no JSON array"),
        (b"5", "wrong_type", "expected an object, got a number 5"),
        (b"[1]", "wrong_type", "expected an object"),
        (b'{"key":"a","ts":1,"valeu":1}', "missing_field", "did you mean 'valeu'?"),
        (b'{"key":"a","ts":1,"value":null}', "missing_field", "value is null"),
        (b'{"ts":1,"value":1}', "missing_field", "no field 'key'"),
        (b'{"key":"a","value":1}', "missing_field", "no field 'ts'"),
        (
            b'{"key":"a","ts":1,"value":"1.5 ms"}',
            "wrong_type",
            "expected a number, got a text '1.5 ms'",
        ),
        (b'{"key":"a","ts":1,"value":true}', "wrong_type", "got a boolean True"),
        (b'{"key":"a","ts":1,"value":[1]}', "wrong_type", "got an array"),
        (b'{"key":{"a":1},"ts":1,"value":1}', "wrong_type", "key: expected a text"),
        (b'{"key":"a","ts":"soon","value":1}', "wrong_type", "ts: expected a number (ms)"),
        (b'{"key":"a","ts":1.5,"value":1}', "bad_time", "expected whole ms"),
        (b'{"key":"a","ts":-1,"value":1}', "bad_time", "1970 to 2200"),
        (b'{"key":"a","ts":7258118400000,"value":1}', "bad_time", "1970 to 2200"),
        (b'{"key":"a","ts":1,"value":NaN}', "not_finite", "JSON has no NaN"),
        (b'{"key":"a","ts":1,"value":1e999}', "not_finite", "infinity"),
        (b'{"key":"a","ts":1,"value":-2e30}', "too_large_value", "1e30"),
        (b'{"key":"","ts":1,"value":1}', "empty_key", "empty"),
        (b'{"key":"' + b"k" * 513 + b'","ts":1,"value":1}', "key_too_long", "more than 512 bytes"),
        (b'{"key":["a"],"ts":[1,2],"value":[1]}', "unequal_arrays", "'ts': 2"),
        (b"[]", "empty_message", "no rows"),
    ],
)
def test_bad_input_is_rejected_with_a_reason_and_its_bytes(payload: bytes, reason: str, said: str):
    decoded = decode(A, payload, B)
    assert [row[:3] for row in rows(decoded)] == [A_ROW, B_ROW]
    (rejected,) = decoded.rejected
    assert (rejected.message, rejected.reason) == (1, reason)
    assert said in rejected.detail
    assert rejected.payload == (payload[1:-1] if payload == b"[1]" else payload)


def test_numbers_as_keys_become_texts():
    assert rows(decode(b'{"key":5,"ts":1,"value":1}'))[0][0] == "5"


def test_a_text_that_looks_like_json_is_a_key():
    assert rows(decode(b'{"key":"{a}","ts":1,"value":1}'))[0][0] == "{a}"


def test_an_array_is_cut_between_its_elements_and_not_inside_a_text():
    payload = b'[{"key":"x},{y","ts":1,"value":1},{"key":"}, {","ts":1,"value":1}]'
    assert [row[0] for row in rows(decode(A, payload))] == ["a", "x},{y", "}, {"]


def test_one_bad_element_of_an_array_leaves_the_others():
    bad = b'{"key":"x","ts":1,"value":NaN}'
    decoded = decode(b"[" + A + b"," + bad + b"," + B + b"]")
    assert rows(decoded) == [(*A_ROW, 0, 0), (*B_ROW, 0, 2)]
    assert reasons(decoded) == [(0, 1, "not_finite")]
    assert decoded.rejected[0].payload == bad


def test_one_bad_element_of_columns_is_a_dead_letter_of_one_row():
    decoded = decode(b'{"key":["a","b","c"],"ts":[1,2,3],"value":[1.5,"x",null]}')
    assert rows(decoded) == [(*A_ROW, 0, 0)]
    assert reasons(decoded) == [(0, 1, "wrong_type"), (0, 2, "missing_field")]
    assert [orjson.loads(r.payload or b"") for r in decoded.rejected] == [
        {"key": "b", "ts": 2, "value": "x"},
        {"key": "c", "ts": 3, "value": None},
    ]


def test_half_a_surrogate_pair_is_no_text_and_a_whole_one_is():
    half = b'{"key":"\\ud83d","ts":1,"value":1}'
    whole = b'{"key":"\\ud83d\\ude00","ts":1,"value":1}'
    decoded = decode(half, whole)
    assert [row[0] for row in rows(decoded)] == ["\N{GRINNING FACE}"]
    assert reasons(decoded) == [(0, 0, "invalid_json")]


def test_compressed_bytes_are_never_expanded():
    # The reader would take them for a compressed file: a bomb, and another result than in a batch.
    decoded = decode(gzip.compress(A, mtime=0))
    assert len(decoded.batch) == 0
    assert reasons(decoded) == [(0, 0, "invalid_json")]


def test_several_key_fields_are_joined_and_dots_step_into_objects():
    fields = FieldMap(key=("dc", "labels.host"), tags=("labels.os", "dc"))
    decoded = decode(
        b'{"dc":"eu","labels":{"host":"h1","os":"bsd"},"ts":1,"value":1}',
        b'{"dc":"eu","labels":{"host":"h2"},"ts":1,"value":1}',
        b'{"dc":"eu","labels":7,"ts":1,"value":1}',
        b'{"dc":"eu","labels":{"host":["h3","h4"]},"ts":[1,1],"value":[1,1]}',
        fields=fields,
    )
    assert decoded.batch.keys.to_list() == ["eu/h1", "eu/h2", "eu/h3", "eu/h4"]
    assert decoded.batch.tags["labels.os"].to_list() == ["bsd", "", "", ""]
    assert decoded.batch.tags["dc"].to_list() == ["eu"] * 4
    assert reasons(decoded) == [(2, 0, "missing_field")]


WIDE = FieldMap(values=("cpu", "mem"))


def test_a_variate_that_is_absent_is_missing_and_one_of_a_wrong_type_is_an_error():
    decoded = decode(
        b'{"key":"a","ts":1,"cpu":1,"mem":2}',
        b'{"key":"a","ts":1,"cpu":null,"mem":2}',
        b'{"key":"a","ts":1,"cpu":1}',
        b'{"key":"a","ts":1,"cpu":1,"mem":"x"}',
        b'{"key":"a","ts":1}',
        b'{"key":"a","ts":[1,2],"cpu":[1,2]}',
        b'{"key":"a","ts":[1,2],"cpu":[1,2],"mem":[false,5]}',
        fields=WIDE,
    )
    expected = [[1, 2], [np.nan, 2], [1, np.nan], [1, np.nan], [2, np.nan], [2, 5]]
    np.testing.assert_array_equal(decoded.batch.values, expected)
    assert reasons(decoded) == [(3, 0, "wrong_type"), (4, 0, "missing_field"), (6, 0, "wrong_type")]


def test_long_form_puts_each_variate_into_its_column_and_counts_others_a_message():
    fields = FieldMap(variate="name", variates=("cpu", "mem"))
    lines = [
        b'{"key":"a","ts":1,"name":"mem","value":2}',
        b'{"key":"a","ts":1,"name":"disk","value":3}',
        b'{"key":"a","ts":1,"name":"net","value":"x"}',
        b'{"key":"a","ts":1,"name":"cpu","value":1}',
        b'{"key":"a","ts":1,"value":1}',
    ]
    decoded = decode(b"\n".join(lines), fields=fields)
    np.testing.assert_array_equal(decoded.batch.values, [[np.nan, 2], [1, np.nan]])
    assert reasons(decoded) == [(0, None, "unknown_variate"), (0, 4, "missing_field")]
    assert "2 rows" in decoded.rejected[0].detail


@pytest.mark.parametrize(
    ("unit", "given", "time_ms"),
    [
        ("ms", b"1700000000123", 1_700_000_000_123),
        ("s", b"1700000000", 1_700_000_000_000),
        ("s", b"1700000000.1234", 1_700_000_000_123),
        ("us", b"1700000000123999", 1_700_000_000_123),
        ("ns", b"1700000000123999999", 1_700_000_000_123),
        ("iso", b'"2023-11-14T22:13:20.123Z"', 1_700_000_000_123),
        ("iso", b'"2023-11-14T23:13:20.123+01:00"', 1_700_000_000_123),
        ("iso", b'"2023-11-14 22:13:20.123"', 1_700_000_000_123),
        ("iso", b'"2023-11-14"', 1_699_920_000_000),
    ],
)
def test_times_of_every_unit_become_milliseconds(unit: str, given: bytes, time_ms: int):
    fields = FieldMap(time_unit=unit)  # type: ignore[arg-type]
    one = b'{"key":"a","ts":' + given + b',"value":1}'
    many = b'{"key":["a"],"ts":[' + given + b'],"value":[1]}'
    assert decode(one, many, fields=fields).batch.time_ms.tolist() == [time_ms, time_ms]


@pytest.mark.parametrize("given", [b'"yesterday"', b'""', b"null", b"5", b"[[]]", b'"1960-01-01"'])
def test_what_is_no_iso_time_is_rejected(given: bytes):
    decoded = decode(b'{"key":"a","ts":' + given + b',"value":1}', fields=FieldMap(time_unit="iso"))
    assert len(decoded.batch) == 0
    assert len(decoded.rejected) == 1


def test_limits_are_a_message_each():
    many = b"\n".join([A] * 5)
    decoded = decode(A, many, A * 20, max_rows_per_message=4, max_message_bytes=500)
    assert [row[:3] for row in rows(decoded)] == [A_ROW]
    assert reasons(decoded) == [(1, None, "too_many_rows"), (2, None, "oversized")]
    assert decoded.rejected[1].payload is None


@pytest.mark.parametrize(
    "given",
    [
        {"key": ()},
        {"values": ()},
        {"values": ("a", "a")},
        {"time": "value"},
        {"values": ("key",)},
        {"key": ("a.b", "a")},
        {"key": ("a..b",)},
        {"time_unit": "minutes"},
        {"variate": "name"},
        {"variates": ("cpu",)},
        {"variate": "name", "variates": ("cpu",), "values": ("a", "b")},
    ],
)
def test_fields_that_make_no_sense_are_refused_before_anything_starts(given: dict[str, object]):
    with pytest.raises(ConfigError, match="fields"):
        FieldMap(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [100, 900, 1_000, 1_020])
def test_a_nested_element_reads_the_same_beside_a_bad_message(depth: int):
    """Whichever way arrays are cut, and however deep the caller stands."""
    nested = b'{"key":"n","ts":3,"value":3,"more":[["],["],' + b"[" * depth + b"]" * depth + b"]}"
    message = b"[" + A + b"," + nested + b"]"
    alone = rows(decode(message))
    assert [row[0] for row in alone] == ["a", "n"]
    bad = b'[{"key":"b","ts":2,bvalue":2.5}]'
    beside = decode(message, bad)
    assert rows(beside) == alone
    assert {message for message, _, _ in reasons(beside)} == {1}
