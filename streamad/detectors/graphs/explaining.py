"""Which edges and which node types raise a graph's score, found by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import spectra_of
from streamad.graphs.vector import UNTYPED, without_pairs
from streamad.shown import safe_text

Floats = NDArray[np.float32]
Score = Callable[[Graphs], Floats]

MOST_EDGES: Final = 32
"""Pairs of nodes that are left out, one at a time."""
MOST_TYPES: Final = 16
MOST_ENTITIES: Final = 10
MOST_COPIED: Final = 2_000_000
"""Edges of all copies of a graph: fewer pairs are tried in a graph of very many edges."""
MOST_NAME: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What the score loses when an edge, or a node type, is left out.

    name : as people read it; nodes : places within the graph; count : of the edge, or of nodes
    """

    name: str
    nodes: tuple[int, ...]
    count: float
    loss: float


def edge_effects(
    graphs: Graphs, i: int, score: Score, surprise: NDArray[np.float64]
) -> list[Effect]:
    """Return what leaving out a pair's edges does to the score of graph ``i``, largest loss first.

    surprise : float64 ``(n_nodes,)`` of all graphs, how rare each node's kind is, in nats. The
        `MOST_EDGES` pairs with the largest sum of surprise and log degree are tried.
    """
    edges = slice(graphs.edge_from[i], graphs.edge_from[i + 1])
    source, target = graphs.source[edges], graphs.target[edges]
    linked = np.flatnonzero(source != target)
    if not len(linked):
        return []
    first = int(graphs.node_from[i])
    one = graphs[i : i + 1]
    degree = np.log1p(spectra_of(one).n_neighbours)
    weight = surprise[first : first + len(degree)] + degree
    low, high = np.minimum(source, target)[linked], np.maximum(source, target)[linked]
    _, at = np.unique(low.astype(np.int64) * len(degree) + high, return_index=True)
    at = np.sort(at)
    rank = weight[low[at]] + weight[high[at]]
    most = int(np.clip(MOST_COPIED // len(source), 4, MOST_EDGES))
    chosen = linked[at[np.argsort(-rank, kind="stable")[:most]]]
    pairs = [(int(source[e]), int(target[e])) for e in chosen]
    loss = float(score(one)[0]) - score(without_pairs(graphs, i, pairs)).astype(np.float64)
    counts = graphs.count[edges]
    found = [
        Effect(
            name=f"{name_of(graphs, i, a)} -> {name_of(graphs, i, b)}",
            nodes=(a, b),
            count=float(counts[e]),
            loss=float(loss[k]),
        )
        for k, (e, (a, b)) in enumerate(zip(chosen, pairs, strict=True))
    ]
    return sorted(found, key=lambda one: -one.loss)


def type_effects(graphs: Graphs, i: int, score: Score, stand_in: str) -> list[Effect]:
    """Return what making a type's nodes ordinary does to the score, largest loss first.

    stand_in : the type they get instead, the most usual one
    """
    one = graphs[i : i + 1]
    types = one.types.cast(pl.String).fill_null(UNTYPED)
    counts = types.value_counts(sort=True, name="n")
    found = []
    for name, n in counts.head(MOST_TYPES).iter_rows():
        if name == stand_in:
            continue
        held = (types == name).to_numpy()
        changed = replace(
            one,
            types=pl.select(
                pl.when(pl.Series(held)).then(pl.lit(stand_in)).otherwise(types)
            ).to_series(),
        )
        loss = float(score(one)[0]) - float(score(changed)[0])
        nodes = tuple(int(u) for u in np.flatnonzero(held)[:MOST_ENTITIES])
        found.append(Effect(name=shown_type(name), nodes=nodes, count=float(n), loss=loss))
    return sorted(found, key=lambda effect: -effect.loss)


def guilty(graphs: Graphs, i: int, nodes: Iterable[int]) -> tuple[str, ...]:
    """Return the names of nodes, each once, in this order, at most ten."""
    names = dict.fromkeys(name_of(graphs, i, u) for u in nodes)
    return tuple(names)[:MOST_ENTITIES]


def name_of(graphs: Graphs, i: int, place: int) -> str:
    """Return a node's name, fit to be shown."""
    return safe_text(str(graphs.names[int(graphs.node_from[i]) + int(place)]), MOST_NAME)


def shown_type(name: str) -> str:
    """Return a type's name, fit to be shown."""
    return f"type {safe_text(name, MOST_NAME)}" if name else "nodes without a type"


def shares_of(parts: dict[str, float]) -> dict[str, float]:
    """Return parts above 0 divided by their sum; one of them, if none is above 0.

    >>> shares_of({"edges": 3.0, "a -> b": 1.0, "parts": -1.0})
    {'edges': 0.75, 'a -> b': 0.25}
    """
    above = {name: value for name, value in parts.items() if value > 0}
    total = sum(above.values())
    if not above:
        return dict.fromkeys(list(parts)[:1] or ["graph"], 1.0)
    return {name: value / total for name, value in above.items()}


def number(value: float) -> str:
    """Return a number with the digits a reader wants.

    >>> number(12.0), number(0.034), number(1234567.0)
    ('12', '0.034', '1,234,567')
    """
    if abs(value - round(value)) < 1e-9 or abs(value) >= 100:
        return f"{round(value):,}"
    return f"{value:.2g}"
