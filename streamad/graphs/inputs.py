"""What the RQ network reads of graphs: shared by its training and its serving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import Spectra, rayleigh_quotients, spectra_of
from streamad.graphs.vector import BUCKETS, Vocabulary, degree_buckets, one_hot


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPlan:
    """How graphs become the network's input.

    vocabulary : node types with a feature of their own
    buckets : also give each node the bucket of its number of neighbours
    weighted : edges weigh ``log(1 + count)``
    normalised : quotients are ``x^T L x / x^T x`` (the paper), else ``x^T L x`` (its code)
    """

    vocabulary: Vocabulary
    buckets: bool = True
    weighted: bool = True
    normalised: bool = True

    @property
    def n_features(self) -> int:
        """Return the width of a node's features."""
        return len(self.vocabulary) + (len(BUCKETS) if self.buckets else 0)

    @property
    def n_codes(self) -> int:
        """Return how many kinds of node there are: a type, and a bucket where there are any."""
        return len(self.vocabulary) * (len(BUCKETS) if self.buckets else 1)

    def features(self, codes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the features of kinds of node, ``(len(codes), n_features)``, all 0 or 1.

        Examples
        --------
        >>> plan = InputPlan(vocabulary=Vocabulary(("web",)), buckets=False)
        >>> plan.features(np.array([1, 0], np.int32)).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        if not self.buckets:
            return one_hot(codes, len(self.vocabulary))
        types = one_hot(codes // len(BUCKETS), len(self.vocabulary))
        return np.concatenate([types, one_hot(codes % len(BUCKETS), len(BUCKETS))], axis=1)

    def __call__(self, graphs: Graphs) -> Inputs:
        """Return the input of graphs."""
        spectra = spectra_of(graphs, weighted=self.weighted)
        codes = self.vocabulary.encode(graphs.types)
        if self.buckets:
            codes = codes * np.int32(len(BUCKETS)) + degree_buckets(spectra)
        signals = self.features(codes)
        quotients = rayleigh_quotients(spectra, signals, normalised=self.normalised)
        return Inputs(spectra=spectra, codes=codes, quotients=quotients.astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Graphs as the network reads them.

    codes : int32 ``(n_nodes,)``, the kind of each node
    quotients : float32 ``(n_graphs, n_features)``
    """

    spectra: Spectra
    codes: NDArray[np.int32]
    quotients: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.quotients)
