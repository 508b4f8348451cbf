"""Train CLAN: ordinary rows attract each other, and are pushed away from damaged copies of rows.

Source: Wilkie et al., IEEE CSR 2025 (arXiv 2509.06550). Most contrastive methods take a damaged
copy for the same thing; here it stands for an attack. With ``D(a, b) = (1 - cos(a, b)) / 2``::

    L = mean over pairs i != j of D(z_i, z_j) / 2 + sum relu(m - D(z_i, z'_j)) / n_active / 2

``z'`` are rows of which each number is, with some probability, replaced by a uniform draw; ``m`` is
the margin. All ordinary rows thus become one cluster, and what is unlike them lies elsewhere.

Differences from the authors' code: a smaller encoder, more numbers are replaced (half, not a
tenth), no copy is left as it was, rows are drawn by ``log(1 + count)``, and there are several
centres, for traffic of several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamad.networks.clan import ClanNetwork

Floats = NDArray[np.float32]
LAYERS = ("skip", "into", "block", "out")
SAME = 1e-6
"""Pairs nearer than this are the same row, and say nothing."""
RESTARTS, ROUNDS = 4, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ClanRecipe:
    """How to train one encoder.

    hidden, dim : of the network; replaced : probability that a number of a copy is drawn anew;
    span : such draws are uniform within so many standard deviations; margin : of the loss, 0 to 1;
    batch : rows per step, as many copies beside them; steps; learning_rate : at its highest
    """

    hidden: int = 128
    dim: int = 32
    replaced: float = 0.5
    span: float = 1.7
    margin: float = 0.5
    batch: int = 256
    steps: int = 400
    learning_rate: float = 1e-3


def train_clan(
    rows: Floats, mass: NDArray[np.float64], *, seed: int, recipe: ClanRecipe | None = None
) -> dict[str, Floats]:
    """Train one encoder on ordinary rows; equal seeds give equal weights.

    Parameters
    ----------
    rows : float32 ``(n, d)``, numbers in standard deviations
    mass : float64 ``(n,)``, how often each row is drawn

    Returns
    -------
    dict
        per layer of `LAYERS` its matrix, ``(inputs, outputs)``, and ``<layer>_bias``
    """
    how = ClanRecipe() if recipe is None else recipe
    generator = torch.Generator().manual_seed(seed)
    net = ClanNetwork(rows.shape[1], how.hidden, how.dim, generator=generator)
    n_threads = torch.get_num_threads()
    # Steps are small: threads would wait for each other, and reorder sums.
    torch.set_num_threads(1)
    try:
        _optimise(net, torch.from_numpy(rows), torch.from_numpy(mass), how, generator)
    finally:
        torch.set_num_threads(n_threads)
    return export(net)


def export(net: ClanNetwork) -> dict[str, Floats]:
    """Return the weights as `streamad.events.encoder` takes them."""
    made: dict[str, Floats] = {}
    for name in LAYERS:
        layer = getattr(net, name)
        made[name] = np.ascontiguousarray(layer.weight.detach().numpy().T)
        made[f"{name}_bias"] = layer.bias.detach().numpy().copy()
    return made


def damaged(rows: Tensor, recipe: ClanRecipe, generator: torch.Generator) -> Tensor:
    """Return rows of which some numbers, at least one each, are replaced by uniform draws."""
    n, d = rows.shape
    chosen = torch.rand(n, d, generator=generator) < recipe.replaced
    one = torch.randint(d, (n, 1), generator=generator)
    none = ~chosen.any(dim=1, keepdim=True)
    chosen |= none & (torch.arange(d) == one)
    # Wider draws (4, up to 8 deviations) were tried: what is far outside is told apart with ease,
    # and the encoder then learns less of what is inside.
    drawn = (2 * torch.rand(n, d, generator=generator) - 1) * recipe.span
    return torch.where(chosen, drawn, rows)


def clan_loss(ordinary: Tensor, strange: Tensor, margin: float) -> Tensor:
    """Return the loss of unit vectors ``(n, dim)`` of rows and of damaged copies."""
    apart = (1 - ordinary @ ordinary.T) / 2
    far = apart > SAME
    together = (apart * far).sum() / far.sum().clamp(min=1)
    short = torch.relu(margin - (1 - ordinary @ strange.T) / 2)
    active = (short > 0).sum().clamp(min=1)
    return 0.5 * together + 0.5 * short.sum() / active


def _optimise(
    net: ClanNetwork, rows: Tensor, mass: Tensor, how: ClanRecipe, generator: torch.Generator
) -> None:
    optimiser: Any = torch.optim.AdamW(net.parameters(), lr=how.learning_rate, weight_decay=0.0)
    rate: Any = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, how.learning_rate, total_steps=how.steps + 1, pct_start=0.1
    )
    cumulated = torch.cumsum(mass, 0) / mass.sum()
    for _ in range(how.steps):
        drawn = torch.rand(how.batch, generator=generator, dtype=torch.float64)
        at = torch.searchsorted(cumulated, drawn).clamp(max=len(rows) - 1)
        chosen = rows[at]
        both = net(torch.cat([chosen, damaged(chosen, how, generator)]))
        loss = clan_loss(both[: len(chosen)], both[len(chosen) :], how.margin)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()


def centres_of(
    directions: Floats, mass: NDArray[np.float64], n_centres: int, *, seed: int
) -> Floats:
    """Return the centres of ordinary directions ``(k, dim)``, unit vectors; ``k <= n_centres``.

    Spherical k-means (Dhillon, Modha 2001), the best of a few starts; first centres are drawn far
    from one another, as k-means++ draws them. Equal seeds give equal centres.
    """
    rng = np.random.default_rng([seed, 0xC1A5])
    best, most = directions[:1], -np.inf
    for _ in range(RESTARTS):
        centres = _first(directions, mass, n_centres, rng)
        for _ in range(ROUNDS):
            nearest = (directions @ centres.T).argmax(axis=1)
            moved = np.zeros_like(centres)
            np.add.at(moved, nearest, directions * mass[:, None].astype(np.float32))
            length = np.linalg.norm(moved, axis=1, keepdims=True)
            # A centre that nothing is near stays where it is.
            moved = np.where(length > 0, moved / np.maximum(length, 1e-30), centres)
            if np.allclose(moved, centres, atol=1e-7):
                break
            centres = moved
        found = float(((directions @ centres.T).max(axis=1) * mass).sum())
        if found > most:
            best, most = centres, found
    return np.ascontiguousarray(best, np.float32)


def _first(
    directions: Floats, mass: NDArray[np.float64], n_centres: int, rng: np.random.Generator
) -> Floats:
    chosen = [int(rng.choice(len(directions), p=mass / mass.sum()))]
    while len(chosen) < n_centres:
        nearest = (directions @ directions[chosen].T).max(axis=1)
        chance = mass * np.maximum(1.0 - nearest.astype(np.float64), 0.0)
        if chance.sum() <= SAME:
            break
        chosen.append(int(rng.choice(len(directions), p=chance / chance.sum())))
    return directions[chosen]
