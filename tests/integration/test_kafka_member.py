"""Kafka's member keeps the contract that its double in memory keeps."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest
from kafka import KafkaProducer

from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.kafka.member import KafkaMember
from streamad.ports import Source
from streamad.testing.kafka_broker import KafkaBroker
from streamad.testing.members import Bench, Check, yield_member_checks


@pytest.fixture
def bench(kafka: KafkaBroker, topic: Callable[..., str]) -> Iterator[Bench]:
    settings = KafkaSettings(bootstrap=kafka.bootstrap, session_timeout_ms=6_000)
    group, given = f"group-{uuid.uuid4().hex[:8]}", topic("in", partitions=2)
    producer, log = (
        KafkaProducer(bootstrap_servers=kafka.bootstrap),
        KafkaLog(settings, group=group),
    )
    made: list[KafkaMember] = []

    def put(source: Source, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            producer.send(source.topic, payload, partition=source.partition)
        producer.flush()

    def join() -> KafkaMember:
        made.append(KafkaMember(settings, group=group, member="m", topics=[given], stage="detect"))
        return made[-1]

    def expel(member: KafkaMember) -> None:
        # As after a long freeze: the group has given its name and partitions to somebody else.
        stale = member._consumer.group_metadata()
        stale = stale._replace(generation_id=stale.generation_id - 1)
        member._consumer.group_metadata = lambda: stale

    yield Bench(input=given, output=topic("out"), put=put, join=join, expel=expel, log=log)
    for member in made:
        with contextlib.suppress(Exception):
            member.close()
    producer.close()
    log.close()


@pytest.mark.parametrize("check", list(yield_member_checks()), ids=lambda one: one.__name__)
def test_the_member_on_kafka(bench: Bench, check: Check):
    check(bench)
