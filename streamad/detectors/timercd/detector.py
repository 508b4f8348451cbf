"""The detector itself: how a window is judged, and explained."""

from __future__ import annotations

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
from streamad.errors import WindowError

PATCHES: Final = 4
"""Fewest patches a window may have: with fewer there is no context to compare with."""


class TimeRcd(Detector):
    """Decide per time step whether it fits its context, by a network that was trained for it.

    A transformer was trained on synthetic series with labelled anomalies of 41 kinds (spikes, level
    changes, broken seasons, ...) to estimate each time step's probability of being anomalous, from
    all of the window around it. Nothing is learned from the user's data: there is no fit, no
    warm-up and no memory, and a new series is judged from its first full window on.

    ``score = -ln(1 - P)`` of the judged sample, 0 where it surely fits. With several variates all
    attend to each other; the score is the strangest one's.

    The window is the whole context, scaled by its own mean and deviation. What lasts longer than
    about half of it becomes the normal case, and a slow drift is not seen. Take a window that holds
    two or more periods of the series. The judged sample trails the newest by a patch (16 samples),
    since the network reads what comes after, too.

    Missing samples are drawn in from their neighbours; a patch (16 samples) without any is left
    out, and a missing sample is never strange.

    Parameters
    ----------
    size : samples per window, 64 or more; trained on 256 to 1024
    model : ``"shipped"``, or a directory that ``streamad pretrain timercd`` wrote
    lag : samples by which the judged one trails the newest

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
        default_size=512,
        nan_ok=0.2,
        cost="heavy",
        tail=(0.13, 0.5, 1.1, 1.6),
        paper="Lan et al., Towards Foundation Models for Zero-Shot Time Series Anomaly Detection "
        "(TimeRCD), arXiv 2509.21190, 2025",
    )

    def __init__(
        self, *, size: int | None = None, model: str = SHIPPED, lag: int | None = None
    ) -> None:
        super().__init__(size=size)
        self.model = model
        self._rcd = load_rcd(model)
        patch = self._rcd.patch
        if self.size < PATCHES * patch:
            msg = (
                f"model {model!r} reads patches of {patch} samples and needs {PATCHES} of them, "
                f"got windows.size = {self.size}; set it to {PATCHES * patch} or more"
            )
            raise WindowError(msg)
        self._length = self.size // patch * patch
        self._lag = patch if lag is None else lag
        if not 0 <= self._lag < self._length:
            msg = f"lag must lie in 0 .. {self._length - 1} (inside the window), got {lag}"
            raise WindowError(msg)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

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
        _, log_odds = self._judge(windows)
        judged = self._rcd.combined(log_odds[:, :, self._length - 1 - self._lag])
        return _surprise(judged)

    def score_samples(self, windows: Floats) -> Floats:
        """Return the score of every sample of each window, float32 ``(n_windows, size)``.

        One call decides a whole file in steps of a patch; the newest samples know the least of what
        comes after them. The oldest ``size % 16`` have no score, they are 0.
        """
        _, log_odds = self._judge(windows)
        out = np.zeros(windows.shape[:2], dtype=np.float32)
        out[:, self.size - self._length :] = _surprise(self._rcd.combined(log_odds))
        return out

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, and what the network fills in where the event is hidden.

        The event is the run of samples around the judged one that are more likely anomalous than
        not; its patches are hidden, at most half of the window's, and filled in from the others.
        """
        given, log_odds = self._judge(windows)
        n, at = len(windows), self._length - 1 - self._lag
        whole = self._rcd.combined(log_odds)
        first, last = _runs(whole > 0, at)
        patch, n_patches = self._rcd.patch, self._length // self._rcd.patch
        place = np.arange(n_patches)[None, :]
        begin = np.where(first < 0, at, first)[:, None] // patch
        end = np.where(first < 0, at, last)[:, None] // patch
        near = np.abs(place - at // patch) < max(n_patches // 4, 1)
        expected = self._rcd.expected(given, (place >= begin) & (place <= end) & near)[:, :, at]
        offset = self.size - self._length
        observed = windows[:, offset + at]
        judged = np.nan_to_num(log_odds[:, :, at], nan=-np.inf)
        weights = _surprise(judged) + np.float32(1e-9)
        moved = np.where(first < 0, -1, first + offset).astype(np.int32)
        return WindowExplanations(
            observed=observed.copy(),
            expected=np.ascontiguousarray(expected, dtype=np.float32),
            share=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
            position=np.full(n, offset + at, dtype=np.int32),
            first=moved,
            last=np.where(first < 0, -1, last + offset).astype(np.int32),
        )

    def state(self) -> Arrays:
        """Return nothing: nothing is learned."""
        return {}

    def _judge(self, windows: Floats) -> tuple[Normalised, Floats]:
        """Return windows as the network reads them, and log odds ``(n, n_variates, length)``.

        Log odds are NaN where a sample is missing.
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        given = normalised(windows, patch=self._rcd.patch)
        log_odds = self._rcd.log_odds(given)
        missing = np.isnan(windows[:, self.size - self._length :]).transpose(0, 2, 1)
        return given, np.where(missing, np.float32(np.nan), log_odds)


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
