"""What must not be carried over from a transaction that failed, and waits that must end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from connectors.kafka.transactions import Transactions
from jobs.plain.loops import detect_loop, group_of
from streamad.ports import NullTelemetry, Source
from streamad.testing.kafka_broker import KafkaBroker
from tests.integration.conftest import Pipeline


def test_refused_offsets_are_not_sent_with_the_next_transaction(pipeline, rows):
    """A member that was frozen is refused, and must not move what others own by now."""
    job = pipeline(partitions=2)
    job.create()
    job.send(rows(keys=2)[:40])
    loop, kafka = detect_loop(job.config, job.settings, member="a")
    with contextlib.closing(kafka):
        job.turn(loop, "detect")
        before = [kafka.log.committed(source) for source in loop.sources]
        mine = kafka._consumer.group_metadata()
        stale = mine._replace(generation_id=mine.generation_id - 1)
        one, other = (TopicPartition(*source) for source in loop.sources)
        output = Transactions(
            job.settings, transactional_id="frozen", timeout_ms=5_000, telemetry=NullTelemetry()
        )
        with contextlib.closing(output):
            with pytest.raises(KafkaError):
                output.write([], {one: OffsetAndMetadata(1, "stale", -1)}, stale)
            output.renew()
            given = OffsetAndMetadata(before[1][0], "fresh", -1)
            output.write([], {other: given}, mine)
        assert kafka.log.committed(loop.sources[0]) == before[0]
        assert kafka.log.committed(loop.sources[1]) == (before[1][0], "fresh")


@contextlib.contextmanager
def turning(loop) -> Iterator[None]:
    """Let a loop work on a thread of its own; it has to end when it is asked to."""
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop.is_set,), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_an_outage_longer_than_a_delivery_costs_no_more_than_itself(kafka_libs, rows):
    """The broker is frozen with records on their way, and dies before it answers."""
    with KafkaBroker(libs=kafka_libs) as broker:
        job = Pipeline(broker.bootstrap, partitions=1)
        job.create()
        series = rows(keys=2)
        job.send(series[:200])
        loop, kafka = detect_loop(job.config, job.settings, member="a")
        with contextlib.closing(kafka):
            job.turn(loop, "detect")
            job.send(series[200:400])
            while not any(shard.scores for shard in loop.shards.values()):
                loop._commit_due_s = time.monotonic() + 1e6
                loop.turn(100)
            loop._commit_due_s = 0.0
            with turning(loop):
                os.kill(broker.pid, signal.SIGSTOP)
                time.sleep(1)
                broker.kill()  # breaks the connection with records on their way
                time.sleep(23)  # longer than delivery_timeout_ms
                broker.start()
                deadline = time.monotonic() + 40
                while not job.done("detect"):
                    assert time.monotonic() < deadline, "it waits for what will never come"
                    time.sleep(0.2)
        job.run()
        job.check()
        job.close()


def test_a_spare_whose_name_is_taken_ends(pipeline, rows):
    """It has no partition, so it makes no request that would be refused."""
    job = pipeline(partitions=1)
    job.create()
    job.send(rows(keys=2)[:100])
    owner = job.start("a", role="detect")
    job.until(lambda: job.done("detect"), what="the owner works")
    spare = job.start("b", role="detect")
    time.sleep(6)
    assert spare.is_alive()
    twin = job.start("b", role="detect")
    spare.join(30)
    assert spare.exitcode == 1, "it lives on as a member of nothing"
    assert owner.is_alive()
    assert twin.is_alive()


def test_partitions_that_were_given_and_are_not_at_work_are_not_ready(pipeline, rows):
    job = pipeline(partitions=2)
    job.create()
    job.send(rows(keys=2)[:40])
    loop, kafka = detect_loop(job.config, job.settings, member="a")
    with contextlib.closing(kafka):
        deadline = time.monotonic() + 20
        while kafka._consumer.group_metadata().generation_id < 0 or not kafka._new:
            kafka.poll(50)
            assert time.monotonic() < deadline
        assert not kafka.joined()
        loop.turn(100)
        assert kafka.joined()
        assert loop.settled


def test_an_alert_group_that_was_deleted_opens_no_alert_again(pipeline, rows):
    job = pipeline()
    job.send(rows(points=400))
    job.run()
    alerts = job.alerts()
    assert len(alerts) > 2
    admin = KafkaAdminClient(bootstrap_servers=job.settings.bootstrap)
    with contextlib.closing(admin), job.log("alert") as log:
        source = Source(job.config.topic("findings"), 0)
        deadline = time.monotonic() + 30
        while log.committed(source) is not None:
            # A static member stays in its group until its session ends.
            assert time.monotonic() < deadline
            time.sleep(0.5)
            with contextlib.suppress(KafkaError):
                admin.delete_groups([group_of(job.config, "alert")])
    job.run()
    assert job.alerts() == alerts
    job.check()
