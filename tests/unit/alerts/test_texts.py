"""The line of an alert that one can read at 3 a.m."""

from __future__ import annotations

from streamad.records import Explanation
from streamad.wording import ADOPTED, flapping
from tests.unit.alerts.made import HOUR, MINUTE, NOON, Stage, finding, later, shown


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
