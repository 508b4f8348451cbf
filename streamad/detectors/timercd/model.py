"""A pretrained TimeRCD served by ONNX Runtime: windows in, log odds of each time step out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamad.detectors.base import Floats
from streamad.detectors.embeddings import BATCHES, SHIPPED, in_batches
from streamad.detectors.scales import SCALE_SHARE, TINIEST, draw_in
from streamad.detectors.sessions import open_session
from streamad.errors import ArtifactError

MODEL, EXPECTED, CONFIG = "model.onnx", "expected.onnx", "config.json"
CLIP: Final = 30.0
"""Normalised samples end here, as in training (`streamad.training.corpus.batches`)."""
FLAT: Final = 1e-4
"""Share added to every deviation, as in training."""
MOST_PATCH: Final = 4_096
MOST_PAIRS: Final = 64 * 64 * 64
"""Windows times tokens squared in one call: attention over many variates is bounded by memory."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """Windows as the network reads them.

    patches : float32 ``(n, n_variates, n_patches, patch)``, in deviations from the window's mean,
        missing samples drawn in; seen : float32 ``(n, n_variates, n_patches)``, 0 for patches
        without a sample; loc, scale : float32 ``(n, n_variates)``, 0 scale: a constant window
    """

    patches: Floats
    seen: Floats
    loc: Floats
    scale: Floats

    def of(self, rows: NDArray[np.intp]) -> Normalised:
        """Return some of the windows."""
        return Normalised(self.patches[rows], self.seen[rows], self.loc[rows], self.scale[rows])


def normalised(windows: Floats, *, patch: int) -> Normalised:
    """Scale each variate of ``(n, size, n_variates)`` by its own window and cut it into patches.

    Patches end at the newest sample; the oldest ``size % patch`` samples are not looked at. A
    window holds no sample newer than those it judges, so this looks into no future.
    """
    n, size, n_variates = windows.shape
    n_patches = size // patch
    series = windows[:, size - n_patches * patch :]
    present = ~np.isnan(series)
    n_present = np.maximum(present.sum(axis=1), 1)
    # float64: squares of what float32 can hold would not be finite in it.
    filled = np.where(present, series, 0).astype(np.float64)
    loc = filled.sum(axis=1) / n_present
    gap = np.where(present, filled - loc[:, None], 0.0)
    scale = np.sqrt((gap * gap).sum(axis=1) / n_present)
    scale[scale <= np.maximum(SCALE_SHARE * np.abs(loc), TINIEST)] = 0.0
    by = np.where(scale > 0, scale * (1.0 + FLAT), 1.0)
    placed = np.where(scale[:, None] > 0, np.clip(gap / by[:, None], -CLIP, CLIP), 0.0)
    placed = np.where(present, placed, np.nan).astype(np.float32)
    draw_in(placed)
    cut = (n, n_patches, patch, n_variates)
    return Normalised(
        patches=np.ascontiguousarray(placed.reshape(cut).transpose(0, 3, 1, 2)),
        seen=present.reshape(cut).any(axis=2).transpose(0, 2, 1).astype(np.float32),
        loc=loc.astype(np.float32),
        scale=scale.astype(np.float32),
    )


class PretrainedRcd:
    """A directory that ``streamad pretrain timercd`` wrote, in ONNX Runtime on one thread.

    Attributes
    ----------
    patch : samples per patch; combine : ``"max"`` or ``"mean"``, how variates make one score
    """

    def __init__(self, directory: str) -> None:
        self.patch, self.combine = _read_config(Path(directory) / CONFIG)
        self._directory = directory
        self._model = open_session(str(Path(directory) / MODEL), what="TimeRCD model")

    def log_odds(self, given: Normalised) -> Floats:
        """Return log odds of being anomalous, float32 ``(n, n_variates, samples)``."""
        whole = np.concatenate([given.patches, given.seen[..., None]], axis=-1)

        def run(part: Floats) -> Floats:
            patches = np.ascontiguousarray(part[..., :-1])
            seen = np.ascontiguousarray(part[..., -1])
            made: Floats = self._model.run(None, {"patches": patches, "seen": seen})[0]
            return made

        made = in_batches(whole, run, _shapes(given))
        return _joined(made)

    def combined(self, log_odds: Floats) -> Floats:
        """Return log odds of ``(n, n_variates, ...)`` over variates, ``(n, ...)``.

        NaN stands for a missing sample, minus infinity is returned where all are.
        """
        present = ~np.isnan(log_odds)
        if self.combine == "max":
            most: Floats = np.where(present, log_odds, np.float32(-np.inf)).max(axis=1)
            return most
        n_present = present.sum(axis=1)
        total = np.where(present, log_odds, np.float32(0)).sum(axis=1)
        mean = total / np.maximum(n_present, 1).astype(np.float32)
        return np.where(n_present > 0, mean, np.float32(-np.inf))

    def expected(self, given: Normalised, hidden: NDArray[np.bool_]) -> Floats:
        """Return samples as the rest of the window has them expected, in units of the input.

        hidden : ``(n, n_patches)``, the patches that are not shown; ``(n, n_variates, samples)``
        """
        session = _explainer(self._directory)
        shown = np.broadcast_to(hidden[:, None, :], given.seen.shape).astype(np.float32)
        extra = np.stack([given.seen, shown], axis=-1)
        whole = np.concatenate([given.patches, extra], axis=-1)

        def run(part: Floats) -> Floats:
            named = {"patches": part[..., :-2], "seen": part[..., -2], "hidden": part[..., -1]}
            made: Floats = session.run(
                None, {name: np.ascontiguousarray(array) for name, array in named.items()}
            )[0]
            return made

        made = _joined(in_batches(whole, run, _shapes(given)))
        return np.asarray(made * given.scale[..., None] + given.loc[..., None], dtype=np.float32)


def _joined(patches: Floats) -> Floats:
    """Return patches ``(n, n_variates, n_patches, patch)`` as series."""
    n, n_variates, n_patches, patch = patches.shape
    return patches.reshape(n, n_variates, n_patches * patch)


def _shapes(given: Normalised) -> tuple[int, ...]:
    """Return the batch shapes for windows of this many tokens."""
    tokens = given.seen.shape[1] * given.seen.shape[2]
    return tuple(b for b in BATCHES if b * tokens * tokens <= MOST_PAIRS) or (1,)


def _read_config(path: Path) -> tuple[int, str]:
    """Return patch size and how variates are combined; raises ArtifactError."""
    if not path.is_file():
        msg = (
            f"no TimeRCD at {path.parent}: {path.name} is missing; name a directory that "
            f"'streamad pretrain timercd' wrote, or {SHIPPED!r}"
        )
        raise ArtifactError(msg)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        patch, combine = int(about["patch"]), str(about["combine"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no configuration of TimeRCD: {type(error).__name__}: {error}"
        raise ArtifactError(msg) from error
    if not 1 <= patch <= MOST_PATCH or combine not in {"max", "mean"}:
        msg = (
            f"{path} has patch = {patch} and combine = {combine!r}; expected a patch of 1 to "
            f"{MOST_PATCH} samples and 'max' or 'mean'"
        )
        raise ArtifactError(msg)
    return patch, combine


def directory_of(model: str) -> str:
    """Return the directory a name stands for: itself, or the weights of the package."""
    if model == SHIPPED:
        return str(files("streamad.detectors") / "weights" / "timercd")
    return model


@lru_cache(maxsize=4)
def load_rcd(model: str) -> PretrainedRcd:
    """Return the model called so, loaded once per process: ``"shipped"``, or a directory."""
    return PretrainedRcd(directory_of(model))


@lru_cache(maxsize=4)
def _explainer(directory: str) -> onnxruntime.InferenceSession:
    """Return the session that explains: loaded when the first explanation is asked for."""
    return open_session(str(Path(directory) / EXPECTED), what="TimeRCD explainer")
