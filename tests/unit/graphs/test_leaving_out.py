"""Copies of graphs without some edges: what goes with them and what stays."""

from __future__ import annotations

import numpy as np

from streamad.detectors.graphs.explaining import (
    Surprise,
    edge_effects,
    node_effects,
    pair_shares,
    type_effects,
)
from streamad.graphs.leaving_out import with_type, without_edges
from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import spectra_of
from streamad.graphs.vector import learn_vocabulary
from streamad.testing.graphs import graphs_of, town

GRAPHS = graphs_of(
    [[("z-1", "z-2")], [("a-1", "b-1", 2.0), ("b-1", "a-1", 3.0), ("b-1", "c-1", 1.0)]],
    alone=[[], ["x-1"]],
)


def n_edges(graphs: Graphs) -> np.ndarray:
    return np.diff(graphs.edge_from).astype(np.float32)


def surprise_of(graphs: Graphs) -> Surprise:
    words = learn_vocabulary(graphs)
    codes = words.encode(graphs.types)
    return Surprise(codes, np.zeros(len(words)), -np.log(pair_shares(graphs, codes, len(words))))


def test_nodes_that_only_the_edges_brought_in_go_with_them():
    none = np.zeros(3, np.bool_)
    left = without_edges(GRAPHS, 1, [none, np.array([True, True, False]), ~none])
    names = [left.names[int(a) : int(b)].to_list() for a, b in zip(*bounds(left), strict=True)]
    assert names == [["a-1", "b-1", "c-1", "x-1"], ["b-1", "c-1", "x-1"], ["x-1"]]
    assert n_edges(left).tolist() == [3, 1, 0]
    assert (left.source[3], left.target[3]) == (0, 1)
    assert (left.time_ms == GRAPHS.time_ms[1]).all()


def bounds(graphs: Graphs) -> tuple[np.ndarray, np.ndarray]:
    return graphs.node_from[:-1], graphs.node_from[1:]


def test_no_copies_are_an_empty_batch():
    left = without_edges(GRAPHS, 1, [])
    assert len(left) == 0
    assert len(spectra_of(left)) == 0


def test_a_copy_with_another_type():
    changed = with_type(GRAPHS, 1, np.array([True, False, False, True]), "q")
    assert changed.types.to_list() == ["q", "b", "c", "q"]
    assert GRAPHS.types.to_list() == ["z", "z", "a", "b", "c", "x"]


def test_both_directions_of_a_pair_are_left_out_together():
    (first, second) = edge_effects(GRAPHS, 1, n_edges, surprise_of(GRAPHS))
    assert (first.name, first.loss, first.count) == ("a-1 -> b-1", 2.0, 5.0)
    assert (second.name, second.loss) == ("b-1 -> c-1", 1.0)


def test_a_node_is_left_out_with_all_its_edges():
    found = node_effects(GRAPHS, 1, n_edges, surprise_of(GRAPHS))
    assert [(one.name, one.loss) for one in found] == [("b-1", 3.0), ("a-1", 2.0), ("c-1", 1.0)]


def test_a_type_is_replaced_by_the_usual_one():
    def n_web(graphs: Graphs) -> np.ndarray:
        return np.array([(graphs.types == "web").sum()], np.float32)

    (first, *_) = type_effects(town(["usual"]), 0, n_web, "app")
    assert (first.name, first.loss) == ("type web", 4.0)


def test_pairs_of_types_that_are_linked_have_the_larger_share():
    graphs = town(["usual"] * 20)
    words = learn_vocabulary(graphs)
    shares = pair_shares(graphs, words.encode(graphs.types), len(words))
    app, db, web = (words.types.index(one) + 1 for one in ("app", "db", "web"))
    assert shares[web, app] == shares[app, web] > shares[app, db] > 20 * shares[web, web]
    assert np.isclose(shares.sum(), 1)
