"""The page budget: what was asked for is what comes, whatever the episodes are like."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.paging.budget import GroupBudget, strength
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.state import DeskState
from streamad.records import Finding
from tests.unit.paging.findings import (
    BEGIN_MS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    WEEK_MS,
    episode,
    finding,
    in_order,
)

WEEKS = 8


def desk(pages: float | None = 5, **given: object) -> Desk:
    budget = {"soak": "0s"} if pages is None else {"pages": f"{pages} per week", "soak": "0s"}
    return Desk(
        AlertingConfig.model_validate(
            {"name": "ops", "findings": "f", "budget": budget, "alerts": {"max_age": "3650d"}}
            | given
        )
    )


def pages(desk: Desk, findings: list[Finding], state: DeskState | None = None) -> list[int]:
    """Return when incidents paged."""
    state = desk.new_state() if state is None else state
    paged = {}
    for one in desk.process(state, in_order(*findings)).incidents:
        if one.paged_ms is not None:
            paged.setdefault(one.id, one.paged_ms)
    return list(paged.values())


def calm_weeks(
    rng: np.random.Generator, n_keys: int, *, weeks: int = WEEKS, slope: float = 1.0,
    rise: float = 0.0, a_week: float = 3.5,
) -> list[Finding]:  # fmt: skip
    """Return episodes of ordinary series: exponential strengths above where findings begin."""
    made = []
    for at in np.sort(rng.random(rng.poisson(a_week * n_keys * weeks))) * weeks:
        key = f"host-{rng.integers(n_keys)}/cpu"
        decades = 3.6 + rng.exponential(slope / np.log(10)) + rise * at / weeks
        made += episode(key, BEGIN_MS + int(at * WEEK_MS), min(decades, 30.0))
    return made


@pytest.mark.parametrize("asked", [1, 5, 20])
@pytest.mark.parametrize("n_keys", [20, 200])
@pytest.mark.parametrize(
    "kind", [{}, {"slope": 2.5}, {"rise": 3.0}, {"rise": -2.0, "slope": 2.0}],
    ids=["as promised", "heavy tails", "ever stranger", "ever calmer"],
)  # fmt: skip
def test_as_many_pages_come_as_were_asked_for(asked: int, n_keys: int, kind: dict[str, float]):
    made = calm_weeks(np.random.default_rng(asked), n_keys, **kind)
    assert asked / 1.5 <= len(pages(desk(asked), made)) / WEEKS <= asked * 1.5 + 0.5


def test_keys_that_fail_together_are_few_pages_and_the_budget_of_the_week_holds():
    rng = np.random.default_rng(0)
    made = calm_weeks(rng, 50)
    for week in (2, 4, 5):
        at_ms = BEGIN_MS + week * WEEK_MS + 12 * HOUR_MS
        for host in range(2000):
            made += episode(f"host-{host}/disk", at_ms + host % 300 * 1000, 9.0, entity={"k": "v"})
    assert 5 / 2 <= len(pages(desk(5), made)) / WEEKS <= 5 * 2


def test_the_strongest_are_those_that_page():
    rng = np.random.default_rng(3)
    made = calm_weeks(rng, 50)
    planted = {BEGIN_MS + 3 * WEEK_MS + int(k * 1.3 * DAY_MS) for k in range(5)}
    for at_ms in planted:
        made += episode("db-1/latency", at_ms, 12.0)
    found = set(pages(desk(5), made)) & planted
    assert len(found) >= 4


def test_a_burst_is_bounded_by_tokens_and_what_lasts_pages_later():
    one = desk(6)
    state = one.new_state()
    many = [finding(f"h{n}/cpu", BEGIN_MS + n * 10 * MINUTE_MS, 20.0) for n in range(30)]
    assert len(pages(one, many, state)) == 4, "two tokens, and two that are borrowed"
    withheld = [life.last.withheld for life in state.incidents.values() if life.last.withheld]
    assert set(withheld) == {"budget"}
    assert withheld, "the others are no alerts: the boundary rose to what they are"
    later = one.tick(state, BEGIN_MS + 2 * DAY_MS)
    assert sum(i.paged_ms is not None for i in later.incidents) == 1


def test_two_detectors_that_agree_overdraw_and_the_ledger_counts_it():
    one = desk(6, incidents={"links": ["host"]})
    state = one.new_state()
    pages(one, [finding(f"h{n}/cpu", BEGIN_MS + n * MINUTE_MS, 20.0) for n in range(9)], state)
    agreed = finding("h7/disk", BEGIN_MS + 10 * MINUTE_MS, 20.0, detector="knn", pipeline="logs")
    out = one.process(state, in_order(agreed))
    assert [i.overdrawn for i in out.incidents if i.paged_ms] == [True]
    assert state.counts["pages_overdrawn"] == 1
    (budget,) = state.budgets.values()
    lines = sum((day.ledger for day in budget.days.values()), Counter())
    assert (lines["spent"], lines["overdrawn"]) == (4, 1)


def test_without_a_budget_every_incident_pages_and_alerts_are_those_of_the_level():
    findings = in_order(*calm_weeks(np.random.default_rng(1), 30, weeks=2))
    out = desk(None).process(desk(None).new_state(), findings)
    opened = [alert for alert in out.alerts if alert.state == "opened"]
    assert opened
    assert all(alert.threshold_p == 1e-4 for alert in opened)
    assert all(i.paged_ms is not None for i in out.incidents)


def test_a_new_series_soaks():
    one = Desk(PipelineConfig(name="p"))
    born = finding("h/cpu", BEGIN_MS, 9.0, born_ms=BEGIN_MS - HOUR_MS)
    known = finding("h2/cpu", BEGIN_MS, 9.0, born_ms=BEGIN_MS - 2 * DAY_MS)
    trained = finding("h3/cpu", BEGIN_MS, 9.0)
    out = one.process(one.new_state(), in_order(born, known, trained))
    assert {i.members[0].key: i.withheld for i in out.incidents} == {
        "h/cpu": "soak", "h2/cpu": "", "h3/cpu": "",
    }  # fmt: skip


def test_what_was_withheld_is_in_a_digest():
    one = desk(6)
    state = one.new_state()
    burst = [finding(f"h{n}/cpu", BEGIN_MS + n * MINUTE_MS, 20.0, tenant="acme") for n in range(9)]
    pages(one, burst, state)
    (digest,) = one.tick(state, BEGIN_MS + DAY_MS + 1).digests
    assert digest.tenant == "acme"
    assert digest.withheld == {"budget": 5}
    assert (digest.spent, digest.asked) == (4, 6)
    assert "5 incidents did not page" in digest.summary
    assert one.tick(state, BEGIN_MS + DAY_MS + 2).digests == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_replay_decides_the_same_in_whatever_batches_and_lives(seed: int, sizes: list[int]):
    findings = in_order(*calm_weeks(np.random.default_rng(seed), 10, weeks=1, a_week=6))
    calm, one = desk(5), desk(5)
    expected = calm.process(calm.new_state(), findings)
    state, out, records = one.new_state(), DeskOutput(), {}
    place, turn = 0, 0
    while place < len(findings):
        size = sizes[turn % len(sizes)]
        part = one.process(state, findings[place : place + size])
        out.alerts += part.alerts
        out.incidents += part.incidents
        out.digests += part.digests
        place, turn = place + size, turn + 1
        records |= json.loads(json.dumps(state.drain_changes()))
        clock_ms, state = state.clock_ms, one.new_state()
        assert state.load(records) == {}
        state.clock_ms = max(state.clock_ms, clock_ms)
    assert out == expected


def test_a_damaged_record_is_left_out_and_named():
    one = desk(5)
    state = one.new_state()
    pages(one, calm_weeks(np.random.default_rng(0), 5, weeks=1), state)
    state.change_all()
    records = json.loads(json.dumps(state.drain_changes()))
    for name in [name for name in records if name.startswith(("budget/", "day/", "incident/"))]:
        broken = {**records, name: {"version": 1, "past": {"1": {"x": ["NaN", 1]}}}}
        assert name in one.new_state().load(broken), name


def test_a_sketch_counts_series():
    budget = GroupBudget(pages=5, since_ms=0, at_ms=0)
    for n in range(3_000):
        budget.note(f"e{n}", f"key-{n}", began_ms=0, value=4.0, alert_p=1e-4)
    assert budget.n_keys == pytest.approx(3_000, rel=0.05)


def test_strength_has_a_value_for_everything():
    assert strength(0.0) == 300
    assert strength(1.0) == strength(float("nan")) == 0
