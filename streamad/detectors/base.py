"""The contract of a detector, and the checks at its border.

Dimension words are fixed: ``n_windows``, ``size`` (samples a window), ``n_variates``. Windows are
float32 ``(n_windows, size, n_variates)``, in the units of the input, oldest sample first.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import (
    Arrays,
    Cost,
    DetectorInfo,
    Floats,
    Ints,
    ItemDetector,
    Memory,
    Modality,
)
from streamad.errors import WindowError

__all__ = [
    "Arrays",
    "Cost",
    "Detector",
    "DetectorInfo",
    "Floats",
    "Ints",
    "Memory",
    "Modality",
    "WindowExplanations",
    "require_windows",
    "smoothing",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowExplanations:
    """Why windows are strange, one row a window.

    observed, expected : float32 ``(n_windows, n_variates)`` at the judged sample
    share : float32 ``(n_windows, n_variates)``, each variate's share of the score, rows sum to 1
    position : int32 ``(n_windows,)``, index of the told sample inside its window
    first, last : int32 ``(n_windows,)``, first and last sample of the event inside the window, -1
        where no sample stands out (None: the told sample alone)
    note : for each window what else the detector says of it, in words (None: nothing)
    """

    observed: Floats
    expected: Floats
    share: Floats
    position: Ints
    first: Ints | None = None
    last: Ints | None = None
    note: list[str] | None = None


class Detector(ItemDetector[Floats]):
    """One way of saying how strange a window of signals is.

    Scores are float32, finite, higher is stranger. ``score`` and ``explain`` never learn, leave
    their input untouched, and give the same bits for a window alone and in a batch. Equal seeds
    give equal fits.
    """

    def __init__(self, *, size: int | None = None) -> None:
        self.size = self.info.default_size if size is None else size
        if self.size < self.info.min_size:
            msg = (
                f"{self.info.name} needs windows of at least {self.info.min_size} samples, "
                f"got windows.size = {self.size}; raise it"
            )
            raise WindowError(msg)

    @property
    def min_periods(self) -> int:
        """Samples from which a key is judged: fewer than ``size`` where it takes partial windows.

        A partial window is one of a key that has sent ``min_periods .. size - 1`` samples: its
        oldest rows, which it does not hold, are NaN.
        """
        return self.size

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Learn what is usual from training windows.

        windows : ``(n_windows, size, n_variates)``, in time order inside a group
        groups : ``(n_windows,)``, which series each window is of (None: all of one)
        """
        require_windows(
            windows, size=self.size, nan_ok=self.info.nan_ok, min_periods=self.min_periods
        )
        return self

    @abstractmethod
    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return one score a window, ``(n_windows,)``.

        With ``memory``, window i is judged against slot ``slots[i]``; the windows of one slot stand
        in time order and directly follow those `learn` has seen.
        """

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return all looks at a window, ``(n_windows, n_looks)``: the score, then the newest.

        The score ranks best and may trail (`lag`); the operator smooths it where there is a second
        look, which decides on time: it scores the newest samples alone, in the same unit.
        """
        return self.score(windows, memory=memory, slots=slots)[:, None]

    @abstractmethod
    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return observed and expected values and each variate's share."""

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Take in windows just judged; where ``admit`` is false they are not to be learned from.

        Called with each window of a key exactly once, in order. Each window shares all but its last
        ``stride`` samples with the key's window before.
        """


def smoothing(size: int) -> int:
    """Return the windows by which smoothing a centred score trails, for windows of ``size``."""
    return size // 10


def require_windows(
    windows: Floats, *, size: int | None = None, nan_ok: float = 0.0, min_periods: int | None = None
) -> Ints:
    """Refuse windows of a wrong kind, shape or with unusable values; raises WindowError.

    min_periods : samples that a partial window holds at least (None: windows are full); its oldest
        samples, which it does not hold, are NaN and do not count as missing
    Returns how many samples each window holds, int32 ``(n_windows,)``.
    """
    if not isinstance(windows, np.ndarray) or windows.dtype != np.float32:
        got = getattr(windows, "dtype", type(windows).__name__)
        msg = f"windows must be a float32 array (n_windows, size, n_variates), got {got}"
        raise WindowError(msg)
    if windows.ndim != 3 or windows.shape[1] == 0 or windows.shape[2] == 0:
        msg = f"windows must have the shape (n_windows, size, n_variates), got {windows.shape}"
        raise WindowError(msg)
    if size is not None and windows.shape[1] != size:
        msg = f"windows must have {size} samples (the detector's size), got {windows.shape[1]}"
        raise WindowError(msg)
    n, length, n_variates = windows.shape
    filled = np.full(n, length, dtype=np.int32)
    if windows.size and not np.isfinite(windows).all():
        if np.isinf(windows).any():
            msg = (
                "windows hold infinite values; the decoder refuses them, so check where they arose"
            )
            raise WindowError(msg)
        missing = np.isnan(windows)
        if min_periods is not None:
            unseen = missing.all(axis=2)
            absent = np.where(unseen.all(axis=1), length, (~unseen).argmax(axis=1))
            filled = np.maximum(length - absent, min(min_periods, length)).astype(np.int32)
        unknown = missing.sum(axis=(1, 2)) - (length - filled) * n_variates
        share = float((unknown / (filled * n_variates)).max())
        if share > nan_ok:
            msg = (
                f"windows hold up to {share:.0%} missing samples and this detector takes "
                f"{nan_ok:.0%}; set series.gaps.fill, or lower series.gaps.max_share"
            )
            raise WindowError(msg)
    return filled
