"""Encoders that turn windows into patch embeddings, served by ONNX Runtime or, at request, torch.

A detector that embeds must not care which: both give ``(n_windows, n_patches, width)``, and a row
never depends on what else is in the batch. Only `HubEncoder` imports torch, when it is made.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Floats
from streamad.detectors.sessions import open_session

CLIP: Final = 12.0
"""Scaled samples end here: the encoder was trained on such, and finite in is finite out."""
BATCHES: Final = (4, 16, 64)
"""Batch shapes the runtime ever sees; what falls short is filled up with empty windows."""
TOO_FLAT: Final = 1e-5
"""Below this deviation (in training scales) a window has no shape of its own to speak of."""
SHIPPED: Final = "shipped"
FEATURES, EMBEDDINGS = "features.onnx", "model.onnx"
"""Files of a trained encoder: short vectors of its first block, and all of it."""


class Encoder(Protocol):
    """What a detector asks of an encoder.

    Attributes
    ----------
    patch_size : samples a patch
    width : values a patch embedding has
    keeps_scale : whether the level and size of scaled windows show in their embeddings
    """

    patch_size: int
    width: int
    keeps_scale: bool

    def embed(self, series: Floats) -> Floats:
        """Embed scaled series ``(n, length)``, NaN where missing; ``(n, n_patches, width)``."""


def own_scale(series: Floats) -> Floats:
    """Scale each row of ``(n, length)`` by its own mean and deviation, as Chronos-Bolt does.

    Missing samples stay NaN; a flat row becomes zeros.
    """
    seen = ~np.isnan(series)
    n_seen = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    filled = np.where(seen, series, 0.0).astype(np.float64)
    loc = filled.sum(axis=1, keepdims=True) / n_seen
    gap = np.where(seen, filled - loc, 0.0)
    scale = np.sqrt((gap * gap).sum(axis=1, keepdims=True) / n_seen)
    # Rounding alone makes a flat row look alive; below float32 next to the level is no shape.
    flat = scale <= np.maximum(TOO_FLAT, 1e-6 * np.abs(loc))
    scaled = np.where(flat, 0.0, gap / np.where(flat, 1.0, scale))
    return np.where(seen, scaled, np.nan).astype(np.float32)


def to_patches(series: Floats, *, patch_size: int) -> Floats:
    """Cut scaled series ``(n, length)`` into what the encoder reads.

    Returns float32 ``(n, n_patches, 2 * patch_size)``: values (0 where missing), then the mask.
    Patches end at the newest sample; the oldest is filled up with missing ones.
    """
    n, length = series.shape
    n_patches = -(-length // patch_size)
    seen = ~np.isnan(series)
    values = np.zeros((n, n_patches * patch_size), dtype=np.float32)
    mask = np.zeros_like(values)
    values[:, -length:] = np.clip(np.where(seen, series, 0.0), -CLIP, CLIP)
    mask[:, -length:] = seen
    shape = (n, n_patches, patch_size)
    return np.concatenate([values.reshape(shape), mask.reshape(shape)], axis=2)


class OnnxEncoder:
    """An exported Chronos-Bolt encoder in ONNX Runtime, one thread.

    Parameters
    ----------
    path : the ``.onnx`` file; its input is ``patches (n_windows, n_patches, 2 * patch_size)``
    """

    keeps_scale = True

    def __init__(self, path: str) -> None:
        self._session = open_session(path, what="ONNX encoder")
        self._input = self._session.get_inputs()[0].name
        self.patch_size = int(self._session.get_inputs()[0].shape[2]) // 2
        self.width = int(self._session.get_outputs()[0].shape[2])

    def embed(self, series: Floats) -> Floats:
        """Embed scaled series ``(n, length)``; ``(n, n_patches, width)``."""
        return in_batches(to_patches(series, patch_size=self.patch_size), self._run)

    def _run(self, patches: Floats) -> Floats:
        embeddings: Floats = self._session.run(None, {self._input: patches})[0]
        return embeddings


class _Run(Protocol):
    def __call__(self, patches: Floats, /) -> Floats: ...


def in_batches(patches: Floats, run: _Run, shapes: tuple[int, ...] = BATCHES) -> Floats:
    """Run patches through ``run`` in batches of fixed shapes, and drop what filled them up."""
    n = len(patches)
    if n == 0:
        return run(np.zeros((shapes[0], *patches.shape[1:]), dtype=np.float32))[:0]
    parts, start = [], 0
    while start < n:
        room = next((b for b in shapes if n - start <= b), shapes[-1])
        part = patches[start : start + room]
        if len(part) < room:
            padded = np.zeros((room, *patches.shape[1:]), dtype=np.float32)
            padded[: len(part)] = part
            parts.append(run(padded)[: len(part)])
        else:
            parts.append(run(np.ascontiguousarray(part)))
        start += room
    return np.concatenate(parts)


class HubEncoder:
    """A Chronos model of the user's own choice, run by torch: a hub id or a local directory.

    Embeddings are projected to ``width`` values by a seeded Gaussian matrix, which keeps distances
    (Johnson and Lindenstrauss, 1984), so that memory a key does not grow with the model.

    Chronos-Bolt is shown windows in training scale. T5-Chronos and Chronos-2 normalise every
    window themselves: ``keeps_scale`` is false, and the detector adds level and size.
    """

    def __init__(self, model: str, *, width: int = 32, patch_size: int = 16) -> None:
        torch, pipeline_class = _torch_and_chronos(model)
        self._torch = torch
        self._pipeline = pipeline_class.from_pretrained(
            model, device_map="cpu", dtype=torch.float32
        )
        inner = self._pipeline.model
        settings = getattr(inner, "chronos_config", None)
        self.keeps_scale = type(self._pipeline).__name__ == "ChronosBoltPipeline"
        self.patch_size = int(getattr(settings, "input_patch_size", patch_size))
        self.width = width
        # A T5-Chronos wraps the network; its own `config` is about tokens.
        d_model = int(getattr(inner, "model", inner).config.d_model)
        matrix = np.random.default_rng(0).standard_normal((d_model, width)) / np.sqrt(width)
        self._projection = matrix.astype(np.float32)
        self._scale = 1.0
        self._scale = self._measure_scale()

    def embed(self, series: Floats) -> Floats:
        """Embed scaled series ``(n, length)``; ``(n, n_patches, width)``."""
        raw = self._bolt(series) if self.keeps_scale else self._other(series)
        n, n_patches, d_model = raw.shape
        flat = np.matmul(raw.reshape(n, n_patches, 1, d_model), self._projection)
        return np.asarray(flat[:, :, 0] / self._scale, dtype=np.float32)

    def _measure_scale(self) -> float:
        """Return the deviation of embeddings of ordinary noise, which becomes one."""
        noise = np.random.default_rng(1).standard_normal((32, 4 * self.patch_size))
        made = self.embed(noise.astype(np.float32))
        return float(np.sqrt(((made - made.mean(axis=(0, 1))) ** 2).sum(axis=2).mean())) or 1.0

    def _bolt(self, series: Floats) -> Floats:
        from streamad.networks.bolt_encoder import BoltEncoder  # noqa: PLC0415 imports torch

        network = BoltEncoder(self._pipeline.model).eval()

        def run(patches: Floats) -> Floats:
            with self._torch.inference_mode():
                made = network(self._torch.from_numpy(patches))
            embeddings: Floats = made[:, :-1].numpy()
            return embeddings

        # One shape: torch sums a small batch in another order than a large one on some processors.
        return in_batches(to_patches(series, patch_size=self.patch_size), run, BATCHES[-1:])

    def _other(self, series: Floats) -> Floats:
        """Embed by the pipeline; samples of a T5-Chronos are averaged to patches."""
        n_patches = -(-series.shape[1] // self.patch_size)
        made: list[NDArray[Any]] = []
        for row in series:  # one by one: a row must not depend on its batch
            context = self._torch.from_numpy(row[None])
            if type(self._pipeline).__name__ == "Chronos2Pipeline":
                made.append(self._pipeline.embed(context[:, None])[0][0][0, :-2].numpy())
                continue
            each = self._pipeline.embed(context)[0][0, :-1].to(self._torch.float32).numpy()
            short = n_patches * self.patch_size - len(each)
            padded = np.concatenate([np.repeat(each[:1], short, axis=0), each])
            made.append(padded.reshape(n_patches, self.patch_size, -1).mean(axis=1))
        return np.asarray(np.stack(made), dtype=np.float32)


def _torch_and_chronos(model: str) -> tuple[Any, Any]:
    """Import what a user's own model needs; a missing extra answers with the line to type."""
    try:
        import torch  # noqa: PLC0415 an extra: scoring with shipped weights never loads it
        from chronos import BaseChronosPipeline  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "chronos"}:
            raise
        msg = (
            f"themis with model = {model!r} runs through torch; "
            "install it with: pip install 'streamad-pipeline[train]'"
        )
        raise ImportError(msg) from error
    return torch, BaseChronosPipeline


@lru_cache(maxsize=4)
def load_encoder(model: str, kind: str = FEATURES) -> Encoder:
    """Return the encoder called ``model``, loaded once a process.

    model : ``"shipped"``; a directory the training script wrote (it holds ``features.onnx``); else
        the directory or hub id of any Chronos model, which needs the extra ``train``
    kind : ``FEATURES`` (shallow, short vectors) or ``EMBEDDINGS`` (the whole encoder)
    """
    if model == SHIPPED:
        return OnnxEncoder(str(files("streamad.detectors") / "weights" / "themis" / kind))
    local = Path(model) / kind
    return OnnxEncoder(str(local)) if local.is_file() else HubEncoder(model)
