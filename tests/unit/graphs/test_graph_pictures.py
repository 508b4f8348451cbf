"""Graphs for networkx and PyTorch Geometric, and as pictures."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from streamad.graphs.networkx import to_networkx, to_pyg
from streamad.graphs.picture import HEIGHT, MOST_NODES, TOP, WIDTH, draw_graph
from streamad.graphs.vector import learn_vocabulary
from streamad.testing.graphs import graphs_of, random_graphs, town


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 our own picture


def test_networkx_has_names_types_and_counts():
    graphs = graphs_of([[], [("web-1", "db-1", 3.0), ("db-1", "web-1", 1.0)]])
    made = to_networkx(graphs, 1)
    assert dict(made.nodes(data="type")) == {"web-1": "web", "db-1": "db"}
    assert list(made.edges(data="count")) == [("web-1", "db-1", 3.0), ("db-1", "web-1", 1.0)]
    assert made.graph == {"begin_ms": 60_000, "end_ms": 120_000, "dropped": 0}
    assert to_networkx(graphs, 0).number_of_nodes() == 0


@pytest.mark.filterwarnings("ignore")
def test_pyg_has_its_own_names_and_shapes():
    pytest.importorskip("torch_geometric")
    graphs = town(["usual", "scan"])
    words = learn_vocabulary(graphs)
    made = to_pyg(graphs, 1, words)
    n_edges = int(graphs.edge_from[2] - graphs.edge_from[1])
    assert made.edge_index.shape == (2, n_edges)
    assert made.edge_attr.shape == (n_edges, 1)
    assert made.x.shape == (made.num_nodes, len(words))
    assert made.validate()
    assert "x" not in to_pyg(graphs, 0)


def test_a_picture_marks_edges_and_stays_in_its_frame():
    graphs = town(["lateral"])
    svg = draw_graph(graphs, 0, title="<b>", edges=[("web-1", "web-0")], nodes=["web-1"])
    assert svg == draw_graph(graphs, 0, title="<b>", edges=[("web-1", "web-0")], nodes=["web-1"])
    root = parsed(svg)
    space = "{http://www.w3.org/2000/svg}"
    marked = [e for e in root.iter(f"{space}line") if e.get("class") == "marked"]
    assert len(marked) == 1
    places = [
        (float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in root.iter(f"{space}circle")
    ]
    assert len(places) == len(set(places)) == len(graphs.names)
    assert all(0 < x < WIDTH and TOP < y < HEIGHT + TOP for x, y in places)
    assert "<script" not in svg


@pytest.mark.parametrize("n_nodes", [0, 1, 2, 400])
def test_any_size_is_drawn(n_nodes):
    graphs = random_graphs(1, n_nodes=n_nodes, n_edges=2 * n_nodes) if n_nodes else graphs_of([[]])
    svg = draw_graph(graphs, 0, title="graph")
    parsed(svg)
    assert svg.count("<circle") == min(n_nodes, MOST_NODES)
    assert ("other nodes are not drawn" in svg) is (n_nodes > MOST_NODES)
    assert "nan" not in svg
    assert np.isfinite(len(svg))


def test_names_from_outside_are_escaped():
    graphs = graphs_of([[('<script>alert("x")</script>', "a\x1b[2J-1")]])
    svg = draw_graph(graphs, 0, title="t")
    parsed(svg)
    assert "<script" not in svg
    assert "\x1b" not in svg
