"""What people and clusters do to a pipeline: each case goes on, or says what it needs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import ConfigResource, KafkaAdminClient

from connectors.kafka.admin import set_group_offsets
from jobs.plain.loops import detect_loop, group_of
from streamad.errors import ConfigError, SinkUnavailableError, StateError
from streamad.ports import Source
from streamad.testing.kafka_broker import KafkaBroker
from tests.integration.conftest import Pipeline


@contextlib.contextmanager
def admin_of(job: Pipeline) -> Iterator[Any]:
    with contextlib.closing(KafkaAdminClient(**job.settings.client())) as client:
        yield client


def delete_group(job: Pipeline, role: str) -> None:
    """Delete it as its operators do: once its static members' sessions are over."""
    deadline = time.monotonic() + 30
    with admin_of(job) as client:
        while True:
            answer = client.delete_groups([group_of(job.config, role)])
            if any(fine in repr(answer) for fine in ("NoError", "None", "GroupIdNotFound")):
                return
            assert time.monotonic() < deadline, answer
            time.sleep(1)


def test_a_group_that_was_moved_back_is_refused(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.send(series[:300])
    job.run()
    time.sleep(7)  # the session of a member that is gone
    set_group_offsets(job.settings, group_of(job.config, "detect"), {Source(job.input, 0): 0})
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    with contextlib.closing(kafka), pytest.raises(StateError, match="moved back") as refused:
        job.turn(loop, "detect")
    assert "on_state_mismatch: fresh" in str(refused.value)


def test_a_group_without_offsets_goes_on_where_its_state_ends(pipeline, rows):
    job = pipeline(partitions=2, input={"start": "latest"})
    job.create()
    series = rows(keys=4)
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    with contextlib.closing(kafka):
        deadline = time.monotonic() + 30
        while len(loop.shards) < 2 or loop._is_dirty():
            loop.turn(20)
            assert time.monotonic() < deadline
        job.send(series[:600])
        job.turn(loop, "detect")
        loop.drain()
    job.run(alert=True)
    for role in ("detect", "alert"):
        delete_group(job, role)
    job.send(series[600:])
    job.run()
    job.check()


def test_two_pipelines_of_one_name_do_not_mix(pipeline, rows):
    job = pipeline(partitions=2)
    job.create()
    other = {**job.tree, "windows": {"size": 24}}
    mine, kafka = detect_loop(job.config, job.settings, member="a")
    with contextlib.closing(kafka):
        job.send(rows(keys=4)[:200])
        job.turn(mine, "detect")
        job.tree = other
        theirs, their_kafka = detect_loop(job.config, job.settings, member="b")
        with contextlib.closing(their_kafka):

            def both() -> None:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    mine.turn(20)
                    theirs.turn(20)

            with pytest.raises(StateError, match=r"windows\.size|of this name"):
                both()


def test_alerts_opened_under_discarded_settings_are_resolved(pipeline, rows):
    job = pipeline(partitions=1)
    series = [(key, ts, 25.0 if row > 500 else value)  # ends in the middle of an event
              for row, (key, ts, value) in enumerate(rows(keys=2))]  # fmt: skip
    job.send(series[:520])
    job.run()
    assert job.open_alerts()
    job.tree["windows"] = {"size": 24}
    with pytest.raises(StateError, match=r"windows\.size"):
        job.run()
    job.tree["delivery"] = {**job.tree["delivery"], "on_state_mismatch": "fresh"}
    for _ in range(2):
        job.run()
        assert not job.open_alerts()
    last = [json.loads(record.value) for record in job.records(job.config.topic("alerts"))]
    assert [one["reason"] for one in last if "other settings" in one["reason"]]


def test_a_broker_that_is_away_at_the_start_is_waited_for(kafka_libs, rows):
    with KafkaBroker(libs=kafka_libs) as broker:
        job = Pipeline(broker.bootstrap, partitions=1)
        job.send(rows(keys=2))
        broker.kill()
        process = job.start()
        time.sleep(15)
        assert process.is_alive()
        broker.start()
        job.until(job.done, what="it starts once the broker is there")
        process.terminate()
        process.join(20)
        assert process.exitcode == 0
        job.check()
        job.close()


@pytest.mark.parametrize("which", ["state", "scores", "alert-state"])
def test_a_topic_deleted_while_running_is_made_anew(pipeline, rows, which: str):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.create()
    process = job.start()
    job.send(series[:300])
    job.until(job.done, what="the first half")
    topic = (
        f"streamad.{job.name}.alert-state" if which == "alert-state" else job.config.topic(which)
    )
    before = job.scores() if which == "scores" else []
    with admin_of(job) as client:
        client.delete_topics([topic])
    time.sleep(12)
    job.send(series[300:450])
    job.until(job.done, what="it works on")
    process.kill()
    process.join()
    job.send(series[450:])
    job.run()
    if which == "scores":
        expected = job.expected()
        assert job.findings() == expected.findings
        assert job.alerts() == expected.alerts
        assert len(job.scores()) + len(before) == len(expected.scores)
    else:
        job.check()


def test_findings_deleted_while_running_open_no_alert_again(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.create()
    process = job.start()
    job.send(series[:300])
    job.until(job.done, what="the first half")
    before = job.findings()
    with admin_of(job) as client:
        client.delete_topics([job.config.topic("findings")])
    time.sleep(12)
    job.send(series[300:])
    job.until(job.done, what="it works on", timeout_s=150)
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    expected = job.expected()
    assert job.findings() | before == expected.findings
    assert job.alerts() == expected.alerts


def test_a_topic_that_takes_small_records_only_is_named(pipeline, rows):
    job = pipeline(partitions=1)
    job.create()
    with admin_of(job) as client:
        topic = job.config.topic("findings")
        client.alter_configs([ConfigResource("topic", topic, configs={"max.message.bytes": "200"})])
    job.send(rows(keys=2))
    loop, kafka = detect_loop(job.config, job.settings, member="m")
    with contextlib.closing(kafka), pytest.raises(SinkUnavailableError) as refused:
        job.turn(loop, "detect")
    assert topic in str(refused.value)
    assert "max.message.bytes" in str(refused.value)


def test_a_broker_with_a_small_limit_is_no_obstacle_and_a_short_transaction_is_named(
    kafka_libs, rows
):
    limits = {"message.max.bytes": "400000", "transaction.max.timeout.ms": "5000"}
    with KafkaBroker(libs=kafka_libs, properties=limits) as broker:
        job = Pipeline(broker.bootstrap, partitions=1)
        job.create()
        with admin_of(job) as client:
            state = job.config.topic("state")
            found = client.describe_configs([ConfigResource("topic", state)])
        assert "1048576" in repr(found)
        with pytest.raises(ConfigError, match=r"transaction\.max\.timeout\.ms"):
            detect_loop(job.config, job.settings, member="m")
        job.close()
