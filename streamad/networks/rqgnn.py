"""RQGNN: a graph neural network whose pooling is led by Rayleigh quotients.

Source: Dong, Zhang, Wang, Rayleigh Quotient Graph Neural Networks for Graph-level Anomaly
Detection, ICLR 2024 (arXiv 2310.02861); written from the paper. Where the published code differs
from the paper, `RQShape` has a switch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.01
"""Of every leaky ReLU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RQShape:
    """Sizes of the network; the defaults are the paper's.

    n_features : width of a node's features, and of the quotients
    hidden : width of node and graph embeddings
    n_filters, n_terms : Chebyshev filters side by side, and polynomials in each
    train_filters : learn the filters; the published code leaves them as they were drawn
    """

    n_features: int
    hidden: int = 64
    n_filters: int = 4
    n_terms: int = 6
    dropout: float = 0.4
    train_filters: bool = True


class _Spread(torch.autograd.Function):
    """Multiply by a symmetric sparse matrix, whose gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, signals: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return cast("Tensor", torch.sparse.mm(adjacency, signals))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, torch.sparse.mm(ctx.adjacency, grads[0])


def spread(adjacency: Tensor, signals: Tensor) -> Tensor:
    """Return ``adjacency @ signals`` for a symmetric sparse ``adjacency`` ``(n, n)``."""
    return cast("Tensor", _Spread.apply(adjacency, signals))


class ChebyshevFilter(nn.Module):
    """The weights of ``sum_k T_k(L - I) H W_k + b``, a polynomial of the normalised Laplacian.

    weight : ``(n_terms * width, width)``, all ``W_k`` below each other; bias : ``(width,)``
    """

    def __init__(self, width: int, n_terms: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_terms * width, width))
        self.bias = nn.Parameter(torch.zeros(width))
        bound = math.sqrt(6.0 / (2 * width))
        nn.init.uniform_(self.weight, -bound / math.sqrt(n_terms), bound / math.sqrt(n_terms))


def chebyshev_terms(adjacency: Tensor, signals: Tensor, n_terms: int) -> Tensor:
    """Return ``T_0 H .. T_{K-1} H`` side by side, ``(n_nodes, n_terms * width)``.

    adjacency : sparse ``(n, n)``, ``D^-1/2 A D^-1/2``; the scaled Laplacian is its negative, as the
        largest eigenvalue is taken for 2
    """
    terms = [signals]
    for k in range(1, n_terms):
        step = -spread(adjacency, terms[-1])
        terms.append(step if k == 1 else 2 * step - terms[-2])
    return torch.cat(terms, dim=1)


class RQGNN(nn.Module):
    """Node embeddings by Chebyshev filters, pooled by Rayleigh quotients, beside an RQ branch.

    Nothing bends between the filters and the linear layer behind them. So the two are multiplied
    first, which costs a third; as a function it is what the paper draws, and all filters together
    are as expressive as one.
    """

    def __init__(self, shape: RQShape) -> None:
        super().__init__()
        width, hidden = shape.n_features, shape.hidden
        self.shape = shape
        self.node = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width),
            nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.filters = nn.ModuleList(
            ChebyshevFilter(width, shape.n_terms) for _ in range(shape.n_filters)
        )
        self.filters.requires_grad_(shape.train_filters)
        self.mix = nn.Linear(shape.n_filters * width, hidden)
        self.embed = nn.Linear(hidden, hidden)
        self.pool = nn.Sequential(
            nn.Linear(width, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden),
            nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.quotient = nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, hidden))
        self.norm = nn.BatchNorm1d(2 * hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(2 * hidden, 2)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return filters and mixing layer as one: ``(n_terms * F, hidden)`` and ``(hidden,)``."""
        filters = [cast("ChebyshevFilter", one) for one in self.filters]
        weight = torch.cat([one.weight for one in filters], dim=1) @ self.mix.weight.T
        return weight, cast("Tensor", self.mix(torch.cat([one.bias for one in filters])))

    def forward(
        self, signals: Tensor, adjacency: Tensor, graph_of_node: Tensor, quotients: Tensor
    ) -> Tensor:
        """Return logits ``(n_graphs, 2)``: normal, anomalous.

        signals : ``(n_nodes, F)``; adjacency : sparse ``(n_nodes, n_nodes)``, normalised
        graph_of_node : int64 ``(n_nodes,)``; quotients : ``(n_graphs, F)``
        """
        terms = chebyshev_terms(adjacency, self.node(signals), self.shape.n_terms)
        weight, bias = self.folded()
        hidden = functional.leaky_relu(torch.addmm(bias, terms, weight), SLOPE)
        hidden = functional.leaky_relu(self.embed(hidden), SLOPE)
        wanted = self.pool(quotients)
        score = (hidden * wanted[graph_of_node]).sum(dim=1, keepdim=True)
        pooled = hidden.new_zeros(len(quotients), hidden.shape[1])
        pooled = pooled.index_add(0, graph_of_node, score * hidden)
        branch = functional.leaky_relu(self.quotient(quotients), SLOPE)
        both = torch.cat([pooled, branch], dim=1)
        return cast("Tensor", self.head(self.dropout(self.norm(both))))


def focal_loss(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Return the class-weighted focal loss over both logits, divided by the number of graphs.

    ``w_y (1 - p)^gamma (-log p)`` with p the sigmoid probability of the right answer to each logit.
    All of it is written with softplus, so that no logit overflows; the published modulator
    ``exp(-gamma t z - gamma log(1 + e^-z))`` is the same function and overflows below -88.

    logits : ``(n, 2)``; labels : int64 ``(n,)``, 0 or 1; weights : ``(2,)``, of the classes
    """
    sign = 2.0 * functional.one_hot(labels, 2).to(logits.dtype) - 1.0
    margin = sign * logits
    loss = functional.softplus(-margin) * torch.exp(-gamma * functional.softplus(margin))
    return (weights[labels][:, None] * loss).sum() / len(logits)
