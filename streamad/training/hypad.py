"""Train HypAD: an auto-encoder against two critics, its error measured in hyperbolic space.

Source: Flaborea et al., arXiv 2211.09224, section 3, and its code; Wasserstein critics with a
gradient penalty as in Gulrajani et al., 2017. With the ball's layer ``M``, encoder ``E``, decoder
``D``, windows ``x`` and ``z ~ N(0, 1)``::

    critic of windows:  C(M(D(z))) - C(x)     + 10 penalty
    critic of latents:  K(E(x))    - K(z)     + 10 penalty
    auto-encoder:       10 d(M(D(E(x))), M(x)) - C(M(D(z))) - K(E(x))

Differences from the published code: the penalty is of each sample's gradient, not of the batch's
as one vector; scaling is fitted on training rows alone; Adam on the tangent vector of the layer's
bias in place of Riemannian Adam; the number of steps is fixed, the learning rate falls to nought,
and the epoch with the least error on held-out windows is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamad.errors import TrainingError
from streamad.networks.hypad import HypADNetwork, distance, exp_at_origin

Floats = NDArray[np.float32]
PENALTY: Final = 10.0
HELD_OUT: Final = 10
"""The last of this many parts of the training windows chooses the epoch."""
LEAST_WINDOWS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HypADRecipe:
    """How to train one network.

    patch : samples a step of the LSTMs; batch : windows a step of training; steps : of the
    auto-encoder, at the least an epoch of them; critic_passes : passes of the critics over all
    windows before each pass of the auto-encoder; learning_rate : at its highest
    """

    patch: int = 8
    batch: int = 64
    steps: int = 200
    critic_passes: int = 5
    learning_rate: float = 2e-3


def fit_arrays(
    windows: Floats, *, seed: int, steps: int = 200, critic_passes: int = 5
) -> dict[str, Floats]:
    """Train on windows and return the network as `streamad.detectors.hypad` serves it.

    Parameters
    ----------
    windows : float32 ``(n, size, n_variates)``, in -1 to 1 where ordinary, in the order of time
    seed : equal seeds give equal networks
    steps, critic_passes : as in `HypADRecipe`

    Raises
    ------
    TrainingError
        with fewer than `LEAST_WINDOWS` windows, or where the training diverges
    """
    how = HypADRecipe(steps=steps, critic_passes=critic_passes)
    if len(windows) < LEAST_WINDOWS:
        msg = (
            f"hypad trains on at least {LEAST_WINDOWS} windows, got {len(windows)}; give more rows"
        )
        raise TrainingError(msg)
    n_threads = torch.get_num_threads()
    # Steps are small: threads would wait for each other, and reorder sums.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = HypADNetwork(windows.shape[1], windows.shape[2], patch=how.patch)
            _optimise(net, torch.from_numpy(windows), how)
    finally:
        torch.set_num_threads(n_threads)
    return export(net)


def _optimise(net: HypADNetwork, windows: Tensor, how: HypADRecipe) -> None:
    n_held = max(len(windows) // HELD_OUT, 1)
    training, held = windows[:-n_held], windows[-n_held:]
    per_epoch = max(len(training) // how.batch, 1)
    n_epochs = -(-how.steps // per_epoch)
    critics = [net.of_windows, net.of_latents]
    coder = [net.encode, net.decode, net.to_ball]
    of_critics, of_coder = (_adam(parts, how.learning_rate) for parts in (critics, coder))
    falling: Any = torch.optim.lr_scheduler.CosineAnnealingLR(of_coder, n_epochs)
    best, least = None, float("inf")
    for _ in range(n_epochs):
        net.train()
        _epoch(net, training, of_critics, of_coder, how)
        falling.step()
        error = error_of(net, held)
        if error < least:
            best = {name: value.clone() for name, value in net.state_dict().items()}
            least = error
    if best is None:
        msg = "hypad's training diverged: the held-out error is no number; give more rows"
        raise TrainingError(msg)
    net.load_state_dict(best)
    net.eval()


def _epoch(
    net: HypADNetwork,
    windows: Tensor,
    of_critics: torch.optim.Adam,
    of_coder: torch.optim.Adam,
    how: HypADRecipe,
) -> None:
    critics = (net.of_windows, net.of_latents)
    for _ in range(how.critic_passes):
        for batch in _batches(windows, how.batch):
            _step(of_critics, critic_loss(net, batch))
    for critic in critics:
        critic.requires_grad_(requires_grad=False)
    for batch in _batches(windows, how.batch):
        _step(of_coder, coder_loss(net, batch))
    for critic in critics:
        critic.requires_grad_(requires_grad=True)


def critic_loss(net: HypADNetwork, windows: Tensor) -> Tensor:
    """Return the loss of both critics; the auto-encoder gets no gradient."""
    noise = torch.randn(len(windows), net.latent)
    with torch.no_grad():
        made = _flat(net.points(net.decoded(noise)).transpose(1, 2))
        latents = net.latents(windows)
    real = _flat(windows)
    loss = net.of_windows(made).mean() - net.of_windows(real).mean()
    loss = loss + net.of_latents(latents).mean() - net.of_latents(noise).mean()
    penalty = gradient_penalty(net.of_windows, real, made)
    both: Tensor = loss + PENALTY * (penalty + gradient_penalty(net.of_latents, noise, latents))
    return both


def gradient_penalty(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Return the mean squared distance from 1 of each sample's gradient, between two sets."""
    share = torch.rand(len(real), 1)
    between = (share * real + (1 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = ((slope.norm(dim=1) - 1) ** 2).mean()
    return penalty


def coder_loss(net: HypADNetwork, windows: Tensor) -> Tensor:
    """Return the loss of encoder, decoder and the layer into the ball."""
    latents = net.latents(windows)
    apart = distance(net.points(net.decoded(latents)), net.points(windows)).mean()
    noise = torch.randn(len(windows), net.latent)
    made = _flat(net.points(net.decoded(noise)).transpose(1, 2))
    game = net.of_windows(made).mean() + net.of_latents(latents).mean()
    loss: Tensor = 10 * apart - game
    return loss


@torch.no_grad()
def error_of(net: HypADNetwork, windows: Tensor) -> float:
    """Return the mean Euclidean error of reconstruction.

    Not the hyperbolic one: that is small also where the layer maps everything to one place.
    """
    net.eval()
    error = ((net.decoded(net.latents(windows)) - windows) ** 2).mean()
    return float(error)


def _adam(parts: Sequence[nn.Module], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for part in parts for p in part.parameters()], lr=rate)


def _batches(windows: Tensor, size: int) -> list[Tensor]:
    order = torch.randperm(len(windows))
    n = max(len(windows) // size, 1)
    return [windows[order[i * size : (i + 1) * size]] for i in range(n)]


def _step(optimiser: torch.optim.Adam, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _flat(windows: Tensor) -> Tensor:
    return windows.reshape(len(windows), -1)


@torch.no_grad()
def export(net: HypADNetwork) -> dict[str, Floats]:
    """Return the network as float32 arrays, matrices as ``(inputs, outputs)``."""
    made: dict[str, Tensor] = {}
    for name, lstm, layer in (
        ("encode", net.encode.lstm, 0),
        ("first", net.decode.lstm, 0),
        ("second", net.decode.lstm, 1),
    ):
        for side, suffix in (("", ""), ("_back", "_reverse")):
            made[f"{name}_into{side}"] = getattr(lstm, f"weight_ih_l{layer}{suffix}").T
            made[f"{name}_again{side}"] = getattr(lstm, f"weight_hh_l{layer}{suffix}").T
            made[f"{name}_bias{side}"] = getattr(lstm, f"bias_ih_l{layer}{suffix}") + getattr(
                lstm, f"bias_hh_l{layer}{suffix}"
            )
    for name, linear in (
        ("latent", net.encode.out),
        ("seeds", net.decode.into),
        ("out", net.decode.out),
    ):
        made[name], made[f"{name}_bias"] = linear.weight.T, linear.bias
    made["ball"], made["ball_bias"] = net.to_ball.weight.T, exp_at_origin(net.to_ball.bias)
    first, *inner, last = (one for one in net.of_windows if isinstance(one, nn.Linear))
    made["critic"], made["critic_bias"] = first.weight.T, first.bias
    made["critic_inner"] = torch.stack([one.weight.T for one in inner])
    made["critic_inner_bias"] = torch.stack([one.bias for one in inner])
    made["critic_last"], made["critic_last_bias"] = last.weight.T, last.bias
    return {
        name: np.ascontiguousarray(value.numpy().astype(np.float32)) for name, value in made.items()
    }
