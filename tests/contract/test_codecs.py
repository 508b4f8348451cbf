"""Every codec gets the same treatment: nasty bytes, damaged messages, good neighbours."""

from __future__ import annotations

import io
import random

import cramjam
import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from connectors.codecs import CODECS, FieldMap, make_codec
from connectors.codecs.prometheus import messages
from connectors.codecs.rows import REASONS
from streamad.records import Decoded
from streamad.testing.nasty import NASTY

START_MS = 1_700_000_000_000
ROWS = 3


def json_message(first: int) -> bytes:
    rows = [{"key": f"k{i}", "ts": START_MS + i, "value": i} for i in range(first, first + ROWS)]
    return orjson.dumps(rows)


def arrow_message(first: int) -> bytes:
    rows = range(first, first + ROWS)
    table = pa.table(
        {
            "key": [f"k{i}" for i in rows],
            "ts": [START_MS + i for i in rows],
            "value": [float(i) for i in rows],
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def otlp_json_message(first: int) -> bytes:
    points = [
        {
            "timeUnixNano": str((START_MS + i) * 1_000_000),
            "asDouble": i,
            "attributes": [{"key": "i", "value": {"intValue": str(i)}}],
        }
        for i in range(first, first + ROWS)
    ]
    metrics = [{"name": "load", "gauge": {"dataPoints": points}}]
    return orjson.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})


def cloudevents_message(first: int) -> bytes:
    about = {"specversion": "1.0", "id": "1", "source": "/a", "type": "b"}
    times = (f"2023-11-14T22:13:20.{max(i, 0):03d}Z" for i in range(first, first + ROWS))
    rows = range(first, first + ROWS)
    return orjson.dumps(
        [{**about, "time": at, "value": i} for i, at in zip(rows, times, strict=True)]
    )


def otlp_logs_message(first: int) -> bytes:
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.add(key="service.name").value.string_value = "cart"
    scope = logs.scope_logs.add()
    for i in range(first, first + ROWS):
        record = scope.log_records.add(time_unix_nano=(START_MS + i) * 1_000_000)
        record.attributes.add(key="value").value.int_value = i
    return request.SerializeToString()


def otlp_proto_message(first: int) -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="load")
    for i in range(first, first + ROWS):
        point = metric.gauge.data_points.add(time_unix_nano=(START_MS + i) * 1_000_000)
        point.as_double = i
        attribute = point.attributes.add(key="i")
        attribute.value.int_value = i
    return request.SerializeToString()


def remote_write_message(first: int) -> bytes:
    request_class, label_class = messages()
    request = request_class()
    for i in range(first, first + ROWS):
        labels = [label_class(name="__name__", value="load"), label_class(name="i", value=str(i))]
        series = request.timeseries.add(labels=[label.SerializeToString() for label in labels])
        series.samples.add(value=i, timestamp=START_MS + i)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


MESSAGES = {
    "cloudevents": cloudevents_message,
    "json": json_message,
    "arrow": arrow_message,
    "otlp_logs": otlp_logs_message,
    "otlp_json": otlp_json_message,
    "otlp_proto": otlp_proto_message,
    "prometheus": remote_write_message,
}


def decode(name: str, payloads: list[bytes | None], **bounds: int) -> Decoded:
    number = len(payloads)
    offsets = np.arange(100, 100 + number)
    return make_codec(name, FieldMap(), **bounds).decode(payloads, offsets, np.full(number, -1))


def require_whole(decoded: Decoded, n_messages: int) -> None:
    """Check what holds of every result, whatever went in."""
    batch, number = decoded.batch, len(decoded.batch)
    assert batch.keys.dtype == pl.String
    assert batch.keys.null_count() == 0
    assert len(batch.keys) == batch.message.size == batch.row.size == number
    assert batch.values.shape == (number, 1)
    assert (batch.time_ms.dtype, batch.values.dtype) == (np.int64, np.float64)
    assert (batch.message.dtype, batch.row.dtype) == (np.int32, np.int32)
    assert np.isfinite(batch.values).all()
    assert (np.diff(batch.message) >= 0).all()
    order = np.lexsort((batch.row, batch.message))
    assert (order == np.arange(number)).all()
    assert all(len(tag) == number and tag.null_count() == 0 for tag in batch.tags.values())
    for rejected in decoded.rejected:
        assert rejected.reason in REASONS
        assert 0 <= rejected.message < n_messages
        assert 0 < len(rejected.detail) <= 400


def test_every_codec_has_a_message_to_be_tested_with():
    assert sorted(MESSAGES) == list(CODECS)


@pytest.fixture(params=list(CODECS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_good_messages_become_rows_in_order(name: str):
    decoded = decode(name, [MESSAGES[name](0), MESSAGES[name](ROWS)])
    require_whole(decoded, 2)
    assert decoded.rejected == []
    assert decoded.batch.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (decoded.batch.time_ms - START_MS).tolist() == [0, 1, 2, 3, 4, 5]
    assert decoded.batch.message.tolist() == [0, 0, 0, 1, 1, 1]
    assert decoded.batch.row.tolist() == [0, 1, 2, 0, 1, 2]
    assert decoded.batch.offsets.tolist() == [100, 101]


def test_no_messages_give_no_rows(name: str):
    require_whole(decode(name, []), 0)
    assert len(decode(name, []).batch) == 0


@pytest.mark.parametrize("index", range(len(NASTY)))
def test_nasty_bytes_are_rejected_or_read_but_never_raise(name: str, index: int):
    require_whole(decode(name, [NASTY[index]]), 1)


def test_good_neighbours_survive_all_nasty_messages_at_once(name: str):
    payloads: list[bytes | None] = []
    for number, nasty in enumerate(NASTY):
        payloads += [nasty, MESSAGES[name](number * ROWS)]
    decoded = decode(name, payloads)
    require_whole(decoded, len(payloads))
    good = decoded.batch.message % 2 == 1
    assert decoded.batch.values[good, 0].tolist() == list(range(len(NASTY) * ROWS))


def test_what_a_message_yields_does_not_depend_on_its_neighbours(name: str):
    payloads = [*NASTY, *(MESSAGES[name](i) for i in range(5))]
    together = decode(name, payloads)
    rows, rejected = [], []
    for index, payload in enumerate(payloads):
        alone = decode(name, [payload])
        batch = alone.batch
        rows += [
            (batch.keys[i], batch.time_ms[i], batch.values[i, 0], index, batch.row[i])
            for i in range(len(batch))
        ]
        rejected += [(index, r.row, r.reason, r.detail, r.payload) for r in alone.rejected]
    batch = together.batch
    assert rows == [
        (batch.keys[i], batch.time_ms[i], batch.values[i, 0], batch.message[i], batch.row[i])
        for i in range(len(batch))
    ]
    assert rejected == [
        (r.message, r.row, r.reason, r.detail, r.payload) for r in together.rejected
    ]


def test_damaged_messages_never_raise(name: str):
    rng = random.Random(11)  # noqa: S311 - damage, not secrets
    payloads = []
    for number in range(300):
        damaged = bytearray(MESSAGES[name](number))
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        payloads.append(bytes(damaged[: rng.randint(1, len(damaged))] if number % 3 else damaged))
    require_whole(decode(name, payloads), len(payloads))
    for payload in payloads:
        require_whole(decode(name, [payload]), 1)


def test_a_tombstone_is_a_null_payload(name: str):
    assert [r.reason for r in decode(name, [None]).rejected] == ["null_payload"]


def test_an_oversized_message_becomes_a_pointer(name: str):
    decoded = decode(name, [MESSAGES[name](0)], max_message_bytes=10)
    assert [(r.reason, r.payload) for r in decoded.rejected] == [("oversized", None)]


def test_too_many_rows_reject_the_message(name: str):
    decoded = decode(name, [MESSAGES[name](0)], max_rows_per_message=ROWS - 1)
    assert [r.reason for r in decoded.rejected] == ["too_many_rows"]
    assert len(decoded.batch) == 0
    assert len(decode(name, [MESSAGES[name](0)], max_rows_per_message=ROWS).batch) == ROWS


def test_a_rejected_row_replays_alone(name: str):
    decoded = decode(name, [MESSAGES[name](-2)])
    bad = [r for r in decoded.rejected if r.row is not None]
    again = decode(name, [r.payload for r in bad])
    assert [(r.reason, r.payload) for r in again.rejected] == [(r.reason, r.payload) for r in bad]
    assert len(again.batch) == 0
