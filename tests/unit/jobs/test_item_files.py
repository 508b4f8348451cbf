"""Events, edges and graphs in files: fitted and scored by the commands that signals have."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from jobs.commands import score_file
from jobs.fit_commands import fit_file
from jobs.item_commands import ranking
from jobs.offline.item_files import Asked, read_items
from streamad.artifacts import load_artifact
from streamad.config import load_pipeline
from streamad.errors import ConfigError

NOTHING = {
    "columns": (), "time": None, "key": (), "joint": False, "size": None, "params": {},
}  # fmt: skip


def fit(detector, train, out, *, labels=None, key=(), params=None, **asked):
    given = {**NOTHING, "key": key, "params": params or {}}
    fit_file(
        detector, train, out=str(out), pipeline=None, licence="", labels=labels,
        asked=Asked(**asked), **given,
    )  # fmt: skip


def score(file, out, *, detector=None, artifact=None, key=(), **asked):
    given = {**NOTHING, "key": key}
    score_file(
        file, out=str(out), detector=detector, artifact=artifact and str(artifact), train_end=None,
        asked=Asked(**asked), **given,
    )  # fmt: skip
    return pl.read_csv(out)


def logins(n, *, seed, strange=0):
    draw = np.random.default_rng(seed)
    user = draw.integers(4, size=n)
    rows = {
        "user": [f"u{i}" for i in user],
        "process": [f"p{2 * i + j}" for i, j in zip(user, draw.integers(2, size=n), strict=True)],
        "port": draw.choice([22, 80, 443], n),
        "bytes": np.exp(draw.normal(6, 1, n)),
        "label": ["ok"] * (n - strange) + ["attack"] * strange,
        "count": draw.integers(1, 9, n),
    }
    rows["process"][n - strange :] = [f"x{i}" for i in range(strange)]
    return pl.DataFrame(rows)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_events_are_scored_row_by_row_in_the_order_of_the_file(tmp_path, suffix):
    train, test = tmp_path / f"train.{suffix}", tmp_path / f"test.{suffix}"
    for path, frame in ((train, logins(900, seed=1, strange=30)),
                        (test, logins(300, seed=2, strange=20).drop("count"))):  # fmt: skip
        write = {"csv": frame.write_csv, "parquet": frame.write_parquet}.get(suffix)
        (write or frame.write_ndjson)(path)
    fit("rare_events", train, tmp_path / "model", count="count", normal="ok")
    made = score(test, tmp_path / "out.csv", artifact=tmp_path / "model")
    assert made.columns[0] == "row"
    assert made["row"].to_list() == list(range(300))
    assert made["incomplete"].sum() == 0
    assert np.isfinite(made["score"].to_numpy()).all()
    strange, usual = made["score"][280:], made["score"][:280]
    assert strange.min() > usual.quantile(0.95)
    assert (made["p_value"][280:] < 0.05).all()


def test_columns_are_found_and_labels_never_scored(tmp_path):
    logins(200, seed=3, strange=5).write_csv(tmp_path / "a.csv")
    table = read_items(tmp_path / "a.csv", "events", Asked(count="count"))
    assert table.fields["categories"] == ["user", "process", "port"]
    assert table.fields["numbers"] == ["bytes"]
    assert table.marked.sum() == 5
    measured = read_items(tmp_path / "a.csv", "events", Asked(count="count", measured=True))
    assert measured.fields["categories"] == ["user", "process"]
    assert measured.fields["numbers"] == ["port", "bytes"]
    chosen = read_items(tmp_path / "a.csv", "events", Asked(fields=("port", "user")))
    assert chosen.fields == {
        "categories": ["port", "user"], "numbers": [], "key": ("key",),
    }  # fmt: skip


def test_rows_out_of_order_or_without_a_time_keep_their_place(tmp_path):
    frame = pl.DataFrame(
        {
            "time": [f"2026-03-01T12:00:0{t}Z" if t else "never" for t in (5, 1, 0, 3)],
            "source": ["a", "b", "c", "a"], "target": ["x", "y", "z", "x"],
        }
    )  # fmt: skip
    frame.write_csv(tmp_path / "edges.csv")
    made = score(tmp_path / "edges.csv", tmp_path / "out.csv", detector="edge_changes")
    assert made["incomplete"].to_list() == [0, 0, 1, 0]
    assert made["time"].to_list() == frame["time"].to_list()


@pytest.mark.parametrize(
    ("labels", "normal", "marked"),
    [
        (["1", "1", "-1"], None, [2]), (["0", "1", "0"], None, [1]), (["1", "1", "1"], None, []),
        (["normal", "neptune", "smurf"], None, [1, 2]), (["a", "b", "b"], None, [0]),
        (["a", "b", "b"], "a", [1, 2]), (["-", "APPREAD", "-"], None, [1]),
    ],
)  # fmt: skip
def test_what_labels_mean(tmp_path, labels, normal, marked):
    pl.DataFrame({"user": ["a", "b", "c"], "label": labels}).write_csv(tmp_path / "a.csv")
    table = read_items(tmp_path / "a.csv", "events", Asked(normal=normal))
    assert np.flatnonzero(table.marked).tolist() == marked


def test_mistakes_are_one_clear_sentence(tmp_path):
    pl.DataFrame({"user": ["a"], "n": [1]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="an edge has a source and a target"):
        read_items(tmp_path / "a.csv", "edges", Asked())
    with pytest.raises(ConfigError, match="--count: the file has no column 'm'"):
        read_items(tmp_path / "a.csv", "events", Asked(count="m"))
    with pytest.raises(ConfigError, match="has no column of labels"):
        read_items(tmp_path / "a.csv", "events", Asked(normal="ok"))
    with pytest.raises(ConfigError, match="--fields is for events and edges"):
        score(tmp_path / "a.csv", tmp_path / "out.csv", detector="knn", fields=("n",))


def town(n, *, seed, strange=0):
    """Return edges of graphs: rings of hosts, and stars where they are strange."""
    draw = np.random.default_rng(seed)
    rows = []
    for graph in range(n):
        star, size = graph >= n - strange, int(draw.integers(6, 9))
        rows += [
            (f"g{graph}", "h0" if star else f"h{i}", f"h{(i + 1) % size}", int(star))
            for i in range(size)
        ]
    return pl.DataFrame(rows, schema=["graph", "source", "target", "label"], orient="row")


def test_graphs_of_a_table_are_fitted_and_scored(tmp_path):
    town(300, seed=1, strange=60).write_csv(tmp_path / "train.csv")
    town(60, seed=2, strange=20).drop("label").write_csv(tmp_path / "test.csv")
    fit("graph_vector", tmp_path / "train.csv", tmp_path / "model", normal="0")
    made = score(tmp_path / "test.csv", tmp_path / "out.csv", artifact=tmp_path / "model")
    assert made["graph"].to_list() == [f"g{i}" for i in range(60)]
    assert made["score"][40:].min() > made["score"][:40].max()


def test_labels_of_graphs_may_stand_in_a_file_of_their_own(tmp_path):
    town(120, seed=1, strange=40).drop("label").write_csv(tmp_path / "train.csv")
    (tmp_path / "labels.csv").write_text("\n".join(["label", *["0"] * 80, *["1"] * 40]))
    fit(
        "rqgnn", tmp_path / "train.csv", tmp_path / "model", labels=tmp_path / "labels.csv",
        normal="0", params={"epochs": 15},
    )  # fmt: skip
    made = score(tmp_path / "train.csv", tmp_path / "out.csv", artifact=tmp_path / "model")
    assert made["score"][80:].median() > made["score"][:80].median()
    with pytest.raises(ConfigError, match="the graphs have no labels"):
        fit("rqgnn", tmp_path / "train.csv", tmp_path / "other")
    (tmp_path / "labels.csv").write_text("label\n0\n1\n")
    with pytest.raises(ConfigError, match="has 2 labels, and there are 120 graphs"):
        fit("rqgnn", tmp_path / "train.csv", tmp_path / "other", labels=tmp_path / "labels.csv")


def test_edges_with_times_are_cut_into_graphs(tmp_path):
    rows = [
        (f"2026-03-01T12:{minute:02}:{i:02}Z", f"web-{i % 3}", f"db-{i % 2}")
        for minute in range(50)
        for i in range(12)
    ]
    edges = pl.DataFrame(rows, schema=["time", "source", "target"], orient="row")
    edges.write_csv(tmp_path / "edges.csv")
    fit("graph_vector", tmp_path / "edges.csv", tmp_path / "model")
    (tmp_path / "p.yaml").write_text(
        "{name: calls, input: {records: edges, fields: {key: site, time: at, time_unit: iso, "
        "source: caller, target: callee, source_type: kind}}, graphs: {span: 2m}, detector: {name: "
        f"graph_vector, artifact: {tmp_path / 'model'}}}}}"
    )
    config = load_pipeline(tmp_path / "p.yaml", environment={})
    load_artifact(str(tmp_path / "model"), config)  # fields of edges may have other names there
    renamed = edges.rename({"time": "at", "source": "caller", "target": "callee"})
    renamed.with_columns(site=pl.lit("eu"), kind=pl.lit("pod")).write_csv(tmp_path / "calls.csv")
    fit_file(
        "graph_vector", tmp_path / "calls.csv", out=str(tmp_path / "own"), licence="",
        pipeline=tmp_path / "p.yaml", **NOTHING,
    )  # fmt: skip
    _, manifest = load_artifact(str(tmp_path / "own"), config)
    assert manifest.trained.windows == 24, "of two minutes, as the pipeline has it"
    made = score(tmp_path / "edges.csv", tmp_path / "out.csv", artifact=tmp_path / "model")
    assert len(made) == 49, "the last window is not over"
    assert (made["end_ms"] - made["begin_ms"]).unique().to_list() == [60_000]


def test_scores_of_labelled_rows_are_measured_where_they_were_scored():
    frame = pl.DataFrame(
        {
            "score": [1.0, 5.0, 2.0, 9.0, 0.0],
            "alert": [0, 1, 0, 1, 0],
            "incomplete": [0, 0, 0, 0, 1],
        }
    )
    told = ranking(np.array([0, 1, 1, 0, 1], np.bool_), frame)
    # Of four pairs of an anomalous and an ordinary row two stand in the right order.
    assert told.startswith("2 of 4 scored rows are labelled anomalous: AUC-ROC 0.500, AUC-PR 0.583")
    assert told.endswith("(by chance 0.500 and 0.500); 1 of them lie in an alert, as do 1 others")
    for labels in (np.zeros(5, np.bool_), np.array([1, 1, 1, 1, 0], np.bool_)):
        assert "there are no figures" in ranking(labels, frame)
