"""Nodes as features, and whole graphs as vectors of named numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import ArtifactError
from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import (
    Spectra,
    components,
    largest_eigenvalues,
    rayleigh_quotients,
    spectra_of,
)

UNKNOWN: Final = 0
"""The number of a type that is not in the vocabulary."""
UNTYPED: Final = ""
"""Stands for the type of a node that was given none."""
MAX_TYPES: Final = 32
BUCKETS: Final = ("0", "1", "2", "3", "4", "5-8", "9-16", "17-32", "33-64", "65+")
"""Numbers of neighbours that count as one."""
SHAPE: Final = (
    "nodes", "edges", "density", "mean degree", "largest degree", "parts", "count",
    "first eigenvalue", "second eigenvalue",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The node types that have a number of their own, 1 and up; all others are `UNKNOWN`.

    Examples
    --------
    >>> Vocabulary(("db", "web")).encode(pl.Series(["web", "disk", None])).tolist()
    [2, 0, 0]
    """

    types: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many numbers there are, `UNKNOWN` among them."""
        return len(self.types) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Return what each number is called."""
        return ("unknown type", *(one or "no type" for one in self.types))

    def encode(self, types: pl.Series) -> NDArray[np.int32]:
        """Return the number of every type, int32 ``(n_nodes,)``."""
        if not len(types) or not self.types:
            return np.zeros(len(types), np.int32)
        numbers = types.cast(pl.String).fill_null(UNTYPED)
        return (
            numbers.replace_strict(
                list(self.types),
                list(range(1, len(self))),
                default=UNKNOWN,
                return_dtype=pl.Int32,
            )
            .to_numpy()
            .astype(np.int32)
        )

    def to_array(self) -> NDArray[np.uint8]:
        """Return the types as bytes: UTF-8 text, a NUL after each."""
        return np.frombuffer("".join(f"{one}\0" for one in self.types).encode(), np.uint8).copy()

    @classmethod
    def from_array(cls, array: NDArray[np.uint8]) -> Vocabulary:
        """Take back what `to_array` returned; raises ArtifactError where it is not."""
        try:
            types = tuple(array.astype(np.uint8).tobytes().decode().split("\0")[:-1])
        except UnicodeDecodeError as error:
            msg = "the artifact's node types are not UTF-8 text; fit it again"
            raise ArtifactError(msg) from error
        if len(set(types)) != len(types):
            msg = "the artifact names a node type twice; fit it again"
            raise ArtifactError(msg)
        return cls(types)


def learn_vocabulary(graphs: Graphs, *, max_types: int = MAX_TYPES) -> Vocabulary:
    """Return the types most nodes have, at most ``max_types`` of them, in the order of names."""
    counts = (
        pl.DataFrame({"type": graphs.types.cast(pl.String).fill_null(UNTYPED)})
        .filter(~pl.col("type").str.contains("\0", literal=True))
        .group_by("type")
        .len()
        .sort(["len", "type"], descending=[True, False])
    )
    return Vocabulary(tuple(sorted(counts["type"].head(max_types).to_list())))


def degree_buckets(spectra: Spectra) -> NDArray[np.int32]:
    """Return which of `BUCKETS` each node's number of neighbours is in, int32 ``(n_nodes,)``."""
    edges = np.array([0, 1, 2, 3, 4, 8, 16, 32, 64], dtype=np.int64)
    return np.searchsorted(edges, spectra.n_neighbours, side="left").astype(np.int32)


def one_hot(numbers: NDArray[np.int32], width: int) -> NDArray[np.float64]:
    """Return ``(n, width)`` with a 1 at each number.

    >>> one_hot(np.array([1, 0], np.int32), 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    made = np.zeros((len(numbers), width))
    made[np.arange(len(numbers)), numbers] = 1.0
    return made


def node_features(
    types: NDArray[np.int32], buckets: NDArray[np.int32], n_types: int
) -> NDArray[np.float64]:
    """Return one-hot types followed by one-hot degree buckets, ``(n_nodes, n_types + 10)``."""
    return np.concatenate([one_hot(types, n_types), one_hot(buckets, len(BUCKETS))], axis=1)


def fractions(graphs: Graphs, numbers: NDArray[np.int32], width: int) -> NDArray[np.float64]:
    """Return the share of each number among a graph's nodes, ``(n_graphs, width)``."""
    at = graphs.graph_of_node * width + numbers
    counts = np.bincount(at, minlength=len(graphs) * width).reshape(len(graphs), width)
    return np.asarray(counts / np.maximum(np.diff(graphs.node_from), 1)[:, None])


def shape_of(graphs: Graphs, spectra: Spectra) -> NDArray[np.float64]:
    """Return `SHAPE` of every graph, ``(n_graphs, 9)``; all but density and eigenvalues as log.

    ``log(1 + x)`` of: nodes, edges (pairs), mean and largest number of neighbours, connected parts,
    and the sum of counts with the edges that were dropped. Density is the share of possible pairs.
    """
    n = np.diff(graphs.node_from).astype(np.float64)
    pairs = spectra.n_pairs.astype(np.float64)
    possible = n * (n - 1) / 2
    most = np.zeros(len(graphs))
    filled = np.flatnonzero(n)
    if len(filled):
        most[filled] = np.maximum.reduceat(spectra.n_neighbours, graphs.node_from[filled])
    count = np.nan_to_num(np.clip(graphs.count, 0.0, 1e15), nan=0.0)
    total = np.bincount(graphs.graph_of_edge, weights=count, minlength=len(graphs))
    columns = [
        np.log1p(n),
        np.log1p(pairs),
        pairs / np.where(possible > 0, possible, 1.0),
        np.log1p(2 * pairs / np.maximum(n, 1.0)),
        np.log1p(most),
        np.log1p(components(spectra)),
        np.log1p(total + graphs.dropped),
    ]
    return np.column_stack([*columns, largest_eigenvalues(spectra)])


@dataclass(frozen=True, slots=True)
class GraphVectors:
    """Which numbers a graph is described by, and how they are called.

    The vector is, in this order: the Rayleigh quotient of each type and of each degree bucket, the
    square root of the share of nodes of each type and in each bucket (distances of shares are then
    Hellinger's, and rare types do not drown the others), and `SHAPE`; ``2 (n_types + 10) + 9``
    numbers. The same bits for a graph alone and in a batch.
    """

    vocabulary: Vocabulary
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        of = (*self.vocabulary.names, *(f"{one} neighbours" for one in BUCKETS))
        names = (*(f"mixing of {one}" for one in of), *(f"share of {one}" for one in of), *SHAPE)
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, graphs: Graphs) -> NDArray[np.float64]:
        """Return float64 ``(n_graphs, len(names))``, finite."""
        if not len(graphs):
            return np.zeros((0, len(self)))
        spectra = spectra_of(graphs)
        types = self.vocabulary.encode(graphs.types)
        buckets = degree_buckets(spectra)
        n_types = len(self.vocabulary)
        quotients = rayleigh_quotients(spectra, node_features(types, buckets, n_types))
        shares = [fractions(graphs, types, n_types), fractions(graphs, buckets, len(BUCKETS))]
        return np.concatenate([quotients, *map(np.sqrt, shares), shape_of(graphs, spectra)], axis=1)
