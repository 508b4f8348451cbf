"""Rayleigh quotients and spectra of many graphs at once, on their undirected simple form.

``RQ(L, x) = x^T L x / x^T x`` with ``L = I - D^-1/2 A D^-1/2`` lies in [0, 2]; it is the mean
frequency of a node signal x. Source: Dong, Zhang, Wang, Rayleigh Quotient Graph Neural Networks for
Graph-level Anomaly Detection, ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs
from streamad.graphs.spectral_kernels import (
    count_components,
    join_edges,
    normalise,
    quadratic_forms,
    top_eigenvalues,
)


@dataclass(frozen=True, slots=True)
class Spectra:
    """The normalised adjacency matrices of a batch of graphs, as sorted sparse rows.

    node_from : int64 ``(n_graphs + 1,)``, as in `Graphs`
    begins : int64 ``(n_nodes + 1,)``, where each node's row begins
    neighbours : int32 ``(n_entries,)``, places of nodes in the whole batch, rising inside a row
    weights : float64 ``(n_entries,)``, ``A_uv``: 1, or ``log(1 + count)``
    shares : float64 ``(n_entries,)``, ``A_uv / sqrt(d_u d_v)``, 0 where a degree is 0
    """

    node_from: NDArray[np.int64]
    begins: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    weights: NDArray[np.float64]
    shares: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.node_from) - 1

    @property
    def n_neighbours(self) -> NDArray[np.int64]:
        """Return how many neighbours each node has, ``(n_nodes,)``."""
        return np.diff(self.begins)

    @property
    def n_pairs(self) -> NDArray[np.int64]:
        """Return how many undirected edges each graph has, ``(n_graphs,)``."""
        return np.diff(self.begins[self.node_from]) // 2


def spectra_of(graphs: Graphs, *, weighted: bool = True) -> Spectra:
    """Return the undirected simple form of graphs: no self loops, each pair of nodes once.

    weighted : an edge weighs ``log(1 + count)``, both directions together; else 1
    """
    begins, neighbours, weights = join_edges(
        graphs.node_from, graphs.edge_from, graphs.source, graphs.target, graphs.count, weighted
    )
    shares = normalise(begins, neighbours, weights)
    return Spectra(graphs.node_from, begins, neighbours, weights, shares)


def rayleigh_quotients(
    spectra: Spectra, signals: NDArray[np.float64], *, normalised: bool = True
) -> NDArray[np.float64]:
    """Return ``x^T L x / x^T x`` of every signal in every graph, ``(n_graphs, n_signals)``.

    signals : float64 ``(n_nodes, n_signals)``, finite
    normalised : divide by ``x^T x``, as the paper defines it; else return ``x^T L x`` alone, which
        grows with the graph (the published code)

    A signal that is 0 everywhere in a graph has the quotient 0, and so has every signal of an
    isolated node (``(Lx)_u = 0`` there, as in scipy).
    """
    forms, squares = quadratic_forms(
        spectra.node_from,
        spectra.begins,
        spectra.neighbours,
        spectra.shares,
        np.ascontiguousarray(signals, dtype=np.float64),
    )
    if normalised:
        return np.asarray(np.clip(forms / np.where(squares > 0, squares, 1.0), 0.0, 2.0))
    scale = _largest(spectra, signals)
    return np.asarray(np.maximum(forms, 0.0) * scale * scale)


def largest_eigenvalues(spectra: Spectra) -> NDArray[np.float64]:
    """Return estimates of the two largest Laplacian eigenvalues, ``(n_graphs, 2)``.

    A fixed number of steps from a fixed start: the same bits for a graph alone and in a batch.
    Close to the truth from below; 0 for a graph without edges.
    """
    begins, neighbours = spectra.begins, spectra.neighbours
    return top_eigenvalues(spectra.node_from, begins, neighbours, spectra.shares)


def components(spectra: Spectra) -> NDArray[np.int64]:
    """Return how many connected parts each graph has, ``(n_graphs,)``."""
    return count_components(spectra.node_from, spectra.begins, spectra.neighbours)


def _largest(spectra: Spectra, signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest magnitude of every signal in every graph, 0 where a graph is empty."""
    made = np.zeros((len(spectra), signals.shape[1]))
    filled = np.flatnonzero(np.diff(spectra.node_from))
    if len(filled):
        made[filled] = np.maximum.reduceat(np.abs(signals), spectra.node_from[filled], axis=0)
    return made
