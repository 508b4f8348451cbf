"""How TimeRCD is trained, and a training under way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamad.networks.timercd import (
    TimeRCD,
    TimeRCDConfig,
    classification_loss,
    reconstruction_loss,
)
from streamad.training.corpus import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW with a warm-up, a rate that falls as a cosine, and averaged weights.

    Published: AdamW at 5e-4 without warm-up, no clipping, masked reconstruction of the series as it
    is. Here masked patches are to become those of the clean twin: what would be there without the
    anomaly, which is what an explanation quotes.

    steps : planned steps; minutes : planned time over all runs; the rate follows whichever is
        nearer to its end
    brief : labelled samples that a shorter event counts as: of a mean over samples, one of two
        samples would be a hundredth of one of two hundred, and a spike is what pages people
    masked : share of patches hidden; floor : the rate at the end, as a share of the highest
    start : a directory (`save_network`) whose weights a new training begins with, in place of
        random ones
    average : decay per step of the averaged weights, which are the ones that are used
    """

    steps: int = 20_000
    minutes: float | None = None
    rate: float = 1e-3
    warm_up: int = 200
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    masked: float = 0.15
    brief: int = 16
    average: float = 0.999
    reconstruction: float = 1.0
    half: bool = False
    seed: int = 0
    start: Path | None = None


@dataclass(slots=True, kw_only=True)
class Run:
    """A network in training: all that a checkpoint holds.

    averaged : the network of averaged weights; seconds : trained so far, over all runs
    curve : one row per report: step, loss, its two parts, the rate; checked : one row per
        validation: step, and VUS-PR by name
    """

    network: TimeRCD
    averaged: TimeRCD
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[float, ...]] = field(default_factory=list)
    checked: list[dict[str, float]] = field(default_factory=list)

    def progress(self, recipe: Recipe) -> float:
        """Return how much of the planned training is done, 0 .. 1."""
        by_time = 0.0 if recipe.minutes is None else self.seconds / (60.0 * recipe.minutes)
        return min(max(self.step / recipe.steps, by_time), 1.0)


def start_run(config: TimeRCDConfig, recipe: Recipe, *, device: str = "cpu") -> Run:
    """Seed everything and return a run at step 0."""
    torch.manual_seed(recipe.seed)
    network = TimeRCD(config)
    averaged = TimeRCD(config)
    averaged.load_state_dict(network.state_dict())
    averaged.requires_grad_(requires_grad=False).eval()
    network.to(device)
    averaged.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    return Run(network=network, averaged=averaged, optimiser=optimiser)


def learning_rate(step: int, progress: float, recipe: Recipe) -> float:
    """Return the rate of a step: up in a line, then down as half a cosine."""
    warm = min((step + 1) / max(recipe.warm_up, 1), 1.0)
    fall = 0.5 * (1.0 + math.cos(math.pi * progress))
    return recipe.rate * warm * (recipe.floor + (1.0 - recipe.floor) * fall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """A batch as the network reads it: patches, per-variate labels, what is there.

    patches, normal : ``(n, n_variates, n_patches, patch)``; labels : ``(n, n_variates, length)``
    present : ``(n, length)``; seen : ``(n, n_variates, n_patches)``
    weight : what a sample counts for in the loss, as ``labels``
    """

    patches: Tensor
    normal: Tensor
    labels: Tensor
    present: Tensor
    seen: Tensor
    weight: Tensor


def event_weights(labels: NDArray[np.bool_], brief: int) -> NDArray[np.float32]:
    """Return 1 for each sample, and ``brief / L`` for those of an event of fewer, ``L``, samples.

    labels : ``(n, length, n_variates)``, as what is returned

    Examples
    --------
    >>> event_weights(np.array([[0, 1, 1, 0, 1]], dtype=bool)[..., None], 4)[0, :, 0].tolist()
    [1.0, 2.0, 2.0, 1.0, 4.0]
    """
    weights = np.ones(labels.shape, dtype=np.float32)
    n, _, width = labels.shape
    around = np.zeros((n, labels.shape[1] + 2, width), dtype=np.int8)
    around[:, 1:-1] = labels
    turns = np.diff(around, axis=1).transpose(0, 2, 1)
    begun, ended = np.argwhere(turns == 1), np.argwhere(turns == -1)
    for (i, v, start), stop in zip(begun, ended[:, 2], strict=True):
        weights[i, start:stop, v] = max(brief / (stop - start), 1.0)
    return weights


def to_tensors(batch: Batch, *, patch: int, device: torch.device | str, brief: int = 1) -> Tensors:
    """Cut a batch into patches."""
    n, length, width = batch.series.shape

    def cut(series: Tensor) -> Tensor:
        moved = series.to(device).permute(0, 2, 1)
        return moved.reshape(n, width, length // patch, patch)

    present = torch.from_numpy(batch.present).to(device)
    held = present.reshape(n, length // patch, patch).any(dim=-1)
    return Tensors(
        patches=cut(torch.from_numpy(batch.series)),
        normal=cut(torch.from_numpy(batch.normal)),
        labels=torch.from_numpy(batch.labels).to(device).permute(0, 2, 1).float(),
        present=present.float(),
        seen=held.float()[:, None].expand(n, width, length // patch),
        weight=torch.from_numpy(event_weights(batch.labels, brief)).to(device).permute(0, 2, 1),
    )


def losses(
    network: TimeRCD, given: Tensors, *, masked: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the losses of classification and of masked reconstruction."""
    n, width, n_patches, patch = given.patches.shape
    drawn = torch.rand((n, 1, n_patches), generator=generator) < masked
    hidden = drawn.to(given.seen.device).float().expand(n, width, n_patches) * given.seen
    steps = network(given.patches, given.seen, hidden)
    counted = given.present
    if network.config.learned_mask:
        # What is hidden cannot be told to be strange: it is not asked.
        counted = counted * (1.0 - hidden[:, 0].repeat_interleave(patch, dim=-1))
    labelled = classification_loss(
        network.logits(steps).reshape(n, width, n_patches * patch).float(),
        given.labels,
        counted,
        weight=given.weight,
        combine=network.config.combine,
    )
    # The reconstruction head costs most and is asked for few patches: only they go through it.
    asked = hidden.bool()
    made = network.reconstruction_head(steps[asked]).squeeze(-1).float()
    everything = torch.ones(len(made), 1, device=made.device)
    again = reconstruction_loss(made[None], given.normal[asked][None], everything.T, robust=3.0)
    return labelled, again


def train_step(run: Run, batch: Batch, recipe: Recipe) -> tuple[float, float]:
    """Take one step; return both losses.

    What it draws depends on the seed and the step alone, so that a resumed run takes the same.
    """
    device = next(run.network.parameters()).device
    rate = learning_rate(run.step, run.progress(recipe), recipe)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + run.step)
    run.network.train()
    given = to_tensors(batch, patch=run.network.config.patch, device=device, brief=recipe.brief)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.half):
        labelled, again = losses(run.network, given, masked=recipe.masked, generator=generator)
    run.optimiser.zero_grad(set_to_none=True)
    total: Tensor = labelled + recipe.reconstruction * again
    total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip)
    run.optimiser.step()
    run.step += 1
    # Early weights are forgotten sooner: an average over a thousand steps would be of noise.
    keep = min(recipe.average, (1.0 + run.step) / (10.0 + run.step))
    with torch.no_grad():
        for kept, new in zip(run.averaged.parameters(), run.network.parameters(), strict=True):
            kept.lerp_(new, 1.0 - keep)
    return float(labelled.detach()), float(again.detach())
