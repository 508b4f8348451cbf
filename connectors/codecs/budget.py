"""What the rejected rows of one message may cost: so many records and bytes, then one pointer.

Without a bound a message of 200 kB becomes gigabytes of dead letters. Kept are the first rejections
of a message in row order; one more stands for the rest, counts them by reason and has no payload.
Which are kept depends on the message alone, never on its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamad.records import NO_ROWS, Rejected

MAX_LETTERS = 100
"""Rejections of one message that become a record each."""

MAX_LETTER_BYTES = 256 * 1024
"""All of them together; the first is kept even if it alone is larger."""

MORE = "more_rejected"
COUNTED = frozenset(
    {"unknown_variate", "not_wanted", "other_measurement", "other_kind", "other_pipeline", NO_ROWS}
)
"""Reasons that are counted and become no dead letter: they are no mistake."""

Size = Callable[[Rejected], int]


def payload_size(one: Rejected) -> int:
    """Return the bytes of a rejection's payload."""
    return 0 if one.payload is None else len(one.payload)


class Collected:
    """Rejections in message and row order; beyond a message's budget they are only counted.

    size : the bytes that a rejection costs as a record
    """

    def __init__(self, size: Size = payload_size) -> None:
        self._size = size
        self._kept: list[Rejected] = []
        self._rest: dict[int, Counter[str]] = {}
        self._message, self._number, self._bytes = -1, 0, 0

    def has_room(self, message: int) -> bool:
        """Say whether the next rejection of a message may be kept: if not, spare the work."""
        if message != self._message:
            return True
        return self._number < MAX_LETTERS and self._bytes <= MAX_LETTER_BYTES

    def add(self, one: Rejected) -> None:
        """Keep a rejection, or count it where the budget of its message is spent."""
        if one.message != self._message:
            self._message, self._number, self._bytes = one.message, 0, 0
        if one.reason in COUNTED:
            self._kept.append(one)
            return
        if one.reason == MORE:
            self.count(one.message, one.counts)
            return
        fits = self.has_room(one.message)
        self._bytes += self._size(one)
        if fits and (self._number == 0 or self._bytes <= MAX_LETTER_BYTES):
            self._number += 1
            self._kept.append(one)
        else:
            self.count(one.message, {one.reason: 1})

    def count(self, message: int, counts: Mapping[str, int]) -> None:
        """Count rejections of a message that are not kept."""
        self._rest.setdefault(message, Counter()).update(counts)

    def all(self) -> list[Rejected]:
        """Return what was kept, and one rejection a message for what was not."""
        return [*self._kept, *(_more(message, rest) for message, rest in self._rest.items())]


def _more(message: int, counts: Counter[str]) -> Rejected:
    named = ", ".join(f"{reason} {number:,}" for reason, number in counts.most_common())
    return Rejected(
        message=message,
        reason=MORE,
        detail=f"{counts.total():,} more rejected in this message: {named}"[:300],
        counts=dict(counts),
    )


def within_budget(rejected: Iterable[Rejected], size: Size = payload_size) -> list[Rejected]:
    """Return rejections in message and row order, each message's within the budget."""
    collected = Collected(size)
    for one in sorted(rejected, key=in_order):
        collected.add(one)
    return sorted(collected.all(), key=in_order)


def in_order(one: Rejected) -> tuple[int, int]:
    """Sort by message and row; what is about a whole message comes first."""
    return one.message, -1 if one.row is None else one.row


def rank_in_message(message: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return each row's number among the rows of its message; ``message`` is non-decreasing."""
    return np.arange(len(message)) - np.searchsorted(message, message)


def without_payload(one: Rejected, limit: int) -> Rejected:
    """Return a rejection as a pointer where its payload is larger than ``limit`` bytes."""
    return replace(one, payload=None) if payload_size(one) > limit else one
