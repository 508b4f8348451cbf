"""Readings about a step apart fill each cell of their key's grid: any phase, jitter and drift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.windows.signals import SignalWindows, WindowPlan

N, SIZE = 1_500, 64
START_MS = 1_700_000_000_000


def cut(times, step, **plan):
    """Return end times, incompleteness and newest value of the windows, and the late rows."""
    windows = SignalWindows(WindowPlan(size=SIZE, stride=1, n_variates=1, step_ms=step, **plan))
    windows.state.reserve(1)
    late, made = np.zeros(len(times), np.bool_), []
    codes, values = np.zeros(len(times), np.int32), np.arange(len(times), dtype=float)[:, None]
    made += [
        np.stack([block.end_ms, block.incomplete, block.values[:, -1, 0].astype(np.int64)])
        for block in windows.ingest(codes, times.astype(np.int64), values, late)
    ]
    return (*np.concatenate(made, axis=1), late)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    step=st.sampled_from([1_000, 10_000, 60_000, 300_000, 3_600_000]),
    phase=st.floats(0, 1),
    jitter=st.floats(0, 0.3),
    drift=st.floats(-2e-3, 2e-3),
    lateness=st.sampled_from([0, 1, 3]),
)
def test_a_reading_a_step_leaves_no_window_incomplete(seed, step, phase, jitter, drift, lateness):
    rng = np.random.default_rng(seed)
    times = START_MS + step * (phase + np.arange(N) * (1 + drift) + rng.uniform(-jitter, jitter, N))
    ends, incomplete, newest, late = cut(np.sort(times), step, lateness_ms=lateness * step)
    assert not incomplete.any()
    assert late.sum() <= 2
    assert (np.diff(ends) == step).all()
    assert (np.abs(np.sort(times)[newest] - ends) <= 2 * step).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_scheduler_that_begins_again_at_another_second_blinds_no_key(seed):
    rng = np.random.default_rng(seed)
    times = START_MS + 60_000 * np.arange(N) + rng.normal(0, 40, N)
    for at in (400, 800, 1_200):
        times[at:] += rng.uniform(20_000, 60_000)
    assert not cut(times, 60_000)[1].any()


def test_many_readings_a_step_keep_the_wall_clocks_cells():
    rng = np.random.default_rng(0)
    times = START_MS + np.cumsum(rng.exponential(4_000, 20_000))
    ends, incomplete, newest, _ = cut(times, 60_000, aggregate="last")
    assert (ends % 60_000 == 0).all()
    assert not incomplete.any()
    assert (times[newest] // 60_000 * 60_000 == ends).all()
