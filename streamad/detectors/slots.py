"""Memories of arrays by slot: how they grow, empty, leave and come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import Arrays, Ints, Memory
from streamad.windows.arrays import lengthen, longer


class SlotMemory(Memory):
    """Arrays with one row a slot, as attributes; a subclass makes them, 0 slots long.

    They must be read anew after `reserve`, which may move them.
    """

    names: ClassVar[tuple[str, ...]]
    """The arrays: attributes, and their names in a state."""
    empty: ClassVar[Mapping[str, float]] = {}
    """What an empty slot holds, of arrays in which it is not 0."""
    least: ClassVar[int] = 16
    """Slots that room is made for at once, at least."""

    def __len__(self) -> int:
        return len(getattr(self, self.names[0]))

    @property
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self._arrays())

    def put(self, slots: Ints, rows: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """Set rows of some arrays, each of another slot; return what undoes it."""
        before = {name: getattr(self, name)[slots] for name in rows}
        self._set(slots, rows)
        return lambda: self._set(slots, before)

    def _set(self, slots: Ints, rows: Mapping[str, NDArray[Any]]) -> None:
        for name, values in rows.items():
            getattr(self, name)[slots] = values

    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1``."""
        n_held = len(self)
        if n_slots > n_held:
            lengthen(vars(self), self.names, longer(n_held, n_slots, self.least))
            for name, value in self.empty.items():
                getattr(self, name)[n_held:] = value

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        for name in self.names:
            getattr(self, name)[slots] = self.empty.get(name, 0)

    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold."""
        return {name: getattr(self, name)[slots] for name in self.names}

    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned; ArtifactError where it is of another memory."""
        self._check_fits(state)
        if len(slots) == 0:
            return
        self.reserve(int(np.max(slots)) + 1)
        for name in self.names:
            getattr(self, name)[slots] = state[name]

    def _check_fits(self, state: Arrays) -> None:
        """Refuse arrays whose rows have another shape, in words of the detector's settings."""

    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name in self.names]
