"""Learned co-occurrence: entities whose alerts begin together more often than chance has it.

For each entity its onsets are counted, and for the pairs that were seen together, how often. With
``n`` and ``m`` onsets of two entities in a time ``T``, chance brings them within ``gap`` of each
other ``2 n m gap / T`` times. A pair is linked once it has come together `LEAST_TOGETHER` times, in
at least half the onsets of the rarer one, and so much more often than by chance that a likelihood
ratio test (G, Dunning 1993) has it at about one in a million.

A flood teaches nothing: when everything fails, everything fails together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

MAX_ENTITIES: Final = 4_096
MAX_PARTNERS: Final = 16
MAX_TOGETHER: Final = 16
"""Entities that begin within a gap of each other; more of them are a flood."""
LEAST_TOGETHER: Final = 3
LEAST_SHARE: Final = 0.5
LEAST_G: Final = 24.0
_FORGET: Final = MAX_ENTITIES // 16


@dataclass(slots=True)
class Habit:
    """What was seen of one entity: onsets, and with whom (how often, and when last)."""

    n: int
    born_ms: int
    last_ms: int
    partners: dict[str, tuple[int, int]] = field(default_factory=dict)


def hash_of(*parts: str) -> str:
    """Return the short name of an entity."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def surprise(together: int, expected: float) -> float:
    """Return G of a count that is above what chance brings, else 0.

    >>> round(surprise(4, 0.01), 1), surprise(1, 2.0)
    (40.0, 0.0)
    """
    if together <= expected:
        return 0.0
    expected = max(expected, 1e-12)
    return 2.0 * (together * math.log(together / expected) - (together - expected))


class Habits:
    """Onsets of entities, bounded; times are those of events.

    Examples
    --------
    >>> habits, hour = Habits(), 3_600_000
    >>> for day in range(4):
    ...     for name in ("db", "web"):
    ...         habits.learn(name, day * 24 * hour, gap_ms=300_000)
    >>> habits.partners("db", gap_ms=300_000)
    ['web']
    """

    def __init__(self) -> None:
        self._habits: dict[str, Habit] = {}
        self._bins: dict[int, dict[str, None]] = {}
        self._bin_ms = 0
        self._newest_ms = -(2**62)
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._habits)

    def learn(self, name: str, began_ms: int, *, gap_ms: int) -> None:
        """Count that an alert of an entity began."""
        self._fit_bins(gap_ms)
        habit = self._habits.get(name)
        if habit is not None and began_ms <= habit.last_ms + gap_ms:
            return  # The same onset: another series of the entity.
        if habit is None:
            habit = self._habits[name] = Habit(n=0, born_ms=began_ms, last_ms=began_ms)
        else:
            self._leave(name, habit.last_ms)
        habit.n, habit.last_ms = habit.n + 1, began_ms
        self._changed[name] = None
        others = self._around(began_ms)
        if len(others) <= MAX_TOGETHER:
            for other in others:
                if abs(self._habits[other].last_ms - began_ms) <= gap_ms:
                    self._count(name, other, began_ms)
                    self._count(other, name, began_ms)
        elif len(others) == MAX_TOGETHER + 1:
            self._uncount(set(others), began_ms - 3 * gap_ms)
        self._enter(name, began_ms)
        if len(self._habits) > MAX_ENTITIES:
            self._forget()

    def partners(self, name: str, *, gap_ms: int) -> list[str]:
        """Return the entities that are linked to one, in a fixed order."""
        habit = self._habits.get(name)
        if habit is None:
            return []
        return sorted(
            other for other, (together, _) in habit.partners.items()
            if self._are_linked(habit, self._habits.get(other), together, gap_ms)
        )  # fmt: skip

    def _are_linked(self, one: Habit, other: Habit | None, together: int, gap_ms: int) -> bool:
        if other is None or together < LEAST_TOGETHER:
            return False
        if together < LEAST_SHARE * min(one.n, other.n):
            return False
        seen_ms = max(self._newest_ms - max(one.born_ms, other.born_ms), gap_ms)
        return surprise(together, 2.0 * one.n * other.n * gap_ms / seen_ms) >= LEAST_G

    def _count(self, name: str, other: str, began_ms: int) -> None:
        partners = self._habits[name].partners
        n, _ = partners.get(other, (0, 0))
        partners[other] = n + 1, began_ms
        self._changed[name] = None
        if len(partners) > MAX_PARTNERS:
            del partners[min(partners, key=lambda one: (*partners[one], one))]

    def _uncount(self, crowd: set[str], since_ms: int) -> None:
        """Take back what the beginning of a flood taught, when it shows that it is one."""
        for name in crowd:
            partners = self._habits[name].partners
            for other in crowd & partners.keys():
                n, last_ms = partners[other]
                if last_ms > since_ms:
                    partners[other] = n - 1, since_ms
                    self._changed[name] = None
                if partners[other][0] == 0:
                    del partners[other]

    # ------------------------------------------------------------------ who began lately

    def _fit_bins(self, gap_ms: int) -> None:
        if self._bin_ms != max(gap_ms, 1):
            self._bin_ms, self._bins = max(gap_ms, 1), {}
            for name, habit in self._habits.items():
                self._enter(name, habit.last_ms)

    def _around(self, began_ms: int) -> list[str]:
        at = began_ms // self._bin_ms
        bins = [self._bins.get(one, {}) for one in (at - 1, at, at + 1)]
        # One more than a crowd may be is enough to know that it is a flood.
        return list(islice(chain.from_iterable(bins), MAX_TOGETHER + 2))

    def _enter(self, name: str, began_ms: int) -> None:
        self._newest_ms = max(self._newest_ms, began_ms)
        newest = self._newest_ms // self._bin_ms
        if began_ms // self._bin_ms >= newest - 2:
            self._bins.setdefault(began_ms // self._bin_ms, {})[name] = None
        for old in [at for at in self._bins if at < newest - 2]:
            del self._bins[old]

    def _leave(self, name: str, last_ms: int) -> None:
        self._bins.get(last_ms // self._bin_ms, {}).pop(name, None)

    def _forget(self) -> None:
        """Drop those unseen for longest."""
        oldest = sorted(self._habits, key=lambda one: (self._habits[one].last_ms, one))[:_FORGET]
        for name in oldest:
            self._leave(name, self._habits.pop(name).last_ms)
            self._changed[name] = None

    # ------------------------------------------------------------------ in a compacted topic

    def drain_changes(self) -> dict[str, dict[str, Any] | None]:
        """Return records changed since the last call, by entity; None: it was forgotten."""
        changed, self._changed = self._changed, {}
        return {name: self._record(name) for name in changed}

    def change_all(self) -> None:
        """Have `drain_changes` return everything."""
        self._changed |= dict.fromkeys(self._habits)

    def _record(self, name: str) -> dict[str, Any] | None:
        habit = self._habits.get(name)
        if habit is None:
            return None
        return {
            "n": habit.n,
            "born_ms": habit.born_ms,
            "last_ms": habit.last_ms,
            "partners": {other: list(seen) for other, seen in habit.partners.items()},
        }

    def load(self, name: str, record: Mapping[str, Any]) -> None:
        """Take one back; raises KeyError, TypeError or ValueError where it is damaged."""
        habit = Habit(
            n=int(record["n"]),
            born_ms=int(record["born_ms"]),
            last_ms=int(record["last_ms"]),
            partners={
                str(other): (int(n), int(last_ms))
                for other, (n, last_ms) in list(record["partners"].items())[:MAX_PARTNERS]
            },
        )
        if habit.n < 1 or habit.born_ms > habit.last_ms:
            msg = f"expected an onset at least and times in order, got {habit.n} onsets"
            raise ValueError(msg)
        if len(self._habits) < MAX_ENTITIES:
            self._habits[name] = habit
            self._newest_ms = max(self._newest_ms, habit.last_ms)
            self._bin_ms = 0
