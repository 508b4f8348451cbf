"""Folders as people have them are read as what they are."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from jobs.cli import main
from jobs.evaluate.catalogue import DATASETS, LAYOUT_TEXTS
from jobs.evaluate.layouts import (
    LAYOUTS,
    Labelled,
    chosen,
    find_series,
    load,
    no_longer_than,
    with_options,
)
from streamad.errors import ConfigError
from tests.unit.evaluate import folders

EXPECTED = {
    "index": [("web", "cpu", 300, 1), ("web", "quiet", 300, 1)],
    "nab": [("realKnown", "taxi", 105, 1)],
    "tsb-ad": [
        ("NAB", "001_NAB_id_1_Web_tr_300_1st_550", 300, 1),
        ("SMD", "002_SMD_id_2_tr_250_1st_550", 250, 2),
    ],
    "plain": [("made", "web-1", 105, 1)],
}


@pytest.mark.parametrize("layout", EXPECTED)
def test_a_folder_is_recognised_and_read_with_its_labels(tmp_path, layout):
    found, series = find_series(folders.FOLDERS[layout](tmp_path / "made"))
    assert found == layout
    got = []
    for one in series:
        loaded = load(one)
        got.append((one.set, one.name, loaded.train_end, len(loaded.table.columns)))
        rows = np.flatnonzero(loaded.labels)
        expected = [] if one.name == "quiet" else list(range(*folders.SPAN))
        assert rows.tolist() == expected
        assert loaded.table.dated is (layout != "tsb-ad")
    assert got == EXPECTED[layout]


def test_what_cannot_be_used_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="streamad datasets"):
        find_series(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no series"):
        find_series(tmp_path)
    pl.DataFrame({"file": ["../../etc/passwd"], "train_end": [1]}).write_csv(tmp_path / "index.csv")
    with pytest.raises(ConfigError, match="outside"):
        find_series(tmp_path)
    pl.DataFrame({"value": [1.0, 2.0]}).write_csv(tmp_path / "bare.csv")
    with pytest.raises(ConfigError, match=r"no column of labels.*--label.*value"):
        load(Labelled(path=tmp_path / "bare.csv", set="a", name="b"))


def test_options_reach_every_series_and_a_sample_is_spread_over_sets(tmp_path):
    _, series = find_series(folders.index_folder(tmp_path / "made"))
    (one, _) = with_options(series, columns=["v0", "v1"], train_end=0)
    assert (one.columns, one.train_end, load(one).train_end) == (("v0", "v1"), 0, 0)
    many = [
        Labelled(path=tmp_path, set=s, name=str(i)) for s in "ab" for i in range(9 * (s == "a") + 2)
    ]
    drawn = chosen(many, sample=4, seed=1)
    assert sorted(one.set for one in drawn) == ["a", "a", "b", "b"]
    assert drawn == chosen(many, sample=4, seed=1) != chosen(many, sample=4, seed=2)
    long = folders.plain_folder(tmp_path / "other") / "web-1.csv"
    assert no_longer_than(series, folders.N) == series
    with pytest.raises(ConfigError, match="every series is longer"):
        no_longer_than([Labelled(path=long, set="a", name="b")], folders.N - 1)
    with pytest.raises(ConfigError, match="no set c; there are: a, b"):
        chosen(many, sets=["c"])


def test_every_dataset_has_an_origin_a_licence_and_a_layout_that_is_read(capsys):
    assert LAYOUT_TEXTS.keys() == LAYOUTS.keys() == EXPECTED.keys()
    assert main(["datasets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert len(listed) == len(DATASETS) >= 10
    for one in listed:
        assert one["origin"].startswith("https://")
        assert one["licence"]
        assert one["layout"] in LAYOUTS
    assert main(["datasets"]) == 0
    assert "Numenta" not in capsys.readouterr().err
