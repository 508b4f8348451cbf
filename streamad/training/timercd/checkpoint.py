"""Checkpoints of a training: one safetensors file, no pickle, written aside and renamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from streamad.errors import ArtifactError
from streamad.networks.timercd import TimeRCD
from streamad.training.timercd.recipe import Run

CHECKPOINT: Final = "checkpoint.safetensors"
WEIGHTS: Final = "model.safetensors"
FORMAT: Final = 1


def save_checkpoint(run: Run, path: Path, *, settings: dict[str, Any]) -> None:
    """Keep the run, so that a killed training resumes where it was."""
    tensors: dict[str, torch.Tensor] = {}
    for part, network in (("network", run.network), ("averaged", run.averaged)):
        tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
    for number, state in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    about = {
        "format": FORMAT,
        "settings": settings,
        "step": run.step,
        "seconds": run.seconds,
        "curve": run.curve,
        "checked": run.checked,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(kept, aside, metadata={"run": json.dumps(about)})
    aside.replace(path)


def read_about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint states about itself; raises ArtifactError where it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["run"])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        msg = f"{path} is no checkpoint of 'streamad pretrain timercd': {error}"
        raise ArtifactError(msg) from error
    except SafetensorError as error:
        msg = f"{path} is no safetensors file: {error}; give a checkpoint of 'streamad pretrain'"
        raise ArtifactError(msg) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        got = about.get("format") if isinstance(about, dict) else type(about).__name__
        msg = f"{path} is a checkpoint of format {got}, this version reads format {FORMAT}"
        raise ArtifactError(msg)
    return about


def load_checkpoint(run: Run, path: Path, *, settings: dict[str, Any]) -> None:
    """Put a saved run back into ``run``; a checkpoint of other settings is refused."""
    about = read_about(path)
    # As JSON keeps them: a tuple comes back as a list.
    asked, kept = json.loads(json.dumps(settings)), about["settings"]
    if kept != asked:
        changed = _differences(kept, asked)
        msg = (
            f"{path} was begun with other settings (kept, asked): {changed}; "
            "name another --out, or delete the checkpoint to start again"
        )
        raise ArtifactError(msg)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        whose, _, rest = name.partition(".")
        if whose == "optimiser":
            number, _, which = rest.partition(".")
            states.setdefault(int(number), {})[which] = value
    for part, network in (("network", run.network), ("averaged", run.averaged)):
        begins = f"{part}."
        network.load_state_dict(
            {n.removeprefix(begins): v for n, v in tensors.items() if n.startswith(begins)}
        )
    groups = run.optimiser.state_dict()["param_groups"]
    run.optimiser.load_state_dict({"state": states, "param_groups": groups})
    run.step, run.seconds = int(about["step"]), float(about["seconds"])
    run.curve = [tuple(row) for row in about["curve"]]
    run.checked = list(about["checked"])


def begin_with(run: Run, directory: Path) -> None:
    """Put the weights of a directory that ``streamad pretrain`` wrote into a run at step 0.

    Raises ArtifactError where there are none, or those of a network of another size.
    """
    load_weights(directory, run.network, run.averaged)


def load_weights(directory: Path, *networks: TimeRCD) -> None:
    """Put the weights of a directory that ``streamad pretrain`` wrote into networks.

    Raises ArtifactError where there are none, or those of a network of another size.
    """
    path = directory / WEIGHTS
    try:
        weights = load_file(path)
        for network in networks:
            network.load_state_dict(weights)
    except FileNotFoundError as error:
        msg = f"no weights at {path}; name a directory that 'streamad pretrain timercd' wrote"
        raise ArtifactError(msg) from error
    except RuntimeError as error:
        told = str(error).splitlines()[0]
        msg = f"{path} holds a network of another size; name the same --size: {told}"
        raise ArtifactError(msg) from error
    except SafetensorError as error:
        msg = f"{path} is no safetensors file: {error}"
        raise ArtifactError(msg) from error


def _differences(kept: dict[str, Any], asked: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(kept.keys() | asked.keys()):
        one, other = kept.get(name), asked.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= _differences(one, other, f"{path}{name}.")
        elif one != other:
            found[f"{path}{name}"] = (one, other)
    return found
