"""The memory of a population: one state for all keys of a partition, of constant size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import Arrays, Floats
from streamad.detectors.contract import SharedMemory as Contract
from streamad.errors import ArtifactError
from streamad.records import Explanation


class Scored(Protocol):
    """What edges scored, and more of which an explanation is made."""

    @property
    def scores(self) -> Floats:
        """Return float32 ``(n,)``."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """Edges as they were judged, each before it was taken in: `contract.Observed`."""

    scored: Scored
    why: Callable[[NDArray[np.int64]], list[Explanation]]

    @property
    def looks(self) -> Floats:
        """Return the one look at each edge ``(n, 1)``."""
        return self.scored.scores[:, None]

    def explain(self, places: NDArray[np.int64]) -> list[Explanation]:
        """Return why these edges are strange."""
        return self.why(places)


class SharedMemory(Contract):
    """What a detector of scope ``partition`` remembers: named arrays of fixed shapes, no slots.

    Owned by the shard, like a `Memory`; a key that is forgotten leaves its trace in it. ``load``
    refuses what does not fit or could lead a kernel astray, and then changes nothing.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return one of the arrays, as kernels write it."""
        return self._arrays[name]

    @property
    def n_bytes(self) -> int:
        """Return what the memory costs, whatever it has seen."""
        return sum(array.nbytes for array in self._arrays.values())

    def state(self) -> Arrays:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def load(self, state: Arrays) -> None:
        """Take back what ``state`` returned; raises ArtifactError where it is damaged or unfit."""
        require_fit(state, self._arrays)
        self.check(state)
        for name, array in self._arrays.items():
            array[...] = state[name]

    @abstractmethod
    def check(self, state: Arrays) -> None:
        """Refuse values no run can have left; shapes and types are known to fit."""


def require_fit(state: Arrays, own: Arrays) -> None:
    """Refuse a state whose names, types or shapes differ from one's own; raises ArtifactError."""
    if state.keys() != own.keys():
        msg = f"the state holds {sorted(state)}, this detector needs {sorted(own)}"
        raise ArtifactError(msg)
    for name, array in own.items():
        got = state[name]
        if got.dtype != array.dtype or got.shape != array.shape:
            msg = (
                f"{name} of the state is {got.dtype} {got.shape}, this detector needs "
                f"{array.dtype} {array.shape}; was it made with other settings?"
            )
            raise ArtifactError(msg)


def require_range(state: Arrays, name: str, low: float, high: float) -> None:
    """Refuse an array with values outside ``low .. high``, NaN among them."""
    values = state[name]
    if values.size and not bool(np.all((values >= low) & (values <= high))):
        msg = f"{name} of the state holds values outside {low:g} .. {high:g}: it is damaged"
        raise ArtifactError(msg)
