"""The contract of a detector, and the checks at its border.

Dimension words are fixed: ``n_windows``, ``size`` (samples a window), ``n_variates``. Windows are
float32 ``(n_windows, size, n_variates)``, in the units of the input, oldest sample first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from streamad.errors import WindowError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Arrays = dict[str, NDArray[Any]]
Modality = Literal["signals", "events", "graphs", "frames"]
Cost = Literal["cheap", "moderate", "heavy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorInfo:
    """What a detector declares about itself; ``streamad detectors`` and the docs print it.

    tail : raw scores at the tail probabilities 1e-1, 1e-2, 1e-3, 1e-4 on ordinary data; a key
        without history is judged by these until it has its own.
    nan_ok : share of NaN samples a window may hold and still be scored.
    learns : the detector keeps a memory a key; see `Detector.learn`.
    warm_up : windows of a key that are only learned, never judged, where no artifact covers it.
    n_looks : 2 where the detector also looks at the newest samples; see `Detector.looks`.
    dull : scores below never matter, whatever a key's history; windows that score less are not
        asked for their explanation where ``direction`` or ``min_effect`` need one.
    learn_every, delay : `learn` takes effect at multiples of ``learn_every`` windows of the key,
        and only for windows older than ``delay`` windows.
    """

    name: str
    summary: str
    modality: Modality = "signals"
    min_size: int = 2
    default_size: int = 64
    needs_training: bool = False
    learns: bool = False
    warm_up: int = 0
    learn_every: int = 0
    delay: int = 0
    multivariate: bool = True
    nan_ok: float = 0.0
    cost: Cost = "cheap"
    n_looks: int = 1
    dull: float = 0.0
    tail: tuple[float, float, float, float] = (1.0, 2.0, 3.0, 4.0)
    paper: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowExplanations:
    """Why windows are strange, one row a window.

    observed, expected : float32 ``(n_windows, n_variates)`` at the judged sample
    share : float32 ``(n_windows, n_variates)``, each variate's share of the score, rows sum to 1
    position : int32 ``(n_windows,)``, index of the told sample inside its window
    first, last : int32 ``(n_windows,)``, first and last sample of the event inside the window, -1
        where no sample stands out (None: the told sample alone)
    """

    observed: Floats
    expected: Floats
    share: Floats
    position: Ints
    first: Ints | None = None
    last: Ints | None = None


class Memory(ABC):
    """What a detector takes in as it goes, one slot a key; owned by the shard, not the detector.

    Slots are dense integers given by the operator. All of it can leave as named arrays whose first
    axis is the slot, and come back.
    """

    @abstractmethod
    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1``; new slots are empty."""

    @abstractmethod
    def forget(self, slots: Ints) -> None:
        """Empty these slots, so that other keys may have them."""

    @abstractmethod
    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold, arrays of shape ``(len(slots), ...)``."""

    @abstractmethod
    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned, into these slots."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with, by name."""
        return {}

    @property
    @abstractmethod
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""


class Detector(ABC):
    """One way of saying how strange a window is.

    Scores are float32, finite, higher is stranger. ``score`` and ``explain`` never learn, leave
    their input untouched, and give the same bits for a window alone and in a batch. Equal seeds
    give equal fits.
    """

    info: ClassVar[DetectorInfo]
    finite: ClassVar[tuple[str, ...]] = ()
    """Arrays of ``state`` that hold no NaN and no infinity; other artifacts are refused."""
    from_elsewhere: ClassVar[tuple[str, ...]] = ()
    """Parameters that name what is loaded from elsewhere: an artifact alone may not choose it."""

    def __init__(self, *, size: int | None = None) -> None:
        self.size = self.info.default_size if size is None else size
        if self.size < self.info.min_size:
            msg = (
                f"{self.info.name} needs windows of at least {self.info.min_size} samples, "
                f"got windows.size = {self.size}; raise it"
            )
            raise WindowError(msg)

    @property
    def lag(self) -> int:
        """Samples by which a score trails its window's last sample: it judges that earlier one."""
        return 0

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Learn what is usual from training windows.

        windows : ``(n_windows, size, n_variates)``, in time order inside a group
        groups : ``(n_windows,)``, which series each window is of (None: all of one)
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
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

    def new_memory(self, n_variates: int) -> Memory | None:
        """Return an empty memory where the detector learns as it goes."""
        return None

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:  # noqa: B027 - optional
        """Start a key the artifact was fitted on from what its training group taught."""

    def learn(  # noqa: B027 - optional
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

    def adopt(self, memory: Memory, slots: Ints) -> None:  # noqa: B027 - optional
        """Learn what was held back in an episode of these keys: it is the new normal.

        Called before `learn` is called with the window that ended the episode.
        """

    def state(self) -> Arrays:
        """Return all that ``fit`` learned, as named arrays (empty: nothing to learn)."""
        return {}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        return self


def smoothing(size: int) -> int:
    """Return the windows by which smoothing a centred score trails, for windows of ``size``."""
    return size // 10


def require_windows(windows: Floats, *, size: int | None = None, nan_ok: float = 0.0) -> None:
    """Refuse windows of a wrong kind, shape or with unusable values; raises WindowError."""
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
    if windows.size and not np.isfinite(windows).all():
        if np.isinf(windows).any():
            msg = (
                "windows hold infinite values; the decoder refuses them, so check where they arose"
            )
            raise WindowError(msg)
        share = float(np.isnan(windows).mean(axis=(1, 2)).max())
        if share > nan_ok:
            msg = (
                f"windows hold up to {share:.0%} missing samples and this detector takes "
                f"{nan_ok:.0%}; set series.gaps.fill, or lower series.gaps.max_share"
            )
            raise WindowError(msg)
