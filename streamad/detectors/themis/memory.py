"""What THEMIS remembers of a key, and which of it a window may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Arrays, Floats, Ints, Memory
from streamad.detectors.slots import SlotMemory
from streamad.errors import ArtifactError

SPACING: Final = 16
"""A past window is kept every sixteenth of its length: nearer ones say the same."""
DELAY_SIZES: Final = 4
"""Windows' lengths after which a judged window counts as past."""
COLD, WARM = 0, 1


class ThemisMemory(SlotMemory):
    """Embeddings of a key's past windows, and before them the samples its scale is taken from.

    Attributes
    ----------
    features : float16 ``(n_slots, n_variates, n_features, capacity)``
    judged : float32 ``(n_slots, n_variates, capacity)``, each kept window's judged sample, scaled
    number : int64 ``(n_slots, capacity)``, which of the key's windows is kept, from 1 (0: empty)
    n_windows, warm_number : int64 ``(n_slots,)``, learned so far, and when the warm-up ended
    phase : uint8 ``(n_slots,)``, 0 cold, 1 scale known
    loc, scale : float32 ``(n_slots, n_variates)``
    stride : int64 ``(n_slots,)``, samples between a key's windows
    early, n_early : float32 ``(n_slots, n_early_max, n_variates)``, samples of the warm-up
    """

    names: ClassVar[tuple[str, ...]] = (
        "features", "judged", "number", "n_windows", "warm_number", "phase", "loc", "scale",
        "stride", "early", "n_early",
    )  # fmt: skip
    least: ClassVar[int] = 1

    def __init__(self, *, n_variates: int, n_features: int, capacity: int, n_early: int) -> None:
        self.n_variates, self.capacity = n_variates, capacity
        # Half as wide as float32; a subclass may keep them whole.
        self.features: NDArray[Any] = np.zeros(
            (0, n_variates, n_features, capacity), dtype=np.float16
        )
        self.judged = np.zeros((0, n_variates, capacity), dtype=np.float32)
        self.number = np.zeros((0, capacity), dtype=np.int64)
        self.n_windows = np.zeros(0, dtype=np.int64)
        self.warm_number = np.zeros(0, dtype=np.int64)
        self.phase = np.zeros(0, dtype=np.uint8)
        self.loc = np.zeros((0, n_variates), dtype=np.float32)
        self.scale = np.zeros((0, n_variates), dtype=np.float32)
        self.stride = np.zeros(0, dtype=np.int64)
        self.early = np.zeros((0, n_early, n_variates), dtype=np.float32)
        self.n_early = np.zeros(0, dtype=np.int64)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that are indexed with."""
        counts = ("number", "n_windows", "warm_number", "stride")
        early = {"n_early": (0, self.early.shape[1]), "phase": (0, 1)}
        return {**early, **dict.fromkeys(counts, (0, 2**53))}

    def _check_fits(self, state: Arrays) -> None:
        for name, array in zip(self.names, self._arrays(), strict=True):
            if state[name].shape[1:] != array.shape[1:]:
                msg = (
                    f"a memory whose {name} has the shape {state[name].shape[1:]} a key does not "
                    f"fit this detector's {array.shape[1:]}; size, history, model or the variates "
                    "have changed, so begin afresh"
                )
                raise ArtifactError(msg)

    def collect(self, slot: int, samples: Floats) -> Floats:
        """Append samples of one more window to a key's warm-up; return all that are held."""
        n_held = int(self.n_early[slot])
        room = self.early.shape[1]
        joined: Floats = np.concatenate([self.early[slot, :n_held], samples])[-room:]
        self.early[slot, : len(joined)] = joined
        self.n_early[slot] = len(joined)
        self.warm_number[slot] += 1
        return joined


class EmbeddingMemory(ThemisMemory):
    """As `ThemisMemory`, with how much neighbouring samples differ.

    step : float32 ``(n_slots, n_variates)``, root of the mean squared difference
    """

    names: ClassVar[tuple[str, ...]] = (*ThemisMemory.names, "step")

    def __init__(self, *, n_variates: int, n_features: int, capacity: int, n_early: int) -> None:
        super().__init__(
            n_variates=n_variates, n_features=n_features, capacity=capacity, n_early=n_early
        )
        self.step = np.zeros((0, n_variates), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Which of a key's windows are remembered, and which of those one may see: by counts alone.

    size : samples a window; history : windows remembered; learn_every : windows a period; spacing :
    windows remembered per window's length
    """

    size: int
    history: int
    learn_every: int
    spacing: int = SPACING

    @property
    def capacity(self) -> int:
        """Return the places of a memory: what waits out its delay is held beside the history."""
        return self.history + 2 * DELAY_SIZES * self.spacing + self.learn_every

    def every(self, stride: int) -> int:
        """Return of how many of a key's windows one is remembered."""
        return max(1, self.size // (self.spacing * stride))

    def past(self, samples: Floats, last: int, stride: int) -> tuple[Floats, NDArray[np.int64]]:
        """Cut the windows to be remembered out of a warm-up's samples; return their numbers too.

        last : number of the window the samples end with
        """
        # In the usual rhythm: what takes a place in the ring must never depend on how it came in.
        every = self.every(stride)
        newest = last - (last - 1) % every
        number = np.arange(newest, 0, -every, dtype=np.int64)
        starts = len(samples) - self.size - (last - number) * stride
        number, starts = number[starts >= 0][::-1], starts[starts >= 0][::-1]
        past = samples[starts[:, None] + np.arange(self.size)]
        whole = ~np.isnan(past).any(axis=(1, 2))
        return past[whole], number[whole]

    def limits(self, own: ThemisMemory, of: Ints) -> NDArray[np.int64]:
        """Return the number of the newest window each of these may see."""
        begun = own.n_windows[of] + ranks(of)
        stride = np.maximum(own.stride[of], 1)
        delay = -(-DELAY_SIZES * self.size // stride)
        past = begun // self.learn_every * self.learn_every - delay
        return np.asarray(np.maximum(past, own.warm_number[of]))

    def seen(self, own: ThemisMemory, slot: int, last: int) -> NDArray[np.bool_]:
        """Mark the remembered windows up to number ``last``, as many as the history holds."""
        number = own.number[slot]
        span = self.history * self.every(max(int(own.stride[slot]), 1))
        return np.asarray((number > max(last - span, 0)) & (number <= last))

    def spans(self, own: ThemisMemory, of: Ints) -> NDArray[np.int64]:
        """Return ``(n, 2)``: windows numbered above the first, up to the second, are seen."""
        last = self.limits(own, of)
        every = np.maximum(1, self.size // (self.spacing * np.maximum(own.stride[of], 1)))
        return np.stack([np.maximum(last - self.history * every, 0), last], axis=1)


def own_memory(memory: Memory) -> ThemisMemory:
    """Return the memory as this detector's own; raises TypeError where it is another's."""
    if not isinstance(memory, ThemisMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def ranks(slots: Ints) -> NDArray[np.int64]:
    """Return for each window how many of its slot stand before it in the batch."""
    order = np.argsort(slots, kind="stable")
    sorted_slots = slots[order]
    first = np.searchsorted(sorted_slots, sorted_slots, side="left")
    ranks = np.empty(len(slots), dtype=np.int64)
    ranks[order] = np.arange(len(slots)) - first
    return ranks
