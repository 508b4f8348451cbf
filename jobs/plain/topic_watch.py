"""Topics that go away while a pipeline runs: seen within seconds, made anew where they are ours.

A client does not tell: it waits for its topic. What lives in a topic and in memory (open alerts,
the state of keys) is written again to the new one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from connectors.kafka.admin import TopicProbe, make_topics
from connectors.kafka.client import KafkaSettings
from jobs.plain.topics import Config, input_topics, output_topics
from streamad.alerting.config import AlertingConfig
from streamad.errors import StreamadError

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class Renews(Protocol):
    """Whatever has in memory what stands in topics."""

    def renewed(self, topic: str) -> None:
        """Note, from another thread, that a topic was deleted and made anew."""
        ...


class TopicWatch:
    """Look for the topics of a pipeline, until told to stop.

    Parameters
    ----------
    config, settings
        The pipeline, and how to reach the cluster.
    loops : Sequence[Renews]
        Are told of each topic that was made anew; the sequence may grow.
    lost : Callable[[Sequence[str]], None]
        Told each time which topics are gone; none: all are there.
    """

    def __init__(
        self,
        config: Config,
        settings: KafkaSettings,
        *,
        loops: Sequence[Renews],
        lost: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self._config, self._settings = config, settings
        self._loops, self._lost = loops, lost or _ignore
        self._probe = TopicProbe(settings)
        self._partitions = 1
        self._ids: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Look every few seconds."""
        with contextlib.closing(self._probe):
            while not stop.wait(LOOK_EVERY_S):
                try:
                    self.look()
                except StreamadError as error:
                    # Readiness and the loops tell of a broker that is away.
                    logger.debug("topics cannot be looked for now: %s", error)

    def look(self) -> None:
        """Look once, and make what is missing."""
        inputs = list(input_topics(self._config))
        wanted = output_topics(self._config, self._partitions)
        there = self._probe.look([*inputs, *(topic.name for topic in wanted)])
        known = [there[topic][0] for topic in inputs if topic in there]
        self._partitions = max([self._partitions, *known])
        gone = [topic for topic in inputs if topic not in there]
        outputs = output_topics(self._config, self._partitions, findings=self._of_findings(there))
        missing = [topic for topic in outputs if topic.name not in there]
        self._lost([*gone, *(topic.name for topic in missing)])
        if missing:
            names = ", ".join(topic.name for topic in missing)
            logger.error(
                "topics were deleted while the pipeline runs and are created again: %s", names
            )
            make_topics(self._settings, missing)
            self._lost(gone)
        self._note([topic.name for topic in outputs], there)

    def _of_findings(self, there: Mapping[str, tuple[int, str]]) -> int:
        if isinstance(self._config, AlertingConfig):
            return self._partitions
        return there.get(self._config.topic("findings"), (1, ""))[0]

    def _note(self, outputs: Sequence[str], there: Mapping[str, tuple[int, str]]) -> None:
        """Tell the loops of topics that were made anew, by whomever."""
        for name in outputs:
            before, now = self._ids.get(name), there[name][1] if name in there else ""
            self._ids[name] = now
            # Without an id it was made just now: its id is noted the next time.
            if now == "" or before not in (None, "", now):
                for loop in list(self._loops):
                    loop.renewed(name)


def _ignore(topics: Sequence[str]) -> None:
    """Tell nobody."""
