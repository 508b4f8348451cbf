"""Who is silent, and of whom it matters: deploys, outages, groups, and alerts that end."""

from __future__ import annotations

import numpy as np
import pytest

from streamad.config import parse_pipeline
from streamad.detectors.robust_z import RobustZ
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.records import Finding
from streamad.runtime import snapshots
from streamad.testing.batches import make_columns

MINUTE = 60_000


def operator(series: str = "", alerts: str = "", key: str = "key") -> DetectOperator:
    config = parse_pipeline(
        f"{{name: t, detector: robust_z, windows: {{size: 16}}, input: {{fields: {{key: {key}}}}}, "
        f"series: {{silence: 5m{series}}}, alerts: {{{alerts}}}}}"
    )
    return DetectOperator(config, RobustZ(size=16))


def spans(**lives: tuple[int, int]) -> list[tuple[str, int, int]]:
    return [(name.replace("_", "-"), *life) for name, life in lives.items()]


def watch(
    op: DetectOperator,
    lives: list[tuple[str, int, int]],
    *,
    until: int,
    batch: int = 10_000,
    clock: str = "clock",
) -> list[Finding]:
    """Let keys send once a minute from and to given minutes; another one is always there."""
    rows = sorted(
        (minute, name) for name, start, stop in [*lives, (clock, 0, until)]
        for minute in range(start, stop)
    )  # fmt: skip
    columns = make_columns(
        [name for _, name in rows],
        MINUTE * (1 + np.array([minute for minute, _ in rows])),
        np.zeros(len(rows)),
    )
    state, found = op.new_state(), []
    for at in range(0, len(columns), batch):
        found += op.process(state, columns.take(at, min(at + batch, len(columns)))).findings
        kept = snapshots.encode(state, identity=op.identity)
        state = op.new_state()
        snapshots.restore(state, kept, identity=op.identity)
    return [one for one in found if one.kind == "no_data"]


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.key, one.state) for one in found]


def pods(version: str, n: int, start: int, stop: int) -> list[tuple[str, int, int]]:
    return [(f"api-{version}-{i}", start, stop) for i in range(n)]


@pytest.mark.parametrize("batch", [7, 10_000])
def test_a_rolling_deploy_pages_nobody(batch: int):
    lives = [*pods("old", 10, 0, 120), *pods("new", 10, 118, 300)]
    assert watch(operator(), lives, until=300, batch=batch) == []


def test_one_after_the_other_is_replaced_too():
    lives = [
        *[(f"api-{i:04x}", 0, 60 + 3 * i) for i in range(8)],
        *[(f"api-{i + 900:04x}", 58 + 3 * i, 300) for i in range(8)],
    ]
    assert watch(operator(), lives, until=300) == []


def test_keys_that_began_together_do_not_stand_in_for_each_other():
    found = watch(operator(), [*pods("a", 5, 0, 200), ("api-b-1", 0, 7)], until=200)
    assert told(found) == [("api-b-1", "began")]


def test_of_fewer_new_than_old_keys_the_others_are_reported():
    lives = [*pods("old", 10, 0, 120), *pods("new", 7, 119, 200)]
    assert told(watch(operator(), lives, until=200)) == [
        (f"api-old-{i}", "began") for i in (7, 8, 9)
    ]


def test_a_replacement_that_comes_late_ends_the_alert():
    lives = [*pods("old", 2, 0, 60), *pods("new", 2, 75, 200)]
    found = watch(operator(), lives, until=200)
    assert [one.state for one in found] == ["began", "began", "ended", "ended"]
    assert [one.reason for one in found[2:]] == [f"replaced by api-new-{i}" for i in (0, 1)]
    assert {one.id for one in found[:2]} == {one.id for one in found[2:]}


def test_a_new_key_of_another_kind_replaces_nobody():
    found = watch(operator(), spans(api_1=(0, 60), db_1=(58, 200)), until=200)
    assert told(found) == [("api-1", "began")]


def test_who_replaces_is_of_the_same_group_and_the_same_name():
    lives = [
        ("web-9/shop", 0, 60), ("web-7/shop", 58, 200),  # replaced
        ("web-2/bank", 0, 60), ("web-1/shop", 58, 200),  # of another team
        ("db-1/club", 0, 60), ("web-4/club", 58, 200),  # of that team, and no database
    ]  # fmt: skip
    op = operator(alerts="group: team", key="[pod, team]")
    found = watch(op, lives, until=200, clock="clock/clock")
    assert sorted(told(found)) == [("db-1/club", "began"), ("web-2/bank", "began")]


def test_a_key_that_comes_back_may_fall_silent_again():
    lives = spans(api_1=(0, 60))
    lives += [("api-1", 80, 100)]
    found = watch(operator(), lives, until=200)
    assert told(found) == [("api-1", "began"), ("api-1", "ended"), ("api-1", "began")]
    assert found[0].id != found[2].id


def test_what_is_gone_for_long_is_no_alert_any_more():
    op = operator(", gone_after: 1h")
    found = watch(op, [("db", 0, 30), ("db", 300, 320)], until=400)
    assert told(found) == [("db", "began"), ("db", "ended"), ("db", "began"), ("db", "ended")]
    assert found[1].reason == "taken for gone after 1 h (series.gone_after)"
    lasted = (found[1].window_end_ms - found[0].window_end_ms) / MINUTE
    assert 58 <= lasted <= 62


@pytest.mark.parametrize("silence", ["5m", None])
def test_an_open_episode_of_a_key_that_is_gone_ends(silence: str | None):
    said = f"silence: {silence}, " if silence else ""
    config = parse_pipeline(
        f"{{name: t, detector: robust_z, windows: {{size: 16}}, series: {{{said}gone_after: 1h}}}}"
    )
    op = DetectOperator(config, RobustZ(size=16))
    values = np.random.default_rng(0).normal(0, 1, 200)
    values[198:] += 60
    state, times = op.new_state(), MINUTE * np.arange(1, 201)
    op.process(state, make_columns(["a"] * 200, times, values))
    assert state.episodes.is_open(np.array([0]))[0]
    later = MINUTE * np.arange(201, 700)
    out = op.process(state, make_columns(["b"] * len(later), later, np.zeros(len(later))))
    (ended,) = [one for one in out.findings if one.kind == "anomaly"]
    assert (ended.state, ended.reason) == ("ended", "taken for gone after 1 h (series.gone_after)")
    assert 60 * MINUTE <= ended.window_end_ms - 200 * MINUTE < 76 * MINUTE
    assert ended.until_ms == 200 * MINUTE


BY_GROUP = {"series": ", silence_by: group", "alerts": "group: service", "key": "[pod, service]"}


@pytest.mark.parametrize("batch", [9, 10_000])
def test_a_group_is_silent_once_none_of_it_sends(batch: int):
    lives = [
        ("p1/shop", 0, 30), ("p2/shop", 0, 60), ("p3/shop", 0, 90), ("p4/shop", 120, 200),
        ("p1/bank", 0, 200), ("p2/bank", 0, 50),
    ]  # fmt: skip
    found = watch(operator(**BY_GROUP), lives, until=200, batch=batch, clock="clock/clock")
    assert told(found) == [("shop", "began"), ("shop", "ended")]
    began, ended = found
    assert began.id == ended.id
    assert began.entity == {"service": "shop"}
    assert "from any of 3 series" in began.reason
    assert began.began_ms == 90 * MINUTE
    assert (ended.reason, ended.window_end_ms) == (
        "data again",
        pytest.approx(121 * MINUTE, abs=2 * MINUTE),
    )


def test_a_group_may_fall_silent_again():
    lives = [("p1/shop", 0, 30), ("p2/shop", 60, 90)]
    found = watch(operator(**BY_GROUP), lives, until=200, clock="clock/clock")
    assert told(found) == [("shop", "began"), ("shop", "ended"), ("shop", "began")]


def test_silence_by_group_needs_to_know_the_group():
    with pytest.raises(ConfigError, match=r"silence_by: group needs alerts\.group"):
        operator(", silence_by: group")
