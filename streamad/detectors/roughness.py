"""Nearest neighbours of a series' roughness: by how much samples differ from the ones before."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from streamad.errors import ArtifactError, WindowError

STRETCH = 4
"""Roughness is of one ``STRETCH``-th of a window, four samples at the least."""
LARGEST = 3e38
"""Samples of float32 may be further apart than a float32 can tell."""
ROUNDING = 1e-12
"""Share of the mean square below which a variance is rounding."""
UNCHANGED = 1e-6
"""Share of the other roughness below which one counts as none."""
ALIKE = 1.25
"""Up to this ratio it is the course of roughness that is unusual, not its size."""


class _OfRoughness(FusedKNN):
    """The neighbours of stretches of roughness, which are shorter than windows, or missing."""

    info: ClassVar[DetectorInfo] = replace(FusedKNN.info, min_size=8, nan_ok=1.0)


class RoughnessKNN(Detector):
    """Decide by the nearest past windows of a series' *roughness*, as `FusedKNN` of its values.

    Roughness is the standard deviation of the differences between neighbouring samples, over a
    quarter of a window, of each variate. It stays as it is where a series drifts, or has moved to a
    new level for good, which raw windows find strange for as long as it lasts; and it shows a
    spike, a break, a frozen sensor and a change of noise or of tempo in any phase of a rhythm. It
    is blind to what is slow: fuse it with raw windows, as `Auto` does (docs/adr/0030).

    Parameters
    ----------
    size : samples per window, best the period of the series
    k : neighbours averaged
    history : values of roughness a key remembers
    reference : the same of training, over all groups, shared by all keys
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    finite: ClassVar[tuple[str, ...]] = ("samples", "scale")
    keeps_memory = True
    in_spreads: ClassVar[bool] = True
    info: ClassVar[DetectorInfo] = replace(
        FusedKNN.info,
        name="knn_roughness",
        summary="nearest neighbours of how much samples differ from the ones before",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        k: int = 3,
        history: int = 1024,
        reference: int = 2048,
        lag: int | None = None,
    ) -> None:
        super().__init__(size=size)
        self._of = max(self.size // STRETCH, 4)
        self._lag = self.size // 2 if lag is None else lag
        if not 0 <= self._lag < self.size:
            msg = f"lag must lie in 0 .. {self.size - 1} (inside the window), got {lag}"
            raise WindowError(msg)
        self._inner = _OfRoughness(
            size=self.size - self._of,
            k=k,
            history=history,
            reference=reference,
            lag=min(self._lag, self.size - self._of - 1),
        )

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and the reference from training windows, as `KNN.fit`."""
        self._inner.fit(self._rough(windows), groups=groups)
        return self

    def new_memory(self, n_variates: int) -> Memory:
        """Return an empty memory."""
        return self._inner.new_memory(n_variates)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: as measured, without warm-up."""
        self._inner.seed_memory(memory, slot=slot, group=group)

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Give keys that were measured in training what was measured in ours."""
        return self._inner.retrained(memory, slots=slots, groups=groups)

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the centred look, float32 ``(n_windows,)``, 0 while cold."""
        return self._inner.score(self._rough(windows), memory=memory, slots=slots)

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return both looks, float32 ``(n_windows, 2)``, 0 while cold."""
        return self._inner.looks(self._rough(windows), memory=memory, slots=slots)

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the largest difference where roughness departs most, and a usual one.

        What was expected is the sample before, and one usual step from it the way it went.
        """
        why = self._inner.explain(self._rough(windows), memory=memory, slots=slots)
        position, expected = _steps(windows, why.position, why.expected, why.share, self._of)
        rows, guilty = np.arange(len(windows)), why.share.argmax(axis=1)
        changes = zip(why.observed[rows, guilty], why.expected[rows, guilty], strict=True)
        return WindowExplanations(
            observed=windows[rows, position],
            expected=expected,
            share=why.share,
            position=position,
            first=_moved(np.minimum, why.first, self._of, position),
            last=_moved(np.maximum, why.last, self._of, position),
            note=[in_words(float(observed), float(usual)) for observed, usual in changes],
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
        """Append what each window newly shows of its key's roughness."""
        stride = min(stride, self._inner.size)
        rough = self._rough(windows, nan_ok=1.0)
        self._inner.learn(memory, rough, slots=slots, admit=admit, stride=stride)

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Learn what was banned, and measure these keys again, from the next period on."""
        self._inner.adopt(memory, slots)

    def state(self) -> Arrays:
        """Return reference and scales; empty before ``fit``."""
        state = self._inner.state()
        return {**state, "size": np.array([self.size], dtype=np.int32)} if state else state

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
        self._inner.load({**state, "size": np.array([self._inner.size], dtype=np.int32)})
        return self

    def _rough(self, windows: Floats, nan_ok: float = info.nan_ok) -> Floats:
        require_windows(windows, size=self.size, nan_ok=nan_ok)
        return roughness(np.require(windows, requirements=["C", "W"]), self._of)


def in_words(observed: float, usual: float) -> str:
    """Return how a series changes from sample to sample, beside how it does so usually.

    Examples
    --------
    >>> in_words(3.21, 1.0)
    'it changes about 3.2 times as much as usual from sample to sample'
    >>> in_words(0.26, 1.0)
    'it changes about 0.26 times as much as usual from sample to sample'
    >>> in_words(0.0, 1.0), in_words(0.1, 0.0)
    ('it does not change from sample to sample', 'it changes from sample to sample, which is new')
    >>> in_words(1.1, 1.0)
    'how much it changes from sample to sample is unusual at this time'
    """
    if not (math.isfinite(observed) and math.isfinite(usual)):
        return ""
    if usual <= UNCHANGED * observed:
        return "it changes from sample to sample, which is new" if observed > 0 else ""
    if observed <= UNCHANGED * usual:
        return "it does not change from sample to sample"
    ratio = observed / usual
    if 1 / ALIKE < ratio < ALIKE:
        return "how much it changes from sample to sample is unusual at this time"
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f"it changes about {times} times as much as usual from sample to sample"


def _moved(pick: np.ufunc, place: Ints | None, by: int, told: Ints) -> Ints | None:
    """Return places of roughness as ones of the window, drawn to the told sample; -1 stays."""
    if place is None:
        return None
    return np.where(place < 0, place, pick(place + by, told)).astype(np.int32)


@compiled
def roughness(windows: Floats, of: int) -> Floats:
    """Return the deviation of ``of`` differences, float32 ``(n, size - of, n_variates)``.

    Missing (NaN) where more than half of the differences are.
    """
    n, size, n_variates = windows.shape
    rough = np.empty((n, size - of, n_variates), dtype=np.float32)
    apart, total = np.empty((3, size - 1)), np.empty((3, size - of))
    for w in range(n):
        for v in range(n_variates):
            for i in range(size - 1):
                by = np.float64(windows[w, i + 1, v]) - np.float64(windows[w, i, v])
                there = not np.isnan(by)
                apart[0, i] = 1.0 if there else 0.0
                apart[1, i] = by if there else 0.0
                apart[2, i] = by * by if there else 0.0
            _sums(apart, of, total)
            for i in range(size - of):
                rough[w, i, v] = _deviation(total[0, i], total[1, i], total[2, i], of)
    return rough


@compiled
def _sums(values: NDArray[np.float64], of: int, total: NDArray[np.float64]) -> None:
    """Write the sums of ``of`` values from each place on; the values are used up.

    Sums are of pairs, of pairs of pairs and so on, for all places at once: few operations, and the
    same ones at every place, so that windows that overlap agree to the last bit.
    """
    total[:] = 0.0
    done, width, length = 0, 1, values.shape[1]
    while done < of:
        if of & width:
            for j in range(len(values)):
                for i in range(total.shape[1]):
                    total[j, i] += values[j, i + done]
            done += width
        length -= width
        for j in range(len(values)):
            for i in range(length):
                values[j, i] += values[j, i + width]
        width *= 2


@compiled
def _deviation(count: float, total: float, squares: float, of: int) -> float:
    if 2.0 * count < of:
        return np.nan
    square, mean = squares / count, total / count
    spread = square - mean * mean
    # What is left of a steady slope is rounding.
    return min(np.sqrt(spread), LARGEST) if spread > ROUNDING * square else 0.0


@compiled
def _steps(
    windows: Floats, position: Ints, usual: Floats, share: Floats, of: int
) -> tuple[Ints, Floats]:
    """Return where the largest of the ``of`` differences up to a place is, and what was due there.

    position : int32 ``(n,)``, places of roughness; usual : float32 ``(n, n_variates)``, roughness
        expected there; share : of each variate; the largest one's difference counts
    """
    n, _, n_variates = windows.shape
    at = np.empty(n, dtype=np.int32)
    expected = np.empty((n, n_variates), dtype=np.float32)
    for w in range(n):
        most, told = -1.0, int(position[w]) + of
        one = np.argmax(share[w])
        for i in range(position[w] + 1, position[w] + of + 1):
            by = abs(float(windows[w, i, one]) - float(windows[w, i - 1, one]))
            if by > most:
                most, told = by, i
        at[w] = told
        for v in range(n_variates):
            # Where it stands still, it was due to go on the way it last went.
            way, i = 0.0, told
            while way == 0.0 and i > 0:
                way = np.sign(float(windows[w, i, v]) - float(windows[w, i - 1, v]))
                i -= 1
            due = windows[w, told - 1, v] + way * usual[w, v]
            expected[w, v] = windows[w, told, v] if np.isnan(due) else due
    return at, expected
