"""Laws of decoding: round trips, damage is never an exception, good neighbours always survive."""

from __future__ import annotations

import math

import numpy as np
import orjson
import polars as pl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.fields import END_OF_TIME_MS, END_S, FIRST_S, numbers_to_ms, texts_to_ms
from connectors.codecs.rows import REASONS
from connectors.records import cloudevents, scores_log
from streamad.records import (
    MAX_ABS_VALUE,
    Alert,
    Decoded,
    Explanation,
    Finding,
    Rejected,
    ScoreBatch,
)

# CI shares its two cores: the first draw of texts alone may take seconds there.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

# Lone surrogates are no text in JSON, and NUL stays a character like any other.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
# Between are the seconds of these years, which are no milliseconds.
times = st.integers(0, FIRST_S - 1) | st.integers(END_S, END_OF_TIME_MS - 1)
numbers = st.floats(-MAX_ABS_VALUE, MAX_ABS_VALUE, allow_nan=False)
points = st.tuples(texts, times, numbers)
batches = st.lists(points, min_size=1, max_size=12)


def decode(payloads: list[bytes | None]) -> Decoded:
    number = len(payloads)
    return make_codec("json", FieldMap()).decode(payloads, np.arange(number), np.full(number, -1))


def record(point: tuple[str, int, float]) -> dict[str, object]:
    return dict(zip(("key", "ts", "value"), point, strict=True))


def found(decoded: Decoded) -> list[tuple[str, int, float]]:
    batch = decoded.batch
    return list(zip(batch.keys, batch.time_ms.tolist(), batch.values[:, 0].tolist(), strict=True))


@patient
@given(batches, st.sampled_from(["lines", "array", "columns", "single"]))
def test_points_come_back_as_they_were_in_every_shape(rows, shape: str):
    records = [record(row) for row in rows]
    if shape == "lines":
        payloads = [b"\n".join(map(orjson.dumps, records))]
    elif shape == "array":
        payloads = [orjson.dumps(records)]
    elif shape == "columns":
        payloads = [orjson.dumps({name: [r[name] for r in records] for name in records[0]})]
    else:
        payloads = list(map(orjson.dumps, records))
    decoded = decode(payloads)
    assert decoded.rejected == []
    assert found(decoded) == rows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
odd_records = st.fixed_dictionaries(
    {}, optional={"key": json_values, "ts": json_values, "value": json_values, "x": json_values}
)


def as_json(value: object) -> bytes:
    # Python's own writer: it also makes NaN, big integers and half surrogate pairs.
    import json

    return json.dumps(value).encode()


payload_lists = st.lists(
    st.one_of(
        st.none(),
        st.binary(max_size=40),
        points.map(record).map(orjson.dumps),
        odd_records.map(as_json),
        st.lists(odd_records, max_size=3).map(as_json),
        st.lists(points.map(record).map(orjson.dumps), max_size=3).map(b"\n".join),
    ),
    max_size=8,
)


@settings(patient, max_examples=150)
@given(payload_lists)
def test_what_a_message_yields_depends_on_that_message_alone(payloads):
    together = decode(payloads)
    rows, rejected = [], []
    for index, payload in enumerate(payloads):
        alone = decode([payload])
        rows += found(alone)
        rejected += [(index, r.row, r.reason, r.detail, r.payload) for r in alone.rejected]
        assert {r.reason for r in alone.rejected} <= set(REASONS)
    assert found(together) == rows
    assert [
        (r.message, r.row, r.reason, r.detail, r.payload) for r in together.rejected
    ] == rejected


@settings(patient, max_examples=60)
@given(batches, st.data())
def test_a_damaged_message_takes_no_neighbour_with_it(rows, data):
    messages = [orjson.dumps(record(row)) for row in rows]
    victim = data.draw(st.integers(0, len(messages) - 1))
    damaged = bytearray(messages[victim])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    payloads: list[bytes | None] = [*messages]
    payloads[victim] = bytes(damaged)
    decoded = decode(payloads)
    others = decoded.batch.message != victim
    batch = decoded.batch
    assert batch.keys.filter(pl.Series(others)).to_list() == [
        row[0] for index, row in enumerate(rows) if index != victim
    ]


@patient
@given(times, st.sampled_from([("s", 1e-3), ("us", 1_000), ("ns", 1_000_000)]))
def test_times_are_the_same_in_every_unit(time_ms: int, unit):
    name, factor = unit
    # Before, a number may as well be a time of these years in a coarser unit.
    assume(time_ms >= END_S)
    assert numbers_to_ms(np.array([time_ms * factor]), name).tolist() == [time_ms]


@patient
@given(times)
def test_times_survive_rfc_3339(time_ms: int):
    assert texts_to_ms(pl.Series([cloudevents.rfc3339(time_ms)])).tolist() == [time_ms]


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
whole = st.integers(0, 2**53)
tables = st.dictionaries(names, st.floats(allow_infinity=False), max_size=3)
entities = st.dictionaries(names, names, max_size=3)
explanations = st.builds(
    Explanation, observed=tables, expected=tables, variates=tables, time_ms=times, text=names
)
windows = {"window_start_ms": times, "window_end_ms": times}
floats = st.floats(allow_infinity=False)
findings = st.builds(
    Finding,
    id=names,
    sequence=whole,
    state=st.sampled_from(["began", "continues", "ended"]),
    kind=st.sampled_from(["anomaly", "no_data", "error"]),
    pipeline=names,
    detector=names,
    artifact=names,
    tenant=names,
    group=names,
    key=names,
    entity=entities,
    began_ms=times,
    until_ms=times,
    score=floats,
    p_value=floats,
    peak_score=floats,
    peak_p_value=floats,
    level=floats,
    n_windows=whole,
    explanation=st.none() | explanations,
    input=st.dictionaries(names, whole | names, max_size=3),
    degraded=names,
    reason=names,
    **windows,
)
alerts = st.builds(
    Alert,
    id=names,
    sequence=whole,
    state=st.sampled_from(["opened", "updated", "resolved"]),
    kind=st.sampled_from(["anomaly", "no_data", "error"]),
    pipeline=names,
    detector=names,
    artifact=names,
    tenant=names,
    group=names,
    key=names,
    entity=entities,
    opened_ms=times,
    began_ms=times,
    until_ms=times,
    time_ms=times,
    resolved_ms=st.none() | times,
    score=floats,
    p_value=floats,
    severity=floats,
    peak_severity=floats,
    threshold_p=floats,
    observed=tables,
    expected=tables,
    explanation=tables,
    summary=names,
    past=st.booleans(),
    links=entities,
    **windows,
)


@patient
@given(findings | alerts)
def test_findings_and_alerts_survive_as_cloud_events(given_record):
    event = cloudevents.encode(given_record)
    back = cloudevents.decode(event.value, event.headers)
    assert type(back) is type(given_record)
    assert repr(back) == repr(given_record)  # NaN is unlike itself, its text is not
    assert b"NaN" not in event.value or "NaN" in repr(given_record)


@patient
@given(findings, st.data())
def test_a_damaged_event_is_a_rejection_or_another_event(finding, data):
    event = cloudevents.encode(finding)
    damaged = bytearray(event.value)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(cloudevents.decode(bytes(damaged), event.headers), (Finding, Rejected))


ORIGIN = scores_log.ScoresOrigin(
    pipeline="p", detector="d", artifact="", topic="t", partition=3, first_offset=5, next_offset=9
)


@patient
@given(st.lists(st.tuples(texts, times, st.floats(width=32), st.integers(0, 255)), max_size=20))
def test_scores_survive_the_log(rows):
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    score = np.array(columns[2], np.float32)
    scores = ScoreBatch(
        keys=pl.Series("key", columns[0], dtype=pl.String),
        end_ms=np.array(columns[1], np.int64),
        ordinal=np.arange(len(rows), dtype=np.int64),
        score=score,
        p_value=score[::-1].copy(),
        level=score / np.float32(2),
        newest=score * np.float32(0.25),
        newest_p=np.full(len(rows), np.nan, np.float32),
        newest_level=score[::-1] / np.float32(2),
        severity=np.abs(score),
        flags=np.array(columns[3], np.uint8),
    )
    (message,) = scores_log.encode(scores, ORIGIN)
    back = scores_log.decode(message)
    assert not isinstance(back, Rejected)
    origin, found_scores = back
    assert origin == ORIGIN
    assert found_scores.keys.to_list() == scores.keys.to_list()
    assert found_scores.certainty is None
    for name in ScoreBatch.__dataclass_fields__.keys() - {"keys", "certainty"}:
        np.testing.assert_array_equal(getattr(found_scores, name), getattr(scores, name))
        assert getattr(found_scores, name).dtype == getattr(scores, name).dtype


@patient
@given(st.binary(max_size=60), st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8))))
def test_no_bytes_raise_in_events_or_in_the_scores_log(value, headers):
    assert isinstance(cloudevents.decode(value, headers), Rejected)
    assert isinstance(scores_log.decode(value), Rejected)


@patient
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_values_are_rejected_by_size_and_nothing_else(value: float):
    decoded = decode([orjson.dumps({"key": "a", "ts": 1, "value": value})])
    if abs(value) <= MAX_ABS_VALUE:
        assert found(decoded) == [("a", 1, value)]
        assert math.copysign(1, decoded.batch.values[0, 0]) == math.copysign(1, value)
    else:
        assert [r.reason for r in decoded.rejected] == ["too_large_value"]
