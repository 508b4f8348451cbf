"""Nearest neighbours in the key's own past: the default detector.

A window is strange where nothing like it was seen before. What was seen is kept as *histories*,
arrays of scaled samples, and every window in a history is a view of it: a sample costs its own four
bytes instead of a whole window. There are two: a *reference* that ``fit`` makes from training
windows and all keys share, and a *memory* a key, of its own recent samples.

Scale comes from training samples (median and standard deviation of the key's group), never from the
window itself: what normalises each window is blind to level and amplitude.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import (
    Arrays,
    Detector,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
    smoothing,
)
from streamad.detectors.knn_explain import explain_windows
from streamad.detectors.knn_kernels import (
    SEEDED,
    WARM,
    Counts,
    Held,
    learn_windows,
    measure_usual,
    run_lengths,
    score_windows,
    strides_of,
)
from streamad.detectors.knn_search import PAD, History
from streamad.detectors.scales import in_scales, loc_and_scale
from streamad.errors import ArtifactError, NotFittedError, WindowError

DELAY_SIZES = 4
"""Windows' lengths after which a judged sample counts as past."""
NEWEST = (4, 8, 16)
"""Samples the look at the newest ones compares."""
TAIL = (2.86, 5.23, 30.0, 700.0)
"""Scores are spreads from the usual: a block's maximum has its median near 2."""


class KNNMemory(Memory):
    """A ring of samples per key, with a mark on those that must not be learned from.

    Attributes
    ----------
    samples : float32 ``(n_slots, n_variates, capacity)``, sample ``i`` of a key at
        ``i % capacity``, in units of the input
    marks : uint8 ``(n_slots, capacity)``: usable, banned, missing (`knn_kernels`)
    n_windows, n_samples : int64 ``(n_slots,)``, learned so far
    warm_samples : int64 ``(n_slots,)``, length of the warm-up the scale was taken from
    stride : int64 ``(n_slots,)``, samples between a key's windows
    phase : uint8 ``(n_slots,)``, 0 cold, 1 measured on its own past, 2 measured in training
    adopting : uint8 ``(n_slots,)``, what was banned is normal from the next period on
    loc, scale : float32 ``(n_slots, n_variates)``
    usual : float32 ``(n_slots, n_rows, 2)``, median and spread of distances; see `measure_usual`
    """

    names = (
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

    def __len__(self) -> int:
        return len(self.phase)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with."""
        counts = ("n_windows", "n_samples", "warm_samples", "stride")
        return {"phase": (0, 2), **dict.fromkeys(counts, (0, 2**53))}

    @property
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self._arrays())

    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1``, doubling so that growth stays cheap."""
        if n_slots <= len(self):
            return
        room = max(n_slots, 2 * len(self), 16)
        for name, array in zip(self.names, self._arrays(), strict=True):
            grown = np.zeros((room, *array.shape[1:]), dtype=array.dtype)
            grown[: len(array)] = array
            setattr(self, name, grown)

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        for array in self._arrays():
            array[slots] = 0

    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold."""
        return {name: getattr(self, name)[slots] for name in self.names}

    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned."""
        if state["samples"].shape[1:] != self.samples.shape[1:]:
            got, own = state["samples"].shape[1:], self.samples.shape[1:]
            msg = f"a memory of (n_variates, capacity) {got} does not fit this detector's {own}"
            raise ArtifactError(msg)
        if len(slots) == 0:
            return
        self.reserve(int(np.max(slots)) + 1)
        for name in self.names:
            getattr(self, name)[slots] = state[name]

    def held(self) -> Held:
        """Return the arrays kernels read samples from."""
        return self.samples, self.marks, self.loc, self.scale, self.usual

    def counts(self) -> Counts:
        """Return the arrays kernels read progress from."""
        return self.n_windows, self.n_samples, self.warm_samples, self.stride, self.phase

    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name in self.names]


class KNN(Detector):
    """Decide by the distance to the ``k`` nearest windows of the past, in two looks.

    ``d = mean of the k smallest root mean square differences`` of scaled samples, over all windows
    of the shared reference and of the key's own memory. Exact: a block of places is given up early
    only where it cannot hold a neighbour. Each distance is in spreads from what is usual: the
    median of the past's distances to itself, and their 90 % quantile above it. So one unit means
    the same at every length, in every series, whatever its unit and noise.

    The *centred* look compares the whole window, and a quarter around the judged sample, which
    trails by ``lag``: seen from both sides a sample ranks better than at the end (VUS-PR .51
    against .44 on the project's benchmark). The look at the *newest* samples sums the distances of
    the last 4, 8 and 16: spikes and shifts show in it at once. Its past reaches to within 32
    samples, so that a slow rhythm which has not been seen whole is followed.

    A key known to the artifact starts with what was measured in training (`seed_memory`). An
    unknown one is measured after its warm-up, after 256, 512 and 1,024 windows, and when a new
    level is adopted; while cold it scores 0. What a key's window number ``i`` may see is bounded by
    counts alone: samples learned up to the last multiple of ``learn_every`` windows, for the
    centred look older than four windows' length, so that neither batches nor an anomaly that has
    just begun matter.

    Cost per window: at most ``(reference + history) * 1.25 * size * n_variates`` differences, by
    early giving up mostly a fifth of it. To avoid: many variates of which few matter (distances
    drown).

    Parameters
    ----------
    size : samples per window, best the period of the series
    k : neighbours averaged
    history : samples of its own a key remembers, at stride 1 (less at long strides); 5 bytes each
    reference : training samples kept over all groups, shared by all keys
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    finite: ClassVar[tuple[str, ...]] = ("samples", "scale")
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn",
        summary="distance to the nearest windows of the key's past and of the training series",
        min_size=4,
        learns=True,
        warm_up=32,
        learn_every=16,
        delay=256,
        nan_ok=0.2,
        cost="moderate",
        n_looks=2,
        dull=1.0,
        tail=TAIL,
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        k: int = 3,
        history: int = 2048,
        reference: int = 4096,
        lag: int | None = None,
    ) -> None:
        super().__init__(size=size)
        self._lag = self.size // 2 if lag is None else lag
        if not 0 <= self._lag < self.size:
            msg = f"lag must lie in 0 .. {self.size - 1} (inside the window), got {lag}"
            raise WindowError(msg)
        if min(k, history, reference) < 1:
            msg = f"k, history and reference must be 1 or more, got {k}, {history}, {reference}"
            raise WindowError(msg)
        self.k, self.history, self.reference = k, history, reference
        self._samples = np.zeros((0, PAD), dtype=np.float32)
        self._runs = np.zeros(PAD, dtype=np.int32)
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)
        self._usual = np.zeros((0, len(self._lengths()) + 1, 2), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    def _lengths(self) -> list[int]:
        """Return the lengths the centred look compares; the last is the whole window."""
        return [self.size]

    def _stretches(self) -> Ints:
        """Return ``(n_lengths, 2)``: where each stretch begins in the window, and its length.

        The centred ones come first. They stand ahead of the judged sample by what the operator's
        smoothing trails.
        """
        judged = self.size - 1 - max(self._lag - smoothing(self.size), 0)
        lengths = self._lengths()
        around = [(min(max(judged - n // 2, 0), self.size - n), n) for n in lengths]
        newest = [(self.size - n, n) for n in NEWEST if n <= self.size]
        return np.array(around + newest, dtype=np.int32)

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and the reference from training windows.

        Parameters
        ----------
        windows : float32 ``(n_windows, size, n_variates)``, in time order inside a group
        groups : int32 ``(n_windows,)``, numbered from 0 (None: all of one series)
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(windows) == 0:
            msg = f"{self.info.name} learns from at least one window, got none"
            raise WindowError(msg)
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        n_groups, n_variates = int(of_group.max()) + 1, windows.shape[2]
        self._loc = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        self._scale = np.ones((n_groups, n_variates), dtype=np.float32)
        kept = self._kept_groups(of_group)
        self._usual = np.zeros((n_groups, len(self._lengths()) + 1, 2), dtype=np.float32)
        room = max(self.reference // len(kept), self.size)
        pieces = []
        for group in np.unique(of_group):
            series, usable = _stitched(windows[of_group == group])
            self._loc[group], self._scale[group] = loc_and_scale(series)
            scaled = in_scales(series, self._loc[group], self._scale[group])
            self._measure(scaled[-self.history :], usable[-self.history :], self._usual[group])
            if group in kept:
                pieces.append((scaled[-room:], usable[-room:]))
        self._set_reference(*_joined(pieces))
        return self

    def _kept_groups(self, of_group: Ints) -> NDArray[np.int32]:
        """Return the groups the reference is made of: evenly chosen where not all have room."""
        groups = np.unique(of_group).astype(np.int32)
        n_kept = max(min(len(groups), self.reference // (4 * self.size)), 1)
        return groups[np.linspace(0, len(groups) - 1, n_kept).astype(np.int32)]

    def _measure(self, scaled: Floats, usable: NDArray[np.bool_], usual: Floats) -> None:
        """Write the usual distances of a series to itself into ``usual``."""
        room = PAD + self.size
        padded = np.concatenate([usable, np.zeros(room, dtype=np.bool_)])
        samples = np.zeros((scaled.shape[1], len(padded)), dtype=np.float32)
        samples[:, : len(scaled)] = np.where(usable[:, None], scaled, 0).T
        history = (samples, run_lengths(padded), len(scaled))
        measure_usual(history, self.size, self.k, self._stretches(), usual)

    def _set_reference(self, scaled: Floats, usable: NDArray[np.bool_]) -> None:
        padded = np.concatenate([usable, np.zeros(PAD + self.size, dtype=np.bool_)])
        self._samples = np.zeros((scaled.shape[1], len(padded)), dtype=np.float32)
        self._samples[:, : len(scaled)] = np.where(usable[:, None], scaled, 0).T
        self._runs = run_lengths(padded)

    def new_memory(self, n_variates: int) -> KNNMemory:
        """Return an empty memory with room for what any cut of batches may need."""
        slack = (DELAY_SIZES + 1) * self.size + self.info.learn_every
        return KNNMemory(n_variates, self.history + slack, len(self._lengths()) + 1)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: as measured, without warm-up.

        Called once, before the key's first window. A group without any training window leaves its
        key cold.
        """
        own = _own(memory)
        own.reserve(slot + 1)
        if group < len(self._loc) and np.isfinite(self._loc[group]).all():
            own.loc[slot], own.scale[slot] = self._loc[group], self._scale[group]
            own.usual[slot] = self._usual[group]
            own.phase[slot] = SEEDED

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the centred look, float32 ``(n_windows,)``, 0 while cold."""
        return np.ascontiguousarray(self.looks(windows, memory=memory, slots=slots)[:, 0])

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return both looks, float32 ``(n_windows, 2)``, 0 while cold."""
        windows, turns, reference, held = self._query(windows, memory, slots)
        plan = (self.k, len(self._lengths()), self.info.learn_every, DELAY_SIZES * self.size)
        return score_windows(windows, turns, reference, held, plan, self._stretches())

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the sample that departs most from what was due, and where the event lies.

        What was due is the middle of the three stretches of the past that match most of the window
        best (`streamad.detectors.knn_explain`).
        """
        windows, turns, reference, held = self._query(windows, memory, slots)
        plan = (self.k, len(self._lengths()), self.info.learn_every, DELAY_SIZES * self.size)
        expected, share, event = explain_windows(windows, turns, reference, held, plan)
        position = np.ascontiguousarray(event[:, 0])
        return WindowExplanations(
            observed=windows[np.arange(len(windows)), position],
            expected=expected,
            share=share,
            position=position,
            first=np.ascontiguousarray(event[:, 1]),
            last=np.ascontiguousarray(event[:, 2]),
        )

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Append each window's newest samples to its key; ban all of a window not admitted."""
        require_windows(windows, size=self.size, nan_ok=1.0)  # incomplete ones pass by, unusable
        own = _own(memory)
        if len(slots):
            own.reserve(int(slots.max()) + 1)
        _check_slots(own, windows, slots)
        learn_windows(
            _as_compiled(windows),
            _as_compiled(slots),
            _as_compiled(admit),
            (stride, self.info.warm_up, self.info.learn_every, self.k),
            self._stretches(),
            own.held(),
            own.counts(),
            own.adopting,
        )

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Learn what was banned, and measure these keys again, from the next period on."""
        own = _own(memory)
        own.adopting[slots] = 1

    def state(self) -> Arrays:
        """Return reference and scales; empty before ``fit``."""
        if len(self._loc) == 0:
            return {}
        n_used = len(self._runs) - PAD - self.size
        return {
            "samples": np.ascontiguousarray(self._samples[:, :n_used]),
            "usable": (self._runs[:n_used] > 0).astype(np.uint8),
            "loc": self._loc,
            "scale": self._scale,
            "usual": self._usual,
            "size": np.array([self.size], dtype=np.int32),
        }

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        size = int(state["size"][0])
        if size != self.size:
            msg = (
                f"the artifact was fitted with windows.size = {size}, the pipeline has {self.size}"
            )
            raise ArtifactError(msg)
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        self._usual = state["usual"].copy()
        self._set_reference(state["samples"].T, state["usable"].astype(np.bool_))
        return self

    def _query(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Floats, tuple[Ints, Any], History, tuple[Held, Counts]]:
        """Return what kernels are asked with: windows, whose they are, and both histories."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        fitted = len(self._loc) > 0
        n_variates = windows.shape[2]
        if fitted and self._loc.shape[1] != n_variates:
            msg = f"windows must have the {self._loc.shape[1]} variates of fit, got {n_variates}"
            raise WindowError(msg)
        samples = self._samples if fitted else np.zeros((n_variates, PAD), dtype=np.float32)
        if memory is None or slots is None:
            if not fitted:
                msg = f"{self.info.name} has no past to compare with; call fit, or give it a memory"
                raise NotFittedError(msg)
            own, slots = self._stand_in(windows)
        else:
            own = _own(memory)
            _check_slots(own, windows, slots)
        reference = (samples, self._runs, max(len(self._runs) - PAD - self.size, 0))
        turns = (_as_compiled(slots), np.argsort(slots, kind="stable"))
        return _as_compiled(windows), turns, reference, (own.held(), own.counts())

    def _stand_in(self, windows: Floats) -> tuple[KNNMemory, Ints]:
        """Return a memory without samples for windows of keys unknown to any.

        One fitted group lends its scale; of several none can be told to be the right one, so that
        each window lends its own, and all groups what is usual.
        """
        n_windows, _, n_variates = windows.shape
        memory = KNNMemory(n_variates, 1, self._usual.shape[1])
        if len(self._loc) == 1:
            memory.reserve(1)
            self.seed_memory(memory, slot=0, group=0)
            return memory, np.zeros(n_windows, dtype=np.int32)
        memory.reserve(n_windows)
        memory.usual[:] = np.median(self._usual, axis=0)
        for i, window in enumerate(windows):
            memory.loc[i], memory.scale[i] = loc_and_scale(window)
        memory.phase[:] = WARM
        return memory, np.arange(n_windows, dtype=np.int32)


class FusedKNN(KNN):
    """As `KNN`, with a centred look at two lengths: a quarter of the window, and all of it.

    The short one ranks narrow anomalies, the long one strange shapes; the larger of the two counts,
    each in spreads from its own usual, and the look at the newest samples once more as the centred
    look reaches them. So no length has to be chosen for a series. It is the default detector.
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn_fused",
        summary="nearest neighbours at several window lengths at once; the default",
        min_size=16,
        learns=True,
        warm_up=32,
        learn_every=16,
        delay=256,
        nan_ok=0.2,
        cost="moderate",
        n_looks=2,
        dull=1.0,
        tail=TAIL,
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )

    def _lengths(self) -> list[int]:
        return [self.size // 4, self.size]


def _own(memory: Memory) -> KNNMemory:
    if not isinstance(memory, KNNMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def _as_compiled(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as kernels were compiled for, copied only where read-only or strided.

    Kernels would be compiled anew, for seconds, for every other kind.
    """
    return np.require(array, requirements=["C", "W"])


def _check_slots(memory: KNNMemory, windows: Floats, slots: Ints) -> None:
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


def _stitched(windows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Turn the windows of a group back into a series ``(n, n_variates)`` and a mask of use.

    Windows that do not overlap are parted by one unusable sample.
    """
    size = windows.shape[1]
    strides = strides_of(windows)
    is_new = np.arange(size) >= size - strides[:, None]
    series = windows[is_new]
    begins = np.cumsum(strides) - strides
    gaps = begins[1:][strides[1:] == size]
    series = np.insert(series, gaps, np.float32(np.nan), axis=0)
    return series, ~np.isnan(series).any(axis=1)


def _joined(pieces: list[tuple[Floats, NDArray[np.bool_]]]) -> tuple[Floats, NDArray[np.bool_]]:
    """Join series ``(n, n_variates)`` and their masks, one unusable sample between two."""
    gap = (np.zeros((1, pieces[0][0].shape[1]), dtype=np.float32), np.zeros(1, dtype=np.bool_))
    parts = [part for piece in pieces for part in (piece, gap)][:-1]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
