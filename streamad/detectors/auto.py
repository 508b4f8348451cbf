"""Several detectors as one: their scores, each in its own spreads from what is usual, fused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors import DETECTORS
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
from streamad.detectors.knn.detector import TAIL
from streamad.detectors.memories import SideBySide, part_of, prefixed, undone_in_turn
from streamad.errors import ConfigError

MEMBERS: Final = MappingProxyType({"knn_fused": 0.625, "knn_roughness": 0.625})
"""Detectors that are fused where no others are named, and how much each counts."""
OF_SEVERAL: Final = MappingProxyType({
    "knn_fused": 0.5 / 3.2, "knn_variates": 2.0 / 3.2, "deviations": 1.0 / 3.2,
    "knn_roughness": 0.5 / 3.2,
})  # fmt: skip
"""The same of windows of several variates (docs/adr/0028). They add up to as much as those above:
the order of scores is the same for any sum, but what is usual for new keys (`tail`) is not."""
MOST_MEMBERS: Final = 8
HEARD: Final = 0.5
"""A member explains a window from this share of the largest evidence on."""


class Auto(Detector):
    """Fuse the scores of several detectors, without a label.

    Each member scores in spreads from what is usual for the key (`Detector.in_spreads`), so that
    one unit means the same for all, and ``score = prod over members of (1 + score_m) ^ weight_m``,
    less 1: a sum of logarithms. A window that the other members find usual has the score of the one
    that does not. The look at the newest samples is that of the first member which has one. What is
    judged is the Box-Cox transform of the score (`DetectorInfo.power`): the neighbours of roughness
    lie among few dimensions, where the largest ordinary distances are far apart (docs/adr/0031).

    By default raw windows (`FusedKNN`) are fused with their roughness (`RoughnessKNN`), evenly. The
    first see a value or a shape that never was; the second a spike, a break, a change of noise or
    of tempo, also where the series drifts or has moved for good and all raw windows are far apart.
    The recipe was chosen on one half of the benchmark's series and tested on the other
    (docs/adr/0030).

    Where a window has several variates, raw windows and roughness of all at once (0.16 each) are
    fused with each variate's own neighbours (`VariateKNN`, 0.62) and with the mean deviation from
    training (`Deviations`, 0.31, of keys with training): the first see a break between variates,
    the third what a few do by themselves, the fourth what all do a little (docs/adr/0028).

    The expected values, and where the event lies, are those of the first member that has at least
    half as much evidence as the one that has most; a variate's share is that in all members'
    scores.

    Parameters
    ----------
    size : samples per window, best the period of the series
    members : names of detectors, and their weights, for any number of variates; all must score in
        spreads (None: those above)
    lag : samples by which the judged one trails the newest (None: half a window)
    """

    finite: ClassVar[tuple[str, ...]] = (
        "knn_fused.samples",
        "knn_fused.scale",
        "knn_roughness.samples",
        "knn_roughness.scale",
        "deviations.usual",
    )
    in_spreads: ClassVar[bool] = True
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="auto",
        summary="raw windows and their roughness, each against the past, fused; the default",
        min_size=16,
        learns=True,
        warm_up=32,
        learn_every=16,
        delay=256,
        nan_ok=0.2,
        cost="moderate",
        n_looks=2,
        dull=1.0,
        power=0.25,
        tail=TAIL,
        paper="Ramaswamy et al., Efficient Algorithms for Mining Outliers, SIGMOD 2000",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        members: Mapping[str, float] | None = None,
        lag: int | None = None,
    ) -> None:
        super().__init__(size=size)
        alone = dict(MEMBERS if members is None else members)
        self._alone, self._several = alone, dict(OF_SEVERAL if members is None else members)
        _check_weights(alone)
        self.members = {
            name: _made(name, self.size, lag) for name in {**self._alone, **self._several}
        }
        lags = {name: member.lag for name, member in self.members.items()}
        if len(set(lags.values())) > 1:
            msg = f"members of auto must judge the same sample of a window, got lags {lags}"
            raise ConfigError(msg)
        self._lag = next(iter(lags.values()))
        self.keeps_memory = all(member.keeps_memory for member in self.members.values())

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    def _weights(self, n_variates: int) -> dict[str, float]:
        """Return which members judge windows of so many variates, and how much each counts."""
        return self._alone if n_variates == 1 else self._several

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Fit each member on the same windows."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        for name in self._weights(windows.shape[2]):
            self.members[name].fit(windows, groups=groups)
        return self

    def new_memory(self, n_variates: int) -> SideBySide:
        """Return the empty memories of the members that have one."""
        names = self._weights(n_variates)
        made = {name: self.members[name].new_memory(n_variates) for name in names}
        return SideBySide({name: memory for name, memory in made.items() if memory is not None})

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``, in each member."""
        for name, own in _own(memory).members.items():
            self.members[name].seed_memory(own, slot=slot, group=group)

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Bring what keys learned up to our training, in each member."""
        return undone_in_turn([
            self.members[name].retrained(own, slots=slots, groups=groups)
            for name, own in _own(memory).members.items()
        ])  # fmt: skip

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the fused centred look, float32 ``(n_windows,)``, 0 while cold."""
        return np.ascontiguousarray(self.looks(windows, memory=memory, slots=slots)[:, 0])

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return both looks, float32 ``(n_windows, 2)``, 0 while cold."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        weights = self._weights(windows.shape[2])
        parts = [
            self.members[name].looks(windows, memory=_of(memory, name), slots=slots)
            for name in weights
        ]
        fused = np.zeros((len(windows), 2), dtype=np.float32)
        centred = np.ascontiguousarray(np.stack([part[:, 0] for part in parts], axis=1))
        _fuse(centred, np.array(list(weights.values()), dtype=np.float64), fused[:, 0])
        newest = [part[:, 1] for part in parts if part.shape[1] > 1]
        fused[:, 1] = newest[0] if newest else fused[:, 0]
        return fused

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return what the member that tells of a window expected, and shares of all scores.

        That is the first one with at least half as much evidence as the one that has most.
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        weights = self._weights(windows.shape[2])
        evidence = np.zeros((len(windows), len(weights)), dtype=np.float64)
        reasons = []
        for number, (name, weight) in enumerate(weights.items()):
            member, own = self.members[name], _of(memory, name)
            reasons.append(member.explain(windows, memory=own, slots=slots))
            score = member.score(windows, memory=own, slots=slots).astype(np.float64)
            evidence[:, number] = weight * np.log1p(np.maximum(score, 0))
        heard = evidence >= evidence.max(axis=1, keepdims=True) * HEARD
        evidence[:, 0] += 1e-9  # where no member finds anything, the shares of the first one stand
        share = sum(evidence[:, n, None] * why.share for n, why in enumerate(reasons))
        return _as_told(reasons, heard, (share / evidence.sum(axis=1, keepdims=True)))

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Let each member learn them."""
        for name, own in _own(memory).members.items():
            self.members[name].learn(own, windows, slots=slots, admit=admit, stride=stride)

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Let each member take what was held back for normal."""
        for name, own in _own(memory).members.items():
            self.members[name].adopt(own, slots)

    def state(self) -> Arrays:
        """Return what the members learned, each array under its member's name."""
        return prefixed({name: member.state() for name, member in self.members.items()})

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        held = {key.partition(".")[0] for key in state}
        names = next((n for n in (self._several, self._alone) if set(n) <= held), self._alone)
        for name in names if state else ():
            self.members[name].load(part_of(state, name, "artifact", "auto"))
        return self


def _as_told(
    reasons: Sequence[WindowExplanations], heard: NDArray[np.bool_], share: NDArray[np.float64]
) -> WindowExplanations:
    """Return each window's explanation by the first member that is heard, with these shares.

    heard : ``(n_windows, n_members)``, at least one of each window
    """
    rows, teller = np.arange(len(heard)), heard.argmax(axis=1)
    position = np.stack([why.position for why in reasons])
    first = np.stack([why.position if why.first is None else why.first for why in reasons])
    last = np.stack([why.position if why.last is None else why.last for why in reasons])
    notes = [why.note or [""] * len(heard) for why in reasons]
    return WindowExplanations(
        observed=np.stack([why.observed for why in reasons])[teller, rows],
        expected=np.stack([why.expected for why in reasons])[teller, rows],
        share=share.astype(np.float32),
        position=position[teller, rows],
        first=first[teller, rows],
        last=last[teller, rows],
        note=[notes[one][i] for i, one in enumerate(teller)],
    )


def _check_weights(weights: Mapping[str, float]) -> None:
    if not 1 <= len(weights) <= MOST_MEMBERS:
        msg = f"auto fuses 1 to {MOST_MEMBERS} members, got {len(weights)}: {sorted(weights)}"
        raise ConfigError(msg)
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 < weight <= 10:
            msg = f"the weight of member {name} must lie above 0, up to 10; got {weight!r}"
            raise ConfigError(msg)


def _made(name: str, size: int, lag: int | None) -> Detector:
    """Return a member, by its name."""
    kind: Callable[..., Detector] = DETECTORS.load(name)
    if kind is Auto or not getattr(kind, "in_spreads", False):
        fit = [n for n in DETECTORS if n != "auto" and getattr(_kind(n), "in_spreads", False)]
        msg = f"{name} does not score in spreads from the usual, so auto cannot fuse it; use {fit}"
        raise ConfigError(msg)
    return kind(size=size, lag=lag)


def _kind(name: str) -> object:
    """Return a detector's class; None where what it needs is not installed."""
    try:
        return DETECTORS.load(name)
    except ImportError:
        return None


def _own(memory: Memory) -> SideBySide:
    if not isinstance(memory, SideBySide):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def _of(memory: Memory | None, name: str) -> Memory | None:
    return None if memory is None else _own(memory).members.get(name)


@compiled
def _fuse(scores: Floats, weights: NDArray[np.float64], fused: Floats) -> None:
    """Write the product of ``(1 + score) ^ weight`` of ``(n, n_members)``, less 1.

    Compiled, one window after the other: vectorised logarithms may differ in the last bit with the
    place in an array.
    """
    for w in range(len(scores)):
        total = 0.0
        for m in range(scores.shape[1]):
            total += weights[m] * math.log1p(max(float(scores[w, m]), 0.0))
        fused[w] = np.float32(min(math.expm1(total), 1e30))
