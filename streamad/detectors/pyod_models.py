"""Outlier models on whole windows: any model of PyOD in ten lines, local outlier factor, PCA.

They are here to be compared with and for those who know them; the k-NN of `streamad.detectors.knn`
are better on most series and learn as they go, which these do not.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol, Self

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
from streamad.detectors.scales import in_scales, measure
from streamad.detectors.slots import SlotMemory
from streamad.errors import ArtifactError, NotFittedError, WindowError

Rows = NDArray[np.float64]
MIN_WINDOWS = 3
BATCH = 64
"""Rows a model ever sees at once; fewer are filled up, so that none depends on its company."""
LARGEST_SCORE = 1e30


class ScaleMemory(SlotMemory):
    """The training scale of each key's group, and nothing else; NaN where a key has none.

    Attributes
    ----------
    loc, scale : float32 ``(n_slots, n_variates)``
    """

    names: ClassVar[tuple[str, ...]] = ("loc", "scale")
    empty: ClassVar[Mapping[str, float]] = {"loc": np.nan, "scale": np.nan}

    def __init__(self, n_variates: int) -> None:
        self.loc = np.zeros((0, n_variates), dtype=np.float32)
        self.scale = np.zeros((0, n_variates), dtype=np.float32)


class WindowModel(Detector):
    """A model of windows as rows ``(n_windows, size * n_variates)`` in training scale.

    Scale is the median and standard deviation of the key's training group. A key the artifact does
    not know has that of the only group; where there are several it has its own window's, which
    hides changes of level. A score belongs to the middle of its window, where windows are judged
    best (see `streamad.detectors.knn.KNN`).

    A subclass has ``info`` and three methods: `_train`, `_judge`, `_usual`.

    Parameters
    ----------
    size : samples a window
    max_windows : training windows kept, evenly chosen
    """

    finite: ClassVar[tuple[str, ...]] = ("bank",)
    keeps_memory = True  # the scale of a key, which `retrained` sets anew

    def __init__(self, *, size: int | None = None, max_windows: int = 2000) -> None:
        super().__init__(size=size)
        self.max_windows = max_windows
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)
        self._bank = np.zeros((0, 0), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Half a window: the judged sample is its middle."""
        return self.size // 2

    @abstractmethod
    def _train(self, rows: Rows) -> None:
        """Fit the model; called with the same rows after `load` as in `fit`."""

    @abstractmethod
    def _judge(self, rows: Rows) -> Rows:
        """Return a finite score a row, that does not depend on the other rows."""

    @abstractmethod
    def _usual(self, rows: Rows) -> Rows:
        """Return for each row what would have been usual, in the same scale."""

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and train on at most ``max_windows`` windows."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(windows) < MIN_WINDOWS:
            msg = f"{self.info.name} learns from at least {MIN_WINDOWS} windows, got {len(windows)}"
            raise WindowError(msg)
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        n_groups, n_variates = int(of_group.max()) + 1, windows.shape[2]
        self._loc = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        self._scale = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        for group in np.unique(of_group):
            samples = np.ascontiguousarray(windows[of_group == group].reshape(-1, n_variates).T)
            measure(samples, self._loc[group], self._scale[group])
        n_kept = min(len(windows), self.max_windows)
        kept = np.linspace(0, len(windows) - 1, n_kept).astype(np.int64)
        of_kept = of_group[kept]
        self._bank = scaled_rows(windows[kept], self._loc[of_kept], self._scale[of_kept])
        self._train(self._bank.astype(np.float64))
        return self

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the model's score of each window, float32 ``(n_windows,)``."""
        loc, scale = self._scales(windows, memory, slots)
        return self._scores(scaled_rows(windows, loc, scale))

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, its usual value, and shares of the squared difference."""
        loc, scale = self._scales(windows, memory, slots)
        rows = scaled_rows(windows, loc, scale).astype(np.float64)
        usual = self._usual(rows).reshape(windows.shape)
        apart = ((rows.reshape(windows.shape) - usual) ** 2).sum(axis=1)
        total = apart.sum(axis=1, keepdims=True)
        share = np.where(total > 0, apart / np.where(total > 0, total, 1), 1 / windows.shape[2])
        judged = self.size - 1 - self.lag
        return WindowExplanations(
            observed=windows[:, judged].copy(),
            expected=(usual[:, judged] * scale + loc).astype(np.float32),
            share=share.astype(np.float32),
            position=np.full(len(windows), judged, dtype=np.int32),
        )

    def new_memory(self, n_variates: int) -> ScaleMemory:
        """Return an empty memory of scales."""
        return ScaleMemory(n_variates)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Give a key the scale of its training group."""
        own = _own(memory)
        own.reserve(slot + 1)
        if group < len(self._loc):
            own.loc[slot], own.scale[slot] = self._loc[group], self._scale[group]

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Give keys the scale of their group in our training; others keep the one they have."""
        own = _own(memory)
        known = (groups >= 0) & (groups < len(self._loc))
        theirs, ours = slots[known], groups[known]
        return own.put(theirs, {"loc": self._loc[ours], "scale": self._scale[ours]})

    def state(self) -> Arrays:
        """Return scales and training windows; the model is trained again when loaded."""
        if len(self._bank) == 0:
            return {}
        return {"bank": self._bank, "loc": self._loc, "scale": self._scale}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        n_values = self.size * state["loc"].shape[1]
        if state["bank"].shape[1] != n_values:
            msg = f"the artifact has windows of {state['bank'].shape[1]} values, not {n_values}"
            raise ArtifactError(msg)
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        self._bank = state["bank"].copy()
        self._train(self._bank.astype(np.float64))
        return self

    def _scales(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Floats, Floats]:
        """Return location and scale of each window's key, ``(n_windows, n_variates)``."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(self._bank) == 0:
            msg = f"{self.info.name} was not fitted; run `streamad fit`, or name an artifact"
            raise NotFittedError(msg)
        if windows.shape[2] != self._loc.shape[1]:
            msg = f"windows must have {self._loc.shape[1]} variates, got {windows.shape[2]}"
            raise WindowError(msg)
        if memory is not None and slots is not None:
            own = _own(memory)
            loc, scale = own.loc[slots], own.scale[slots]
        else:
            loc = np.full((len(windows), windows.shape[2]), np.nan, dtype=np.float32)
            scale = loc.copy()
        for i in np.flatnonzero(np.isnan(loc).any(axis=1)):
            if len(self._loc) == 1:
                loc[i], scale[i] = self._loc[0], self._scale[0]
            else:
                measure(np.ascontiguousarray(windows[i].T), loc[i], scale[i])
        return loc, scale

    def _scores(self, rows: Floats) -> Floats:
        scores = np.zeros(len(rows), dtype=np.float32)
        for first in range(0, len(rows), BATCH):
            part = rows[first : first + BATCH]
            padded = np.zeros((BATCH, rows.shape[1]), dtype=np.float64)
            padded[: len(part)] = part
            judged = self._judge(padded)[: len(part)]
            scores[first : first + BATCH] = np.clip(judged, -LARGEST_SCORE, LARGEST_SCORE)
        return scores


class PyODModel(Protocol):
    """What is asked of a model: PyOD's own interface."""

    def fit(self, rows: Rows) -> object:
        """Learn from rows."""

    def decision_function(self, rows: Rows) -> Rows:
        """Return a score a row, higher is stranger."""


class PyODDetector(WindowModel):
    """Any PyOD model as a detector: give ``info`` and `make_model`.

    The model must score rows it was not fitted on one by one (not ECOD or COPOD, which rank each
    row among those it comes with) and equal fits must give equal models (pass ``random_state``).
    No pickle is kept: an artifact holds the training windows, and loading fits again.

    Examples
    --------
    >>> from pyod.models.hbos import HBOS
    >>> class Histogram(PyODDetector):
    ...     info = DetectorInfo(name="hbos", summary="histogram score", needs_training=True)
    ...     def make_model(self, n_rows):
    ...         return HBOS(n_bins=10)
    >>> windows = np.random.default_rng(0).normal(size=(200, 64, 1)).astype(np.float32)
    >>> Histogram().fit(windows).score(windows[:5]).shape
    (5,)
    """

    @abstractmethod
    def make_model(self, n_rows: int) -> PyODModel:
        """Return an unfitted model for so many training rows."""

    def _train(self, rows: Rows) -> None:
        self._model = self.make_model(len(rows))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # equal rows are usual here: a series may stand still
            self._model.fit(rows)

    def _judge(self, rows: Rows) -> Rows:
        return np.nan_to_num(self._model.decision_function(rows), nan=0.0)

    def _usual(self, rows: Rows) -> Rows:
        """Return the nearest training window."""
        bank = self._bank.astype(np.float64)
        nearest = [int(((bank - row) ** 2).sum(axis=1).argmin()) for row in rows]
        usual: Rows = bank[nearest].reshape(rows.shape)
        return usual


class LOF(PyODDetector):
    """Local outlier factor: how much sparser it is around a window than around its neighbours.

    About 1 for an ordinary window. Costs a tree search among at most ``max_windows`` training
    windows; to avoid where normal windows repeat exactly, since any distance is then infinitely
    sparse.

    Parameters
    ----------
    size : samples a window
    max_windows : training windows kept, evenly chosen
    k : neighbours
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="lof",
        summary="local outlier factor among training windows (PyOD)",
        min_size=4,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="moderate",
        tail=(1.2, 1.6, 2.5, 4.0),
        paper="Breunig et al., LOF: Identifying Density-Based Local Outliers, SIGMOD 2000",
    )

    def __init__(self, *, size: int | None = None, max_windows: int = 2000, k: int = 20) -> None:
        super().__init__(size=size, max_windows=max_windows)
        self.k = k

    def make_model(self, n_rows: int) -> PyODModel:
        """Return PyOD's LOF over a ball tree, whose sums do not depend on the batch."""
        from pyod.models.lof import LOF as Model  # noqa: PLC0415, N811 it takes a second to import

        model: PyODModel = Model(n_neighbors=min(self.k, n_rows - 1), algorithm="ball_tree")
        return model


class PCA(WindowModel):
    """Distance of a window from the plane that holds most of the training windows.

    Principal components that explain 90 % of the variance; the score is the root mean square of
    what they leave over, in training scales. (PyOD's model of that name measures distances to the
    components themselves.) Cheap; finds breaks of shape and rare values, misses what is strange
    only for its place in a series.

    Parameters
    ----------
    size : samples a window
    max_windows : training windows kept, evenly chosen
    variance : share of variance the components explain
    """

    finite: ClassVar[tuple[str, ...]] = ("mean", "components")
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="pca",
        summary="what principal components of training windows leave unexplained",
        min_size=4,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="cheap",
        tail=(0.6, 1.0, 2.0, 4.0),
        paper="Jackson and Mudholkar, Control Procedures for Residuals, Technometrics 1979",
    )

    def __init__(
        self, *, size: int | None = None, max_windows: int = 2000, variance: float = 0.9
    ) -> None:
        super().__init__(size=size, max_windows=max_windows)
        self.variance = variance
        self._mean = np.zeros(0)
        self._components = np.zeros((0, 0))

    def state(self) -> Arrays:
        """Return scales, mean and components: small, and nothing needs to be fitted again."""
        if len(self._bank) == 0:
            return {}
        fitted: Arrays = {"mean": self._mean, "components": self._components}
        return {**fitted, "loc": self._loc, "scale": self._scale}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        if len(state["mean"]) != self.size * state["loc"].shape[1]:
            msg = (
                f"the artifact has windows of {len(state['mean'])} values, not of size {self.size}"
            )
            raise ArtifactError(msg)
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        self._mean, self._components = state["mean"].copy(), state["components"].copy()
        self._bank = self._mean[None].astype(np.float32)
        return self

    def _train(self, rows: Rows) -> None:
        self._mean = rows.mean(axis=0)
        _, sizes, components = np.linalg.svd(rows - self._mean, full_matrices=False)
        explained = np.cumsum(sizes**2)
        enough = explained >= self.variance * explained[-1]
        self._components = np.ascontiguousarray(components[: int(enough.argmax()) + 1])

    def _judge(self, rows: Rows) -> Rows:
        left = rows - self._usual(rows)
        scores: Rows = np.sqrt(_sums_of_squares(left) / rows.shape[1])
        return scores

    def _usual(self, rows: Rows) -> Rows:
        """Return the reconstruction of each row."""
        return _reconstructed(np.ascontiguousarray(rows), self._mean, self._components)


def _own(memory: Memory) -> ScaleMemory:
    if not isinstance(memory, ScaleMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def scaled_rows(windows: Floats, loc: Floats, scale: Floats) -> Floats:
    """Return windows scaled and flattened, float32 ``(n_windows, size * n_variates)``."""
    n_windows, size, n_variates = windows.shape
    scaled = in_scales(windows, loc[:, None], scale[:, None])
    return scaled.reshape(n_windows, size * n_variates)


@compiled
def _sums_of_squares(rows: Rows) -> Rows:
    sums = np.zeros(len(rows))
    for i in range(len(rows)):
        for j in range(rows.shape[1]):
            sums[i] += rows[i, j] * rows[i, j]
    return sums


@compiled
def _reconstructed(rows: Rows, mean: Rows, components: Rows) -> Rows:
    """Return each row's projection onto mean and components, summed in one fixed order.

    A matrix product would be faster and would depend on how many rows there are.
    """
    usual = np.empty_like(rows)
    for i in range(len(rows)):
        usual[i] = mean
        for c in range(len(components)):
            amount = 0.0
            for j in range(rows.shape[1]):
                amount += (rows[i, j] - mean[j]) * components[c, j]
            for j in range(rows.shape[1]):
                usual[i, j] += amount * components[c, j]
    return usual
