"""OTLP log records: what their fields are called, their times, and that both encodings agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from connectors.codecs import FieldMap, make_codec
from streamad.errors import ConfigError
from streamad.records import Decoded

NOW_NS = 1_700_000_000_123_456_789
NAMES = (
    "severity", "body.user.name", "http.method", "k8s.pod.name", "scope.name", "resource.kind",
    "attributes.kind", "scope.kind", "ok", "event_name", "trace_id", "list",
)  # fmt: skip
FIELDS = FieldMap(
    key=("service.name", "client"),
    records="events",
    roles=tuple((name, name) for name in NAMES),
    values=("bytes", "severity_number", "took"),
    tags=("k8s.pod.name",),
)


def request() -> ExportLogsServiceRequest:
    """Return three records of two resources: whole, observed only, and without most things."""
    made = ExportLogsServiceRequest()
    for name in ("cart", "shop/web"):
        logs = made.resource_logs.add()
        for key, text in {"service.name": name, "k8s.pod.name": f"{name}-1", "kind": "R"}.items():
            logs.resource.attributes.add(key=key).value.string_value = text
        scope = logs.scope_logs.add()
        scope.scope.name = "lib"
        scope.scope.attributes.add(key="kind").value.string_value = "S"
        record = scope.log_records.add(
            time_unix_nano=NOW_NS, severity_number=14, trace_id=b"\xab" * 16, event_name="login"
        )
        user = record.body.kvlist_value.values.add(key="user").value.kvlist_value
        user.values.add(key="name").value.string_value = "alice"
        for key, form, value in (
            ("client", "string_value", "10.0.0.1"), ("http.method", "string_value", "GET"),
            ("kind", "string_value", "A"), ("ok", "bool_value", True), ("bytes", "int_value", 12),
            ("took", "string_value", "1.5"),
        ):  # fmt: skip
            setattr(record.attributes.add(key=key).value, form, value)
        listed = record.attributes.add(key="list").value.array_value
        listed.values.add().int_value = 1
        listed.values.add().double_value = 2
    late = (
        made.resource_logs[0]
        .scope_logs[0]
        .log_records.add(
            observed_time_unix_nano=NOW_NS + 2_000_000, severity_text="Warning", severity_number=14
        )
    )
    late.attributes.add(key="client").value.string_value = "10.0.0.2"
    late.attributes.add(key="bytes").value.double_value = float("nan")
    return made


def as_json(made: ExportLogsServiceRequest) -> bytes:
    """Return a request as the collector writes it: identifiers in hexadecimal digits."""
    text = orjson.dumps(MessageToDict(made, use_integers_for_enums=True))
    return text.replace(b"q6urq6urq6urq6urq6urqw==", b"ab" * 16)


ENCODINGS = {"proto": ExportLogsServiceRequest.SerializeToString, "json": as_json}


def decode(payloads: list[bytes], fields: FieldMap = FIELDS, **bounds: int) -> Decoded:
    n = len(payloads)
    return make_codec("otlp_logs", fields, **bounds).decode(payloads, np.arange(n), np.full(n, -1))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_fields_have_their_names_whatever_the_encoding(encoding: str):
    made = decode([ENCODINGS[encoding](request())])
    assert made.rejected == []
    batch = made.batch
    assert batch.keys.to_list() == ["cart/10.0.0.1", "cart/10.0.0.2", r"shop\/web/10.0.0.1"]
    assert (batch.time_ms - NOW_NS // 1_000_000).tolist() == [0, 2, 0]
    assert batch.tags["k8s.pod.name"].to_list() == ["cart-1", "cart-1", "shop/web-1"]
    whole, late, _ = batch.values.fields.to_dicts()
    assert whole == {
        "severity": "WARN2", "body.user.name": "alice", "http.method": "GET",
        "k8s.pod.name": "cart-1", "scope.name": "lib", "resource.kind": "R", "attributes.kind": "A",
        "scope.kind": "S", "ok": "true", "event_name": "login", "trace_id": "ab" * 16,
        "list": "[1,2.0]", "bytes": 12.0, "severity_number": 14.0, "took": 1.5,
    }  # fmt: skip
    assert (late["severity"], late["bytes"], late["attributes.kind"]) == ("Warning", None, None)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bad_record_says_why_and_replays_alone(encoding: str):
    made = request()
    records = made.resource_logs[0].scope_logs[0].log_records
    records[0].time_unix_nano = 0
    records[1].attributes[0].key = "other"
    records.add(time_unix_nano=NOW_NS).attributes.extend(made.resource_logs[1].scope_logs[0]
        .log_records[0].attributes)  # fmt: skip
    records[2].attributes[4].value.string_value = "twelve"
    crowded = records.add(time_unix_nano=NOW_NS)
    for number in range(1_001):
        crowded.attributes.add(key=f"a{number}")
    found = decode([ENCODINGS[encoding](made)])
    assert found.batch.keys.to_list() == [r"shop\/web/10.0.0.1"]
    why = [(one.row, one.reason, one.detail) for one in found.rejected]
    assert [(row, reason) for row, reason, _ in why] == [
        (0, "bad_time"), (1, "missing_field"), (2, "wrong_type"), (3, "invalid_otlp"),
    ]  # fmt: skip
    texts = ("observedTimeUnixNano", "no client", "'bytes': 'twelve'", "1,001 attributes")
    for (_, _, detail), text in zip(why, texts, strict=True):
        assert text in detail
    again = decode([one.payload for one in found.rejected if one.payload is not None])
    assert [(one.message, one.reason) for one in again.rejected] == [
        (place, reason) for place, (_, reason, _) in enumerate(why)
    ]
    assert len(again.batch) == 0


def test_a_service_is_the_default_key_and_conditions_hold():
    fields = FieldMap(
        records="events", roles=(("severity", "severity"),), values=(), where=(("ok", "tr*"),)
    )
    made = decode([as_json(request())], fields)
    assert made.batch.keys.to_list() == ["cart", "shop/web"]
    assert [one.by_reason for one in made.rejected] == [{"not_wanted": 1}]


def test_metrics_and_rows_are_refused_with_what_to_do():
    (one,) = decode([b'{"resourceMetrics": []}']).rejected
    assert (one.reason, "otlp_json" in one.detail) == ("invalid_otlp", True)
    with pytest.raises(ConfigError, match=r"leave input\.fields\.rows out"):
        make_codec("otlp_logs", FieldMap(rows="x"))


def test_a_request_of_123_bytes_is_no_json():
    made = ExportLogsServiceRequest()
    record = made.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW_NS)
    record.attributes.add(key="service.name").value.string_value = "cart"
    record.attributes.add(key="client").value.string_value = "c"
    short: Any = record.attributes.add(key="ok").value
    while made.resource_logs[0].ByteSize() < ord("{"):
        short.string_value += "x"
    raw = made.SerializeToString()
    assert raw.startswith(b"\n{")
    assert len(decode([raw, b"\n " + as_json(request())]).batch) == 4
