"""The page job: incidents in, pages out, one loop per pager, in the order of the incidents' log.

Each pager has a consumer group of its own, so a pager that is down delays neither detection nor
another pager. What it was sent of each open incident is kept in a compacted topic.

A change is sent, and then committed with what is known of it, before the next one is sent. So a
process that dies in between repeats at most the last change, under the same key: a receiver that
deduplicates shows each once, and the others at least once. Before it sends, a process that was
quiet asks the group whether the partition is still its own: one that was frozen for a while must
not send what others have sent since.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from streamad.alerting.pagers import PagerBase
from streamad.errors import MembershipError
from streamad.incidents import Digest, Incident
from streamad.paging.changes import (
    Change,
    Outcome,
    Page,
    Pager,
    Told,
    changes,
    page_of,
    told_after,
)
from streamad.ports import (
    Fault,
    Member,
    NullTelemetry,
    Progress,
    Source,
    Telemetry,
    no_fault,
)
from streamad.runtime.page.intake import Intake, PageRecords
from streamad.runtime.page.queue import Item, Part
from streamad.runtime.placing import Clock, Placing

logger = logging.getLogger(__name__)

FRESH_S: Final = 3.0
"""The group is asked again whether a partition is ours where it last confirmed longer ago."""
TURN_S: Final = 1.0
"""How long pages are sent before the group is attended to."""
COMMIT_S: Final = 5.0
"""Progress over records that need no page is committed within this time."""
LEAST_WAIT_S, MOST_WAIT_S = 0.5, 60.0
KEEP_RESOLVED_S: Final = 300.0
"""Resolved incidents are sent again for so long, where what is open is."""
REFUSED, GIVEN_UP = "page_refused", "page_given_up"


class PageLoop:
    """Send the incidents of the partitions a member is given to one pager.

    Parameters
    ----------
    config : PagerBase
        Which incidents it gets, and when it is given up.
    pager : Pager
        Makes attempts.
    member, records
        Bring records of incidents, and write what is known of them.
    clock : Clock
        The wall's time is asked once, as a partition is placed; a clock that jumps later changes
        nothing.
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PagerBase,
        pager: Pager,
        *,
        member: Member,
        records: PageRecords,
        clock: Clock,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        self._config, self._pager = config, pager
        self._member, self._records, self._clock = member, records, clock
        self._telemetry, self._fault = telemetry or NullTelemetry(), fault
        self._intake = Intake(
            config,
            member=member,
            records=records,
            clock=clock,
            telemetry=self._telemetry,
            count=self._count,
        )
        self._placing = Placing(member, clock, self._place)
        self._swaps: deque[Callable[[], None]] = deque()
        self.parts: dict[Source, Part] = {}

    @property
    def sources(self) -> list[Source]:
        """Return none: all pagers read the same partitions, so the lag per partition is no one's.

        ``page_queue_records`` and ``page_oldest_seconds`` show how far each pager is behind.
        """
        return []

    @property
    def settled(self) -> bool:
        """Return whether every partition that came is at work."""
        return self._placing.settled

    def n_kept(self, source: Source) -> int:
        """Return how many records wait for their turn."""
        part = self.parts.get(source)
        return 0 if part is None else len(part.queue)

    def renewed(self, topic: str) -> None:
        """Note, from any thread, that a topic was deleted and made again; it is read on."""

    def stage(self, swap: Callable[[], None]) -> None:
        """Have settings swapped between two commits; from any thread: see `Loop.stage`."""
        self._swaps.append(swap)

    def use(self, config: PagerBase, pager: Pager) -> None:
        """Send by another pager of the same name and routes from now on; see `stage`.

        What waits for an attempt is tried at once: the settings may be its remedy.
        """
        self._config, self._pager, self._intake.config = config, pager, config
        for part in self.parts.values():
            part.attempts, part.due_s = 0, 0.0
            part.remind_due_s = 0.0

    def _swap(self) -> None:
        while self._swaps and all(self._commit(part) for part in list(self.parts.values())):
            self._fault("before_reload")
            self._swaps.popleft()()
            self._fault("after_reload")

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop``; then commit and return."""
        while not stop():
            self.turn()
        self.drain()

    def turn(self, timeout_ms: int = 200) -> int:
        """Poll once, send what is due, commit; return the records that were read."""
        self._placing.turn()
        self._swap()
        polled = self._member.poll(timeout_ms if self._idle() else 1)
        self._fault("after_poll")
        for messages in polled:
            if messages.source in self.parts:
                self._intake.take(self.parts[messages.source], messages)
        for source in list(self.parts):
            if source in self.parts:
                self._work(self.parts[source])
        self._report()
        return sum(map(len, polled))

    def drain(self) -> None:
        """Commit everything, as before leaving; what was not sent is read again."""
        for part in self.parts.values():
            self._commit(part)
        self.parts.clear()

    def give_up(self, sources: Sequence[Source]) -> None:
        """Commit what these partitions have; another member gets them once this returns."""
        for source in sources:
            if source in self.parts:
                self._commit(self.parts[source])
        self._forget(sources)

    def lose(self, sources: Sequence[Source]) -> None:
        """Forget these partitions: they are another member's already."""
        self._forget(sources)

    def _forget(self, sources: Sequence[Source]) -> None:
        self._placing.forget(sources)
        for source in sources:
            self.parts.pop(source, None)

    def _idle(self) -> bool:
        now_s = self._clock.seconds()
        return not any(part.queue and part.due_s <= now_s for part in self.parts.values())

    def _place(self, source: Source) -> None:
        part = self._intake.open(source)
        self.parts[source] = part
        self._member.place(source, part.position)
        if part.dirty:
            self._commit(part)
        logger.info(
            "pager %s: %s resumes at offset %d, %d incidents are open",
            self._config.name, source, part.position, len(part.told),
        )  # fmt: skip

    # ------------------------------------------------------------------ out

    def _work(self, part: Part) -> None:
        """Send what is due, one change after the other, each committed before the next."""
        began_s = self._clock.seconds()
        while part.queue and part.due_s <= (now_s := self._clock.seconds()):
            if now_s - began_s > TURN_S or not self._still_ours(part, now_s):
                return
            self._work_off(part, part.queue[0])
        self._remind(part)
        if part.dirty and self._clock.seconds() >= part.commit_due_s:
            self._commit(part)
        if part.paused and part.has_room:
            part.paused = False
            self._member.place(part.source, part.read)

    def _still_ours(self, part: Part, now_s: float) -> bool:
        """Return whether the group lets us commit: what was sent last, and that we are quiet."""
        if part.unsaved or part.letters or now_s - part.confirmed_s > FRESH_S:
            return self._commit(part, confirm=True)
        return True

    def _work_off(self, part: Part, item: Item) -> None:
        change = self._next(part, item)
        if change is None:
            self._done(part, item)
            return
        told = part.told.get(item.record.id)
        page = page_of(item.record, change, told)
        self._fault("before_send")
        outcome = self._pager.send(page)
        self._fault("after_send")
        if outcome.result == "ok":
            part.attempts = 0
            self._count("ok")
            if isinstance(item.record, Incident):
                part.know(told_after(page, told, outcome))
            item.done = True
            if self._next(part, item) is None:
                self._done(part, item)
            self._commit(part)
        else:
            self._failed(part, item, page, outcome)

    def _next(self, part: Part, item: Item) -> Change | None:
        """Return the next change that is to be sent of a record; None: it is done."""
        record = item.record
        if isinstance(record, Digest):
            return "digest" if self._config.wants(record) and not item.done else None
        told = part.told.get(record.id)
        left = changes(record, told, routed=self._config.wants(record))
        if left == ("update",) and (not self._pager.updates or part.newest[record.id] > 1):
            # A later record of it is in hand: that one shows more.
            return None
        return left[0] if left else None

    def _failed(self, part: Part, item: Item, page: Page, outcome: Outcome) -> None:
        now_s = self._clock.seconds()
        told = part.told.get(item.record.id)
        if outcome.reference is not None and told is not None:
            part.know(replace(told, reference=outcome.reference))
        given_up = now_s - item.since_s >= self._config.give_up / 1000
        if outcome.result == "retry" and not given_up:
            part.attempts += 1
            part.due_s = now_s + max(outcome.wait_s, _back_off_s(part.attempts))
            self._count("retry")
            logger.warning(
                "pager %s: attempt %d failed and is made again in %.1f s: %s",
                self._config.name, part.attempts, part.due_s - now_s, outcome.detail,
            )  # fmt: skip
            return
        reason = GIVEN_UP if outcome.result == "retry" else REFUSED
        detail = f"pager {self._config.name}: {outcome.detail}"
        logger.error("a page of %s is not delivered (%s): %s", item.record.id, reason, detail)
        part.letters += self._records.dead(item.message, page, reason=reason, detail=detail)
        self._count(reason.removeprefix("page_"))
        part.attempts = 0
        if isinstance(item.record, Incident):
            self._after_failure(part, item.record, reason)
        self._done(part, item)
        self._commit(part)

    def _after_failure(self, part: Part, incident: Incident, reason: str) -> None:
        if incident.state == "resolved":
            if incident.id in part.told:
                part.forget(incident.id)
        elif reason == REFUSED and incident.id not in part.told:
            # Later records of it would be refused alike. What was given up is tried again with
            # the next record: it may still be going on when the receiver is back.
            told = Told(incident=incident.id, sequence=incident.sequence, state="refused")
            part.know(told)

    def _done(self, part: Part, item: Item) -> None:
        """Pass over a record; forget an incident that is over."""
        part.pop()
        record = item.record
        told = part.told.get(record.id)
        if isinstance(record, Incident) and record.state == "resolved" and told is not None:
            if self._pager.remind_every_s and told.state == "resolved":
                part.resolved_s[record.id] = self._clock.seconds()
            else:
                part.forget(record.id)

    def _remind(self, part: Part) -> None:
        """Send again what fires, and what was resolved of late, where the receiver forgets."""
        every_s, now_s = self._pager.remind_every_s, self._clock.seconds()
        if not every_s or now_s < part.remind_due_s:
            return
        part.remind_due_s = now_s + every_s
        for name, since_s in list(part.resolved_s.items()):
            if now_s - since_s > KEEP_RESOLVED_S:
                del part.resolved_s[name]
                part.forget(name)
        shown = [one for one in part.told.values() if one.state not in ("refused", "ignored")]
        if not shown or not self._still_ours(part, now_s):
            return
        outcome = self._pager.remind(shown)
        self._count("reminder" if outcome.result == "ok" else "reminder_failed")
        if outcome.result != "ok":
            logger.warning(
                "pager %s: open incidents could not be sent again: %s",
                self._config.name, outcome.detail,
            )  # fmt: skip

    # ------------------------------------------------------------------ commit

    def _commit(self, part: Part, *, confirm: bool = False) -> bool:
        """Write what is known and how far it got; False where the group has moved on."""
        if not (part.dirty or part.unsaved or part.letters or confirm):
            return True
        known = {name: part.told.get(name) for name in part.unsaved}
        records = [*self._records.told(part.source, known), *part.letters]
        try:
            self._member.commit(records, {part.source: Progress(offset=part.position)})
        except MembershipError as error:
            # Ours still after the rebalance, or another's: then it reads and sends this again.
            logger.info("commit put off: %s", error)
            return False
        self._fault("after_commit")
        part.unsaved.clear()
        part.letters.clear()
        part.dirty = False
        part.confirmed_s = self._clock.seconds()
        part.commit_due_s = part.confirmed_s + COMMIT_S
        return True

    def _count(self, result: str) -> None:
        self._telemetry.count("page_sent_total", pager=self._config.name, result=result)

    def _report(self) -> None:
        now_s, name = self._clock.seconds(), self._config.name
        waiting = [part.queue[0].since_s for part in self.parts.values() if part.queue]
        n_waiting = sum(len(part.queue) for part in self.parts.values())
        oldest_s = now_s - min(waiting) if waiting else 0.0
        self._telemetry.gauge("page_queue_records", n_waiting, pager=name)
        self._telemetry.gauge("page_oldest_seconds", oldest_s, pager=name)


def _back_off_s(attempt: int) -> float:
    delay_s = min(MOST_WAIT_S, LEAST_WAIT_S * 2.0 ** min(attempt - 1, 10))
    return delay_s * (0.5 + random.random() / 2)  # noqa: S311 - jitter, no secret
