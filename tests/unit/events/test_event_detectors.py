"""Detectors of events: the contract, the reasons, and what keys learn of themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from streamad.detectors.events.ape import Ape
from streamad.detectors.events.peers import EVERY, PeerMemory
from streamad.detectors.events.rare import RareEvents
from streamad.errors import ArtifactError, NotFittedError, TrainingError, WindowError
from streamad.events.rows import EventRows

KINDS = (RareEvents, Ape)


def make(kind):
    return kind(n_seeds=2, steps=300) if kind is Ape else kind()


def frame(n: int, seed: int = 0) -> pl.DataFrame:
    """Return events of two blocks that never mix, and a number."""
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 2, n)
    user, process = rng.integers(0, 5, n), rng.integers(0, 5, n)
    return pl.DataFrame(
        {
            "user": [f"u{b}{i}" for b, i in zip(block, user, strict=True)],
            "process": [f"p{b}{i}" for b, i in zip(block, process, strict=True)],
            "host": [f"h{b}" for b in block],
            "bytes": rng.exponential(100, n).round(),
        }
    )


def rows(fields: pl.DataFrame, start: int = 0) -> EventRows:
    return EventRows(start + np.arange(len(fields), dtype=np.int64), fields)


def mixed(fields: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return events whose process is of the other block."""
    swapped = [("p1" if p[1] == "0" else "p0") + p[2:] for p in fields["process"]]
    return fields.with_columns(process=pl.Series(swapped))


def auc(low, high) -> float:
    return float(((high[:, None] > low) + 0.5 * (high[:, None] == low)).mean())


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.info.name)
def fitted(request):
    return make(request.param).fit(rows(frame(3000)))


def copy(state):
    return {name: array.copy() for name, array in state.items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(one[n].tobytes() == other[n].tobytes() for n in one)


def test_what_does_not_go_together_scores_high(fitted):
    fresh = frame(500, seed=1)
    low, high = fitted.score(rows(fresh)), fitted.score(rows(mixed(fresh)))
    assert low.dtype == high.dtype == np.float32
    assert auc(low, high) > 0.9


def test_members_of_a_trained_ensemble_all_find_mixed_blocks():
    detector = make(Ape).fit(rows(frame(3000)))
    members = detector._members
    fresh = frame(500, seed=1)
    low, high = (members.of(members.vocabulary.encode(rows(f))) for f in (fresh, mixed(fresh)))
    assert low.shape[1] == 6 + len(members.energies)
    assert len(members.energies) >= 2
    for column in range(6, low.shape[1]):
        assert auc(low[:, column], high[:, column]) > 0.9


def test_a_batch_equals_one_by_one_in_any_order(fitted):
    items = rows(pl.concat([frame(40, seed=2), mixed(frame(40, seed=3))]))
    whole = fitted.score(items)
    alone = np.concatenate([fitted.score(items[i : i + 1]) for i in range(len(items))])
    assert whole.tobytes() == alone.tobytes()
    order = np.random.default_rng(0).permutation(len(items))
    assert whole[order].tobytes() == fitted.score(items[order]).tobytes()
    explained = fitted.explain(items)
    assert explained[7] == fitted.explain(items[7:8])[0]


def test_nothing_is_changed_by_scoring(fitted):
    items = rows(frame(50, seed=4))
    kept, before = items.fields.clone(), copy(fitted.state())
    fitted.score(items)
    fitted.explain(items)
    assert items.fields.equals(kept)
    assert same(before, fitted.state())


def test_state_comes_back_bit_for_bit(fitted):
    items = rows(mixed(frame(100, seed=5)))
    stored = load_tensors(save_tensors(fitted.state()))
    other = make(type(fitted)).load(stored)
    assert fitted.score(items).tobytes() == other.score(items).tobytes()
    assert same(fitted.state(), other.state())
    assert fitted.explain(items[:5]) == other.explain(items[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_equal_fits_are_equal(kind):
    one, other = (make(kind).fit(rows(frame(600))) for _ in range(2))
    assert same(one.state(), other.state())


def test_odd_events_have_finite_scores(fitted):
    schema = frame(1).schema
    odd = pl.DataFrame(
        {
            "user": [None, "", "\0", "new", "u00"],
            "process": [None, "💥" * 1000, "p00\n", "new", "p00"],
            "host": [None, " ", "\u202e", "new", "h0"],
            "bytes": [None, np.nan, np.inf, -1e308, 10.0],
        },
        schema=schema,
    )
    scores = fitted.score(rows(odd))
    assert np.isfinite(scores).all()
    assert scores[3] > scores[4]
    assert fitted.score(rows(odd[:0])).shape == (0,)
    assert fitted.explain(rows(odd[:0])) == []
    for told in fitted.explain(rows(odd)):
        assert told.text
        assert told.text.isprintable()
        assert sum(told.variates.values()) == pytest.approx(1)
    nulls = pl.DataFrame({name: [None] for name in schema})
    assert np.isfinite(fitted.score(rows(nulls))).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.one_of(st.none(), st.text(max_size=8))] * 2), min_size=1))
def test_any_texts_can_be_learned_and_scored(values):
    items = rows(pl.DataFrame(values, schema={"a": pl.String, "b": pl.String}, orient="row"))
    detector = RareEvents().fit(items)
    scores = detector.score(items)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    for told in detector.explain(items):
        assert set(told.variates) == {"a", "b"}
        assert sum(told.variates.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_values_do_not_matter(kind):
    def renamed(fields):
        return fields.with_columns(
            pl.col("user", "process", "host").map_elements(
                lambda text: f"{text[::-1]}-{text}", return_dtype=pl.String
            )
        )

    train, fresh = frame(2000), frame(400, seed=1)
    found = []
    for name in (lambda fields: fields, renamed):
        detector = make(kind).fit(rows(name(train)))
        found.append(auc(*(detector.score(rows(name(f))) for f in (fresh, mixed(fresh)))))
    assert found[0] == pytest.approx(found[1], abs=0.01)


def test_reasons_are_named(fitted):
    fresh = frame(50, seed=1)
    at = int(np.flatnonzero(fresh["user"].str.starts_with("u0").to_numpy())[0])
    usual = fresh[at : at + 1]
    pair = fitted.explain(rows(mixed(usual), start=99))[0]
    assert pair.text.startswith("new pair: ")
    assert pair.time_ms == 99
    assert pair.observed["process"] == mixed(usual)["process"][0]
    assert pair.expected["process"].startswith("p0")
    assert max(pair.variates, key=pair.variates.get) == "process"
    new = fitted.explain(rows(usual.with_columns(user=pl.lit("mallory"))))[0]
    assert new.text == "new value: user=mallory (not seen in training)"
    assert new.expected["user"].startswith("u0")
    far = fitted.explain(rows(usual.with_columns(bytes=pl.lit(1e9))))[0]
    assert far.text == "new value: bytes=1e+09 (outside the range seen in training)"
    assert far.observed["bytes"] == 1e9
    absent = fitted.explain(rows(usual.with_columns(user=pl.lit(None, pl.String))))[0]
    assert "user" not in absent.observed


def test_tails_are_of_ordinary_events(fitted):
    assert (np.diff(fitted.info.tail) > 0).all()
    share = float((fitted.score(rows(frame(4000, seed=8))) >= fitted.info.tail[1]).mean())
    assert share < 0.04


def test_counts_stand_for_repeated_rows():
    fields = frame(300)
    counts = np.random.default_rng(0).integers(1, 4, len(fields))
    long = fields[np.repeat(np.arange(len(fields)), counts)]
    one = RareEvents().fit(rows(fields), counts=counts.astype(np.float64)).state()
    other = RareEvents().fit(rows(long)).state()
    for name in ("vocabulary.blob", "counts.cells", "counts.surprise", "counts.excess"):
        assert np.allclose(one[name], other[name], atol=1e-5), name


def test_what_cannot_be_is_refused(fitted):
    with pytest.raises(WindowError, match="host"):
        fitted.score(rows(frame(3).drop("host")))
    with pytest.raises(TrainingError):
        RareEvents().fit(rows(frame(0)))
    with pytest.raises(TrainingError):
        RareEvents().fit(rows(frame(3)), counts=np.array([1.0, 0.0, 1.0]))
    for kind in KINDS:
        with pytest.raises(NotFittedError):
            make(kind).score(rows(frame(3)))
        assert make(kind).state() == {}


@pytest.mark.parametrize(
    "name",
    [
        "counts.cells", "counts.excess", "models.vectors", "models.kinds", "ranks.knots",
        "ranks.spans", "decades.decades", "vocabulary.ends",
    ],
)  # fmt: skip
def test_damaged_artifacts_are_refused(fitted, name):
    state = fitted.state()
    if state[name].size == 0:
        pytest.skip("nothing there to damage")
    lacking = {n: a for n, a in state.items() if n != name}
    for spoiled in (lacking, {**state, name: state[name][:-1]}, {**state, name: -state[name] - 1}):
        as_long = len(spoiled.get(name, ())) == len(state[name])
        if name in {"models.kinds", "counts.excess", "models.vectors"} and as_long:
            continue  # other values are as possible
        with pytest.raises(ArtifactError):
            make(type(fitted)).load(spoiled)


# keys ---------------------------------------------------------------------------------------------


def stream(detector, memory, items, slots, *, cut=None, admit=None):
    """Score and learn in order, in calls that end where a key's memory may change, or sooner."""
    seen = dict.fromkeys(slots.tolist(), 0)
    scores, start = [], 0
    while start < len(items):
        stop, most = start, len(items) if cut is None else int(cut.integers(1, 90))
        while stop < len(items) and stop - start < most:
            seen[int(slots[stop])] += 1
            stop += 1
            if seen[int(slots[stop - 1])] % EVERY == 0:
                break
        part = slice(start, stop)
        scores.append(detector.score(items[part], memory=memory, slots=slots[part]))
        ok = np.ones(stop - start, np.bool_) if admit is None else admit[part]
        detector.learn(memory, items[part], slots=slots[part], admit=ok)
        start = stop
    return np.concatenate(scores)


def keyed(detector, n_slots: int) -> PeerMemory:
    memory = detector.new_memory(4)
    memory.reserve(n_slots)
    return memory


def of_block(n: int, block: int, seed: int = 0) -> pl.DataFrame:
    own = frame(4 * n, seed)
    return own.filter(pl.col("host") == f"h{block}")[:n]


def test_a_key_without_an_artifact_learns_as_it_goes():
    detector = RareEvents()
    memory = keyed(detector, 1)
    usual = rows(of_block(1500, 0))
    zeros = np.zeros(1500, np.int32)
    scores = stream(detector, memory, usual, zeros)
    assert (scores[: 2 * EVERY] == 0).all()
    foreign = rows(of_block(20, 1))
    strange = detector.score(foreign, memory=memory, slots=zeros[:20])
    assert strange.min() > np.quantile(scores[1000:], 0.99)
    told = detector.explain(foreign[:1], memory=memory, slots=zeros[:1])[0]
    assert told.text.startswith("rare for this key: ")
    assert told.expected == {}


def test_rare_for_this_key_but_common_for_its_peers():
    train = frame(3000)
    groups = train["host"].str.slice(1).cast(pl.Int32).to_numpy()
    detector = RareEvents().fit(rows(train), groups=groups)
    memory = keyed(detector, 3)
    several = np.arange(3, dtype=np.int32)
    detector.seed_memories(memory, slots=several, groups=several)
    assert memory.totals[2] == 0  # training had two groups
    fresh = rows(of_block(30, 0, seed=3))
    own = detector.score(fresh, memory=memory, slots=np.zeros(30, np.int32))
    other = detector.score(fresh, memory=memory, slots=np.ones(30, np.int32))
    assert np.array_equal(own, detector.score(fresh))
    assert other.min() > own.max()
    told = detector.explain(fresh[:1], memory=memory, slots=np.ones(1, np.int32))[0]
    assert told.text.startswith("rare for this key (common among its peers): ")
    again = RareEvents().load(load_tensors(save_tensors(detector.state())))
    memory = keyed(again, 2)
    again.seed_memory(memory, slot=1, group=1)
    assert np.array_equal(other, again.score(fresh, memory=memory, slots=np.ones(30, np.int32)))


@pytest.mark.parametrize("trained", [False, True])
def test_how_a_stream_is_cut_does_not_matter(trained):
    detector = RareEvents()
    if trained:
        detector.fit(rows(frame(1000)), groups=np.arange(1000, dtype=np.int32) % 2)
    items = rows(pl.concat([frame(1600, seed=5), mixed(frame(200, seed=6))]))
    slots = np.random.default_rng(0).integers(0, 2, len(items)).astype(np.int32)
    admit = np.arange(len(items)) % 600 < 500
    found = [
        stream(
            detector,
            keyed(detector, 2),
            items,
            slots,
            cut=np.random.default_rng(seed) if seed else None,
            admit=admit,
        )
        for seed in range(3)
    ]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_a_memory_comes_back_does_not_grow_and_can_be_forgotten():
    detector = RareEvents()
    memory = keyed(detector, 3)
    items = rows(frame(900))
    slots = np.tile(np.arange(3, dtype=np.int32), 300)
    stream(detector, memory, items, slots)
    at = np.arange(3, dtype=np.int32)
    stored = load_tensors(save_tensors(memory.state(at)))
    moved = keyed(detector, 3)
    moved.load(np.array([2, 0, 1], np.int32), stored)
    fresh = rows(frame(30, seed=2))
    left = detector.score(fresh, memory=memory, slots=np.tile(at, 10))
    right = detector.score(fresh, memory=moved, slots=np.tile(np.array([2, 0, 1], np.int32), 10))
    assert left.tobytes() == right.tobytes()
    size = sum(array.nbytes for array in memory.state(at[:1]).values())
    assert size == memory.bytes_per_slot
    assert size < 5000
    memory.forget(at[:1])
    assert same(memory.state(at[:1]), keyed(detector, 3).state(at[:1]))
    with pytest.raises(ArtifactError):
        memory.load(at, PeerMemory(7).state(np.zeros(0, np.int32)))
    with pytest.raises(WindowError):
        detector.score(fresh, memory=memory, slots=np.full(30, 99, np.int32))


def test_what_was_held_back_counts_once_it_is_adopted():
    detector = RareEvents()
    usual, other = rows(of_block(1024, 0)), rows(of_block(300, 1))
    found = []
    for adopted in (False, True):
        memory = keyed(detector, 1)
        zeros = np.zeros(1024, np.int32)
        stream(detector, memory, usual, zeros)
        nothing = np.zeros(300, np.bool_)
        detector.learn(memory, other, slots=zeros[:300], admit=nothing)
        if adopted:
            detector.adopt(memory, zeros[:1])
        stream(detector, memory, usual, zeros)
        found.append(detector.score(other, memory=memory, slots=zeros[:300]).mean())
    assert found[1] < found[0]


def test_scoring_loads_no_torch():
    import subprocess
    import sys

    script = (
        "import sys, numpy as np, polars as pl\n"
        "from streamad.detectors.events.ape import Ape\n"
        "from streamad.detectors.events.rare import RareEvents\n"
        "from streamad.events.rows import EventRows\n"
        "items = EventRows(np.zeros(50, np.int64), pl.DataFrame({'a': ['x', 'y'] * 25}))\n"
        "Ape().load(RareEvents().fit(items).state()).score(items)\n"
        "assert 'torch' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert ended.returncode == 0, ended.stderr
