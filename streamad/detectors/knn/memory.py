"""What k-NN remembers of a key: a ring of its recent samples."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from streamad.detectors.base import Arrays, Floats, Ints, Memory
from streamad.detectors.knn.kernels import Counts, Held
from streamad.detectors.slots import SlotMemory
from streamad.errors import ArtifactError, WindowError


class KNNMemory(SlotMemory):
    """A ring of samples per key, with a mark on those that must not be learned from.

    Attributes
    ----------
    samples : float32 ``(n_slots, n_variates, capacity)``, sample ``i`` of a key at
        ``i % capacity``, in units of the input
    marks : uint8 ``(n_slots, capacity)``: usable, banned, missing (see the kernels)
    n_windows, n_samples : int64 ``(n_slots,)``, learned so far
    warm_samples : int64 ``(n_slots,)``, length of the warm-up the scale was taken from
    stride : int64 ``(n_slots,)``, samples between a key's windows
    phase : uint8 ``(n_slots,)``, 0 cold, 1 measured on its own past, 2 measured in training
    adopting : uint8 ``(n_slots,)``, what was banned is normal from the next period on
    loc, scale : float32 ``(n_slots, n_variates)``
    usual : float32 ``(n_slots, n_rows, 2)``, median and spread of distances; see `measure_usual`
    """

    names: ClassVar[tuple[str, ...]] = (
        "samples", "marks", "n_windows", "n_samples", "warm_samples", "phase", "stride", "adopting",
        "loc", "scale", "usual",
    )  # fmt: skip

    def __init__(self, n_variates: int, capacity: int, n_rows: int) -> None:
        self.n_variates, self.capacity = n_variates, capacity
        self.samples = np.zeros((0, n_variates, capacity), dtype=np.float32)
        self.marks = np.zeros((0, capacity), dtype=np.uint8)
        self.n_windows = np.zeros(0, dtype=np.int64)
        self.n_samples = np.zeros(0, dtype=np.int64)
        self.warm_samples = np.zeros(0, dtype=np.int64)
        self.phase = np.zeros(0, dtype=np.uint8)
        self.stride = np.zeros(0, dtype=np.int64)
        self.adopting = np.zeros(0, dtype=np.uint8)
        self.loc = np.zeros((0, n_variates), dtype=np.float32)
        self.scale = np.zeros((0, n_variates), dtype=np.float32)
        self.usual = np.zeros((0, n_rows, 2), dtype=np.float32)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with."""
        counts = ("n_windows", "n_samples", "warm_samples", "stride")
        return {"phase": (0, 2), **dict.fromkeys(counts, (0, 2**53))}

    def _check_fits(self, state: Arrays) -> None:
        if state["samples"].shape[1:] != self.samples.shape[1:]:
            got, own = state["samples"].shape[1:], self.samples.shape[1:]
            msg = f"a memory of (n_variates, capacity) {got} does not fit this detector's {own}"
            raise ArtifactError(msg)

    def held(self) -> Held:
        """Return the arrays kernels read samples from."""
        return self.samples, self.marks, self.loc, self.scale, self.usual

    def counts(self) -> Counts:
        """Return the arrays kernels read progress from."""
        return self.n_windows, self.n_samples, self.warm_samples, self.stride, self.phase


def own_memory(memory: Memory) -> KNNMemory:
    """Return the memory as this detector's own; raises TypeError where it is another's."""
    if not isinstance(memory, KNNMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def check_slots(memory: KNNMemory, windows: Floats, slots: Ints) -> None:
    """Refuse what would make a kernel read or write outside its arrays."""
    if windows.shape[2] != memory.n_variates or len(slots) != len(windows):
        msg = (
            f"expected {len(windows)} slots and windows of {memory.n_variates} variates, "
            f"got {len(slots)} slots and {windows.shape[2]} variates"
        )
        raise WindowError(msg)
    if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < len(memory):
        msg = f"slots must lie in 0 .. {len(memory) - 1}; reserve() more first"
        raise WindowError(msg)
