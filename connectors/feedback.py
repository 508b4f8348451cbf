"""Write answers and silences to the feedback topic, where the desks that they concern read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from connectors.kafka.admin import partition_counts
from connectors.kafka.client import KafkaSettings
from connectors.kafka.writer import write
from connectors.records.cloudevents import encode
from streamad.errors import ConfigError
from streamad.incidents import ALL_TENANTS, Feedback, Silence
from streamad.ports import Outgoing


def give(settings: KafkaSettings, topic: str, answers: Sequence[Feedback | Silence]) -> None:
    """Write answers and wait until all replicas have them.

    One of a tenant goes to the partition of its key; one of all tenants to every partition.

    Raises SinkUnavailableError where they may not have arrived, and ConfigError where there is no
    such topic.
    """
    write(settings, list(_records(settings, topic, answers)))


def _records(
    settings: KafkaSettings, topic: str, answers: Sequence[Feedback | Silence]
) -> Iterator[Outgoing]:
    count = partition_counts(settings).get(topic, 0)
    if not count:
        msg = f"there is no topic {topic} on this cluster; 'streamad run' makes it at its start"
        raise ConfigError(msg)
    for one in answers:
        event = encode(one)
        for partition in range(count) if one.tenant == ALL_TENANTS else [None]:
            yield Outgoing(
                topic=topic,
                key=event.key,
                value=event.value,
                headers=event.headers,
                partition=partition,
            )
