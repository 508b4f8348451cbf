"""Which edges and which node types raise a graph's score, found by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.leaving_out import with_type, without_edges
from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import spectra_of
from streamad.graphs.vector import UNTYPED
from streamad.shown import safe_text

Floats = NDArray[np.float32]
Score = Callable[[Graphs], Floats]

MOST_EDGES: Final = 32
"""Pairs of nodes that are left out, one at a time."""
MOST_NODES: Final = 16
MOST_TYPES: Final = 16
MOST_ENTITIES: Final = 10
MOST_COPIED: Final = 2_000_000
"""Edges of all copies of a graph: fewer pairs are tried in a graph of very many edges."""
MOST_NAME: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What the score loses when an edge, a node, or what is special of a type, is left out.

    what : ``edge``, ``node`` or ``type``; name : as people read it
    nodes : places within the graph; count : of the edge, or of edges or nodes
    """

    what: str
    name: str
    nodes: tuple[int, ...]
    count: float
    loss: float


@dataclass(frozen=True, slots=True)
class Surprise:
    """How rare, in nats, types and pairs of types are in usual graphs.

    codes : int32 ``(n_nodes,)``, the type of each node of some graphs
    types : float64 ``(n_types,)``; pairs : float64 ``(n_types, n_types)``, of linked types
    """

    codes: NDArray[np.int32]
    types: NDArray[np.float64]
    pairs: NDArray[np.float64]


def pair_shares(graphs: Graphs, codes: NDArray[np.int32], n_types: int) -> NDArray[np.float64]:
    """Return the share of each pair of types among edges, either way; never 0."""
    spectra = spectra_of(graphs)
    near = np.repeat(codes, spectra.n_neighbours)
    at = near.astype(np.int64) * n_types + codes[spectra.neighbours]
    counts = np.bincount(at, minlength=n_types**2).reshape(n_types, n_types) + 0.5
    return np.asarray(counts / counts.sum())


def edge_effects(graphs: Graphs, i: int, score: Score, surprise: Surprise) -> list[Effect]:
    """Return what leaving out a pair's edges does to the score of graph ``i``.

    The `MOST_EDGES` pairs with the largest sum of their types' surprise and the log degrees of
    their ends are tried. They come in order of loss times surprise: of edges that raise the score
    alike, one between types that are seldom linked is the likelier cause.
    """
    source, target, weight = _edges(graphs, i, surprise)
    linked = np.flatnonzero(source != target)
    if not len(linked):
        return []
    low, high = np.minimum(source, target)[linked], np.maximum(source, target)[linked]
    pair = low.astype(np.int64) * len(weight) + high
    _, at = np.unique(pair, return_index=True)
    at = np.sort(at)
    codes = surprise.codes[int(graphs.node_from[i]) :]
    rare = surprise.pairs[codes[low[at]], codes[high[at]]]
    rank = rare + weight[low[at]] + weight[high[at]]
    first = np.argsort(-rank, kind="stable")[: _most(len(source))]
    chosen, rare = at[first], rare[first]
    masks = []
    for p in chosen:
        mask = np.zeros(len(source), np.bool_)
        mask[linked[pair == pair[p]]] = True
        masks.append(mask)
    counts = graphs.count[graphs.edge_from[i] : graphs.edge_from[i + 1]]
    found = []
    for mask, p, loss in zip(masks, chosen, _losses(graphs, i, score, masks), strict=True):
        a, b = int(source[linked[p]]), int(target[linked[p]])
        name = f"{name_of(graphs, i, a)} -> {name_of(graphs, i, b)}"
        count = float(counts[mask].sum())
        found.append(Effect(what="edge", name=name, nodes=(a, b), count=count, loss=loss))
    weighed = [
        one.loss * (nats if one.loss > 0 else 1) for one, nats in zip(found, rare, strict=True)
    ]
    return [found[k] for k in np.argsort(-np.array(weighed), kind="stable")]


def node_effects(graphs: Graphs, i: int, score: Score, surprise: Surprise) -> list[Effect]:
    """Return what leaving out all edges of a node does to the score, largest loss first.

    The `MOST_NODES` nodes with the largest sum of surprise and log degree are tried.
    """
    source, target, weight = _edges(graphs, i, surprise)
    if not len(source):
        return []
    degree = np.bincount(np.concatenate([source, target]), minlength=len(weight))
    ranked = np.argsort(-np.where(degree > 0, weight, -np.inf), kind="stable")
    chosen = [int(u) for u in ranked[: min(MOST_NODES, _most(len(source)))] if degree[u]]
    masks = [(source == u) | (target == u) for u in chosen]
    losses = _losses(graphs, i, score, masks)
    found = [
        Effect(
            what="node", name=name_of(graphs, i, u), nodes=(u,), count=float(degree[u]), loss=loss
        )
        for u, loss in zip(chosen, losses, strict=True)
    ]
    return sorted(found, key=lambda one: -one.loss)


def type_effects(graphs: Graphs, i: int, score: Score, stand_in: str) -> list[Effect]:
    """Return what making a type's nodes ordinary does to the score, largest loss first.

    stand_in : the type they get instead, the most usual one
    """
    one = graphs[i : i + 1]
    types = one.types.cast(pl.String).fill_null(UNTYPED)
    before = float(score(one)[0])
    found = []
    for name, n in types.value_counts(sort=True, name="n").head(MOST_TYPES).iter_rows():
        if name == stand_in:
            continue
        held = (types == name).to_numpy()
        loss = before - float(score(with_type(graphs, i, held, stand_in))[0])
        nodes = tuple(int(u) for u in np.flatnonzero(held)[:MOST_ENTITIES])
        shown = shown_type(name)
        found.append(Effect(what="type", name=shown, nodes=nodes, count=float(n), loss=loss))
    return sorted(found, key=lambda effect: (-effect.loss, effect.name))


def _edges(
    graphs: Graphs, i: int, surprise: Surprise
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Return a graph's edges, and per node how likely it is to matter."""
    edges = slice(graphs.edge_from[i], graphs.edge_from[i + 1])
    degree = np.log1p(spectra_of(graphs[i : i + 1]).n_neighbours)
    first = int(graphs.node_from[i])
    weight = surprise.types[surprise.codes[first : first + len(degree)]] + degree
    return graphs.source[edges], graphs.target[edges], weight


def _losses(graphs: Graphs, i: int, score: Score, masks: list[NDArray[np.bool_]]) -> list[float]:
    before = float(score(graphs[i : i + 1])[0])
    return [before - float(after) for after in score(without_edges(graphs, i, masks))]


def _most(n_edges: int) -> int:
    return int(np.clip(MOST_COPIED // max(n_edges, 1), 4, MOST_EDGES))


def said_of(effects: list[Effect]) -> list[str]:
    """Return a phrase for each edge and node.

    >>> said_of([Effect(what="node", name="web-1", nodes=(0,), count=9.0, loss=2.0)])
    ['node web-1 adds most']
    """
    verbs = {"node": "adds most", "edge": "stands out", "type": "raises the score most"}
    return [f"{one.what} {one.name} {verbs[one.what]}" for one in effects]


def left_out_of(graphs: Graphs, i: int) -> list[str]:
    """Return a phrase that a graph was judged without all of its edges, where it was."""
    n = int(graphs.dropped[i])
    return [f"{n:,} edge{' was' if n == 1 else 's were'} left out of it"] if n else []


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
