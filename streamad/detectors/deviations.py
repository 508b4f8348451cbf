"""How far samples lie from the training median, over all variates: what many show a little."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import (
    Arrays,
    Detector,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
)
from streamad.detectors.knn.kernels import LEAST_DISTANCE, LEAST_SPREAD, USUAL_SHARE
from streamad.detectors.knn.series import stitched
from streamad.detectors.pyod_models import ScaleMemory
from streamad.detectors.scales import loc_and_scale, place_sample
from streamad.errors import ArtifactError, NotFittedError, WindowError

PART: Final = 4
"""A quarter of the window around the judged sample is looked at."""
ADOPTING: Final = 1
ADOPTED: Final = 2
MEASURED: Final = 512
"""Training windows of a group whose scores say what is usual."""


class DeviationMemory(ScaleMemory):
    """The training scale of each key's group, and what deviations are usual there.

    Attributes
    ----------
    usual : float32 ``(n_slots, 2)``, median and spread
    n_windows : int64 ``(n_slots,)``, learned so far
    adopting : uint8 ``(n_slots,)``, `ADOPTING` a new level from the next period on, or `ADOPTED`
    """

    names: ClassVar[tuple[str, ...]] = (*ScaleMemory.names, "usual", "n_windows", "adopting")

    def __init__(self, n_variates: int) -> None:
        super().__init__(n_variates)
        self.usual = np.zeros((0, 2), dtype=np.float32)
        self.n_windows = np.zeros(0, dtype=np.int64)
        self.adopting = np.zeros(0, dtype=np.uint8)


class Deviations(Detector):
    """Judge by how far samples lie from the training median, averaged over all variates.

    ``d = mean of log(1 + |x - median| / deviation)`` over the quarter of a window around the judged
    sample and over all variates, with median and standard deviation of the training samples, in
    spreads from what is usual in training: its median, and its 90 % quantile above it.

    Where a fault moves many variates a little, each alone is within what it always does, and a
    distance to the nearest of the past finds some window that is near in most of them; their mean
    is nowhere in training. It needs training: of a key that was not trained, or whose new level was
    adopted, it scores 0; what is less than usual is negative. With one variate it is the plainest
    of baselines; it is there to be fused (`Auto`).

    Parameters
    ----------
    size : samples per window
    lag : samples by which the judged one trails the newest (None: half a window)
    strangers : keys that were not trained are judged by the only training group, as `PCA` does
        (False: they score 0, since another series' level shows little)
    """

    finite: ClassVar[tuple[str, ...]] = ("usual",)
    keeps_memory = True
    in_spreads: ClassVar[bool] = True
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="deviations",
        summary="deviations from the training median, averaged over all variates",
        min_size=4,
        needs_training=True,
        learns=True,
        learn_every=16,
        nan_ok=0.2,
        cost="cheap",
        tail=(1.5, 3.0, 6.0, 12.0),
        paper="Shewhart, Economic Control of Quality of Manufactured Product, 1931",
    )

    def __init__(
        self, *, size: int | None = None, lag: int | None = None, strangers: bool = False
    ) -> None:
        super().__init__(size=size)
        self.strangers = strangers
        self._lag = self.size // 2 if lag is None else lag
        if not 0 <= self._lag < self.size:
            msg = f"lag must lie in 0 .. {self.size - 1} (inside the window), got {lag}"
            raise WindowError(msg)
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)
        self._usual = np.zeros((0, 2), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    @property
    def _span(self) -> tuple[int, int]:
        """Return first and one past the last sample that is looked at."""
        length = max(self.size // PART, 1)
        start = min(max(self.size - 1 - self._lag - length // 2, 0), self.size - length)
        return start, start + length

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales and usual deviations, a group each, from training windows."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(windows) == 0:
            msg = f"{self.info.name} learns from at least one window, got none"
            raise WindowError(msg)
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        n_groups, n_variates = int(of_group.max()) + 1, windows.shape[2]
        self._loc = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        self._scale = np.ones((n_groups, n_variates), dtype=np.float32)
        self._usual = np.ones((n_groups, 2), dtype=np.float32)
        for group in np.unique(of_group):
            rows = np.flatnonzero(of_group == group)
            self._loc[group], self._scale[group] = loc_and_scale(stitched(windows[rows])[0])
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, MEASURED).astype(np.int64))]
            of = np.full(len(rows), group, dtype=np.int32)
            far = np.sort(_means(self._far(windows[rows], of, self._loc, self._scale)))
            middle, high = far[len(far) // 2], far[int(USUAL_SHARE * (len(far) - 1))]
            least = max(LEAST_SPREAD * middle, LEAST_DISTANCE)
            self._usual[group] = middle, max(high - middle, least)
        return self

    def new_memory(self, n_variates: int) -> DeviationMemory:
        """Return an empty memory of scales."""
        return DeviationMemory(n_variates)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Give a key the scale and the usual deviations of its training group."""
        own = _own(memory)
        own.reserve(slot + 1)
        if group < len(self._loc):
            own.loc[slot], own.scale[slot] = self._loc[group], self._scale[group]
            own.usual[slot] = self._usual[group]

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Give keys that have the scale of a training group that of ours."""
        own = _own(memory)
        known = (groups >= 0) & (groups < len(self._loc))
        known &= ~np.isnan(own.loc[slots]).all(axis=1)
        known[known] = ~np.isnan(self._loc[groups[known]]).all(axis=1)
        theirs, ours = slots[known], groups[known]
        rows = {"loc": self._loc[ours], "scale": self._scale[ours], "usual": self._usual[ours]}
        return own.put(theirs, rows)

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the deviation in spreads, float32 ``(n_windows,)``, 0 of keys without training."""
        of, loc, scale, usual = self._known(windows, memory, slots)
        means = _means(self._far(windows, of, loc, scale))
        known = ~np.isnan(loc[of]).all(axis=1)
        scores = np.zeros(len(windows), dtype=np.float32)
        scores[known] = (means[known] - usual[of[known], 0]) / usual[of[known], 1]
        return scores

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, the training median, and shares of squared deviations."""
        of, loc, scale, _ = self._known(windows, memory, slots)
        # By squares: of two variates the one with a spike is named, not the one with more noise.
        squares = self._far(windows, of, loc, scale)[:, :, 1]
        total = squares.sum(axis=1, keepdims=True)
        even = np.float32(1 / windows.shape[2])
        share = np.where(total > 0, squares / np.where(total > 0, total, 1), even)
        judged = self.size - 1 - self._lag
        observed = windows[:, judged].copy()
        return WindowExplanations(
            observed=observed,
            expected=np.where(np.isnan(loc[of]), observed, loc[of]).astype(np.float32),
            share=share.astype(np.float32),
            position=np.full(len(windows), judged, dtype=np.int32),
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
        """Count windows; at the end of a period, forget the scale of keys with a new level."""
        del windows, admit, stride
        own = _own(memory)
        own.reserve(int(slots.max()) + 1 if len(slots) else 0)
        given = np.require(slots, requirements=["C", "W"])
        _count(given, self.info.learn_every, own.n_windows, own.adopting, own.loc, own.scale)

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """From the next period on training says nothing of these keys."""
        _own(memory).adopting[slots] = ADOPTING

    def state(self) -> Arrays:
        """Return scales and usual deviations; empty before ``fit``."""
        if len(self._loc) == 0:
            return {}
        return {"loc": self._loc, "scale": self._scale, "usual": self._usual}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if state:
            if state["usual"].shape != (len(state["loc"]), 2):
                msg = f"the artifact's usual deviations have the shape {state['usual'].shape}"
                raise ArtifactError(msg)
            self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
            self._usual = state["usual"].copy()
        return self

    def _known(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Ints, Floats, Floats, Floats]:
        """Return which row of what follows each window's key has: medians, scales, what is usual.

        Medians are NaN of a key that was not trained.
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        n, _, n_variates = windows.shape
        if len(self._loc) and self._loc.shape[1] != n_variates:
            msg = f"windows must have the {self._loc.shape[1]} variates of fit, got {n_variates}"
            raise WindowError(msg)
        if memory is not None and slots is not None:
            own = _own(memory)
            if not self.strangers or len(self._loc) != 1:
                return slots, own.loc, own.scale, own.usual
            unknown = np.isnan(own.loc[slots]).all(axis=1) & (own.adopting[slots] != ADOPTED)
            return (
                np.arange(n, dtype=np.int32),
                np.where(unknown[:, None], self._loc, own.loc[slots]),
                np.where(unknown[:, None], self._scale, own.scale[slots]),
                np.where(unknown[:, None], self._usual, own.usual[slots]),
            )
        if len(self._loc) == 0:
            msg = f"{self.info.name} was not fitted; run `streamad fit`, or name an artifact"
            raise NotFittedError(msg)
        if len(self._loc) == 1:
            return np.zeros(n, dtype=np.int32), self._loc, self._scale, self._usual
        # Of several groups none can be told to be the right one; as in `KNN`.
        loc, scale = np.empty_like(windows[:, 0]), np.empty_like(windows[:, 0])
        for i, window in enumerate(windows):
            loc[i], scale[i] = loc_and_scale(window)
        usual = np.broadcast_to(np.median(self._usual, axis=0), (n, 2))
        return np.arange(n, dtype=np.int32), loc, scale, usual

    def _far(self, windows: Floats, of: Ints, loc: Floats, scale: Floats) -> Floats:
        start, stop = self._span
        return _deviations(
            np.require(windows, requirements=["C", "W"]),
            np.require(of, requirements=["C", "W"]),
            np.require(loc, requirements=["C", "W"]),
            np.require(scale, requirements=["C", "W"]),
            start,
            stop,
        )


def _own(memory: Memory) -> DeviationMemory:
    if not isinstance(memory, DeviationMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


@compiled
def _deviations(
    windows: Floats, of: Ints, loc: Floats, scale: Floats, start: int, stop: int
) -> Floats:
    """Return of each variate the means of ``log(1 + |d|)`` and of ``d^2``, ``(n, n_variates, 2)``.

    ``d`` is a sample's distance from the median in scales; 0 where none is known. Compiled, one
    window after the other, so that a window has the same bits alone and in a batch.
    """
    n, _, n_variates = windows.shape
    far = np.zeros((n, n_variates, 2), dtype=np.float32)
    for w in range(n):
        for v in range(n_variates):
            total, squares, present = 0.0, 0.0, 0
            for i in range(start, stop):
                apart = float(place_sample(windows[w, i, v], loc[of[w], v], scale[of[w], v]))
                if not np.isnan(apart):
                    total += math.log1p(abs(apart))
                    squares += apart * apart
                    present += 1
            if present > 0:
                far[w, v, 0] = np.float32(total / present)
                far[w, v, 1] = np.float32(squares / present)
    return far


@compiled
def _count(
    slots: Ints,
    every: int,
    n_windows: NDArray[np.int64],
    adopting: NDArray[np.uint8],
    loc: Floats,
    scale: Floats,
) -> None:
    """Count windows of keys; where a period of ``every`` ends let adoptions take effect."""
    for slot in slots:
        n_windows[slot] += 1
        if n_windows[slot] % every == 0 and adopting[slot] == ADOPTING:
            loc[slot] = np.nan
            scale[slot] = np.nan
            adopting[slot] = ADOPTED


@compiled
def _means(far: Floats) -> Floats:
    """Return the mean over variates of the logarithms, summed in one order."""
    means = np.zeros(len(far), dtype=np.float32)
    for w in range(len(far)):
        total = np.float32(0.0)
        for v in range(far.shape[1]):
            total += far[w, v, 0]
        means[w] = total / np.float32(far.shape[1])
    return means
