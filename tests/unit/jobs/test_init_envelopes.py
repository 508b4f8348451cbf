"""``streamad init`` for log records of OpenTelemetry and for CloudEvents, in files and messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from connectors.memory import Record
from jobs import cli
from jobs.init.command import _structured
from jobs.init.look import look_at
from jobs.offline.replay import read_file
from streamad.config import load_pipeline
from streamad.errors import ConfigError
from streamad.ports import Messages, Source

T0 = 1_772_366_400_000
N = 240
ROUTES = ("/cart", "/pay", "/login")


def attribute(name: str, value: Any) -> dict[str, Any]:
    form = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": name, "value": {form: value}}


def logs(start: int, stop: int) -> dict[str, Any]:
    """Return a request of the log records of two services."""
    rng = np.random.default_rng(start)
    services = []
    for number, service in enumerate(("shop", "bank")):
        records = [
            {
                "timeUnixNano": str((T0 + 700 * i + int(rng.integers(500))) * 1_000_000),
                "severityNumber": int(rng.choice([9, 13])),
                "body": {"stringValue": f"request {i} took {rng.integers(900)} ms for {i * 7}"},
                "traceId": base64.b64encode(rng.bytes(16)).decode(),
                "attributes": [
                    attribute("http.route", str(rng.choice(ROUTES))),
                    attribute("enduser.id", f"u{rng.integers(4)}"),
                    attribute("http.response.status_code", int(rng.choice([200, 404, 500]))),
                ],
            }
            for i in range(start, stop)
            if i % 2 == number
        ]
        services.append(
            {
                "resource": {"attributes": [attribute("service.name", service)]},
                "scopeLogs": [{"scope": {"name": "http"}, "logRecords": records}],
            }
        )
    return {"resourceLogs": services}


def events() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    types = ("order.paid", "order.new")
    return [
        {
            "specversion": "1.0", "id": f"e{i}", "type": str(rng.choice(types)),
            "source": f"/shops/{rng.integers(3)}", "datacontenttype": "application/json",
            "time": f"2026-03-01T12:{i // 60:02d}:{i % 60:02d}.{rng.integers(999):03d}Z",
            "data": {"user": f"u{rng.integers(4)}", "method": str(rng.choice(["card", "bank"]))},
        }
        for i in range(N)
    ]  # fmt: skip


def protobuf() -> bytes:
    return bytes(ParseDict(logs(0, N), ExportLogsServiceRequest()).SerializeToString())


FILES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "logs, lines": ("l.jsonl", "otlp_logs", lambda: b"\n".join(
        json.dumps(logs(i, i + 24)).encode() for i in range(0, N, 24))),
    "logs, a request": ("l.json", "otlp_logs", lambda: json.dumps(logs(0, N), indent=1).encode()),
    "logs in protobuf": ("l.bin", "otlp_logs", protobuf),
    "events, lines": ("e.jsonl", "cloudevents", lambda: b"\n".join(
        json.dumps(one).encode() for one in events())),
    "events, lines in JSON": ("e.json", "cloudevents", lambda: b"\n".join(
        json.dumps(one).encode() for one in events())),
    "events, a batch": ("e.json", "cloudevents", lambda: json.dumps(events()).encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_pipeline_reads_its_file_without_an_edit(name: str, tmp_path: Path):
    file, form, made = FILES[name]
    (tmp_path / file).write_bytes(made())
    path = tmp_path / "p.yaml"
    assert cli.main(["init", str(tmp_path / file), "-o", str(path)]) == 0
    config = load_pipeline(path, environment={})
    assert (config.input.format, config.input.records) == (form, "events")
    parts = list(read_file(tmp_path / file, config))
    assert sum(len(part.decoded.batch) for part in parts) == N
    assert not any(part.decoded.rejected for part in parts)
    fields = config.input.fields
    if form == "otlp_logs":
        assert fields.key == ("service.name",)
        assert {*fields.categories} == {
            "severity", "http.route", "http.response.status_code", "enduser.id",
        }  # fmt: skip
        assert "time" not in path.read_text().split("fields:")[1].split("series:")[0]
        assert "body is left out" in path.read_text()
    else:
        assert fields.key == ("data.user",)
        assert {*fields.categories} == {"type", "source", "data.method"}
        assert (fields.time, fields.time_unit) == ("time", "iso")


def test_cloud_events_of_binary_mode_are_known_by_their_headers():
    raw = [
        Record(
            value=json.dumps(one["data"]).encode(),
            headers=(("content-type", b"application/json"),
                     *((f"ce_{k}", str(v).encode()) for k, v in one.items()
                       if k not in ("data", "datacontenttype"))),
        )
        for one in events()
    ]  # fmt: skip
    n = len(raw)
    part = Messages(
        source=Source("in", 0), payloads=[one.value for one in raw], offsets=np.arange(n),
        broker_ms=np.full(n, -1), raw=raw,
    )  # fmt: skip
    look = look_at(_structured(part), "in")
    assert (look.format, look.records) == ("cloudevents", "events")
    assert look.items is not None
    assert look.items.fields["key"] == ("data.user",)


def test_what_log_records_cannot_be_is_said():
    payload = json.dumps(logs(0, 40)).encode()
    with pytest.raises(ConfigError, match="holds log records; --records events or edges reads"):
        look_at([payload], "in", "signals")
    empty = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": 9}]}]}]}
    with pytest.raises(ConfigError, match="none of them has a time"):
        look_at([json.dumps(empty).encode()], "in")
