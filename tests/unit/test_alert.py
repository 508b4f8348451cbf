"""The alert stage: one life-cycle an episode, and a line one can read at 3 a.m."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from streamad.alerting.config import STALE_MS
from streamad.alerts import state as alert_module
from streamad.alerts.operator import AlertOperator
from streamad.alerts.severity import MAX_SEVERITY
from streamad.alerts.severity import severity as severity_of
from streamad.alerts.state import ERROR_QUIET_MS
from streamad.config import PipelineConfig
from streamad.config.decisions import AlertsConfig
from streamad.errors import StateError
from streamad.records import Alert, Explanation, Finding, stable_id
from streamad.wording import ADOPTED, flapping

NOON = 1_700_049_600_000  # 2023-11-15 12:00:00 UTC
MINUTE = 60_000
HOUR = 60 * MINUTE


def finding(**changes: Any) -> Finding:
    """A finding at 12:00:00 of host-1/cpu, at the alerting level."""
    made = Finding(
        id="e1", sequence=0, state="began", kind="anomaly", pipeline="hosts", detector="robust_z",
        artifact="", tenant="default", group="hosts", key="host-1/cpu", entity={},
        window_start_ms=NOON - 10_000, window_end_ms=NOON, began_ms=NOON, until_ms=NOON,
        score=9.0, p_value=1e-4, peak_score=9.0, peak_p_value=1e-4, level=5.0, n_windows=1,
        explanation=Explanation(
            observed={"value": 97.21}, expected={"value": 12.4}, variates={"value": 1}, time_ms=NOON
        ),
        input={"topic": "m", "partition": 0, "offset": 7},
    )  # fmt: skip
    return replace(made, **changes)


class Stage:
    """The operator with its state; findings are written to the log when their window ends."""

    def __init__(self, **alerts: Any) -> None:
        settings = AlertsConfig.model_validate(alerts)
        self.operator = AlertOperator(PipelineConfig(name="hosts", alerts=settings))
        self.state = self.operator.new_state()

    def take(self, *findings: Finding, delay_ms: int = 0) -> list[Alert]:
        pairs = [(f, f.window_end_ms + delay_ms) for f in findings]
        return self.operator.process(self.state, pairs)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def states(alerts: list[Alert]) -> list[str]:
    return [alert.state for alert in alerts]


def test_an_episode_at_the_level_is_opened_and_resolved_under_the_findings_id(stage: Stage):
    ended = finding(sequence=1, state="ended", window_end_ms=NOON + MINUTE, p_value=0.4)
    opened, resolved = stage.take(finding(), ended)
    assert (opened.id, opened.state, opened.sequence, opened.severity) == ("e1", "opened", 0, 1.0)
    assert (resolved.id, resolved.state, resolved.sequence) == ("e1", "resolved", 1)
    assert (opened.opened_ms, resolved.resolved_ms) == (NOON, NOON + MINUTE)
    assert len(stage.state) == 0


def test_an_episode_below_the_level_makes_no_alert(stage: Stage):
    weak = finding(peak_p_value=1.01e-4)
    assert stage.take(weak, replace(weak, sequence=1, state="ended")) == []


def test_an_episode_that_grows_worse_opens_when_it_reaches_the_level(stage: Stage):
    weak = finding(peak_p_value=1e-3)
    worse = finding(
        sequence=1, state="continues", window_end_ms=NOON + 5_000, until_ms=NOON + 5_000
    )
    (opened,) = stage.take(weak, worse)
    assert (opened.state, opened.opened_ms) == ("opened", NOON + 5_000)
    assert "since 12:00 UTC" in opened.summary


def test_an_episode_already_over_opens_nothing(stage: Stage):
    assert stage.take(finding(state="ended", sequence=3)) == []


def test_an_alert_is_updated_when_it_is_due_and_not_before(stage: Stage):
    def later(n: int, at_ms: int) -> Finding:
        return finding(sequence=n, state="continues", window_end_ms=NOON + at_ms)

    made = stage.take(finding(), later(1, 59_999), later(2, 60_000), later(3, 61_000))
    assert states(made) == ["opened", "updated"]
    assert made[1].window_end_ms == NOON + 60_000


def test_an_alert_is_updated_at_once_when_it_is_noticeably_worse(stage: Stage):
    def worse(n: int, p: float) -> Finding:
        return finding(sequence=n, state="continues", window_end_ms=NOON + n, peak_p_value=p)

    made = stage.take(finding(), worse(1, 2e-5), worse(2, 1e-5), worse(3, 9e-6), worse(4, 1e-8))
    assert [round(alert.severity, 2) for alert in made] == [1.0, 1.25, 2.0]


def test_the_peak_severity_never_falls(stage: Stage):
    strong = finding(peak_p_value=1e-8)
    # A refit of the key's tail may call the same score less rare.
    calmer = finding(sequence=1, state="ended", window_end_ms=NOON + 1, peak_p_value=1e-6)
    _, resolved = stage.take(strong, calmer)
    assert (resolved.severity, resolved.peak_severity) == (pytest.approx(1.5), pytest.approx(2.0))


def test_findings_delivered_twice_change_nothing(stage: Stage):
    life = [
        finding(),
        finding(sequence=1, state="continues", window_end_ms=NOON + MINUTE),
        finding(sequence=2, state="ended", window_end_ms=NOON + 2 * MINUTE),
    ]
    assert states(stage.take(*life)) == ["opened", "updated", "resolved"]
    assert stage.take(*life) == []


def test_old_findings_make_past_alerts_and_stay_past(stage: Stage):
    hour = 3_600_000
    (opened,) = stage.take(finding(), delay_ms=hour + 1)
    ended = finding(sequence=1, state="ended", window_end_ms=NOON + MINUTE)
    (resolved,) = stage.take(ended, delay_ms=0)
    assert opened.past
    assert resolved.past
    assert opened.summary == (
        "host-1/cpu was 97.2, expected about 12.4, from 15 November 2023 12:00 UTC; severity 1.0 "
        "[past: found long after it happened]"
    )
    (fresh,) = stage.take(finding(id="e2"), delay_ms=hour)
    assert not fresh.past


def test_a_silent_key_stands_at_the_boundary_until_it_speaks(stage: Stage):
    silent = finding(kind="no_data", p_value=0.0, peak_p_value=0.0, explanation=None)
    again = replace(
        silent, sequence=1, state="ended", window_end_ms=NOON + MINUTE, until_ms=NOON + MINUTE,
        reason="data again",
    )  # fmt: skip
    opened, resolved = stage.take(silent, again)
    assert (opened.severity, opened.kind) == (1.0, "no_data")
    assert opened.summary == "host-1/cpu has sent no data since 12:00 UTC"
    assert resolved.summary == (
        "host-1/cpu is sending data again after 1 min without (12:00 to 12:01 UTC, 15 November)"
    )


def test_a_silent_key_that_is_forgotten_does_not_send_again(stage: Stage):
    silent = finding(kind="no_data", p_value=0.0, peak_p_value=0.0, explanation=None)
    gone = replace(
        silent, sequence=1, state="ended", window_end_ms=NOON + 26 * HOUR,
        until_ms=NOON + 26 * HOUR, reason="forgotten after series.ttl",
    )  # fmt: skip
    _, resolved = stage.take(silent, gone)
    assert resolved.summary == (
        "host-1/cpu sent no data for 1 d 2 h (15 November 12:00 to 16 November 14:00 UTC); "
        "forgotten after series.ttl"
    )


def error(n: int, at_ms: int, key: str = "host-1/cpu") -> Finding:
    return finding(
        id=stable_id("error", key, n), kind="error", key=key, window_end_ms=NOON + at_ms,
        began_ms=NOON + at_ms, until_ms=NOON + at_ms, explanation=None,
        reason="ValueError: no\nscore", peak_p_value=0.0,
    )  # fmt: skip


def test_errors_of_a_key_share_one_alert_that_is_updated_when_due(stage: Stage):
    made = stage.take(error(0, 0), error(1, 1_000), error(2, 2_000), error(3, 61_000))
    assert states(made) == ["opened", "updated"]
    assert made[0].id == made[1].id == error(0, 0).id
    assert made[1].summary == (
        "detector failing on host-1/cpu: robust_z failed on 4 windows since 12:00 UTC "
        "(ValueError: no score)"
    )
    assert stage.state.counts["findings_error_began"] == 4


def test_errors_of_other_keys_have_alerts_of_their_own(stage: Stage):
    assert states(stage.take(error(0, 0), error(0, 0, key="host-2/cpu"))) == ["opened", "opened"]


def test_an_error_alert_resolves_once_no_error_came_for_a_while(stage: Stage):
    (opened,) = stage.take(error(0, 0))
    resolved, other = stage.take(finding(id="e2", window_end_ms=NOON + ERROR_QUIET_MS))
    assert (resolved.id, resolved.state) == (opened.id, "resolved")
    assert other.state == "opened"
    assert resolved.summary == (
        "scoring resumed on host-1/cpu: robust_z had failed on 1 window "
        "(no error since 2023-11-15 12:00:00 UTC)"
    )


def test_an_error_that_is_reported_as_ended_resolves_its_alert(stage: Stage):
    ended = replace(error(2, 120_000), state="ended")
    *_, resolved = stage.take(error(0, 0), error(1, 60_000), ended)
    assert (resolved.state, resolved.began_ms, resolved.until_ms) == (
        "resolved", NOON, NOON + 2 * MINUTE,
    )  # fmt: skip
    assert resolved.summary == (
        "scoring resumed on host-1/cpu: robust_z had failed on 2 windows "
        "(12:00 to 12:02 UTC, 15 November)"
    )


def test_an_alert_whose_end_never_comes_is_given_up(stage: Stage):
    stage.take(finding())
    assert stage.operator.tick(stage.state, NOON + STALE_MS - 1) == []
    (resolved,) = stage.operator.tick(stage.state, NOON + STALE_MS)
    assert (resolved.state, resolved.reason) == (
        "resolved",
        "no finding since 2023-11-15 12:00:00 UTC",
    )


def test_both_tables_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alert_module, "MAX_OPEN", 3)
    monkeypatch.setattr(alert_module, "MAX_CLOSED", 2)
    for n in range(10):
        stage.take(finding(id=f"e{n}"))
    assert len(stage.state) <= 4
    stage.state.drain_changes()
    stage.take(finding(id="e10"))
    assert list(stage.state.drain_changes().values()).count(None) == 1


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


def test_what_is_not_finite_never_reaches_an_alert(stage: Stage):
    why = Explanation(
        observed={"cpu": float("nan"), "mem": 3.0},
        expected={"cpu": 1.0, "mem": 1.0},
        variates={"cpu": 0.9, "mem": 0.1},
        time_ms=NOON,
    )
    (opened,) = stage.take(finding(explanation=why))
    assert opened.observed == {"mem": 3.0}
    assert opened.summary.startswith(
        "host-1/cpu mem is 3, expected about 1 (also cpu), since 12:00 UTC"
    )


def test_an_alert_names_fallback_and_runbook():
    stage = Stage(runbook="https://example.org/cpu")
    (opened,) = stage.take(finding(degraded="robust_z judges: the artifact is missing"))
    assert opened.links == {"runbook": "https://example.org/cpu"}
    assert opened.summary == (
        "host-1/cpu is 97.2, expected about 12.4, since 12:00 UTC; severity 1.0 "
        "[degraded: robust_z judges: the artifact is missing]"
    )


def shown(observed: float, at_ms: int = NOON, expected: float = 12.4) -> Explanation:
    return Explanation(
        observed={"value": observed}, expected={"value": expected}, variates={"value": 1.0},
        time_ms=at_ms,
    )  # fmt: skip


def later(n: int, at_ms: int, *, until_ms: int, **changes: Any) -> Finding:
    """Finding ``n`` of the episode, on the window that ends ``at_ms`` after noon."""
    changes.setdefault("state", "continues")
    return finding(sequence=n, window_end_ms=NOON + at_ms, until_ms=NOON + until_ms, **changes)


def test_a_lasting_new_level_is_reported_as_adopted(stage: Stage):
    adopted = later(
        1, 3 * HOUR, until_ms=3 * HOUR, state="ended", reason=ADOPTED, explanation=shown(70.2)
    )
    _, resolved = stage.take(finding(), adopted)
    assert resolved.summary == (
        "host-1/cpu: new level about 70.2 adopted as normal after 3 h "
        "(12:00 to 15:00 UTC, 15 November); peak severity 1.0"
    )


# ---------------------------------------------------------------------- the event, not the window


def test_a_resolved_alert_names_the_worst_values_of_the_event(stage: Stage):
    worse = later(
        1, 5 * MINUTE, until_ms=5 * MINUTE, p_value=1e-8, peak_p_value=1e-8,
        explanation=shown(150.0, NOON + 5 * MINUTE),
    )  # fmt: skip
    calmer = later(2, 8 * MINUTE, until_ms=8 * MINUTE, p_value=1e-3, explanation=shown(40.0))
    ended = later(
        3, 17 * MINUTE, until_ms=12 * MINUTE, state="ended", p_value=0.4, explanation=shown(12.6)
    )
    *_, updated, resolved = stage.take(finding(), worse, calmer, ended)
    assert updated.observed == {"value": 40.0}
    assert (resolved.observed, resolved.expected) == ({"value": 150.0}, {"value": 12.4})
    assert (resolved.began_ms, resolved.until_ms) == (NOON, NOON + 12 * MINUTE)
    assert resolved.resolved_ms == NOON + 17 * MINUTE
    assert resolved.summary == (
        "host-1/cpu is back to normal after 12 min (12:00 to 12:12 UTC, 15 November): "
        "was 150, expected about 12.4; peak severity 2.0"
    )


def test_an_outage_found_after_its_end_is_told_as_one(stage: Stage):
    size = {"window_start_ms": NOON - 6 * HOUR, "window_end_ms": NOON + 3 * HOUR}
    outage = {"began_ms": NOON, "until_ms": NOON + 2 * HOUR}
    opened, resolved = stage.take(
        finding(explanation=shown(15, NOON + HOUR, expected=115), **size, **outage),
        finding(
            sequence=1, state="ended", p_value=0.6, explanation=shown(112, expected=42.7),
            window_start_ms=NOON - 5 * HOUR, window_end_ms=NOON + 4 * HOUR, **outage,
        ),
    )  # fmt: skip
    assert opened.summary == (
        "host-1/cpu was 15, expected about 115, 12:00 to 14:00 UTC; severity 1.0"
    )
    assert resolved.summary == (
        "host-1/cpu is back to normal after 2 h (12:00 to 14:00 UTC, 15 November): "
        "was 15, expected about 115; peak severity 1.0"
    )


def test_a_score_that_trails_does_not_end_the_event_early(stage: Stage):
    # The judged sample lies in the middle of the window; nothing is known of those after it.
    middle = NOON - 30 * MINUTE
    alert = stage.take(
        finding(
            window_start_ms=NOON - HOUR, began_ms=middle - 20 * MINUTE, until_ms=middle,
            explanation=shown(97.2, middle),
        )
    )[0]  # fmt: skip
    assert alert.summary == (
        "host-1/cpu is 97.2, expected about 12.4, since 11:10 UTC; severity 1.0"
    )


def test_a_single_sample_has_one_time(stage: Stage):
    spike = {"began_ms": NOON, "until_ms": NOON, "window_start_ms": NOON - HOUR}
    opened, resolved = stage.take(
        finding(window_end_ms=NOON + 30 * MINUTE, **spike),
        finding(sequence=1, state="ended", window_end_ms=NOON + HOUR, explanation=None, **spike),
    )
    assert opened.summary == (
        "host-1/cpu was 97.2, expected about 12.4, at 12:00 UTC; severity 1.0"
    )
    assert resolved.summary == (
        "host-1/cpu is back to normal: was 97.2, expected about 12.4, at 12:00 UTC, 15 November; "
        "peak severity 1.0"
    )


def test_an_update_on_an_ordinary_window_speaks_of_the_event(stage: Stage):
    pause = later(1, 2 * MINUTE, until_ms=MINUTE, p_value=0.5, calm=True, explanation=shown(12.5))
    _, updated = stage.take(finding(), pause)
    assert updated.observed == {"value": 97.21}
    assert updated.summary == (
        "host-1/cpu was 97.2, expected about 12.4, 12:00 to 12:01 UTC; severity 1.0"
    )


def test_dates_are_given_where_a_span_crosses_midnight(stage: Stage):
    late = NOON + 11 * HOUR + 50 * MINUTE
    opened, updated, resolved = stage.take(
        finding(began_ms=late, until_ms=late, window_end_ms=late),
        finding(
            sequence=1, state="continues", began_ms=late, until_ms=late + 15 * MINUTE,
            window_end_ms=late + 15 * MINUTE,
        ),
        finding(
            sequence=2, state="ended", began_ms=late, until_ms=late + 30 * MINUTE,
            window_end_ms=late + 30 * MINUTE,
        ),
    )  # fmt: skip
    assert "since 23:50 UTC;" in opened.summary
    assert "since 15 November 23:50 UTC;" in updated.summary
    assert "after 30 min (15 November 23:50 to 16 November 00:20 UTC):" in resolved.summary


def test_a_reason_of_a_finding_is_added_as_it_stands(stage: Stage):
    opened, resolved = stage.take(
        finding(reason=flapping(5, HOUR)),
        later(1, 12 * MINUTE, until_ms=MINUTE, state="ended", explanation=None, reason="forgotten"),
    )
    assert opened.summary.endswith("; severity 1.0; began 5 times in 1 h")
    assert resolved.summary == (
        "host-1/cpu was 97.2, expected about 12.4, 12:00 to 12:01 UTC, 15 November; forgotten; "
        "peak severity 1.0"
    )


def test_an_event_whose_values_are_not_known_is_anomalous(stage: Stage):
    opened, resolved = stage.take(
        finding(explanation=None),
        later(1, 12 * MINUTE, until_ms=5 * MINUTE, state="ended", explanation=None),
    )
    assert opened.summary == "host-1/cpu has been anomalous since 12:00 UTC; severity 1.0"
    assert resolved.summary == (
        "host-1/cpu is back to normal after 5 min (12:00 to 12:05 UTC, 15 November); "
        "peak severity 1.0"
    )


def test_several_variates_are_named():
    stage = Stage()
    why = Explanation(
        observed={"cpu": 1.0, "mem": 3.0}, expected={"cpu": 1.0, "mem": 1.0},
        variates={"cpu": 0.1, "mem": 0.9}, time_ms=NOON,
    )  # fmt: skip
    opened, resolved = stage.take(
        finding(key="host-1", explanation=why),
        later(1, 12 * MINUTE, until_ms=5 * MINUTE, key="host-1", state="ended", explanation=None),
    )
    assert opened.summary == "host-1 mem is 3, expected about 1, since 12:00 UTC; severity 1.0"
    assert "(12:00 to 12:05 UTC, 15 November): mem was 3, expected about 1;" in resolved.summary


# ---------------------------------------------------------------------- records of other versions

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


@pytest.mark.parametrize(("p", "expected"), [(float("nan"), 0.0), (2.0, 0.0), (0.0, MAX_SEVERITY)])
def test_severity_of_what_is_no_probability(p: float, expected: float):
    assert severity_of(p, level=1e-4) == expected


# ---------------------------------------------------------------------- floods


def episode(n: int, *, key: str = "host-1/cpu", at_ms: int = 0, **changes: Any) -> list[Finding]:
    """Episode ``n``, which begins and ends a minute later."""
    began = finding(id=f"{key}-{n}", key=key, window_end_ms=NOON + at_ms, **changes)
    ended = replace(began, sequence=1, state="ended", window_end_ms=NOON + at_ms + MINUTE)
    return [began, ended]


def flooded(stage: Stage, log: list[Finding], at_ms: int = 0) -> list[Alert]:
    """All of ``log`` written at one time, as after a message with many rows."""
    return stage.operator.process(stage.state, [(one, NOON + at_ms) for one in log])


def test_a_flood_of_a_key_is_bounded_counted_and_reported():
    stage = Stage(limit={"per_key": 3})
    log = [one for n in range(1000) for one in episode(n, at_ms=n * HOUR)]
    made = flooded(stage, log)
    assert sum(a.state == "opened" and a.kind == "anomaly" for a in made) == 3
    (flood,) = [a for a in made if a.kind == "flood"]
    assert flood.state == "opened"
    assert flood.severity == 1.0
    assert stage.state.counts["alerts_withheld"] == 997
    assert flooded(stage, log) == []
    # The number comes with the next alert that is not sent, once an update is due, and at the end.
    (updated,) = flooded(stage, episode(1000), at_ms=2 * MINUTE)
    assert updated.summary == (
        "too many alerts of hosts: 998 were not sent since 12:00 UTC; the last one on host-1/cpu; "
        "alerts.limit allows 3 per key and 100 per group in 1h"
    )
    (resolved,) = stage.operator.tick(stage.state, NOON + 62 * MINUTE)
    assert (resolved.id, resolved.state) == (flood.id, "resolved")
    assert resolved.summary.startswith("too many alerts of hosts: 998 were not sent (none since")
    assert states(flooded(stage, episode(1001), at_ms=63 * MINUTE)) == ["opened", "resolved"]


def test_a_flood_of_many_keys_is_bounded_by_its_group():
    stage = Stage(limit={"per_group": 5})
    log = [episode(0, key=f"host-{n}/cpu")[0] for n in range(50)]
    other = episode(0, key="db-1/cpu", group="other")[0]
    made = flooded(stage, [*log, other])
    assert (
        sum(a.state == "opened" and a.kind == "anomaly" and a.group == "hosts" for a in made) == 5
    )
    assert [a.id for a in made if a.group == "other"] == [other.id]


def test_an_alert_that_was_not_sent_opens_later_if_its_episode_lasts():
    stage = Stage(limit={"per_key": 1})
    flooded(stage, episode(0))
    late = finding(id="e2", began_ms=NOON)
    assert [a.kind for a in flooded(stage, [late])] == ["flood"]
    lasting = replace(late, sequence=1, state="continues", window_end_ms=NOON + HOUR)
    made = flooded(stage, [lasting], at_ms=HOUR)
    assert [(a.id, a.state) for a in made if a.kind == "anomaly"] == [("e2", "opened")]


def test_errors_and_silence_are_limited_and_quarantine_is_not():
    stage = Stage(limit={"per_group": 1})
    made = stage.take(error(0, 0), error(0, 0, key="b"), error(1, 1, key="b"))
    assert [a.kind for a in made] == ["error", "flood"]
    assert stage.state.counts["alerts_withheld"] == 1
    (kept,) = stage.take(finding(id="q", kind="quarantine", explanation=None))
    assert kept.kind == "quarantine"


def test_limits_survive_a_restart():
    stage, again = Stage(limit={"per_key": 2}), Stage(limit={"per_key": 2})
    log = [one for n in range(5) for one in episode(n)]
    whole = flooded(stage, log)
    first = flooded(again, log[:5])
    topic = json.loads(json.dumps(again.state.drain_changes()))
    later_stage = Stage(limit={"per_key": 2})
    later_stage.state.load(topic)
    assert first + flooded(later_stage, log[5:]) == whole
