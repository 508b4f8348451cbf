"""Rayleigh quotients, eigenvalues and vectors, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import (
    components,
    largest_eigenvalues,
    rayleigh_quotients,
    spectra_of,
)
from streamad.graphs.vector import (
    BUCKETS,
    SHAPE,
    GraphVectors,
    Vocabulary,
    degree_buckets,
    learn_vocabulary,
)
from streamad.testing.graphs import graphs_of, permuted, random_graphs, town


def dense_laplacian(graphs: Graphs, i: int, *, weighted: bool) -> np.ndarray:
    n = int(graphs.node_from[i + 1] - graphs.node_from[i])
    at = slice(graphs.edge_from[i], graphs.edge_from[i + 1])
    counts = np.zeros((n, n))
    for a, b, c in zip(graphs.source[at], graphs.target[at], graphs.count[at], strict=True):
        if a != b:
            counts[a, b] += c
            counts[b, a] += c
    adjacency = np.log1p(counts) if weighted else (counts > 0).astype(float)
    degree = adjacency.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    return np.diag((degree > 0).astype(float)) - root[:, None] * adjacency * root


@st.composite
def some_graphs(draw: st.DrawFn) -> Graphs:
    n_nodes = draw(st.integers(1, 12))
    n_edges = draw(st.integers(0, 30))
    seed = draw(st.integers(0, 10_000))
    return random_graphs(3, n_nodes=n_nodes, n_edges=n_edges, seed=seed)


@settings(max_examples=60, deadline=None)
@given(graphs=some_graphs(), weighted=st.booleans(), seed=st.integers(0, 99))
def test_the_quotient_is_the_mean_frequency_of_a_signal(graphs, weighted, seed):
    signals = np.random.default_rng(seed).normal(size=(len(graphs.names), 3))
    found = rayleigh_quotients(spectra_of(graphs, weighted=weighted), signals)
    for i in range(len(graphs)):
        values, vectors = np.linalg.eigh(dense_laplacian(graphs, i, weighted=weighted))
        x = signals[graphs.node_from[i] : graphs.node_from[i + 1]]
        energy = (vectors.T @ x) ** 2
        wanted = (values[:, None] * energy).sum(axis=0) / energy.sum(axis=0)
        np.testing.assert_allclose(found[i], np.clip(wanted, 0, 2), atol=1e-9)
    assert ((found >= 0) & (found <= 2)).all()


def test_undivided_quotients_are_the_published_code_s():
    graphs = town(["usual", "scan"])
    signals = np.abs(np.random.default_rng(0).normal(size=(len(graphs.names), 2))) * 7
    found = rayleigh_quotients(spectra_of(graphs), signals, normalised=False)
    for i in range(2):
        x = signals[graphs.node_from[i] : graphs.node_from[i + 1]]
        wanted = np.diag(x.T @ dense_laplacian(graphs, i, weighted=True) @ x)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-9)


def test_eigenvalues_come_close_and_never_exceed():
    graphs = random_graphs(60, n_nodes=18, n_edges=30)
    found = largest_eigenvalues(spectra_of(graphs))
    for i in range(len(graphs)):
        wanted = np.linalg.eigvalsh(dense_laplacian(graphs, i, weighted=True))[::-1][:2]
        assert (found[i] <= wanted + 1e-9).all()
        np.testing.assert_allclose(found[i], wanted, atol=5e-3)


def test_eigenvalues_of_graphs_known_by_heart():
    def ring(n: int) -> list[tuple[str, str]]:
        return [(f"n-{i}", f"n-{(i + 1) % n}") for i in range(n)]

    star = [("hub-0", f"leaf-{i}") for i in range(9)]
    whole = [(f"n-{i}", f"n-{j}") for i in range(6) for j in range(i)]
    found = largest_eigenvalues(spectra_of(graphs_of([ring(4), star, whole])))
    np.testing.assert_allclose(found, [[2, 1], [2, 1], [1.2, 1.2]], atol=1e-9)


def test_graphs_alone_and_in_a_batch_have_the_same_bits():
    graphs = town(["usual", "scan", "new", "lateral"] * 5)
    vectors = GraphVectors(learn_vocabulary(graphs))
    whole = vectors(graphs)
    alone = np.concatenate([vectors(graphs[i : i + 1]) for i in range(len(graphs))])
    assert whole.tobytes() == alone.tobytes()
    assert vectors(graphs[::-1]).tobytes() == whole[::-1].tobytes()


def test_the_order_of_nodes_and_edges_does_not_matter():
    graphs = town(["usual", "scan", "lateral"] * 4)
    vectors = GraphVectors(learn_vocabulary(graphs))
    shuffled = vectors(permuted(graphs, np.random.default_rng(0)))
    np.testing.assert_allclose(shuffled[:, :-2], vectors(graphs)[:, :-2], atol=1e-9)
    # Estimates of eigenvalues start from a fixed vector, so they agree less closely.
    np.testing.assert_allclose(shuffled[:, -2:], vectors(graphs)[:, -2:], atol=5e-3)


def test_both_directions_repeats_and_self_loops_are_one_simple_edge():
    graphs = graphs_of([[("a-1", "b-1", 1.0), ("b-1", "a-1", 2.0), ("a-1", "a-1", 9.0)]])
    spectra = spectra_of(graphs)
    assert spectra.n_pairs.tolist() == [1]
    np.testing.assert_allclose(spectra.weights, np.log1p(3.0))
    assert spectra_of(graphs, weighted=False).weights.tolist() == [1.0, 1.0]
    assert spectra.neighbours.tolist() == [1, 0]


@pytest.mark.parametrize(
    "graphs",
    [
        graphs_of([[]]),
        graphs_of([[("a-1", "a-1")]]),
        graphs_of([[]], alone=[["a-1", "b-1", "b-2"]]),
        graphs_of([[("a-1", "b-1", 0.0), ("b-1", "c-1", float("nan"))]]),
        graphs_of([[("a-1", "b-1", -3.0), ("a-1", "c-1", 1e300)]]),
    ],
    ids=["empty", "one node", "no edges", "no weight", "wild weights"],
)
def test_degenerate_graphs_give_numbers(graphs):
    spectra = spectra_of(graphs)
    signals = np.ones((len(graphs.names), 2)) * [1.0, 0.0]
    quotients = rayleigh_quotients(spectra, signals)
    assert np.isfinite(quotients).all()
    assert (quotients[:, 1] == 0).all()
    vector = GraphVectors(Vocabulary(("a", "b")))(graphs)
    assert np.isfinite(vector).all()
    if not (graphs.source != graphs.target).any():
        assert (quotients == 0).all()
        assert (largest_eigenvalues(spectra) == 0).all()
    assert components(spectra)[0] >= (len(graphs.names) > 0)


def test_signals_of_any_size_give_numbers():
    graphs = town(["usual"])
    x = np.random.default_rng(0).normal(size=(len(graphs.names), 1))
    spectra = spectra_of(graphs)
    usual = rayleigh_quotients(spectra, x)
    for factor in (1e-200, 1e200):
        np.testing.assert_allclose(rayleigh_quotients(spectra, x * factor), usual, rtol=1e-9)


def test_a_graph_of_a_hundred_thousand_edges():
    graphs = random_graphs(1, n_nodes=20_000, n_edges=100_000)
    vector = GraphVectors(learn_vocabulary(graphs))(graphs)
    assert np.isfinite(vector).all()
    assert 99_000 < np.expm1(vector[0, -len(SHAPE) + 1]) <= 100_000


def test_shape_counts_what_is_there():
    graphs = graphs_of([[("a-1", "b-1", 4.0), ("c-1", "b-1", 2.0), ("d-1", "e-1", 1.0)]])
    vector = GraphVectors(Vocabulary())(graphs)[0, -len(SHAPE) :]
    named = dict(zip(SHAPE, vector, strict=True))
    counts = {name: round(float(np.expm1(named[name])), 6) for name in SHAPE[:2]}
    assert counts == {"nodes": 5.0, "edges": 3.0}
    assert np.isclose(named["density"], 0.3)
    assert np.isclose(np.expm1(named["mean degree"]), 1.2)
    assert np.isclose(np.expm1(named["largest degree"]), 2)
    assert np.isclose(np.expm1(named["parts"]), 2)
    assert np.isclose(np.expm1(named["count"]), 7)


def test_degrees_fall_into_buckets():
    edges = [("hub-0", f"leaf-{i}") for i in range(70)]
    found = degree_buckets(spectra_of(graphs_of([edges], alone=[["x-1"]])))
    assert [BUCKETS[b] for b in (found[0], found[1], found[-1])] == ["65+", "1", "0"]


def test_a_vocabulary_is_bounded_and_comes_back():
    graphs = town(["usual"] * 3)
    words = learn_vocabulary(graphs, max_types=2)
    assert words.types == ("app", "web")
    assert words.encode(pl.Series(["db", "web", None])).tolist() == [0, 2, 0]
    assert Vocabulary.from_array(words.to_array()) == words
    assert Vocabulary.from_array(Vocabulary().to_array()) == Vocabulary()


def test_nodes_without_a_type_are_a_type_of_their_own():
    graphs = graphs_of([[("a-1", "b-1")]])
    untyped = Graphs(
        graphs.time_ms, graphs.node_from, graphs.edge_from, graphs.names,
        pl.Series("type", [None, None], dtype=pl.String), graphs.source, graphs.target,
        graphs.count, graphs.dropped,
    )  # fmt: skip
    assert learn_vocabulary(untyped).encode(untyped.types).tolist() == [1, 1]
