import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.detectors.graphs import kernels as k
from streamad.detectors.graphs.changes import EdgeChanges
from streamad.errors import ArtifactError, ConfigError
from streamad.graphs.names import hashes_of
from tests.unit.graphs.streams import edges, joined

MINUTE = 60_000
DAY = 86_400_000


def minutes(n, ends, *, first=0):
    """Return n minutes in each of which every pair of ends is seen once."""
    times = (np.repeat(np.arange(n), len(ends)) + first) * MINUTE
    return edges(times, [a for a, _ in ends] * n, [b for _, b in ends] * n)


def one(minute, source, target):
    return edges([minute * MINUTE], [source], [target])


def small():
    return EdgeChanges(nodes=512, edges=512)


def test_a_new_edge_between_known_ends_differs_from_one_of_unknown_ends():
    detector = small()
    memory = detector.new_shared()
    ends = [("web-1", "a"), ("web-1", "b"), ("web-1", "c"), ("w2", "db-9"), ("w3", "db-9")]
    detector.observe(memory, minutes(6 * 1440, ends))
    known, fresh = joined(one(8640, "web-1", "db-9"), one(8640, "x", "db-9")), 8641
    changed = detector.judge(memory, known)
    assert changed.kinds.tolist() == [k.NEW, k.NEW]
    assert changed.scores[0] > 3.5
    assert changed.scores[1] < 0.5
    why = detector.explain_judged(known, changed)
    assert why[0].text == (
        "new edge: web-1 -> db-9; web-1 has been seen for 6 days with 3 targets, "
        "db-9 has been seen for 6 days with 2 sources"
    )
    assert why[0].entities == ("web-1", "db-9")
    assert why[0].variates == {"web-1 -> db-9": 1.0}
    assert why[0].observed == {"web-1 -> db-9": "seen for the first time"}
    assert "x is new, db-9 has been seen for 6 days with 3 sources" in why[1].text
    again = detector.judge(memory, one(fresh, "web-1", "db-9"))
    assert again.scores[0] < 0.5


def test_a_source_that_always_meets_new_targets_is_not_strange():
    detector = EdgeChanges()
    memory = detector.new_shared()
    n = 2_000
    scan = edges(np.arange(n) * MINUTE, ["scanner"] * n, [f"t{i}" for i in range(n)])
    assert detector.observe(memory, scan)[100:].max() < 0.5


def test_an_edge_that_stops_is_reported_once_at_a_later_edge_of_its_source():
    detector = small()
    memory = detector.new_shared()
    detector.observe(memory, minutes(200, [("web-1", "db-9"), ("web-1", "cache")]))
    later = minutes(100, [("web-1", "cache"), ("other", "cache")], first=200)
    changed = detector.judge(memory, later)
    (at,) = np.flatnonzero(changed.kinds == k.VANISHED)
    assert later.source[int(at)] == "web-1"
    assert later.time_ms[at] == 210 * MINUTE
    assert changed.scores[at] == pytest.approx(11 * np.log10(np.e), rel=1e-4)
    why = detector.explain_judged(later, changed, at=np.array([at]))[0]
    assert why.text == (
        "vanished edge: web-1 -> db-9, last seen 11 min ago; web-1 has been active for 11 min "
        "since then, and the edge usually came after 1 min of activity (known for 3 hours)"
    )
    assert why.entities == ("web-1", "db-9")
    assert why.observed == {"web-1 -> db-9": "not seen for 11 min"}
    back = detector.judge(memory, minutes(1, [("web-1", "db-9")], first=300))
    assert back.kinds[0] != k.VANISHED
    gone = detector.judge(memory, minutes(100, [("web-1", "cache")], first=301))
    assert (gone.kinds == k.VANISHED).sum() == 1, "what came back can vanish again"


def test_an_outage_of_the_source_is_no_vanished_edge():
    detector = small()
    memory = detector.new_shared()
    ends = [("web-1", "db-9"), ("web-1", "cache"), ("web-1", "log")]
    detector.observe(memory, minutes(200, ends))
    after = detector.judge(memory, minutes(50, ends, first=5_000))
    assert not (after.kinds == k.VANISHED).any()


def test_a_rare_or_irregular_edge_does_not_vanish():
    detector = small()
    memory = detector.new_shared()
    rng = np.random.default_rng(0)
    found = []
    for minute in range(3_000):
        ends = [("a", "b")] + ([("a", "c")] if rng.random() < 0.1 else [])
        found.append(detector.judge(memory, minutes(1, ends, first=minute)).kinds)
    assert (np.concatenate(found) == k.VANISHED).sum() <= 1


def test_fan_out_is_measured_against_the_sources_own_usual():
    detector = EdgeChanges(window=5)
    memory = detector.new_shared()
    quiet = [("web-1", f"db-{i}") for i in range(3)]
    busy = [("proxy", f"app-{i}") for i in range(60)]
    detector.observe(memory, minutes(100, quiet + busy))
    scan = [("web-1", f"scan-{i}") for i in range(60)]
    rows = minutes(1, busy + scan, first=100)
    changed = detector.judge(memory, rows)
    assert not (changed.kinds[:60] == k.FAN_OUT).any()
    assert changed.kinds[-1] == k.FAN_OUT
    assert changed.scores[-1] > 5
    why = detector.explain_judged(rows, changed, at=np.array([119]))[0]
    count, usual = why.observed["targets of web-1"], why.expected["targets of web-1"]
    assert abs(count - 60) <= 4
    assert usual == pytest.approx(3, abs=0.1)
    assert why.text == f"fan-out: web-1 reaches about {count} targets within 5 min, usually 3"
    assert why.entities == ("web-1",)


def test_distinct_targets_are_counted_within_a_tenth():
    for n in (1, 10, 100, 1_000, 2_000):
        bits = np.zeros(512, np.bool_)
        hashes = hashes_of(pl.Series([f"target-{i}" for i in range(n)]))
        bits[hashes % np.uint64(512)] = True
        assert k.count_targets(int(bits.sum())) == pytest.approx(n, rel=0.15, abs=1)
    assert np.isfinite(k.count_targets(512))


def random_edges(seed, n=400, nodes=40, ticks=60):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, ticks * MINUTE, n)) - rng.integers(0, 2, n) * 3 * MINUTE
    ends = rng.integers(0, nodes, (2, n)) // rng.integers(1, 8, (2, n))
    return edges(times, [f"n{i}" for i in ends[0]], [f"n{i}" for i in ends[1]])


TINY = {"nodes": 16, "edges": 32, "least_seen": 3, "vanish_after": 2.0, "window": 3}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 10**6))
def test_scores_do_not_depend_on_how_batches_are_cut_and_tables_stay_sound(cuts, seed):
    rows = random_edges(seed)
    detector = EdgeChanges(**TINY)
    whole, parts = detector.new_shared(), detector.new_shared()
    wanted = detector.judge(whole, rows)
    ends = sorted({0, len(rows), *cuts})
    found = [detector.judge(parts, rows[a:b]) for a, b in itertools.pairwise(ends)]
    for name in ("scores", "kinds", "facts"):
        got = np.concatenate([getattr(f, name) for f in found])
        assert got.tobytes() == getattr(wanted, name).tobytes()
    assert np.isfinite(wanted.scores).all()
    assert min(whole.given_up) > 0, "the tables are to overflow"
    other = detector.new_shared()
    other.load(whole.state())
    for name, array in parts.state().items():
        assert array.tobytes() == other.state()[name].tobytes()


def test_a_score_is_what_observing_would_give_and_learns_nothing():
    rows = random_edges(7, n=120)
    detector = EdgeChanges(**TINY)
    memory = detector.new_shared()
    for i in range(len(rows)):
        before = memory.state()
        peeked = detector.score(rows[i : i + 1], memory=memory)
        assert all(np.array_equal(before[name], a) for name, a in memory.state().items())
        assert detector.observe(memory, rows[i : i + 1]).tobytes() == peeked.tobytes()
    batch = detector.score(rows[:9], memory=memory)
    alone = [detector.score(rows[i : i + 1], memory=memory) for i in range(9)]
    assert batch.tobytes() == np.concatenate(alone).tobytes()
    assert [w.time_ms for w in detector.explain(rows[:3], memory=memory)] == list(rows.time_ms[:3])


def test_where_nothing_is_given_up_new_edges_are_the_first_of_their_pair():
    rows = random_edges(3, n=2_000, nodes=30)
    detector = EdgeChanges(nodes=1024, edges=8192, window=1, least_seen=10**6)
    memory = detector.new_shared()
    changed = detector.judge(memory, rows)
    assert memory.given_up == (0, 0)
    pairs = list(zip(rows.source, rows.target, strict=True))
    first = np.array([pairs.index(pair) == i for i, pair in enumerate(pairs)])
    assert first[changed.kinds == k.NEW].all()
    assert (changed.kinds[first] != k.NOTHING).all()
    used = memory["edge"][memory["edge_hash"] != 0]
    assert len(used) == len(set(pairs))


def test_a_flood_of_new_nodes_leaves_what_has_been_there_for_long():
    detector = EdgeChanges(nodes=1024, edges=2048)
    memory = detector.new_shared()
    size = memory.n_bytes
    detector.observe(memory, minutes(500, [("web-1", "db-9"), ("web-2", "db-9")]))
    n = 1_000_000
    names = "n" + pl.Series(np.arange(n)).cast(pl.String)
    flood = edges(500 * MINUTE + np.arange(n) // 20_000, names, names.reverse())
    assert np.isfinite(detector.observe(memory, flood)).all()
    assert memory.n_bytes == size
    assert min(memory.given_up) > 900_000
    still = detector.judge(memory, minutes(1, [("web-1", "db-9"), ("web-2", "db-9")], first=501))
    assert still.kinds.tolist() == [k.NOTHING, k.NOTHING]


def test_a_state_comes_back_and_continues_with_the_same_scores():
    detector = EdgeChanges(**TINY)
    memory = detector.new_shared()
    detector.observe(memory, random_edges(1))
    loaded = EdgeChanges(**TINY).load(memory.state()).new_shared()
    rows = random_edges(2)
    assert detector.observe(loaded, rows).tobytes() == detector.observe(memory, rows).tobytes()
    fitted = EdgeChanges(**TINY).fit(random_edges(1))
    assert (
        fitted.score(rows[:5]).tobytes() == detector.load(fitted.state()).score(rows[:5]).tobytes()
    )


def damaged():
    def used(state):
        return np.flatnonzero(state["edge_hash"])

    def known(state):
        return np.flatnonzero(state["node_hash"])

    cases = {
        "a missing array": lambda s: s.pop("edge"),
        "another shape": lambda s: s.update(edge=s["edge"][:-8]),
        "another type": lambda s: s.update(node=s["node"].astype(np.int32)),
        "NaN": lambda s: s["edge_gap"].__setitem__((0, 0), np.nan),
        "a next edge beyond the table": lambda s: s["edge"].__setitem__((used(s), k.NEXT), 10**6),
        "a source beyond the table": lambda s: s["edge"].__setitem__((used(s), k.SOURCE), -7),
        "a ring": lambda s: s["edge"].__setitem__((used(s)[0], k.NEXT), used(s)[0]),
        "a head without an edge": lambda s: s["node"].__setitem__((known(s), k.HEAD), 31),
        "a cursor beyond": lambda s: s["node"].__setitem__((known(s)[0], k.CURSOR), 99),
        "a wrong count": lambda s: s["node"].__setitem__((known(s)[0], k.N_OUT), 77),
        "more bits than there are": lambda s: s["node"].__setitem__((0, k.N_SET), 513),
        "an edge without its source": lambda s: s["node_hash"].__setitem__(slice(None), 0),
        "a negative counter": lambda s: s["counters"].__setitem__(2, -1),
        "started twice": lambda s: s["counters"].__setitem__(1, 2),
    }
    return [pytest.param(damage, id=name) for name, damage in cases.items()]


@pytest.mark.parametrize("damage", damaged())
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    detector = EdgeChanges(**TINY)
    memory = detector.new_shared()
    detector.observe(memory, random_edges(1))
    state = memory.state()
    damage(state)
    other = detector.new_shared()
    with pytest.raises(ArtifactError):
        other.load(state)
    assert all(not array.any() for array in other.state().values())


@pytest.mark.parametrize(
    "setting",
    [
        {"nodes": 8}, {"nodes": 17}, {"edges": 2**25}, {"tick": 0}, {"window": 0},
        {"least_seen": 0}, {"vanish_after": 0.5}, {"vanish_after": float("nan")},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        EdgeChanges(**setting)


def test_odd_names_times_and_no_edges():
    detector = small()
    memory = detector.new_shared()
    rows = edges(
        [-5 * DAY, 10**15, 0, -(10**15)],
        ["", None, "x" * 500, "é" * 60],
        ["", "a\x1b[2J\n", "x" * 500, "é" * 60],
    )
    changed = detector.judge(memory, rows)
    assert np.isfinite(changed.scores).all()
    for why in detector.explain_judged(rows, changed):
        assert why.text.isprintable()
    assert memory["counters"][k.NOW] == 10**15 // MINUTE
    assert detector.observe(memory, rows[:0]).shape == (0,)
    assert detector.explain(rows[:0], memory=memory) == []


def test_the_memory_of_another_detector_is_refused():
    with pytest.raises(ArtifactError, match="new_shared"):
        small().score(one(0, "a", "b"), memory=object())
