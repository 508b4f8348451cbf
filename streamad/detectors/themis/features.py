"""The vectors of windows that are compared: embeddings of stretches around the judged sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Floats, Ints
from streamad.detectors.embeddings import Encoder
from streamad.detectors.scales import draw_in, in_scales

CONTEXT: Final = 256
"""Longest stretch the shipped encoder was trained on; longer ones are averaged down to it."""
CLIP: Final = 1e3
"""Samples in scales end here, far beyond what the encoder was trained on."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the window that is embedded on its own, and where its embedding stands."""

    start: int
    length: int
    factor: int
    n_patches: int
    column: int


class Features:
    """Turns scaled windows into vectors, stretch by stretch; all a vector's stretches count alike.

    encoder : what embeds a stretch; size : samples a window; at : where the judged sample stands in
    the window
    """

    def __init__(self, encoder: Encoder, *, size: int, at: int) -> None:
        self.encoder = encoder
        self.stretches = plan(encoder, size=size, at=at)
        last = self.stretches[-1]
        self.n_features = last.column + last.n_patches * encoder.width

    def columns(self) -> NDArray[np.int64]:
        """Return where each stretch begins in a vector, and where the last ends."""
        starts = [stretch.column for stretch in self.stretches]
        return np.array([*starts, self.n_features], dtype=np.int64)

    def embed(self, placed: Floats) -> Floats:
        """Embed scaled windows; float32 ``(n_windows, n_variates, n_features)``.

        Patches are weighted so that stretches of any number of patches count alike.
        """
        n, size, n_variates = placed.shape
        features = np.empty((n, n_variates, self.n_features), dtype=np.float32)
        series = np.ascontiguousarray(placed.transpose(0, 2, 1)).reshape(n * n_variates, size)
        for part in self.stretches:
            stretch = averaged(series[:, part.start : part.start + part.length], part.factor)
            tokens = self.encoder.embed(stretch)
            if not self.encoder.keeps_scale:
                tokens = _with_amplitude(tokens, stretch)
            weight = np.float32(1.0 / np.sqrt(part.n_patches))
            end = part.column + part.n_patches * self.encoder.width
            flat = (tokens * weight).reshape(n, n_variates, -1)
            features[:, :, part.column : end] = flat
        return features


def plan(encoder: Encoder, *, size: int, at: int) -> list[Stretch]:
    """Lay out the stretches around the judged sample: whole, half, quarter."""
    stretches, column = [], 0
    for length in (size, size // 2, size // 4):
        start = min(max(at - length // 2, 0), size - length)
        factor = -(-length // CONTEXT)
        n_patches = -(-(length // factor) // encoder.patch_size)
        stretches.append(Stretch(start, length, factor, n_patches, column))
        column += n_patches * encoder.width
    return stretches


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
