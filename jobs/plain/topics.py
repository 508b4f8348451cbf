"""The topics of a pipeline: which there must be, with which settings, and how they are made."""

from __future__ import annotations

from dataclasses import replace

from connectors.kafka.admin import Topic, make_topics, partition_counts
from connectors.kafka.client import MAX_BATCH_BYTES, KafkaSettings
from connectors.records.alerts import state_topic
from connectors.records.rekeyed import rekeyed_topic
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.paging.config import AlertingConfig

_COMPACTED = {
    "cleanup.policy": "compact",
    # Old generations are cleaned away within minutes: recovery reads what is left of them.
    "segment.ms": "600000",
    "segment.bytes": str(64 * 1_048_576),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "3600000",
}
_DAY = {"retention.ms": str(86_400_000)}
_MONTH = {"retention.ms": str(35 * 86_400_000)}
_WEEK = {"retention.ms": str(7 * 86_400_000)}


def output_topics(config: PipelineConfig, partitions: int, *, findings: int = 1) -> list[Topic]:
    """Return the topics of a pipeline besides its inputs.

    partitions : the most any of its inputs has; findings : those of its findings topic, if it is
    there: a desk needs as many of feedback
    """
    n_findings, findings_topic = findings, config.topic("findings")
    feedback = AlertingConfig.of(config).topic("feedback")
    made = [
        Topic(name=findings_topic, configs=_WEEK),
        Topic(name=feedback, partitions=n_findings, configs=_MONTH),
        Topic(name=config.topic("alerts"), configs={"cleanup.policy": "compact,delete", **_WEEK}),
        Topic(
            name=AlertingConfig.of(config).topic("incidents"),
            configs={"cleanup.policy": "compact,delete", **_MONTH},
        ),
        Topic(name=config.topic("scores"), partitions=partitions, configs=_WEEK),
        Topic(name=state_topic(config), configs=_COMPACTED),
        *(
            Topic(name=config.output.dead_letters.format(topic=topic), configs=_WEEK)
            for topic in (findings_topic, feedback)
        ),
    ]
    if config.delivery.snapshot_store == "topic":
        made.append(Topic(name=config.topic("state"), partitions=partitions, configs=_COMPACTED))
    inputs = list(config.input.topics)
    if config.input.repartition:
        rekeyed = rekeyed_topic(config)
        made.append(Topic(name=rekeyed, partitions=partitions, configs=_DAY))
        inputs.append(rekeyed)
    for topic in inputs:
        made.append(Topic(name=config.output.dead_letters.format(topic=topic), configs=_WEEK))
        if config.series.late == "topic":
            made.append(Topic(name=config.output.late.format(topic=topic), configs=_WEEK))
    # Not left to the broker, whose default may be too small, and may be lowered while we run.
    size = {"max.message.bytes": str(MAX_BATCH_BYTES)}
    return [replace(topic, configs={**size, **topic.configs}) for topic in made]


def create_topics(config: PipelineConfig, settings: KafkaSettings) -> list[str]:
    """Create the output topics that are missing; return their names."""
    if not config.input.topics:
        msg = "input.topics is empty; name the topics to watch"
        raise ConfigError(msg)
    found = partition_counts(settings)
    missing = [topic for topic in config.input.topics if topic not in found]
    if missing:
        msg = f"there is no topic {', '.join(missing)} on this cluster; see input.topics"
        raise ConfigError(msg)
    partitions = max(found[topic] for topic in config.input.topics)
    outputs = output_topics(config, partitions, findings=found.get(config.topic("findings"), 1))
    wanted = [topic for topic in outputs if topic.name not in found]
    make_topics(settings, wanted)
    return [topic.name for topic in wanted]
