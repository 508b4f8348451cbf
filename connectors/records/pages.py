"""Incidents in; what a pager was sent, and dead-letter records, out: the page job on Kafka."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson

from connectors.records import cloudevents, dead_letters
from connectors.records.typed_json import ShapeError, to_record
from streamad.alerting.config import AlertingConfig
from streamad.incidents import Digest, Incident, PageRequest
from streamad.paging.changes import Page, Told
from streamad.ports import Log, Messages, Outgoing, Source
from streamad.records import Rejected

logger = logging.getLogger(__name__)

PAGER, KEY, CHANGE = "streamad.page.pager", "streamad.page.key", "streamad.page.change"
"""Headers of dead-letter records of pages: who could not be sent what, under which key."""

MAX_STATE_BYTES = 65_536
"""A longer record of what was sent is none of ours."""


def page_state_topic(config: AlertingConfig) -> str:
    """Return the name of the topic that holds what pagers were sent of open incidents."""
    return f"streamad.{config.name}.page-state"


class KafkaPageRecords:
    """Records of one pager; ``wall_ms`` stamps dead-letter records."""

    def __init__(
        self, config: AlertingConfig, log: Log, *, pager: str, wall_ms: Callable[[], int]
    ) -> None:
        self._log, self._pager, self._wall_ms = log, pager, wall_ms
        self._state = page_state_topic(config)
        self._partitions = len(log.bounds(self._state))
        self._dead_letters = dead_letters.Writer(
            pipeline=config.name, stage="page", topic=config.output.dead_letters
        )

    def incidents(self, messages: Messages) -> list[Incident | Digest | PageRequest | None]:
        """Return what each message holds; what is no event of ours is logged and passed over."""
        read: list[Incident | Digest | PageRequest | None] = []
        for value, record, offset in zip(
            messages.payloads, messages.raw, messages.offsets.tolist(), strict=True
        ):
            got = cloudevents.decode(value, record.headers)
            if isinstance(got, Incident | Digest | PageRequest):
                read.append(got)
                continue
            read.append(None)
            if isinstance(got, Rejected) and value is not None:
                logger.error("%s@%d is no incident: %s", messages.source, offset, got.detail)
        return read

    def told(self, source: Source, changed: Mapping[str, Told | None]) -> list[Outgoing]:
        """Return what is known of incidents; None becomes a tombstone."""
        return [
            Outgoing(
                topic=self._state,
                key=f"{self._prefix(source)}{name}".encode(),
                value=None if told is None else orjson.dumps(told),
                partition=source.partition % self._partitions,
            )
            for name, told in changed.items()
        ]

    def load(self, source: Source) -> dict[str, Told]:
        """Return what is known of the open incidents of a partition; the log names what is not."""
        state = Source(self._state, source.partition % self._partitions)
        prefix = self._prefix(source).encode()
        newest: dict[bytes, bytes | None] = {}
        for messages in self._log.read(state, *self._log.bounds(self._state)[state]):
            for value, record in zip(messages.payloads, messages.raw, strict=True):
                if record.key is not None and record.key.startswith(prefix):
                    newest[record.key] = value
        known: dict[str, Told] = {}
        for key, value in newest.items():
            if value is None:
                continue
            try:
                told = _told(value)
            except (ShapeError, ValueError) as error:
                logger.error("%s: the record %.80r is left out: %s", state, key, error)  # noqa: TRY400
                continue
            known[told.incident] = told
        return known

    def dead(self, messages: Messages, page: Page, *, reason: str, detail: str) -> list[Outgoing]:
        """Return the dead-letter record of a message of one record."""
        rejected = Rejected(message=0, reason=reason, detail=detail, payload=messages.payloads[0])
        letters = self._dead_letters.records(messages, [rejected], time_ms=self._wall_ms())
        about = {PAGER: self._pager, KEY: page.key, CHANGE: page.change}
        ours = tuple((name, text.encode()) for name, text in about.items())
        return [
            replace(one, headers=(*(h for h in one.headers if h[0] not in about), *ours))
            for one in letters
        ]

    def _prefix(self, source: Source) -> str:
        return f"{self._pager}/{source.partition}/"


def _told(value: bytes) -> Told:
    if len(value) > MAX_STATE_BYTES:
        msg = f"expected at most {MAX_STATE_BYTES} bytes, got {len(value)}"
        raise ValueError(msg)
    return to_record(Told, orjson.loads(value))
