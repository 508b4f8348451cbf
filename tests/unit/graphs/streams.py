"""Streams of edges that the tests of this folder share."""

import numpy as np
import polars as pl

from streamad.graphs.rows import EdgeRows

TICK = 1_000


def edges(time_ms, source, target, weight=None):
    n = len(time_ms)
    untyped = pl.Series([None] * n, dtype=pl.String)
    return EdgeRows(
        time_ms=np.asarray(time_ms, np.int64),
        source=pl.Series(source, dtype=pl.String),
        target=pl.Series(target, dtype=pl.String),
        source_type=untyped,
        target_type=untyped,
        weight=np.ones(n) if weight is None else np.asarray(weight, np.float64),
    )


def traffic(n_ticks, *, per_tick=30, seed=0, first=0, nodes=12):
    """Return edges of a small population whose rates vary, in time order."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(per_tick, n_ticks)
    time_ms = (np.repeat(np.arange(n_ticks), counts) + first) * TICK
    shares = 1 / np.arange(1, nodes + 1)
    draw = [rng.choice(nodes, counts.sum(), p=shares / shares.sum()) for _ in range(2)]
    return edges(time_ms, [f"s{i}" for i in draw[0]], [f"t{i}" for i in draw[1]])


def joined(*parts):
    return EdgeRows(
        time_ms=np.concatenate([p.time_ms for p in parts]),
        source=pl.concat([p.source for p in parts]),
        target=pl.concat([p.target for p in parts]),
        source_type=pl.concat([p.source_type for p in parts]),
        target_type=pl.concat([p.target_type for p in parts]),
        weight=np.concatenate([p.weight for p in parts]),
    )


def auc(scores, is_bad):
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    n = is_bad.sum()
    return (ranks[is_bad].sum() - n * (n + 1) / 2) / (n * (len(scores) - n))
