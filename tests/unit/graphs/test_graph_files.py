"""Graphs in files: what is read, and what is refused in one sentence."""

from __future__ import annotations

import polars as pl
import pytest

from connectors.files.graphs import read_graphs
from streamad.errors import ConfigError

GIN = "2\n3 0\n1 2 1 2\n1 1 0\n2 1 0\n1 1\n7 0\n"
TU = {
    "X_A.txt": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n",
    "X_graph_indicator.txt": "1\n1\n1\n2\n2\n",
    "X_graph_labels.txt": "-1\n1\n",
    "X_node_labels.txt": "6\n7\n6\n0\n0\n",
}
EDGES = (
    "graph,source,target,source_type,target_type,weight,label\n"
    "a,web-1,db-1,web,db,,0\na,db-1,web-1,,,2,0\nb,x,y,,,3,1\na,web-1,db-1,web,db,4,0\n"
)


def tu(folder, **changed):
    folder.mkdir()
    for name, text in {**TU, **changed}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_gin_text_is_read(tmp_path):
    path = tmp_path / "gin.txt"
    path.write_text(GIN)
    read = read_graphs(path)
    graphs = read.graphs
    assert read.labels.to_list() == ["0", "1"]
    assert graphs.node_from.tolist() == [0, 3, 4]
    assert graphs.edge_from.tolist() == [0, 2, 2]
    assert (graphs.source.tolist(), graphs.target.tolist()) == ([0, 0], [1, 2])
    assert graphs.types.to_list() == ["1", "1", "2", "7"]


def test_what_follows_neighbours_is_left_out(tmp_path):
    path = tmp_path / "gin.txt"
    path.write_text("1\n2 0\n1 1 1 0.5 1e3\n1 1 0 -2 7.5\n")
    assert read_graphs(path).graphs.edge_from.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x\n", "line 1 is 'x', expected 1 whole"),
        ("9\n1 0\n0 0\n", "announces 9 graphs, got 4 lines"),
        ("1\n2 0\n1 1 5\n1 1 0\n", "line 3 names 1 neighbours, expected as many places in 0 to 1"),
        ("1\n2 0\n1 1 1\n", "line 4 is '', expected 2 or more"),
        ("1\n-2 0\n", "line 2 has a graph of -2 nodes"),
        ("1\n2 0\n1 9 1\n1 1 0\n", "line 3 names 9 neighbours"),
        ("1\n99999999999 0\n", "expected 0 to 1000000"),
    ],
)
def test_wrong_gin_text_is_refused(tmp_path, text, told):
    path = tmp_path / "gin.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_graphs(path)


def test_a_tu_folder_is_read(tmp_path):
    read = read_graphs(tu(tmp_path / "X"))
    graphs = read.graphs
    assert read.labels.to_list() == ["-1", "1"]
    assert graphs.edge_from.tolist() == [0, 2, 3]
    assert graphs.source.tolist() == [0, 1, 0]
    assert graphs.target.tolist() == [1, 2, 1]
    assert graphs.types.to_list() == ["6", "7", "6", "0", "0"]
    assert graphs.names.to_list() == ["1", "2", "3", "1", "2"]


def test_a_tu_folder_without_node_labels_has_no_types(tmp_path):
    read = read_graphs(tu(tmp_path / "X", **{"X_node_labels.txt": None}))
    assert read.graphs.types.null_count() == 5


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("X_A.txt", "1, 9\n", "X_A.txt: line 1 names 9, expected 1 to 5, as there are 5 nodes"),
        ("X_A.txt", "1, 2\n1, two\n", "line 2 is '1, two', expected 2 whole"),
        ("X_A.txt", "1, 5\n", "line 1 links nodes of two graphs"),
        ("X_A.txt", "1\n", "line 1 is '1', expected 2 whole"),
        ("X_graph_indicator.txt", "1\n2\n1\n2\n2\n", "line 3 steps back"),
        ("X_graph_indicator.txt", "1\n1\n1\n2\n3\n", "names 3, expected 1 to 2"),
        ("X_node_labels.txt", "6\n", "has 1 lines, expected 5"),
        ("X_graph_labels.txt", None, "there is no file"),
        ("X_A.txt", None, r"expected one file NAME_A.txt, got 0"),
    ],
)
def test_a_wrong_tu_folder_is_refused(tmp_path, name, text, told):
    with pytest.raises(ConfigError, match=told):
        read_graphs(tu(tmp_path / "X", **{name: text}))


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_tables_of_edges_are_read(tmp_path, kind):
    path = tmp_path / f"edges.{kind}"
    frame = pl.read_csv(EDGES.encode())
    if kind == "csv":
        path.write_text(EDGES)
    elif kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    read = read_graphs(path)
    graphs = read.graphs
    assert read.ids.to_list() == ["a", "b"]
    assert read.labels.to_list() == ["0", "1"]
    assert graphs.names.to_list() == ["web-1", "db-1", "x", "y"]
    assert graphs.types.to_list() == ["web", "db", None, None]
    assert graphs.count.tolist() == [5.0, 2.0, 3.0]
    assert graphs.source.tolist() == [0, 1, 0]


def test_columns_may_have_other_names_and_times_span_the_graph(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("g,from,to,at\n1,a,b,2026-03-01T00:00:00Z\n1,b,c,2026-03-01T00:01:00Z\n")
    names = {"graph": "g", "source": "from", "target": "to", "time": "at"}
    graphs = read_graphs(path, names).graphs
    assert int(graphs.time_ms[0, 1] - graphs.time_ms[0, 0]) == 60_000


@pytest.mark.parametrize(
    ("text", "columns", "told"),
    [
        ("graph,source\na,b\n", {}, "columns.target: the file has no column 'target'"),
        ("graph,source,target\na,b,c\n", {"label": "y"}, "columns.label"),
        ("graph,source,target\na,b,c\n", {"colour": "y"}, "'colour' is no role"),
        ("graph,source,target\na,,c\n", {}, "row 1 has no source"),
        ("graph,source,target,weight\na,b,c,x\n", {}, "row 1 has the weight 'x'"),
        ("graph,source,target,weight\na,b,c,-1\n", {}, "expected a number of at least 0"),
        ("graph,source,target,label\na,b,c,0\na,b,d,1\n", {}, "'a' has several labels"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, columns, told):
    path = tmp_path / "edges.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_graphs(path, columns)


def test_a_graph_beyond_the_bound_is_refused(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("graph,source,target\na,b,c\na,b,d\n")
    with pytest.raises(ConfigError, match="graph 1 has 3 nodes, expected 2 at most"):
        read_graphs(path, max_nodes=2)
