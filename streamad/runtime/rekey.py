"""Send the points of a topic that is not keyed to partitions by their key, through a topic of ours.

Collectors often write to partitions at random; state is kept a partition, so all points of a key
must come to one. One transaction holds the points and the offsets they came from. What order two
input partitions are merged in is decided once, here; from then on it is the order of the log.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.errors import MembershipError, OffsetOutOfRangeError
from streamad.ports import (
    Decoder,
    Fault,
    Member,
    Messages,
    NullTelemetry,
    Outgoing,
    Progress,
    Source,
    Telemetry,
    no_fault,
)
from streamad.records import Rejected, SignalBatch
from streamad.runtime.decoding import decode
from streamad.runtime.ends import Ends
from streamad.runtime.judging import count_rejected
from streamad.runtime.placing import Clock, Placing
from streamad.runtime.quarantine import Guarded
from streamad.runtime.start import start_offset

logger = logging.getLogger(__name__)

MAX_HOMES = 1_000_000
"""Keys whose partition is remembered, so that it need not be worked out again."""


class RekeyRecords(Protocol):
    """Points as they are written to our topic, and what is no point."""

    partitions: int

    def points(self, batch: SignalBatch, rows: NDArray[np.int64], partition: int) -> list[Outgoing]:
        """Return rows of a batch as records for one partition."""
        ...

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        ...


class RekeyLoop:
    """Work on the partitions a member is given, until told to stop; it has no state."""

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
        self._config, self._decoder = config, decoder
        self._records, self._clock, self._fault = records, clock, fault
        self._telemetry = telemetry or NullTelemetry()
        self._member = Guarded(member, report=self._set_aside, telemetry=self._telemetry)
        self._commit_s = config.delivery.commit_interval / 1000
        self._commit_due_s = 0.0
        self._placing = Placing(self._member, clock, self._place)
        self._ends = Ends(lambda source, _: self._member.end_reached(source))
        self._homes: dict[str, int] = {}
        self._pending: dict[Source, list[Outgoing]] = {}
        self.positions: dict[Source, int] = {}

    @property
    def sources(self) -> list[Source]:
        """Return the partitions at work."""
        return list(self.positions)

    @property
    def settled(self) -> bool:
        """Say whether every partition that came is at work."""
        return self._placing.settled

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop``; then commit and return."""
        while not stop():
            self.turn()
        self.drain()

    def turn(self, timeout_ms: int = 100) -> int:
        """Poll once, send on what came, commit where it is time; return the messages taken."""
        self._placing.turn()
        polled = self._member.poll(timeout_ms)
        self._fault("after_poll")
        for messages in polled:
            self._take(messages)
        self._pass_over()
        due = self._clock.seconds() >= self._commit_due_s
        if self._pending and (due or self._member.in_care):
            self._commit_softly(list(self._pending))
        return sum(map(len, polled))

    def drain(self) -> None:
        """Commit everything, as before leaving."""
        self._commit_softly(list(self._pending))
        self.lose(list(self.positions))

    def give_up(self, sources: Sequence[Source]) -> None:
        """Commit what these partitions have; another member gets them once this returns."""
        self._commit_softly([source for source in sources if source in self._pending])
        self.lose(sources)

    def lose(self, sources: Sequence[Source]) -> None:
        """Forget these partitions."""
        self._placing.forget(sources)
        self._member.forget(sources)
        for source in sources:
            self.positions.pop(source, None)
            self._pending.pop(source, None)

    def _take(self, messages: Messages) -> None:
        if messages.source not in self.positions:
            return
        decoded = decode(self._decoder, messages, pipeline=self._config.name)
        records = self._pending.setdefault(messages.source, [])
        records += self._records.rejected(messages, decoded.rejected)
        count_rejected(self._telemetry, decoded.rejected)
        homes = self._homes_of(decoded.batch)
        for partition in np.unique(homes).tolist():
            rows = np.flatnonzero(homes == partition)
            records += self._records.points(decoded.batch, rows, partition)
        self.positions[messages.source] = int(messages.offsets[-1]) + 1
        self._ends.heard(messages.source, self._clock.seconds())
        topic = messages.source.topic
        self._telemetry.count("input_messages_total", len(messages), topic=topic)

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        letter = Rejected(message=0, reason="quarantined", detail=why, payload=None)
        return self._records.rejected(message, [letter])

    def renewed(self, topic: str) -> None:
        """Do nothing: no topic holds what this stage knows."""

    def n_kept(self, source: Source) -> int:
        """Return how many messages were polled and wait for their turn: see `Guarded`."""
        return self._member.n_kept(source)

    def _pass_over(self) -> None:
        now_s = self._clock.seconds()
        for source, position in self.positions.items():
            passed = self._ends.passed(source, position, now_s)
            if passed is not None:
                self.positions[source] = passed
                self._pending.setdefault(source, [])

    def _homes_of(self, batch: SignalBatch) -> NDArray[np.int64]:
        """Return each row's partition, which depends on the key alone, in every process."""
        if len(self._homes) > MAX_HOMES:
            self._homes.clear()
        names = batch.keys.unique().to_list()
        for name in names:
            if name not in self._homes:
                self._homes[name] = zlib.crc32(name.encode()) % self._records.partitions
        homes = [self._homes[name] for name in batch.keys.to_list()]
        return np.fromiter(homes, np.int64, len(batch))

    def _commit_softly(self, sources: Sequence[Source]) -> None:
        if not sources:
            return
        records = [record for source in sources for record in self._pending[source]]
        done = {source: Progress(offset=self.positions[source]) for source in sources}
        try:
            self._member.commit(records, done)
        except MembershipError as error:
            # See `DetectLoop`: what was not written is kept, or its next owner does it anew.
            logger.info("commit put off: %s", error)
        else:
            self._fault("after_commit")
            for source in sources:
                del self._pending[source]
        self._commit_due_s = self._clock.seconds() + self._commit_s

    def _place(self, source: Source) -> None:
        first, after = self._member.log.bounds(source.topic)[source]
        done = self._member.committed(source)
        given = self._config.input
        if done is None:
            position = start_offset(given.start, self._member.log, source, first, after)
            self._pending[source] = []
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
        self.positions[source] = position
        self._ends.heard(source, self._clock.seconds())
        self._member.place(source, position)
        if done is None:
            self._commit_softly([source])
        logger.info("%s is re-keyed from offset %d on", source, position)
