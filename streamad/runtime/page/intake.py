"""Records of incidents on their way in: where a partition resumes, and what of it is to be sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from streamad.alerting.pagers import PagerBase
from streamad.errors import SourceUnavailableError
from streamad.incidents import Digest, Incident, PageRequest
from streamad.paging.changes import Page, Told
from streamad.ports import Member, Messages, Outgoing, Source, Telemetry
from streamad.runtime.page.queue import Item, Part, only
from streamad.runtime.placing import Clock

logger = logging.getLogger(__name__)


class PageRecords(Protocol):
    """Records of the page job."""

    def incidents(self, messages: Messages) -> list[Incident | Digest | PageRequest | None]:
        """Return what each message holds; None: nothing that is paged."""
        ...

    def told(self, source: Source, changed: Mapping[str, Told | None]) -> list[Outgoing]:
        """Return what is known of incidents as records; None forgets one."""
        ...

    def load(self, source: Source) -> dict[str, Told]:
        """Return what is known of the incidents of a partition."""
        ...

    def dead(self, messages: Messages, page: Page, *, reason: str, detail: str) -> list[Outgoing]:
        """Return the dead-letter record of a message of one record, with the page's key."""
        ...


class Intake:
    """Read the partitions of a member for one pager.

    config : the pager's, which may be swapped; count : counts what is not sent, by why
    """

    def __init__(
        self,
        config: PagerBase,
        *,
        member: Member,
        records: PageRecords,
        clock: Clock,
        telemetry: Telemetry,
        count: Callable[[str], None],
    ) -> None:
        self.config = config
        self._member, self._records, self._clock = member, records, clock
        self._telemetry, self._count = telemetry, count

    def open(self, source: Source) -> Part:
        """Return a partition as it was left; a new one begins with what is still open."""
        first, after = self._member.log.bounds(source.topic)[source]
        done = self._member.committed(source)
        cut_ms = self._clock.wall_ms() - self.config.max_age
        part = Part(source=source, position=0, read=0, told={}, cut_ms=cut_ms)
        if done is None:
            position = self._member.log.offset_at(source, cut_ms)
            position = min(max(position, first), after)
            for incident in self._open_in(source, first, position):
                told = Told(incident=incident.id, sequence=incident.sequence, state="ignored")
                part.told[incident.id], part.unsaved[incident.id] = told, None
        else:
            part.told = self._records.load(source)
            position = done.offset
            if not first <= position <= after:
                # Its topic was made again, or retention has deleted what was to be paged.
                logger.error("%s: offset %d is gone; paging from %d on", source, position, first)
                self._telemetry.count("input_offset_out_of_range_total", topic=source.topic)
                position = first
            part.over = frozenset(self._over_in(source, position, after))
        now_s = self._clock.seconds()
        part.position = part.read = position
        part.resolved_s = {t.incident: now_s for t in part.told.values() if t.state == "resolved"}
        part.dirty = done is None
        return part

    def take(self, part: Part, messages: Messages) -> None:
        """Let what is to be sent wait for its turn; a partition of which too much waits rests."""
        now_s = self._clock.seconds()
        for number, record in enumerate(self._records.incidents(messages)):
            offset = int(messages.offsets[number])
            if offset < part.read:
                continue
            if isinstance(record, PageRequest):
                try:
                    wanted: Incident | Digest | None = self._asked_for(part, record, offset)
                except SourceUnavailableError as error:
                    logger.warning("%s@%d is read again: %s", part.source, offset, error)
                    part.read = offset
                    self._member.place(part.source, offset)
                    return
            else:
                wanted = record
            if wanted is not None and not self._too_late(part, messages, number, wanted):
                part.put(Item(only(messages, number), wanted, offset, now_s))
            elif not part.queue:
                part.position, part.dirty = offset + 1, True
        part.read = int(messages.offsets[-1]) + 1
        # Committed within seconds, though nothing may be done: what waits for a pager is in its
        # topic, and no reason to take this process for stuck.
        part.dirty = True
        if part.full and not part.paused:
            part.paused = True
            self._member.pause(part.source)

    def _open_in(self, source: Source, start: int, stop: int) -> list[Incident]:
        newest: dict[str, Incident] = {}
        for messages in self._member.log.read(source, start, stop):
            for record in self._records.incidents(messages):
                if isinstance(record, Incident):
                    newest[record.id] = record
                    if record.state == "resolved":
                        del newest[record.id]
        return list(newest.values())

    def _over_in(self, source: Source, start: int, stop: int) -> list[str]:
        return [
            record.id
            for messages in self._member.log.read(source, start, stop)
            for record in self._records.incidents(messages)
            if isinstance(record, Incident) and record.state == "resolved"
        ]

    def _asked_for(self, part: Part, request: PageRequest, offset: int) -> Incident | None:
        """Return the incident that a request is about, as it was last; None: nothing to send."""
        if request.pager != self.config.name:
            return None
        first, _ = self._member.log.bounds(part.source.topic)[part.source]
        start = max(first, min(request.since_offset, offset))
        since = (
            record
            for messages in self._member.log.read(part.source, start, offset)
            for record in self._records.incidents(messages)
        )
        incident, why = part.asked_for(request, since)
        if incident is None:
            self._count(why)
        return incident

    def _too_late(
        self, part: Part, messages: Messages, number: int, record: Incident | Digest
    ) -> bool:
        """Return whether nobody needs to know any more: written long ago, and over by now."""
        written_ms = int(messages.broker_ms[number])
        late = written_ms < part.cut_ms and record.id in part.over and record.id not in part.told
        if late:
            self._count("too_late")
        return late
