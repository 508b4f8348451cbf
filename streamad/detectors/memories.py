"""Memories side by side, for detectors that are made of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamad.detectors.base import Arrays, Ints, Memory
from streamad.errors import ArtifactError


class SideBySide(Memory):
    """Memories of several members, one beside the other; a key has one slot in all of them."""

    def __init__(self, members: Mapping[str, Memory]) -> None:
        self.members = dict(members)

    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1`` in each."""
        for memory in self.members.values():
            memory.reserve(n_slots)

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        for memory in self.members.values():
            memory.forget(slots)

    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold, each array under its member's name."""
        return prefixed({name: memory.state(slots) for name, memory in self.members.items()})

    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned."""
        for name, memory in self.members.items():
            memory.load(slots, part_of(state, name, "memory", "this detector"))

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with."""
        return {
            f"{name}.{array}": span
            for name, memory in self.members.items()
            for array, span in memory.ranges.items()
        }

    @property
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""
        return sum(memory.bytes_per_slot for memory in self.members.values())


def prefixed(parts: Mapping[str, Arrays]) -> Arrays:
    """Return the arrays of all parts, each under its part's name."""
    return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.items()}


def undone_in_turn(undos: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return what undoes all of these, the last one first."""

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


def part_of(state: Arrays, name: str, what: str, of: str) -> Arrays:
    """Return the arrays of one part of what `prefixed` made.

    what, of : what the state is, and of which detector, for the error

    Raises
    ------
    ArtifactError
        where it holds no such part
    """
    own = {key[len(name) + 1 :]: a for key, a in state.items() if key.startswith(f"{name}.")}
    if not own:
        held = sorted({key.partition(".")[0] for key in state})
        msg = f"the {what} holds members {held} of {of}, and none called {name}; fit it again"
        raise ArtifactError(msg)
    return own
