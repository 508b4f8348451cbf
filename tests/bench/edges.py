"""How well, and how fast, is an edge stream scored?

    python tests/bench/edges.py --data ../shared/data/graphs

Data: the first 500,000 edges of DARPA 1998 (`darpa98_edges`), one tick per rank of a distinct
minute. AUC, AP and their spread over seeds of the hash functions; prevalence is AP's chance level.
Baselines: a random score, how often the edge was seen (rarity), the edges of its tick so far, and
MIDAS, MIDAS-R and MIDAS-F as published (Bhatia et al., AAAI 2020 and TKDD 2022), in the same
sketches. No setting was chosen by the labels: 2 rows, decay 0.5 and threshold 1000 are the
published code's defaults, 2719 buckets the paper's; the horizon is a week of minutes, and a level
is adopted after a day.

``--sweep`` adds other settings, to see what depends on them. Speed is of one core, in batches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from streamad.compiled import compiled
from streamad.detectors.graphs.changes import EdgeChanges
from streamad.detectors.graphs.edges import EdgeStream
from streamad.graphs.kernels import bucket_of, key_of
from streamad.graphs.names import hashes_of
from streamad.graphs.rows import EdgeRows

TICK_MS = 60_000
BATCH = 8_192
Scores = NDArray[np.float64]


def read(path: Path) -> tuple[EdgeRows, NDArray[np.int64]]:
    """Return edges with names as strings, and their labels."""
    table = pl.read_csv(path / "darpa98_edges" / "darpa_first500k.csv.gz")
    n = table.height
    untyped = pl.Series([None] * n, dtype=pl.String)
    rows = EdgeRows(
        time_ms=table["tick"].to_numpy().astype(np.int64) * TICK_MS,
        source=("host-" + table["src"].cast(pl.String)),
        target=("host-" + table["dst"].cast(pl.String)),
        source_type=untyped,
        target_type=untyped,
        weight=np.ones(n),
    )
    return rows, table["label"].to_numpy().astype(np.int64)


def auc(scores: Scores, labels: NDArray[np.int64]) -> float:
    """Return the area under the ROC curve, ties counted half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    n_bad = int(labels.sum())
    good = len(labels) - n_bad
    return float((ranks[labels == 1].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * good))


def average_precision(scores: Scores, labels: NDArray[np.int64]) -> float:
    """Return the average precision; equal scores are one threshold."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(labels[order])[last]
    seen = np.arange(1, len(labels) + 1)[last]
    return float((np.diff(np.append(0, hits)) * hits / seen).sum() / labels.sum())


@compiled
def published(  # noqa: C901, PLR0912, PLR0915 a kernel is one function
    ticks: NDArray[np.int64],
    nodes: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    plan: tuple[int, int, int, int, float, float],
) -> Scores:
    """Score as the papers do: variant 0 MIDAS (edges only), 1 MIDAS-R, 2 MIDAS-F.

    plan : variant, seed, rows, buckets, decay, threshold; ticks are ranks that begin at 1
    """
    variant, seed, rows, buckets, decay, threshold = plan
    current = np.zeros((3, rows, buckets))
    total = np.zeros((3, rows, buckets))
    stored = np.zeros((3, rows, buckets))
    scores = np.zeros(len(ticks))
    places = np.empty(rows, np.int64)
    now = ticks[0]
    for i in range(len(ticks)):
        t = ticks[i]
        if t > now:
            if variant == 2:
                for kind in range(3):
                    for row in range(rows):
                        for b in range(buckets):
                            if stored[kind, row, b] < threshold:
                                total[kind, row, b] += current[kind, row, b]
                            elif now > 1:
                                total[kind, row, b] += total[kind, row, b] / (now - 1)
            current *= decay
            now = t
        best = 0.0
        for kind in range(1 if variant == 0 else 3):
            key = key_of(kind, nodes[0][i], nodes[1][i])
            a, s = 1e300, 1e300
            for row in range(rows):
                b = bucket_of(key, row, seed, buckets)
                places[row] = b
                current[kind, row, b] += 1.0
                if variant != 2:
                    total[kind, row, b] += 1.0
                a = min(a, current[kind, row, b])
                s = min(s, total[kind, row, b])
            score = 0.0
            if s > 0 and t > 1:
                gap = a + s - a * t if variant == 2 else a * t - s
                score = gap * gap / (s * (t - 1))
            for row in range(rows):
                stored[kind, row, places[row]] = score
            best = max(best, score)
        scores[i] = best
    return scores


def detector(**settings: float) -> Callable[[EdgeRows, int], Scores]:
    """Return a scorer of a whole stream in batches, by seed."""

    def scored(rows: EdgeRows, seed: int) -> Scores:
        model = EdgeStream(tick=TICK_MS, seed=seed, **settings)
        memory = model.new_shared()
        parts = [model.observe(memory, rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
        return np.concatenate(parts).astype(np.float64)

    return scored


def midas(variant: int, buckets: int, decay: float) -> Callable[[EdgeRows, int], Scores]:
    """Return a published scorer, by seed."""

    def scored(rows: EdgeRows, seed: int) -> Scores:
        nodes = (hashes_of(rows.source), hashes_of(rows.target))
        return published(rows.time_ms // TICK_MS, nodes, (variant, seed, 2, buckets, decay, 1000.0))

    return scored


def changes(rows: EdgeRows, seed: int) -> Scores:
    """Score with ``edge_changes``, which has no seed."""
    del seed
    model = EdgeChanges()
    return model.observe(model.new_shared(), rows).astype(np.float64)


def seen_so_far(rows: EdgeRows, seed: int) -> Scores:
    """Score by rarity: minus the number of earlier edges of the pair."""
    del seed
    pair = pl.DataFrame({"s": rows.source, "t": rows.target})
    return -pair.select(pl.int_range(pl.len()).over("s", "t")).to_series().to_numpy().astype(float)


def tick_so_far(rows: EdgeRows, seed: int) -> Scores:
    """Score by the number of edges of the tick up to this one."""
    del seed
    ticks = pl.DataFrame({"t": rows.time_ms})
    return ticks.select(pl.int_range(pl.len()).over("t")).to_series().to_numpy().astype(float)


def quality(rows: EdgeRows, labels: NDArray[np.int64], n_seeds: int, *, sweep: bool) -> Table:
    """Return AUC and AP of every scorer; `early`: on the first 400,000 edges, before the floods."""
    scorers: dict[str, Callable[[EdgeRows, int], Scores]] = {
        "random": lambda edges, seed: np.random.default_rng(seed).random(len(edges)),
        "rarity of the edge": seen_so_far,
        "edges of the tick so far": tick_so_far,
        "MIDAS, 2 x 1024": midas(0, 1024, 0.0),
        "MIDAS-R, 2 x 1024": midas(1, 1024, 0.5),
        "MIDAS-F, 2 x 1024": midas(2, 1024, 0.5),
        "MIDAS-F, 2 x 2719": midas(2, 2719, 0.5),
        "edge_changes": changes,
        "edge_stream, 2 x 1024": detector(buckets=1024),
        "edge_stream, 2 x 2719 (default)": detector(),
    }
    if sweep:
        scorers |= {
            "edge_stream, 2 x 16384": detector(buckets=16_384),
            "edge_stream, 4 x 2719": detector(rows=4),
            "edge_stream, learns all": detector(threshold=np.inf),
            "edge_stream, threshold 100": detector(threshold=100.0),
            "edge_stream, threshold 10000": detector(threshold=10_000.0),
            "edge_stream, adopts after 60": detector(adopt_after=60),
            "edge_stream, never adopts": detector(adopt_after=0),
            "edge_stream, horizon 1440": detector(horizon=1440),
            "edge_stream, horizon 2^31": detector(horizon=2**31),
            "edge_stream, decay 0.25": detector(decay=0.25),
            "edge_stream, decay 0.75": detector(decay=0.75),
        }
    table = Table(title=f"{len(rows):,} edges, {labels.mean():.3f} anomalous, {n_seeds} seeds")
    for column in ("scorer", "AUC", "AP", "AUC early", "AP early"):
        table.add_column(column, justify="left" if column == "scorer" else "right")
    early = min(400_000, len(rows))
    for name, scorer in scorers.items():
        found = []
        for seed in range(n_seeds):
            s = scorer(rows, seed)
            cuts = (s, labels), (s[:early], labels[:early])
            found.append([m(*cut) for cut in cuts for m in (auc, average_precision)])
        means, spreads = np.mean(found, 0), np.std(found, 0)
        cells = [f"{m:.4f} +- {sd:.4f}" for m, sd in zip(means, spreads, strict=True)]
        table.add_row(name, *cells)
    return table


def drift(rows: EdgeRows, labels: NDArray[np.int64]) -> Table:
    """Return quantiles of scores of normal edges by fifths of the ticks: do they stay?"""
    tables = {
        "edge_stream": detector()(rows, 0),
        "MIDAS-F": midas(2, 2719, 0.5)(rows, 0),
    }
    table = Table(title="scores of normal edges: median, 90 %, 99 %, by fifths of the normal edges")
    table.add_column("scorer")
    for fifth in range(1, 6):
        table.add_column(str(fifth), justify="right")
    for name, scores in tables.items():
        parts = np.array_split(scores[labels == 0], 5)
        cells = [" ".join(f"{q:,.3g}" for q in np.quantile(p, (0.5, 0.9, 0.99))) for p in parts]
        table.add_row(name, *cells)
    return table


def best_of(times: int, run: Callable[[], object]) -> float:
    """Return the least CPU seconds of several runs; the first, which compiles, is not counted."""
    run()
    seconds = []
    for _ in range(times):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds)


def calls(rows: EdgeRows) -> dict[str, tuple[int, int, Callable[[], object]]]:
    """Return what is timed: edges, bytes of the memory, and the call, each from a new memory."""
    model, other = EdgeStream(tick=TICK_MS), EdgeChanges()
    cuts = [slice(at, at + BATCH) for at in range(0, len(rows), BATCH)]
    nodes = (hashes_of(rows.source), hashes_of(rows.target))
    hashed = [(rows.time_ms[c], (nodes[0][c], nodes[1][c]), rows.weight[c]) for c in cuts]
    batches = [rows[cut] for cut in cuts]
    singles = [rows[at : at + 1] for at in range(5_000)]

    def run(each: Callable[..., object], new: Callable[[], object], parts: list) -> None:
        memory = new()
        for part in parts:
            each(memory, *part) if isinstance(part, tuple) else each(memory, part)

    size, other_size = model.new_shared().n_bytes, other.new_shared().n_bytes
    n = len(rows)
    new = model.new_shared
    return {
        "edge_stream, hashes": (n, size, partial(run, model.judge_hashes, new, hashed)),
        "edge_stream, names": (n, size, partial(run, model.observe, new, batches)),
        "edge_stream, one edge per call": (5_000, size, partial(run, model.observe, new, singles)),
        "edge_changes, names": (
            n,
            other_size,
            partial(run, other.observe, other.new_shared, batches),
        ),
    }


def speed(rows: EdgeRows) -> Table:
    """Return edges per second of one core, and what the memory holds."""
    table = Table(title=f"one core, batches of {BATCH:,}")
    for column in ("what", "edges/s", "memory, bytes"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, (n, size, call) in calls(rows).items():
        table.add_row(name, f"{n / best_of(5, call):,.0f}", f"{size:,}")
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of darpa98_edges")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of the hash functions")
    parser.add_argument("--sweep", action="store_true", help="also other settings")
    args = parser.parse_args()
    rows, labels = read(args.data)
    console = Console(width=120)
    console.print(quality(rows, labels, args.seeds, sweep=args.sweep))
    console.print(drift(rows, labels))
    console.print(speed(rows))


if __name__ == "__main__":
    main()
