"""Send the points of a topic that is not keyed to partitions by their key, through a topic of ours.

Collectors often write to partitions at random; state is kept a partition, so all points of a key
must come to one. One transaction holds the points and the offsets they came from. What order two
input partitions are merged in is decided once, here; from then on it is the order of the log.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError
from streamad.ports import (
    Decoder,
    Fault,
    Member,
    Messages,
    Outgoing,
    Progress,
    Source,
    Telemetry,
    no_fault,
)
from streamad.records import RecordBatch, Rejected
from streamad.runtime.decoding import decode
from streamad.runtime.judging import count_rejected
from streamad.runtime.loop import Loop
from streamad.runtime.placing import Clock
from streamad.runtime.start import start_offset

logger = logging.getLogger(__name__)

MAX_HOMES = 1_000_000
"""Keys whose partition is remembered, so that it need not be worked out again."""


class RekeyRecords(Protocol):
    """Points as they are written to our topic, and what is no point."""

    partitions: int

    def points(
        self, batch: RecordBatch[Any], rows: NDArray[np.int64], partition: int
    ) -> list[Outgoing]:
        """Return rows of a batch as records for one partition."""
        ...

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        ...


@dataclass(slots=True, kw_only=True)
class _Part:
    """One partition of the input at work."""

    source: Source
    position: int
    records: list[Outgoing] = field(default_factory=list)
    dirty: bool = False


class RekeyLoop(Loop[_Part]):
    """Send rows on to their keys' partitions; see `Loop` for what all stages share. No state."""

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        *,
        member: Member,
        decoder: Decoder,
        records: RekeyRecords,
        clock: Clock,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        super().__init__(
            config.delivery, member=member, clock=clock, telemetry=telemetry, fault=fault
        )
        self._config = config
        self._decoder, self._records = decoder, records
        self._homes: dict[str, int] = {}

    def _take(self, polled: Sequence[Messages]) -> None:
        for messages in polled:
            part = self.parts[messages.source]
            decoded = decode(self._decoder, messages, pipeline=self._config.name)
            part.records += self._records.rejected(messages, decoded.rejected)
            count_rejected(self._telemetry, decoded.rejected)
            homes = self._homes_of(decoded.batch)
            for partition in np.unique(homes).tolist():
                rows = np.flatnonzero(homes == partition)
                part.records += self._records.points(decoded.batch, rows, partition)
            part.position, part.dirty = int(messages.offsets[-1]) + 1, True
            self._ends.heard(messages.source, self._clock.seconds())
            topic = messages.source.topic
            self._telemetry.count("input_messages_total", len(messages), topic=topic)

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        letter = Rejected(message=0, reason="quarantined", detail=why, payload=None)
        return self._records.rejected(message, [letter])

    def _pass_time(self, now_s: float) -> None:
        for part in self.parts.values():
            self._pass_over(part, now_s)

    def _homes_of(self, batch: RecordBatch[Any]) -> NDArray[np.int64]:
        """Return each row's partition, which depends on the key alone, in every process."""
        if len(self._homes) > MAX_HOMES:
            self._homes.clear()
        names = batch.keys.unique().to_list()
        for name in names:
            if name not in self._homes:
                self._homes[name] = zlib.crc32(name.encode()) % self._records.partitions
        homes = [self._homes[name] for name in batch.keys.to_list()]
        return np.fromiter(homes, np.int64, len(batch))

    def _commit(self, dirty: Sequence[_Part]) -> tuple[str, int]:
        records = [record for part in dirty for record in part.records]
        self._member.commit(records, {p.source: Progress(offset=p.position) for p in dirty})
        self._fault("after_commit")
        for part in dirty:
            part.records, part.dirty = [], False
        return "rekey", len(records)

    def _place(self, source: Source) -> None:
        first, after = self._member.log.bounds(source.topic)[source]
        done = self._member.committed(source)
        given = self._config.input
        if done is None:
            position = start_offset(given.start, self._member.log, source, first, after)
        elif first <= done.offset <= after:
            position = done.offset
        else:
            self._telemetry.count("input_offset_out_of_range_total", topic=source.topic)
            what = f"{source}: offset {done.offset} is out of range ({first} to {after})"
            if given.on_out_of_range == "fail":
                msg = f"{what}; set input.on_out_of_range to earliest or latest to continue"
                raise OffsetOutOfRangeError(msg)
            logger.error("%s; continuing, as set by input.on_out_of_range", what)
            position = after if given.on_out_of_range == "latest" else first
        part = self.parts[source] = _Part(source=source, position=position, dirty=done is None)
        self._ends.heard(source, self._clock.seconds())
        self._member.place(source, position)
        if done is None:
            self._commit_softly([part])
        logger.info("%s is re-keyed from offset %d on", source, position)
