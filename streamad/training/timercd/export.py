"""Write a trained TimeRCD as what serves it: ONNX files, the configuration, and its facts.

Weights are kept in half precision, cast back as the session loads: half the size, sums in float32.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from streamad.errors import ArtifactError
from streamad.networks.timercd import TimeRCD, TimeRCDConfig
from streamad.training.timercd.checkpoint import WEIGHTS, load_weights, read_about
from streamad.training.timercd.graph import build_graph

MODEL, EXPECTED, CONFIG = "model.onnx", "expected.onnx", "config.json"
TRAINING = "training.json"


def save_network(network: TimeRCD, out: Path, *, facts: dict[str, Any]) -> None:
    """Write ``model.onnx``, ``expected.onnx``, weights, configuration and facts into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    network = network.to("cpu").eval()
    for name, explains in ((MODEL, False), (EXPECTED, True)):
        onnx.save(build_graph(network, explains=explains), out / name)
    halves = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(halves, out / WEIGHTS)
    (out / CONFIG).write_text(json.dumps(asdict(network.config), indent=2) + "\n")
    (out / TRAINING).write_text(json.dumps(facts) + "\n")


def averaged_with(
    network: TimeRCD, facts: dict[str, Any], directory: Path
) -> tuple[TimeRCD, dict[str, Any]]:
    """Return the mean of a network and of one that was saved, and the facts of both trainings.

    Where the one's training began with the other's weights, the mean of both often generalises
    better than either and costs nothing (Wortsman et al., Model soups, ICML 2022, uniform soup of
    two). Raises ArtifactError where the directory holds none of this size, or no readable facts.
    """
    other = TimeRCD(network.config)
    load_weights(directory, other)
    mean = TimeRCD(network.config)
    with torch.no_grad():
        pairs = zip(mean.parameters(), network.parameters(), other.parameters(), strict=True)
        for made, one, two in pairs:
            made.copy_(0.5 * (one.cpu() + two))
    trained = directory / TRAINING
    try:
        beside = json.loads(trained.read_text()) if trained.is_file() else {}
    except ValueError as error:
        msg = f"{trained} is no JSON: {error}; name a directory that 'streamad pretrain' wrote"
        raise ArtifactError(msg) from error
    return mean, {**facts, "averaged_with": beside}


def network_of(checkpoint: Path, *, averaged: bool = True) -> tuple[TimeRCD, dict[str, Any]]:
    """Return the network a checkpoint of this project holds, and the facts of its training."""
    about = read_about(checkpoint)
    network = TimeRCD(TimeRCDConfig(**about["settings"]["network"]))
    begins = "averaged." if averaged else "network."
    with safe_open(checkpoint, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(begins)]  # noqa: SIM118
        network.load_state_dict({n.removeprefix(begins): file.get_tensor(n) for n in names})
    facts = {
        **about["settings"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": about["step"],
        "hours": round(about["seconds"] / 3600, 2),
        "curve": [[round(float(value), 5) for value in row] for row in about["curve"]],
        "validation": about["checked"],
    }
    return network, facts
