"""Small made inputs of events, edges and graphs: ordinary, strange and odd ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows, Graphs
from streamad.windows.graphs import GraphPlan, GraphWindows

USERS = ("alice", "bob", "carol", "dave")
PROCESSES = ("bash", "cat", "vim", "ssh", "git", "make")
HOSTS = tuple(f"web-{i}" for i in range(6))
STORES = tuple(f"db-{i}" for i in range(3))
STEP_MS = 1_000
EDGES_PER_GRAPH = 12


def ordinary_items(modality: str, n: int, *, seed: int) -> Any:
    """Return items as they always come."""
    return _MAKERS[modality](n, np.random.default_rng(seed), strange=False)


def strange_items(modality: str, n: int, *, seed: int) -> Any:
    """Return items as they never come."""
    return _MAKERS[modality](n, np.random.default_rng([seed, 1]), strange=True)


def odd_items(modality: str) -> Any:
    """Return items that lack what others have, and such as nobody expects."""
    if modality == "events":
        texts = [None, "", "x" * 10_000, "\x00", "alice", "né 💥", None]
        frame = pl.DataFrame(
            {
                "user": texts,
                "process": [None, "cat", None, "\n", "", "cat", None],
                "bytes": [None, np.inf, -1.0, 1e30, 0.0, float("nan"), None],
            },
            schema={"user": pl.String, "process": pl.String, "bytes": pl.Float64},
            strict=False,
        )
        return EventRows(np.arange(7, dtype=np.int64), frame)
    names = ["a", "a", "né 💥", "", "x" * 5_000, "a", "b"]
    edges = edge_rows(
        names, ["a", "b", "a", "b", "a", "c", "a"], [5, 5, 5, 3, 9_999_999, 10_000_000, 1],
        weight=[1.0, np.nan, -5.0, 0.0, np.inf, 1e300, 1.0],
    )  # fmt: skip
    if modality == "edges":
        return edges
    lone = edge_rows(["solo"], ["solo"], [0])
    return Graphs.join([graphs_of(lone, 1_000), graphs_of(edges, 10**9), _empty_graph()])


def edge_rows(
    source: list[str],
    target: list[str],
    time_ms: list[int],
    *,
    types: tuple[list[str | None], list[str | None]] | None = None,
    weight: list[float] | None = None,
) -> EdgeRows:
    """Return edges; types : of sources and of targets."""
    kinds = ([None] * len(source), [None] * len(source)) if types is None else types
    return EdgeRows(
        np.array(time_ms, np.int64),
        pl.Series(source, dtype=pl.String),
        pl.Series(target, dtype=pl.String),
        pl.Series(kinds[0], dtype=pl.String),
        pl.Series(kinds[1], dtype=pl.String),
        np.ones(len(source)) if weight is None else np.array(weight),
    )


def graphs_of(edges: EdgeRows, span_ms: int) -> Graphs:
    """Return the graphs of tumbling windows of one key's edges, in time order; the last one too."""
    windows = GraphWindows(GraphPlan(span_ms=span_ms, slide_ms=span_ms))
    windows.state.reserve(1)
    end_ms = (int(edges.time_ms.max(initial=0)) // span_ms + 2) * span_ms
    closing = edge_rows(["end"], ["end"], [end_ms])
    found = []
    for rows in (edges, closing):
        codes, late = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.bool_)
        found += [block.values for block in windows.ingest(codes, rows.time_ms, rows, late)]
    return Graphs.join(found)


def _events(n: int, draw: np.random.Generator, *, strange: bool) -> EventRows:
    user = draw.integers(len(USERS), size=n)
    # Each user has two processes, and seldom another one.
    usual = 2 * (user % 3) + draw.integers(2, size=n)
    process = np.where(draw.random(n) < 0.02, draw.integers(len(PROCESSES), size=n), usual)
    names = [PROCESSES[i] for i in process]
    users = [USERS[i] for i in user]
    n_bytes = np.exp(draw.normal(6, 1, n))
    if strange:
        names = [f"implant-{i}" for i in draw.integers(10**6, size=n)]
        users = [f"nobody-{i}" for i in draw.integers(10**6, size=n)]
        n_bytes = n_bytes * 1e6
    frame = pl.DataFrame({"user": users, "process": names, "bytes": n_bytes})
    return EventRows(np.arange(n, dtype=np.int64) * STEP_MS, frame)


def _edges(n: int, draw: np.random.Generator, *, strange: bool) -> EdgeRows:
    source = draw.integers(len(HOSTS), size=n)
    target = source % len(STORES)
    if strange:
        # One host reaches everything, all at once.
        return edge_rows(
            [HOSTS[0]] * n, [f"10.0.0.{i}" for i in range(n)], [10**7] * n,
            types=(["host"] * n, ["host"] * n),
        )  # fmt: skip
    return edge_rows(
        [HOSTS[i] for i in source],
        [STORES[i] for i in target],
        (np.arange(n) * STEP_MS).tolist(),
        types=(["host"] * n, ["store"] * n),
    )


def _graphs(n: int, draw: np.random.Generator, *, strange: bool) -> Graphs:
    if not n:
        return _empty_graph()[:0]
    span_ms = EDGES_PER_GRAPH * STEP_MS
    if not strange:
        return graphs_of(_edges(n * EDGES_PER_GRAPH, draw, strange=False), span_ms)
    made = []
    for number in range(n):
        m = 40 + int(draw.integers(40))
        star = edge_rows(
            ["evil"] * m, [f"10.0.{number % 250}.{i}" for i in range(m)], [0] * m,
            types=(["intruder"] * m, ["host"] * m),
        )  # fmt: skip
        made.append(graphs_of(star, span_ms))
    return Graphs.join(made)


def _empty_graph() -> Graphs:
    """Return one graph without nodes."""
    i8 = np.int64
    return Graphs(
        time_ms=np.zeros((1, 2), i8), node_from=np.zeros(2, i8), edge_from=np.zeros(2, i8),
        names=pl.Series([], dtype=pl.String), types=pl.Series([], dtype=pl.String),
        source=np.empty(0, np.int32), target=np.empty(0, np.int32), count=np.empty(0),
        dropped=np.zeros(1, i8),
    )  # fmt: skip


_MAKERS = {"events": _events, "edges": _edges, "graphs": _graphs}
