"""What the plain job of a pipeline left behind, so that the Flink job can go on from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import closing

from connectors.flink.tables import group_of as flink_group
from connectors.kafka.admin import group_members, set_group_offsets
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from jobs.plain.loops import group_of, of_rekeyed
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.ports import Progress, Source

logger = logging.getLogger(__name__)

_GRACE_S = 5.0
_POLL_S = 0.5


def left_by_plain(config: PipelineConfig, settings: KafkaSettings) -> dict[Source, Progress]:
    """Return how far the plain job has worked off each partition; empty where it never ran.

    Waits for its members to be gone: one that stops keeps its place in the group, for its next
    life, until its session ends. Raises ConfigError where one is there to stay.
    """
    seen = of_rekeyed(config) if config.input.repartition else config
    group = group_of(config, "detect")
    with closing(KafkaLog(settings, group=group)) as log:
        # Once before, to know if there is anything to wait for; what counts is what is read after.
        if not _progress(log, seen):
            return {}
        _await_end(config, settings, group)
        return _progress(log, seen)


def go_on_from(
    config: PipelineConfig, settings: KafkaSettings, taken: Mapping[Source, Progress]
) -> None:
    """Have Flink's consumer group begin where the plain job came to."""
    offsets = {source: done.offset for source, done in taken.items()}
    set_group_offsets(settings, flink_group(config), offsets)
    logger.info(
        "takes over from the plain job: %s",
        ", ".join(f"{source} at offset {offset}" for source, offset in offsets.items()),
    )


def _progress(log: KafkaLog, config: PipelineConfig) -> dict[Source, Progress]:
    sources = [source for topic in config.input.topics for source in log.bounds(topic)]
    found = {source: log.progress(source) for source in sources}
    return {source: done for source, done in found.items() if done is not None}


def _await_end(config: PipelineConfig, settings: KafkaSettings, group: str) -> None:
    deadline = time.monotonic() + settings.session_timeout_ms / 1000 + _GRACE_S
    while members := group_members(settings, group):
        if time.monotonic() > deadline:
            msg = (
                f"the plain job of {config.name} still runs ({', '.join(sorted(members))} in group "
                f"{group}): stop it (streamad run), and run this again to resume from there; or "
                "start without its state with --from none"
            )
            raise ConfigError(msg)
        time.sleep(_POLL_S)
