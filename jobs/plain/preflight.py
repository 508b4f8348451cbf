"""What can be known to go wrong before anything is read: topics, sizes, retention, permissions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from connectors.kafka.admin import partition_counts, topic_configs
from connectors.kafka.client import MAX_REQUEST_BYTES, KafkaSettings
from jobs.plain.topics import Config, absent, input_topics, output_topics, page_topics
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.errors import ConfigError

logger = logging.getLogger(__name__)

SAFE_SNAPSHOTS = 3
"""Input must outlive so many snapshot intervals, or one failed snapshot is a gap."""

Engine = Literal["plain", "flink"]
"""Who keeps the state: the plain job reads input again to restore it, Flink does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing found; an error keeps the pipeline from being started."""

    level: Literal["error", "warning"]
    text: str


def preflight(
    config: Config, settings: KafkaSettings, *, engine: Engine = "plain"
) -> list[Problem]:
    """Look at the cluster and return what is wrong there, errors first."""
    found, inputs = partition_counts(settings), input_topics(config)
    if missing := [topic for topic in inputs if topic not in found]:
        return [Problem(level="error", text=absent(config, missing))]
    partitions = max(found[topic] for topic in inputs)
    outputs = output_topics(config, partitions)
    present = [topic.name for topic in outputs if topic.name in found]
    configs = topic_configs(settings, [*inputs, *present])
    problems = [
        Problem(level="warning", text=f"topic {topic.name} is missing and will be created")
        for topic in outputs
        if topic.name not in found
    ]
    alerting = config if isinstance(config, AlertingConfig) else AlertingConfig.of(config)
    problems += _check_feedback(alerting, found)
    if isinstance(config, AlertingConfig):
        problems += _check_findings(config, found)
    else:
        check = _check_input if engine == "plain" else _check_input_of_flink
        for topic in inputs:
            problems += check(config, topic, configs.get(topic, {}))
    compacted = {
        topic.name for topic in outputs if topic.configs.get("cleanup.policy") == "compact"
    }
    for name in present:
        problems += _check_output(name, configs.get(name, {}), compacted=name in compacted)
    return sorted(problems, key=lambda problem: problem.level)


def require(config: Config, settings: KafkaSettings, *, engine: Engine = "plain") -> None:
    """Refuse to start where something is wrong; what is merely doubtful is logged."""
    problems = preflight(config, settings, engine=engine)
    for problem in problems:
        if problem.level == "warning":
            logger.warning(problem.text)
    if errors := [problem.text for problem in problems if problem.level == "error"]:
        raise ConfigError("\n".join(errors))


def _check_findings(config: AlertingConfig, found: Mapping[str, int]) -> list[Problem]:
    """Refuse findings topics of unequal partitions: a tenant would be at two desks."""
    counts = {topic: found[topic] for topic in config.findings}
    if len(set(counts.values())) <= 1:
        return []
    told = ", ".join(f"{topic} has {n}" for topic, n in counts.items())
    text = (
        f"findings: these topics must have equal numbers of partitions ({told}), or what happens "
        "to one tenant is decided in two places; make them equal"
    )
    return [Problem(level="error", text=text)]


def _check_feedback(config: AlertingConfig, found: Mapping[str, int]) -> list[Problem]:
    """Warn of a feedback topic whose partitions are not those of the findings."""
    topic = config.topic("feedback")
    wanted = {found[one] for one in config.findings if one in found}
    if topic not in found or not wanted or found[topic] in wanted:
        return []
    text = (
        f"{topic} has {_partitions(found[topic])} and {config.findings[0]} has {max(wanted)}: an "
        "answer reaches its incident only where both have equally many; make the topic again with "
        f"{max(wanted)}"
    )
    return [Problem(level="warning", text=text)]


def _partitions(number: int) -> str:
    return f"{number} partition{'' if number == 1 else 's'}"


def page_preflight(config: AlertingConfig, settings: KafkaSettings) -> list[Problem]:
    """Look at the topics of the page role and return what is wrong there, errors first."""
    if not config.pagers:
        return []
    found, incidents = partition_counts(settings), config.topic("incidents")
    topics = page_topics(config, found.get(incidents, 1))
    present = [topic for topic in topics if topic.name in found]
    configs = topic_configs(settings, [topic.name for topic in present])
    problems = [
        Problem(level="warning", text=f"topic {topic.name} is missing; --role page will create it")
        for topic in topics
        if topic.name not in found
    ]
    for topic in present:
        compacted = topic.configs.get("cleanup.policy") == "compact"
        given = configs.get(topic.name, {})
        problems += _check_output(topic.name, given, compacted=compacted)
    return sorted(problems, key=lambda problem: problem.level)


def _check_input(config: PipelineConfig, topic: str, given: Mapping[str, str]) -> list[Problem]:
    if "delete" not in given.get("cleanup.policy", "delete"):
        text = (
            f"{topic} is compacted: points that were compacted away cannot be read again, so state "
            "is lost where a snapshot is; use a topic that keeps all records"
        )
        return [Problem(level="warning", text=text)]
    kept_ms = int(given.get("retention.ms", "-1"))
    interval_ms = config.delivery.snapshot_interval
    if 0 <= kept_ms < interval_ms:
        text = (
            f"{topic} keeps records for {kept_ms / 1000:g} s and delivery.snapshot_interval is "
            f"{interval_ms / 1000:g} s: state could not be restored; raise retention.ms to "
            f"at least {SAFE_SNAPSHOTS * interval_ms}, or lower the interval"
        )
        return [Problem(level="error", text=text)]
    if 0 <= kept_ms < SAFE_SNAPSHOTS * interval_ms:
        text = (
            f"{topic} keeps records for {kept_ms / 1000:g} s, less than {SAFE_SNAPSHOTS} times "
            "delivery.snapshot_interval; a failed snapshot would leave a gap"
        )
        return [Problem(level="warning", text=text)]
    return []


def _check_input_of_flink(
    config: PipelineConfig, topic: str, given: Mapping[str, str]
) -> list[Problem]:
    kept_ms = int(given.get("retention.ms", "-1"))
    interval_ms = config.flink.checkpoint_interval
    if "delete" in given.get("cleanup.policy", "delete") and 0 <= kept_ms < interval_ms:
        text = (
            f"{topic} keeps records for {kept_ms / 1000:g} s and flink.checkpoint_interval is "
            f"{interval_ms / 1000:g} s: records after a checkpoint could be deleted before the job "
            "resumes from it; raise retention.ms, or lower the interval"
        )
        return [Problem(level="error", text=text)]
    return []


def _check_output(name: str, given: Mapping[str, str], *, compacted: bool) -> list[Problem]:
    problems = []
    largest = int(given.get("max.message.bytes", MAX_REQUEST_BYTES))
    if largest < MAX_REQUEST_BYTES:
        text = (
            f"{name} takes records of at most {largest} bytes and streamad writes up to "
            f"{MAX_REQUEST_BYTES}; raise max.message.bytes"
        )
        problems.append(Problem(level="error", text=text))
    if compacted and "compact" not in given.get("cleanup.policy", "compact"):
        text = f"{name} must be compacted (cleanup.policy=compact), or its state expires"
        problems.append(Problem(level="error", text=text))
    return problems
