"""What detectors share that compare a window's vector with those a key remembers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import (
    Arrays,
    Detector,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
)
from streamad.detectors.scales import loc_and_scale
from streamad.detectors.themis.features import scaled
from streamad.detectors.themis.memory import (
    COLD,
    SPACING,
    WARM,
    Rhythm,
    ThemisMemory,
    own_memory,
    ranks,
)
from streamad.errors import ArtifactError, NotFittedError, WindowError

Scales = tuple[Floats, ...]
"""Location and scale of each group or slot and variate, and what else vectors are made with."""
MOST_RUNS: Final = 512
"""Training windows of a group in which neighbouring samples are looked at."""


class Remembering(Detector):
    """A reference of training windows, and a memory of each key's own, both as vectors.

    A subclass makes the vectors (`_new_features`, `_vectors`) and compares them
    (`_compare_with_past`). A key known to the artifact starts with its group's scale; an unknown
    one takes it from its warm-up.

    Parameters
    ----------
    size : samples a window
    k : neighbours averaged
    history : past windows a key remembers
    reference : training windows kept over all groups, shared by all keys
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    spacing: int = SPACING
    """Windows remembered per window's length."""

    def __init__(
        self, *, size: int | None, k: int, history: int, reference: int, lag: int | None
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
        self._features = self._new_features()
        self.n_features = self._features.n_features
        self._rhythm = Rhythm(self.size, history, self.info.learn_every, self.spacing)
        self._bank = np.zeros((0, self.n_features, 0), dtype=np.float32)
        self._judged = np.zeros((0, 0), dtype=np.float32)
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    @property
    def _at(self) -> int:
        """Where the judged sample stands in the window."""
        return self.size - 1 - self._lag

    # what a subclass is ------------------------------------------------------------------------

    @abstractmethod
    def _new_features(self) -> Any:
        """Return what turns scaled windows into vectors."""

    def _vectors(self, placed: Floats, of: Ints, scales: Scales) -> Floats:
        """Return vectors of scaled windows, ``(n_windows, n_variates, n_features)``."""
        vectors: Floats = self._features.embed(placed)
        return vectors

    @abstractmethod
    def _compare_with_past(
        self, windows: Floats, own: ThemisMemory | None, of: Ints, scales: Scales
    ) -> tuple[Floats, Floats]:
        """Return each variate's score and expected value, both ``(n_windows, n_variates)``."""

    def _new_own(self, n_variates: int, *, capacity: int, n_early: int) -> ThemisMemory:
        """Return an empty memory of the kind this detector has."""
        return ThemisMemory(
            n_variates=n_variates, n_features=self.n_features, capacity=capacity, n_early=n_early
        )

    def _fitted(self) -> Scales:
        """Return the scales of each group."""
        return self._loc, self._scale

    def _held(self, own: ThemisMemory) -> Scales:
        """Return the scales of each slot."""
        return own.loc, own.scale

    def _measure(self, samples: Floats, runs: Floats) -> Scales:
        """Return the scales of ``(n, n_variates)`` samples.

        runs : ``(n_runs, length, n_variates)``, stretches of neighbouring samples among them
        """
        return loc_and_scale(samples)

    # learning --------------------------------------------------------------------------------

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and the reference from training windows.

        Parameters
        ----------
        windows : float32 ``(n_windows, size, n_variates)``, in time order inside a group
        groups : int32 ``(n_windows,)``, numbered from 0 (None: all of one series)
        """
        self._require_some(windows)
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        n_groups, n_variates = int(of_group.max()) + 1, windows.shape[2]
        self._forget_scales(n_groups, n_variates)
        kept = []
        present = np.unique(of_group)
        room = max(self.reference // len(present), 1)
        for group in present:
            rows = np.flatnonzero(of_group == group)
            # The first window whole, then newest samples: close to each sample once.
            series = np.concatenate([windows[rows[0]], windows[rows[1:], -1]])
            runs = windows[rows[_spread(len(rows), MOST_RUNS)]]
            for fitted, measured in zip(self._fitted(), self._measure(series, runs), strict=True):
                fitted[group] = measured
            rows = _whole(windows, rows)
            kept.append(rows[_spread(len(rows), room)])
        chosen = np.concatenate(kept)[: self.reference]
        placed = scaled(windows[chosen], of_group[chosen], self._loc, self._scale)
        vectors = self._vectors(placed, of_group[chosen], self._fitted())
        self._bank = np.ascontiguousarray(vectors.transpose(1, 2, 0))
        self._judged = np.ascontiguousarray(placed[:, self._at].T)
        return self

    def _require_some(self, windows: Floats) -> None:
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(windows) == 0:
            msg = f"{self.info.name} learns from at least one window, got none"
            raise WindowError(msg)

    def _forget_scales(self, n_groups: int, n_variates: int) -> None:
        self._loc = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        self._scale = np.ones((n_groups, n_variates), dtype=np.float32)

    def new_memory(self, n_variates: int) -> ThemisMemory | None:
        """Return an empty memory."""
        capacity, n_early = self._rhythm.capacity, self.info.warm_up + self.size
        return self._new_own(n_variates, capacity=capacity, n_early=n_early)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: with its scale, without warm-up.

        Called once, before the key's first window. A group without any training window leaves its
        key cold.
        """
        own = own_memory(memory)
        own.reserve(slot + 1)
        if group < len(self._loc) and np.isfinite(self._loc[group]).all():
            for held, fitted in zip(self._held(own), self._fitted(), strict=True):
                held[slot] = fitted[group]
            own.phase[slot] = WARM

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Remember embeddings of windows that are admitted and miss nothing, some of them each."""
        require_windows(windows, size=self.size, nan_ok=1.0)  # incomplete ones pass by, unusable
        own = own_memory(memory)
        if len(slots) == 0:
            return
        own.reserve(int(slots.max()) + 1)
        own.stride[slots] = stride
        number = own.n_windows[slots] + ranks(slots) + 1
        cold = own.phase[slots] == COLD
        for i in np.flatnonzero(cold):
            if own.phase[slots[i]] == COLD:
                self._warm_up(own, windows[i], int(slots[i]), admit=bool(admit[i]), stride=stride)
                cold[i] = True
            else:
                cold[i] = False
        every = self._rhythm.every(stride)
        due = (number - 1) % every == 0
        keep = np.flatnonzero(~cold & due & admit & ~np.isnan(windows).any(axis=(1, 2)))
        placed = scaled(windows[keep], slots[keep], own.loc, own.scale)
        self._keep(own, placed, slots[keep], number[keep], every=every)
        np.maximum.at(own.n_windows, slots, number)

    def _warm_up(
        self, own: ThemisMemory, window: Floats, slot: int, *, admit: bool, stride: int
    ) -> None:
        """Collect a window's new samples; when there are enough windows, take scale and past."""
        begun = own.warm_number[slot] > 0
        new = window[-min(stride, self.size) :] if begun else window
        if not admit:
            new = np.full_like(new, np.nan)
        held = own.collect(slot, new)
        last = int(own.warm_number[slot])
        if last < self.info.warm_up:
            return
        for kept, measured in zip(self._held(own), self._measure(held, held[None]), strict=True):
            kept[slot] = measured
        own.phase[slot] = WARM
        past, number = self._rhythm.past(held, last, stride)
        of_slot = np.full(len(past), slot, dtype=np.int32)
        placed = scaled(past, of_slot, own.loc, own.scale)
        self._keep(own, placed, of_slot, number, every=self._rhythm.every(stride))

    def _keep(
        self,
        own: ThemisMemory,
        placed: Floats,
        slots: Ints,
        number: NDArray[np.int64],
        *,
        every: int,
    ) -> None:
        if len(placed) == 0:
            return
        at = (number // every) % own.capacity
        own.features[slots, :, :, at] = self._vectors(placed, slots, self._held(own))
        own.judged[slots, :, at] = placed[:, self._at]
        own.number[slots, at] = number

    # judging ---------------------------------------------------------------------------------

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return how far the past is, float32 ``(n_windows,)``, 0 while cold."""
        scores: Floats = self._judge(windows, memory, slots)[0].max(axis=1, initial=0.0)
        return scores

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, that of the most similar past window, and shares of score."""
        scores, expected = self._judge(windows, memory, slots)
        total = scores.sum(axis=1, keepdims=True)
        even = np.float32(1 / windows.shape[2])
        share = np.where(total > 0, scores / np.where(total > 0, total, 1), even)
        return WindowExplanations(
            observed=windows[:, self._at].copy(),
            expected=expected,
            share=share.astype(np.float32),
            position=np.full(len(windows), self._at, dtype=np.int32),
        )

    def _judge(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Floats, Floats]:
        """Return each variate's score and expected value, both ``(n_windows, n_variates)``."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        fitted = len(self._loc) > 0
        if fitted and self._loc.shape[1] != windows.shape[2]:
            expected = self._loc.shape[1]
            msg = f"windows must have the {expected} variates of fit, got {windows.shape[2]}"
            raise WindowError(msg)
        if memory is None or slots is None:
            if not fitted:
                msg = f"{self.info.name} has no past to compare with; call fit, or give it a memory"
                raise NotFittedError(msg)
            scales, of = self._stand_in(windows)
            return self._compare_with_past(windows, None, of, scales)
        own = own_memory(memory)
        return self._compare_with_past(windows, own, slots, self._held(own))

    def _stand_in(self, windows: Floats) -> tuple[Scales, Ints]:
        """Return scales for windows of unknown keys: the only group's, else each window's own."""
        if len(self._loc) == 1:
            return self._fitted(), np.zeros(len(windows), dtype=np.int32)
        measured = [self._measure(window, window[None]) for window in windows]
        of = np.arange(len(windows), dtype=np.int32)
        if not measured:
            return self._fitted(), of
        return tuple(np.stack(one) for one in zip(*measured, strict=True)), of

    # what was learned ------------------------------------------------------------------------

    def state(self) -> Arrays:
        """Return reference and scales; empty before ``fit``."""
        if len(self._loc) == 0:
            return {}
        return {
            "bank": self._bank,
            "judged": self._judged,
            "loc": self._loc,
            "scale": self._scale,
            "size": np.array([self.size], dtype=np.int32),
        }

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        size = int(state["size"][0])
        if size != self.size:
            msg = f"the artifact was fitted with windows.size {size}, the pipeline has {self.size}"
            raise ArtifactError(msg)
        if state["bank"].shape[1] != self.n_features:
            msg = (
                f"the artifact holds {state['bank'].shape[1]} values per window, this detector "
                f"makes {self.n_features}; name the model it was fitted with, or fit it again"
            )
            raise ArtifactError(msg)
        self._bank, self._judged = state["bank"].copy(), state["judged"].copy()
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        return self


def _spread(n: int, room: int) -> NDArray[np.int64]:
    """Return at most ``room`` indices below ``n``, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, room)).astype(np.int64))


def _whole(windows: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out windows with missing samples where whole ones are to be had."""
    whole = rows[~np.isnan(windows[rows]).any(axis=(1, 2))]
    return whole if len(whole) else rows
