"""The alert stage: one life-cycle an episode, and a line one can read at 3 a.m."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from streamad.config import AlertsConfig, PipelineConfig
from streamad.operators import alert as alert_module
from streamad.operators.alert import ERROR_QUIET_MS, MAX_SEVERITY, STALE_MS, AlertOperator
from streamad.operators.alert import severity as severity_of
from streamad.records import Alert, Explanation, Finding, stable_id

NOON = 1_700_049_600_000  # 2023-11-15 12:00:00 UTC
MINUTE = 60_000


def finding(**changes: Any) -> Finding:
    """A finding at 12:00:00 of host-1/cpu, at the alerting level."""
    made = Finding(
        id="e1", sequence=0, state="began", kind="anomaly", pipeline="hosts", detector="robust_z",
        artifact="", tenant="default", group="hosts", key="host-1/cpu", entity={},
        window_start_ms=NOON - 10_000, window_end_ms=NOON, began_ms=NOON, score=9.0, p_value=1e-4,
        peak_score=9.0, peak_p_value=1e-4, level=5.0, n_windows=1,
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
    worse = finding(sequence=1, state="continues", window_end_ms=NOON + 5_000)
    (opened,) = stage.take(weak, worse)
    assert (opened.state, opened.opened_ms) == ("opened", NOON + 5_000)
    assert "since 12:00:00 UTC" in opened.summary


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
    assert "since 2023-11-15 12:00:00 UTC" in opened.summary
    (fresh,) = stage.take(finding(id="e2"), delay_ms=hour)
    assert not fresh.past


def test_a_silent_key_stands_at_the_boundary_until_it_speaks(stage: Stage):
    silent = finding(kind="no_data", p_value=0.0, peak_p_value=0.0, explanation=None)
    again = replace(
        silent, sequence=1, state="ended", window_end_ms=NOON + MINUTE, reason="data again"
    )
    opened, resolved = stage.take(silent, again)
    assert (opened.severity, opened.kind) == (1.0, "no_data")
    assert opened.summary == "host-1/cpu sends no data since 12:00:00 UTC"
    assert resolved.summary == "host-1/cpu: data again (no data from 12:00:00 to 12:01:00 UTC)"


def error(n: int, at_ms: int, key: str = "host-1/cpu") -> Finding:
    return finding(
        id=stable_id("error", key, n), kind="error", key=key, window_end_ms=NOON + at_ms,
        began_ms=NOON + at_ms, explanation=None, reason="ValueError: no\nscore", peak_p_value=0.0,
    )  # fmt: skip


def test_errors_of_a_key_share_one_alert_that_is_updated_when_due(stage: Stage):
    made = stage.take(error(0, 0), error(1, 1_000), error(2, 2_000), error(3, 61_000))
    assert states(made) == ["opened", "updated"]
    assert made[0].id == made[1].id == error(0, 0).id
    assert made[1].summary == (
        "host-1/cpu is not judged: robust_z failed on 4 windows since 12:00:00 UTC "
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
    assert opened.summary.startswith("host-1/cpu mem is 3, expected about 1; also cpu (since")


def test_an_alert_names_fallback_and_runbook():
    stage = Stage(runbook="https://example.org/cpu")
    (opened,) = stage.take(finding(degraded="robust_z judges: the artifact is missing"))
    assert opened.links == {"runbook": "https://example.org/cpu"}
    assert opened.summary == (
        "host-1/cpu is 97.2, expected about 12.4 (since 12:00:00 UTC); severity 1.0 "
        "[degraded: robust_z judges: the artifact is missing]"
    )


def test_a_lasting_new_level_is_said_to_be_adopted(stage: Stage):
    adopted = finding(
        sequence=1, state="ended", window_end_ms=NOON + MINUTE, reason="adopted as the new normal"
    )
    _, resolved = stage.take(finding(), adopted)
    assert "adopted as the new normal (strange from 12:00:00 to 12:01:00 UTC)" in resolved.summary


@pytest.mark.parametrize(("p", "expected"), [(float("nan"), 0.0), (2.0, 0.0), (0.0, MAX_SEVERITY)])
def test_severity_of_what_is_no_probability(p: float, expected: float):
    assert severity_of(p, level=1e-4) == expected
