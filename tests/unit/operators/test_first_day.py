"""A key without training pages for breaks on its first day, and not for hours it shows first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.build import build_detect
from streamad.config import parse_pipeline
from streamad.scoring.sudden import sudden
from streamad.testing.batches import make_columns

MINUTE, N, KEYS, AT = 60_000, 1_440, 30, 900
BEGIN_MS = 1_772_409_600_000
DAY = np.arange(N) / N


def sigmoid(at: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(DAY - at) * 50))


def shapes(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return ordinary days of `KEYS` hosts ``(KEYS, N)``."""
    phase = np.linspace(0, 1, KEYS)[:, None]
    noise = rng.normal(0, 1, (KEYS, N))
    season = np.sin(2 * np.pi * (DAY + phase))
    return {
        "flat": 50 + noise,
        "season": 50 + 10 * season + noise,
        "steep season": 50 + 25 * season + noise,
        "two harmonics": 50 + 12 * season + 6 * np.sin(4 * np.pi * (DAY + phase)) + noise,
        "office hours": 20 + 50 * sigmoid(0.36) - 45 * sigmoid(0.75) + noise,
        "two peaks": 20
        + 35 * np.exp(-(((DAY - 0.4) / 0.08) ** 2))
        + 25 * np.exp(-(((DAY - 0.8) / 0.07) ** 2))
        + noise,
        "multiplied": (50 + 10 * season) * np.exp(0.08 * noise),
        "counts": rng.poisson(6 + 4 * season).astype(float),
    }[name]


def alerted(values: np.ndarray, step: int = 1) -> dict[str, int]:
    """Return the keys that reach severity 1.0, and the minute in which they first did."""
    n = values.shape[1]
    op = build_detect(parse_pipeline("{name: t, windows: {size: 64}}"))
    state, found = op.new_state(), {}
    keys = [f"k{i}" for i in range(len(values))] * n
    times = np.repeat(BEGIN_MS + step * MINUTE * np.arange(n), len(values))
    batch = make_columns(keys, times, values.T.ravel())
    for at in range(0, len(batch), 20_000):
        for one in op.process(state, batch.take(at, at + 20_000)).findings:
            reached = 0 < one.peak_p_value < 1 and (
                math.log(one.peak_p_value) / math.log(one.alert_p) >= 1
            )
            if one.state != "ended" and reached:
                found.setdefault(one.key, (one.window_end_ms - BEGIN_MS) // MINUTE)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "flat", "season", "steep season", "two harmonics", "office hours", "two peaks",
        "multiplied", "counts",
    ],
)  # fmt: skip
def test_an_ordinary_first_day_pages_nobody(name: str):
    assert len(alerted(shapes(name, np.random.default_rng(11)))) <= 1


@pytest.mark.parametrize("name", ["flat", "season", "multiplied"])
def test_an_outage_on_the_first_day_is_seen_at_once(name: str):
    values = shapes(name, np.random.default_rng(12))
    values[:, AT : AT + 20] = 0
    seen = [minute for minute in alerted(values).values() if AT <= minute < AT + 20]
    assert len(seen) >= 0.9 * KEYS


@pytest.mark.parametrize("name", ["season", "counts", "flat"])
@pytest.mark.parametrize("step", [5, 10])
def test_the_days_after_it_bring_no_storm(name: str, step: int):
    many, together = [], []
    for seed in (13, 14, 15):
        rng = np.random.default_rng(seed)
        # Days of the same shape, seen at a coarser step: one day is little then.
        days = np.concatenate([shapes(name, rng)[:, ::step] for _ in range(5)], axis=1)
        minutes = sorted(alerted(days, step=step).values())
        many.append(len(minutes))
        within_12h = [sum(at <= other < at + 720 for other in minutes) for at in minutes]
        together.append(max(within_12h, default=0))
    # A series reaches the level once in five days: as many would be 63 % of the keys.
    assert np.mean(many) <= 0.6 * KEYS
    assert np.median(together) <= 0.25 * KEYS


def test_an_open_episode_of_a_young_key_keeps_its_severity():
    op = build_detect(parse_pipeline("{name: t, windows: {size: 64}}"))
    values = np.random.default_rng(3).normal(50, 1, 700)
    values[600:640] += 40
    times = BEGIN_MS + MINUTE * np.arange(700)
    out = op.process(op.new_state(), make_columns(["a"] * 700, times, values))
    severity = np.concatenate([log.severity for log in out.scores])
    ends = np.concatenate([log.end_ms for log in out.scores])
    inside = (ends >= times[600]) & (ends < times[640])
    assert inside.sum() == 40
    assert (severity[inside] >= 1).all()


def windows(*series: np.ndarray) -> np.ndarray:
    return np.stack([one.reshape(64, -1) for one in series]).astype(np.float32)


def test_a_break_leaves_the_line_and_a_slope_does_not():
    rng = np.random.default_rng(0)
    slope, bend = np.arange(64) * 3.0, 0.01 * np.arange(64) ** 2
    noise = rng.normal(0, 1, 64)
    step, spike = np.r_[np.zeros(60), np.full(4, 12.0)], np.r_[np.zeros(63), 40.0]
    calm = windows(noise, slope + noise, bend + noise, -slope + noise, np.full(64, 7.0))
    assert sudden(calm).tolist() == [False] * 5
    broken = windows(step + noise, slope + step + noise, spike + noise, np.r_[np.zeros(63), 1.0])
    assert sudden(broken).tolist() == [True] * 4


def test_a_break_of_one_variate_is_a_break_and_what_is_unknown_may_be_one():
    rng = np.random.default_rng(0)
    two = rng.normal(0, 1, (64, 2))
    assert not sudden(windows(two)).any()
    broken, holes = two.copy(), two.copy()
    broken[60:, 1] += 12
    holes[62, 0] = np.nan
    assert sudden(windows(broken, holes)).tolist() == [True, True]
    assert sudden(np.zeros((3, 8, 1), np.float32)).tolist() == [True] * 3


def test_windows_are_judged_one_by_one():
    many = np.random.default_rng(1).normal(0, 1, (200, 64, 2)).astype(np.float32)
    many[::3, 58:] += 5
    alone = [bool(sudden(many[i : i + 1])[0]) for i in range(len(many))]
    assert sudden(many).tolist() == alone
    assert 0 < sum(alone) < 200
