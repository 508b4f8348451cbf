"""Are alike alerts grouped, and recognised the next time?

    python tests/bench/triage.py --seeds 10
    python tests/bench/triage.py --data ../shared/data/signals

Made alerts (`streamad.testing.alert_classes`): 17 kinds of trouble, 6 to 150 alerts each
(log-normal, so imbalanced), in an order of their own per seed. The last six kinds have no name yet;
of the other eleven a half of the alerts are named. All constants were chosen on seeds from 100 on.

- *grouped*: alerts of the six unnamed kinds, all others taken away; share that is right when each
  group stands for one kind (Hungarian assignment). ``k``, the number of groups, known or chosen.
- *recognised*: the other half of the named kinds, and all of the unnamed ones: share of known
  alerts with the right name, share of unknown ones that get no name, and AUROC of the distance as a
  sign of being unknown. As an alert opens, and once it is over. Nearest neighbour: the name of the
  nearest named alert, and none beyond the 95 % quantile of leave-one-out distances.

``--data``: alerts of the default detector on open univariate series that touch a labelled anomaly.
Labels do not name kinds of trouble, so the set that an alert comes from stands for its kind; sets
with fewer than six alerts are left out.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Grid
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score, silhouette_score

from streamad.records import Alert
from streamad.testing.alert_classes import TROUBLES, make_alerts, make_breadths
from streamad.triage.features import Scaling, vectors_of
from streamad.triage.gaussians import LEVEL, Gaussians
from streamad.triage.grouping import choose_k, distances, group, ncd_kmeans
from streamad.triage.recognise import early
from streamad.triage.stories import stories_of, vectors_of_stories

HIDDEN: Final = 6
MAX_K: Final = 30
Rows = NDArray[np.float64]
Labels = NDArray[np.int64]


def accuracy(truth: Labels, labels: Labels) -> float:
    """Return the share of rows whose group is the one assigned to their class."""
    counts = np.zeros((int(truth.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (truth, labels), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(truth))


def made(seed: int) -> tuple[Rows, Rows, Labels]:
    """Return raw rows of alerts as they opened and as a whole, and the class of each."""
    rng = np.random.default_rng(seed)
    whole, opening, labels = [], [], []
    for number, at in enumerate(rng.permutation(len(TROUBLES))):
        trouble = TROUBLES[at]
        n = int(np.clip(rng.lognormal(3.3, 0.7), 6, 150))
        alerts = make_alerts(trouble, n, rng=rng)
        breadths = make_breadths(trouble, n, rng=rng)
        opened = [_opened(one, rng) for one in alerts]
        whole.append(vectors_of(alerts, breadths))
        # Of those that begin together, the first ones open while few have.
        opening.append(vectors_of(opened, [int(rng.integers(1, b + 1)) for b in breadths]))
        labels += [number] * n
    return np.concatenate(opening), np.concatenate(whole), np.array(labels)


def _opened(alert: Alert, rng: np.random.Generator) -> Alert:
    """Return an alert as it opens: short, and not yet at its worst."""
    peak = max(1.0, alert.peak_severity * float(rng.uniform(0.4, 1.0)))
    return replace(
        alert, state="opened", until_ms=alert.began_ms, severity=peak, peak_severity=peak
    )


# ---------------------------------------------------------------------- grouping


def grouped(rows: Rows, truth: Labels, train: NDArray[np.bool_], n_known: int) -> dict[str, float]:
    """Return the accuracy of each way to group the alerts of unnamed classes."""
    hidden = rows[truth >= n_known]
    classes = truth[truth >= n_known] - n_known
    fitted = Gaussians.fit(rows[train], truth[train])
    means = np.stack([rows[train & (truth == c)].mean(axis=0) for c in range(n_known)])
    spread, nothing = hidden @ fitted.whiten, means[:0]
    k = int(classes.max()) + 1
    plain = KMeans(k, n_init=10, random_state=0).fit(hidden).labels_
    best = max(range(2, min(MAX_K, len(hidden) - 1) + 1), key=lambda one: _silhouette(hidden, one))
    chosen = KMeans(best, n_init=3, random_state=0).fit(hidden).labels_
    ours = group(hidden, known=means)
    return {
        "k known: k-means": accuracy(classes, plain.astype(np.int64)),
        "k known: NCD k-means": accuracy(classes, ncd_kmeans(hidden, k, known=means)[0]),
        "k known: NCD k-means, whitened": accuracy(
            classes, ncd_kmeans(spread, k, known=fitted.means)[0]
        ),
        "k by best silhouette: k-means": accuracy(classes, chosen.astype(np.int64)),
        "k chosen: NCD k-means (streamad)": accuracy(classes, ours.labels),
        "k chosen: NCD k-means, whitened": accuracy(
            classes, group(spread, known=fitted.means).labels
        ),
        "k chosen: before anything is named": accuracy(
            classes, group(hidden, known=nothing).labels
        ),
        "number of groups chosen": float(len(ours.centers)),
        **by_pbn(rows, truth, train, n_known),
    }


def by_pbn(rows: Rows, truth: Labels, train: NDArray[np.bool_], n_known: int) -> dict[str, float]:
    """Return the same by PBN, whose settings are chosen on known classes that are hidden."""
    from streamad.training.pbn import GRID, choose_settings, latent_rows, means_of

    known, labels = rows[train], truth[train]
    hidden, classes = rows[truth >= n_known], truth[truth >= n_known] - n_known
    chosen = choose_settings(known, labels, score=accuracy)
    own, latent = latent_rows(known, labels, hidden, settings=chosen)
    means = means_of(own, labels)
    k = int(classes.max()) + 1
    plain = KMeans(k, n_init=10, random_state=0).fit(latent).labels_
    best = max(range(2, min(MAX_K, len(hidden) - 1) + 1), key=lambda one: _silhouette(latent, one))
    by_best = KMeans(best, n_init=3, random_state=0).fit(latent).labels_
    return {
        "k known: PBN, k-means": accuracy(classes, plain.astype(np.int64)),
        "k known: PBN, NCD k-means": accuracy(classes, ncd_kmeans(latent, k, known=means)[0]),
        "k by best silhouette: PBN": accuracy(classes, by_best.astype(np.int64)),
        "k chosen: PBN": accuracy(classes, group(latent, known=means).labels),
        "PBN settings chosen": float(GRID.index(chosen)),
    }


def _silhouette(rows: Rows, k: int) -> float:
    labels = KMeans(k, n_init=3, random_state=0).fit(rows).labels_
    return float(silhouette_score(rows, labels))


# ---------------------------------------------------------------------- recognising


def recognised(
    rows: Rows, truth: Labels, train: NDArray[np.bool_], n_known: int
) -> dict[str, float]:
    """Return how alerts that took no part are named, by Gaussians and by the nearest neighbour."""
    fitted = Gaussians.fit(rows[train], truth[train])
    test, classes = rows[~train], truth[~train]
    known = classes < n_known
    found = fitted.recognise(test)
    away = fitted.nearest(test)[1]
    to_named = distances(test, rows[train])
    apart = distances(rows[train], rows[train])
    np.fill_diagonal(apart, np.inf)
    limit = float(np.quantile(apart.min(axis=1), 1 - LEVEL, method="higher"))
    nearest = to_named.min(axis=1)
    named = np.where(nearest <= limit, truth[train][to_named.argmin(axis=1)], -1)
    return {
        "right name": float((found[known] == classes[known]).mean()),
        "unknown, no name": float((found[~known] == -1).mean()),
        "AUROC of unknown": float(roc_auc_score(~known, away)),
        "right name, nearest neighbour": float((named[known] == classes[known]).mean()),
        "unknown, no name, nearest neighbour": float((named[~known] == -1).mean()),
        "AUROC of unknown, nearest neighbour": float(roc_auc_score(~known, nearest)),
    }


def run_made(seeds: Sequence[int]) -> None:
    """Print the figures of made alerts."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        opening, whole, truth = made(seed)
        n_known = len(TROUBLES) - HIDDEN
        train = (truth < n_known) & (np.random.default_rng(seed).random(len(truth)) < 0.5)
        scaling = Scaling.of(whole)
        rows = scaling.apply(whole)
        parts = {
            "": grouped(rows, truth, train, n_known),
            "over: ": recognised(rows, truth, train, n_known),
            "opening: ": recognised(early(scaling.apply(opening)), truth, train, n_known),
        }
        for stage, figures in parts.items():
            for name, value in figures.items():
                found[stage + name].append(value)
    _print(f"made alerts, {len(seeds)} seeds", found)
    _time()


def _time() -> None:
    rng = np.random.default_rng(0)
    alerts = [one for trouble in TROUBLES for one in make_alerts(trouble, 120, rng=rng)]
    begin = time.perf_counter()
    stories = vectors_of_stories(stories_of(alerts))
    each_ms = (time.perf_counter() - begin) / len(alerts) * 1_000
    rows = Scaling.of(stories.whole).apply(stories.whole)
    begin = time.perf_counter()
    k = choose_k(rows, known=rows[:0])
    took_s = time.perf_counter() - begin
    sys.stdout.write(
        f"{len(alerts)} alerts: {each_ms / 2:.2f} ms per vector; {k} groups chosen in "
        f"{took_s:.1f} s\n"
    )


# ---------------------------------------------------------------------- labelled series


def run_series(folder: Path, sets: Sequence[str], most: int) -> None:
    """Print the figures of alerts on labelled series, classes by the set they come from."""
    alerts, names = _alerts_of(folder, sets, most)
    stories = vectors_of_stories(stories_of(alerts))
    kinds = sorted({names[one.pipeline] for one in stories.alerts})
    truth = np.array([kinds.index(names[one.pipeline]) for one in stories.alerts])
    counts = np.bincount(truth)
    sys.stdout.write(
        f"{len(truth)} alerts that touch a labelled anomaly: "
        + ", ".join(f"{kind} {n}" for kind, n in zip(kinds, counts, strict=True)) + "\n"
    )  # fmt: skip
    rows = Scaling.of(stories.whole).apply(stories.whole)
    found: dict[str, list[float]] = defaultdict(list)
    usual = np.flatnonzero(counts >= 6)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        order = rng.permutation(usual)
        place = {int(kind): at for at, kind in enumerate(order)}
        inside = np.isin(truth, usual)
        classes = np.array([place[int(one)] for one in truth[inside]])
        n_known = len(order) - max(2, len(order) // 3)
        train = (classes < n_known) & (rng.random(len(classes)) < 0.5)
        # A class of which chance named nothing would have no mean.
        for one in range(n_known):
            train[np.flatnonzero(classes == one)[:2]] = True
        parts = (grouped(rows[inside], classes, train, n_known),
                 recognised(rows[inside], classes, train, n_known))  # fmt: skip
        for figures in parts:
            for name, value in figures.items():
                found[name].append(value)
    _print("alerts on labelled series, 10 splits", found)


def _alerts_of(folder: Path, sets: Sequence[str], most: int) -> tuple[list[Alert], dict[str, str]]:
    from jobs.offline.score import pipeline_for, score_table
    from jobs.offline.tables import read_table
    from streamad.paging.desk import Desk

    alerts: list[Alert] = []
    names: dict[str, str] = {}
    taken: dict[str, int] = defaultdict(int)
    with (folder / "index.csv").open(encoding="utf-8") as file:
        rows = [one for one in csv.DictReader(file) if one["set"] in sets and one["dims"] == "1"]
    for row in rows:
        if row["split"] != "open" or taken[row["set"]] >= most or row["test_anomalies"] == "0":
            continue
        taken[row["set"]] += 1
        path = folder / row["file"]
        table = read_table(path, columns=["v0"])
        config = pipeline_for(table, detector="knn_fused")
        scored = score_table(table, config, train_end=int(row["train_end"]) or None)
        own = config.model_copy(update={"name": row["series"].lower()[:60].strip("._-")})
        desk = Desk(config)
        out = desk.process(desk.new_state(), [(f, f.window_end_ms) for f in scored.findings])
        names[own.name] = row["set"]
        anomalies = _labelled(path)
        last = {one.id: one for one in out.alerts}
        alerts += [
            replace(one, pipeline=own.name, id=f"{own.name}-{one.id}")
            for one in last.values()
            if _touches(one, anomalies)
        ]
    return alerts, names


def _labelled(path: Path) -> NDArray[np.int64]:
    import polars as pl

    frame = pl.read_parquet(path, columns=["timestamp", "label"])
    label = frame["label"].to_numpy().astype(np.int8)
    times = frame["timestamp"].to_numpy().astype(np.int64)
    return np.sort(times[label == 1])


def _touches(alert: Alert, times: NDArray[np.int64]) -> bool:
    first = np.searchsorted(times, alert.window_start_ms if alert.sequence == 0 else alert.began_ms)
    return bool(first < len(times) and times[first] <= alert.until_ms)


def _print(title: str, found: dict[str, list[float]]) -> None:
    grid = Grid(title=title)
    for column in ("figure", "mean", "least", "most"):
        grid.add_column(column)
    for name, values in found.items():
        shown = (np.mean(values), min(values), max(values))
        grid.add_row(name, *(f"{value:.3f}" for value in shown))
    Console(width=100).print(grid)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", default="aiops,cloudmon,donut,ecg,nab,nasa,synth,ucr")
    parser.add_argument("--most", type=int, default=12, help="series per set")
    given = parser.parse_args()
    run_made(range(given.seeds))
    if given.data is not None:
        run_series(given.data, given.sets.split(","), given.most)


if __name__ == "__main__":
    main()
