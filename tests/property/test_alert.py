"""Laws of the alert stage: one life-cycle an id, whatever the log's deliveries and batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamad.alerts.operator import AlertOperator
from streamad.alerts.severity import MAX_SEVERITY, severity
from streamad.config import PipelineConfig
from streamad.config.decisions import AlertsConfig, LimitConfig
from streamad.records import Alert, Finding

OPERATOR = AlertOperator(PipelineConfig(name="hosts"))
TIGHT = AlertOperator(
    PipelineConfig(
        name="hosts",
        alerts=AlertsConfig(limit=LimitConfig(per_key=1, per_group=2)),
    )
)
P_VALUES = st.floats(1e-12, 1.0)
BASE = Finding(
    id="", sequence=0, state="began", kind="anomaly", pipeline="hosts", detector="robust_z",
    artifact="", tenant="default", group="hosts", key="k", entity={}, window_start_ms=0,
    window_end_ms=0, began_ms=0, score=1.0, p_value=1.0, peak_score=1.0, peak_p_value=1.0,
    level=1.0, n_windows=1, explanation=None, input={},
)  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[Finding, int]]:
    """Episodes of several keys, interleaved, in parts delivered again as after a crash."""
    waiting = []
    for n in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["anomaly", "anomaly", "no_data"]))
        length = draw(st.integers(1, 6))
        episode = [
            replace(
                BASE, id=f"e{n}", key=f"k{n}", kind=kind, sequence=i, peak_p_value=draw(P_VALUES),
                state="began" if i == 0 else "ended" if i == length - 1 else "continues",
            )
            for i in range(length)
        ]  # fmt: skip
        waiting.append(episode)
    log: list[Finding] = []
    while any(waiting):
        episode = draw(st.sampled_from([e for e in waiting if e]))
        log.append(replace(episode.pop(0), window_end_ms=draw(st.integers(0, 90_000)) + len(log)))
    delivered: list[Finding] = []
    for i, found in enumerate(log):
        delivered.append(found)
        if draw(st.booleans()):
            delivered += log[draw(st.integers(0, i)) : i + 1]
    return [(found, found.window_end_ms) for found in delivered]


def run(log: list[tuple[Finding, int]], cuts: list[int], operator=OPERATOR) -> list[Alert]:
    state, alerts = operator.new_state(), []
    bounds = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    for start, stop in pairwise(bounds):
        alerts += operator.process(state, log[start:stop])
        restored = operator.new_state()
        restored.load(everything(state))
        restored.clock_ms = state.clock_ms
        state = restored
    return alerts


def everything(state):
    """What a compacted topic would hold of this state."""
    limits = [f"limit/{group}" for group in state._opened]
    for alert_id in [*state._open, *state._closed, *state._withheld, *limits]:
        state._changed[alert_id] = None
    return state.drain_changes()


@given(logs())
def test_every_id_is_opened_once_and_resolved_once_whatever_is_delivered_again(log):
    by_id: dict[str, list[Alert]] = {}
    for alert in run(log, []):
        by_id.setdefault(alert.id, []).append(alert)
    for alerts in by_id.values():
        names = [alert.state for alert in alerts]
        assert names[0] == "opened"
        assert set(names[1:-1]) <= {"updated"}
        assert set(names[1:]) <= {"updated", "resolved"}
        assert [alert.sequence for alert in alerts] == list(range(len(alerts)))
        assert all(alert.peak_severity >= 1.0 for alert in alerts)
        peaks = [alert.peak_severity for alert in alerts]
        assert peaks == sorted(peaks)
    ended = {found.id for found, _ in log if found.state == "ended"}
    for alert_id, alerts in by_id.items():
        assert (alerts[-1].state == "resolved") == (alert_id in ended)


@given(logs(), st.lists(st.integers(0, 40), max_size=6))
def test_batches_and_restarts_change_no_alert(log, cuts):
    assert run(log, cuts) == run(log, [])


@given(logs(), st.lists(st.integers(0, 40), max_size=6))
def test_limits_hold_lose_nothing_and_survive_restarts(log, cuts):
    made = run(log, cuts, TIGHT)
    assert made == run(log, [], TIGHT)
    opened = {a.id for a in made if a.state == "opened" and a.kind != "flood"}
    free = {a.id for a in run(log, []) if a.state == "opened"}
    assert opened <= free
    assert len(opened) == min(len(free), 2)
    counted = [a.summary for a in made if a.kind == "flood"]
    assert bool(counted) == (len(free) > len(opened))


@given(P_VALUES, P_VALUES, st.floats(1e-9, 0.5))
def test_severity_grows_as_p_falls_and_is_one_at_the_level(one, other, level):
    low, high = sorted((one, other))
    assert MAX_SEVERITY >= severity(low, level=level) >= severity(high, level=level) >= 0.0
    assert severity(level, level=level) == 1.0
    assert (severity(one, level=level) >= 1.0) == (one <= level)
