"""The alert-state topic: what is ours is read, whatever else anybody wrote there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from connectors.memory import MemoryTopics
from connectors.records.alerts import KafkaAlertRecords, state_topic
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.ports import Outgoing, Source

CONFIG = PipelineConfig(name="hosts")
SOURCE = Source("hosts.findings", 0)
TIME_MS = 1_700_000_000_000


@pytest.fixture
def topics() -> MemoryTopics:
    topics = MemoryTopics()
    topics.make(state_topic(CONFIG))
    return topics


@pytest.fixture
def records(topics: MemoryTopics) -> KafkaAlertRecords:
    return KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: TIME_MS)


def write(topics: MemoryTopics, key: bytes | None, value: bytes | None) -> None:
    topics.write(Outgoing(topic=state_topic(CONFIG), key=key, value=value, partition=0))


def closed(touched_ms: int = TIME_MS) -> dict[str, Any]:
    return {"version": 2, "closed": True, "touched_ms": touched_ms}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"1"),
        (b"", b"{}"),
        (b"\xff\xfe", b"{}"),
        (b"hosts.findings/0", b"{}"),
        (b"hosts.findings/x/e1", b"{}"),
        (b"hosts.findings/0/e1", b"not JSON"),
        (b"hosts.findings/0/e1", b"[" * 100_000),
        (b"hosts.findings/0/e1", b"[1]"),
        (b"hosts.findings/0/e1", b'{"last": 1}'),
        (b"hosts.findings/0/e1", b'{"touched_ms": 1e400}'),
        (b"hosts.findings/0/e1", b'{"closed": true, "touched_ms": 1, "note": "\\udc00"}'),
        (
            b"hosts.findings/0/e1",
            b'{"closed": true, "touched_ms": 1, "note": 18446744073709551616}',
        ),
        (b"hosts.findings/0/clock", b"soon"),
        (b"hosts.findings/0/clock", b"9" * 19),
        (b"hosts.findings/0/clock", b"1" * 5_000),
    ],
)
def test_strange_records_are_told_and_left_out(
    topics: MemoryTopics, records: KafkaAlertRecords, caplog: Any, key: bytes | None, value: bytes
):
    for one in records.state(SOURCE, {"e0": closed()}, TIME_MS):
        topics.write(replace(one, partition=0))
    write(topics, key, value)
    with caplog.at_level(logging.ERROR):
        loaded, clock_ms = records.load(SOURCE)
    assert "left out" in caplog.text or "e1" in AlertOperator(CONFIG).new_state().load(loaded)
    assert loaded["e0"] == closed()
    assert clock_ms in (TIME_MS, None)


def test_other_partitions_are_no_strangers(
    topics: MemoryTopics, records: KafkaAlertRecords, caplog: Any
):
    for one in records.state(Source("hosts.findings", 1), {"e0": closed(), "a/b": None}, 5):
        topics.write(replace(one, partition=0))
    assert records.load(SOURCE) == ({}, None)
    assert caplog.text == ""
