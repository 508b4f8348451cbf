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


def expected_windows(times, values, *, size, least, max_missing, nan_limit):
    """Return what a key's windows hold, cell by cell as it is written: the kernel keeps sums."""
    held, made, last = [], [], None
    for time, row in zip(times, values, strict=True):
        gap = 0 if last is None else time - last - 1
        if last is not None and least < size and gap > max_missing * size:
            held, gap = [], 0
        # Of a longer gap only the end has windows.
        for sample in [*[np.full(len(row), np.nan)] * min(gap, size), row]:
            held = [*held, sample][-size:]
            if len(held) >= least:
                window = np.array(held, np.float32)
                missing = np.isnan(window).sum()
                made.append((window, missing > min(max_missing, nan_limit) * window.size))
        last = time
    return made


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.integers(2, 9), n_variates=st.integers(1, 2))
def test_partial_windows_hold_what_came_since_a_key_or_a_long_gap_began(data, size, n_variates):
    least = data.draw(st.integers(1, size), label="min_periods")
    limits = st.sampled_from([0.0, 0.25, 0.5])
    max_missing, nan_limit = data.draw(limits), data.draw(limits)
    rows = st.tuples(
        st.sampled_from([1, 1, 1, 1, 2, 3, 5, 12, 40]),
        st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=n_variates, max_size=n_variates),
    )
    drawn = data.draw(st.lists(rows, min_size=2, max_size=60))
    times = np.cumsum([gap for gap, _ in drawn])
    values = np.array([row for _, row in drawn], dtype=float)
    plan = WindowPlan(
        size=size, stride=1, n_variates=n_variates, step_ms=10, fill="none",
        max_missing=max_missing, nan_limit=nan_limit, min_periods=least,
    )  # fmt: skip
    windows = SignalWindows(plan)
    windows.state.reserve(1)
    codes, late = np.zeros(len(times) + 1, np.int32), np.zeros(len(times) + 1, np.bool_)
    # One row more, so that the last sample is complete.
    fed = np.append(times, times[-1] + 1) * 10
    given_values = np.concatenate([values, values[-1:]])
    found = [
        (window.copy(), bool(missing))
        for block in windows.ingest(codes, fed.astype(np.int64), given_values, late)
        for window, missing in zip(block.values, block.incomplete, strict=True)
    ]
    expected = expected_windows(
        times, values, size=size, least=least, max_missing=max_missing, nan_limit=nan_limit
    )
    assert not late.any()
    assert len(found) == len(expected)
    for (window, incomplete), (wanted, missing) in zip(found, expected, strict=True):
        unknown = np.full((size - len(wanted), n_variates), np.nan)
        assert np.array_equal(window, np.concatenate([unknown, wanted]), equal_nan=True)
        assert incomplete == missing
