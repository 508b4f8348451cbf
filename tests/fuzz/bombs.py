"""Messages within the size limit that once took gigabytes, minutes or the interpreter."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np
import orjson
import pyarrow as pa

START_MS = 1_700_000_000_000
NOW_NS = START_MS * 1_000_000
ROWS = 99_999
LONG = "k" * 2_000_000
SHORTER = LONG[:1_000_000]
"""Where it stands in a message twice."""

EMPTY = 2_000_000
"""Empty protobuf fields, two bytes each, that fill a message of 4 MiB."""


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def within(field: int, body: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def snappy(text: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(text))


def label(name: str, value: str) -> bytes:
    return within(1, within(1, name.encode()) + within(2, value.encode()))


def sample(value: float, time_ms: int = START_MS) -> bytes:
    return within(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms))


def series(*labels: bytes, samples: bytes) -> bytes:
    return within(1, b"".join(labels) + samples)


def nan_samples() -> bytes:
    """Return what a summary without observations sends, once a series."""
    nan = sample(float("nan"))
    rows = (series(label("__name__", "q"), label("i", str(i)), samples=nan) for i in range(8_000))
    return snappy(b"".join(rows))


def point(value: float, *attributes: bytes) -> bytes:
    about = b"".join(within(7, attribute) for attribute in attributes)
    return about + b"\x19" + struct.pack("<Q", NOW_NS) + b"\x21" + struct.pack("<d", value)


def attribute(name: str, value: str) -> bytes:
    return within(1, name.encode()) + within(2, within(1, value.encode()))


def metric(name: str, *points: bytes, form: int = 5) -> bytes:
    return within(
        2, within(1, name.encode()) + within(form, b"".join(within(1, p) for p in points))
    )


def log(value: float) -> bytes:
    """Return a log record at a time, with a number."""
    number = b"\x21" + struct.pack("<d", value)
    pair = within(1, b"value") + within(2, number)
    return b"\x09" + struct.pack("<Q", NOW_NS) + within(6, pair)


def otlp(*metrics: bytes, resource: bytes = b"") -> bytes:
    return within(1, within(1, resource) + within(2, b"".join(metrics)))


def otlp_json(metrics: list[Any], resource: object = None, scopes: int = 1) -> bytes:
    made = [{"scope": {"name": str(i)}, "metrics": metrics} for i in range(scopes)]
    return orjson.dumps({"resourceMetrics": [{"resource": resource or {}, "scopeMetrics": made}]})


def json_points(number: int, value: object, name: str = "a", text: str = "b") -> list[Any]:
    attributes = [{"key": name, "value": {"stringValue": text}}]
    return [{"timeUnixNano": str(NOW_NS), "asDouble": value, "attributes": attributes}] * number


def stream(table: pa.Table, *, rows: int = ROWS, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def columns(rows: int, **given: Any) -> pa.Table:
    times, values = np.full(rows, START_MS), np.ones(rows)
    return pa.table({"key": ["a"] * rows, "ts": times, "value": values, **given})


def dictionary(rows: int, *texts: str) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), pa.array(list(texts)))


def one_batch_file(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows.to_batches()[0])
    return sink.getvalue()


def listed_often(text: bytes, number: int) -> bytes:
    """Return an Arrow file of one batch with a footer that lists it ``number`` times."""
    (length,) = struct.unpack_from("<i", text, len(text) - 10)
    footer = bytearray(text[-10 - length : -10])
    root = struct.unpack_from("<I", footer, 0)[0]
    vtable = root - struct.unpack_from("<i", footer, root)[0]
    at = root + struct.unpack_from("<H", footer, vtable + 10)[0]
    vector = at + struct.unpack_from("<I", footer, at)[0]
    block = bytes(footer[vector + 4 : vector + 28])
    # The new vector lies behind everything else, where 8 divides the place of its first block.
    footer += b"\0" * ((4 - len(footer)) % 8)
    struct.pack_into("<I", footer, at, len(footer) - at)
    footer += struct.pack("<I", number) + block * number
    return text[: -10 - length] + bytes(footer) + struct.pack("<i", len(footer)) + b"ARROW1"


def json_columns(key: object, number: int = ROWS, value: float = 1) -> bytes:
    times = [START_MS] * number
    return orjson.dumps({"key": key, "ts": times, "value": [value] * number, "dc": key})


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "json: one key of 2 MB for all rows": ("json", lambda: json_columns(SHORTER)),
    "json: one key that looks like an array": ("json", lambda: json_columns("[" + SHORTER)),
    "json: one key that is an object": ("json", lambda: json_columns({"a": SHORTER})),
    "json: bad values beside a long key": ("json", lambda: json_columns(SHORTER, value=1e31)),
    "json: two million lines": ("json", lambda: b"1\n" * EMPTY),
    "json: 99,999 bad lines": ("json", lambda: b"1\n" * ROWS),
    "json: 99,999 broken lines": ("json", lambda: b"{\n" * ROWS),
    "json: 99,999 columns of unequal length": (
        "json",
        lambda: b'{"ts":[1,2],"value":[1],"key":"a"}\n' * ROWS,
    ),
    "json: an array of two million numbers": ("json", lambda: b"[%s1]" % (b"1," * EMPTY)),
    "json: an array of a million objects": ("json", lambda: b"[%s{}]" % (b"{}," * 1_000_000)),
    "json: 400,000 names of fields": (
        "json",
        lambda: orjson.dumps({f"{i:06d}": 0 for i in range(350_000)}),
    ),
    "json: 99,999 lines just too deep for the columnar reader": (
        "json",
        lambda: (b'{"x":%s}\n' % (b"[" * 1023 + b"]" * 1023)) * 2_000,
    ),
    "json: an unclosed array of arrays": ("json", lambda: b"[" * 4_000_000),
    "arrow: one batch listed 100,000 times": (
        "arrow",
        lambda: listed_often(one_batch_file(columns(1)), 100_000),
    ),
    "arrow: a dictionary's text in all rows": (
        "arrow",
        lambda: stream(columns(ROWS, key=dictionary(ROWS, SHORTER), dc=dictionary(ROWS, SHORTER))),
    ),
    "arrow: wide characters in all rows": (
        "arrow",
        lambda: stream(columns(ROWS, key=dictionary(ROWS, "\N{GRINNING FACE}" * 600))),
    ),
    "arrow: bad rows beside a large dictionary and schema": (
        "arrow",
        lambda: stream(
            columns(
                20_000,
                key=dictionary(20_000, *(f"host-{i:09d}" for i in range(60_000))),
                value=np.full(20_000, 1e31),
            ).replace_schema_metadata({"x": "y" * 1_000_000})
        ),
    ),
    "arrow: a large dictionary in each of 10,000 batches": (
        "arrow",
        lambda: stream(columns(10_000, key=dictionary(10_000, "a", "b" * 1_000_000)), rows=1),
    ),
    "arrow: zeros that expand": (
        "arrow",
        lambda: stream(
            columns(ROWS, key=["a" * 100] * ROWS, note=["n" * 3_000] * ROWS), compression="zstd"
        ),
    ),
    "otlp_proto: a label of 2 MB on each bad point": (
        "otlp_proto",
        lambda: otlp(metric("m", *[point(float("nan"), attribute("a", "b" * 200))] * 15_000)),
    ),
    "otlp_proto: a resource of 2 MB, 8,000 bad points": (
        "otlp_proto",
        lambda: otlp(
            metric("m", *[point(float("nan"))] * 8_000), resource=within(1, attribute("a", LONG))
        ),
    ),
    "otlp_proto: a name of 2 MB, 40,000 histograms": (
        "otlp_proto",
        lambda: otlp(
            metric(
                LONG, *[b"\x19" + struct.pack("<Q", NOW_NS) + b"\x21" + b"\0" * 8] * 40_000, form=9
            )
        ),
    ),
    "otlp_proto: empty resources": ("otlp_proto", lambda: b"\x0a\x00" * EMPTY),
    "otlp_proto: empty scopes under many attributes": (
        "otlp_proto",
        lambda: within(
            1,
            within(1, b"".join(within(1, attribute(str(i), "")) for i in range(9_999)))
            + b"".join(within(2, within(1, within(1, b"%d" % i))) for i in range(99_999)),
        ),
    ),
    "otlp_proto: empty metrics": ("otlp_proto", lambda: within(1, within(2, b"\x12\x00" * EMPTY))),
    "otlp_proto: empty points": ("otlp_proto", lambda: otlp(metric("m", *[b""] * EMPTY))),
    "otlp_proto: empty attributes of a resource": (
        "otlp_proto",
        lambda: within(1, within(1, b"\x0a\x00" * EMPTY)),
    ),
    "otlp_proto: empty attributes of a point": (
        "otlp_proto",
        lambda: otlp(metric("m", point(1.0) + b"\x3a\x00" * EMPTY)),
    ),
    "otlp_json: 8,000 bad points": (
        "otlp_json",
        lambda: otlp_json([{"name": "m", "gauge": {"dataPoints": json_points(8_000, "x")}}]),
    ),
    "otlp_json: a resource of 2 MB, 8,000 bad points": (
        "otlp_json",
        lambda: otlp_json(
            [{"name": "m", "gauge": {"dataPoints": json_points(8_000, "x")}}],
            {"attributes": [{"key": LONG, "value": {"stringValue": "b"}}]},
        ),
    ),
    "otlp_json: a name of 2 MB, 30,000 histograms": (
        "otlp_json",
        lambda: otlp_json(
            [{"name": LONG, "histogram": {"dataPoints": [{"count": "1", "sum": 1}] * 30_000}}]
        ),
    ),
    "otlp_json: empty resources": (
        "otlp_json",
        lambda: b'{"resourceMetrics":[%s{}]}' % (b"{}," * 1_300_000),
    ),
    "otlp_json: attributes of many kinds": (
        "otlp_json",
        lambda: otlp_json([{"name": "m"}], {"attributes": [{"key": "a"}] * 300_000}),
    ),
    "otlp_logs: a resource of 2 MB, 8,000 records without a time": (
        "otlp_logs",
        lambda: within(
            1,
            within(1, within(1, attribute("dc", LONG))) + within(2, within(2, b"\x10\x09") * 8_000),
        ),
    ),
    "otlp_logs: a key of 2 MB in a resource of 90,000 records": (
        "otlp_logs",
        lambda: within(
            1,
            within(1, within(1, attribute("service.name", SHORTER)))
            + within(2, within(2, log(1.0)) * 60_000),
        ),
    ),
    "otlp_logs: empty records": ("otlp_logs", lambda: within(1, within(2, b"\x12\x00" * EMPTY))),
    "otlp_logs: empty scopes": ("otlp_logs", lambda: within(1, b"\x12\x00" * EMPTY)),
    "otlp_logs: empty attributes of a record": (
        "otlp_logs",
        lambda: within(1, within(2, within(2, log(1.0) + b"\x32\x00" * EMPTY))),
    ),
    "otlp_logs: empty records in JSON": (
        "otlp_logs",
        lambda: b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s{}]}]}]}' % (b"{}," * 1_300_000),
    ),
    "prometheus: 8,000 NaN samples": ("prometheus", nan_samples),
    "prometheus: a label of 2 MB, 8,000 bad samples": (
        "prometheus",
        lambda: snappy(series(label("a", LONG), samples=b"".join([sample(float("nan"))] * 8_000))),
    ),
    "prometheus: a label of 2 MB, 99,999 samples": (
        "prometheus",
        lambda: snappy(series(label("a", LONG), samples=sample(1) * ROWS)),
    ),
    "prometheus: 60 MiB of empty labels": (
        "prometheus",
        lambda: snappy(within(1, b"\x0a\x00" * 30_000_000)),
    ),
    "prometheus: 60 MiB of empty labels in many series": (
        "prometheus",
        lambda: snappy(within(1, b"\x0a\x00" * 1_500_000 + sample(1)) * 20),
    ),
    "prometheus: 60 MiB of empty series": ("prometheus", lambda: snappy(b"\x0a\x00" * 30_000_000)),
    "prometheus: 60 MiB of unknown fields": (
        "prometheus",
        lambda: snappy(b"\x78\x00" * 30_000_000),
    ),
    "prometheus: 4 MiB of empty samples": (
        "prometheus",
        lambda: snappy(within(1, b"\x12\x00" * EMPTY)),
    ),
    "prometheus: good and bad samples in pieces": (
        "prometheus",
        lambda: snappy(
            b"".join(
                series(label("i", f"{i:0300d}"), samples=sample(float("nan") if i % 2 else 1))
                for i in range(40_000)
            )
        ),
    ),
}
"""By what they are: the codec, and what makes the message."""
