"""Half-space trees of River, the usual streaming baseline; it learns from every window."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Arrays, DetectorInfo, Floats, Ints, Memory
from streamad.detectors.pyod_models import Rows, ScaleMemory, WindowModel
from streamad.errors import StateError

NEWEST = 8
"""Samples of each variate a tree sees."""
SPREAD = 4.0
"""Deviations from the training median that are mapped to 0 .. 1, as the trees want it."""

MEASURED = 250
"""Training windows whose least score is what others count from."""


class _Grown(ScaleMemory):
    """Scales, and the trees of each key; not saved."""

    def __init__(self, n_variates: int) -> None:
        super().__init__(n_variates)
        self.trees: dict[int, Any] = {}

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        super().forget(slots)
        for slot in slots.tolist():
            self.trees.pop(slot, None)

    def state(self, slots: Ints) -> Arrays:
        """Refuse: a baseline runs once, over a file."""
        msg = "a baseline cannot be saved; choose a detector that 'streamad detectors' lists"
        raise StateError(msg)


class HalfSpaceTrees(WindowModel):
    """Half-space trees on the newest 8 samples of a window, in training scale.

    Parameters
    ----------
    size : samples per window, of which the newest 8 count
    max_windows : training windows learned, evenly chosen
    trees, height, seed : of the trees; they learn in batches of 250 windows, the library's default
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="half_space_trees",
        summary="half-space trees on the newest samples (River)",
        min_size=NEWEST,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="heavy",
        tail=(0.5, 0.7, 0.8, 0.9),
        paper="Tan et al., Fast Anomaly Detection for Streaming Data, IJCAI 2011",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        max_windows: int = 2000,
        trees: int = 10,
        height: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(size=size, max_windows=max_windows)
        self.trees, self.height, self.seed = trees, height, seed
        self._model: Any = None
        self._least = 0.0

    @property
    def lag(self) -> int:
        """None: the newest samples are judged."""
        return 0

    def new_memory(self, n_variates: int) -> ScaleMemory:
        """Return an empty memory of scales and trees."""
        return _Grown(n_variates)

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the trees' score of each window, float32 ``(n_windows,)``."""
        if not isinstance(memory, _Grown) or slots is None:
            return super().score(windows)
        rows = self._placed(windows, memory, slots)
        scores = [
            self._of(memory, slot).score_one(dict(enumerate(row))) - self._least
            for slot, row in zip(slots.tolist(), rows.tolist(), strict=True)
        ]
        return np.maximum(np.asarray(scores, np.float32), 0).reshape(len(windows))

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Learn admitted windows, one by one as the library does."""
        if not isinstance(memory, _Grown):
            msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
            raise TypeError(msg)
        use = np.flatnonzero(admit & np.isfinite(windows).all(axis=(1, 2)))
        if len(use) == 0:
            return
        rows = self._placed(windows[use], memory, slots[use])
        for slot, row in zip(slots[use].tolist(), rows.tolist(), strict=True):
            self._of(memory, slot).learn_one(dict(enumerate(row)))

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Learn training windows in their order."""
        from river.anomaly import HalfSpaceTrees as Trees  # noqa: PLC0415 an extra

        self._model = Trees(n_trees=self.trees, height=self.height, seed=self.seed)
        return super().fit(windows, groups=groups)

    def _train(self, rows: Rows) -> None:
        mapped = self._mapped(rows)
        for row in mapped.tolist():
            self._model.learn_one(dict(enumerate(row)))
        # A law of tails wants scores that begin near 0.
        self._least = float(self._raw(mapped[-MEASURED:]).min())

    def _judge(self, rows: Rows) -> Rows:
        scores: Rows = np.maximum(self._raw(self._mapped(rows)) - self._least, 0.0)
        return scores

    def _raw(self, mapped: Rows) -> Rows:
        return np.array([self._model.score_one(dict(enumerate(row))) for row in mapped.tolist()])

    def _usual(self, rows: Rows) -> Rows:
        """Return the training median, 0 in its scale."""
        return np.zeros_like(rows)

    def _of(self, memory: _Grown, slot: int) -> Any:
        if slot not in memory.trees:
            memory.trees[slot] = copy.deepcopy(self._model)
        return memory.trees[slot]

    def _placed(self, windows: Floats, memory: Memory, slots: Ints) -> Rows:
        loc, scale = self._scales(windows, memory, slots)
        still = scale[:, None] == 0
        apart = windows - loc[:, None]
        scaled = np.where(
            still, np.sign(apart) * SPREAD, apart / np.where(still, 1, scale[:, None])
        )
        return self._mapped(scaled.reshape(len(windows), -1).astype(np.float64))

    def _mapped(self, rows: Rows) -> Rows:
        """Return the newest samples in 0 .. 1."""
        newest = rows.reshape(len(rows), self.size, -1)[:, -NEWEST:].reshape(len(rows), -1)
        mapped: Rows = np.clip(0.5 + newest / (2 * SPREAD), 0.0, 1.0)
        return mapped
