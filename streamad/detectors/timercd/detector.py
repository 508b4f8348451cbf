"""The detector itself: how a window is judged, and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

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
from streamad.detectors.embeddings import SHIPPED
from streamad.detectors.timercd.model import Normalised, load_rcd, normalised
from streamad.errors import ConfigError, WindowError

PATCHES: Final = 4
"""Fewest patches a window may have: with fewer there is no context to compare with."""
SCALES: Final = (1, 2, 4, 8, 16)
"""Samples that are averaged into one before the network reads a window; see `TimeRcd`."""
MOST_SCALES, COARSEST = 8, 256
LONGEST: Final = 1024
"""Most samples, or averages, that are read at one scale: longer contexts were not trained with."""
TAIL: Final = (0.2, 0.8, 1.9, 2.6)
"""Of contexts of 64 samples, with which a key begins; longer ones have smaller scores."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A window as it is read at one scale.

    log_odds : ``(n, n_variates, samples)`` of averages, NaN where all samples of one are missing
    counts : bool ``(n,)``, the windows that hold enough for this scale
    """

    scale: int
    given: Normalised
    log_odds: Floats
    counts: NDArray[np.bool_]

    def place(self, lag: int) -> int:
        """Return where the sample lies that trails the newest by ``lag``."""
        return int(self.log_odds.shape[2]) - 1 - lag // self.scale


class TimeRcd(Detector):
    """Decide per time step whether it fits its context, by a network that was trained for it.

    A transformer was trained on synthetic series with labelled anomalies of 41 kinds (spikes, level
    changes, broken seasons, ...) to estimate each time step's probability of being anomalous, from
    all of the window around it. Nothing is learned from the user's data: there is no fit, no
    warm-up and no memory, and a new series is judged from its 64th sample on, by the samples there
    are (docs/adr/0034); with each of them up to ``size`` it is judged better.

    The network reads the window several times, as it is and with every 2, 4, 8 and 16 samples
    averaged into one, and ``score = mean over scales of -ln(1 - P)`` of the judged sample: 0 where
    it surely fits at each. What is long, or drowns in noise, is read at the scale at which it is as
    long as what the network was trained with; that ranks far better than one scale
    (docs/adr/0032). With several variates all attend to each other; the score is the strangest
    one's.

    The window is the whole context, scaled by its own mean and deviation. A level that lasts
    becomes the normal case, after about half of it at the latest, and a slow drift is not seen.
    Take a window that holds two or more periods of the series. The judged sample trails the newest
    by a patch (16 samples), since the network reads what comes after, too.

    Missing samples are drawn in from their neighbours; a patch (16 samples) without any is left
    out, and a missing sample is never strange.

    Parameters
    ----------
    size : samples per window, 64 or more; more ranks better and takes longer
    model : ``"shipped"``, or a directory that ``streamad pretrain timercd`` wrote
    lag : samples by which the judged one trails the newest
    scales : samples averaged into one, for each reading of a window: up to the newest 1,024
        averages; those at which a window has fewer than 4 patches (64 averages) are left out

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(900, dtype=np.float32)
    >>> series = np.sin(2 * np.pi * t / 32) + 0.05 * np.cos(t * t)
    >>> windows = np.lib.stride_tricks.sliding_window_view(series, 512)[:, :, None].copy()
    >>> detector = TimeRcd(size=512)
    >>> detector.score(windows[:3]).shape
    (3,)
    """

    from_elsewhere: ClassVar[tuple[str, ...]] = ("model",)
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="timercd",
        summary="a transformer pretrained on synthetic anomalies; nothing to fit, no memory",
        min_size=64,
        default_size=2048,
        nan_ok=0.2,
        cost="heavy",
        tail=TAIL,
        paper="Lan et al., Towards Foundation Models for Zero-Shot Time Series Anomaly Detection "
        "(TimeRCD), arXiv 2509.21190, 2025",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        model: str = SHIPPED,
        lag: int | None = None,
        scales: Sequence[int] = SCALES,
    ) -> None:
        super().__init__(size=size)
        self.scales = _checked(scales)
        self.model = model
        self._rcd = load_rcd(model)
        patch = self._rcd.patch
        if self.size < PATCHES * patch:
            msg = (
                f"model {model!r} reads patches of {patch} samples and needs {PATCHES} of them, "
                f"got windows.size = {self.size}; set it to {PATCHES * patch} or more"
            )
            raise WindowError(msg)
        self._length = min(self.size, LONGEST) // patch * patch
        self._lag = patch if lag is None else lag
        if not 0 <= self._lag < self._length:
            msg = f"lag must lie in 0 .. {self._length - 1} (inside what is read), got {lag}"
            raise WindowError(msg)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    @property
    def min_periods(self) -> int:
        """Samples from which a key is judged: as many as the network needs for a context."""
        return PATCHES * self._rcd.patch

    @property
    def reach(self) -> int:
        """Samples for which an event moves scores: each is of its own sample, not of a window."""
        return min(self.size, PATCHES * self._rcd.patch)

    @property
    def step(self) -> int:
        """Samples per patch: `score_samples` decides a series in steps of them."""
        return self._rcd.patch

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Check the windows; there is nothing to learn from them."""
        return super().fit(windows, groups=groups)

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return ``-ln(1 - P)`` of the judged sample being anomalous, float32 ``(n_windows,)``."""
        readings = self._readings(windows)
        total = np.zeros(len(windows), dtype=np.float32)
        for read in readings:
            strange = _surprise(self._rcd.combined(self._judged(read, windows)))
            total += np.where(read.counts, strange, np.float32(0))
        return total / _number(readings)

    def score_samples(self, windows: Floats) -> Floats:
        """Return the score of every sample of each window, float32 ``(n_windows, size)``.

        One call decides a whole file in steps of a patch; the newest samples know the least of what
        comes after them. The oldest ``size % 16`` have no score, they are 0.
        """
        out = np.zeros(windows.shape[:2], dtype=np.float32)
        readings = self._readings(windows)
        for read in readings:
            whole = np.repeat(read.log_odds, read.scale, axis=2)
            begin = self.size - whole.shape[2]
            missing = np.isnan(windows[:, begin:]).transpose(0, 2, 1)
            strange = _surprise(self._rcd.combined(np.where(missing, np.nan, whole)))
            out[:, begin:] += np.where(read.counts[:, None], strange, np.float32(0))
        return out / _number(readings)[:, None]

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, and what the network fills in where the event is hidden.

        It is told at the scale at which the judged sample is strangest. The event is the run of
        samples around it that are more likely anomalous than not; its patches are hidden, at most
        half of the window's, and filled in from the others.
        """
        readings = self._readings(windows)
        strange = [
            np.where(read.counts, _surprise(self._rcd.combined(self._judged(read, windows))), -1)
            for read in readings
        ]
        teller = np.argmax(strange, axis=0)
        n, n_variates = len(windows), windows.shape[2]
        at = self.size - 1 - self._lag
        expected = np.empty((n, n_variates), dtype=np.float32)
        first, last = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
        weights = np.full((n, n_variates), 1e-9, dtype=np.float32)
        for number, read in enumerate(readings):
            each = _surprise(np.nan_to_num(self._judged(read, windows), nan=-np.inf))
            weights += np.where(read.counts[:, None], each, np.float32(0))
            ours = np.flatnonzero(teller == number)
            if len(ours):
                told, *event = self._told(read, ours)
                expected[ours] = told
                for place, end in zip((first, last), event, strict=True):
                    place[ours] = end
        return WindowExplanations(
            observed=windows[:, at].copy(),
            expected=expected,
            share=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
            position=np.full(n, at, dtype=np.int32),
            first=first,
            last=last,
        )

    def _judged(self, read: _Reading, windows: Floats) -> Floats:
        """Return log odds of the judged sample ``(n, n_variates)``; NaN where it is missing."""
        missing = np.isnan(windows[:, self.size - 1 - self._lag])
        judged = read.log_odds[:, :, read.place(self._lag)]
        return np.where(missing, np.float32(np.nan), judged)

    def _told(self, read: _Reading, ours: Ints) -> tuple[Floats, Ints, Ints]:
        """Return of some windows what is filled in at the judged sample, and the event's ends."""
        at, length = read.place(self._lag), read.log_odds.shape[2]
        first, last = _runs(self._rcd.combined(read.log_odds[ours]) > 0, at)
        patch, n_patches = self._rcd.patch, length // self._rcd.patch
        place = np.arange(n_patches)[None, :]
        begin = np.where(first < 0, at, first)[:, None] // patch
        end = np.where(first < 0, at, last)[:, None] // patch
        near = np.abs(place - at // patch) < max(n_patches // 4, 1)
        hidden = (place >= begin) & (place <= end) & near
        expected = self._rcd.expected(read.given.of(ours), hidden)[:, :, at]
        offset, scale, newest = self.size - length * read.scale, read.scale, self.size - 1
        since = np.where(first < 0, -1, offset + first * scale)
        until = np.where(first < 0, -1, np.minimum(offset + (last + 1) * scale - 1, newest))
        return expected, since.astype(np.int32), until.astype(np.int32)

    def state(self) -> Arrays:
        """Return nothing: nothing is learned."""
        return {}

    def _readings(self, windows: Floats) -> list[_Reading]:
        """Return windows as the network reads them, at each scale that has patches enough."""
        filled = require_windows(
            windows, size=self.size, nan_ok=self.info.nan_ok, min_periods=self.min_periods
        )
        patch, made = self._rcd.patch, []
        # A full window may begin with missing samples.
        full = filled >= (1.0 - self.info.nan_ok) * self.size
        for scale in self.scales:
            length = min(self.size // scale, LONGEST) // patch * patch
            if length < PATCHES * patch or self._lag // scale >= length:
                continue
            averages = _averaged(windows[:, self.size - length * scale :], scale)
            if filled.min(initial=self.size) < self.size:
                averages = _whole_patches(averages, filled // scale, patch)
            given = normalised(averages, patch=patch)
            log_odds = self._rcd.log_odds(given)
            missing = np.isnan(averages).transpose(0, 2, 1)
            log_odds = np.where(missing, np.float32(np.nan), log_odds)
            counts = full | (filled >= PATCHES * patch * scale) | (scale == 1)
            made.append(_Reading(scale, given, log_odds, counts))
        return made


def _number(readings: Sequence[_Reading]) -> Floats:
    """Return at how many scales each window is read."""
    number: Floats = np.sum([read.counts for read in readings], axis=0, dtype=np.float32)
    return number


def _checked(scales: Sequence[int]) -> tuple[int, ...]:
    kept = tuple(scales) if isinstance(scales, Sequence) else (scales,)
    fit = all(isinstance(one, int) and 1 <= one <= COARSEST for one in kept)
    if not fit or not 1 <= len(kept) <= MOST_SCALES or len(set(kept)) < len(kept) or 1 not in kept:
        msg = (
            f"scales must be 1 to {MOST_SCALES} different whole numbers from 1 to {COARSEST}, one "
            f"of them 1; got {list(kept)}"
        )
        raise ConfigError(msg)
    return kept


def _averaged(windows: Floats, scale: int) -> Floats:
    """Return means of ``scale`` samples each; missing where all of them are."""
    if scale == 1:
        return windows
    n, size, n_variates = windows.shape
    parts = windows.reshape(n, size // scale, scale, n_variates)
    present = ~np.isnan(parts)
    # float64: sums of what float32 can hold would not be finite in it.
    total = np.where(present, parts, 0).astype(np.float64).sum(axis=2)
    count = present.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _whole_patches(averages: Floats, held: Ints, patch: int) -> Floats:
    """Return averages without those of a patch that is held in part, as of a window that begins so.

    held : ``(n,)``, how many averages each window holds
    """
    kept = np.maximum(held // patch, 1) * patch
    place = np.arange(averages.shape[1])[None, :]
    gone = place < averages.shape[1] - kept[:, None]
    return np.where(gone[..., None], np.float32(np.nan), averages)


def _surprise(log_odds: Floats) -> Floats:
    """Return ``-ln(1 - P)`` of log odds: 0 for what fits, then the log odds themselves.

    Examples
    --------
    >>> [round(float(one), 2) for one in _surprise(np.array([-30, 0, 30], dtype=np.float32))]
    [0.0, 0.69, 30.0]
    """
    return np.logaddexp(np.float32(0), log_odds).astype(np.float32)


def _runs(strange: NDArray[np.bool_], at: int) -> tuple[Ints, Ints]:
    """Return first and last sample of the run of strange ones around ``at``; -1 where it is none.

    strange : ``(n, length)``

    Examples
    --------
    >>> a, b = _runs(np.array([[0, 1, 1, 1, 0], [1, 0, 0, 1, 1]], dtype=bool), 2)
    >>> a.tolist(), b.tolist()
    ([1, -1], [3, -1])
    """
    length = strange.shape[1]
    before, after = ~strange[:, : at + 1][:, ::-1], ~strange[:, at:]
    back = np.where(before.any(axis=1), before.argmax(axis=1), at + 1)
    ahead = np.where(after.any(axis=1), after.argmax(axis=1), length - at)
    inside = strange[:, at]
    first = np.where(inside, at - back + 1, -1).astype(np.int32)
    return first, np.where(inside, at + ahead - 1, -1).astype(np.int32)
