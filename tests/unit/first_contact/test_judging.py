"""Series as they are in the world: alerts for what is strange, or why nothing is judged."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.first_contact.conftest import MINUTE, T0, User

DAY = 1440 * MINUTE


def rows_of(step: int, **series: np.ndarray) -> list[tuple[object, ...]]:
    """Return a long table: ts, key, value."""
    rows: list[tuple[object, ...]] = [("ts", "key", "value")]
    for i in range(len(next(iter(series.values())))):
        rows += [(T0 + i * step, key, round(float(one[i]), 4)) for key, one in series.items()]
    return rows


def season(days: float, step: int, *, phase: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * (np.arange(int(days * DAY / step)) * step / DAY + phase))


def test_a_clean_daily_rhythm_pages_nobody_from_the_third_day_on(user: User):
    rng, step = np.random.default_rng(5), 2 * MINUTE
    series = {
        f"svc-{i}": 100 + 30 * season(8, step, phase=i / 3) + rng.normal(0, 1, 8 * 720)
        for i in range(3)
    }
    said = user.backtest(
        "name: d\ninput: {topics: t}\nseries: {step: 2m}\nwindows: {size: 60}\n",
        user.csv("d.csv", rows_of(step, **series)),
    )
    late = [one for one in said.opened.values() if one["opened_ms"] > T0 + 2 * DAY]
    assert said.code == 0
    assert late == []


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (100, 0), (1, 7)])
def test_from_nothing_to_total_failure_is_an_alert_in_any_unit(user: User, scale: int, shift: int):
    ratio = np.zeros(4000)
    events = {3000: (8, 1.0), 3400: (30, 0.5), 3700: (50, 0.8)}
    for at, (length, value) in events.items():
        ratio[at : at + length] = value
    said = user.backtest(
        "name: r\ninput: {topics: t}\nseries: {step: 1m}\nwindows: {size: 60}\n",
        user.csv("r.csv", rows_of(MINUTE, errors=ratio * scale + shift)),
    )
    opened = sorted(
        (one["opened_ms"] - T0) // MINUTE for one in said.alerts if one["state"] == "opened"
    )
    assert [
        any(at <= minute <= at + 8 for minute in opened) for at in events
    ] == [True] * 3  # fmt: skip
    assert min(one["peak_severity"] for one in said.alerts if one["state"] == "resolved") > 1.2


@pytest.mark.parametrize("direction", ["both", "below"])
def test_an_outage_is_told_as_an_outage_while_it_lasts(user: User, direction: str):
    rng, step = np.random.default_rng(8), 10 * MINUTE
    load = 60 + 40 * season(16, step) + rng.normal(0, 2, 16 * 144)
    at = 14 * 144 + 30
    load[at : at + 14] = 3
    said = user.backtest(
        "name: o\ninput: {topics: t}\nseries: {step: 10m}\n"
        f"scoring: {{direction: {direction}}}\n",
        user.csv("o.csv", rows_of(step, shop=load)),
    )
    begun, over = T0 + at * step, T0 + (at + 14) * step
    first = next(one for one in said.alerts if begun <= one["opened_ms"] <= over)
    assert first["state"] == "opened"
    assert " 3, expected about " in first["summary"].replace("2.9", "3")
    assert begun <= first["began_ms"] <= over


@pytest.mark.parametrize("n", [90, 250])
@pytest.mark.parametrize("step", [MINUTE, 60 * MINUTE])
def test_a_short_series_is_judged_or_told_what_it_takes(user: User, n: int, step: int):
    values = np.random.default_rng(2).normal(10, 0.5, n)
    values[n * 3 // 4] += 8
    said, scores = user.score(user.csv("y.csv", rows_of(step, a=values)))
    if said.code == 0:
        assert scores["alert"].sum() > 0
        assert "only sudden changes could alert there" in said.err
    else:
        assert "a series is scored after" in said.err
        assert f"the longest has {n}" in said.err
    again, scores = user.score(user.folder / "y.csv", "--detector", "robust_z", "--size", 16)
    assert again.code == 0
    assert scores["severity"].arg_max() == n * 3 // 4


def test_a_burst_in_a_young_series_is_an_alert(user: User):
    values = 20 + 5 * np.sin(np.arange(700) / 9) + np.random.default_rng(1).normal(0, 0.3, 700)
    values[610:618] += 40
    said = user.backtest(
        "name: y\ninput: {topics: t}\nseries: {step: 1m}\nwindows: {size: 64}\n",
        user.csv("y.csv", rows_of(MINUTE, a=values)),
    )
    assert (said.code, set(said.opened)) == (0, {"a"})


@pytest.mark.parametrize("jitter", [7, 400, 9_000])
def test_a_reading_a_step_is_no_gap_whatever_its_jitter(user: User, jitter: int):
    rng, n = np.random.default_rng(jitter), 2500
    values = rng.normal(5, 1, n)
    values[2000:2006] += 40
    rows: list[tuple[object, ...]] = [("ts", "key", "value")]
    rows += [
        (T0 + i * MINUTE + int(rng.integers(-jitter, jitter)), "a", round(v, 3))
        for i, v in enumerate(values)
    ]
    said = user.backtest(
        "name: j\ninput: {topics: t}\nseries: {step: 1m}\n", user.csv("j.csv", rows)
    )
    assert ", 0 incomplete" in said.err
    assert set(said.opened) == {"a"}
    assert not said.left_open


def test_a_step_far_finer_than_the_readings_is_told(user: User):
    data = user.csv("f.csv", rows_of(5 * MINUTE, a=np.random.default_rng(0).normal(0, 1, 900)))
    said = user.backtest("name: f\ninput: {topics: t}\nseries: {step: 10s, silence: 1h}\n", data)
    assert said.code == 1
    assert "windows are incomplete and not judged" in said.err
    assert "one every 10 s (series.step)" in said.err


def test_after_an_adoption_the_new_level_is_what_is_expected(user: User):
    rng, step = np.random.default_rng(3), 5 * MINUTE
    values = rng.normal(20, 1, 4200)
    values[2000:] += 25
    said = user.backtest(
        "name: a\ninput: {topics: t}\n", user.csv("a.csv", rows_of(step, a=values))
    )
    texts = [one["summary"] for one in said.alerts]
    (adopted,) = [text for text in texts if "adopted as normal" in text]
    assert "new level about 4" in adopted
    end = max(one["opened_ms"] for one in said.alerts if "adopted" in one["summary"])
    after = [one["summary"] for one in said.alerts if one["opened_ms"] > end]
    assert not any("expected about 2" in text or "expected about 1" in text for text in after)


@pytest.mark.parametrize("n", [4, 25])
def test_a_rolling_deploy_leaves_no_alerts_behind(user: User, n: int):
    rng = np.random.default_rng(n)
    rows: list[tuple[object, ...]] = [("ts", "key", "value")]
    for i in range(420):
        version = "6f9c" if i < 150 else "b7d1"
        rows += [
            (T0 + i * MINUTE, f"cart-{version}-{pod:03}", round(rng.normal(9, 1), 3))
            for pod in range(n)
        ]
    said = user.backtest(
        "name: p\ninput: {topics: t}\nseries: {step: 1m, silence: 10m}\n"
        "windows: {size: 16}\ndetector: robust_z\n",
        user.csv("p.csv", rows),
    )
    assert not [one for one in said.alerts if one["kind"] == "no_data"]
