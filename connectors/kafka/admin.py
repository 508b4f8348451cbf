"""Topics from outside: which there are, how they are set, and how they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, NoError, TopicAlreadyExistsError

from connectors.kafka.client import KafkaSettings, admin
from connectors.kafka.login import UNAUTHENTICATED
from connectors.kafka.transactions import HOPELESS, refusal
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic we write."""

    name: str
    partitions: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)


def partition_counts(settings: KafkaSettings) -> dict[str, int]:
    """Return the topics of the cluster and how many partitions each has."""
    with _client(settings) as client:
        return {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics(None)}


class TopicProbe:
    """Ask again and again which topics there are, over one connection; for one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: Any = None

    def look(self, topics: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return how many partitions each of these has, and its id: a topic made anew has another.

        Those that are not there are left out.

        Raises SourceUnavailableError where the broker does not answer.
        """
        try:
            if self._client is None:
                self._client = admin(self._settings)
            found = self._client.describe_topics(list(topics))
        except KafkaError as error:
            self.close()
            msg = f"Kafka at {self._settings.bootstrap} does not answer: {error!r}"
            raise SourceUnavailableError(msg) from error
        return {
            topic["name"]: (len(topic["partitions"]), str(topic.get("topic_id")))
            for topic in found
            if topic["partitions"]
        }

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError):
                client.close()


def topic_configs(settings: KafkaSettings, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the settings in force, a topic; one whose settings may not be seen is left out."""
    from kafka.admin import ConfigResource, ConfigResourceType  # noqa: PLC0415 - only preflight asks

    with _client(settings) as client:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        found = client.describe_configs(resources, config_filter="all")
    return _flat(found)


def group_members(settings: KafkaSettings, group: str) -> list[str]:
    """Return who is in a consumer group; static members by the name they were given."""
    with _client(settings) as client:
        told = client.describe_groups([group]).get(group, {})
    members = told.get("members", [])
    return [str(one.get("group_instance_id") or one.get("member_id")) for one in members]


def set_group_offsets(settings: KafkaSettings, group: str, offsets: Mapping[Source, int]) -> None:
    """Have a group that nobody is in go on at these offsets."""
    given = {
        TopicPartition(*source): OffsetAndMetadata(offset, "", -1)
        for source, offset in offsets.items()
    }
    with _client(settings) as client:
        answers = client.alter_group_offsets(group, given)
    refused = {part: error for part, error in answers.items() if error is not NoError}
    for part, error in refused.items():
        msg = (
            f"the offset of {part.topic}/{part.partition} for group {group} was refused: {error!r}"
        )
        raise SinkUnavailableError(msg)


def _flat(found: Any) -> dict[str, dict[str, str]]:
    topics = found.get("topic", found) if isinstance(found, Mapping) else {}
    made: dict[str, dict[str, str]] = {}
    for name, configs in topics.items():
        made[str(name)] = {
            key: str(one["value"] if isinstance(one, Mapping) else one)
            for key, one in configs.items()
        }
    return made


def make_topics(settings: KafkaSettings, topics: Sequence[Topic]) -> None:
    """Create topics; those that another member made in the meantime are fine."""
    if not topics:
        return
    with _client(settings) as client:
        try:
            for topic in topics:
                options = {
                    "num_partitions": topic.partitions,
                    "replication_factor": settings.replication_factor,
                    "configs": dict(topic.configs),
                }
                with contextlib.suppress(TopicAlreadyExistsError):
                    client.create_topics({topic.name: options})
            client.wait_for_topics([topic.name for topic in topics])
        except UNAUTHENTICATED as error:
            raise refusal(error) from error
        except KafkaError as error:
            msg = f"output topics cannot be made: {error!r}; make them, or grant Create on them"
            raise SinkUnavailableError(msg) from error


@contextlib.contextmanager
def _client(settings: KafkaSettings) -> Iterator[Any]:
    try:
        with contextlib.closing(admin(settings)) as client:
            yield client
    except HOPELESS as error:
        raise refusal(error) from error
    except KafkaError as error:
        msg = f"Kafka at {settings.bootstrap} does not answer: {error!r}"
        raise SourceUnavailableError(msg) from error
