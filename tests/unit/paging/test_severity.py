"""Severity: what it is made of, what an asset weighs, and what people call it."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.desk.severities import fit_severities, scale_of
from streamad.alerting.config import AlertingConfig
from streamad.alerting.levels import level_of
from streamad.alerts.scale import WORDS, Scale
from streamad.errors import ConfigError
from streamad.evaluation.concordance import concordance
from streamad.evaluation.severities import Graded, fit_scale, graded, read_graded
from streamad.paging.desk import Desk
from streamad.records import Alert
from tests.unit.paging.findings import (
    BEGIN_MS,
    HOUR_MS,
    MINUTE_MS,
    WEEK_MS,
    episode,
    finding,
    in_order,
)

ASSETS = [
    {"match": {"host": "pay-*"}, "weight": 10},
    {"match": {"key": "*/disk"}, "weight": 0.1},
]


def desk(scale: Scale | None = None, **given: object) -> Desk:
    config = {"name": "ops", "findings": "f", "budget": {"soak": "0s"}} | given
    return Desk(AlertingConfig.model_validate(config), scale=scale)


def alerts_of(desk: Desk, *findings: object) -> list[Alert]:
    return desk.process(desk.new_state(), in_order(*findings)).alerts  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "decades", "opens"), [
    ("pay-1/cpu", 3.05, True), ("pay-1/cpu", 2.95, False),
    ("db-1/cpu", 4.05, True), ("db-1/cpu", 3.95, False),
    ("db-1/disk", 5.05, True), ("db-1/disk", 4.95, False),
])  # fmt: skip
def test_the_weight_of_an_asset_moves_its_boundary_by_as_many_decades(
    key: str, decades: float, *, opens: bool
):
    """At the default level of 1e-4, ten times the weight is one decade."""
    found = alerts_of(desk(assets=ASSETS), finding(key, BEGIN_MS, decades))
    assert bool(found) is opens
    assert all(1.0 <= one.severity < 1.05 for one in found)


def test_severity_is_its_evidence_over_the_boundary_and_grows_as_an_event_lasts():
    begin = finding("pay-1/cpu", BEGIN_MS, 6.0)
    late = finding(
        "pay-1/cpu", BEGIN_MS + 3 * HOUR_MS, 6.0, opened_ms=BEGIN_MS, began_ms=BEGIN_MS,
        until_ms=BEGIN_MS + 3 * HOUR_MS, sequence=1, state="continues",
    )  # fmt: skip
    first, last = alerts_of(desk(assets=ASSETS), begin, late)
    assert first.evidence == {"rarity": 6.0, "breadth": 0.0, "asset": 1.0, "lasting": 0.0}
    assert last.evidence["lasting"] == pytest.approx(0.3 * math.log10(4))
    assert first.severity == pytest.approx(7.0 / 4)
    assert last.severity == last.peak_severity == pytest.approx((7.0 + 0.3 * math.log10(4)) / 4)


def test_how_long_it_lasts_opens_no_alert():
    made = [
        finding(
            "a/cpu", BEGIN_MS + at * HOUR_MS, 3.9, opened_ms=BEGIN_MS, began_ms=BEGIN_MS,
            until_ms=BEGIN_MS + at * HOUR_MS, sequence=at, state="continues" if at else "began",
        )
        for at in range(20)
    ]  # fmt: skip
    assert alerts_of(desk(), *made) == []


def test_series_that_go_wrong_together_are_more_severe_and_the_boundary_is_that_of_one():
    made = [finding(f"host-{n}/cpu", BEGIN_MS + n * MINUTE_MS // 10, 6.0) for n in range(10)]
    found = alerts_of(desk(budget={"pages": "5 per week", "soak": "0s"}), *made)
    assert found[-1].evidence["breadth"] == pytest.approx(1.0)
    assert found[-1].severity == pytest.approx(7.0 / -math.log10(found[-1].threshold_p))


def test_a_weight_moves_pages_between_series_and_the_budget_keeps_their_number():
    rng = np.random.default_rng(3)
    made, weeks = [], 6
    for at in np.sort(rng.random(700)) * weeks:
        key = f"{rng.choice(['pay', 'db'])}-{rng.integers(20)}/cpu"
        made += episode(key, BEGIN_MS + int(at * WEEK_MS), 3.6 + rng.exponential(0.6))
    paged = {}
    for weight in (1, 10):
        asset = [{"match": {"key": "pay-*"}, "weight": weight}]
        budget = {"pages": "5 per week", "soak": "0s"}
        judge = desk(assets=asset, budget=budget, alerts={"max_age": "3650d"})
        out = judge.process(judge.new_state(), in_order(*made)).incidents
        leaders = {one.id: one.members[0].key for one in out if one.paged_ms is not None}
        paged[weight] = sum(key.startswith("pay") for key in leaders.values()), len(leaders)
    (even, total), (most, weighed) = paged[1], paged[10]
    assert abs(weighed - total) <= 0.25 * total
    assert even / total < 0.65
    assert most / weighed > 0.75


def test_silence_stands_at_the_boundary_and_grows_as_it_lasts():
    silent = {"kind": "no_data", "p_value": 0.0, "peak_p_value": 0.0}
    began = finding("a/cpu", BEGIN_MS, **silent)
    ended = finding(
        "a/cpu", BEGIN_MS + 9 * HOUR_MS, opened_ms=BEGIN_MS, began_ms=BEGIN_MS, sequence=1,
        state="ended", **silent,
    )  # fmt: skip
    first, last = alerts_of(desk(), began, ended)
    assert (first.severity, last.severity) == (1.0, pytest.approx(1.075))


# ------------------------------------------------------------------ in a word


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=40))
def test_the_c_index_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, int]]):
    right = total = 0.0
    for (s, a), (t, b) in itertools.combinations(pairs, 2):
        if a != b:
            total += 1
            right += 0.5 if s == t else float((s < t) == (a < b))
    found = concordance([s for s, _ in pairs], [r for _, r in pairs])
    assert math.isnan(found) if not total else found == pytest.approx(right / total)


def said(decades: float, rank: int) -> Graded:
    """An answer to an incident whose boundary was at four decades."""
    return Graded(severity=decades / 4, decades=decades, boundary=4.0, rank=rank)


def answered(rng: np.random.Generator, n: int, noise: float = 0.0) -> list[Graded]:
    """People who call critical what has eight decades and more, and nothing a warning."""
    decades = rng.uniform(4, 16, n)
    felt = decades + noise * rng.standard_normal(n)
    return [said(float(d), 3 if t >= 8 else 0) for d, t in zip(decades, felt, strict=True)]


def test_a_scale_learns_what_people_mean_and_rises():
    fitted = fit_scale(answered(np.random.default_rng(0), 60))
    assert fitted.within == 1.0
    assert fitted.right > 0.85
    assert fitted.right_default < 0.7
    assert [fitted.scale.word(s) for s in (4.8, 11.2)] == ["info", "critical"]
    words = [WORDS.index(fitted.scale.word(s)) for s in np.linspace(0, 50, 200)]
    assert words == sorted(words)
    assert fitted.scale.word(math.nan) == "info"
    # What is between holds at its own step, up to rounding.
    for word, step in fitted.scale.steps().items():
        assert WORDS.index(fitted.scale.word(step + 1e-9)) >= WORDS.index(word)


def test_answers_without_order_leave_the_c_index_at_chance():
    rng = np.random.default_rng(1)
    made = [said(float(d), int(rng.integers(4))) for d in rng.uniform(4, 16, 400)]
    assert abs(fit_scale(made).within - 0.5) < 0.06


def test_without_answers_the_prior_is_the_default_scale():
    rng = np.random.default_rng(2)
    made = [said(4 * float(s), WORDS.index(level_of(s))) for s in rng.uniform(0.1, 4, 80)]
    scale = fit_scale(made).scale
    for s in (0.4, 1.5, 2.5, 3.6, 8.0):
        assert scale.word(4 * s) == level_of(s)


def test_a_boundary_that_moves_spoils_severity_and_leaves_evidence():
    rng = np.random.default_rng(4)
    made = []
    for decades, boundary in zip(rng.uniform(4, 12, 300), rng.uniform(2, 8, 300), strict=True):
        rank = int(decades // 4)
        made.append(
            Graded(severity=decades / boundary, decades=decades, boundary=boundary, rank=rank)
        )
    fitted = fit_scale(made)
    assert fitted.within == 1.0
    assert fitted.by_severity < 0.85


def test_a_scale_is_read_as_it_was_written_and_damage_is_named():
    scale = fit_scale(answered(np.random.default_rng(0), 40, noise=0.3)).scale
    assert Scale.loads(scale.dumps(), name="s.json") == scale
    for damage in (
        "{", "[]", '{"version": 2}', '{"version": 1, "decades": [1, 2], "rank": [1, 0]}',
        '{"version": 1, "decades": [1, 1], "rank": [1, 2]}',
        '{"version": 1, "decades": [1, 2], "rank": [1, 9]}',
        '{"version": 1, "decades": [1, NaN], "rank": [1, 2]}',
        '{"version": 1, "decades": "ab", "rank": [1, 2]}',
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"s\.json"):
            Scale.loads(damage, name="s.json")


def test_few_answers_are_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"ack .* --severity"):
        fit_scale([said(8.0, 3)] * 30)


def test_each_subject_counts_once_and_rows_without_a_word_do_not():
    numbers = {"severity": 2.0, "strength": 8.0, "boundary": 4.0}
    rows: list[dict[str, object]] = [
        {"subject": "i", **numbers, "graded": "error", "verdict": "real"},
        {"subject": "i", **numbers, "graded": "error", "verdict": "real"},
        {"subject": "j", **numbers, "graded": "", "verdict": "false_positive"},
        {"subject": "k", **numbers, "graded": "", "verdict": "real"},
        {"subject": "l", "graded": "error", "verdict": "real"},
    ]
    assert graded(rows) == [said(8.0, 2), said(8.0, -1)]
    with pytest.raises(ConfigError, match=r"a\.jsonl:2"):
        read_graded([b"{}", b"[]"], name="a.jsonl")


def test_the_scale_names_incidents_and_severity_stays():
    scale = Scale(decades=(1.0, 2.0), rank=(3.0, 3.0), answers=10)
    found = finding("a/cpu", BEGIN_MS, 4.4)
    one, two = (
        judge.process(judge.new_state(), in_order(found)).incidents[0]
        for judge in (desk(), desk(scale))
    )
    assert (one.level, two.level) == ("warning", "critical")
    assert one.severity == two.severity == pytest.approx(1.1)


def test_the_command_writes_the_scale_that_the_desk_reads(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = [
        {"subject": str(n), "verdict": "real", "graded": WORDS[one.rank], "severity": one.severity,
         "strength": one.decades, "boundary": one.boundary}
        for n, one in enumerate(answered(rng, 40))
    ]  # fmt: skip
    lines += [{**lines[0], "subject": "f", "graded": "", "verdict": "false_positive"}]
    answers, out = tmp_path / "answers.jsonl", tmp_path / "severities.json"
    answers.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    fit_severities(tmp_path / "alerting.yaml", answers=answers, out=out)
    shown = capsys.readouterr().out
    assert "C-index 1.00 of evidence and 1.00 of severity, among 40 answers" in shown
    assert "with 1 false positives" in shown
    scale = scale_of(str(out))
    assert scale is not None
    assert scale.word(4.8) == "info"
    assert scale.word(11.2) == "critical"
    with pytest.raises(ConfigError, match="streamad alerts severities"):
        scale_of(str(tmp_path / "none.json"))
    assert scale_of(None) is None
