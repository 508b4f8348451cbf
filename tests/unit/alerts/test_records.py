"""What the alert stage writes down, and what it makes of it when it is back."""

from __future__ import annotations

import json
import re

import pytest

from streamad.errors import StateError
from tests.unit.alerts.made import MINUTE, NOON, Stage, error, finding, later, shown


def test_a_state_written_to_a_compacted_topic_goes_on_where_it_was(stage: Stage):
    closed = finding(id="e2", sequence=1, state="ended")
    stage.take(finding(), finding(id="e2"), closed, error(0, 0))
    topic = json.loads(json.dumps(stage.state.drain_changes()))
    assert stage.state.drain_changes() == {}
    later = Stage()
    later.state.load(topic)
    rest = [
        finding(id="e2"),
        error(1, 500),
        finding(sequence=1, state="continues", window_end_ms=NOON + MINUTE),
        finding(sequence=2, state="ended", window_end_ms=NOON + 2 * MINUTE),
    ]
    assert later.take(*rest) == stage.take(*rest)
    assert later.state.drain_changes() == stage.state.drain_changes()


# What the alert stage wrote before records had a version; never edit it.
VERSION_1 = """{"e1": {"last": {"id": "e1", "sequence": 0, "state": "opened", "kind": "anomaly",
"pipeline": "hosts", "detector": "robust_z", "artifact": "", "tenant": "default", "group": "hosts",
"key": "host-1/cpu", "entity": {}, "opened_ms": 1700049600000, "time_ms": 1700049600000,
"resolved_ms": null, "window_start_ms": 1700049590000, "window_end_ms": 1700049600000,
"score": 9.0, "p_value": 0.0001, "severity": 1.0, "peak_severity": 1.0, "threshold_p": 0.0001,
"observed": {"value": 97.21}, "expected": {"value": 12.4}, "explanation": {"value": 1},
"summary": "host-1/cpu is 97.2, expected about 12.4 (since 12:00:00 UTC); severity 1.0",
"past": false, "degraded": "", "reason": "", "links": {}}, "sequence": 0,
"began_ms": 1700049600000, "peak": 1.0, "reported_peak": 1.0, "reported_ms": 1700049600000,
"touched_ms": 1700049600000, "n_errors": 0}, "e2": {"closed": true, "touched_ms": 1700049600000},
"791a25886374a2fb26ad1a24e00aabb7": {"last": {"id": "791a25886374a2fb26ad1a24e00aabb7",
"sequence": 0, "state": "opened", "kind": "error", "pipeline": "hosts", "detector": "robust_z",
"artifact": "", "tenant": "default", "group": "hosts", "key": "host-1/cpu", "entity": {},
"opened_ms": 1700049600000, "time_ms": 1700049600000, "resolved_ms": null,
"window_start_ms": 1700049590000, "window_end_ms": 1700049600000, "score": 9.0, "p_value": 0.0001,
"severity": 1.0, "peak_severity": 1.0, "threshold_p": 0.0001, "observed": {}, "expected": {},
"explanation": {}, "summary": "host-1/cpu is not judged", "past": false, "degraded": "",
"reason": "ValueError: no score", "links": {}}, "sequence": 1700049600000,
"began_ms": 1700049600000, "peak": 1.0, "reported_peak": 1.0, "reported_ms": 1700049600000,
"touched_ms": 1700049600000, "n_errors": 1}}"""


def test_records_without_a_version_still_load(stage: Stage):
    records = json.loads(VERSION_1)
    stage.state.load(records)
    assert {alert.id for alert in stage.state.open_alerts} == records.keys() - {"e2"}
    assert stage.state.is_closed("e2")
    ended = later(1, 7 * MINUTE, until_ms=2 * MINUTE, state="ended", explanation=shown(12.5))
    (resolved,) = stage.take(ended)
    assert (resolved.id, resolved.sequence, resolved.began_ms) == ("e1", 1, NOON)
    assert resolved.observed == {"value": 97.21}
    assert stage.take(error(1, 8 * MINUTE))[0].id == error(0, 0).id


def test_records_may_hold_fields_this_version_does_not_know(stage: Stage):
    stage.take(finding())
    records = json.loads(json.dumps(stage.state.drain_changes()))
    record = records["e1"]
    record["colour"] = record["last"]["colour"] = record["strongest"]["colour"] = "red"
    del record["n_errors"], record["until_ms"], record["last"]["until_ms"], record["strength"]
    later_stage = Stage()
    later_stage.state.load(records)
    assert later_stage.state.open_alerts == stage.state.open_alerts


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"last": {}}, "missing"),
        ({"last": None}, "TypeError"),
        ({"strongest": {"observed": {}}}, "missing"),
        ({"touched_ms": None}, "touched_ms is None"),
        ({"touched_ms": 2**62}, "touched_ms is 4611"),
        ({"began_ms": 1e300}, "began_ms is 1e+300"),
        ({"peak": "x"}, "peak is 'x'"),
        ({"sequence": 2**64}, "sequence is 18446744073709551616"),
        ({"closed": True, "touched_ms": "1"}, "touched_ms is '1'"),
    ],
)
def test_a_record_that_is_not_readable_is_left_out(stage: Stage, change: dict, text: str):
    stage.take(finding())
    record = stage.state.drain_changes()["e1"] or {}
    later = Stage()
    whole = {**record, "last": {**record["last"], "id": "e2"}}
    damaged = later.state.load({"e1": {**record, **change}, "e2": whole, "e3": record})
    assert list(damaged) == ["e1", "e3"]
    assert text in damaged["e1"]
    assert "it is of alert 'e1'" in damaged["e3"]
    assert len(later.state) == 1
    assert later.state.clock_ms == record["touched_ms"]


def test_a_record_of_a_newer_version_says_what_to_do(stage: Stage):
    stage.take(finding())
    record = stage.state.drain_changes()["e1"] or {}
    text = "format 4, and this streamad reads up to 3"
    with pytest.raises(StateError, match=re.escape(text)) as refused:
        Stage().state.load({"e1": {**record, "version": 4}})
    assert "delete the pipeline's alert-state topic" in str(refused.value)
