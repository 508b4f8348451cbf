"""Commands that ask a broker: back-test a topic, check a pipeline against it, make its topics."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import orjson
import pytest
from kafka import KafkaProducer

from jobs import cli
from streamad.artifacts import load_manifest

T0 = 1_700_000_000_000


@pytest.fixture
def pipeline(kafka, topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    name = topic("metrics", partitions=2)
    path = tmp_path / "p.yaml"
    path.write_text(
        f"name: {name}\ninput: {{topics: {name}}}\nwindows: {{size: 40}}\n"
        "detector: knn\nscoring: {min_windows: 0}\n"
    )
    return path, name


def rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    return [
        {
            "key": host,
            "ts": T0 + i * 10_000,
            "value": round(float(np.sin(i / 6) + rng.normal() / 20), 4)
            + (100 if host == "b" and 500 <= i < 510 else 0),
        }
        for i in range(600)
        for host in ("a", "b", "c")
    ]


def test_a_topic_and_a_file_of_the_same_rows_give_the_same_alerts(kafka, pipeline, tmp_path: Path):
    path, name = pipeline
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    lines = []
    for row in rows():
        lines.append(orjson.dumps(row))
        producer.send(name, key=str(row["key"]).encode(), value=lines[-1])
    producer.flush()
    producer.close()
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    assert cli.main(["backtest", str(path), name, "-o", str(tmp_path / "topic.csv")]) == 0
    assert cli.main(["backtest", str(path), "in.jsonl", "-o", "x.txt"]) == 2
    file = str(tmp_path / "in.jsonl")
    assert cli.main(["backtest", str(path), file, "-o", str(tmp_path / "file.csv")]) == 0
    found = (tmp_path / "topic.csv").read_text()
    assert ",b," in found
    assert found == (tmp_path / "file.csv").read_text()


def test_a_first_pipeline_of_a_topic_needs_no_edit(
    kafka, pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    _, name = pipeline
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for row in rows():
        made = {"host": {"name": row["key"]}, "@timestamp": row["ts"], "load": str(row["value"])}
        producer.send(name, key=str(row["key"]).encode(), value=orjson.dumps(made))
    producer.flush()
    producer.close()
    first = tmp_path / "first.yaml"
    assert cli.main(["init", name, "-o", str(first)]) == 0
    assert "1,800 readings of 3 series" in capfd.readouterr().err
    assert cli.main(["validate", str(first), "--online"]) == 0
    plot = tmp_path / "alerts.html"
    out = str(tmp_path / "alerts.csv")
    assert cli.main(["backtest", str(first), name, "-o", out, "--plot", str(plot)]) == 0
    assert ",b," in Path(out).read_text()
    assert "<svg" in plot.read_text()
    assert cli.main(["init", name, "-o", str(first)]) == 2
    assert cli.main(["init", "no-such-topic"]) == 2


def test_a_pipeline_is_checked_against_its_cluster(pipeline, capfd: pytest.CaptureFixture[str]):
    path, name = pipeline
    assert cli.main(["validate", str(path), "--online"]) == 0
    assert f"topic streamad.{name}.alerts is missing and will be created" in capfd.readouterr().err
    assert cli.main(["topics", "create", str(path)]) == 0
    assert f"streamad.{name}.alerts\n" in capfd.readouterr().out
    assert cli.main(["topics", "create", str(path)]) == 0
    assert "all topics exist already" in capfd.readouterr().err
    path.write_text(path.read_text().replace(f"topics: {name}", "topics: nowhere"))
    assert cli.main(["validate", str(path), "--online"]) == 2
    assert "no topic nowhere on this cluster" in capfd.readouterr().err


def test_a_source_that_is_nothing_is_one_line(pipeline, capfd: pytest.CaptureFixture[str]):
    path, _ = pipeline
    assert cli.main(["backtest", str(path), "no-such-topic"]) == 2
    err = capfd.readouterr().err
    assert err == "streamad: error: there is no file and no topic 'no-such-topic'\n"


def send(producer: KafkaProducer, topic: str, sent: list[dict[str, object]]) -> None:
    for row in sent:
        place = "abc".index(str(row["key"])) % 2
        producer.send(topic, value=orjson.dumps(row), partition=place)
    producer.flush()


def test_a_detector_is_fitted_on_the_last_days_of_a_topic(
    kafka, pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """As on a file of the same rows: what is older, aborted or unreadable is not learned."""
    path, name = pipeline
    now = time.time_ns() // 1_000_000
    made = [{**row, "ts": now - 7_000_000 + int(row["ts"]) - T0} for row in rows()]
    old = {"key": "a", "ts": now - 40 * 86_400_000, "value": 1e6}
    with closing(
        KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"t-{name}")
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        send(producer, name, [old, *made])
        producer.send(name, value=b"{", partition=1)
        producer.commit_transaction()
        producer.begin_transaction()
        send(producer, name, [{**row, "value": 9e9} for row in made[-30:]])
        producer.abort_transaction()
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, made)))
    words = ["fit", "knn", "--pipeline", str(path), "-o", str(tmp_path / "topic")]
    assert cli.main([*words, "--last", "14d"]) == 0
    err = capfd.readouterr().err
    assert f"{name}: 1,800 rows of 1,802 messages\n" in err
    assert "1 rows are not used: 1 " in err
    words = ["fit", "knn", str(tmp_path / "in.jsonl"), "--pipeline", str(path)]
    assert cli.main([*words, "-o", str(tmp_path / "file")]) == 0
    topic, file = (load_manifest(str(tmp_path / one)) for one in ("topic", "file"))
    assert topic.trained == file.trained
    assert topic.tail == file.tail
    assert sorted(topic.groups) == sorted(file.groups) == ["a", "b", "c"]
    # And it runs: the pipeline of the artifact judges the topic.
    path.write_text(
        path.read_text().replace(
            "detector: knn", f"detector: {{name: knn, artifact: {tmp_path / 'topic'}}}"
        )
    )
    assert cli.main(["backtest", str(path), name, "-o", str(tmp_path / "a.csv")]) == 0
    assert ",b," in (tmp_path / "a.csv").read_text()
