"""The encoder of CLAN: rows of numbers become directions, of which ordinary ones are alike.

Source: Wilkie, Hindy, Tachtatzis, Atkinson, "Contrastive Learning using Augmented Negatives for
network intrusion detection", IEEE CSR 2025 (arXiv 2509.06550): residual blocks of a linear layer
and ReLU, the first skip a linear layer too, and a projection that is kept for scoring.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu


class ClanNetwork(nn.Module):
    """Two residual blocks and a projection onto the unit sphere.

    Parameters
    ----------
    n_features, hidden, dim : numbers per row, width of the blocks, length of a direction
    generator : draws the weights, uniform within ``1 / sqrt(fan in)`` as is usual for linear layers
    """

    def __init__(
        self, n_features: int, hidden: int, dim: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.skip = nn.Linear(n_features, hidden)
        self.into = nn.Linear(n_features, hidden)
        self.block = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, dim)
        with torch.no_grad():
            for layer in (self.skip, self.into, self.block, self.out):
                for parameter in layer.parameters():
                    drawn = torch.rand(parameter.shape, generator=generator)
                    parameter.copy_((2 * drawn - 1) / layer.in_features**0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """Return unit vectors ``(n, dim)`` of rows ``(n, n_features)``."""
        first = self.skip(rows) + relu(self.into(rows))
        second = first + relu(self.block(first))
        made: Tensor = normalize(self.out(second), dim=1)
        return made
