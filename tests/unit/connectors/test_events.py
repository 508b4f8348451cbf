"""CloudEvents headers, reading back, and the schemas that say what is published."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import jsonschema
import orjson
import pytest

from connectors.records import cloudevents, schemas
from connectors.records.asyncapi import CHANNELS, STATES, document
from connectors.records.typed_json import EARLIEST_MS, LATEST_MS
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.records import UNKNOWN_MS, Alert, Explanation, Finding, Rejected

FINDING = Finding(
    id="f1",
    sequence=2,
    state="continues",
    kind="anomaly",
    pipeline="shop",
    detector="robust_z",
    artifact="",
    tenant="acme",
    group="checkout",
    key="host-1/cpu",
    entity={"host": "host-1"},
    window_start_ms=1_699_999_990_000,
    window_end_ms=1_700_000_000_123,
    began_ms=1_699_999_995_000,
    until_ms=1_699_999_999_000,
    score=math.nan,
    p_value=1e-9,
    peak_score=9.5,
    peak_p_value=1e-9,
    level=3.0,
    n_windows=3,
    explanation=Explanation(
        observed={"cpu": 97.2}, expected={"cpu": math.nan}, variates={"cpu": 1.0}, time_ms=5
    ),
    input={"topic": "metrics", "partition": 3},
)
ALERT = Alert(
    id="a1",
    sequence=0,
    state="opened",
    kind="anomaly",
    pipeline="shop",
    detector="robust_z",
    artifact="",
    tenant="acme",
    group="checkout",
    key="host-1/cpu",
    entity={},
    opened_ms=1,
    time_ms=2,
    resolved_ms=None,
    window_start_ms=1,
    window_end_ms=1_700_000_000_123,
    score=9.5,
    p_value=1e-9,
    severity=2.4,
    peak_severity=2.4,
    threshold_p=1e-4,
    observed={"cpu": 97.2},
    expected={},
    explanation={"cpu": 1.0},
    summary="host-1/cpu is 97.2",
)


def test_a_finding_is_a_cloud_event_in_kafka_binary_mode():
    event = cloudevents.encode(FINDING)
    assert event.key == b"acme"
    assert dict(event.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"f1-2",
        "ce_source": b"/streamad/shop",
        "ce_type": b"io.streamad.finding.continues.v1",
        "ce_time": b"2023-11-14T22:13:20.123Z",
        "ce_subject": b"host-1/cpu",
        "content-type": b"application/json",
    }


def test_an_alert_is_keyed_by_its_id_so_that_its_topic_may_be_compacted():
    event = cloudevents.encode(ALERT)
    assert event.key == b"a1"
    assert dict(event.headers)["ce_type"] == b"io.streamad.alert.opened.v1"
    assert cloudevents.decode(event.value, event.headers) == ALERT


def test_what_is_no_number_is_null_on_the_wire_and_nan_again_when_read():
    event = cloudevents.encode(replace(FINDING, level=math.inf))
    body = orjson.loads(event.value)
    assert (body["score"], body["level"], body["explanation"]["expected"]) == (
        None,
        None,
        {"cpu": None},
    )
    back = cloudevents.decode(event.value, event.headers)
    assert isinstance(back, Finding)
    assert math.isnan(back.score)
    assert math.isnan(back.level)


def test_structured_mode_is_read_too():
    body = {
        "specversion": "1.0",
        "type": "io.streamad.alert.opened.v1",
        "data": orjson.loads(cloudevents.encode(ALERT).value),
    }
    headers = [("Content-Type", b"application/cloudevents+json; charset=UTF-8")]
    assert cloudevents.decode(orjson.dumps(body), headers) == ALERT


def test_fields_of_a_later_version_are_left_out():
    event = cloudevents.encode(ALERT)
    later = orjson.dumps({**orjson.loads(event.value), "mood": "blue"})
    assert cloudevents.decode(later, event.headers) == ALERT


def changed(**values: object) -> bytes:
    return orjson.dumps({**orjson.loads(cloudevents.encode(ALERT).value), **values})


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (None, "null_payload", "tombstone"),
        (b"x", "invalid_json", "unexpected"),
        (b"[]", "wrong_type", "expected an object"),
        (b"{}", "missing_field", "Alert needs"),
        (changed(state="lost"), "wrong_type", "state: expected"),
        (changed(sequence=True), "wrong_type", "sequence: expected int"),
        (changed(score="9"), "wrong_type", "score: expected a number"),
        (changed(observed={"cpu": [1]}), "wrong_type", "observed: expected str"),
        (changed(past=0), "wrong_type", "past: expected bool"),
    ],
)
def test_what_is_no_event_is_rejected_with_the_reason(value: bytes | None, reason: str, said: str):
    rejected = cloudevents.decode(value, cloudevents.encode(ALERT).headers, message=7)
    assert isinstance(rejected, Rejected)
    assert (rejected.message, rejected.reason) == (7, reason)
    assert said in rejected.detail


def test_an_event_too_large_to_be_read_is_rejected_without_its_payload():
    rejected = cloudevents.decode(b"[" * (cloudevents.MAX_READ_BYTES + 1), [])
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "oversized"
    assert str(cloudevents.MAX_READ_BYTES) in rejected.detail
    assert not rejected.payload


def test_an_event_of_others_is_rejected():
    headers = [("ce_type", b"com.example.order.v1")]
    rejected = cloudevents.decode(cloudevents.encode(ALERT).value, headers)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unknown_type"


def test_the_committed_schemas_are_current():
    committed = {path.name: path.read_bytes() for path in schemas.folder().glob("*.schema.json")}
    made = dict(schemas.schemas())
    assert {name: made[name] for name in made} == {name: committed.get(name) for name in made}, (
        "run: python -m connectors.records.schemas"
    )


@pytest.mark.parametrize("record", [FINDING, replace(FINDING, explanation=None), ALERT])
def test_what_is_published_fits_its_schema(record: Finding | Alert):
    name = "finding" if isinstance(record, Finding) else "alert"
    schema = orjson.loads(dict(schemas.schemas())[f"{name}.v1.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    body = orjson.loads(cloudevents.encode(record).value)
    jsonschema.Draft202012Validator(schema).validate(body)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**body, "state": 5})


@pytest.mark.parametrize("alert_p", [0, 1, -0.5, 2, None])
def test_a_finding_whose_alert_level_is_no_probability_is_rejected(alert_p: object):
    event = cloudevents.encode(FINDING)
    value = orjson.dumps({**orjson.loads(event.value), "alert_p": alert_p})
    read = cloudevents.decode(value, event.headers)
    assert isinstance(read, Rejected)
    assert (read.reason, read.payload) == ("wrong_type", value)


WHOLE = [field.name for field in fields(Finding) if field.type == "int"]


def wire(record: Finding, **other: object) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    event = cloudevents.encode(record)
    return orjson.dumps(orjson.loads(event.value) | other), list(event.headers)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("number", [2**62, -(2**62), 2**53 + 1])
def test_a_whole_number_that_sums_would_overflow_with_is_rejected(name: str, number: int):
    read = cloudevents.decode(*wire(FINDING, **{name: number}))
    assert isinstance(read, Rejected)
    assert name in read.detail
    assert "a whole number from" in read.detail


@pytest.mark.parametrize(
    ("name", "number", "fine"),
    [
        ("window_end_ms", LATEST_MS, True),
        ("window_end_ms", LATEST_MS + 1, False),
        ("window_start_ms", EARLIEST_MS, True),
        ("window_start_ms", EARLIEST_MS - 1, False),
        ("until_ms", UNKNOWN_MS, True),
        ("n_windows", 2**53, True),
    ],
)
def test_times_are_read_from_1970_to_2200(name: str, number: int, *, fine: bool):
    read = cloudevents.decode(*wire(FINDING, **{name: number}))
    assert isinstance(read, Finding if fine else Rejected)


def test_an_event_nested_too_deeply_to_be_shown_is_rejected():
    event = cloudevents.encode(FINDING)
    value = event.value.replace(b'"acme"', b"[" * 1000 + b"]" * 1000)
    read = cloudevents.decode(value, event.headers)
    assert isinstance(read, Rejected)
    assert read.detail.startswith("tenant: expected str")


def test_a_key_gives_no_orders_through_the_subject_header_and_comes_back_as_it_was():
    finding = replace(FINDING, key="web\x1b[2J\u202e\n1")
    event = cloudevents.encode(finding)
    assert dict(event.headers)["ce_subject"] == b"web\\x1b[2J\\u202e\\n1"
    read = cloudevents.decode(event.value, event.headers)
    assert isinstance(read, Finding)
    assert read.key == finding.key


def test_the_asyncapi_document_knows_every_kind_state_and_reference():
    made = document("1")
    assert set(made["components"]["messages"]) == set(cloudevents.KINDS)
    for name, kind in cloudevents.KINDS.items():
        states = get_args(get_type_hints(kind)["state"]) if hasattr(kind, "state") else ()
        assert not states or set(STATES[name]) == set(states)
        types = made["components"]["messages"][name]["headers"]["properties"]["ce_type"]["enum"]
        assert types == [cloudevents.type_of(name, state) for state in STATES[name]]
        jsonschema.Draft202012Validator.check_schema(made["components"]["schemas"][name])
    assert {f"streamad.shop.{role}" for role in CHANNELS} == {
        config.topic(role)
        for config, role in [
            (PipelineConfig(name="shop"), "findings"),
            *(
                (AlertingConfig.of(PipelineConfig(name="shop")), r)
                for r in CHANNELS
                if r != "findings"
            ),
        ]
    }
    for reference in re.findall(r'"\$ref": ?"#/([^"]+)"', orjson.dumps(made).decode()):
        at: Any = made
        for part in reference.split("/"):
            at = at[part]
