"""What the loops of all stages share: partitions come and go, input comes, time passes, it commits.

A stage says what it makes of input and what it writes (`_take`, `_commit`, `_place`, `_set_aside`);
when each of these happens is decided here, once.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from streamad.config.running import DeliveryConfig
from streamad.errors import MembershipError
from streamad.ports import (
    Fault,
    Member,
    Messages,
    NullTelemetry,
    Outgoing,
    Source,
    Telemetry,
    no_fault,
)
from streamad.runtime.ends import Ends
from streamad.runtime.placing import Clock, Placing
from streamad.runtime.quarantine import Guarded

logger = logging.getLogger(__name__)


class Part(Protocol):
    """One partition at work; dirty : there is something to commit."""

    source: Source
    position: int
    dirty: bool


P = TypeVar("P", bound=Part)


class Loop(ABC, Generic[P]):
    """Work on the partitions a member is given, until told to stop.

    Parameters
    ----------
    delivery : DeliveryConfig
        How often it commits.
    member : Member
        Brings messages and takes records; this loop is its owner.
    clock : Clock
        Seconds that never go back, and the time on the wall.
    telemetry, fault
        Where metrics go; called at the steps at which a test may kill the process.
    """

    def __init__(
        self,
        delivery: DeliveryConfig,
        *,
        member: Member,
        clock: Clock,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        self._clock, self._fault = clock, fault
        self._telemetry = telemetry or NullTelemetry()
        self._member = Guarded(member, report=self._set_aside, telemetry=self._telemetry)
        self._commit_s, self._commit_due_s = delivery.commit_interval / 1000, 0.0
        self._swaps: deque[Callable[[], None]] = deque()
        self._placing = Placing(self._member, clock, self._place)
        self._ends = Ends(lambda source, _: self._member.end_reached(source))
        self.parts: dict[Source, P] = {}

    @property
    def sources(self) -> list[Source]:
        """Return the partitions at work."""
        return list(self.parts)

    @property
    def settled(self) -> bool:
        """Say whether every partition that came is at work."""
        return self._placing.settled

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop``; then commit, save and return."""
        while not stop():
            self.turn()
        self.drain()

    def turn(self, timeout_ms: int = 100) -> int:
        """Poll once, take in what came, commit where it is time; return the messages taken."""
        self._placing.turn()
        self._prepare()
        wait_s = max(self._commit_due_s - self._clock.seconds(), 0.001)
        waits = self._is_dirty() and wait_s * 1000 < timeout_ms
        polled = self._member.poll(max(1, int(wait_s * 1000)) if waits else timeout_ms)
        self._fault("after_poll")
        self._take([messages for messages in polled if messages.source in self.parts])
        if polled:
            self._fault("after_score")
        now_s = self._clock.seconds()
        self._pass_time(now_s)
        if (now_s >= self._commit_due_s or self._member.in_care) and self._is_dirty():
            self._commit_softly(list(self.parts.values()))
        while self._swaps and not self._is_dirty():
            self._fault("before_reload")
            self._swaps.popleft()()
            self._fault("after_reload")
        self._save_due(now_s)
        return sum(map(len, polled))

    def drain(self) -> None:
        """Commit and save everything, as before leaving."""
        try:
            self._commit_now(list(self.parts.values()))
            self._save_all(list(self.parts.values()))
        except MembershipError as error:
            logger.warning(
                "stopped in the middle of a rebalance; the next owner recovers: %s", error
            )
        self.parts.clear()

    # ------------------------------------------------------------------ partitions come and go

    def give_up(self, sources: Sequence[Source]) -> None:
        """Commit what these partitions have; another member gets them once this returns."""
        leaving = [self.parts[source] for source in sources if source in self.parts]
        try:
            self._commit_now(leaving)
            self._hand_over(leaving)
        except MembershipError as error:
            logger.warning("partitions left before their last commit; it is made again: %s", error)
        self._forget(sources)
        logger.info("gave up %s", ", ".join(map(str, sources)))

    def lose(self, sources: Sequence[Source]) -> None:
        """Forget these partitions: they are another member's already."""
        self._forget(sources)
        logger.warning("lost %s", ", ".join(map(str, sources)))

    def renewed(self, topic: str) -> None:
        """Note, from any thread, that a topic was deleted and made anew."""

    def stage(self, swap: Callable[[], None]) -> None:
        """Have settings swapped between two commits; from any thread.

        swap : is called once, in the thread of the loop; it must not fail
        """
        self._swaps.append(swap)

    def pace(self, delivery: DeliveryConfig) -> None:
        """Commit as often as these settings have it from now on; see `stage`."""
        self._commit_s = delivery.commit_interval / 1000
        self._commit_due_s = min(self._commit_due_s, self._clock.seconds() + self._commit_s)

    def n_kept(self, source: Source) -> int:
        """Return how many messages were polled and wait for their turn: see `Guarded`."""
        return self._member.n_kept(source)

    def _forget(self, sources: Sequence[Source]) -> None:
        self._placing.forget(sources)
        self._member.forget(sources)
        for source in sources:
            self.parts.pop(source, None)

    # ------------------------------------------------------------------ commit

    def _is_dirty(self) -> bool:
        return any(part.dirty for part in self.parts.values())

    def _commit_softly(self, parts: Sequence[P]) -> None:
        try:
            self._commit_now(parts)
        except MembershipError as error:
            # Nothing was written and nothing is lost: either the rebalance under way leaves us our
            # partitions and the next commit holds all this, or it takes them and we are told.
            logger.info("commit put off: %s", error)
            self._commit_due_s = self._clock.seconds() + self._commit_s

    def _commit_now(self, parts: Sequence[P]) -> None:
        """Write what these partitions have in one transaction; raises MembershipError."""
        dirty = [part for part in parts if part.dirty]
        if not dirty:
            return
        started_s = self._clock.seconds()
        output, n_records = self._commit(dirty)
        now_s = self._clock.seconds()
        self._commit_due_s = now_s + self._commit_s
        self._telemetry.observe("delivery_commit_seconds", now_s - started_s)
        self._telemetry.count("delivery_records_total", n_records, output=output)

    def _pass_over(self, part: P, now_s: float) -> None:
        """Let a partition come to its end, where nothing is left to read but marks."""
        passed = self._ends.passed(part.source, part.position, now_s)
        if passed is not None:
            part.position, part.dirty = passed, True

    # ------------------------------------------------------------------ what a stage decides

    @abstractmethod
    def _take(self, polled: Sequence[Messages]) -> None:
        """Take in messages of partitions at work."""

    @abstractmethod
    def _commit(self, dirty: Sequence[P]) -> tuple[str, int]:
        """Write what partitions have, mark them clean; return the output's name and the records.

        Raises MembershipError.
        """

    @abstractmethod
    def _place(self, source: Source) -> None:
        """Put a partition to work; called until it raises no SourceUnavailableError."""

    @abstractmethod
    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        """Return what tells of a message that ends the process."""

    @abstractmethod
    def _pass_time(self, now_s: float) -> None:
        """Let time pass for partitions of which nothing came."""

    def _prepare(self) -> None:
        """Do what has to be done before a poll."""

    def _save_due(self, now_s: float) -> None:
        """Save what is due to be saved beside commits."""

    def _save_all(self, parts: Sequence[P]) -> None:
        """Save partitions before leaving."""

    def _hand_over(self, parts: Sequence[P]) -> None:
        """Save partitions for their next owner."""
