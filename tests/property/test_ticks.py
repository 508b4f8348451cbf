"""Ticks that decide nothing are skipped, and skipping them changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.detectors.robust_z import RobustZ
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_columns
from streamad.windows.arrays import NEVER

CONFIG = parse_pipeline(
    "name: t\ndetector: robust_z\nwindows: {size: 16}\n"
    "series: {silence: 4s, ttl: 20s, select: {exclude: ['x*']}}"
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["a", "b", "c", "x1"]), st.integers(0, 9_000)),
        st.integers(1, 30_000),  # the wall clock passes
    ),
    max_size=60,
)


def run(steps, *, skip):
    op = DetectOperator(CONFIG, RobustZ(size=16))
    state, now, found = op.new_state(), 1_000, []
    for step in steps:
        if not skip:
            state.due_ms = int(NEVER)
        if isinstance(step, int):
            now += step
            out = op.tick(state, now)
        else:
            key, back = step
            out = op.process(state, make_columns([key], [max(now - back, 1)], [1.0]))
            now += 500
        found += [
            (f.id, f.sequence, f.state, f.key, f.window_end_ms, f.reason) for f in out.findings
        ]
        found.append(out.counts["forgotten"])
    return found, state.n_keys


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_skipped_ticks_decide_nothing(steps):
    assert run(steps, skip=True) == run(steps, skip=False)


def test_a_tick_with_nothing_due_looks_at_no_key(monkeypatch: pytest.MonkeyPatch):
    op = DetectOperator(parse_pipeline("name: t\ndetector: robust_z\nseries: {silence: 1h}"),
                        RobustZ(size=64))  # fmt: skip
    state = op.new_state()
    op.process(state, make_columns(["a", "b"], [10_000, 10_000], [1, 1]))
    assert op.tick(state, 10_000 + 1_800_000).findings == []

    def looked():
        pytest.fail("a tick with nothing due went through the keys")

    monkeypatch.setattr(state.keys, "live", looked)
    assert op.tick(state, 10_000 + 3_000_000).findings == []
    monkeypatch.undo()
    assert {f.key for f in op.tick(state, 10_000 + 4_500_000).findings} == {"a", "b"}


def test_live_keys_are_those_in_use_after_some_left():
    op = DetectOperator(CONFIG, RobustZ(size=16))
    keys = op.new_state().keys
    names = [f"k{i}" for i in range(3_000)]
    codes, _ = keys.encode(make_columns(names, range(3_000), [0.0] * 3_000).keys)
    assert keys.live().tolist() == list(range(3_000))
    keys.drop(codes[::2])
    assert keys.live().tolist() == codes[1::2].tolist()
    keys.encode(make_columns(["new"], [1], [0.0]).keys)
    assert len(keys.live()) == len(keys) == 1_501
