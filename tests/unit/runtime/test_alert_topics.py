"""A findings topic that is deleted and made again: no finding of the new one is passed over."""

from __future__ import annotations

import itertools

import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.cloudevents import encode
from streamad.config import PipelineConfig
from streamad.operators.findings import quarantine
from streamad.paging.desk import Desk
from streamad.ports import Outgoing
from streamad.runtime.alert import AlertLoop
from streamad.runtime.placing import Clock

BEGIN_MS = 1_700_000_000_000
CONFIG = PipelineConfig.model_validate({"name": "p", "input": {"topics": "in"}})
FINDINGS = CONFIG.topic("findings")


def write(topics: MemoryTopics, *offsets: int) -> None:
    for offset in offsets:
        told = quarantine(CONFIG, at=("in", 0, offset), now_ms=BEGIN_MS, reason="four deaths")
        event = encode(told)
        topics.write(
            Outgoing(topic=FINDINGS, key=event.key, value=event.value, headers=event.headers)
        )


@pytest.mark.parametrize("n_after", [1, 3, 5])
def test_findings_of_a_topic_made_again_are_all_read(n_after: int):
    topics, seconds = MemoryTopics(), itertools.count()
    topics.make(state_topic(CONFIG), 1)
    write(topics, 1, 2, 3)
    loop = AlertLoop(
        CONFIG,
        Desk(CONFIG),
        member=MemoryMember(log=topics, topics=[FINDINGS], group="alert"),
        records=KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: BEGIN_MS),
        clock=Clock(seconds=lambda: float(next(seconds)), wall_ms=lambda: BEGIN_MS),
    )
    for _ in range(4):
        loop.turn(0)
    assert len(topics.records(CONFIG.topic("alerts"))) == 3

    topics.remove(FINDINGS)
    topics.make(FINDINGS)
    # Before anybody looks, the new topic may already be longer than what was read of the old one.
    write(topics, *range(11, 11 + n_after))
    loop.renewed(FINDINGS)
    for _ in range(4):
        loop.turn(0)
    loop.drain()
    opened = {record.key for record in topics.records(CONFIG.topic("alerts"))}
    assert len(opened) == 3 + n_after
