"""Notes on partitions outlive whoever wrote them, and where none is, no group has an offset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient, TopicPartition

from connectors.kafka.client import KafkaSettings
from connectors.kafka.notes import KafkaNotes
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Source
from streamad.testing.kafka_broker import KafkaBroker


def test_a_note_is_kept_replaced_and_removed(kafka: KafkaBroker, topic: Callable[..., str]):
    settings, name = KafkaSettings(bootstrap=kafka.bootstrap), topic("noted", partitions=2)
    one, other, group = Source(name, 0), Source(name, 1), f"{name}.in-hand"
    with contextlib.closing(KafkaNotes(settings, group=group)) as notes:
        assert notes.read(one) == ""
        notes.write(one, "")
        notes.write(one, "first")
        notes.write(one, "second")
        notes.write(other, "x" * 2_000)
    with contextlib.closing(KafkaNotes(settings, group=group)) as notes:
        assert notes.read(one) == "second"
        assert notes.read(other) == "x" * 2_000
        notes.write(one, "")
        assert notes.read(one) == ""
    with contextlib.closing(KafkaAdminClient(**settings.client())) as admin:
        # An offset that nobody moves would look like a lag that grows.
        assert set(admin.list_group_offsets(group)[group]) == {TopicPartition(name, 1)}


def test_a_note_too_long_or_a_broker_away_is_an_error_of_ours(
    kafka: KafkaBroker, topic: Callable[..., str]
):
    source = Source(topic("noted"), 0)
    settings = KafkaSettings(bootstrap=kafka.bootstrap)
    with contextlib.closing(KafkaNotes(settings, group="g")) as notes:
        with pytest.raises(SinkUnavailableError, match="refused"):
            notes.write(source, "x" * 5_000)
        notes.write(source, "still works")
    away = KafkaNotes(KafkaSettings(bootstrap="127.0.0.1:1"), group="g")
    with pytest.raises(SourceUnavailableError, match="notes"):
        away.read(source)
    with pytest.raises(SinkUnavailableError, match="notes"):
        away.write(source, "x")
