"""Nearest neighbours of each variate by itself, and what all of them show together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, Self

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
from streamad.detectors.knn import FusedKNN
from streamad.detectors.memories import SideBySide, part_of, prefixed, undone_in_turn
from streamad.errors import NotFittedError, WindowError


class _One(FusedKNN):
    """The model of one variate, of which all samples may be missing where the others have some."""

    info: ClassVar[DetectorInfo] = replace(FusedKNN.info, nan_ok=1.0)


class VariateKNN(Detector):
    """Decide by the nearest past windows of each variate by itself, and by all of them together.

    ``score = exp(mean over variates of log(1 + score_v)) - 1``, of `FusedKNN` on that variate
    alone; the look at the newest samples likewise. A distance over all variates at once asks for a
    moment at which all of them were like now: among many variates there is none, and what one or
    a few of them do drowns. Each by itself has one, and evidence of several adds up: logarithms, so
    that no variate drowns the others.

    It sees no break between variates each of which is usual by itself: fuse it with `FusedKNN`, as
    `Auto` does. Of one variate it is `FusedKNN`. What a key costs, in bytes and in time, is that of
    as many keys as there are variates.

    Parameters
    ----------
    size : samples per window
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    keeps_memory = True
    in_spreads: ClassVar[bool] = True
    info: ClassVar[DetectorInfo] = replace(
        FusedKNN.info,
        name="knn_variates",
        summary="nearest neighbours of each variate by itself, their evidence together",
    )

    def __init__(self, *, size: int | None = None, lag: int | None = None) -> None:
        super().__init__(size=size)
        self._plain = _One(size=self.size, lag=lag)
        self._models: list[_One] = []

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._plain.lag

    def _new(self) -> _One:
        return _One(size=self.size, lag=self.lag)

    def _model(self, v: int) -> _One:
        return self._models[v] if self._models else self._plain

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Fit a model of each variate."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        self._models = [
            self._new().fit(_alone(windows, v), groups=groups) for v in range(windows.shape[2])
        ]
        return self

    def new_memory(self, n_variates: int) -> SideBySide:
        """Return the empty memories of the variates."""
        return SideBySide({str(v): self._plain.new_memory(1) for v in range(n_variates)})

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``, in each variate."""
        for v, own in _own(memory).items():
            self._model(v).seed_memory(own, slot=slot, group=group)

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Give keys that were measured in training what was measured in ours, in each variate."""
        return undone_in_turn([
            self._model(v).retrained(own, slots=slots, groups=groups)
            for v, own in _own(memory).items()
        ])  # fmt: skip

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the centred look of all variates, float32 ``(n_windows,)``, 0 while cold."""
        return np.ascontiguousarray(self.looks(windows, memory=memory, slots=slots)[:, 0])

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return both looks, float32 ``(n_windows, 2)``, 0 while cold."""
        self._check(windows, memory)
        n, _, n_variates = windows.shape
        each = np.zeros((n, n_variates, 2), dtype=np.float32)
        memories = {} if memory is None else _own(memory)
        for v in range(n_variates):
            own = memories.get(v)
            each[:, v] = self._model(v).looks(_alone(windows, v), memory=own, slots=slots)
        return _together(each)

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return each variate's share of the evidence, and the event of the one that has most."""
        self._check(windows, memory)
        n, _, n_variates = windows.shape
        evidence = np.zeros((n, n_variates), dtype=np.float64)
        expected = np.zeros((n, n_variates), dtype=np.float32)
        event = np.zeros((n, n_variates, 3), dtype=np.int32)
        memories = {} if memory is None else _own(memory)
        for v in range(n_variates):
            own = memories.get(v)
            alone = _alone(windows, v)
            evidence[:, v] = np.log1p(self._model(v).score(alone, memory=own, slots=slots))
            why = self._model(v).explain(alone, memory=own, slots=slots)
            expected[:, v] = why.expected[:, 0]
            event[:, v, 0], event[:, v, 1], event[:, v, 2] = why.position, why.first, why.last
        total = evidence.sum(axis=1, keepdims=True)
        share = np.where(total > 0, evidence / np.where(total > 0, total, 1), 1 / n_variates)
        told = event[np.arange(n), share.argmax(axis=1)]
        return WindowExplanations(
            observed=windows[np.arange(n), told[:, 0]],
            expected=expected,
            share=share.astype(np.float32),
            position=np.ascontiguousarray(told[:, 0]),
            first=np.ascontiguousarray(told[:, 1]),
            last=np.ascontiguousarray(told[:, 2]),
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
        """Let each variate's model learn its own samples."""
        require_windows(windows, size=self.size, nan_ok=1.0)
        for v, own in _own(memory).items():
            alone = _alone(windows, v)
            self._model(v).learn(own, alone, slots=slots, admit=admit, stride=stride)

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Learn what was held back, in each variate."""
        for v, own in _own(memory).items():
            self._model(v).adopt(own, slots)

    def state(self) -> Arrays:
        """Return what ``fit`` learned, each array under its variate's number."""
        return prefixed({str(v): model.state() for v, model in enumerate(self._models)})

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        n_variates = len({key.partition(".")[0] for key in state})
        self._models = [
            self._new().load(part_of(state, str(v), "artifact", self.info.name))
            for v in range(n_variates)
        ]
        return self

    def _check(self, windows: Floats, memory: Memory | None) -> None:
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        n_variates = windows.shape[2]
        known = len(self._models) if memory is None or self._models else len(_own(memory))
        if known == 0:
            msg = f"{self.info.name} has no past to compare with; call fit, or give it a memory"
            raise NotFittedError(msg)
        if known != n_variates or (memory is not None and len(_own(memory)) != n_variates):
            msg = f"windows must have the {known} variates of fit, got {n_variates}"
            raise WindowError(msg)


def _alone(windows: Floats, v: int) -> Floats:
    """Return the windows of one variate, ``(n_windows, size, 1)``."""
    return np.ascontiguousarray(windows[:, :, v : v + 1])


def _own(memory: Memory) -> Mapping[int, Memory]:
    if not isinstance(memory, SideBySide):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return {int(name): own for name, own in memory.members.items()}


@compiled
def _together(each: Floats) -> Floats:
    """Return the evidence of ``(n, n_variates, n_looks)``, a mean of logarithms, in one order."""
    n, n_variates, n_looks = each.shape
    looks = np.zeros((n, n_looks), dtype=np.float32)
    for w in range(n):
        for j in range(n_looks):
            total = 0.0
            for v in range(n_variates):
                total += math.log1p(max(float(each[w, v, j]), 0.0))
            looks[w, j] = np.float32(math.expm1(total / n_variates))
    return looks
