"""Topologies from files: what they may look like, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.files.topology import read_topology
from streamad.errors import ConfigError

GRAPHML = """<?xml version="1.0"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="d0" for="node" attr.name="label" attr.type="string"/>
<graph edgedefault="{direction}">
<node id="n0"><data key="d0">web</data></node><node id="n1"><data key="d0">db</data></node>
<node id="cache"/><edge source="n0" target="n1"/><edge source="n0" target="cache"/>
</graph></graphml>"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "source,target\nweb,db\nweb,cache\n"),
        ("t.tsv", "team\tsource\ttarget\na\tweb\tdb\nb\tweb\tcache\n"),
        ("t.jsonl", '{"source":"web","target":"db"}\n{"source":"web","target":"cache"}\n'),
        ("t.graphml", GRAPHML.format(direction="directed")),
    ],
)
def test_a_file_is_read_by_its_content(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    topology = read_topology(path)
    assert topology.steps("web") == {"web": 0, "db": 1, "cache": 1}
    assert topology.steps("db") == {"db": 0}
    assert len(topology) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from,to\nweb,db\n", "no column 'source'; it has: from, to"),
        ("source,target\nweb,\n", r"row 1: expected names of 1 to 256 characters .* got"),
        ("source,target\nweb,web\n", None),
        (GRAPHML.format(direction="undirected"), "edges have no direction"),
        ("<html><body>gone</body></html>", "is no GraphML"),
        ("<graphml><graph>", "is no GraphML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><graphml/>', "declares a document type"),
    ],
)
def test_what_is_no_topology_is_refused_with_the_reason(
    tmp_path: Path, text: str, expected: str | None
):
    path = tmp_path / "t.csv"
    path.write_text(text)
    if expected is None:
        assert read_topology(path).n_edges == 0
        return
    with pytest.raises(ConfigError, match=expected):
        read_topology(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_topology(tmp_path / "none.csv")
