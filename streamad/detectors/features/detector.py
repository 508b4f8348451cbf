"""The detector: Themis' way of remembering windows, with statistics in place of embeddings."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
)
from streamad.detectors.features.kernels import distances, usual_distances
from streamad.detectors.features.statistics import PatchStatistics
from streamad.detectors.knn.kernels import MEASURE_AT
from streamad.detectors.scales import from_scales
from streamad.detectors.themis.features import scaled
from streamad.detectors.themis.memory import WARM, ThemisMemory, own_memory
from streamad.detectors.themis.remembering import Remembering, Scales

SPACING = 8
"""A past window is kept every eighth of its length: statistics change slowly."""


class FeatureMemory(ThemisMemory):
    """As `ThemisMemory`, with float32 vectors, and what distances are usual per variate.

    usual : float32 ``(n_slots, n_variates, 2)``, median and spread
    """

    names: ClassVar[tuple[str, ...]] = (*ThemisMemory.names, "usual")

    def __init__(self, *, n_variates: int, n_features: int, capacity: int, n_early: int) -> None:
        super().__init__(
            n_variates=n_variates, n_features=n_features, capacity=capacity, n_early=n_early
        )
        self.features: NDArray[Any] = np.zeros((0, n_variates, n_features, capacity), np.float32)
        self.usual = np.zeros((0, n_variates, 2), dtype=np.float32)


class FeatureKNN(Remembering):
    """Judge a window by how far its statistics are from those of windows of the past.

    Of the whole window and of the half around the judged sample: level, spread, slope, roughness,
    quantiles, autocorrelation and spectrum (`PatchStatistics`). The mean distance to the ``k``
    nearest vectors, among a reference of training windows and the key's own memory, is summed over
    both and given in spreads from what is usual, as `KNN` does. Each variate is judged alone; the
    score is the largest.

    Two windows of the same kind of noise have no sample in common, but equal statistics: it sees
    a change of kind where raw windows are all equally far apart. It is blind to short spikes in
    long windows, which move few statistics, and is best fused with raw windows (`Auto`).

    What a key's window may see is bounded by counts alone, as in `Themis`; the usual distances are
    measured when the warm-up ends and after 256, 512 and 1,024 windows.

    Parameters
    ----------
    size : samples per window, best the period of the series
    k : neighbours averaged
    history : past windows a key remembers, one every eighth of a window's length
    reference : training windows kept over all groups, shared by all keys
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    finite: ClassVar[tuple[str, ...]] = ("bank", "judged")
    keeps_memory = True
    spacing = SPACING
    in_spreads: ClassVar[bool] = True
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn_features",
        summary="nearest neighbours among statistics of windows: level, spread, slope, rhythm",
        min_size=16,
        learns=True,
        warm_up=64,
        learn_every=16,
        delay=256,
        nan_ok=0.2,
        cost="moderate",
        tail=(2.2, 4.5, 9.0, 20.0),
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        k: int = 3,
        history: int = 192,
        reference: int = 512,
        lag: int | None = None,
    ) -> None:
        super().__init__(size=size, k=k, history=history, reference=reference, lag=lag)
        self._usual = np.zeros((0, 0, 2), dtype=np.float32)

    def _new_features(self) -> PatchStatistics:
        return PatchStatistics(size=self.size, at=self._at)

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales and usual distances, a group each, and the reference."""
        super().fit(windows, groups=groups)
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        self._usual = np.zeros((*self._loc.shape, 2), dtype=np.float32)
        for group in np.unique(of_group):
            rows = np.flatnonzero(of_group == group)
            rows = rows[~np.isnan(windows[rows]).any(axis=(1, 2))]
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, self.reference).astype(np.int64))]
            placed = scaled(windows[rows], of_group[rows], self._loc, self._scale)
            vectors = np.ascontiguousarray(self._features.embed(placed).transpose(1, 2, 0))
            position = rows - rows[:1]
            self._measure_usual(vectors, position.astype(np.int64), self._usual[group])
        return self

    def _measure_usual(self, vectors: Floats, position: NDArray[np.int64], usual: Floats) -> None:
        """Write the usual distances of a past to itself."""
        span = int(position[-1] - position[0]) if len(position) else 0
        apart = max(min(self.size, span // 4), 1)
        usual_distances(vectors, position, apart, self._features.columns(), self.k, usual)

    def _new_own(self, n_variates: int, *, capacity: int, n_early: int) -> FeatureMemory:
        return FeatureMemory(
            n_variates=n_variates, n_features=self.n_features, capacity=capacity, n_early=n_early
        )

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: as measured, without warm-up."""
        super().seed_memory(memory, slot=slot, group=group)
        own = _own(memory)
        if own.phase[slot] == WARM:
            own.usual[slot] = self._usual[group]

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Remember windows that are admitted; measure what is usual after some counts of them."""
        own = _own(memory)
        present = np.unique(slots)
        own.reserve(int(present[-1]) + 1 if len(present) else 0)
        before = own.n_windows[present].copy()
        was_cold = own.phase[present] != WARM
        super().learn(memory, windows, slots=slots, admit=admit, stride=stride)
        for slot, begun, cold in zip(present, before, was_cold, strict=True):
            count = int(own.n_windows[slot])
            if cold and own.phase[slot] == WARM:
                self._measure_key(own, int(slot), int(own.warm_number[slot]), stride)
            for at in MEASURE_AT:
                if begun < at <= count and own.warm_number[slot] > 0:
                    self._measure_key(own, int(slot), at, stride)

    def _measure_key(self, own: FeatureMemory, slot: int, last: int, stride: int) -> None:
        number = own.number[slot]
        seen = np.flatnonzero((number > 0) & (number <= last))
        seen = seen[np.argsort(number[seen])]
        vectors = np.ascontiguousarray(own.features[slot][:, :, seen])
        self._measure_usual(vectors, number[seen] * stride, own.usual[slot])

    def _compare_with_past(
        self, windows: Floats, own: ThemisMemory | None, of: Ints, scales: Scales
    ) -> tuple[Floats, Floats]:
        loc, scale = scales
        n, _, n_variates = windows.shape
        scores = np.zeros((n, n_variates), dtype=np.float32)
        expected = np.where(np.isnan(windows[:, self._at]), loc[of], windows[:, self._at])
        if own is None:
            own = self._new_own(n_variates, capacity=self._rhythm.capacity, n_early=0)
            own.reserve(1)
            slots = np.zeros(n, dtype=np.int32)
            # Of several groups none can be told to be the right one; as in `KNN`.
            usual = np.broadcast_to(np.median(self._usual, axis=0), (n, n_variates, 2))
            warm = np.arange(n)
        else:
            warm, slots = np.flatnonzero(own.phase[of] == WARM), of
            usual = _own(own).usual[of]
        if len(warm) == 0:
            return scores, expected.astype(np.float32)
        vectors = self._features.embed(scaled(windows[warm], of[warm], loc, scale))
        bank, judged = self._bank, self._judged
        if len(bank) == 0:
            bank = np.zeros((n_variates, self.n_features, 0), dtype=np.float32)
            judged = np.zeros((n_variates, 0), dtype=np.float32)
        # All windows of a batch are counted, or cold ones would shift what warm ones may see.
        span = self._rhythm.spans(own, slots)[warm]
        past = (own.features, own.judged, own.number)
        far, value = distances(
            vectors, slots[warm], span, past, bank, judged, self._features.columns(), self.k
        )
        middle, spread = usual[warm, :, 0], usual[warm, :, 1]
        scores[warm] = np.maximum((far - middle) / spread, 0)
        found = ~np.isnan(value)
        back = from_scales(value, loc[of[warm]], scale[of[warm]], windows[warm, self._at])
        expected[warm] = np.where(found, back, expected[warm])
        return scores, expected.astype(np.float32)

    def state(self) -> Arrays:
        """Return reference, scales and usual distances; empty before ``fit``."""
        state = super().state()
        return {**state, "usual": self._usual} if state else state

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        super().load(state)
        if state:
            self._usual = state["usual"].copy()
        return self


def _own(memory: Memory) -> FeatureMemory:
    own = own_memory(memory)
    if not isinstance(own, FeatureMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return own
