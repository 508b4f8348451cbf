"""Where a quiet partition really ends: behind the last record stand marks of transactions.

Progress is committed behind the last record that was read. If retention deletes that record and the
mark behind it, the topic begins beyond the committed offset, as if something had been missed. So
once a partition has been quiet for a while, what is left is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streamad.ports import Source

QUIET_S: Final = 30.0
"""Much less than any retention, and more than the pause between two messages."""


class Ends:
    """Ask where a partition ends, once each time it falls quiet.

    ask : takes a partition and the position in it, and returns the offset up to which nothing is
    left to read; None where something is, or where nobody answers
    """

    def __init__(
        self, ask: Callable[[Source, int], int | None], *, quiet_s: float = QUIET_S
    ) -> None:
        self._ask, self._quiet_s = ask, quiet_s
        self._due_s: dict[Source, float] = {}

    def heard(self, source: Source, now_s: float) -> None:
        """Note that something came, or that the partition was put to work."""
        self._due_s[source] = now_s + self._quiet_s

    def passed(self, source: Source, position: int, now_s: float) -> int | None:
        """Return the offset to go on at if it lies behind ``position``; None where it does not."""
        if now_s < self._due_s.get(source, float("inf")):
            return None
        reached = self._ask(source, position)
        if reached is None:
            self._due_s[source] = now_s + self._quiet_s
            return None
        del self._due_s[source]
        return reached if reached > position else None
