"""A broker that goes away, forgets, grows a topic, or asks who is there."""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions

from connectors.kafka.client import KafkaSettings, transactional_producer
from jobs.plain.loops import detect_loop
from streamad.errors import OffsetOutOfRangeError, StateError
from streamad.ports import Source
from streamad.runtime.ends import Ends
from streamad.testing.kafka_broker import KafkaBroker
from streamad.testing.processes import free_ports
from tests.integration.conftest import Pipeline


def test_a_broker_that_dies_under_load_and_comes_back_costs_nothing(kafka_libs, rows):
    with KafkaBroker(libs=kafka_libs) as broker:
        job = Pipeline(broker.bootstrap)
        job.create()
        series = rows()
        job.send(series[:1200])
        process = job.start()
        job.until(lambda: len(job.scores()) > 100, what="the job works")
        broker.kill()
        time.sleep(2)
        broker.start()
        job.send(series[1200:])
        job.until(job.done, timeout_s=90, what="the work is ended")
        process.terminate()
        process.join(20)
        assert process.exitcode == 0
        job.check()
        job.close()


def delete_until(job: Pipeline, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=job.settings.bootstrap)
    admin.delete_records({TopicPartition(job.input, 0): offset})
    admin.close()


def test_input_that_retention_ate_follows_the_policy(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.send(series[:200])
    job.run(alert=False)
    job.send(series[200:])
    delete_until(job, 300)
    with pytest.raises(
        OffsetOutOfRangeError, match=r"offset 200 is out of range: it begins at 300"
    ):
        job.run(alert=False)
    job.tree["input"]["on_out_of_range"] = "earliest"
    job.run(alert=False)
    # No window spans the gap, and none is judged twice.
    scores = job.scores()
    assert len(scores) == 2 * (100 - 15) + 2 * (150 - 15)
    assert len({(key, end_ms) for key, end_ms, _ in scores}) == len(scores)


def test_the_mark_of_a_transaction_is_nothing_that_retention_could_eat(pipeline, rows):
    job = pipeline(partitions=1)
    job.create()
    with closing(transactional_producer(
        job.settings, transactional_id=job.name, timeout_ms=10_000
    )) as producer:  # fmt: skip
        producer.init_transactions()
        producer.begin_transaction()
        for key, ts, value in rows(keys=2, points=100):
            text = json.dumps({"key": key, "ts": ts, "value": value}).encode()
            producer.send(job.input, value=text, partition=0)
        producer.commit_transaction()
    source = Source(job.input, 0)
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    try:
        loop._ends = Ends(lambda one, _: kafka.end_reached(one), quiet_s=0.5)
        with job.log() as log:
            assert log.bounds(job.input)[source] == (0, 201)
            deadline = time.monotonic() + 30
            while (done := log.committed(source)) is None or done[0] < 201:
                loop.turn()
                assert time.monotonic() < deadline, f"{done} is committed"
        loop.drain()
    finally:
        kafka.close()
    delete_until(job, 201)
    job.run(alert=False)  # refused if it took the mark for a record it has missed
    assert len(job.scores()) == 2 * (100 - 15)


def test_state_that_cannot_be_rebuilt_follows_the_policy(pipeline, rows):
    job = pipeline(partitions=1, delivery={"snapshot_interval": "1h"})
    job.send(rows(keys=2))
    job.create()
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    job.turn(loop, "detect")
    kafka.close()  # as a crash would: no drain, no snapshot
    delete_until(job, 300)
    with pytest.raises(OffsetOutOfRangeError, match="state needs input from 0 on"):
        job.run(alert=False)


def test_state_of_other_settings_is_refused_or_begun_afresh(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.send(series[:300])
    job.run(alert=False)
    job.tree["scoring"]["first_day"] = "2h"
    with pytest.raises(StateError, match="on_state_mismatch"):
        job.run(alert=False)
    job.tree["delivery"]["on_state_mismatch"] = "fresh"
    job.send(series[300:])
    job.run(alert=False)
    assert len(job.scores()) == 2 * (150 - 15) * 2


def test_snapshots_in_a_folder_serve_as_well(pipeline, rows, tmp_path):
    job = pipeline(partitions=1)
    job.tree["delivery"]["snapshot_store"] = f"file://{tmp_path}"
    series = rows()
    job.send(series[:1200])
    job.run()
    assert list(tmp_path.rglob("manifest.json"))
    job.send(series[1200:])
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    loop.turn()
    while not loop.shards:
        loop.turn()
    shard = loop.shards[Source(job.input, 0)]
    assert shard.snapshot_offset == 1200
    kafka.close()
    job.run()
    job.check()


def test_a_topic_that_grows_is_worked_on_and_told(pipeline, rows, caplog):
    job = pipeline(partitions=1)
    job.create()
    job.send(rows(keys=2, points=60))
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    try:
        job.turn(loop, "detect")
        admin = KafkaAdminClient(bootstrap_servers=job.settings.bootstrap)
        admin.create_partitions({job.input: NewPartitions(total_count=2)})
        admin.close()
        kafka._consumer._cluster.request_update()  # instead of waiting for the next look
        deadline = time.monotonic() + 30
        while len(loop.shards) < 2:
            loop.turn()
            assert time.monotonic() < deadline
        assert "has grown" in caplog.text
        job.partitions = 2
        job.send([("key-1", ts + 60_000, value) for _, ts, value in rows(keys=1, points=60)])
        job.turn(loop, "detect")
        # key-1 was in partition 0 before.
        assert "more than one partition" in caplog.text
    finally:
        kafka.close()


def test_silence_of_a_whole_partition_is_told_once_and_survives_a_restart(pipeline, rows):
    job = pipeline(partitions=1, series={"silence": "2s", "ttl": "1h"})
    job.send(rows(keys=2, points=60))
    job.create()
    for _ in range(2):
        loop, kafka = detect_loop(job.config, job.settings, member="m")
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            loop.turn()
        kafka.close()  # without a last snapshot: recovery has to repeat what the clock decided
    told = [json.loads(value) for value in job.findings().values()]
    silent = [one for one in told if one["kind"] == "no_data"]
    assert sorted(one["key"] for one in silent) == ["key-0", "key-1"]
    assert all(one["state"] == "began" for one in silent)


def test_a_password_is_asked_for_and_never_shown(kafka_libs, rows):
    (port,) = free_ports(1)
    broker = KafkaBroker(libs=kafka_libs)
    jaas = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="streamad" password="s3cret!" user_streamad="s3cret!";'
    )
    listener = f",SASL://127.0.0.1:{port}"
    broker._properties["listeners"] += listener
    broker._properties["advertised.listeners"] += listener
    broker._properties |= {
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT"
        ),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": jaas,
    }
    with broker:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
            "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "streamad",
            "KAFKA_SASL_PASSWORD": "s3cret!",
        }
        settings = KafkaSettings.from_environment(environment)
        assert "s3cret" not in repr(settings)
        job = Pipeline(broker.bootstrap, partitions=1)
        job.settings = settings
        job.send(rows(keys=2, points=60))
        job.run(alert=False)
        assert len(job.scores()) == 2 * (60 - 15)
