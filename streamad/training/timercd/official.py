"""Read the checkpoints the authors of TimeRCD publish (``pretrain_checkpoint_best*.pth``).

Such a file is a pickle of tensors: a dictionary with ``model_state_dict``, or that dictionary
itself, its names perhaps with the prefix ``module.``. It is read with ``weights_only=True``, which
runs no code. Names map to those of `streamad.networks.timercd` by `NAMES`; sizes follow from the
shapes, and whether it is multivariate from the presence of the variate bias.

Source of the layout: github.com/thu-sail-lab/Time-RCD, ``ts_encoder_bi_bias.py`` and
``TimeRCD_pretrain_multi.py``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from streamad.errors import ArtifactError
from streamad.networks.timercd import TimeRCD, TimeRCDConfig, paper

NAMES: Final = (
    (r"^ts_encoder\.embedding_layer\.", "embedding_layer."),
    (r"^ts_encoder\.transformer_encoder\.layers\.", "layers."),
    (r"^ts_encoder\.projection_layer\.", "projection_layer."),
    (r"^anomaly_head\.", "anomaly_head."),
    (r"^reconstruction_head\.", "reconstruction_head."),
)
"""Names of theirs, as patterns, and what they become here; the rest of a name is the same."""
COMPUTED: Final = "ts_encoder.rope_embedder.inv_freq"
"""A buffer of theirs that follows from the sizes."""
HEADS: Final = 8
"""Attention heads where the checkpoint does not show them: no weight of a univariate one does."""
MOST_BYTES: Final = 4 * 2**30


def load_official(path: Path) -> TimeRCD:
    """Return the network of an official checkpoint; raises ArtifactError where it is none."""
    weights = _read(path)
    renamed: dict[str, Tensor] = {}
    strange = []
    for name, value in weights.items():
        if name == COMPUTED:
            continue
        for pattern, ours in NAMES:
            if re.match(pattern, name):
                renamed[re.sub(pattern, ours, name)] = value
                break
        else:
            strange.append(name)
    if strange or "embedding_layer.weight" not in renamed:
        msg = (
            f"{path} is no checkpoint of TimeRCD's public layout: "
            f"unknown weights {strange[:3]}, {len(renamed)} known ones; expected names such as "
            "ts_encoder.embedding_layer.weight"
        )
        raise ArtifactError(msg)
    network = TimeRCD(_config(renamed, path))
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        msg = f"{path} does not fit TimeRCD's public layout: {str(error).splitlines()[-1].strip()}"
        raise ArtifactError(msg) from error
    return network.eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        msg = f"no checkpoint at {path}; download pretrain_checkpoint_best_uni.pth or _multi.pth"
        raise ArtifactError(msg)
    if path.stat().st_size > MOST_BYTES:
        msg = f"{path} has {path.stat().st_size:,} bytes, a checkpoint has at most {MOST_BYTES:,}"
        raise ArtifactError(msg)
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path} holds more than weights, or is damaged: {reason}"
        raise ArtifactError(msg) from error
    held = held.get("model_state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(v, Tensor) for v in held.values()):
        msg = f"{path} holds no dictionary of weights (model_state_dict)"
        raise ArtifactError(msg)
    return {str(name).removeprefix("module."): value for name, value in held.items()}


def _config(weights: dict[str, Tensor], path: Path) -> TimeRCDConfig:
    """Return the configuration that the shapes show; the variants are the published ones."""
    d_model, patch = weights["embedding_layer.weight"].shape
    try:
        bias = weights.get("layers.0.self_attn.binary_attention_bias.emd.weight")
        layers = {int(name.split(".")[1]) for name in weights if name.startswith("layers.")}
        return replace(
            paper(multivariate=bias is not None),
            d_model=d_model,
            patch=patch,
            n_layers=max(layers) + 1,
            n_heads=HEADS if bias is None else bias.shape[1],
            d_ff=weights["layers.0.mlp.gate_proj.weight"].shape[0],
            d_step=weights["anomaly_head.0.weight"].shape[1],
            d_reconstruct=weights["reconstruction_head.0.weight"].shape[0],
        )
    except (KeyError, ValueError) as error:
        msg = f"{path} lacks {error}, which a checkpoint of TimeRCD's public layout has"
        raise ArtifactError(msg) from error
