import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.detectors.graphs.edges import EdgeStream, SketchMemory
from streamad.errors import ArtifactError, ConfigError
from tests.unit.graphs.streams import TICK, auc, edges, joined, traffic


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 3))
def test_scores_do_not_depend_on_how_batches_are_cut(cuts, seed):
    rows = traffic(14, seed=seed)
    detector = EdgeStream(tick=TICK, buckets=64, adopt_after=3, threshold=20)
    whole, parts = detector.new_shared(), detector.new_shared()
    wanted = detector.observe(whole, rows)
    ends = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    got = [detector.observe(parts, rows[a:b]) for a, b in itertools.pairwise(ends)]
    assert np.concatenate(got).tobytes() == wanted.tobytes()
    for name, array in whole.state().items():
        assert array.tobytes() == parts.state()[name].tobytes()


def test_one_at_a_time_is_the_same_and_a_score_is_what_observing_would_give():
    rows = traffic(12, seed=5)
    detector = EdgeStream(tick=TICK, buckets=64, adopt_after=2, threshold=10, horizon=5)
    memory = detector.new_shared()
    wanted = detector.observe(detector.new_shared(), rows)
    for i in range(len(rows)):
        before = memory.state()
        peeked = detector.score(rows[i : i + 1], memory=memory)
        assert all(np.array_equal(before[name], a) for name, a in memory.state().items())
        assert detector.observe(memory, rows[i : i + 1]).tobytes() == peeked.tobytes()
        assert peeked.tobytes() == wanted[i : i + 1].tobytes()


def test_a_score_is_the_same_alone_and_in_a_batch_and_leaves_its_input():
    detector = EdgeStream(tick=TICK).fit(traffic(20))
    rows = traffic(5, seed=8, first=20)
    times = rows.time_ms.copy()
    batch = detector.score(rows)
    alone = [detector.score(rows[i : i + 1]) for i in range(len(rows))]
    assert batch.tobytes() == np.concatenate(alone).tobytes()
    assert batch.dtype == np.float32
    assert np.array_equal(times, rows.time_ms)


def test_empty_ticks_fade_current_counts_and_leave_usual_ones():
    detector = EdgeStream(tick=TICK, decay=0.5, buckets=512)
    memory = detector.new_shared()
    detector.observe(memory, edges([0] * 8 + [1_000] * 8, ["a"] * 16, ["b"] * 16))
    far = detector.judge(memory, edges([4_500], ["a"], ["b"]))
    # 8, then 4 + 8 = 12, three ticks later 1.5, and the edge itself.
    assert far.counts[0].tolist() == [2.5] * 3
    assert far.usual[0].tolist() == [(8 + 12 + 1) / 3] * 3
    assert memory["clock"].tolist() == [4, 2, 1]


def test_late_edges_count_into_the_current_tick():
    detector = EdgeStream(tick=TICK)
    memory = detector.new_shared()
    detector.observe(memory, traffic(10))
    at = memory["clock"].tolist()
    late = detector.judge(memory, edges([2_000, -5_000], ["new", "new"], ["x", "x"]))
    assert memory["clock"].tolist() == at
    assert late.counts[:, 0].tolist() == [1, 2]
    assert np.isfinite(late.scores).all()


def test_a_state_comes_back_and_continues_with_the_same_scores():
    detector = EdgeStream(tick=TICK, buckets=100)
    first, then = traffic(20), traffic(20, seed=2, first=20)
    memory = detector.new_shared()
    detector.observe(memory, first)
    other = detector.new_shared()
    other.load(memory.state())
    assert detector.observe(other, then).tobytes() == detector.observe(memory, then).tobytes()


def test_a_fitted_detector_comes_back():
    fitted = EdgeStream(tick=TICK).fit(traffic(30))
    loaded = EdgeStream(tick=TICK).load(fitted.state())
    rows = traffic(3, seed=4, first=30)
    assert loaded.score(rows).tobytes() == fitted.score(rows).tobytes()
    assert fitted.observe(loaded.new_shared(), rows)[0] > 0
    assert fitted.score(rows).tobytes() == loaded.score(rows).tobytes(), "a memory is a copy"


def damaged():
    cases = {
        "a missing array": lambda s: s.pop("total"),
        "an extra array": lambda s: s.update(more=np.zeros(1)),
        "another shape": lambda s: s.update(total=s["total"][:, :1]),
        "another type": lambda s: s.update(held=s["held"].astype(np.int64)),
        "a negative count": lambda s: s["current"].__setitem__((0, 0, 0), -1.0),
        "NaN": lambda s: s["total"].__setitem__((1, 0, 3), np.nan),
        "infinity": lambda s: s["total"].__setitem__((1, 0, 3), np.inf),
        "a negative hold": lambda s: s["held"].__setitem__((0, 0, 0), -1),
        "a clock never started": lambda s: s["clock"].__setitem__(2, 0),
        "a clock of two": lambda s: s["clock"].__setitem__(2, 2),
        "negative ticks": lambda s: s["clock"].__setitem__(1, -1),
    }
    return [pytest.param(damage, id=name) for name, damage in cases.items()]


@pytest.mark.parametrize("damage", damaged())
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    detector = EdgeStream(tick=TICK, buckets=64)
    memory = detector.new_shared()
    detector.observe(memory, traffic(10))
    state = memory.state()
    damage(state)
    other = detector.new_shared()
    with pytest.raises(ArtifactError):
        other.load(state)
    assert all(not array.any() for array in other.state().values())


def test_the_memory_of_another_detector_is_refused():
    with pytest.raises(ArtifactError, match="new_shared"):
        EdgeStream().score(traffic(1), memory=object())


@pytest.mark.parametrize(
    "setting",
    [
        {"tick": 0}, {"rows": 0}, {"rows": 17}, {"buckets": 15}, {"decay": 1.0}, {"decay": -0.1},
        {"threshold": 0.0}, {"threshold": math.nan}, {"adopt_after": -1}, {"horizon": 1},
        {"seed": -1}, {"decay": math.nan},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        EdgeStream(**setting)


def test_a_flood_of_new_nodes_costs_no_memory_and_stays_finite():
    detector = EdgeStream(tick=TICK)
    memory = detector.new_shared()
    size = memory.n_bytes
    assert size == 3 * 2 * 2719 * 20 + 24
    n = 1_000_000
    names = "n" + pl.Series(np.arange(n)).cast(pl.String)
    flood = edges(np.arange(n) // 100_000 * TICK, names, names.reverse())
    scores = detector.observe(memory, flood)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert memory.n_bytes == size


@pytest.mark.parametrize("weight", [0.0, -3.0, math.nan, math.inf, -math.inf, 1e300, 5e-324, 1e12])
def test_any_weight_gives_a_finite_score_and_a_sound_state(weight):
    detector = EdgeStream(tick=TICK, buckets=64)
    memory = detector.new_shared()
    detector.observe(memory, traffic(5))
    odd = edges([5_000] * 50 + [6_000] * 50, ["a"] * 100, ["a"] * 100, [weight] * 100)
    after = joined(odd, traffic(20, first=7))
    assert np.isfinite(detector.observe(memory, after)).all()
    other = SketchMemory(2, 64)
    other.load(memory.state())


def test_weights_count():
    detector = EdgeStream(tick=TICK)
    one, many = detector.new_shared(), detector.new_shared()
    weighted = detector.judge(one, edges([0], ["a"], ["b"], [5.0]))
    single = detector.judge(many, edges([0] * 5, ["a"] * 5, ["b"] * 5))
    assert weighted.counts[0].tolist() == single.counts[4].tolist()


def test_no_edges_is_no_scores():
    detector = EdgeStream()
    memory = detector.new_shared()
    assert detector.observe(memory, traffic(0)).shape == (0,)
    assert detector.score(traffic(0), memory=memory).shape == (0,)
    assert detector.explain(traffic(0), memory=memory) == []
    assert not memory["clock"].any()


@pytest.mark.parametrize(
    "burst",
    [
        pytest.param(lambda i: ("s1", "t3"), id="one edge"),
        pytest.param(lambda i: ("s5", f"scan{i}"), id="one source, new targets"),
        pytest.param(lambda i: (f"bot{i}", "t2"), id="new sources, one target"),
    ],
)
def test_bursts_stand_out(burst):
    found = []
    for seed in range(3):
        ends = [burst(i) for i in range(300)]
        bad = edges([200_000] * 300, [a for a, _ in ends], [b for _, b in ends])
        rows = joined(traffic(200, seed=seed), bad, traffic(50, seed=seed + 5, first=201))
        is_bad = np.zeros(len(rows), np.bool_)
        start = int(np.searchsorted(rows.time_ms, 200_000))
        is_bad[start : start + 300] = True
        detector = EdgeStream(tick=TICK, seed=seed)
        found.append(auc(detector.observe(detector.new_shared(), rows), is_bad))
    assert min(found) > 0.95, found


def test_steady_traffic_scores_low_whatever_its_volume():
    for per_tick in (5, 50, 500):
        # Every tick brings the same edges.
        n = 300 * per_tick
        ends = np.arange(n) % min(per_tick, 20)
        rows = edges(
            np.repeat(np.arange(300), per_tick) * TICK,
            [f"s{i % 4}" for i in ends],
            [f"t{i % 7}" for i in ends],
        )
        detector = EdgeStream(tick=TICK)
        scores = detector.observe(detector.new_shared(), rows)[n // 2 :]
        assert scores.max() < 0.1, per_tick


def test_a_lull_is_no_burst():
    detector = EdgeStream(tick=TICK)
    memory = detector.new_shared()
    n = 100 * 1_000
    detector.observe(memory, edges(np.arange(n) // 1_000 * TICK, ["a"] * n, ["b"] * n))
    assert detector.observe(memory, edges([110_000], ["a"], ["b"]))[0] == 0


def test_what_floods_is_not_learned_until_it_has_lasted():
    def usual_after(n_flooded, **plan):
        detector = EdgeStream(tick=TICK, adopt_after=20, **plan)
        memory = detector.new_shared()
        n = 100 * 10
        detector.observe(memory, edges(np.arange(n) // 10 * TICK, ["a"] * n, ["b"] * n))
        m = n_flooded * 2_000
        times = (100 + np.arange(m) // 2_000) * TICK
        detector.observe(memory, edges(times, ["a"] * m, ["b"] * m))
        last = edges([(100 + n_flooded) * TICK], ["a"], ["b"])
        return detector.judge(memory, last).usual[0, 0]

    assert usual_after(15) < 25
    assert usual_after(15, threshold=math.inf) > 200
    assert usual_after(25) > 2_000


def test_an_explanation_names_the_largest_of_the_three_and_both_ends():
    detector = EdgeStream(tick=60_000)
    memory = detector.new_shared()
    usual = edges(np.arange(2_000) // 10 * 60_000, ["web-1"] * 2_000, ["db-9"] * 2_000)
    detector.observe(memory, usual)
    scan = edges([12_000_000] * 500, ["web-1"] * 500, [f"x{i}" for i in range(500)])
    judged = detector.judge(memory, scan)
    (why,) = detector.explain_judged(scan, judged, at=np.array([499]))
    assert why.text.startswith("from web-1: 510 in the last 2 min, usually 19")
    assert why.entities == ("web-1", "x499")
    assert set(why.variates) == {"web-1 -> x499", "from web-1", "to x499"}
    assert sum(why.variates.values()) == pytest.approx(1)
    assert why.observed["from web-1"] == 510
    assert why.expected["from web-1"] == pytest.approx(20, rel=0.02)
    assert why.time_ms == 12_000_000


def test_an_explanation_of_a_self_loop_and_of_hostile_names_is_one_short_line():
    detector = EdgeStream()
    rows = edges([0, 0], ["a", "x\n\x1b[2J" + "y" * 900], ["a", None])
    loop, hostile = detector.explain(rows)
    assert loop.entities == ("a",)
    assert sum(loop.variates.values()) == pytest.approx(1)
    assert "\n" not in hostile.text
    assert "\x1b" not in hostile.text
    assert len(hostile.text) < 600
