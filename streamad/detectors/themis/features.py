"""The vectors of windows that are compared: embeddings of stretches around the judged sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Floats, Ints
from streamad.detectors.embeddings import Encoder, to_patches
from streamad.detectors.scales import draw_in, in_scales

CONTEXT: Final = 256
"""Longest stretch the shipped encoder was trained on; longer ones are averaged down to it."""
CLIP: Final = 1e3
"""Samples in scales end here, far beyond what the encoder was trained on."""
SMOOTHEST: Final = 1e-3
"""Least usual change, as a share of the scale."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the window that is embedded on its own."""

    start: int
    length: int
    factor: int
    n_patches: int


class Features:
    """Turns scaled windows into vectors: of their values, then of their changes; by stretch.

    Changes are the differences of neighbouring samples, in units of what they usually are. They
    stay small where a series drifts, or has moved for good, and values are all far from the past.
    Beside the embedding of a patch of values stand its samples: what the encoder takes for noise
    may be all there is to see.

    encoder : what embeds a stretch; size : samples a window; at : where the judged sample stands in
    the window
    """

    def __init__(self, encoder: Encoder, *, size: int, at: int) -> None:
        self.encoder = encoder
        self.stretches = plan(encoder, size=size, at=at)
        patches = [part.n_patches for part in self.stretches]
        widths = (encoder.width + encoder.patch_size, encoder.width)
        lengths = [n * width for width in widths for n in patches]
        self._columns = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.n_features = int(self._columns[-1])

    def columns(self) -> NDArray[np.int64]:
        """Return where each stretch begins in a vector, values first, and where the last ends."""
        return self._columns

    def embed(self, placed: Floats, in_steps: Floats) -> Floats:
        """Embed scaled windows; float32 ``(n_windows, n_variates, n_features)``.

        Patches are weighted so that stretches of any number of patches count alike.

        in_steps : ``(n_windows, n_variates)``, what a change in scales is multiplied with
        """
        n, size, n_variates = placed.shape
        rows = n * n_variates
        features = np.empty((rows, self.n_features), dtype=np.float32)
        changes = np.diff(placed, axis=1, prepend=placed[:, :1]) * in_steps[:, None]
        both = np.stack([placed, np.clip(changes, -CLIP, CLIP)])
        series = np.ascontiguousarray(both.transpose(0, 1, 3, 2)).reshape(2 * rows, size)
        for place, part in enumerate(self.stretches):
            stretch = averaged(series[:, part.start : part.start + part.length], part.factor)
            tokens = self.encoder.embed(stretch)
            if not self.encoder.keeps_scale:
                tokens = _with_amplitude(tokens, stretch)
            values = np.concatenate([tokens[:rows], self._samples(stretch[:rows])], axis=2)
            weight = np.float32(1.0 / np.sqrt(part.n_patches))
            for column, vectors in ((place, values), (place + len(self.stretches), tokens[rows:])):
                begin, end = self._columns[column : column + 2]
                features[:, begin:end] = (vectors * weight).reshape(rows, -1)
        return features.reshape(n, n_variates, self.n_features)

    def _samples(self, stretch: Floats) -> Floats:
        """Return patches of samples, as far apart as the root mean square of differences."""
        width = self.encoder.patch_size
        patches: Floats = to_patches(stretch, patch_size=width)[:, :, :width]
        return patches * np.float32(1.0 / np.sqrt(width))


def plan(encoder: Encoder, *, size: int, at: int) -> list[Stretch]:
    """Lay out the stretches around the judged sample: the whole window, and a quarter."""
    stretches = []
    for length in (size, size // 4):
        start = min(max(at - length // 2, 0), size - length)
        factor = -(-length // CONTEXT)
        n_patches = -(-(length // factor) // encoder.patch_size)
        stretches.append(Stretch(start, length, factor, n_patches))
    return stretches


def steps(runs: Floats) -> Floats:
    """Return by how much neighbouring samples differ, root mean square, ``(n_variates,)``.

    runs : ``(n_runs, length, n_variates)``; differences with a missing sample do not count

    Examples
    --------
    >>> steps(np.array([[1, 2, np.nan, 5, 4], [3, 3, 3, 3, 3]], np.float32)[:, :, None]).tolist()
    [0.5773502588272095]
    """
    apart = np.diff(runs.astype(np.float64), axis=1)
    seen = ~np.isnan(apart)
    total = np.where(seen, apart * apart, 0.0).sum(axis=(0, 1))
    mean = total / np.maximum(seen.sum(axis=(0, 1)), 1)
    return np.asarray(np.sqrt(mean), dtype=np.float32)


def in_steps(scale: Floats, step: Floats) -> Floats:
    """Return what turns changes in scales into changes in steps; 1 for a constant past.

    Examples
    --------
    >>> in_steps(np.float32([2, 2, 0]), np.float32([0.5, 0, 0])).round().tolist()
    [4.0, 1000.0, 1.0]
    """
    still = scale == 0
    share = np.maximum(step / np.where(still, 1, scale), SMOOTHEST)
    return np.where(still, 1.0, 1.0 / share).astype(np.float32)


def scaled(windows: Floats, of: Ints, loc: Floats, scale: Floats) -> Floats:
    """Return windows in scales from the median, missing samples drawn in."""
    placed = in_scales(windows, loc[of][:, None], scale[of][:, None])
    filled = np.ascontiguousarray(np.clip(placed, -CLIP, CLIP))
    draw_in(filled)
    return filled


def averaged(series: Floats, factor: int) -> Floats:
    """Average ``(n, length)`` by ``factor`` samples, the newest whole, the oldest rest dropped."""
    if factor == 1:
        return np.ascontiguousarray(series)
    length = series.shape[1] // factor
    blocks = series[:, series.shape[1] - length * factor :].reshape(len(series), length, factor)
    seen = ~np.isnan(blocks)
    n_seen = seen.sum(axis=2)
    total = np.where(seen, blocks, 0.0).sum(axis=2)
    return np.where(n_seen > 0, total / np.maximum(n_seen, 1), np.nan).astype(np.float32)


def _with_amplitude(tokens: Floats, stretch: Floats) -> Floats:
    """Give level and log-size of each stretch back to embeddings that lost them.

    They take the place of the last two values of every patch, so that the width stays.
    """
    level = stretch.mean(axis=1)
    size = np.log(np.sqrt(((stretch - level[:, None]) ** 2).mean(axis=1)) + 1e-2)
    out = tokens.copy()
    out[:, :, -2] = level[:, None]
    out[:, :, -1] = size[:, None]
    return out
