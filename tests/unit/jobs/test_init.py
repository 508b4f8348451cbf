"""A first pipeline fits the data it was made from: it is valid, and judges nearly all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.prometheus import messages
from jobs.build import build_detect
from jobs.init import init_pipeline
from jobs.init.command import first_pipeline
from jobs.init.look import look_at
from jobs.offline.backtest import replay
from jobs.offline.replay import Part, codec_of, read_file
from streamad.config import PipelineConfig, load_pipeline, parse_pipeline
from streamad.errors import ConfigError
from streamad.ports import Source

T0 = 1_772_366_400_000
N = 600
RNG = np.random.default_rng(3)
LOAD = np.round(50 + 10 * np.sin(2 * np.pi * np.arange(N) / 48) + RNG.normal(size=N), 3)

Row = Callable[[int, str], dict[str, Any]]


def iso(i: int) -> str:
    return str(np.datetime64(T0 + 60_000 * i, "ms")) + "Z"


def telegraf(i: int, host: str) -> dict[str, Any]:
    at = {"tags": {"host": host}, "timestamp": T0 // 1000 + 60 * i}
    if i % 3 == 1:
        return {"name": "mem", "fields": {"free": 1.0 + i}, **at}
    if i % 3 == 2:
        return {"name": "swap", "fields": {"in": i, "out": 0}, **at}
    return {"name": "cpu", "fields": {"usage_idle": LOAD[i]}, **at}


ROWS: dict[str, Row] = {
    "plain": lambda i, h: {"key": h, "ts": T0 + 60_000 * i, "value": LOAD[i]},
    "two keys": lambda i, h: {
        "host": h,
        "metric": "cpu",
        "time": T0 // 1000 + 60 * i,
        "v": LOAD[i],
    },
    "dotted": lambda i, h: {"host.name": h, "@timestamp": iso(i), "system.cpu.pct": LOAD[i]},
    "nested": lambda i, h: {"host": {"name": h}, "@timestamp": iso(i), "cpu": {"pct": LOAD[i]}},
    "texts": lambda i, h: {
        "name": "up",
        "labels": {"instance": h, "__name__": "up"},
        "timestamp": iso(i),
        "value": str(LOAD[i]),
    },
    "several values": lambda i, h: {
        "device": h,
        "ts": T0 + 60_000 * i,
        "a": LOAD[i],
        "b": -LOAD[i],
    },
    "nanoseconds": lambda i, h: {"sensor": h, "time": (T0 + 60_000 * i) * 10**6, "x": LOAD[i]},
}


def lines(row: Row, hosts: str = "ab") -> list[bytes]:
    return [json.dumps(row(i, host)).encode() for i in range(N) for host in hosts]


def judged(config: PipelineConfig, parts: list[Part]) -> float:
    """Return the share of rows whose window was judged, as far as windows can be."""
    operator = build_detect(config)
    made = replay(operator, parts)
    lead = (operator.detector.size + operator.detector.info.warm_up) * len(made.keys)
    return made.account.judged / max(made.account.rows - lead, 1)


def first(payloads: list[bytes], name: str = "metrics") -> tuple[PipelineConfig, float]:
    look = look_at(payloads, name)
    codec = make_codec(look.format, look.fields or FieldMap())
    n = np.arange(len(payloads))
    text, _ = first_pipeline(name, look, [codec.decode(payloads, n, n - n - 1)], topic=name)
    config = parse_pipeline(text)
    decoded = codec_of(config).decode(payloads, n, n - n - 1)
    return config, judged(config, [Part(source=Source(name, 0), decoded=decoded)])


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("hosts", ["a", "ab"])
def test_a_topic_of_json_is_judged_by_its_first_pipeline(name: str, hosts: str):
    config, share = first(lines(ROWS[name], hosts))
    assert share > 0.9
    assert config.topic("findings") == "streamad.metrics.findings"
    assert config.windows.size == 48


@pytest.mark.parametrize("shape", ["array", "rows", "columns"])
def test_batches_of_rows_are_found(shape: str):
    records = [ROWS["plain"](i, "a") for i in range(N)]
    parts = [records[i : i + 100] for i in range(0, N, 100)]
    made: dict[str, Callable[[list[Any]], Any]] = {
        "array": lambda part: part,
        "rows": lambda part: {"metrics": part},
        "columns": lambda part: {name: [row[name] for row in part] for name in part[0]},
    }
    config, share = first([json.dumps(made[shape](part)).encode() for part in parts])
    assert share > 0.9
    assert config.input.fields.rows == ("metrics" if shape == "rows" else None)


def test_of_several_measurements_the_commonest_is_chosen():
    config, share = first(lines(telegraf))
    assert config.input.fields.where == {"name": "cpu"}
    assert config.input.fields.values == ("fields.usage_idle",)
    assert config.input.fields.key == ("tags.host",)
    assert share > 0.9


def test_arrow_and_otlp_are_known_by_their_bytes():
    table = pa.table({"host": ["a"] * N, "ts": T0 + 60_000 * np.arange(N), "v": LOAD})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    config, share = first([sink.getvalue().to_pybytes()])
    assert (config.input.format, config.input.fields.key) == ("arrow", ("host",))
    assert share > 0.9

    def request(i: int) -> bytes:
        point = {"timeUnixNano": str((T0 + 60_000 * i) * 10**6), "asDouble": LOAD[i]}
        metric = {"name": "load", "gauge": {"dataPoints": [point]}}
        return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()

    config, share = first([request(i) for i in range(N)])
    assert config.input.format == "otlp_json"
    assert share > 0.9


def compact(path: Path) -> None:
    times = [str(np.datetime64(T0 + 60_000 * i, "ms"))[:19] for i in range(N)]
    plain = [re.sub("[-T:]", "", time) for time in times]
    pl.DataFrame({"Time": plain, "cpu": LOAD}).write_csv(path)


def padded(path: Path) -> None:
    rows = [f"{np.datetime64(T0 // 1000 + 60 * i, 's')}  {LOAD[i]:9}" for i in range(N)]
    path.write_text("\n".join(["time  load", *rows]).replace("T", " "))


def wide(path: Path) -> None:
    pl.DataFrame({"Time": [iso(i) for i in range(N)], "cpu": LOAD, "mem": -LOAD}).write_csv(path)


def long(path: Path) -> None:
    rows = [(iso(i), host, "cpu", LOAD[i]) for i in range(N) for host in "ab"]
    pl.DataFrame(rows, schema=["time", "host", "metric", "value"], orient="row").write_csv(path)


@pytest.mark.parametrize("write", [wide, long, compact, padded])
def test_a_file_is_judged_by_its_first_pipeline(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path / "in.csv")
    out = tmp_path / "p.yaml"
    init_pipeline(str(tmp_path / "in.csv"), out=str(out), name=None)
    config = load_pipeline(out, environment={})
    assert judged(config, list(read_file(tmp_path / "in.csv", config))) > 0.9
    with pytest.raises(ConfigError, match="exists; name another file"):
        init_pipeline(str(tmp_path / "in.csv"), out=str(out), name=None)


def otlp(i: int) -> dict[str, Any]:
    point = {"timeUnixNano": str((T0 + 60_000 * i) * 10**6), "asDouble": LOAD[i]}
    metric = {"name": "load", "gauge": {"dataPoints": [point]}}
    return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}


def merged() -> dict[str, Any]:
    return {"resourceMetrics": [one for i in range(N) for one in otlp(i)["resourceMetrics"]]}


def protobuf() -> bytes:
    return Parse(json.dumps(merged()), ExportMetricsServiceRequest()).SerializeToString()


def remote_write() -> bytes:
    request_of, label_of = messages()
    request = request_of()
    series = request.timeseries.add()
    series.labels.append(label_of(name="__name__", value="up").SerializeToString())
    for i in range(N):
        series.samples.add(value=float(LOAD[i]), timestamp=T0 + 60_000 * i)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def arrow() -> bytes:
    table = pa.table({"ts": T0 + 60_000 * np.arange(N), "v": LOAD})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


MESSAGES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "OTLP, a request a line": (
        "metrics.json",
        "otlp_json",
        lambda: b"".join(json.dumps(otlp(i)).encode() + b"\n" for i in range(N)),
    ),
    "OTLP, one request": ("a.json", "otlp_json", lambda: json.dumps(merged(), indent=1).encode()),
    "OTLP, lines": ("a.jsonl", "otlp_json", lambda: json.dumps(merged()).encode()),
    "OTLP in protobuf": ("a.bin", "otlp_proto", protobuf),
    "remote write": ("a.bin", "prometheus", remote_write),
    "Arrow": ("a.arrows", "arrow", arrow),
    "JSON": ("a.log", "json", lambda: b"\n".join(lines(ROWS["plain"], "a"))),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_file_of_messages_is_judged_by_its_first_pipeline(tmp_path: Path, kind: str):
    name, form, made = MESSAGES[kind]
    path, out = tmp_path / name, tmp_path / "p.yaml"
    path.write_bytes(made())
    init_pipeline(str(path), out=str(out), name=None)
    config = load_pipeline(out, environment={})
    assert config.input.format == form
    assert judged(config, list(read_file(path, config))) > 0.9


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", "no message to look at"),
        (b"\0\0\0\0\x07\x02\x10abc", "Avro or Protobuf"),
        (b"hello there", "none of the formats"),
        (b'{"host": "a", "v": 1}', "no field holds times"),
        (b'{"ts": 1772366400000, "v": 1}', "no field of texts names the series"),
        (b'{"host": "a", "ts": "03.02.2026 10:00", "v": 1}', "no epochs and not ISO 8601"),
        (b"[1, 2]", "no message is a JSON object"),
    ],
)
def test_what_cannot_serve_is_told_in_one_line(payload: bytes, told: str):
    with pytest.raises(ConfigError, match=told) as refused:
        look_at([payload], "metrics")
    assert "\n" not in str(refused.value)


def test_the_file_gives_its_reasons():
    payloads = lines(ROWS["plain"], "a")
    look = look_at(payloads, "metrics")
    codec = make_codec("json", look.fields or FieldMap())
    decoded = codec.decode(payloads, np.arange(N), np.arange(N))
    text, report = first_pipeline("metrics", look, [decoded])
    assert report == ["600 readings of 1 series over 9 h 59 min"]
    assert "# Most series repeat after 48 samples (48 min)." in text
    assert "# Readings of a series are nearly always 1 min apart." in text
