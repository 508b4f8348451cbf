"""Points become windows in their key's own event time."""

import numpy as np
import pytest

from streamad.windows.arrays import KeyedArrays
from streamad.windows.keys import NO_KEY, KeyTable
from streamad.windows.signals import SignalWindows, WindowPlan


def closed(plan, rows, batch=None):
    """Feed (code, time, value...) rows; return the windows closed and the late rows' indices."""
    windows = SignalWindows(plan)
    windows.state.reserve(8)
    made, late_rows = [], []
    batch = batch or len(rows)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        late = np.zeros(len(part), np.bool_)
        blocks = windows.ingest(
            np.array([r[0] for r in part], np.int32),
            np.array([r[1] for r in part], np.int64),
            np.array([r[2:] for r in part], np.float64),
            late,
        )
        for block in blocks:
            made += [
                (
                    int(block.codes[i]),
                    int(block.start_ms[i]),
                    int(block.end_ms[i]),
                    block.values[i].copy(),
                    bool(block.incomplete[i]),
                )
                for i in range(len(block))
            ]
        late_rows += (np.flatnonzero(late) + start).tolist()
    return made, late_rows


def values_of(made):
    return [window[3][:, 0].tolist() for window in made]


def test_without_a_grid_every_row_is_a_sample_and_windows_slide():
    plan = WindowPlan(size=3, stride=1, n_variates=1)
    made, late = closed(plan, [(0, t, v) for t, v in [(10, 1), (20, 2), (35, 3), (40, 4)]])
    assert values_of(made) == [[1, 2, 3], [2, 3, 4]]
    assert [(w[1], w[2]) for w in made] == [(10, 35), (20, 40)]
    assert late == []


def test_a_row_not_after_its_keys_clock_is_late_and_changes_nothing():
    plan = WindowPlan(size=2, stride=1, n_variates=1)
    made, late = closed(plan, [(0, 10, 1), (0, 20, 2), (0, 20, 9), (0, 5, 9), (0, 30, 3)])
    assert values_of(made) == [[1, 2], [2, 3]]
    assert late == [2, 3]


def test_keys_have_clocks_of_their_own():
    plan = WindowPlan(size=2, stride=1, n_variates=1)
    made, late = closed(plan, [(0, 1_000, 1), (1, 10, 5), (1, 20, 6), (0, 2_000, 2)])
    assert [(w[0], w[3][:, 0].tolist()) for w in made] == [(1, [5, 6]), (0, [1, 2])]
    assert late == []


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("mean", [2.0, 5.0]), ("last", [3.0, 5.0]), ("max", [3.0, 5.0]), ("sum", [4.0, 5.0])],
)
def test_a_grid_puts_points_of_a_step_together(aggregate, expected):
    plan = WindowPlan(size=2, stride=1, n_variates=1, step_ms=10, aggregate=aggregate)
    made, _ = closed(plan, [(0, 100, 1), (0, 109, 3), (0, 110, 5), (0, 120, 0)])
    assert values_of(made) == [expected]
    assert made[0][1:3] == (100, 110)


def test_within_lateness_the_order_of_arrival_does_not_matter():
    plan = WindowPlan(size=3, stride=1, n_variates=1, step_ms=10, lateness_ms=30)
    rows = [(0, 100 + 10 * i, float(i)) for i in range(12)]
    shuffled = [rows[i] for i in (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 10, 11)]
    calm, _ = closed(plan, rows)
    for batch in (1, 4, 12):
        made, late = closed(plan, shuffled, batch)
        assert values_of(made) == values_of(calm)
        assert late == []


def test_a_sample_waits_for_lateness_and_then_never_reopens():
    plan = WindowPlan(size=1 + 1, stride=1, n_variates=1, step_ms=10, lateness_ms=20)
    made, late = closed(plan, [(0, 100, 1), (0, 110, 2), (0, 129, 9), (0, 131, 3), (0, 101, 7)])
    assert values_of(made) == []  # 110..120 is due at 140
    assert late == [4]
    made, late = closed(plan, [(0, 100, 1), (0, 110, 2), (0, 140, 3), (0, 112, 8)])
    assert values_of(made) == [[1, 2]]
    assert late == [3]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("previous", [1, 1, 1, 4]), ("linear", [1, 2, 3, 4]), ("none", [1, None, None, 4])],
)
def test_gaps_are_filled_as_configured_and_counted(fill, expected):
    plan = WindowPlan(
        size=4, stride=1, n_variates=1, step_ms=10, fill=fill, max_missing=0.5, nan_limit=0.5
    )
    made, _ = closed(plan, [(0, 100, 1), (0, 130, 4), (0, 140, 0)])
    got = [None if np.isnan(x) else x for x in values_of(made)[0]]
    assert got == expected
    assert not made[0][4]
    strict = WindowPlan(size=4, stride=1, n_variates=1, step_ms=10, fill=fill, max_missing=0.25)
    made, _ = closed(strict, [(0, 100, 1), (0, 130, 4), (0, 140, 0)])
    assert made[0][4]


def test_a_step_without_a_record_is_zero_where_nothing_happened():
    plan = WindowPlan(size=4, stride=1, n_variates=1, step_ms=10, fill="zero", max_missing=0.0)
    made, _ = closed(plan, [(0, 100, 3), (0, 130, 4), (0, 140, 1), (0, 1_000, 2), (0, 1_010, 5)])
    assert values_of(made)[0] == [3, 0, 0, 4]
    assert values_of(made)[-1] == [0, 0, 0, 2]
    assert not any(w[4] for w in made)


def test_a_gap_longer_than_a_window_leaves_no_old_sample_behind():
    plan = WindowPlan(size=3, stride=1, n_variates=1, step_ms=10)
    rows = [(0, 0, 7), (0, 10, 7), (0, 20, 7), (0, 10_000, 1), (0, 10_010, 1)]
    made, _ = closed(plan, [*rows, (0, 10020, 1), (0, 10030, 1)])
    assert all(w[4] for w in made if 30 < w[2] < 10_010)
    assert made[-1][3][:, 0].tolist() == [1, 1, 1]
    assert not made[-1][4]


def test_counters_become_rates_and_a_reset_counts_from_zero():
    plan = WindowPlan(size=3, stride=1, n_variates=1, kind="counter")
    rows = [(0, 1_000, 100), (0, 2_000, 110), (0, 4_000, 150), (0, 5_000, 5)]
    made, _ = closed(plan, rows)
    assert values_of(made) == [[10, 20, 5]]


def test_stride_is_counted_on_the_grid_not_from_the_first_arrival():
    plan = WindowPlan(size=2, stride=2, n_variates=1, step_ms=10)
    for first in (100, 110):
        made, _ = closed(plan, [(0, t, 1.0) for t in range(first, 200, 10)])
        assert {w[2] % 20 for w in made} == {0}


def test_variates_of_one_sample_come_from_several_rows():
    nan = float("nan")
    plan = WindowPlan(size=2, stride=1, n_variates=2, step_ms=10)
    rows = [(0, 100, 1, nan), (0, 104, nan, 5), (0, 110, 2, nan), (0, 111, nan, 6), (0, 120, 0, 0)]
    made, _ = closed(plan, rows)
    assert made[0][3].tolist() == [[1, 5], [2, 6]]


@pytest.mark.parametrize("step_ms", [0, 10])
def test_a_partial_window_does_not_know_what_came_before_its_key(step_ms):
    plan = WindowPlan(size=4, stride=1, n_variates=1, step_ms=step_ms, min_periods=2)
    rows = [(k, t, t + k) for t in range(10, 70, 10) for k in (0, 1)]
    made, late = closed(plan, rows)
    own = [window for window in made if window[0] == 0]
    assert late == []
    for held, (_, start_ms, end_ms, window, incomplete) in enumerate(own, start=2):
        unknown = max(4 - held, 0)
        assert np.isnan(window[:unknown, 0]).all()
        assert (
            window[unknown:, 0].tolist()
            == [end_ms - 10 * back for back in range(3, -1, -1)][unknown:]
        )
        # As if the window were full, so that a sample's place says its time.
        assert start_ms == end_ms - 30
        assert not incomplete
    assert [len(own), own[0][2]] == [4 if step_ms else 5, 20]


def test_of_a_partial_window_what_it_holds_may_be_missing_by_the_same_share():
    plan = WindowPlan(
        size=8, stride=1, n_variates=1, step_ms=10, fill="previous", max_missing=0.25, min_periods=4
    )
    made, _ = closed(plan, [(0, t, t) for t in (10, 20, 40, 50, 60, 90, 100, 110, 120, 130)])
    filled = {3: 1, 7: 1, 8: 1}
    for _, _, end_ms, window, incomplete in made:
        held = int(np.isfinite(window).sum())
        newest = end_ms // 10
        absent = sum(filled.get(step, 0) for step in range(newest - held + 1, newest + 1))
        assert incomplete == (absent > 0.25 * held)
    assert {window[4] for window in made} == {True, False}


@pytest.mark.parametrize("hole", [2, 3, 9, 400])
def test_after_a_long_gap_partial_windows_begin_again(hole):
    plan = WindowPlan(
        size=8, stride=1, n_variates=1, step_ms=10, fill="previous", max_missing=0.25, min_periods=3
    )
    times = [*range(10, 130, 10), *range(130 + 10 * hole, 230 + 10 * hole, 10)]
    made, _ = closed(plan, [(0, t, t) for t in times])
    after = [window for window in made if window[2] > 130]
    held = [int(np.isfinite(window[3]).sum()) for window in after]
    if hole == 2:  # as many as may be missing
        assert held == [8] * len(after)
        assert not any(window[4] for window in made)
        return
    assert held == [3, 4, 5, 6, 7, 8, 8]
    assert not any(window[4] for window in after)
    assert np.nanmin([window[3] for window in after]) == 130 + 10 * hole


@pytest.mark.parametrize("batch", [1, 3, 7, 1_000])
@pytest.mark.parametrize("lateness_ms", [0, 25])
@pytest.mark.parametrize("step_ms", [0, 10])
@pytest.mark.parametrize("min_periods", [None, 2])
def test_batches_do_not_matter(batch, lateness_ms, step_ms, min_periods):
    rng = np.random.default_rng(5)
    plan = WindowPlan(
        size=5,
        stride=1,
        n_variates=1,
        step_ms=step_ms,
        lateness_ms=lateness_ms,
        min_periods=min_periods,
    )
    jitter = rng.integers(0, 40, 400)
    rows = [(int(rng.integers(0, 4)), 1_000 + 7 * i - int(jitter[i]), i) for i in range(400)]
    whole, late = closed(plan, rows)
    parts, late_parts = closed(plan, rows, batch)
    assert len(whole) > 100
    assert late == late_parts
    assert [(w[0], w[2], w[3].tobytes(), w[4]) for w in whole] == [
        (w[0], w[2], w[3].tobytes(), w[4]) for w in parts
    ]


def test_a_key_table_gives_codes_once_and_again_after_a_drop():
    import polars as pl

    table = KeyTable(max_keys=3)
    codes, new = table.encode(pl.Series(["a", "b", "a"]))
    assert codes.tolist() == [0, 1, 0]
    assert new == [0, 1]
    codes, new = table.encode(pl.Series(["c", "d", "b", "c"]))
    assert codes.tolist() == [2, NO_KEY, 1, 2]
    table.drop(np.array([1], np.int32))
    assert len(table) == 2
    codes, new = table.encode(pl.Series(["d", "b"]))
    assert codes.tolist() == [1, NO_KEY]
    assert table.decode(np.array([1, 0], np.int32)).to_list() == ["d", "a"]


def test_a_key_table_survives_growth_and_churn():
    import polars as pl

    table = KeyTable(max_keys=100_000)
    for turn in range(5):
        names = [f"k{turn}-{i}" for i in range(4_000)]
        codes, _ = table.encode(pl.Series(names))
        assert len(set(codes.tolist())) == 4_000
        again, new = table.encode(pl.Series(names[::-1]))
        assert again.tolist() == codes.tolist()[::-1]
        assert new == []
        table.drop(codes[::2])
    assert len(table) == 10_000


def test_arrays_grow_by_an_eighth_and_a_copy_of_old_is_kept_where_it_is_held():
    table = KeyedArrays({"a": ((3,), np.float32, 2.0), "b": ((), np.int64, 7)})
    sizes = set()
    for n in range(1, 3_000, 7):
        table.reserve(n)
        table["a"][n - 1], table["b"][n - 1] = n, n
        sizes.add(len(table["a"]))
        assert n <= len(table["a"]) <= max(256, n + n // 8 + 1)
    assert len(sizes) > 10
    assert list(table.arrays) == ["a", "b"]
    written = np.arange(1, 3_000, 7)
    assert table["b"][written - 1].tolist() == written.tolist()
    assert (np.delete(table["b"][: written[-1]], written - 1) == 7).all()
    held = table["a"][:2]
    before = held.copy()
    table.reserve(10_000)
    held[:] = -1
    assert (table["a"][:2] == before).all()
