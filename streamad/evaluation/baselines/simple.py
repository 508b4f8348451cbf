"""No method at all, one line of code, and trees: the lower edge of any table."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from streamad.detectors.base import (
    Detector,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
)
from streamad.detectors.pyod_models import PyODDetector, PyODModel, Rows, WindowModel

MEASURED = 500


class Random(Detector):
    """A random number per window: what labels alone are worth to a measure.

    The number is drawn from the window's values and the seed, so it is the same in every batch.

    Parameters
    ----------
    size : samples per window
    seed : another one, other numbers
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="random",
        summary="a random number per window",
        min_size=1,
        nan_ok=1.0,
        tail=(0.9, 0.99, 0.999, 0.9999),
    )

    def __init__(self, *, size: int | None = None, seed: int = 0) -> None:
        super().__init__(size=size)
        self.seed = seed

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return numbers in 0 .. 1, ``(n_windows,)``."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        n_values = windows.shape[1] * windows.shape[2]
        factors = np.random.default_rng(self.seed).integers(
            1, 2**63, n_values, dtype=np.uint64
        ) | np.uint64(1)
        bits = np.ascontiguousarray(windows).view(np.uint32).reshape(len(windows), n_values)
        mixed = (bits.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
        # The upper bits of a sum of products are well mixed only after another turn (Steele 2014).
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        drawn: Floats = ((mixed >> np.uint64(40)) / np.float64(2**24)).astype(np.float32)
        return drawn

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the newest sample as observed and the window's mean as expected."""
        n_windows, _, n_variates = windows.shape
        return WindowExplanations(
            observed=windows[:, -1].copy(),
            expected=np.nan_to_num(windows).mean(axis=1).astype(np.float32),
            share=np.full((n_windows, n_variates), 1 / n_variates, np.float32),
            position=np.full(n_windows, self.size - 1, np.int32),
        )


class AbsZ(WindowModel):
    """The newest sample's distance from the training median, in training deviations.

    Of several variates the largest distance. It has no lag and no memory.

    Parameters
    ----------
    size : samples per window; only the newest one counts
    max_windows : training windows kept, evenly chosen
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="abs_z",
        summary="|x - median| / deviation, both of the training part",
        min_size=2,
        needs_training=True,
        learns=True,
        learn_every=1024,
        tail=(1.6, 2.6, 3.3, 3.9),
    )

    @property
    def lag(self) -> int:
        """None: the newest sample is judged."""
        return 0

    def _train(self, rows: Rows) -> None:
        """Learn nothing more: scales are all there is."""

    def _judge(self, rows: Rows) -> Rows:
        newest: Rows = np.abs(rows.reshape(len(rows), self.size, -1)[:, -1]).max(axis=1)
        return newest

    def _usual(self, rows: Rows) -> Rows:
        """Return the training median, 0 in its scale."""
        return np.zeros_like(rows)


class SubsequenceIForest(PyODDetector):
    """Isolation forest on whole windows (PyOD).

    Parameters
    ----------
    size : samples per window
    max_windows : training windows kept, evenly chosen
    trees, seed : of the forest
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="iforest",
        summary="isolation forest among training windows (PyOD)",
        min_size=4,
        needs_training=True,
        learns=True,
        learn_every=4096,
        cost="moderate",
        tail=(0.05, 0.1, 0.15, 0.2),
        paper="Liu et al., Isolation Forest, ICDM 2008",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        max_windows: int = 2000,
        trees: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(size=size, max_windows=max_windows)
        self.trees, self.seed = trees, seed

    def make_model(self, n_rows: int) -> PyODModel:
        """Return PyOD's forest."""
        from pyod.models.iforest import IForest  # noqa: PLC0415 it takes a second to import

        model: PyODModel = IForest(n_estimators=self.trees, random_state=self.seed, n_jobs=1)
        return model

    def _scores(self, rows: Floats) -> Floats:
        # A call costs far more than a row, and trees give a row the same score in any company.
        return self._judge(rows.astype(np.float64)).astype(np.float32)

    def _train(self, rows: Rows) -> None:
        super()._train(rows)
        # A law of tails wants scores that begin near 0: count from the least of training windows.
        self._least = float(self._model.decision_function(rows[:MEASURED]).min())

    def _judge(self, rows: Rows) -> Rows:
        scores: Rows = np.maximum(super()._judge(rows) - self._least, 0.0)
        return scores
