"""Rows of topics to fit on: the newest ones, bounded; answers as labels of windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

import jobs.graph_commands as graphs
from connectors.memory import MemoryTopics
from jobs import cli
from jobs.offline.recent import Newest, rows_of_topics
from jobs.offline.replay import joined
from streamad.config import PipelineConfig
from streamad.errors import ConfigError, TrainingError
from streamad.ports import Source
from streamad.testing.batches import make_columns
from streamad.training.answers import Period, labels_of

T0 = 1_700_000_000_000


@pytest.mark.parametrize("most", [1, 7, 60, 200])
def test_the_newest_rows_are_kept_in_their_order(most: int):
    rng = np.random.default_rng(most)
    at = rng.integers(0, 40, 200)  # many equal times: of these the first stay
    newest = Newest(most=most)
    for part in np.split(np.arange(200), 10):
        newest.add(make_columns(["a"] * 20, at[part].tolist(), part.astype(float).tolist()))
    kept = joined(newest.rows()).values[:, 0].astype(int)
    wanted = np.sort(np.lexsort([np.arange(200), -at])[:most])
    assert kept.tolist() == wanted.tolist()
    assert newest.n_left_out == 200 - most


def pipeline(**more: object) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {"name": "p", "input": {"topics": ["one", "two"]}, "detector": "knn", **more}
    )


def topics() -> MemoryTopics:
    made = MemoryTopics()
    for topic, key in (("one", "a"), ("two", "b")):
        for at in range(100):
            row = {"key": key, "ts": T0 + at * 1000, "value": at}
            made.put(Source(topic, 0), [orjson.dumps(row)], broker_ms=T0 + at * 1000)
    made.put(Source("one", 0), [b"{", b'{"key":"a","value":1}'], broker_ms=T0 + 100_000)
    return made


def test_rows_of_several_topics_are_bounded_by_time_and_number():
    told: list[tuple[int, int | None]] = []
    rows = rows_of_topics(
        topics(), pipeline(series={"max_ahead": "10s"}), topics=["one", "two"],
        begin_ms=T0 + 50_000, end_ms=T0 + 90_000, most=30,
        progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert sorted(rows.batch.values[:, 0].tolist()) == sorted([*range(75, 90)] * 2)
    # Whatever may hold a row of that time was read: messages come up to max_ahead before it.
    assert told[0] == (0, 62 + 60)
    assert told[-1] == (122, 122)
    assert rows.notes[0] == "one, two: 30 rows of 122 messages"
    assert "50 older rows are left out" in rows.notes[1]
    assert rows.notes[2].startswith("2 rows are not used: ")


def test_a_topic_without_rows_in_that_time_says_so():
    with pytest.raises(ConfigError, match="no row in the time asked for"):
        rows_of_topics(
            topics(), pipeline(), topics=["two"], begin_ms=T0 + 900_000, end_ms=T0 + 999_000
        )
    with pytest.raises(ConfigError, match="no topic 'three'"):
        rows_of_topics(topics(), pipeline(), topics=["three"], begin_ms=None, end_ms=T0)


def test_declared_kinds_of_series_are_kept():
    """Without them a counter would be fitted on its readings, and judged by its rate."""
    one = make_columns(["a"], [0], [1.0])
    other = make_columns(["b"], [0], [1.0])
    other.tags["kind"] = pl.Series("kind", ["counter"])
    other.tags["unit"] = pl.Series("unit", ["s"])
    assert joined([one, other]).tags["kind"].to_list() == [None, "counter"]
    assert joined([one]).tags == {}
    assert list(joined([one, other]).tags) == ["kind"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["knn", "--last", "14d"], "give a file to fit on, or --pipeline"),
        (["knn", "nowhere"], "there is no file 'nowhere'; to fit on a topic give --pipeline"),
        (["knn", __file__, "--last", "14d"], "--last is for topics, and needs --pipeline"),
        (["knn", "--pipeline", "P", "--last", "soon"], "--last is 'soon'; it must be a duration"),
        (["knn", "--pipeline", "P", "--last", "0d"], "it must be longer than nothing"),
        (["knn", "--pipeline", "P", "--rows", "0"], "--rows is 0; it must be at least 1"),
        (["knn", __file__, "--pipeline", "P", "--rows", "9"], "--rows is for topics, and"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ninput: {topics: t}\ndetector: knn\n")
    given = [str(path) if word == "P" else word for word in words]
    assert cli.main(["fit", *given, "-o", str(tmp_path / "m")]) == 2
    assert why in capsys.readouterr().err


def period(key: str, began: int, until: int, verdict: str) -> Period:
    return Period(key=key, began_ms=began, until_ms=until, verdict=verdict)


def test_answers_label_the_windows_they_touch():
    begin = np.arange(8, dtype=np.int64) * 10
    keys = pl.Series(["a"] * 8)
    labels = labels_of(keys, begin, begin + 9, [
        period("a", 15, 35, "real"),  # windows 1, 2 and 3
        period("a", 25, 25, "false_positive"),
        period("a", 39, 50, "expected"),  # 3, which is real, 4 and 5
        period("a", 50, 69, "acknowledged"),  # 5, which is expected, and 6
        period("b", 0, 99, "real"),
    ])  # fmt: skip
    assert np.flatnonzero(labels.anomalous).tolist() == [1, 3]
    assert np.flatnonzero(labels.answered).tolist() == [1, 2, 3, 4, 5]
    assert np.flatnonzero(labels.unknown).tolist() == [6]


def calls(folder: Path) -> Path:
    """Write edges of 60 minutes, of which every third is a scan, and the pipeline of them."""
    lines = ["ts,tenant,caller,callee"]
    for minute in range(60):
        pairs = [(f"web-{w}", f"app-{w % 3}") for w in range(5)]
        if minute % 3 == 0:
            pairs += [("web-1", f"db-{n}") for n in range(12)]
        lines += [f"{T0 // 60_000 * 60_000 + minute * 60_000 + 5},shop,{a},{b}" for a, b in pairs]
    (folder / "calls.csv").write_text("\n".join(lines))
    (folder / "p.yaml").write_text(
        "name: calls\ninput:\n  topics: calls\n  records: edges\n"
        "  fields: {key: tenant, time: ts, source: caller, target: callee}\ndetector: rqgnn\n"
    )
    return folder / "calls.csv"


def test_a_detector_of_labelled_graphs_learns_from_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source, given = calls(tmp_path), {}

    def fit(_make, _config, items, *, labels, facts, progress):
        given.update(items=items, labels=labels)
        msg = "far enough"
        raise TrainingError(msg)

    monkeypatch.setattr(graphs, "fit_graphs", fit)
    begin = T0 // 60_000 * 60_000
    answers = [
        {"key": "shop", "began_ms": begin + m * 60_000, "until_ms": begin + m * 60_000 + 59_999,
         "verdict": "acknowledged" if m == 9 else "expected" if m == 30 else "real"}
        for m in range(0, 60, 3)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, answers)))
    words = ["fit", "rqgnn", str(source), "--pipeline", str(tmp_path / "p.yaml"), "-o", "x"]
    assert cli.main(words) == 2
    assert "these have no labels; give answers with --feedback" in capsys.readouterr().err
    assert cli.main([*words, "--feedback", str(tmp_path / "a.jsonl")]) == 2
    assert "18 of them are anomalous, 1 were answered ordinary, 1 were seen without" in (
        capsys.readouterr().err
    )
    # The windows that people called real are the large graphs; of the others one was expected.
    sizes = np.diff(given["items"].edge_from)
    assert sizes[given["labels"]].tolist() == [17] * 18
    assert sorted(sizes[~given["labels"]].tolist()) == [5] * 39 + [17]


def test_a_label_of_an_edge_labels_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, given = calls(tmp_path), {}

    def fit(_make, _config, items, *, labels, facts, progress):
        given.update(items=items, labels=labels)
        msg = "far enough"
        raise TrainingError(msg)

    monkeypatch.setattr(graphs, "fit_graphs", fit)
    frame = pl.read_csv(source).with_columns(
        label=pl.when(pl.col("callee") == "db-3").then(pl.lit("scan")).otherwise(pl.lit("ok"))
    )
    frame.write_csv(source)
    fields = ["--fields", "caller,callee", "--key", "tenant", "--label", "label"]
    assert cli.main(["fit", "rqgnn", str(source), *fields, "-o", "x"]) == 2
    sizes = np.diff(given["items"].edge_from)
    assert sizes[given["labels"]].tolist() == [17] * 20
    assert set(sizes[~given["labels"]].tolist()) == {5}
    # Who learns no labels learns the others.
    assert cli.main(["fit", "graph_vector", str(source), *fields, "-o", "x"]) == 2
    assert given["labels"] is None
    assert set(np.diff(given["items"].edge_from).tolist()) == {5}
