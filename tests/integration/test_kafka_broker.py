"""The broker the other tests stand on: it must answer, and survive being killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer

from streamad.testing.kafka_broker import BrokerError, KafkaBroker, main, why_no_broker


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap, acks="all")) as producer:
        for value in values:
            producer.send(topic, value).get(timeout=30)


def consume(bootstrap: str, topic: str, **config: Any) -> list[bytes]:
    """Read the topic from its start until nothing comes for two seconds."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=2_000,
        **config,
    )
    with contextlib.closing(consumer):
        return [record.value for record in consumer]


@pytest.fixture(scope="module")
def own_broker(kafka_libs: Path) -> Iterator[KafkaBroker]:
    with KafkaBroker(libs=kafka_libs, message_max_bytes=200_000) as broker:
        yield broker


def test_what_is_produced_is_consumed(kafka: KafkaBroker, topic: Callable[..., str]):
    name = topic("plain")
    produce(kafka.bootstrap, name, [b"a", b"b", b"c"])
    assert consume(kafka.bootstrap, name) == [b"a", b"b", b"c"]


def test_topics_of_two_tests_differ_and_have_the_partitions_asked_for(
    kafka: KafkaBroker, topic: Callable[..., str]
):
    first, second = topic("same", partitions=3), topic("same")
    assert first != second
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    with contextlib.closing(consumer):
        assert consumer.partitions_for_topic(first) == {0, 1, 2}


def test_a_misspelt_topic_is_not_created(kafka: KafkaBroker):
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_block_ms=1_500)
    with contextlib.closing(producer), pytest.raises(Exception, match=r"topic|metadata|Timeout"):
        producer.send("no-such-topic", b"a").get(timeout=3)


def test_only_committed_transactions_are_read_by_committed_readers(
    kafka: KafkaBroker, topic: Callable[..., str]
):
    name = topic("transactions")
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{name}-member-0")
    with contextlib.closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"kept")
        producer.commit_transaction()
        producer.begin_transaction()
        producer.send(name, b"taken back").get(timeout=30)
        producer.abort_transaction()
    assert consume(kafka.bootstrap, name, isolation_level="read_committed") == [b"kept"]
    assert consume(kafka.bootstrap, name, isolation_level="read_uncommitted") == [
        b"kept",
        b"taken back",
    ]


def test_a_killed_broker_comes_back_under_its_address_with_its_data(own_broker: KafkaBroker):
    own_broker.create_topic("kept")
    produce(own_broker.bootstrap, "kept", [b"before"])
    address, pid = own_broker.bootstrap, own_broker.pid
    assert pid is not None

    own_broker.kill()
    assert own_broker.pid is None
    assert not psutil.pid_exists(pid)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", own_broker.port), timeout=1)

    own_broker.start()
    assert own_broker.bootstrap == address
    produce(address, "kept", [b"after"])
    assert consume(address, "kept") == [b"before", b"after"]

    own_broker.restart()
    assert consume(address, "kept") == [b"before", b"after"]


def test_the_largest_message_is_what_was_asked_for(own_broker: KafkaBroker):
    own_broker.create_topic("sizes")
    produce(own_broker.bootstrap, "sizes", [b"x" * 150_000])
    with pytest.raises(Exception, match=r"MessageSizeTooLarge|RecordTooLarge|larger"):
        produce(own_broker.bootstrap, "sizes", [b"x" * 250_000])


def test_close_removes_a_temporary_folder_and_may_be_called_twice(kafka_libs: Path):
    broker = KafkaBroker(libs=kafka_libs)
    assert broker.data_dir.exists()
    broker.close()
    broker.close()
    assert not broker.data_dir.exists()


def test_a_broker_that_dies_says_so_with_the_end_of_its_log(kafka_libs: Path, tmp_path: Path):
    broker = KafkaBroker(libs=kafka_libs, data_dir=tmp_path, properties={"num.io.threads": "none"})
    with pytest.raises(BrokerError, match=r"(?s)the log ends:.*num\.io\.threads"):
        broker.start()
    assert broker.pid is None


def test_a_broker_dies_with_the_process_that_started_it(kafka_libs: Path, tmp_path: Path):
    script = (
        "import os, pathlib, signal\n"
        "from streamad.testing.kafka_broker import KafkaBroker\n"
        f"broker = KafkaBroker(libs=pathlib.Path({str(kafka_libs)!r}),"
        f" data_dir=pathlib.Path({str(tmp_path)!r})).start()\n"
        "print(broker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    pid = int(ended.stdout)
    assert ended.returncode == -9
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)  # the pipe's end has to reach the watchdog
    assert not psutil.pid_exists(pid)


def test_up_starts_a_broker_that_stays_and_down_ends_it(kafka_libs: Path, tmp_path: Path):
    def command(*arguments: str) -> str:
        module = [sys.executable, "-m", "streamad.testing.kafka_broker", *arguments]
        where = ["--libs", str(kafka_libs), "--dir", str(tmp_path)]
        return subprocess.run([*module, *where], check=True, capture_output=True, text=True).stdout

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    try:
        assert f"answers on 127.0.0.1:{port}" in command("up", "--port", port)
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
        assert "already up" in command("up", "--port", port)
    finally:
        assert "is down" in command("down")
    assert "no broker is up" in command("down")


def test_up_on_a_taken_port_says_which_line_to_type(
    kafka_libs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code = main(["up", "--port", port, "--libs", str(kafka_libs), "--dir", str(tmp_path)])
    assert code == os.EX_UNAVAILABLE
    assert "KAFKA_PORT=" in capsys.readouterr().err


def test_missing_jars_and_missing_java_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/java")
    assert "make kafka-jars" in (why_no_broker(tmp_path) or "")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "install a Java runtime" in (why_no_broker(tmp_path) or "")
    with pytest.raises(BrokerError, match="Java"):
        KafkaBroker(libs=tmp_path)
