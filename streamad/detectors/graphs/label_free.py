"""Graphs judged without labels: how far their vector lies from those of usual graphs."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors.contract import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    ItemDetector,
    Memory,
)
from streamad.detectors.graphs.explaining import (
    Effect,
    Surprise,
    edge_effects,
    guilty,
    left_out_of,
    node_effects,
    pair_shares,
    said_of,
    shares_of,
    shown_type,
)
from streamad.detectors.graphs.wording import COUNTED, plain, sentence
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.graphs.network_kernels import squared_lengths
from streamad.graphs.rows import Graphs
from streamad.graphs.vector import (
    BUCKETS,
    MAX_TYPES,
    SHAPE,
    UNKNOWN,
    UNTYPED,
    GraphVectors,
    Vocabulary,
    learn_vocabulary,
)
from streamad.records import Explanation

Float64s = NDArray[np.float64]

LEAST: Final = 8
"""Training graphs: from fewer nothing can be learned of what varies."""
MOST_TYPES: Final = 4_096
MAD_TO_STD: Final = 1.4826
BEND: Final = 3.0
"""Deviations beyond grow by their logarithm: one odd number does not drown all others."""
FREEDOM: Final = 2.0
"""Of the t distribution, per dimension: training graphs at twice the usual squared distance weigh
three quarters, at a hundred times 3 %. Anomalies of one kind are ignored up to 1 graph in 100;
rare but normal kinds of graph still count."""
ROUNDS: Final = 12
FLOOR_MIXING, FLOOR_SHARE, FLOOR_SHAPE = 0.05, 0.02, 0.05
"""Least deviations: of Rayleigh quotients, of shares of nodes, of `SHAPE`."""
MOST_NEW: Final = 10
"""Unknown types of one graph that count."""
MOST_PARTS: Final = 5
"""Numbers of the vector, and edges, that an explanation names."""
LEAST_LOSS: Final = 0.01
"""Of the score: edges and nodes that raise it by less are not named."""


class GraphVector(ItemDetector[Graphs]):
    """Judge a graph by its distance from usual graphs; no labels are needed.

    A graph is a vector of Rayleigh quotients and shares of node types and degree buckets, and of
    its size and shape (`GraphVectors`), each in robust deviations, large ones bent.
    ``score = sqrt((d^2 + u) / m)``: ``d`` is the Mahalanobis distance under a Ledoit-Wolf
    covariance in which far training graphs weigh little, so that a few anomalies among them do not
    count; ``u = -2 log P(a type never seen)`` for each type unknown to training; ``m`` is
    the median of ``d^2`` in training. So 1 is usual.

    It sees size, density, hubs, islands, types that are new, missing or linked to other partners
    than usual. It is blind to which of many nodes of a type are linked.

    Cost per graph: the vector (some 50 microseconds for 20 nodes) and its square in products.

    Parameters
    ----------
    max_types : node types with numbers of their own, the most frequent ones

    Source: Lee et al., NeurIPS 2018 (the score); Ledoit and Wolf, J. Multivariate Analysis 2004;
    Dong, Zhang, Wang, ICLR 2024 (the quotients).
    """

    finite: ClassVar[tuple[str, ...]] = (
        "centre", "scale", "mean", "whitening", "unit", "type_shares", "pair_shares",
    )  # fmt: skip
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="graph_vector",
        summary="distance of a graph's size, shape and mix of node types from the usual",
        modality="graphs",
        min_size=1,
        default_size=1,
        needs_training=True,
        cost="cheap",
        tail=(2.0, 8.0, 13.0, 18.0),
        paper="Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, "
        "NeurIPS 2018",
    )

    def __init__(self, *, max_types: int = MAX_TYPES) -> None:
        if not 1 <= max_types <= MOST_TYPES:
            msg = f"max_types must lie in 1 .. {MOST_TYPES}, got {max_types}"
            raise ConfigError(msg)
        self.max_types = max_types
        self._vectors: GraphVectors | None = None
        self._centre = np.zeros(0)
        self._scale = np.ones(0)
        self._mean = np.zeros(0)
        self._whitening = np.zeros((0, 0))
        self._unit = np.ones(2)
        self._type_shares = np.zeros(0)
        self._pair_shares = np.zeros((0, 0))

    # learning --------------------------------------------------------------------------------

    def fit(self, items: Graphs, /, *, groups: Ints | None = None) -> Self:
        """Learn usual graphs; some of them may be anomalous. ``groups`` are taken together.

        Raises
        ------
        TrainingError
            where there are fewer than 8 graphs
        """
        if len(items) < LEAST:
            msg = f"graph_vector learns from {LEAST} graphs or more, got {len(items)}; give more"
            raise TrainingError(msg)
        words = learn_vocabulary(items, max_types=self.max_types)
        vectors = GraphVectors(words)
        found = vectors(items)
        self._centre = np.median(found, axis=0)
        self._scale = _scales(found, self._centre, _floors(vectors))
        deviations = bent((found - self._centre) / self._scale)
        self._mean, self._whitening = robust_covariance(deviations)
        self._vectors = vectors
        numbers = words.encode(items.types)
        counts = np.bincount(numbers, minlength=len(words)).astype(np.float64)
        self._type_shares = (counts + 0.5) / (counts.sum() + 0.5 * len(words))
        self._pair_shares = pair_shares(items, numbers, len(words))
        new = len(np.unique(items.graph_of_node[numbers == UNKNOWN]))
        lengths = squared_lengths(self._deviations(found), self._whitening)
        rate = (new + 1) / (len(items) + 2)
        self._unit = np.array([max(float(np.median(lengths)), 1e-6), -2 * math.log(rate)])
        return self

    # scoring ---------------------------------------------------------------------------------

    def score(
        self, items: Graphs, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return float32 ``(n_graphs,)``; 1 is usual."""
        vectors = self._fitted()
        lengths = squared_lengths(self._deviations(vectors(items)), self._whitening)
        lengths += self._unit[1] * np.minimum(_unknown_types(items, vectors.vocabulary), MOST_NEW)
        return np.asarray(np.sqrt(lengths / self._unit[0]), dtype=np.float32)

    def _fitted(self) -> GraphVectors:
        if self._vectors is None:
            msg = "graph_vector was not fitted; fit it, or load an artifact"
            raise NotFittedError(msg)
        return self._vectors

    def _deviations(self, found: Float64s) -> Float64s:
        return bent((found - self._centre) / self._scale) - self._mean

    # explaining ------------------------------------------------------------------------------

    def explain(
        self, items: Graphs, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> list[Explanation]:
        """Return what is unusual about each graph, and which edges and nodes make it so.

        Parts are numbers of the graph's vector, each with its share of the distance, and edges,
        each with the share of the score that is lost when they are left out.
        """
        vectors = self._fitted()
        found = vectors(items)
        scores = self.score(items)
        surprise = Surprise(
            vectors.vocabulary.encode(items.types),
            -np.log(self._type_shares),
            -np.log(self._pair_shares),
        )
        return [
            self._explain(items, i, found[i], float(scores[i]), surprise) for i in range(len(items))
        ]

    def _explain(
        self, items: Graphs, i: int, vector: Float64s, score: float, surprise: Surprise
    ) -> Explanation:
        names = self._fitted().names
        deviations = self._deviations(vector[None])[0]
        # d^2 = sum of z * (Sigma^-1 z), a part per number.
        gains = deviations * (self._whitening.T @ (self._whitening @ deviations))
        top = [int(j) for j in np.argsort(-gains, kind="stable")[:MOST_PARTS] if gains[j] > 0]
        effects = edge_effects(items, i, self.score, surprise)[:MOST_PARTS]
        effects = [one for one in effects if one.loss > LEAST_LOSS * score]
        nodes = node_effects(items, i, self.score, surprise)
        nodes = [one for one in nodes if one.loss > LEAST_LOSS * score]
        total = max(float(gains[gains > 0].sum()), 1e-9)
        parts = {names[j]: float(gains[j]) / total for j in top}
        parts |= {one.name: one.loss / max(score, 1e-9) for one in effects}
        observed: dict[str, float | str] = {}
        expected: dict[str, float | str] = {}
        for j in top:
            observed[names[j]] = round(plain(names[j], float(vector[j])), 6)
            expected[names[j]] = round(plain(names[j], float(self._centre[j])), 6)
        observed |= {one.name: one.count for one in effects}
        unknown = _unknown_nodes(items, i, self._fitted().vocabulary)
        return Explanation(
            observed=observed,
            expected=expected,
            variates=shares_of(parts),
            time_ms=int(items.time_ms[i, 1]),
            text=self._text(items, i, vector, top, [*nodes[:1], *effects[:1]]),
            entities=guilty(items, i, [*unknown, *_nodes(nodes), *_nodes(effects)]),
        )

    def _text(
        self, items: Graphs, i: int, vector: Float64s, top: list[int], effects: list[Effect]
    ) -> str:
        vectors = self._fitted()
        said = []
        first = int(items.node_from[i])
        unknown = _unknown_nodes(items, i, vectors.vocabulary)
        if unknown:
            name = items.types[first + unknown[0]] or UNTYPED
            said.append(f"{shown_type(str(name))} was never seen before")
        for j in _plainest(vectors.names, top)[: 1 if unknown else 2]:
            name = vectors.names[j]
            usual = plain(name, float(self._centre[j]))
            said.append(sentence(name, plain(name, float(vector[j])), usual))
        said += [*left_out_of(items, i), *said_of(effects)]
        return "; ".join(said) or "nothing about this graph stands out"

    # state -----------------------------------------------------------------------------------

    def state(self) -> Arrays:
        """Return what was learned."""
        return {
            "types": self._fitted().vocabulary.to_array(),
            "centre": self._centre,
            "scale": self._scale,
            "mean": self._mean,
            "whitening": self._whitening,
            "unit": self._unit,
            "type_shares": self._type_shares,
            "pair_shares": self._pair_shares,
        }

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned.

        Raises
        ------
        ArtifactError
            where arrays are missing, of a wrong shape, or not finite
        """
        missing = {"types", *self.finite} - set(state)
        if missing:
            msg = f"graph_vector: the artifact lacks {', '.join(sorted(missing))}; fit it again"
            raise ArtifactError(msg)
        vectors = GraphVectors(Vocabulary.from_array(state["types"]))
        width, n_types = len(vectors), len(vectors.vocabulary)
        shapes: dict[str, tuple[int, ...]] = {
            "centre": (width,), "scale": (width,), "mean": (width,), "whitening": (width, width),
            "unit": (2,), "type_shares": (n_types,),
            "pair_shares": (n_types, n_types),
        }  # fmt: skip
        read = {name: _read(state, name, shape) for name, shape in shapes.items()}
        if (read["scale"] <= 0).any() or (read["unit"] <= 0).any():
            msg = "graph_vector: the artifact's scale and unit must be above 0; fit it again"
            raise ArtifactError(msg)
        self._centre, self._scale = read["centre"], read["scale"]
        self._mean, self._whitening, self._unit = read["mean"], read["whitening"], read["unit"]
        self._type_shares = np.maximum(read["type_shares"], 1e-12)
        self._pair_shares = np.maximum(read["pair_shares"], 1e-12)
        self._vectors = vectors
        return self


def _read(state: Arrays, name: str, shape: tuple[int, ...]) -> Float64s:
    array: NDArray[Any] = state[name]
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
        msg = (
            f"graph_vector: the artifact's {name} is {array.dtype} {array.shape}, expected finite "
            f"floats {shape}; fit it again"
        )
        raise ArtifactError(msg)
    return np.ascontiguousarray(array, dtype=np.float64)


def bent(deviations: Float64s) -> Float64s:
    """Return deviations, those beyond `BEND` as ``BEND (1 + log(|z| / BEND))`` with their sign.

    >>> bent(np.array([-1.0, 3.0, 3.0 * np.e])).tolist()
    [-1.0, 3.0, 6.0]
    """
    size = np.abs(deviations)
    far = BEND * (1 + np.log(np.maximum(size, BEND) / BEND))
    return np.where(size > BEND, np.sign(deviations) * far, deviations)


def _floors(vectors: GraphVectors) -> Float64s:
    """Return the least deviation of each number of the vector."""
    n = len(vectors.vocabulary) + len(BUCKETS)
    floors = [FLOOR_MIXING, FLOOR_SHARE, FLOOR_SHAPE]
    return np.repeat(floors, [n, n, len(SHAPE)])


def _scales(found: Float64s, centre: Float64s, floors: Float64s) -> Float64s:
    """Return robust deviations: of the inner 98 %, where more than half of the values are equal."""
    spread = MAD_TO_STD * np.median(np.abs(found - centre), axis=0)
    low, high = np.quantile(found, [0.01, 0.99], axis=0)
    inner = np.clip(found, low, high).std(axis=0)
    return np.asarray(np.maximum(np.where(spread > 0, spread, inner), floors))


def ledoit_wolf(rows: Float64s) -> Float64s:
    """Return the shrunk covariance of centred rows ``(n, d)``: ``(1 - a) S + a tr(S) / d I``.

    ``a`` is the best weight in mean square, estimated from the rows (Ledoit and Wolf, 2004).
    """
    n, width = rows.shape
    sample = rows.T @ rows / n
    level = np.trace(sample) / width
    off = float((sample**2).sum()) / width - level**2
    noise = (float(((rows**2).T @ rows**2).sum()) / n - float((sample**2).sum())) / (width * n)
    weight = min(max(noise, 0.0), off) / off if off > 0 else 0.0
    return np.asarray((1 - weight) * sample + weight * level * np.eye(width))


def robust_covariance(deviations: Float64s) -> tuple[Float64s, Float64s]:
    """Return the mean and a whitening matrix of rows ``(n, d)``, far rows weighing little.

    Mean and covariance of a multivariate t distribution by reweighting (Lange, Little, Taylor,
    JASA 1989), the covariance shrunk in each round. Numbers that do not vary have the variance 1,
    in least deviations, and no covariance.
    """
    width = deviations.shape[1]
    varies = np.flatnonzero(deviations.std(axis=0) > 1e-9)
    n_varies = max(len(varies), 1)
    lengths = (deviations**2).sum(axis=1)
    weights = np.minimum(1.0, np.median(lengths) / np.maximum(lengths, 1e-9)) + 1e-9
    mean, whitening = np.zeros(width), np.eye(width)
    for _ in range(ROUNDS):
        mean = (weights[:, None] * deviations).sum(axis=0) / weights.sum()
        rows = (deviations - mean) * np.sqrt(weights)[:, None]
        if len(varies):
            shrunk = ledoit_wolf(rows[:, varies])
            shrunk += 1e-6 * np.trace(shrunk) / n_varies * np.eye(n_varies)
            whitening[np.ix_(varies, varies)] = np.linalg.inv(np.linalg.cholesky(shrunk))
        lengths = (((deviations - mean) @ whitening.T) ** 2).sum(axis=1)
        weights = (FREEDOM + 1) * n_varies / (FREEDOM * n_varies + lengths)
    return mean, whitening


def _unknown_types(graphs: Graphs, words: Vocabulary) -> NDArray[np.int64]:
    """Return how many types of a graph are in no vocabulary, ``(n_graphs,)``."""
    unknown = words.encode(graphs.types) == UNKNOWN
    found = np.zeros(len(graphs), np.int64)
    if unknown.any():
        frame = pl.DataFrame(
            {
                "graph": graphs.graph_of_node[unknown],
                "type": graphs.types.filter(pl.Series(unknown)).fill_null(UNTYPED),
            }
        ).unique()
        found += np.bincount(frame["graph"].to_numpy(), minlength=len(graphs))
    return found


def _unknown_nodes(graphs: Graphs, i: int, words: Vocabulary) -> list[int]:
    """Return places of nodes whose type is in no vocabulary."""
    types = graphs.types[int(graphs.node_from[i]) : int(graphs.node_from[i + 1])]
    return [int(u) for u in np.flatnonzero(words.encode(types) == UNKNOWN)]


def _plainest(names: tuple[str, ...], top: list[int]) -> list[int]:
    """Return numbers of the vector, those that can be counted first."""
    vague = ("mixing", "first eigenvalue", "second eigenvalue")
    return sorted(top, key=lambda j: (names[j].startswith(vague), names[j] not in COUNTED))


def _nodes(effects: list[Effect]) -> list[int]:
    return [u for one in effects for u in one.nodes]
