"""Train APE: events against the same events with one value replaced, by NCE.

Source: Chen et al., IJCAI 2016 (arXiv 1608.07502), equations of `streamad.networks.ape`. A negative
``e'`` of event ``e`` differs in one field ``i``, whose value is drawn from that field's noise
``q_i``; with ``k`` negatives per event::

    u(e, i) = S(e) + c - log(k q_i(a_i))
    L = -log sigmoid(u(e, i)) - sum_k log sigmoid(-u(e'_k, i))

The paper takes the chance of an event's other values for a constant, ``c``. With many dependent
fields it is far from one, and events of many rare values get a low energy. The other loss,
*ranking* NCE (Ma, Collins, EMNLP 2018, arXiv 1809.01812), asks which of ``e, e'_1 .. e'_k`` is the
real one, so that this chance cancels::

    L = -log softmax(S(e) - log q_i(a_i), S(e'_1) - log q_i(a'_1), ..)_0

Differences from the authors' code: the field is drawn per row and not per batch, the ``q_i`` that
is drawn from is the one that is corrected for, values have a bias, events are drawn by
``log(1 + count)``, and training stops where the loss of held-out events is least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from streamad.networks.ape import ApeNetwork

Codes = NDArray[np.int32]
Weights = NDArray[np.float64]
Loss = Literal["binary", "ranking"]
UNKNOWN = 0
"""The id of values never seen; a share of training values is masked to it."""
FEW = 20
"""Events below which none is held out."""
MOST_CHECKED = 4096
"""Held-out events that decide when to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApeRecipe:
    """How to train one model.

    dim : length of a vector; negatives : per event; power : of the counts the noise is drawn by;
    batch : events per step; steps : at the most; check_every, patience : the held-out loss is
    measured every so many steps, and training stops after so many without a better one;
    mask : share of values that are shown as unknown; held_out : share of events kept for stopping;
    bias : one per value; loss : ``binary`` as in the paper, or ``ranking``
    """

    dim: int = 16
    negatives: int = 5
    power: float = 0.75
    batch: int = 512
    steps: int = 1000
    learning_rate: float = 0.01
    check_every: int = 50
    patience: int = 6
    mask: float = 0.015
    held_out: float = 0.1
    bias: bool = True
    loss: Loss = "binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApeWeights:
    """One trained model as arrays.

    vectors : float32 ``(n_values, d)``; weights : float32 ``(m (m - 1) / 2,)``, pairs in the order
    (0, 1), (0, 2) .. ; biases : float32 ``(n_values,)``; losses : float64 ``(n_checks,)``, held-out
    loss at each check; stopped : the check that was kept
    """

    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    losses: NDArray[np.float64]
    stopped: int


@dataclass(frozen=True, slots=True)
class Noise:
    """What negatives are drawn from: per field ``q_i`` ~ counts ** power, over value rows.

    edges : float64 ``(n_values,)``, the cumulated ``q_i`` of a field plus its number; log_q :
    float32 ``(n_values,)``
    """

    edges: NDArray[np.float64]
    log_q: NDArray[np.float32]

    def draw(self, fields: NDArray[np.int64], k: int, rng: np.random.Generator) -> Codes:
        """Return ``k`` value rows per event ``(n, k)``, each of the event's field."""
        u = rng.random((len(fields), k)) + fields[:, None]
        return np.searchsorted(self.edges, u, side="right").astype(np.int32)


def noise_of(codes: Codes, mass: Weights, sizes: list[int], recipe: ApeRecipe) -> Noise:
    """Measure the noise of each field on events drawn by ``mass`` ``(n,)``, masked values included.

    Ids that never occur have no noise, and are never drawn.
    """
    edges, log_q = [], []
    for field, size in enumerate(sizes):
        counts = np.bincount(codes[:, field], weights=mass, minlength=size) * (1 - recipe.mask)
        counts[UNKNOWN] += mass.sum() * max(recipe.mask, 1e-6)
        q = counts**recipe.power
        q /= q.sum()
        rising = np.minimum(np.cumsum(q), 1.0)
        rising[np.flatnonzero(q)[-1] :] = 1.0
        edges.append(rising + field)
        with np.errstate(divide="ignore"):
            log_q.append(np.maximum(np.log(q), -30.0))
    return Noise(np.concatenate(edges), np.concatenate(log_q).astype(np.float32))


def correction(log_q: Tensor, negatives: int) -> Tensor:
    """Return ``log(k q)``, by which the odds of noise are taken off."""
    return log_q + math.log(negatives)


def nce_loss(
    net: ApeNetwork, noise_log_q: Tensor, rows: Tensor, drawn: Drawn, loss: Loss = "binary"
) -> Tensor:
    """Return the mean loss over events.

    rows : value rows ``(n, m)``; drawn : which field of each is replaced, and by which value rows
    """
    energy, around = net(rows)
    at = torch.arange(len(rows))
    old = rows[at, drawn.fields]
    replaced = net.replaced(energy, around[at, drawn.fields], old, drawn.values)
    k = drawn.values.shape[1]
    real = energy - correction(noise_log_q[old], k)
    false = replaced - correction(noise_log_q[drawn.values], k)
    if loss == "ranking":
        odds = torch.cat([real[:, None], false], dim=1)
        return -torch.log_softmax(odds, dim=1)[:, 0].mean()
    mean: Tensor = softplus(-(real + net.constant)).mean()
    return mean + softplus(false + net.constant).sum(dim=1).mean()


@dataclass(frozen=True, slots=True)
class Drawn:
    """Negatives: ``fields`` int64 ``(n,)`` and the value rows put there, ``values`` ``(n, k)``."""

    fields: Tensor
    values: Tensor


class _Sampler:
    """Draws events by their weight, masks some of their values, and draws negatives."""

    def __init__(
        self,
        codes: Codes,
        mass: Weights,
        starts: NDArray[np.int64],
        noise: Noise,
        recipe: ApeRecipe,
    ) -> None:
        self.rows = codes.astype(np.int64) + starts
        self.cumulated = np.cumsum(mass) / mass.sum()
        self.starts, self.noise, self.recipe = starts, noise, recipe

    def batch(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Drawn]:
        """Return ``n`` events as value rows ``(n, m)``, and their negatives."""
        at = np.searchsorted(self.cumulated, rng.random(n), side="right")
        rows = self.rows[np.minimum(at, len(self.rows) - 1)]
        masked = rng.random(rows.shape) < self.recipe.mask
        rows = np.where(masked, self.starts + UNKNOWN, rows)
        fields = rng.integers(0, rows.shape[1], n)
        values = self.noise.draw(fields, self.recipe.negatives, rng).astype(np.int64)
        return torch.from_numpy(rows), Drawn(torch.from_numpy(fields), torch.from_numpy(values))


def train_ape(  # noqa: PLR0913 one thing of each
    codes: Codes,
    mass: Weights,
    sizes: list[int],
    *,
    seed: int,
    held: NDArray[np.bool_] | None = None,
    due: Weights | None = None,
    recipe: ApeRecipe | None = None,
) -> ApeWeights:
    """Train one model on distinct events; equal seeds give equal weights.

    Parameters
    ----------
    codes : int32 ``(n, m)``, distinct events, ids below ``sizes[i]`` in field ``i``
    mass : float64 ``(n,)``, how often each is drawn: 1, or log(1 + count)
    sizes : ids per field ``(m,)``
    due : float64 ``(m,)``, the share of events a new value of each field is due in; see
        `with_unknown` (None: as often as values are masked)
    held : bool ``(n,)``, events that are only for stopping (None: a share of them, drawn here)
    """
    how = ApeRecipe() if recipe is None else recipe
    rng = np.random.default_rng([seed, 0xA9E])
    if held is None:
        held = np.zeros(len(codes), np.bool_)
        if len(codes) >= FEW:
            held[rng.permutation(len(codes))[: int(len(codes) * how.held_out)]] = True
    kept, stops = np.flatnonzero(~held), np.flatnonzero(held)
    noise = noise_of(codes[kept], mass[kept], sizes, how)
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
    sampler = _Sampler(codes[kept], mass[kept], starts, noise, how)
    of = stops if len(stops) else kept
    checker = _Sampler(codes[of], mass[of], starts, noise, how)
    n_fixed = min(max(2 * len(of), 256), MOST_CHECKED)
    fixed = checker.batch(n_fixed, np.random.default_rng([seed, 1]))
    generator = torch.Generator().manual_seed(seed)
    net = ApeNetwork(sizes, how.dim, bias=how.bias, generator=generator)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # Steps are small: threads would wait for each other, and reorder sums.
    try:
        trained = _optimise(net, sampler, fixed, torch.from_numpy(noise.log_q), how, rng)
    finally:
        torch.set_num_threads(n_threads)
    return with_unknown(trained, codes[kept], sizes, due, how.mask)


def with_unknown(
    trained: ApeWeights, codes: Codes, sizes: list[int], due: Weights | None, mask: float
) -> ApeWeights:
    """Give ids without a training event what was learned for unknown ones.

    Values are masked more often than new ones come, so that there is something to learn from. With
    shares ``due`` of new values the bias of unknown ones moves by ``log(due / mask)``, as log odds
    do where only the prior changes.
    """
    vectors, biases = trained.vectors.copy(), trained.biases.copy()
    start = 0
    for field, size in enumerate(sizes):
        if due is not None and mask > 0:
            biases[start + UNKNOWN] += np.float32(math.log(max(due[field], 1e-9) / mask))
        absent = start + np.flatnonzero(np.bincount(codes[:, field], minlength=size) == 0)
        vectors[absent] = vectors[start + UNKNOWN]
        biases[absent] = biases[start + UNKNOWN]
        start += size
    return replace(trained, vectors=vectors, biases=biases)


def _optimise(
    net: ApeNetwork,
    sampler: _Sampler,
    fixed: tuple[Tensor, Drawn],
    log_q: Tensor,
    recipe: ApeRecipe,
    rng: np.random.Generator,
) -> ApeWeights:
    learned = [p for p in net.parameters() if p.requires_grad]
    optimiser: Any = torch.optim.Adam(learned, lr=recipe.learning_rate)
    fall: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    losses: list[float] = []
    best: dict[str, Tensor] = {}
    for step in range(recipe.steps + 1):
        if step % recipe.check_every == 0:
            with torch.no_grad():
                losses.append(float(nce_loss(net, log_q, *fixed, recipe.loss)))
            if losses[-1] <= min(losses):
                best = {name: value.clone() for name, value in net.state_dict().items()}
            elif len(losses) - 1 - int(np.argmin(losses)) >= recipe.patience:
                break
        optimiser.zero_grad()
        batch = sampler.batch(recipe.batch, rng)
        loss: Any = nce_loss(net, log_q, *batch, recipe.loss)
        loss.backward()
        optimiser.step()
        fall.step()
        net.clamp()
    return ApeWeights(
        vectors=best["vectors"].numpy().copy(),
        weights=best["weights"].numpy().copy(),
        biases=best["biases"].numpy().copy(),
        losses=np.array(losses),
        stopped=int(np.argmin(losses)),
    )
