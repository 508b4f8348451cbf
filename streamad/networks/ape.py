"""The energy of an event: how well its values go together, two by two.

Source: Chen, Tang, Sun, Chen, Zhang, "Entity Embedding-based Anomaly Detection for Heterogeneous
Categorical Events", IJCAI 2016 (arXiv 1608.07502). Every value of every field has one vector, all
of one space; pairs of fields have one weight each that is never negative::

    S(e) = sum_{i<j} w_ij <v_{a_i}, v_{a_j}> (+ sum_i b_{a_i}),    log P(e) ~ S(e) + c
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ApeNetwork(nn.Module):
    """Embeddings, pair weights and the constant that stands for ``-log Z``.

    Values are numbered over all fields: value ``a`` of field ``i`` is row ``starts[i] + a``.

    Parameters
    ----------
    sizes : ids per field, ``(m,)``
    dim : length of a vector
    bias : give every value a bias of its own, so that rarity by itself can be expressed
    generator : draws the vectors, uniform in (-.05, .05) as the authors have it
    """

    starts: Tensor
    _rows: Tensor
    _columns: Tensor

    def __init__(
        self, sizes: Sequence[int], dim: int, *, bias: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_fields, n_values = len(sizes), sum(sizes)
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        rows, columns = torch.triu_indices(n_fields, n_fields, 1)
        for name, value in (("starts", starts), ("_rows", rows), ("_columns", columns)):
            self.register_buffer(name, value)
        drawn = torch.rand(n_values, dim, generator=generator) * 0.1 - 0.05
        self.vectors = nn.Parameter(drawn)
        self.weights = nn.Parameter(torch.ones(len(rows)))
        self.biases = nn.Parameter(torch.zeros(n_values), requires_grad=bias)
        self.constant = nn.Parameter(torch.zeros(()))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``S(e)`` ``(n,)`` and what each field's vector is multiplied with ``(n, m, d)``.

        rows : int64 ``(n, m)``, value rows. The second is ``h_i = sum_{j != i} w_ij v_j``, so that
        an event that differs in field ``i`` alone costs one product: see `replaced`.
        """
        vectors = self.vectors[rows]
        around = torch.einsum("ij,njd->nid", self._square(), vectors)
        pairs = 0.5 * (vectors * around).sum(dim=(1, 2))
        return pairs + self.biases[rows].sum(dim=1), around

    def replaced(self, energy: Tensor, around: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Return ``S`` of events with one value replaced, ``(n, k)``.

        energy : ``(n,)`` of the events; around : ``(n, d)``, their ``h_i`` of the replaced field;
        old : value rows ``(n,)``; new : value rows ``(n, k)``
        """
        change = self.vectors[new] - self.vectors[old][:, None]
        moved = (change * around[:, None]).sum(dim=2)
        return energy[:, None] + moved + self.biases[new] - self.biases[old][:, None]

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the pair weights from falling below 0; called after each step."""
        self.weights.clamp_(min=0)

    def _square(self) -> Tensor:
        """Return the pair weights as a symmetric matrix with an empty diagonal, ``(m, m)``."""
        n_fields = len(self.starts)
        upper = self.weights.new_zeros(n_fields, n_fields)
        upper = upper.index_put((self._rows, self._columns), self.weights)
        return upper + upper.T
