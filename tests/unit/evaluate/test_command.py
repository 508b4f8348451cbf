"""The command from folder to page: nothing looks ahead, it resumes, and says what is missing."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from importlib.util import find_spec

import orjson
import polars as pl
import pytest

from jobs.cli import main
from jobs.evaluate import run as task_runs
from jobs.evaluate.layouts import Labelled
from jobs.evaluate.run import read_spec, run_task, tasks_of
from jobs.evaluate.store import Store
from jobs.evaluate.summary import summarise
from streamad.errors import ConfigError
from streamad.evaluation.baselines import NEEDS
from tests.unit.evaluate import folders


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run once over processes; return the folder and what was printed."""
    folder = tmp_path_factory.mktemp("evaluate")
    folders.index_folder(folder / "made")
    code = main([*command(folder), "--jobs", "2"])
    assert code == 0
    return folder


def command(folder):
    return [
        "evaluate", str(folder / "made"), "-d", "robust_z", "-d", "pca:variance=0.8",
        "--baselines", "knn_raw", "--size", "32", "-o", str(folder / "out"),
    ]  # fmt: skip


def test_the_summary_holds_every_detector_against_the_reference(done):
    made = orjson.loads((done / "out/summary.json").read_bytes())
    assert (made["layout"], made["reference"], made["series"]) == ("index", "knn_raw", 2)
    assert (made["anomalies"], made["sets"]) == (1, {"web": 2})
    lines = {line["detector"]: line for line in made["lines"]}
    assert lines.keys() == {"robust_z", "pca:variance=0.8", "random", "abs_z", "knn_raw"}
    for name, line in lines.items():
        assert (line["series"], line["labelled"], line["failed"], line["skipped"]) == (2, 1, 0, 0)
        assert 0 <= line["measures"]["vus_pr"]["value"] <= 1
        assert (name == "knn_raw") is (line["differences"] == {})
        assert set(line["nab"]) == {"standard", "reward_low_FP", "reward_low_FN"}
    best = lines["knn_raw"]["measures"]["vus_pr"]["value"]
    assert best > 0.9
    assert lines["random"]["measures"]["vus_pr"]["value"] < 0.3
    assert lines["random"]["differences"]["vus_pr"]["value"] == pytest.approx(
        lines["random"]["measures"]["vus_pr"]["value"] - best
    )
    assert lines["knn_raw"]["found"]["value"] == 1.0
    weeks = sum(400 * 300_000 / 604_800_000 for _ in range(2))
    assert made["weeks"] == pytest.approx(weeks, rel=0.01)
    assert [line["measures"]["vus_pr"]["value"] for line in made["lines"]] == sorted(
        (line["measures"]["vus_pr"]["value"] for line in made["lines"]), reverse=True
    )


def test_the_page_stands_alone_and_shows_series_with_scores_and_alerts(done):
    page = (done / "out/report.html").read_text()
    for outside in ("<script", "src=", "href=", "url(", "@import"):
        assert outside not in page
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(  # type: ignore[method-assign]
        f"{tag}.{dict(attrs).get('class')}"
    )
    parser.feed(page)
    assert tags.count("svg.chart") == 3 + 2
    for part in ("circle.dot", "path.score", "rect.alert", "rect.label", "polyline.line"):
        assert part in tags, part
    assert "web/cpu" in page
    assert not re.search(r"\bnan\b", page)


def test_a_second_run_has_nothing_to_do_and_a_cut_line_is_run_again(done, monkeypatch, capsys):
    results = done / "out/results.jsonl"
    before = results.read_bytes()
    assert before.count(b"\n") == 10
    first = (done / "out/summary.json").read_bytes()
    ran: list[str] = []
    real = task_runs.run_task

    def counted(task):
        ran.append(task.spec.label)
        return real(task)

    monkeypatch.setattr("jobs.evaluate.pool.run_task", counted)
    assert main([*command(done), "--jobs", "1"]) == 0
    assert "10 of 10 results are there already" in capsys.readouterr().err
    assert ran == []
    assert (done / "out/summary.json").read_bytes() == first
    results.write_bytes(before[:-40])
    assert main([*command(done), "--jobs", "1"]) == 0
    assert len(ran) == 1
    same = orjson.loads((done / "out/summary.json").read_bytes())["lines"]
    again = {k: v for k, v in same[0].items() if k != "ms_per_row"}
    known = {k: v for k, v in orjson.loads(first)["lines"][0].items() if k != "ms_per_row"}
    assert again == known
    # Other data, other parameters: other results.
    (spec,) = [read_spec("robust_z")]
    series = [Labelled(path=done / "made/web/cpu.parquet", set="web", name="cpu")]
    keys = {
        tasks_of(series, [spec])[0].key,
        tasks_of(series, [spec], size=64)[0].key,
        tasks_of(series, [read_spec("pca")])[0].key,
        tasks_of([Labelled(path=done / "made/web/quiet.parquet", set="a", name="b")], [spec])[
            0
        ].key,
    }
    assert len(keys) == 4


def test_figures_do_not_change_when_the_future_does(tmp_path):
    frame = pl.DataFrame(
        {"timestamp": folders.times(), "v0": folders.values(0), "label": folders.labels()}
    )
    traces = []
    for name, end in (("whole", folders.N), ("early", 640)):
        frame.head(end).write_parquet(tmp_path / f"{name}.parquet")
        one = Labelled(path=tmp_path / f"{name}.parquet", set="a", name=name, train_end=300)
        (task,) = tasks_of([one], [read_spec("knn_raw")], size=32)
        traces.append(run_task(task)["trace"]["alerts"])
    assert [opened for opened, _, _ in traces[0] if opened < 620] == [
        opened for opened, _, _ in traces[1] if opened < 620
    ]
    opened, first, _ = traces[0][0]
    assert opened > first >= folders.SPAN[0] - 32, "the lag shows between the event and its alert"


def test_what_cannot_run_is_named_and_the_rest_has_figures(tmp_path, capsys):
    folders.tsb_folder(tmp_path / "made")
    (tmp_path / "made/003_BAD_tr_9_.csv").write_text("Data,Label\nx,0\ny,1\n")
    code = main(
        ["evaluate", str(tmp_path / "made"), "-d", "abs_z", "--baselines", "random", "--size", "32",
         "-o", str(tmp_path / "out"), "--jobs", "1"]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0
    assert (
        "abs_z has no figures for BAD/003_BAD_tr_9_: 003_BAD_tr_9_.csv has no numeric" in said.err
    )
    made = orjson.loads((tmp_path / "out/summary.json").read_bytes())
    assert {line["skipped"] for line in made["lines"]} == {1}
    assert {line["series"] for line in made["lines"]} == {2}
    assert "abs_z" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "no_such"], "no_such"),
        (["-d", "knn:q=5"], "knn has no such parameter"),
        (["-d", "rare_events"], "evaluate is for signals"),
        (["--reference", "themis"], "themis is not evaluated"),
        (["--sets", "cats"], "there is no set cats"),
        (["--layout", "csv"], "--layout"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(tmp_path, capsys, words, said):
    folders.plain_folder(tmp_path / "made")
    code = main(["evaluate", str(tmp_path / "made"), "-o", str(tmp_path / "out"), *words])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_baseline_without_its_package_is_left_out_with_the_way_to_get_it(
    tmp_path, monkeypatch, capsys
):
    folders.plain_folder(tmp_path / "made")
    monkeypatch.setitem(NEEDS, "half_space_trees", ("no_such_package", "pip install it"))
    given = ["evaluate", str(tmp_path / "made"), "-d", "abs_z", "--size", "32", "--jobs", "1",
             "-o", str(tmp_path / "out")]  # fmt: skip
    assert main([*given, "--baselines", "half_space_trees"]) == 0
    assert "half_space_trees is left out" in capsys.readouterr().err
    assert main([*given, "-d", "half_space_trees"]) == 2
    assert "pip install it" in capsys.readouterr().err
    assert find_spec("no_such_package") is None


def test_a_store_survives_a_kill_in_the_middle_of_a_line(tmp_path):
    store = Store(tmp_path)
    store.add({"key": "a", "rows": 1})
    with store.path.open("ab") as file:
        file.write(b'{"key": "b", "ro')
    store.add({"key": "c", "failed": "why"})
    store.add({"key": "d", "skipped": "why"})
    assert store.read("abcd") == {"a": {"key": "a", "rows": 1}, "d": {"key": "d", "skipped": "why"}}
    assert Store(tmp_path, fresh=True).read("a") == {}
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        Store(tmp_path / "file")


def test_pairs_are_of_the_same_series_also_where_a_detector_failed():
    def record(detector, series, value):
        return {
            "set": "a", "series": series, "detector": detector, "rows": 10, "weeks": None,
            "vus_pr": value, "vus_roc": 0.5, "auc_pr": 0.5, "auc_roc": 0.5, "anomalies": 2,
            "found": 1, "by_chance": 0.5, "episodes": 1, "true": 1, "false": 0, "delays": [3],
            "delays_ms": [], "windows": 10, "below": [1, 0, 0], "newest_windows": 0,
            "newest_below": [0, 0, 0], "nab": [1.0, 0.0, 1, 2], "seconds": 0.1,
        }  # fmt: skip

    records = [record("x", "1", 0.9), record("x", "2", 0.1), record("y", "2", 0.2)]
    records.append({"set": "a", "series": "1", "detector": "y", "failed": "no"})
    made = summarise(records, ["x", "y"], source="s", layout="plain", reference="x")
    lines = {line.detector: line for line in made.lines}
    assert lines["y"].differences["vus_pr"].value == pytest.approx(0.1)
    assert lines["y"].differences["vus_pr"].n == 1
    assert lines["y"].measures["vus_pr"].value < lines["x"].measures["vus_pr"].value
    assert lines["x"].below == (0.1, 0.0, 0.0)
    assert lines["x"].nab["standard"] == 50.0
    assert math.isnan(lines["x"].per_week.value)
    assert lines["x"].delay_rows == 3.0


def test_score_with_labels_has_the_same_figures_and_the_column_never_reaches_the_model(
    tmp_path, capsys
):
    path = folders.plain_folder(tmp_path / "made") / "web-1.csv"
    frame = pl.read_csv(path).rename({"is_anomaly": "verdict"})
    frame.write_csv(path)
    given = ["score", str(path), "--detector", "pca", "--size", "32", "--train-end", "300",
             "-o", str(tmp_path / "scores.csv")]  # fmt: skip
    assert main([*given, "--label", "verdict"]) == 0
    said = capsys.readouterr().err
    one = Labelled(path=path, set="a", name="b", label="verdict", train_end=300)
    (task,) = tasks_of([one], [read_spec("pca")], size=32)
    result = run_task(task)
    line = re.search(r"^pca +1 +(\.\d+|1\.000) ", said, flags=re.MULTILINE)
    assert line is not None, said
    assert float(line[1]) == pytest.approx(result["vus_pr"], abs=6e-4)
    assert "1 anomalies" not in said
    assert "1 anomaly" in said
    scored = pl.read_csv(tmp_path / "scores.csv")
    assert len(scored) == folders.N, "a row per row: the column of labels is no series"
    assert main([*given, "--label", "no_such"]) == 2
    assert "--label: the file has no column 'no_such'" in capsys.readouterr().err
    frame.with_columns(verdict=0).write_csv(path)
    assert main([*given, "--label", "verdict"]) == 0
    assert "is labelled an anomaly: there are no figures" in capsys.readouterr().err


def test_a_file_of_several_series_is_measured_series_by_series(tmp_path, capsys):
    frame = pl.DataFrame(
        {"timestamp": folders.times(), "a": folders.values(0), "b": folders.values(1)}
    )
    frame.with_columns(label=folders.labels()).write_csv(tmp_path / "two.csv")
    code = main(["score", str(tmp_path / "two.csv"), "--detector", "pca", "--size", "32",
                 "--train-end", "300", "-o", str(tmp_path / "out.csv")])  # fmt: skip
    said = capsys.readouterr().err
    assert code == 0
    assert re.search(r"^pca +2 ", said, flags=re.MULTILINE), said
    assert "2 anomalies" in said
