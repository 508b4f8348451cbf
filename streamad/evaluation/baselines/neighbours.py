"""Nearest neighbours among raw windows, each window against all of its past: hard to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Arrays, DetectorInfo, Floats, Ints, Memory
from streamad.detectors.pyod_models import Rows, ScaleMemory, WindowModel
from streamad.detectors.scales import in_scales
from streamad.errors import StateError

APART = 4
"""Past windows count once they are older than so many windows' length: neither overlap nor what has
just begun is a neighbour."""
NOTHING = 1e-9


class _Ring:
    """The last windows of a key, as rows; ``usable`` marks those that may be neighbours."""

    def __init__(self, capacity: int, width: int) -> None:
        self.rows = np.zeros((capacity, width), np.float32)
        self.usable = np.zeros(capacity, np.bool_)
        self.n = 0

    def add(self, rows: Floats, usable: NDArray[np.bool_]) -> None:
        """Take windows, in order."""
        rows, usable = rows[-len(self.rows) :], usable[-len(self.rows) :]
        places = (self.n + np.arange(len(rows))) % len(self.rows)
        self.rows[places], self.usable[places] = rows, usable
        self.n += len(rows)

    def older(self, delay: int) -> Floats:
        """Return the windows that at least ``delay`` others have followed."""
        first, last = max(0, self.n - len(self.rows)), self.n - delay
        if last <= first:
            return self.rows[:0]
        places = np.arange(first, last) % len(self.rows)
        chosen: Floats = self.rows[places[self.usable[places]]]
        return chosen


class PastMemory(ScaleMemory):
    """Scales, and the past windows of each key; it is not saved."""

    def __init__(self, n_variates: int, capacity: int, width: int) -> None:
        super().__init__(n_variates)
        self._capacity, self._width = capacity, width
        self.rings: dict[int, _Ring] = {}

    @property
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""
        return super().bytes_per_slot + self._capacity * (4 * self._width + 1)

    def ring(self, slot: int) -> _Ring:
        """Return the past of a key."""
        if slot not in self.rings:
            self.rings[slot] = _Ring(self._capacity, self._width)
        return self.rings[slot]

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        super().forget(slots)
        for slot in slots.tolist():
            self.rings.pop(slot, None)

    def state(self, slots: Ints) -> Arrays:
        """Refuse: a baseline runs once, over a file."""
        msg = "a baseline cannot be saved; choose a detector that 'streamad detectors' lists"
        raise StateError(msg)


class RawKNN(WindowModel):
    """Mean distance to the ``k`` nearest windows of training and of the key's own past.

    Windows are in training scale, not normalised one by one. A distance is Euclidean, divided by
    the root of the window's length.

    Parameters
    ----------
    size : samples per window
    max_windows : training windows kept, evenly chosen; so many past ones are kept beside them
    k : neighbours
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn_raw",
        summary="nearest neighbours among raw windows of one length",
        min_size=8,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="heavy",
        tail=(0.6, 1.0, 2.0, 4.0),
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )
    lengths: ClassVar[Sequence[float]] = (1.0,)
    """Shares of the window around the judged sample that are compared; their distances are added
    up."""

    def __init__(self, *, size: int | None = None, max_windows: int = 4000, k: int = 3) -> None:
        super().__init__(size=size, max_windows=max_windows)
        self.k = k
        self._parts: list[slice] = []
        self._known: list[tuple[Rows, Rows]] = []

    def new_memory(self, n_variates: int) -> PastMemory:
        """Return an empty memory of scales and past windows."""
        return PastMemory(n_variates, self.max_windows, self.size * n_variates)

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the distances, added up over lengths, float32 ``(n_windows,)``."""
        if not isinstance(memory, PastMemory) or slots is None:
            return super().score(windows)
        loc, scale = self._scales(windows, memory, slots)
        rows = _flat(windows, loc, scale)
        scores = np.zeros(len(rows), np.float32)
        for slot in np.unique(slots):
            own = slots == slot
            past = memory.ring(int(slot)).older(APART * self.size).astype(np.float64)
            scores[own] = self._distances(rows[own].astype(np.float64), past)
        return scores

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Keep windows that were judged; those not admitted are no neighbours."""
        if not isinstance(memory, PastMemory):
            msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
            raise TypeError(msg)
        usable = admit & np.isfinite(windows).all(axis=(1, 2))
        # Windows that were not scored may hold what a scale cannot place.
        held = np.where(usable[:, None, None], windows, np.float32(0))
        loc, scale = self._scales(held, memory, slots)
        rows = _flat(held, loc, scale)
        for slot in np.unique(slots):
            own = slots == slot
            memory.ring(int(slot)).add(rows[own], usable[own])

    def _train(self, rows: Rows) -> None:
        n_variates = rows.shape[1] // self.size
        self._parts = []
        for share in self.lengths:
            length = max(round(share * self.size), 2)
            begin = min(max(self.size - 1 - self.lag - length // 2, 0), self.size - length)
            self._parts.append(slice(begin * n_variates, (begin + length) * n_variates))
        self._known = [_with_squares(self._seen(rows[:, part])) for part in self._parts]

    def _seen(self, rows: Rows) -> Rows:
        """Return stretches of windows as they are compared."""
        return rows

    def _judge(self, rows: Rows) -> Rows:
        return self._distances(rows, np.zeros((0, rows.shape[1])))

    def _usual(self, rows: Rows) -> Rows:
        """Return the nearest training window."""
        bank = self._bank.astype(np.float64)
        near = _squared(rows, *_with_squares(bank)).argmin(axis=1)
        usual: Rows = bank[near]
        return usual

    def _distances(self, rows: Rows, past: Rows) -> Rows:
        total = np.zeros(len(rows))
        for part, (known, squares) in zip(self._parts, self._known, strict=True):
            asked = self._seen(rows[:, part])
            apart = _squared(asked, known, squares)
            if len(past):
                apart = np.hstack(
                    [apart, _squared(asked, *_with_squares(self._seen(past[:, part])))]
                )
            k = min(self.k, apart.shape[1])
            nearest = np.partition(apart, k - 1, axis=1)[:, :k]
            total += np.sqrt(nearest).mean(axis=1) / math.sqrt(asked.shape[1])
        return total


class RawKNN3(RawKNN):
    """As `RawKNN`, at a quarter, a half and the whole of the window, distances added up.

    Parameters
    ----------
    size : samples per window
    max_windows : training windows kept, evenly chosen; so many past ones are kept beside them
    k : neighbours
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="knn_raw3",
        summary="nearest neighbours among raw windows of three lengths",
        min_size=16,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="heavy",
        tail=(1.8, 3.0, 6.0, 12.0),
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )
    lengths: ClassVar[Sequence[float]] = (0.25, 0.5, 1.0)


class LeftMatrixProfile(RawKNN):
    """The left matrix profile: the distance to the nearest earlier window, each normalised alone.

    Exact up to the number of windows that are kept. Level and amplitude are lost by the
    normalisation; a constant window is at distance 0 from another one and 1 from any other.

    Parameters
    ----------
    size : samples per window
    max_windows : training windows kept, evenly chosen; so many past ones are kept beside them
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="matrix_profile",
        summary="left matrix profile: nearest earlier window, each normalised alone",
        min_size=8,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="heavy",
        tail=(0.4, 0.6, 0.9, 1.2),
        paper="Yeh et al., Matrix Profile I, ICDM 2016",
    )

    def __init__(self, *, size: int | None = None, max_windows: int = 4000) -> None:
        super().__init__(size=size, max_windows=max_windows, k=1)

    def _seen(self, rows: Rows) -> Rows:
        """Return windows with mean 0 and deviation 1 in each variate."""
        parts = rows.reshape(len(rows), self.size, -1)
        apart = parts - parts.mean(axis=1, keepdims=True)
        spread = parts.std(axis=1, keepdims=True)
        still = spread <= NOTHING * (1.0 + np.abs(parts).max(axis=1, keepdims=True))
        made: Rows = np.where(still, 0.0, apart / np.where(still, 1.0, spread))
        return made.reshape(rows.shape)


def _flat(windows: Floats, loc: Floats, scale: Floats) -> Floats:
    scaled = in_scales(windows, loc[:, None], scale[:, None])
    return scaled.reshape(len(windows), -1)


def _with_squares(rows: Rows) -> tuple[Rows, Rows]:
    return rows, np.einsum("ij,ij->i", rows, rows)


def _squared(asked: Rows, known: Rows, squares: Rows) -> Rows:
    """Return squared distances ``(n_asked, n_known)``."""
    own = np.einsum("ij,ij->i", asked, asked)
    apart: Rows = np.maximum(own[:, None] + squares - 2.0 * (asked @ known.T), 0.0)
    return apart
