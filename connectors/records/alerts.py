"""Findings in, alerts out, and the open alerts in a compacted topic: the alert stage on Kafka."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from connectors.records import cloudevents, dead_letters
from connectors.records.typed_json import LATEST_MS, WRONG_TYPE, ShapeError, to_record
from connectors.records.wire import Frames
from streamad.alerting.config import AlertingConfig
from streamad.alerts.state import RECORD_VERSION
from streamad.config import PipelineConfig
from streamad.incidents import Digest, Feedback, Incident, Silence
from streamad.paging.state import INCIDENT
from streamad.ports import Log, Messages, Outgoing, Source
from streamad.records import Alert, Finding, Rejected

logger = logging.getLogger(__name__)

CLOCK = "clock"
"""The key under which the log's clock is kept; ids of alerts are hexadecimal."""

KEY = re.compile(r".{1,249}/\d{1,9}/.+", re.DOTALL)
MAX_ANSWER_BYTES = 32_768
"""A larger record of the feedback topic is not read: it is kept in the desk's state."""
CLOCK_MS = re.compile(rb"-?\d{1,19}")


def state_topic(config: AlertingConfig | PipelineConfig) -> str:
    """Return the name of the topic that holds open alerts."""
    return f"streamad.{config.name}.alert-state"


class KafkaAlertRecords:
    """Records of what becomes of findings.

    wall_ms : stamps dead letters; frames : what stands before values for a schema registry
    """

    def __init__(
        self,
        config: AlertingConfig | PipelineConfig,
        log: Log,
        *,
        wall_ms: Callable[[], int],
        frames: Frames | None = None,
    ) -> None:
        self._frames = frames or {}
        config = AlertingConfig.of(config) if isinstance(config, PipelineConfig) else config
        self._log, self._wall_ms = log, wall_ms
        self._alerts, self._state = config.topic("alerts"), state_topic(config)
        self._incidents = config.topic("incidents")
        self._partitions = len(log.bounds(self._state))
        self._dead_letters = dead_letters.Writer(
            pipeline=config.name, stage="alert", topic=config.output.dead_letters
        )

    def findings(self, messages: Messages) -> tuple[list[tuple[Finding, int]], list[Rejected]]:
        """Return findings with the time their record was written, and what is no finding."""
        found: list[tuple[Finding, int]] = []
        rejected: list[Rejected] = []
        times = messages.broker_ms.tolist()
        for number, (value, record) in enumerate(zip(messages.payloads, messages.raw, strict=True)):
            read = cloudevents.decode(value, record.headers, message=number)
            if isinstance(read, Finding):
                # The alert and its state repeat what the finding has: both must fit a record.
                read = cloudevents.bounded_finding(read, len(value or b""))
                found.append((read, times[number]))
            elif isinstance(read, Rejected):
                rejected.append(read)
        return found, rejected

    def answers(
        self, messages: Messages
    ) -> tuple[list[tuple[Feedback | Silence, int]], list[Rejected]]:
        """Return what people answered, with the time its record was written."""
        found: list[tuple[Feedback | Silence, int]] = []
        rejected: list[Rejected] = []
        times = messages.broker_ms.tolist()
        for number, (value, record) in enumerate(zip(messages.payloads, messages.raw, strict=True)):
            size = len(value or b"")
            if size > MAX_ANSWER_BYTES:
                detail = f"an answer of {size} bytes; at most {MAX_ANSWER_BYTES} are read"
                rejected.append(Rejected(message=number, reason="oversized", detail=detail))
                continue
            read = cloudevents.decode(value, record.headers, message=number)
            if isinstance(read, Feedback | Silence):
                found.append((read, times[number]))
            elif isinstance(read, Rejected):
                rejected.append(read)
        return found, rejected

    def alerts(self, alerts: Sequence[Alert]) -> list[Outgoing]:
        """Return alerts, keyed by their id."""
        return self._outgoing(self._alerts, alerts)

    def incidents(self, incidents: Sequence[Incident], digests: Sequence[Digest]) -> list[Outgoing]:
        """Return incidents, keyed by their id, and digests, keyed by their group."""
        return self._outgoing(self._incidents, [*incidents, *digests])

    def _outgoing(self, topic: str, records: Sequence[cloudevents.Record]) -> list[Outgoing]:
        frame = self._frames.get(topic, b"")
        return [
            Outgoing(topic=topic, key=one.key, value=frame + one.value, headers=one.headers)
            for one in map(cloudevents.encode, records)
        ]

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        return self._dead_letters.records(messages, rejected, time_ms=self._wall_ms())

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
        """Return all that `state` wrote, the newest of each id, and the clock.

        What is not of that kind is left out, and the log says so: anybody's record on the topic
        would otherwise prevent every start.
        """
        state = Source(self._state, source.partition % self._partitions)
        newest, strange = self._newest(state, f"{source}/")
        records: dict[str, dict[str, Any] | None] = {}
        clock_ms: int | None = None
        for name, value in newest.items():
            try:
                if name == CLOCK:
                    clock_ms = _clock_ms(value)
                else:
                    records[name] = _record(name, value)
            except ShapeError as error:
                strange.append(f"{name!r:.80}: {error}")
        if strange:
            logger.error(
                "%s: %d records cannot be read and are left out; the first is %s",
                state,
                len(strange),
                strange[0],
            )
        return records, clock_ms

    def _newest(self, state: Source, prefix: str) -> tuple[dict[str, bytes | None], list[str]]:
        """Return the newest value of each name that is ours, and the keys nobody of us wrote."""
        newest: dict[str, bytes | None] = {}
        strange: list[str] = []
        for messages in self._log.read(state, *self._log.bounds(self._state)[state]):
            for value, record in zip(messages.payloads, messages.raw, strict=True):
                name = (record.key or b"").decode(errors="replace")
                if KEY.fullmatch(name) is None:
                    strange.append(f"{name!r:.80}: not the key of an alert")
                elif name.startswith(prefix):
                    newest[name.removeprefix(prefix)] = value
        return newest, strange


def _clock_ms(value: bytes | None) -> int | None:
    """Read the log's clock; raises ShapeError."""
    if value is None:
        return None
    if CLOCK_MS.fullmatch(value) is None:
        msg = f"expected milliseconds, got {value[:20]!r}"
        raise ShapeError(WRONG_TYPE, msg)
    clock_ms = int(value)
    if clock_ms > LATEST_MS:
        msg = f"expected a time before 2200, got {value.decode()}"
        raise ShapeError(WRONG_TYPE, msg)
    return clock_ms


def _record(name: str, value: bytes | None) -> dict[str, Any] | None:
    """Read the state of one alert or incident; raises ShapeError."""
    if value is None:
        return None
    try:
        # Not orjson: it refuses NaN, which earlier versions wrote.
        record = json.loads(value)
        # It will have to be written again: without half characters and numbers beyond 64 bits.
        orjson.dumps(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise ShapeError(WRONG_TYPE, f"not JSON ({type(error).__name__})") from None
    if not isinstance(record, dict):
        msg = f"expected an object, got {type(record).__name__}"
        raise ShapeError(WRONG_TYPE, msg)
    newer = record.get("version")
    if "last" in record and not (isinstance(newer, int) and newer > RECORD_VERSION):
        to_record(Incident if name.startswith(INCIDENT) else Alert, record["last"])
    return record
