"""The command: every help teaches, every error is one line, exit codes mean something."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import typer

from jobs import cli
from streamad.artifacts import load_manifest

T0 = 1_700_000_000_000


def commands() -> list[list[str]]:
    """Every command and sub-command, as words."""
    found: list[list[str]] = []

    def walk(group: object, words: list[str]) -> None:
        for name, command in getattr(group, "commands", {}).items():
            found.append([*words, name])
            walk(command, [*words, name])

    walk(typer.main.get_command(cli.app), [])
    return found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    n = 700
    rng = np.random.default_rng(0)
    values = np.sin(2 * np.pi * np.arange(n) / 40) + 0.05 * rng.normal(size=n)
    values[600:610] += 100
    frame = pl.DataFrame({"key": ["k"] * n, "ts": T0 + np.arange(n) * 10_000, "value": values})
    frame.write_csv(tmp_path / "metrics.csv")
    return tmp_path / "metrics.csv"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text("name: p\ninput: {topics: metrics}\nwindows: {size: 40}\ndetector: knn\n")
    return path


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_help_of_every_command_has_an_example(run: Run, words: list[str]):
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"streamad {' '.join(words)}" in out.split("Examples:")[1]


def test_the_commands_people_ask_for_are_there():
    wanted = ["run", "score", "fit", "backtest", "detectors", "validate", "explain", "demo"]
    assert {*wanted, "version", "topics create", "dlq show", "dlq replay"} <= {
        " ".join(c) for c in commands()
    }


def test_without_a_word_the_command_says_what_it_can_do(run: Run):
    code, out, err = run()
    assert code == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scor"], "No such command 'scor'. Did you mean 'score'"),
        (["score"], "Missing argument 'FILE'; see: streamad score --help"),
        (["score", "x.csv", "--colums", "a"], "No such option: --colums"),
        (["score", "nope.csv"], "there is no file nope.csv"),
        (["score", "x.csv", "-d", "knn", "--artifact", "m"], "not both"),
        (["score", "x.csv", "-o", "out.txt"], "must end with .csv, .parquet or .jsonl"),
        (["score", "x.csv", "-p", "k"], "expected name=value, got 'k'"),
        (["validate", "nope.yaml"], "nope.yaml: cannot be read"),
        (["run", "nope.yaml"], "nope.yaml: cannot be read"),
        (["backtest", "p.yaml", "x.csv", "--plot", "x.gif"], "written as .html or .svg"),
        (["explain", "k", "--at", "noon"], "'noon' is not a time"),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_two(
    run: Run, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("streamad: error: ")
    assert len(err.splitlines()) == 1
    assert told in err


def test_what_nobody_foresaw_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch):
    def fail(**_: object) -> None:
        msg = "boom"
        raise RuntimeError(msg)

    monkeypatch.setattr("jobs.catalogue.print_detectors", fail)
    code, _, err = run("detectors")
    assert code == 1
    assert err == ("streamad: error: unexpected RuntimeError: boom; STREAMAD_DEBUG=1 shows where\n")
    monkeypatch.setenv("STREAMAD_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run("detectors")


def test_score_writes_one_row_a_row_and_tells_the_lag(run: Run, metrics: Path, tmp_path: Path):
    out = tmp_path / "scores.parquet"
    code, _, err = run("score", metrics, "-d", "knn", "--train-end", 400, "-o", out)
    assert code == 0
    frame = pl.read_parquet(out)
    assert frame.columns == [
        "row", "ts", "key", "score", "p_value", "severity", "alert", "incomplete",
    ]  # fmt: skip
    assert len(frame) == 700
    assert "uses no row after t + 20" in err


def test_score_draws_series_alerts_and_labels(run: Run, tmp_path: Path):
    rng = np.random.default_rng(0)
    calm = [50 + np.sin(np.arange(900) / 6) + 0.05 * rng.normal(size=900) for _ in range(3)]
    calm[1][600:604] += 40
    label = (np.arange(900) // 4 == 150).astype(int)
    times = 1_772_366_400_000 + 60_000 * np.arange(900)
    columns = {"ts": times, "a": calm[0], "b<i>": calm[1], "c": calm[2], "label": label}
    pl.DataFrame(columns).write_csv(tmp_path / "in.csv")
    plot = tmp_path / "in.svg"
    code, _, err = run(
        "score", tmp_path / "in.csv", "--size", 38, "-o", tmp_path / "o.csv", "--plot", plot
    )
    assert code == 0, err
    drawn = ElementTree.parse(plot).getroot()  # noqa: S314 our own
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a", "b<i>", "c", "labelled"} <= set(texts), "each has the label of its rows"
    assert texts.index("b<i>") < texts.index("a"), "what raised alerts comes first"
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 3


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_kind_of_output_holds_the_same(run: Run, metrics: Path, tmp_path: Path, suffix: str):
    run("score", metrics, "-d", "robust_z", "-o", tmp_path / f"s.{suffix}")
    _, out, _ = run("score", metrics, "-d", "robust_z")
    readers = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}
    read = readers[suffix](tmp_path / f"s.{suffix}")
    assert len(out.splitlines()) == 701
    printed = pl.read_csv(out.encode())["score"].to_numpy()
    assert np.allclose(read["score"].to_numpy(), printed, rtol=1e-5)


def test_fit_makes_an_artifact_that_score_and_pipelines_take(
    run: Run, metrics: Path, tmp_path: Path
):
    code, _, err = run(
        "fit",
        "pca",
        metrics,
        "--key",
        "key",
        "--size",
        40,
        "-o",
        tmp_path / "m",
        "--licence",
        "MIT",
    )
    assert code == 0, err
    manifest = load_manifest(tmp_path / "m")
    assert (manifest.detector, manifest.groups, manifest.licence) == ("pca", ("k",), "MIT")
    assert manifest.created.endswith("Z")
    code, _, err = run("score", metrics, "--key", "key", "--artifact", tmp_path / "m")
    assert code == 0, err
    path = tmp_path / "p.yaml"
    path.write_text(f"name: p\ndetector: {{name: pca, artifact: {tmp_path}/m}}\n")
    code, out, _ = run("validate", path)
    assert code == 0
    assert f"artifact: {manifest.id}" in out


def test_fit_reads_as_a_pipeline_would(run: Run, metrics: Path, pipeline: Path, tmp_path: Path):
    code, _, err = run("fit", "knn", metrics, "--pipeline", pipeline, "-o", tmp_path / "m")
    assert code == 0, err
    assert load_manifest(tmp_path / "m").size == 40
    code, _, err = run("fit", "pca", metrics, "--pipeline", pipeline, "-o", tmp_path / "m")
    assert code == 2
    assert "names the detector 'knn', not 'pca'" in err


def test_parameters_are_given_by_name(run: Run, metrics: Path):
    code, _, err = run("score", metrics, "-d", "knn", "-p", "lag=0", "-p", "k=5", "-o", "-")
    assert code == 0
    assert "lag 0" in err
    code, _, err = run("score", metrics, "-d", "knn", "-p", "lagg=0")
    assert code == 2
    assert "did you mean 'lag'?" in err


def test_backtest_writes_alerts_and_a_report(
    run: Run, metrics: Path, pipeline: Path, tmp_path: Path
):
    out, plot = tmp_path / "alerts.jsonl", tmp_path / "alerts.html"
    code, _, err = run("backtest", pipeline, metrics, "-o", out, "--plot", plot)
    assert code == 0, err
    states = [json.loads(line)["state"] for line in out.read_text().splitlines()]
    assert states[0] == "opened"
    assert "per day" in err
    assert "longest" in err
    assert "<svg" in plot.read_text()
    code, _, _ = run("backtest", pipeline, metrics, "-o", tmp_path / "alerts.csv")
    assert pl.read_csv(tmp_path / "alerts.csv")["key"].to_list() == ["k"]


def test_detectors_are_listed_for_people_and_machines(run: Run):
    code, out, _ = run("detectors", "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert listed["knn"]["lag"] == 32
    assert listed["pca"]["needs_training"]
    assert all(entry["bytes_per_key"] > 0 for entry in listed.values())
    code, out, _ = run("detectors")
    assert "knn_fused" in out
    assert "bytes/key" in out


def test_validate_prints_what_would_run_without_secrets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STORE_PASSWORD", "hunter2hunter2")
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\ninput: {topics: metrics}\nwindows: {size: 40}\ndetector: knn\n"
        "delivery: {snapshot_store: 's3://me:${STORE_PASSWORD}@store/x'}\n"
    )
    code, out, err = run("validate", path)
    assert (code, err) == (0, f"{path}: valid\n")
    assert "hunter2" not in out
    assert "keys_with_windows" in out
    assert "series.max_memory (4GiB) holds" in " ".join(out.split())
    for expected in ("streamad.p.alerts", "metrics.dlq", "bytes_per_key", "lag: 20 samples"):
        assert expected in out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: p\ndetector:\n  name: knnn\n", ":3: detector.name: no detector is called 'knnn'"),
        (
            "name: p\ndetector:\n  name: knn\n  params:\n    histroy: 1\n",
            ":5: detector.params.histroy: knn has no such parameter; did you mean 'history'?",
        ),
        ("name: p\nwindows:\n  size: 8\n", ":3: windows.size: auto needs windows of at"),
        ("name: p\ninput:\n  format: jsn\n", ":3: input.format: no codec is called 'jsn'"),
        (
            "name: p\ninput:\n  format: prometheus\n  fields: {values: [a, b]}\n",
            ":4: input.fields: codec prometheus: a point has one value",
        ),
        ("name: p\ndetector: pca\n", ":2: detector.artifact: pca needs an artifact"),
    ],
)
def test_validate_places_what_only_plug_ins_know(run: Run, tmp_path: Path, text: str, told: str):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    code, out, err = run("validate", path)
    assert (code, out) == (2, "")
    assert f"{path}{told}" in err


def test_run_refuses_a_fallback_when_strict(run: Run, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ninput: {topics: t}\ndetector: {name: pca, artifact: /nowhere}\n")
    code, _, err = run("run", path, "--strict")
    assert code == 2
    assert "holds no manifest.json" in err


def test_no_colour_is_written_where_nobody_wants_it(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = run("detectors")
    assert "\x1b[3" not in out + err


def test_help_starts_light_and_scoring_needs_no_torch(metrics: Path):
    script = (
        "import sys\nfrom jobs.cli import main\n"
        "main(['--help'])\n"
        "light = {'polars', 'numba', 'numpy', 'pydantic', 'rich', 'kafka'} & sys.modules.keys()\n"
        "assert not light, light\n"
        f"assert main(['score', {str(metrics)!r}, '-d', 'robust_z']) == 0\n"
        "heavy = {'torch', 'transformers', 'pyflink', 'kafka'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


def test_no_command_repeats_a_secret_or_gives_orders_to_the_terminal(run, tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter22")
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: a\ndetector: {name: pca, artifact: 'memory://k:s3cret@b/m?sig=abcd'}\n"
        "flink: {options: {s3.access-key: AKIA1234, x: hunter22}}\n"
    )
    code, out, err = run("validate", file)
    assert code == 0
    code, _, refused = run("validate", tmp_path / "hunter22\x1b[2J.yaml")
    assert code == 2
    shown = out + err + refused
    assert "memory://***@b/m?***" in shown
    for secret in ("s3cret", "abcd", "AKIA1234", "hunter22", "\x1b"):
        assert secret not in shown
