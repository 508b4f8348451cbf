"""Keys that wait for their first window yield what they would without the wait, at a few bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.config.values import format_size
from streamad.detectors.knn import FusedKNN
from streamad.detectors.robust_z import RobustZ
from streamad.operators.detect import DetectOperator
from streamad.runtime import snapshots
from streamad.testing.batches import make_columns
from streamad.windows import waiting

SERIES = [
    "{lateness: 3s, reorder: 2, silence: 4s, ttl: 40s}",
    "{silence: 4s, ttl: 20s, select: {exclude: ['k3']}}",
    "{step: 1s, lateness: 2s, late: topic, silence: 6s, ttl: 30s, max_keys: 3}",
    "{step: 2s, kind: counter, gaps: {fill: linear, max_share: 0.5}}",
    "{lateness: 5s, kind: delta, max_keys: 2, ttl: 15s}",
    "{step: 900ms, gaps: {max_share: 0.6}}",
    "{step: 900ms, lateness: 1s, gaps: {max_share: 0.6}}",
]


def rows(seed, n=260):
    """Rows of a few keys, some of which stay away for long; times jump back, and far ahead."""
    rng = np.random.default_rng(seed)
    keys = [f"k{k}" for k in rng.choice(5, n, p=[0.5, 0.3, 0.1, 0.07, 0.03])]
    jumps = rng.choice([400, 900, 9_000, 60_000], n, p=[0.6, 0.37, 0.02, 0.01])
    times = 100_000 + np.cumsum(jumps) - rng.choice([0, 1_500, 4_000], n, p=[0.7, 0.2, 0.1])
    return keys, times, rng.normal(10, 1, n).round(3)


class Early(RobustZ):
    """Judges a key from its sixth sample on."""

    min_periods = 6

    def score(self, windows, *, memory=None, slots=None):
        return super().score(np.nan_to_num(windows), memory=memory, slots=slots)


def run(series, data, cuts, *, restored=False, kind=RobustZ):
    config = parse_pipeline(
        f"name: t\ndetector: robust_z\nwindows: {{size: 12}}\nseries: {series}\n"
        "scoring: {min_windows: 4}"
    )
    op = DetectOperator(config, kind(size=12))
    state, made, left_out = op.new_state(), set(), 0
    keys, times, values = data
    for start, stop in pairwise([0, *sorted(cuts), len(keys)]):
        batch = make_columns(keys[start:stop], times[start:stop], values[start:stop])
        out = op.process(state, batch)
        made |= {
            (f.id, f.sequence, f.state, f.kind, f.window_end_ms, f.reason) for f in out.findings
        }
        made |= {("late", start + int(row)) for row in out.late}
        made |= {(r.reason, start + r.message) for r in out.rejected}
        left_out += out.counts["deselected"]
        for log in out.scores:
            made |= set(
                zip(log.keys, log.end_ms, log.ordinal, log.score.view(np.uint32), strict=True)
            )
        if restored:
            kept = snapshots.encode(state, identity=op.identity)
            state = op.new_state()
            snapshots.restore(state, kept, identity=op.identity)
    return made | {("deselected", left_out)}


@pytest.mark.parametrize("kind", [RobustZ, Early])
@pytest.mark.parametrize("series", SERIES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 260), max_size=12))
def test_waiting_changes_nothing(series, kind, seed, cuts):
    data = rows(seed)
    assert run(series, data, cuts, kind=kind) == run(series, data, cuts, restored=True, kind=kind)
    whole = run(series, data, [], kind=kind)
    assert whole == run(series, data, cuts, kind=kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "MOST_ROWS", 0)
        assert run(series, data, [], kind=kind) == whole


def test_keys_without_a_window_cost_little_and_their_memory_comes_back():
    config = parse_pipeline("name: t\nseries: {ttl: 1h}")
    op = DetectOperator(config, FusedKNN(size=64))
    state = op.new_state()
    n = 20_000
    op.process(state, make_columns([f"k{i}" for i in range(n)], np.full(n, 1_000), np.ones(n)))
    assert state.n_keys == len(state.waiting) == n
    assert len(state.windows.state["clock"]) == len(state.memory) == 0
    room = state.waiting
    assert len(room._time) * room.bytes_per_row < 40 * n
    assert room.state.bytes_per_row < 80
    out = op.process(
        state, make_columns(["one"] * 3, 1_000 + 3_600_000 * np.arange(1, 4), np.ones(3))
    )
    assert out.counts["forgotten"] == n
    assert len(room._time) <= 1_024


def test_memory_bounds_the_keys_that_get_windows():
    probe = DetectOperator(parse_pipeline("name: t\ndetector: robust_z"), RobustZ(size=16))
    # Of the memory an eighth is for the keys that wait.
    two = -(-2 * probe.new_state().bytes_per_key * 8 // 7)
    config = parse_pipeline(f"name: t\ndetector: robust_z\nseries: {{max_memory: {two}B}}")
    op = DetectOperator(config, RobustZ(size=16))
    state = op.new_state()
    keys = ["a", "b", "c"] * 20
    out = op.process(state, make_columns(keys, 1_000 * np.arange(60), np.ones(60)))
    assert (len(state.keys), len(state.waiting)) == (2, 1)
    # "c" waits with 15 rows, and the other five are refused.
    assert [r.reason for r in out.rejected] == ["key_limit"] * 5
    assert f"series.max_memory is {format_size(two)}" in out.rejected[0].detail
    assert sum(map(len, out.scores)) == 2 * 5
