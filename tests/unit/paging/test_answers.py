"""What people answer moves boundaries, keeps pages back, is counted, and survives a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamad.alerting.config import AlertingConfig
from streamad.incidents import ALL_TENANTS, Feedback, Incident, Silence
from streamad.paging.answers import HALF_LIFE_MS, MOST_OFFSET
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.notes import BOUNDS, SEEN
from streamad.records import Explanation, Finding

NOON = 1_700_049_600_000
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def finding(name: str = "e1", **changes: Any) -> Finding:
    made = Finding(
        id=name, sequence=0, state="began", kind="anomaly", pipeline="hosts", detector="knn",
        artifact="", tenant="default", group="web", key="web-1/cpu", entity={"host": "web-1"},
        window_start_ms=NOON, window_end_ms=NOON, began_ms=NOON, until_ms=NOON, score=9.0,
        p_value=1e-5, peak_score=9.0, peak_p_value=1e-5, level=5.0, n_windows=1,
        explanation=Explanation(
            observed={"value": 97.0}, expected={"value": 12.0}, variates={"value": 1.0},
            time_ms=NOON,
        ),
        input={"topic": "m", "partition": 0, "offset": 7}, alert_p=1e-4,
    )  # fmt: skip
    return replace(made, **changes)


class Stage:
    """A desk with its state; what it sends is kept."""

    def __init__(self, **settings: Any) -> None:
        given = {"name": "ops", "findings": ["f"], "incidents": {"gap": "1m"}, **settings}
        self.desk = Desk(AlertingConfig.model_validate(given))
        self.state = self.desk.new_state()
        self.n = 0

    def find(self, *findings: Finding) -> list[Incident]:
        return self.desk.process(self.state, [(f, f.window_end_ms) for f in findings]).incidents

    def episode(self, name: str, *, at_ms: int, **changes: Any) -> list[Incident]:
        """Return what an episode of a minute leaves, and let its incident end."""
        begun = finding(name, window_end_ms=at_ms, began_ms=at_ms, until_ms=at_ms, **changes)
        ended = replace(begun, sequence=1, state="ended", window_end_ms=at_ms + MINUTE)
        out = self.find(begun, ended)
        return out + self.desk.tick(self.state, at_ms + 10 * MINUTE).incidents

    def answer(self, subject: str, verdict: Any, *, at_ms: int = 0, **more: Any) -> DeskOutput:
        self.n += 1
        given = {"id": f"a{self.n}", "by": "ann", "time_ms": at_ms or self.state.clock_ms, **more}
        one = Feedback(subject=subject, verdict=verdict, **given)
        return self.desk.answer(self.state, [(one, one.time_ms)])

    def restart(self) -> None:
        """Go on with what the compacted topic holds."""
        self.state.change_all()
        records = self.state.drain_changes()
        clock_ms, self.state = self.state.clock_ms, self.desk.new_state()
        assert self.state.load(records) == {}
        self.state.clock_ms = clock_ms

    def ledger(self, group: str = "web") -> dict[str, int]:
        days = self.state.budgets[group].days.values()
        return {what: n for day in days for what, n in day.ledger.items() if "/" not in what}


def test_an_acknowledged_incident_says_by_whom_once():
    stage = Stage()
    (opened,) = stage.find(finding())
    (updated,) = stage.answer(opened.id, "acknowledged").incidents
    assert (updated.state, updated.acknowledged, updated.sequence) == ("updated", "ann", 1)
    again = Feedback(id="a1", subject=opened.id, verdict="real", by="bob", time_ms=NOON)
    assert stage.desk.answer(stage.state, [(again, NOON)]).incidents == [], "one id counts once"
    assert stage.ledger()["answered acknowledged"] == 1


def test_a_dismissed_series_has_to_be_stronger_until_it_is_forgotten():
    stage = Stage()
    first = stage.episode("e1", at_ms=NOON)
    assert first[0].paged_ms is not None
    # It was 1 decade beyond the boundary; the answer comes after it is over.
    stage.answer(first[0].id, "false_positive")
    stage.restart()
    assert stage.episode("e2", at_ms=NOON + DAY) == []
    assert stage.ledger()["feedback"] == 1, "what is kept back is counted"
    assert stage.episode("e3", at_ms=NOON + 2 * DAY, peak_p_value=1e-7)[0].paged_ms is not None
    assert stage.episode("e4", at_ms=NOON + DAY, key="web-2/cpu")[0].paged_ms is not None
    late = NOON + 3 * HALF_LIFE_MS
    assert stage.episode("e5", at_ms=late)[0].paged_ms is not None


def test_the_rise_of_a_boundary_is_bounded_and_a_real_one_takes_it_back():
    stage = Stage()
    for number in range(10):
        stage.answer(
            "long ago", "false_positive", key="web-1/cpu", group="web", at_ms=NOON + number
        )
    boundary = 1e-4 * 10**-MOST_OFFSET
    assert stage.episode("weak", at_ms=NOON + MINUTE, peak_p_value=boundary * 1.1) == []
    strong = stage.episode("strong", at_ms=NOON + HOUR, peak_p_value=boundary * 0.9)
    stage.answer(strong[0].id, "real")
    assert stage.episode("e1", at_ms=NOON + 2 * HOUR)[0].paged_ms is not None
    for number in range(5):
        stage.answer(f"old {number}", "real", key="web-1/cpu", group="web")
    # Lowered by one decade at the most.
    assert stage.episode("low", at_ms=NOON + 3 * HOUR, peak_p_value=0.9e-3) != []
    assert stage.episode("lower", at_ms=NOON + 4 * HOUR, peak_p_value=1.2e-3) == []


def test_what_is_expected_does_not_page_until_its_time():
    stage = Stage()
    stage.answer("x", "expected", key="web-1/cpu", group="web", until_ms=NOON + HOUR, at_ms=NOON)
    stage.restart()
    (first,) = stage.find(finding(window_end_ms=NOON + MINUTE))
    assert (first.withheld, first.paged_ms) == ("expected", None)
    assert stage.desk.tick(stage.state, NOON + HOUR - 1).incidents == []
    (paged,) = stage.desk.tick(stage.state, NOON + HOUR + 1).incidents
    assert paged.paged_ms is not None, "it still lasts when the time is over"


def test_nothing_is_expected_for_ever():
    stage = Stage()
    stage.answer(
        "x", "expected", key="web-1/cpu", group="web", until_ms=NOON + 999 * DAY, at_ms=NOON
    )
    assert stage.episode("e1", at_ms=NOON + DAY)[0].paged_ms is None
    assert stage.episode("e2", at_ms=NOON + 91 * DAY)[0].paged_ms is not None


def test_what_is_like_something_dismissed_says_so():
    stage = Stage()
    for number in range(2):
        begun = stage.episode(f"e{number}", at_ms=NOON + number * HOUR, peak_p_value=1e-9)[0]
        stage.answer(begun.id, "false_positive")
    stage.restart()

    def opened(name: str, **changes: Any) -> Incident:
        at_ms = NOON + DAY + int(name[1:]) * HOUR // 4
        return stage.episode(name, at_ms=at_ms, peak_p_value=1e-9, **changes)[0]

    alike = opened("e3", key="web-2/cpu")
    assert alike.alike == 2
    assert alike.summary.endswith("[like 2 incidents dismissed before]")
    low = Explanation(
        observed={"value": 1.0}, expected={"value": 12.0}, variates={"value": 1.0}, time_ms=NOON
    )
    assert opened("e4", key="web-3/cpu", explanation=low).alike == 0, "the other way"
    assert opened("e5", key="web-4/cpu", detector="lof").alike == 0
    assert opened("e6", key="web-5/cpu", group="db").alike == 0


def test_a_verdict_on_one_alert_of_many_is_none_on_the_incident():
    stage = Stage()
    first, second = finding(), finding("e2", key="web-1/mem", entity={"host": "web-1"})
    (opened, *_) = stage.find(first, second)
    updated = stage.answer("e2", "false_positive").incidents[-1]
    assert (updated.id, updated.verdict, updated.acknowledged) == (opened.id, "", "ann")
    assert stage.state.notes["series/default/web-1/mem"]["offset"] > 0
    assert "series/default/web-1/cpu" not in stage.state.notes


def test_what_joins_a_dismissed_incident_later_still_pages():
    stage = Stage(incidents={"gap": "1m", "hold": "5m"})
    (opened,) = stage.find(finding())
    stage.answer(opened.id, "false_positive")
    assert stage.desk.tick(stage.state, NOON + 10 * MINUTE).incidents == []
    joined = stage.find(finding("e2", key="web-1/mem", window_end_ms=NOON + 11 * MINUTE))
    assert (joined[-1].id, joined[-1].paged_ms) == (opened.id, NOON + 11 * MINUTE)


def test_an_answer_of_another_tenant_changes_nothing_of_ours():
    stage = Stage()
    (opened,) = stage.find(finding())
    assert stage.answer(opened.id, "false_positive", tenant="evil").incidents == []
    assert stage.state.incidents[opened.id].last.verdict == ""
    assert "series/default/web-1/cpu" not in stage.state.notes


@pytest.mark.parametrize("matcher", ['host="web-1"', 'key=~"web-.*"', "group!=db", "kind=anomaly"])
def test_a_silence_given_while_it_runs_keeps_pages_back_and_ends(matcher: str):
    stage = Stage()
    silence = Silence(
        id="s1", name="release/42", matchers=(matcher,), starts_ms=NOON, ends_ms=NOON + HOUR,
        by="ann", time_ms=NOON,
    )  # fmt: skip
    stage.desk.answer(stage.state, [(silence, NOON)])
    stage.restart()
    (held,) = stage.find(finding(window_end_ms=NOON + MINUTE))
    assert (held.withheld, held.paged_ms) == ("silence: release 42", None)
    assert stage.ledger()["silence: release 42"] == 1
    ended = replace(silence, ends_ms=NOON)
    (paged,) = stage.desk.answer(stage.state, [(ended, NOON + 2 * MINUTE)]).incidents
    assert paged.paged_ms == NOON + 2 * MINUTE


def test_a_silence_holds_only_where_it_is_about_every_alert():
    given = {
        "name": "cpu",
        "matchers": ['key=~".*/cpu"'],
        "starts": "2023-01-01",
        "ends": "2024-01-01",
    }
    stage = Stage(silences=[given])
    (held,) = stage.find(finding())
    assert held.withheld == "silence: cpu"
    paged = stage.find(finding("e2", key="web-1/mem", window_end_ms=NOON + 2_000))
    assert paged[-1].paged_ms is not None


def test_an_event_inside_a_silence_that_is_found_later_does_not_page():
    stage = Stage(silences=[{"name": "backup", "hours": "12:00-12:10"}])
    late = finding(window_end_ms=NOON + 15 * MINUTE, until_ms=NOON + 5 * MINUTE)
    assert stage.find(late)[0].withheld == "silence: backup"
    lasts = finding("e2", key="db/cpu", entity={}, group="db", window_end_ms=NOON + 15 * MINUTE,
                    until_ms=NOON + 12 * MINUTE)  # fmt: skip
    assert stage.find(lasts)[0].paged_ms is not None


def test_a_flood_of_answers_is_bounded_and_damage_is_named():
    stage = Stage()
    given = [
        Feedback(id=str(n), subject="x", verdict="false_positive", by="", time_ms=NOON + n,
                 key=f"k{n}", group=f"g{n}")
        for n in range(BOUNDS[SEEN] + 500)
    ]  # fmt: skip
    stage.desk.answer(stage.state, [(one, one.time_ms) for one in given])
    assert len(list(stage.state.notes_of(SEEN))) == BOUNDS[SEEN]
    assert "seen/default/2499" in stage.state.notes, "the oldest went"
    bad = {
        "note/series/default/k": {"at_ms": NOON, "offset": "x", "until_ms": 1, "held": ""},
        "note/silence/default/s": {"version": 1, "at_ms": NOON, "name": "s", "matchers": ["("],
                                   "tenant": "default", "starts_ms": 1, "ends_ms": 2},
        "note/what/x": {"version": 1, "at_ms": NOON},
    }  # fmt: skip
    assert stage.desk.new_state().load(bad).keys() == bad.keys()


def test_what_was_expected_is_so_no_longer_once_that_is_withdrawn():
    stage = Stage(incidents={"gap": "1m", "hold": "5m"})
    (opened,) = stage.find(finding())
    (expected,) = stage.answer(opened.id, "expected", until_ms=NOON + DAY).incidents
    assert (expected.verdict, expected.acknowledged) == ("expected", "ann")
    assert stage.desk.tick(stage.state, NOON + 6 * MINUTE).incidents == []
    assert expected.withheld == "expected"
    (back,) = stage.answer(opened.id, "expected", until_ms=NOON - 1).incidents
    assert (back.verdict, back.acknowledged, back.withheld) == ("", "ann", "")
    assert back.paged_ms == NOON + 6 * MINUTE
    assert stage.ledger() == {
        "answered expected": 1, "answered no longer expected": 1, "expected": 1, "spent": 1,
    }  # fmt: skip


def test_a_silence_of_all_tenants_and_of_lesser_alerts_lets_a_worse_one_page():
    stage = Stage()
    silence = Silence(
        id="s1", name="quiet", matchers=('severity="warning"', 'entity_host="web-1"'),
        starts_ms=NOON, ends_ms=NOON + HOUR, by="ann", time_ms=NOON, tenant=ALL_TENANTS,
    )  # fmt: skip
    for _ in range(2):  # Twice, as two processes bring it.
        stage.desk.answer(stage.state, [(silence, NOON)])
    assert stage.state.counts["answers_silence"] == 1
    stage.restart()
    (held,) = stage.find(finding(tenant="acme"))
    assert held.withheld == "silence: quiet"
    worse = finding(tenant="acme", sequence=1, state="continues", window_end_ms=NOON + MINUTE)
    (paged,) = stage.find(replace(worse, p_value=1e-14, peak_p_value=1e-14))
    assert paged.paged_ms == NOON + MINUTE
    assert stage.find(finding("e2", key="db-1/cpu", entity={"host": "db-1"}))[0].paged_ms
