"""The detectors: what they learn of windows, and how they judge them."""

from __future__ import annotations

from collections.abc import Callable
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
from streamad.detectors.knn.explain import explain_windows
from streamad.detectors.knn.kernels import (
    SEEDED,
    WARM,
    Counts,
    Held,
    learn_windows,
    measure_usual,
    run_lengths,
    score_windows,
)
from streamad.detectors.knn.memory import KNNMemory, check_slots, own_memory
from streamad.detectors.knn.search import History
from streamad.detectors.knn.series import joined, stitched
from streamad.detectors.scales import in_scales, loc_and_scale
from streamad.errors import ArtifactError, NotFittedError, WindowError

DELAY_SIZES = 4
"""Windows' lengths after which a judged sample counts as past."""
NEWEST = (4, 8, 16)
"""Samples the look at the newest ones compares."""
TAIL = (2.86, 5.23, 30.0, 700.0)
"""Scores are spreads from the usual: a block's maximum has its median near 2."""


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

    Cost per window: at most ``(reference + history) * 1.25 * size * n_variates`` differences. A
    short stretch inside a long one is summed once for both, places are given up once they cannot be
    neighbours, soon where those of the key's window before are still near: mostly a fifth is left,
    in white noise most of it. To avoid: many variates of which few matter (distances
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
    keeps_memory = True  # samples in units of the input, and what was measured on them
    in_spreads: ClassVar[bool] = True
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
        self._samples = np.zeros((0, 0), dtype=np.float32)
        self._runs = np.zeros(0, dtype=np.int32)
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
            series, usable = stitched(windows[of_group == group])
            self._loc[group], self._scale[group] = loc_and_scale(series)
            scaled = in_scales(series, self._loc[group], self._scale[group])
            self._measure(scaled[-self.history :], usable[-self.history :], self._usual[group])
            if group in kept:
                pieces.append((scaled[-room:], usable[-room:]))
        self._set_reference(*joined(pieces))
        return self

    def _kept_groups(self, of_group: Ints) -> NDArray[np.int32]:
        """Return the groups the reference is made of: evenly chosen where not all have room."""
        groups = np.unique(of_group).astype(np.int32)
        n_kept = max(min(len(groups), self.reference // (4 * self.size)), 1)
        return groups[np.linspace(0, len(groups) - 1, n_kept).astype(np.int32)]

    def _measure(self, scaled: Floats, usable: NDArray[np.bool_], usual: Floats) -> None:
        """Write the usual distances of a series to itself into ``usual``."""
        samples = np.ascontiguousarray(np.where(usable[:, None], scaled, 0).T)
        history = (samples, run_lengths(usable), len(scaled))
        measure_usual(history, self.size, self.k, self._stretches(), usual)

    def _set_reference(self, scaled: Floats, usable: NDArray[np.bool_]) -> None:
        self._samples = np.ascontiguousarray(np.where(usable[:, None], scaled, 0).T)
        self._runs = run_lengths(usable)

    def new_memory(self, n_variates: int) -> KNNMemory:
        """Return an empty memory with room for what any cut of batches may need."""
        slack = (DELAY_SIZES + 1) * self.size + self.info.learn_every
        return KNNMemory(n_variates, self.history + slack, len(self._lengths()) + 1)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: as measured, without warm-up.

        Called once, before the key's first window. A group without any training window leaves its
        key cold.
        """
        own = own_memory(memory)
        own.reserve(slot + 1)
        if group < len(self._loc) and np.isfinite(self._loc[group]).all():
            own.loc[slot], own.scale[slot] = self._loc[group], self._scale[group]
            own.usual[slot] = self._usual[group]
            own.phase[slot] = SEEDED

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Give keys that were measured in training what was measured in ours.

        The past of a key stays: it lies in units of the input. Keys that were measured on their
        own past stay as they are, and so do those that are not in our training.
        """
        own = own_memory(memory)
        known = (groups >= 0) & (groups < len(self._loc)) & (own.phase[slots] == SEEDED)
        known[known] = np.isfinite(self._loc[groups[known]]).all(axis=1)
        theirs, ours = slots[known], groups[known]
        rows = {"loc": self._loc[ours], "scale": self._scale[ours], "usual": self._usual[ours]}
        return own.put(theirs, rows)

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
        best (`streamad.detectors.knn.explain`).
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
        own = own_memory(memory)
        if len(slots):
            own.reserve(int(slots.max()) + 1)
        check_slots(own, windows, slots)
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
        own = own_memory(memory)
        own.adopting[slots] = 1

    def state(self) -> Arrays:
        """Return reference and scales; empty before ``fit``."""
        if len(self._loc) == 0:
            return {}
        return {
            "samples": self._samples,
            "usable": (self._runs > 0).astype(np.uint8),
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
        samples = self._samples if fitted else np.zeros((n_variates, 0), dtype=np.float32)
        if memory is None or slots is None:
            if not fitted:
                msg = f"{self.info.name} has no past to compare with; call fit, or give it a memory"
                raise NotFittedError(msg)
            own, slots = self._stand_in(windows)
        else:
            own = own_memory(memory)
            check_slots(own, windows, slots)
        reference = (samples, self._runs, len(self._runs))
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
    look reaches them. So no length has to be chosen for a series.
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn_fused",
        summary="nearest neighbours at several window lengths at once",
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


def _as_compiled(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as kernels were compiled for, copied only where read-only or strided.

    Kernels would be compiled anew, for seconds, for every other kind.
    """
    return np.require(array, requirements=["C", "W"])
