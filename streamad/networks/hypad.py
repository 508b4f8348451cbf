"""The network of HypAD: a recurrent auto-encoder whose error is measured in hyperbolic space.

Source: Flaborea et al., "Are we certain it's anomalous?", CVPR-W VAND 2023 (arXiv 2211.09224), and
TadGAN (Geiger et al., IEEE Big Data 2020), of which it is the hyperbolic form. Points lie in the
Poincaré ball of curvature -1: near its centre is what the model does not commit itself to, near its
border what it is certain of.

Differences from the published code, where each whole window is one step of an LSTM that runs along
the batch, so that a score depends on its company: here every window is a sequence of its own, of
patches of samples.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

LARGEST_NORM: Final = 1 - 4e-3
"""Points end here: float32 cannot tell apart what is nearer to the border (geoopt's bound)."""
TINY: Final = 1e-9


def exp_at_origin(vectors: Tensor) -> Tensor:
    """Map tangent vectors ``(..., d)`` at the origin to the ball: ``tanh(|w|) w / |w|``."""
    norm = vectors.norm(dim=-1, keepdim=True).clamp_min(TINY)
    mapped: Tensor = torch.tanh(norm) * vectors / norm
    return mapped


def moebius_add(left: Tensor, right: Tensor) -> Tensor:
    """Return the Möbius sum of points ``(..., d)`` of the ball."""
    both = (left * right).sum(-1, keepdim=True)
    of_left = (left * left).sum(-1, keepdim=True)
    of_right = (right * right).sum(-1, keepdim=True)
    top = (1 + 2 * both + of_right) * left + (1 - of_left) * right
    added: Tensor = top / (1 + 2 * both + of_left * of_right).clamp_min(TINY)
    return added


def project(points: Tensor) -> Tensor:
    """Pull points ``(..., d)`` back inside the ball, to a norm of `LARGEST_NORM` at the most."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(TINY)
    inside: Tensor = torch.where(norm > LARGEST_NORM, points / norm * LARGEST_NORM, points)
    return inside


def distance(left: Tensor, right: Tensor) -> Tensor:
    """Return the hyperbolic distance of points ``(..., d)``; ``(...)``.

    ``arccosh(1 + a)`` as ``log1p(a + sqrt(a (a + 2)))``: exact also where points nearly coincide.
    """
    apart = ((left - right) ** 2).sum(-1)
    rooms = (1 - (left * left).sum(-1)) * (1 - (right * right).sum(-1))
    a = 2 * apart / rooms.clamp_min(TINY)
    # The root of 0 has no slope; what is added is far below float32's resolution of a distance.
    far: Tensor = torch.log1p(a + torch.sqrt(a * (a + 2) + 1e-12))
    return far


class MoebiusLinear(nn.Module):
    """A linear layer from Euclidean vectors to the ball: ``project(exp(W x) + b)``.

    The bias is a tangent vector that is mapped into the ball, so that a plain optimiser will do.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        # Small on purpose: everything begins at the centre, where nothing is certain.
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / (2 * n_in * n_out) ** 0.5 / 100)
        self.bias = nn.Parameter(torch.randn(n_out) / 400)

    def forward(self, rows: Tensor) -> Tensor:
        """Return points ``(..., n_out)`` of vectors ``(..., n_in)``."""
        mapped = exp_at_origin(rows @ self.weight.T)
        return project(moebius_add(mapped, exp_at_origin(self.bias).expand_as(mapped)))


class Encoder(nn.Module):
    """A bidirectional LSTM over the patches of a window, and a linear layer to the latent."""

    def __init__(self, width: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, latent)

    def forward(self, patches: Tensor) -> Tensor:
        """Return latents ``(n, latent)`` of patches ``(n, n_patches, width)``."""
        _, (last, _) = self.lstm(patches)
        latents: Tensor = self.out(torch.cat([last[0], last[1]], dim=1))
        return latents


class Decoder(nn.Module):
    """Two bidirectional LSTMs from two numbers a patch, as TadGAN's decoder begins, to samples."""

    SEEDS: Final = 2

    def __init__(self, n_patches: int, width: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.n_patches = n_patches
        self.into = nn.Linear(latent, n_patches * self.SEEDS)
        self.lstm = nn.LSTM(self.SEEDS, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, width)

    def forward(self, latents: Tensor) -> Tensor:
        """Return patches ``(n, n_patches, width)``, within -1 and 1."""
        begun = self.into(latents).view(len(latents), self.n_patches, self.SEEDS)
        run, _ = self.lstm(begun)
        return torch.tanh(self.out(run))


def critic(n_in: int, hidden: int, n_layers: int, dropout: float) -> nn.Sequential:
    """Return a critic of the Wasserstein game: rows ``(n, n_in)`` to ``(n, 1)``."""
    layers: list[nn.Module] = []
    for i in range(n_layers):
        layers += [nn.Linear(n_in if i == 0 else hidden, hidden), nn.LeakyReLU(0.2)]
        layers += [nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden, 1))


class HypADNetwork(nn.Module):
    """Encoder, decoder, the Möbius layer, and a critic each of windows and of latents.

    Parameters
    ----------
    size, n_variates, patch : samples a window, variates, samples a step of the LSTMs; a window is
        filled up at its old end to whole patches
    latent, encoder, decoder, critic_width : widths of the layers (the paper's: 20, 50, 64, 20)
    """

    def __init__(  # noqa: PLR0913 each is a size of the paper
        self,
        size: int,
        n_variates: int,
        *,
        patch: int,
        latent: int = 20,
        encoder: int = 50,
        decoder: int = 64,
        critic_width: int = 20,
    ) -> None:
        super().__init__()
        self.size, self.n_variates, self.patch, self.latent = size, n_variates, patch, latent
        self.n_patches = -(-size // patch)
        width = patch * n_variates
        self.encode = Encoder(width, encoder, latent)
        self.decode = Decoder(self.n_patches, width, decoder, latent)
        self.to_ball = MoebiusLinear(size, size)
        self.of_windows = critic(size * n_variates, critic_width, 4, 0.25)
        self.of_latents = critic(latent, critic_width, 2, 0.2)

    def latents(self, windows: Tensor) -> Tensor:
        """Return latents ``(n, latent)`` of windows ``(n, size, n_variates)``."""
        short = self.n_patches * self.patch - self.size
        first = windows[:, :1].expand(-1, short, -1)
        patches = torch.cat([first, windows], dim=1)
        return self.encode(patches.reshape(len(windows), self.n_patches, -1))  # type: ignore[no-any-return]

    def decoded(self, latents: Tensor) -> Tensor:
        """Return windows ``(n, size, n_variates)`` of latents."""
        patches: Tensor = self.decode(latents)
        samples = patches.reshape(len(latents), -1, self.n_variates)
        return samples[:, -self.size :]

    def points(self, windows: Tensor) -> Tensor:
        """Return points of the ball ``(n, n_variates, size)`` of windows, a variate each."""
        made: Tensor = self.to_ball(windows.transpose(1, 2))
        return made
