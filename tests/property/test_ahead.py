"""One message or one key moves partition time by max_ahead at most; others may confirm more."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.detectors.robust_z import RobustZ
from streamad.operators.detect import DetectOperator
from streamad.runtime import snapshots
from streamad.testing.batches import make_columns

HOUR, DAY = 3_600_000, 86_400_000
Y2199 = 7_226_582_400_000
NOW = 1_772_366_400_000
CONFIG = parse_pipeline(
    "name: t\ndetector: robust_z\nwindows: {size: 16}\nseries: {silence: 5m, ttl: 1d}"
)


def operator():
    return DetectOperator(CONFIG, RobustZ(size=16))


def calm(n, *, start=NOW, keys=("a", "b", "c", "d")):
    rows = [(key, start + 1_000 * i) for i in range(n) for key in keys]
    return [key for key, _ in rows], [t for _, t in rows]


def feed(op, state, keys, times, *, broker=None):
    """Under CreateTime: the broker's timestamp is the record's own."""
    batch = make_columns(keys, times, np.ones(len(keys)))
    batch.broker_ms[:] = times if broker is None else broker
    return op.process(state, batch)


def test_a_record_of_2199_is_refused_and_silences_and_forgets_nobody():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40))
    out = feed(op, state, ["a", "x"], [Y2199, Y2199])
    assert [r.reason for r in out.rejected] == ["time_ahead"] * 2
    assert "ahead of what other records of the partition show" in out.rejected[0].detail
    assert [(f.kind, f.key) for f in out.findings] == [("clock", "a"), ("clock", "x")]
    out = feed(op, state, *calm(40, start=NOW + 40_000))
    assert out.findings == []
    assert (state.n_keys, out.counts["forgotten"], len(out.late)) == (4, 0, 0)
    assert state.partition_ms < NOW + HOUR


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(HOUR + 60_000, 170 * 365 * DAY), min_size=1, max_size=200))
def test_one_key_alone_never_moves_partition_time(jumps):
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(20))
    for jump in jumps:
        feed(op, state, ["a"], [NOW + jump])
        feed(op, state, ["b"], [state.ahead.clock[0] + 10])
    assert state.partition_ms < NOW + HOUR
    assert {"a", "b"} <= {str(name) for name in state.keys.names}


def test_keys_that_come_back_after_weeks_confirm_each_other():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40))
    keys, times = calm(40, start=NOW + 21 * DAY)
    out = feed(op, state, keys, times)
    assert [r.message for r in out.rejected] == [0, 1]
    assert state.partition_ms == max(times)


def test_a_single_key_resumes_after_a_gap_and_slow_data_is_never_ahead():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40, keys=["a"]))
    out = feed(op, state, *calm(40, start=NOW + 21 * DAY, keys=["a"]))
    assert len(out.rejected) == 2
    op = operator()
    state = op.new_state()
    daily = NOW + DAY * np.arange(60)
    assert len(feed(op, state, ["a"] * 60, daily).rejected) <= 2


def test_one_message_confirms_nothing_however_many_rows_it_has():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40))
    batch = make_columns(list("abcd") * 50, np.full(200, Y2199), np.ones(200))
    batch.message[:] = 0
    out = op.process(state, batch)
    assert len(out.rejected) == 200
    assert state.partition_ms < NOW + HOUR


def test_findings_on_clocks_are_bounded():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40, keys=[f"k{i}" for i in range(120)]))
    out = feed(op, state, [f"x{i % 30}" for i in range(500)], [Y2199] * 500)
    assert len(out.rejected) == 500
    assert len(out.findings) == 20


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 200), max_size=10))
def test_neither_batches_nor_restarts_change_what_is_refused(seed, cuts):
    rng = np.random.default_rng(seed)
    keys = [f"k{k}" for k in rng.integers(0, 4, 200)]
    steps = rng.choice([500, HOUR, 3 * HOUR, 30 * DAY], 200, p=[0.9, 0.04, 0.03, 0.03])
    times = NOW + np.where(rng.random(200) < 0.5, np.cumsum(steps), 500 * np.arange(200))

    def run(cuts):
        op = operator()
        state, made = op.new_state(), []
        for start, stop in pairwise([0, *sorted(cuts), 200]):
            batch = make_columns(keys, times, np.ones(200)).take(start, stop)
            out = op.process(state, batch)
            made += [(r.message, r.detail) for r in out.rejected if r.reason == "time_ahead"]
            made += [(f.id, f.state, f.reason) for f in out.findings]
            kept = snapshots.encode(state, identity=op.identity)
            state = op.new_state()
            snapshots.restore(state, kept, identity=op.identity)
        return sorted(map(str, made)), state.partition_ms

    assert run(cuts) == run([])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 600), max_size=10))
def test_batches_do_not_change_the_order_of_findings_on_the_clock_of_a_key(seed, cuts):
    # The alert stage opens an alert for the first of them, and names it after that one.
    rng = np.random.default_rng(seed)
    times = NOW + 1_000 * np.arange(600)
    behind = int(rng.integers(100, 400))
    times[behind : behind + 100] -= HOUR
    times[rng.integers(0, 600, 3)] = Y2199

    def run(cuts):
        op = operator()
        state, made = op.new_state(), []
        for start, stop in pairwise([0, *sorted(cuts), 600]):
            batch = make_columns(["a"] * 600, times, np.ones(600)).take(start, stop)
            made += [f.id for f in op.process(state, batch).findings if f.kind == "clock"]
        return made

    assert len(run([])) == 2
    assert run(cuts) == run([])


def test_a_key_that_is_only_late_is_reported_once():
    op = operator()
    state = op.new_state()
    feed(op, state, *calm(40))
    # Within max_ahead: accepted, and from then on the key's own records are late.
    feed(op, state, ["a"], [NOW + HOUR // 2])
    out = feed(op, state, *calm(200, start=NOW + 41_000))
    (told,) = [f for f in out.findings if f.kind == "clock"]
    assert told.key == "a"
    assert "64 records are late" in told.reason
    assert out.counts["late"] == 200
