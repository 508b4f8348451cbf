"""Measure CLAN on labelled flow records: AUC and AP beside baselines on the same numbers, speed.

Run ``python -m tests.bench.flows --data ../shared/data/events``. NSL-KDD: fitted on the normal rows
of the 20 % file, its 38 fields of numbers alone; test labels are read for the table alone. Without
the data there is nothing to print.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from streamad.detectors.events.ape import Ape
from streamad.detectors.events.clan import Clan
from streamad.detectors.events.rare import RareEvents
from streamad.events.numbers import NumberScale
from tests.bench.events import Labelled, nsl_kdd, rows

Scores = NDArray[np.float64]
NEIGHBOURS = 5


def numbers_of(one: Labelled) -> Labelled:
    """Return the same events with their numbers alone."""
    kinds = zip(one.train.fields.columns, one.train.fields.dtypes, strict=True)
    names = [name for name, kind in kinds if kind == pl.Float64]
    train, test = (rows(items.fields.select(names)) for items in (one.train, one.test))
    return replace(one, train=train, test=test)


def z_scored(one: Labelled) -> tuple[Scores, Scores]:
    """Return rows in standard deviations, as they are in the paper: tails are not folded."""
    train, test = (items.fields.to_numpy() for items in (one.train, one.test))
    spread = train.std(axis=0, ddof=1)
    spread[spread == 0] = 1
    return (train - train.mean(axis=0)) / spread, (test - train.mean(axis=0)) / spread


def baselines(train: Scores, test: Scores, seed: int) -> Iterator[tuple[str, Scores]]:
    """Yield scores that need no network."""
    yield "mean |z|", np.abs(test).mean(axis=1)
    covariance = np.cov(train.T)
    covariance += np.eye(len(covariance)) * 0.01 * np.trace(covariance) / len(covariance)
    apart = test - train.mean(axis=0)
    yield "Mahalanobis", (apart * np.linalg.solve(covariance, apart.T).T).sum(axis=1)
    chosen = np.random.default_rng(seed).permutation(len(train))[:5_000]
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train[chosen])
    yield f"distance to neighbour {NEIGHBOURS}", near.kneighbors(test)[0][:, -1]
    forest = IsolationForest(random_state=seed).fit(train)
    yield "isolation forest", -forest.score_samples(test)


def scores_of(one: Labelled, seed: int) -> Iterator[tuple[str, Scores]]:
    """Yield the scores of everything, for one seed."""
    yield "random", np.random.default_rng(seed).random(len(one.test))
    for name, scores in baselines(*z_scored(one), seed):
        yield f"{name}, z-scores", scores
    scale = NumberScale.fit(one.train, np.ones(len(one.train)))
    train, test = (scale.of(items).astype(np.float64) for items in (one.train, one.test))
    for name, scores in baselines(train, test, seed):
        yield f"{name}, folded", scores
    yield "RareEvents on bins", RareEvents(seed=seed).fit(one.train).score(one.test)
    yield "Ape on bins", Ape(seed=seed).fit(one.train).score(one.test)
    clan = Clan(seed=seed).fit(one.train)
    far = clan._distances(scale.of(one.test)) / clan._units
    yield "  kept: CLAN, one encoder", far[:, 0]
    yield "  kept: Mahalanobis", far[:, -1]
    yield f"  kept: CLAN, {far.shape[1] - 1} encoders", far[:, :-1].mean(axis=1)
    yield "Clan (shipped): and Mahalanobis", clan.score(one.test)


def measure(one: Labelled, n_seeds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(n_seeds):
        for name, scores in scores_of(one, seed):
            auc = float(roc_auc_score(one.strange, scores))
            ap = float(average_precision_score(one.strange, scores))
            found.setdefault(name, []).append((auc, ap))
    print(f"\n{one.name}, {len(one.train.names)} numbers: {len(one.train):,} training rows, ")
    print(
        f"{len(one.test):,} test rows, {one.strange.mean():.1%} of them anomalies; {n_seeds} seeds"
    )
    print(f"  {'':36} {'AUC':>14} {'AP':>14}")
    for name, each in found.items():
        mean, spread = np.mean(each, axis=0), np.std(each, axis=0)
        print(f"  {name:36} {mean[0]:.3f} +- {spread[0]:.3f} {mean[1]:.3f} +- {spread[1]:.3f}")


def speed(one: Labelled, n: int) -> None:
    """Print rows per CPU second on one core, and what a fit takes."""
    items = one.train[np.random.default_rng(0).integers(0, len(one.train), n)]
    began = time.process_time()
    clan = Clan().fit(one.train)
    fit_s = time.process_time() - began
    parts: dict[str, Callable[[], object]] = {
        "score": lambda: clan.score(items), "explain 1,000": lambda: clan.explain(items[:1_000]),
    }  # fmt: skip
    print(f"\nspeed: fit {fit_s:.0f} s CPU")
    for name, part in parts.items():
        part()
        times = []
        for _ in range(3):
            began = time.process_time()
            part()
            times.append(time.process_time() - began)
        size = n if name == "score" else 1_000
        print(f"  {name:14} {size / min(times):12,.0f} rows per CPU second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/events"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000)
    given = parser.parse_args()
    if not given.data.exists():
        print(f"{given.data} holds no data; give --data")
        return 0
    one = numbers_of(nsl_kdd(given.data))
    measure(one, given.seeds)
    speed(one, given.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
