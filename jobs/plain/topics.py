"""The topics of a pipeline: which there must be, with which settings, and how they are made."""

from __future__ import annotations

from dataclasses import replace

from connectors.kafka.admin import Topic, make_topics, partition_counts
from connectors.kafka.client import MAX_BATCH_BYTES, KafkaSettings
from connectors.records.alerts import state_topic
from connectors.records.pages import page_state_topic
from connectors.records.rekeyed import rekeyed_topic
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.errors import ConfigError

COMPACTED = {
    "cleanup.policy": "compact",
    # Old generations are cleaned away within minutes: recovery reads what is left of them.
    "segment.ms": "600000",
    "segment.bytes": str(64 * 1_048_576),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "3600000",
}
_DAY = {"retention.ms": str(86_400_000)}
_MONTH = {"retention.ms": str(35 * 86_400_000)}
WEEK = {"retention.ms": str(7 * 86_400_000)}


Config = PipelineConfig | AlertingConfig


def input_topics(config: Config) -> tuple[str, ...]:
    """Return the topics that a job reads and does not make."""
    return config.findings if isinstance(config, AlertingConfig) else config.input.topics


def output_topics(config: Config, partitions: int, *, findings: int = 1) -> list[Topic]:
    """Return the topics of a job besides its inputs.

    partitions : the most any of its inputs has; findings : those of a pipeline's findings topic, if
    it is there: a desk needs as many of feedback
    """
    if isinstance(config, AlertingConfig):
        return _sized(_of_alerting(config, partitions))
    made = [
        Topic(name=config.topic("findings"), configs=WEEK),
        *_of_alerting(AlertingConfig.of(config), findings),
        Topic(name=config.topic("scores"), partitions=partitions, configs=WEEK),
    ]
    if config.delivery.snapshot_store == "topic":
        made.append(Topic(name=config.topic("state"), partitions=partitions, configs=COMPACTED))
    inputs = list(config.input.topics)
    if config.input.repartition:
        rekeyed = rekeyed_topic(config)
        made.append(Topic(name=rekeyed, partitions=partitions, configs=_DAY))
        inputs.append(rekeyed)
    for topic in inputs:
        made.append(Topic(name=config.output.dead_letters.format(topic=topic), configs=WEEK))
        if config.series.late == "topic":
            made.append(Topic(name=config.output.late.format(topic=topic), configs=WEEK))
    return _sized(made)


def _of_alerting(config: AlertingConfig, partitions: int) -> list[Topic]:
    """Return the topics of the alert stage; its state has the partitions of the findings."""
    return [
        Topic(name=config.topic("alerts"), configs={"cleanup.policy": "compact,delete", **WEEK}),
        Topic(
            name=config.topic("incidents"), configs={"cleanup.policy": "compact,delete", **_MONTH}
        ),
        Topic(name=config.topic("feedback"), partitions=partitions, configs=_MONTH),
        Topic(name=state_topic(config), partitions=partitions, configs=COMPACTED),
        *(
            Topic(name=config.output.dead_letters.format(topic=topic), configs=WEEK)
            for topic in config.read
        ),
    ]


def page_topics(config: AlertingConfig, partitions: int) -> list[Topic]:
    """Return the topics the page job writes to; ``partitions``: those of the incidents' topic."""
    dead = config.output.dead_letters.format(topic=config.topic("incidents"))
    state = Topic(name=page_state_topic(config), partitions=partitions, configs=COMPACTED)
    return _sized([state, Topic(name=dead, configs=WEEK)])


def _sized(topics: list[Topic]) -> list[Topic]:
    # Not left to the broker, whose default may be too small, and may be lowered while we run.
    size = {"max.message.bytes": str(MAX_BATCH_BYTES)}
    return [replace(topic, configs={**size, **topic.configs}) for topic in topics]


def create_topics(config: Config, settings: KafkaSettings) -> list[str]:
    """Create the output topics that are missing; return their names."""
    inputs = input_topics(config)
    if not inputs:
        msg = "input.topics is empty; name the topics to watch"
        raise ConfigError(msg)
    found = partition_counts(settings)
    if missing := [topic for topic in inputs if topic not in found]:
        raise ConfigError(absent(config, missing))
    partitions = max(found[topic] for topic in inputs)
    findings = 1 if isinstance(config, AlertingConfig) else found.get(config.topic("findings"), 1)
    outputs = output_topics(config, partitions, findings=findings)
    wanted = [topic for topic in outputs if topic.name not in found]
    make_topics(settings, wanted)
    return [topic.name for topic in wanted]


def absent(config: Config, missing: list[str]) -> str:
    """Return what to do about inputs that are not there."""
    names = ", ".join(missing)
    if isinstance(config, AlertingConfig):
        return (
            f"findings: there is no topic {names} on this cluster; 'streamad topics create' makes "
            "those of a pipeline, and so does running it"
        )
    return f"there is no topic {names} on this cluster; see input.topics"
