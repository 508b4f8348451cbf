"""Graphs that alerted are drawn: cut as they were judged, what stands out marked."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import orjson
import pytest

from jobs import cli
from jobs.explain.graph import edges_of_topic
from jobs.pictures.graphs import graph_of
from streamad.config import load_pipeline
from streamad.ports import Messages, Source

T0 = 1_772_366_400_000
MINUTES, SCAN = 500, 470
SPACE = "{http://www.w3.org/2000/svg}"
PIPELINE = """\
name: calls
input:
  topics: calls
  records: edges
  fields: {{key: tenant, time: ts, source: caller, target: callee}}
detector: {detector}
"""


def edges() -> list[tuple[int, str, str, str]]:
    """Return web servers that call apps, and in one minute a scan by one of them."""
    rng = np.random.default_rng(3)
    rows = []
    for minute in range(MINUTES):
        pairs = [
            (f"web-{w}", f"app-{a}") for w in range(5) for a in rng.choice(4, 2, replace=False)
        ]
        pairs += [(f"app-{a}", "db-0") for a in range(4)]
        if minute == SCAN:
            pairs += [("web-1", f"app-{a}") for a in range(10, 24)]
        times = T0 + minute * 60_000 + np.sort(rng.integers(0, 60_000, len(pairs)))
        rows += [(int(t), "shop", *pair) for t, pair in zip(times, pairs, strict=True)]
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calls")
    rows = edges()
    for name, kept in (("calls", rows), ("train", [r for r in rows if r[0] < T0 + 18_000_000])):
        with (path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("ts", "tenant", "caller", "callee"), *kept])
    trained = f"{{name: graph_vector, artifact: {path / 'model'}}}"
    (path / "p.yaml").write_text(PIPELINE.format(detector=trained))
    fit = ["fit", "graph_vector", f"{path}/train.csv", "--pipeline", f"{path}/p.yaml"]
    assert cli.main([*fit, "-o", f"{path}/model"]) == 0
    made = ["backtest", f"{path}/p.yaml", f"{path}/calls.csv", "-o", f"{path}/a.jsonl"]
    made += ["--scores", f"{path}/s.parquet", "--findings", f"{path}/f.jsonl"]
    assert cli.main([*made, "--graphs", f"{path}/drawn"]) == 0
    return path


def guilty(path: Path) -> tuple[set[str], set[str]]:
    """Return the marked edges of a picture and all names of nodes in it."""
    root = ET.fromstring(path.read_text())  # noqa: S314 our own picture
    lines = [line for line in root.iter(f"{SPACE}line") if line.get("class") == "marked"]
    names = {text.text or "" for text in root.iter(f"{SPACE}text") if text.get("class") == "name"}
    return {str(line.findtext(f"{SPACE}title")).partition(",")[0] for line in lines}, names


def test_a_backtest_draws_the_graph_of_each_alert(folder: Path):
    (path,) = (folder / "drawn").iterdir()
    assert path.name == f"01-shop-{T0 + (SCAN + 1) * 60_000}.svg"
    marked, names = guilty(path)
    assert marked
    assert marked <= {f"web-1 -> app-{a}" for a in range(10, 24)}
    assert {"web-4", "db-0", "app-23"} <= names
    assert "node web-1 adds most; edge web-1 -&gt; app-" in path.read_text()


def test_explain_draws_the_same_graph(folder: Path, tmp_path: Path):
    given = [f"{folder}/p.yaml", "--scores", f"{folder}/s.parquet", "--alerts", f"{folder}/a.jsonl"]
    given += ["--findings", f"{folder}/f.jsonl", "--input", f"{folder}/calls.csv"]
    at, out = str(T0 + (SCAN + 1) * 60_000), tmp_path / "graph.svg"
    assert cli.main(["explain", "shop", *given, "--at", at, "--picture", str(out)]) == 0
    (drawn,) = (folder / "drawn").iterdir()
    assert out.read_text() == drawn.read_text()
    ordinary = str(T0 + 450 * 60_000)
    assert cli.main(["explain", "shop", *given, "--at", ordinary, "--picture", str(out)]) == 0
    marked, names = guilty(out)
    assert not marked
    assert len(names) == 10


def test_score_draws_the_same_graph(folder: Path, tmp_path: Path):
    model = ["--artifact", f"{folder}/model", "-o", f"{tmp_path}/s.csv"]
    file = f"{folder}/calls.csv"
    fields = ["--fields", "caller,callee", "--key", "tenant", "--graphs", f"{tmp_path}/g"]
    assert cli.main(["score", file, *model, *fields]) == 0
    (path,) = (tmp_path / "g").iterdir()
    assert guilty(path) == guilty(next((folder / "drawn").iterdir()))


def test_edges_judged_by_themselves_are_drawn_with_those_before(folder: Path, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(PIPELINE.format(detector="edge_changes") + "alerts: {level: 1h}\n")
    made = ["backtest", f"{path}", f"{folder}/calls.csv", "-o", f"{tmp_path}/a.jsonl"]
    assert cli.main([*made, "--graphs", f"{tmp_path}/drawn"]) == 0
    (drawn,) = (tmp_path / "drawn").iterdir()
    _, names = guilty(drawn)
    assert {f"app-{a}" for a in range(10, 24)} <= names
    text = drawn.read_text()
    assert "fan-out: web-1 reaches about 18 targets" in text
    (node,) = re.findall(r'circle class="guilty"[^>]*><title>([^<]*)', text)
    assert node == "web-1 (no type)"


def test_only_graphs_are_drawn(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p.yaml").write_text("name: hosts\n")
    assert cli.main(["backtest", f"{tmp_path}/p.yaml", "x.csv", "--graphs", f"{tmp_path}/g"]) == 2
    assert "--graphs draws graphs, and hosts reads signals" in capsys.readouterr().err
    given = ["explain", "shop", f"{folder}/p.yaml", "--scores", f"{folder}/s.parquet"]
    assert cli.main([*given, "--picture", f"{tmp_path}/g.png"]) == 2
    given += ["--at", str(T0 + 9_000_000), "--input", f"{folder}/train.csv"]
    late = [*given[:-4], "--at", str(T0 + SCAN * 60_000), *given[-2:]]
    assert cli.main([*late, "--picture", f"{tmp_path}/g.svg"]) == 2
    assert "no edge of 'shop' from 2026-03-01" in capsys.readouterr().err


class Topic:
    """One partition of a topic; counts what is read."""

    def __init__(self, payloads: list[bytes]) -> None:
        self.payloads, self.read_until = payloads, 0

    def bounds(self, topic: str) -> dict[Source, tuple[int, int]]:
        return {Source(topic, 0): (0, len(self.payloads))}

    def offset_at(self, source: Source, time_ms: int) -> int:
        del source
        return next(i for i, one in enumerate(edges()) if one[0] >= time_ms)

    def read(self, source: Source, start: int, stop: int):
        for at in range(start, stop, 200):
            end = min(at + 200, stop)
            self.read_until = end
            yield Messages(
                source=source,
                payloads=self.payloads[at:end],
                offsets=np.arange(at, end),
                broker_ms=np.full(end - at, -1),
                raw=[],
            )


def test_a_window_is_read_from_the_topic_and_no_more(folder: Path):
    names = ("ts", "tenant", "caller", "callee")
    topic = Topic([orjson.dumps(dict(zip(names, row, strict=True))) for row in edges()])
    config = load_pipeline(folder / "p.yaml", environment={})
    window = (T0 + 100 * 60_000, T0 + 101 * 60_000 - 1)
    batches = list(edges_of_topic(topic, "calls", config, window))  # type: ignore[arg-type]
    graph = graph_of(batches, "shop", window, config)
    assert len(graph.names) == 10
    assert graph.count.sum() == 14
    assert topic.read_until < len(topic.payloads) // 2
