"""Variates of one system: a directed acyclic graph of lagged effects (structural equations)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.training.corpus.atoms import Series
from streamad.training.corpus.config import CorpusConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Effects between variates, which are numbered so that causes come first.

    source, target, lag : int64 ``(n_edges,)``; gain : float64 ``(n_edges,)``
    keep : float64 ``(n_variates,)``, how much of its past effect a variate keeps (AR coefficient)
    share : float64 ``(n_variates,)``, how much of a variate is effect; 0 where it has no cause
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    lag: NDArray[np.int64]
    gain: Series
    keep: Series
    share: Series

    def joined(self, own: Series) -> Series:
        """Return the variates of a system whose own parts are ``own (length, n_variates)``.

        It is linear: the effects of an anomaly are those of its change alone.
        """
        return _propagate(own, self.source, self.target, self.lag, self.gain, self.keep, self.share)


def draw_graph(config: CorpusConfig, rng: np.random.Generator, n_variates: int) -> Graph:
    """Draw a graph of this many variates."""
    pairs = np.array([(i, j) for j in range(n_variates) for i in range(j)], dtype=np.int64)
    pairs = pairs.reshape(-1, 2)[rng.random(len(pairs)) < config.edge_probability]
    n_edges = len(pairs)
    least, spread = config.edge_gain
    gain = least + np.abs(spread * rng.standard_normal(n_edges))
    share = np.zeros(n_variates)
    caused = np.unique(pairs[:, 1])
    share[caused] = rng.uniform(0.1, 0.9, size=caused.size)
    return Graph(
        source=np.ascontiguousarray(pairs[:, 0]),
        target=np.ascontiguousarray(pairs[:, 1]),
        lag=rng.integers(0, config.max_lag + 1, size=n_edges),
        gain=gain * rng.choice([-1.0, 1.0], size=n_edges),
        keep=rng.uniform(0.0, 0.8, size=n_variates) * (rng.random(n_variates) < 0.5),
        share=share,
    )


@compiled
def _propagate(  # noqa: PLR0913, PLR0917 a kernel takes arrays, no objects
    own: Series,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    lag: NDArray[np.int64],
    gain: Series,
    keep: Series,
    share: Series,
) -> Series:
    length, n_variates = own.shape
    out = own.copy()
    effect = np.zeros(length)
    for v in range(n_variates):
        if share[v] == 0.0:
            continue
        effect[:] = 0.0
        for e in range(len(source)):
            if target[e] == v:
                for t in range(length):
                    # Before the series begins its cause stood where it begins.
                    effect[t] += gain[e] * out[max(t - lag[e], 0), source[e]]
        past = effect[0]
        for t in range(length):
            past = keep[v] * past + (1.0 - keep[v]) * effect[t]
            out[t, v] = (1.0 - share[v]) * own[t, v] + share[v] * past
    return out
