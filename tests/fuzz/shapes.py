"""Good messages of every kind, drawn from a seed: where the damage starts from."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from typing import Any

import cramjam
import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from connectors.codecs.prometheus import messages
from connectors.records import cloudevents, scores_log
from connectors.records.rekeyed import Held, _write
from streamad.config import PipelineConfig
from streamad.records import Alert, Explanation, Finding, ScoreBatch, SignalBatch

START_MS = 1_700_000_000_000
TEXTS = (
    "a",
    "host-1/cpu",
    "Ünïcode",
    "\N{GRINNING FACE}",
    'quote"d',
    "back\\slash",
    "[x]",
    "{y}",
    "1",
)


def rows(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """Return readings under the names that the field maps of the fuzzer know."""
    return [
        {
            "key": rng.choice(TEXTS) + str(rng.randrange(50)),
            "host": rng.choice(TEXTS),
            "labels": {"disk": rng.choice(TEXTS)},
            "dc": rng.choice((*TEXTS, "")),
            "metric": rng.choice(("cpu", "mem", "other")),
            "ts": START_MS + rng.randrange(10**9),
            "at": f"2026-03-0{rng.randrange(1, 9)}T00:00:{rng.randrange(60):02d}Z",
            "value": rng.choice((0.0, -1.5, 1e29, rng.random(), rng.randrange(1000))),
            "mem": rng.random(),
        }
        for _ in range(number)
    ]


def json_object(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return orjson.dumps(rows(rng, 1)[0])
    return orjson.dumps(rows(rng, rng.choice((1, 2, 5, 30))))


def json_lines(rng: random.Random) -> bytes:
    return b"\n".join(map(orjson.dumps, rows(rng, rng.choice((1, 2, 5, 30)))))


def json_columns(rng: random.Random) -> bytes:
    group = rows(rng, rng.choice((1, 2, 5, 30)))
    made: dict[str, Any] = {name: [row[name] for row in group] for name in group[0]}
    made["labels"] = {"disk": [row["labels"]["disk"] for row in group]}
    for name in ("key", "host", "dc", "metric"):
        if rng.random() < 0.3:
            made[name] = made[name][0]
    return orjson.dumps(made)


KINDS = (pa.int8(), pa.int64(), pa.uint32(), pa.float16(), pa.float32(), pa.float64())


def arrow(rng: random.Random) -> bytes:
    group = rows(rng, rng.choice((1, 2, 5, 30)))
    columns: dict[str, Any] = {name: [row[name] for row in group] for name in group[0]}
    columns["value"] = pa.array([rng.randrange(100) for _ in group]).cast(rng.choice(KINDS))
    columns["mem"] = pa.array([None if rng.random() < 0.1 else row["mem"] for row in group])
    columns["labels"] = pa.array([row["labels"] for row in group])
    if rng.random() < 0.5:
        columns["key"] = pa.array(columns["key"]).dictionary_encode()
    if rng.random() < 0.3:
        kind = pa.timestamp(rng.choice(("ms", "us", "ns")), tz=rng.choice((None, "UTC")))
        columns["ts"] = pa.array(columns["ts"]).cast(pa.timestamp("ms")).cast(kind)
    table = pa.table(columns)
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, "lz4", "zstd")))
    opened = rng.choice((pa.ipc.new_stream, pa.ipc.new_file))
    with opened(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rng.choice((3, 100)))
    return sink.getvalue()


def otlp_request(rng: random.Random) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    for _ in range(rng.randint(1, 2)):
        resource_metrics = request.resource_metrics.add()
        for name in ("service.name", "host.name"):
            resource_metrics.resource.attributes.add(key=name).value.string_value = rng.choice(
                TEXTS
            )
        scope = resource_metrics.scope_metrics.add()
        scope.scope.name = "lib"
        for form in rng.choices(
            ("gauge", "sum", "histogram", "exponential_histogram", "summary"), k=2
        ):
            metric = scope.metrics.add(name=rng.choice(("cpu", "mem", "other")), unit="s")
            data = getattr(metric, form)
            if form == "sum":
                data.is_monotonic, data.aggregation_temporality = (
                    rng.random() < 0.5,
                    rng.randint(1, 2),
                )
            for _ in range(rng.choice((1, 3, 20))):
                _otlp_point(data.data_points.add(), form, rng)
    return request


def _otlp_point(point: Any, form: str, rng: random.Random) -> None:
    point.time_unix_nano = (START_MS + rng.randrange(10**9)) * 1_000_000
    if form in ("gauge", "sum"):
        point.as_double = rng.random()
    else:
        point.count, point.sum = rng.randrange(99), rng.random()
    point.attributes.add(key="host").value.string_value = rng.choice(TEXTS)
    _otlp_value(point.attributes.add(key="dc").value, rng)


def _otlp_value(value: Any, rng: random.Random) -> None:
    how = rng.randrange(4)
    if how == 0:
        value.int_value = 5
    elif how == 1:
        value.array_value.values.add().bool_value = True
    elif how == 2:
        value.kvlist_value.values.add(key="x").value.double_value = 1.5
    else:
        value.string_value = rng.choice(TEXTS)


def otlp_proto(rng: random.Random) -> bytes:
    return otlp_request(rng).SerializeToString()


def otlp_json(rng: random.Random) -> bytes:
    return orjson.dumps(MessageToDict(otlp_request(rng), use_integers_for_enums=True))


def otlp_logs_request(rng: random.Random) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for _ in range(rng.randint(1, 2)):
        logs = request.resource_logs.add()
        for name in ("service.name", "host"):
            logs.resource.attributes.add(key=name).value.string_value = rng.choice(TEXTS)
        scope = logs.scope_logs.add()
        scope.scope.name = "lib"
        for _ in range(rng.choice((1, 3, 20))):
            record = scope.log_records.add(severity_number=rng.randrange(25), trace_id=b"\x07" * 16)
            time_ns = (START_MS + rng.randrange(10**9)) * 1_000_000
            if rng.random() < 0.5:
                record.time_unix_nano = time_ns
            record.observed_time_unix_nano = time_ns
            _otlp_value(record.body, rng)
            _otlp_value(record.attributes.add(key="dc").value, rng)
            for name in ("value", "mem"):
                record.attributes.add(key=name).value.double_value = rng.random()
    return request


def otlp_logs(rng: random.Random) -> bytes:
    return otlp_logs_request(rng).SerializeToString()


def otlp_logs_json(rng: random.Random) -> bytes:
    return orjson.dumps(MessageToDict(otlp_logs_request(rng), use_integers_for_enums=True))


def write_request(rng: random.Random) -> bytes:
    """Return a remote write request before it is compressed."""
    request_class, label_class = messages()
    request = request_class()
    for _ in range(rng.choice((1, 3, 20))):
        labels = {"__name__": rng.choice(("cpu", "mem", "x_total")), "host": rng.choice(TEXTS)}
        labels["dc"] = rng.choice(TEXTS)
        pairs = [label_class(name=n, value=v).SerializeToString() for n, v in labels.items()]
        series = request.timeseries.add(labels=pairs)
        for _ in range(rng.randint(1, 3)):
            series.samples.add(value=rng.random(), timestamp=START_MS + rng.randrange(10**9))
    return request.SerializeToString()


def prometheus(rng: random.Random) -> bytes:
    return bytes(cramjam.snappy.compress_raw(write_request(rng)))


def rekeyed(rng: random.Random) -> bytes:
    number = rng.choice((1, 3, 30))
    batch = SignalBatch(
        keys=pl.Series("key", [rng.choice(TEXTS) for _ in range(number)]),
        time_ms=START_MS + np.arange(number),
        values=np.array([[rng.random(), math.nan] for _ in range(number)]),
        message=np.zeros(number, np.int32),
        row=np.arange(number, dtype=np.int32),
        offsets=np.zeros(1, np.int64),
        broker_ms=np.zeros(1, np.int64),
        tags={"dc": pl.Series("dc", [rng.choice(TEXTS) for _ in range(number)])},
    )
    return _write(batch, np.arange(number), Held(PipelineConfig(name="shapes")))


def finding(rng: random.Random) -> Finding:
    shares = {name: rng.random() for name in ("cpu", "mem")}
    why = Explanation(observed=shares, expected=shares, variates=shares, time_ms=START_MS, text="x")
    return Finding(
        id=f"{rng.getrandbits(64):016x}", sequence=rng.randrange(9),
        state=rng.choice(("began", "continues", "ended")),
        kind=rng.choice(("anomaly", "no_data", "error")), pipeline="p", detector="d", artifact="",
        tenant="t", group="g", key=rng.choice(TEXTS), entity={"key": rng.choice(TEXTS)},
        window_start_ms=START_MS, window_end_ms=START_MS + 1000, began_ms=START_MS,
        score=rng.choice((1.5, math.nan)), p_value=1e-9, peak_score=2.0, peak_p_value=1e-9,
        level=1.0, n_windows=3, explanation=rng.choice((None, why)), input={"topic": "t"},
    )  # fmt: skip


def alert(rng: random.Random) -> Alert:
    one = finding(rng)
    return Alert(
        id=one.id, sequence=0, state=rng.choice(("opened", "updated", "resolved")), kind=one.kind,
        pipeline="p", detector="d", artifact="", tenant="t", group="g", key=one.key,
        entity=one.entity, opened_ms=START_MS, time_ms=START_MS, resolved_ms=None,
        window_start_ms=START_MS, window_end_ms=START_MS + 1000, score=1.5, p_value=1e-9,
        severity=1.5, peak_severity=1.5, threshold_p=1e-4, observed={"cpu": 1.0},
        expected={"cpu": math.nan}, explanation={"cpu": 1.0}, summary="s",
    )  # fmt: skip


def event(rng: random.Random) -> cloudevents.Event:
    return cloudevents.encode(rng.choice((finding, alert))(rng))


def scores(rng: random.Random) -> bytes:
    number = rng.choice((0, 1, 20))
    score = np.array([rng.random() for _ in range(number)], np.float32)
    given = dict.fromkeys(
        ("score", "p_value", "level", "newest", "newest_p", "newest_level"), score
    )
    batch = ScoreBatch(
        keys=pl.Series("key", [rng.choice(TEXTS) for _ in range(number)], dtype=pl.String),
        end_ms=START_MS + np.arange(number), ordinal=np.arange(number), severity=score,
        flags=np.zeros(number, np.uint8), **given,
    )  # fmt: skip
    origin = scores_log.ScoresOrigin(
        pipeline="p",
        detector="d",
        artifact="",
        topic="t",
        partition=0,
        first_offset=0,
        next_offset=9,
    )
    return scores_log.encode(batch, origin)[0]


DECODED: dict[str, Callable[[random.Random], bytes]] = {
    "json": json_object,
    "json_lines": json_lines,
    "json_columns": json_columns,
    "arrow": arrow,
    "cloudevents": json_object,
    "otlp_json": otlp_json,
    "otlp_proto": otlp_proto,
    "otlp_logs": otlp_logs,
    "otlp_logs_json": otlp_logs_json,
    "prometheus": prometheus,
    "rekeyed": rekeyed,
}
"""Kinds of input messages by name."""
