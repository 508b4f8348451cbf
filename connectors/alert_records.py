"""Findings in, alerts out, and the open alerts in a compacted topic: the alert stage on Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from connectors import cloudevents, dead_letters
from streamad.config import PipelineConfig
from streamad.ports import Log, Messages, Outgoing, Source
from streamad.records import Alert, Finding, Rejected

CLOCK = "clock"
"""The key under which the log's clock is kept; ids of alerts are hexadecimal."""


def state_topic(config: PipelineConfig) -> str:
    """Return the name of the topic that holds open alerts."""
    return f"streamad.{config.name}.alert-state"


class KafkaAlertRecords:
    """Records of one pipeline's alerts; ``wall_ms`` stamps dead letters."""

    def __init__(self, config: PipelineConfig, log: Log, *, wall_ms: Callable[[], int]) -> None:
        self._config, self._log, self._wall_ms = config, log, wall_ms
        self._alerts, self._state = config.topic("alerts"), state_topic(config)
        self._partitions = len(log.bounds(self._state))

    def findings(self, messages: Messages) -> tuple[list[tuple[Finding, int]], list[Rejected]]:
        """Return findings with the time their record was written, and what is no finding."""
        found: list[tuple[Finding, int]] = []
        rejected: list[Rejected] = []
        times = messages.broker_ms.tolist()
        for number, (value, record) in enumerate(zip(messages.payloads, messages.raw, strict=True)):
            read = cloudevents.decode(value, record.headers, message=number)
            if isinstance(read, Finding):
                found.append((read, times[number]))
            elif isinstance(read, Rejected):
                rejected.append(read)
        return found, rejected

    def alerts(self, alerts: Sequence[Alert]) -> list[Outgoing]:
        """Return alerts, keyed by their id."""
        events = map(cloudevents.encode, alerts)
        return [
            Outgoing(topic=self._alerts, key=event.key, value=event.value, headers=event.headers)
            for event in events
        ]

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        return [
            dead_letter(self._config, messages, one, stage="alert", time_ms=self._wall_ms())
            for one in rejected
        ]

    def state(
        self, source: Source, changes: Mapping[str, Mapping[str, Any] | None], clock_ms: int
    ) -> list[Outgoing]:
        """Return what changed in the state of a partition's alerts."""
        values = {
            name: None if record is None else orjson.dumps(record)
            for name, record in changes.items()
        }
        values[CLOCK] = str(clock_ms).encode()
        return [
            Outgoing(
                topic=self._state,
                key=f"{source}/{name}".encode(),
                value=value,
                partition=source.partition % self._partitions,
            )
            for name, value in values.items()
        ]

    def load(self, source: Source) -> tuple[dict[str, dict[str, Any] | None], int | None]:
        """Return all that `state` wrote, the newest of each id, and the clock."""
        state = Source(self._state, source.partition % self._partitions)
        prefix = f"{source}/"
        newest: dict[str, bytes | None] = {}
        for messages in self._log.read(state, *self._log.bounds(self._state)[state]):
            for value, record in zip(messages.payloads, messages.raw, strict=True):
                name = (record.key or b"").decode(errors="replace")
                if name.startswith(prefix):
                    newest[name.removeprefix(prefix)] = value
        clock = newest.pop(CLOCK, None)
        records = {name: None if v is None else json.loads(v) for name, v in newest.items()}
        return records, int(clock) if clock else None


MAX_PAYLOAD_BYTES = 500_000
"""A dead letter repeats no more than this; beyond, it points to topic, partition and offset."""


def dead_letter(
    config: PipelineConfig, messages: Messages, one: Rejected, *, stage: str, time_ms: int
) -> Outgoing:
    """Return the dead letter of a rejection."""
    kept = one.payload
    if kept is None and one.reason != "oversized":
        # The operator refuses rows whose bytes it never saw: the whole message stands for them.
        kept = messages.payloads[one.message]
    if kept is not None and len(kept) > MAX_PAYLOAD_BYTES:
        kept = None
    raw = messages.raw[one.message]
    letter = dead_letters.to_record(
        replace(one, payload=kept),
        dead_letters.Origin(
            topic=messages.source.topic,
            partition=messages.source.partition,
            offset=int(messages.offsets[one.message]),
            key=raw.key,
            headers=list(raw.headers),
            pipeline=config.name,
            stage=stage,
            time_ms=time_ms,
        ),
    )
    return Outgoing(
        topic=config.output.dead_letters.format(topic=messages.source.topic),
        key=letter.key,
        value=letter.value,
        headers=tuple((name, value or b"") for name, value in letter.headers),
    )
