"""Partitions that a member was given, until they are at work; and time as the loops see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamad.errors import SourceUnavailableError
from streamad.ports import Member, Source

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time as the runtime sees it: seconds that never go back, and milliseconds of the wall."""

    seconds: Callable[[], float]
    wall_ms: Callable[[], int]


class Placing:
    """Put partitions to work as they are assigned; one that cannot be yet is tried again.

    place : puts one partition to work, or raises SourceUnavailableError
    """

    def __init__(self, member: Member, clock: Clock, place: Callable[[Source], None]) -> None:
        self._member, self._clock, self._place = member, clock, place
        self._due_s: dict[Source, float] = {}

    @property
    def settled(self) -> bool:
        """Say whether every partition that came is at work."""
        return not self._due_s

    def forget(self, sources: Iterable[Source]) -> None:
        """Wait no longer for partitions that are another member's."""
        for source in sources:
            self._due_s.pop(source, None)

    def turn(self) -> None:
        """Place what was assigned since, and what is due to be tried again."""
        now_s = self._clock.seconds()
        self._due_s |= dict.fromkeys(self._member.assigned(), now_s)
        for source in [source for source, due_s in self._due_s.items() if due_s <= now_s]:
            try:
                self._place(source)
            except SourceUnavailableError as error:
                logger.warning("%s cannot be put to work yet: %s", source, error)
                self._due_s[source] = self._clock.seconds() + _RETRY_S
            else:
                del self._due_s[source]
