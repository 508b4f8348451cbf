"""The alert stage: one life-cycle an episode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamad.alerting.config import STALE_MS
from streamad.alerts import state as alert_module
from streamad.alerts.severity import MAX_SEVERITY
from streamad.alerts.severity import severity as severity_of
from streamad.alerts.state import ERROR_QUIET_MS
from streamad.records import Finding
from tests.unit.alerts.made import HOUR, MINUTE, NOON, Stage, error, finding, states


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


@pytest.mark.parametrize(("p", "expected"), [(float("nan"), 0.0), (2.0, 0.0), (0.0, MAX_SEVERITY)])
def test_severity_of_what_is_no_probability(p: float, expected: float):
    assert severity_of(p, level=1e-4) == expected
