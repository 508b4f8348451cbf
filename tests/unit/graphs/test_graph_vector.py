"""The label-free detector: what it finds, explains, keeps and refuses."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from streamad.detectors.graphs.label_free import GraphVector, bent, ledoit_wolf
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.testing.graphs import graphs_of, random_graphs, town

USUAL = town(["usual"] * 300)
STRANGE = ("scan", "new", "lateral")


@pytest.fixture(scope="module")
def fitted() -> GraphVector:
    return GraphVector().fit(USUAL)


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_graph_ranks_first(fitted, kind):
    scores = fitted.score(town([*["usual"] * 200, kind], seed=1))
    assert scores.argmax() == 200
    assert scores[200] > 1.3 * scores[:200].max()
    assert 0.8 < np.median(scores) < 1.25


def test_scores_are_float32_finite_and_the_same_alone_and_in_a_batch(fitted):
    graphs = town(["usual", *STRANGE] * 4, seed=2)
    whole = fitted.score(graphs)
    alone = np.concatenate([fitted.score(graphs[i : i + 1]) for i in range(len(graphs))])
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    assert whole.tobytes() == alone.tobytes()
    assert fitted.score(graphs[::-1]).tobytes() == whole[::-1].tobytes()


def test_a_few_anomalies_in_training_change_little():
    clean = GraphVector().fit(USUAL)
    dirty = GraphVector().fit(town(["usual"] * 297 + ["scan"] * 3))
    seen = town([*["usual"] * 100, "scan"], seed=3)
    for detector in (clean, dirty):
        scores = detector.score(seen)
        assert scores[100] > 2 * scores[:100].max()


def test_each_unknown_type_counts():
    fitted = GraphVector().fit(USUAL)
    edges = [(f"web-{w}", f"app-{(w + k) % 3}", 6.0) for w in range(4) for k in range(2)]
    edges += [("app-0", "db-0", 6.0), ("app-1", "db-1", 6.0), ("app-2", "db-1", 6.0)]
    scores = fitted.score(
        graphs_of([edges, [*edges, ("web-1", "x-1")], [*edges, ("web-1", "x-1"), ("web-1", "y-1")]])
    )
    assert scores[0] < scores[1] < scores[2]


def test_types_beyond_the_vocabulary_in_training_are_no_surprise():
    small = GraphVector(max_types=1).fit(USUAL)
    assert small.score(town(["usual"] * 50, seed=4)).max() < 10


def test_the_scan_is_explained(fitted):
    graphs = town(["scan", "new", "lateral", "usual"], seed=5)
    scan, new, lateral, usual = fitted.explain(graphs)
    assert "a node with 12 neighbours where about 5 are usual" in scan.text
    assert "web-1" in scan.text
    assert scan.entities[0] == "web-1"
    assert new.text.startswith("type miner was never seen before")
    assert new.entities[0] == "miner-1"
    assert "web-2 -> miner-1" in new.variates
    assert sum("web" in part and part.count("web-") == 2 for part in lateral.variates) >= 3
    for i, one in enumerate((scan, new, lateral, usual)):
        assert one.time_ms == graphs.time_ms[i, 1]
        assert np.isclose(sum(one.variates.values()), 1)
        assert len(one.entities) <= 10
        assert one.text


def test_explanations_do_not_depend_on_the_batch(fitted):
    graphs = town(["usual", *STRANGE], seed=8)
    alone = [fitted.explain(graphs[i : i + 1])[0] for i in range(len(graphs))]
    assert fitted.explain(graphs) == alone


def test_explaining_leaves_everything_as_it_was(fitted):
    graphs = town([*STRANGE], seed=6)
    kept = graphs.source.copy(), graphs.count.copy()
    before = fitted.score(graphs)
    fitted.explain(graphs)
    assert (graphs.source == kept[0]).all()
    assert (graphs.count == kept[1]).all()
    assert fitted.score(graphs).tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "graphs",
    [graphs_of([[]]), graphs_of([[("a-1", "a-1")]]), graphs_of([[]], alone=[["web-1"]])],
    ids=["empty", "a self loop", "one node"],
)
def test_degenerate_graphs_are_scored_and_explained(fitted, graphs):
    assert np.isfinite(fitted.score(graphs)).all()
    (why,) = fitted.explain(graphs)
    assert np.isclose(sum(why.variates.values()), 1)


def test_no_graphs_give_no_scores(fitted):
    assert fitted.score(USUAL[:0]).shape == (0,)
    assert fitted.explain(USUAL[:0]) == []


def test_equal_graphs_everywhere_can_be_learned():
    same = graphs_of([[("web-1", "app-1"), ("app-1", "db-1")]] * 20)
    detector = GraphVector().fit(same)
    other = graphs_of([[("web-1", "app-1"), ("web-1", "db-1"), ("app-1", "db-1")]])
    assert detector.score(other)[0] > 3 * detector.score(same).max()


def test_a_large_graph_is_explained_in_bounded_time(fitted):
    (why,) = fitted.explain(random_graphs(1, n_nodes=5_000, n_edges=100_000))
    assert "was never seen before" in why.text


def test_what_was_learned_comes_back_bit_by_bit(fitted):
    state = load(save(fitted.state()))
    again = GraphVector().load(state)
    graphs = town(["usual", *STRANGE], seed=7)
    assert again.score(graphs).tobytes() == fitted.score(graphs).tobytes()
    assert again.explain(graphs) == fitted.explain(graphs)
    twice = GraphVector().fit(USUAL)
    assert all((twice.state()[name] == fitted.state()[name]).all() for name in state)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("scale", None, "lacks scale"),
        ("scale", np.zeros(3), "expected finite floats"),
        ("centre", "nan", "expected finite floats"),
        ("unit", np.array([0.0, 1.0]), "above 0"),
        ("types", np.array([0xFF, 0], np.uint8), "UTF-8"),
        ("types", np.frombuffer(b"a\0a\0", np.uint8), "twice"),
    ],
)
def test_a_wrong_artifact_is_refused(fitted, name, value, told):
    state = dict(fitted.state())
    if value is None:
        del state[name]
    elif isinstance(value, str):
        state[name] = np.full_like(state[name], np.nan)
    else:
        state[name] = value
    with pytest.raises(ArtifactError, match=told):
        GraphVector().load(state)


def test_wrong_use_is_refused():
    with pytest.raises(NotFittedError, match="fit it"):
        GraphVector().score(USUAL)
    with pytest.raises(TrainingError, match="8 graphs or more, got 3"):
        GraphVector().fit(USUAL[:3])
    with pytest.raises(ConfigError, match="max_types"):
        GraphVector(max_types=0)


def test_the_shrunk_covariance_is_scikit_learn_s():
    from sklearn.covariance import ledoit_wolf as reference

    rows = np.random.default_rng(0).normal(size=(30, 12)) * np.arange(1, 13)
    rows -= rows.mean(axis=0)
    np.testing.assert_allclose(ledoit_wolf(rows), reference(rows, assume_centered=True)[0])


def test_large_deviations_grow_slowly_and_in_order():
    found = bent(np.array([-1e9, -3.0, 0.0, 2.9, 3.1, 1e9]))
    assert (np.diff(found) > 0).all()
    assert found[-1] < 70
