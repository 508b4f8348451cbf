"""Graph-level anomaly detection on public data: with labels, without, and by size alone.

Splits are stratified, 70 % training, 15 % validation, 15 % test, one per seed; every choice (epoch,
direction, threshold) is made on training and validation graphs. ``AP`` is to be read beside the
prevalence, which is what a random score reaches. AIDS is there as a trap: its node count alone
nearly solves it.

    python tests/bench/graphs.py --data ../shared/data/graphs [--seeds 3] [--sets MUTAG BZR]
        [--methods "size only" ...] [--json build/graphs.json] [--speed]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from connectors.files.graphs import read_graphs
from streamad.detectors.graphs.label_free import GraphVector
from streamad.detectors.graphs.rqgnn import RQGNN
from streamad.graphs.inputs import InputPlan
from streamad.graphs.rows import Graphs
from streamad.graphs.vector import GraphVectors, fractions, learn_vocabulary
from streamad.testing.graphs import random_graphs
from streamad.training.rqgnn import (
    Recipe,
    best_threshold,
    published,
    scores_of,
    stratified,
    train_network,
)

SETS = {
    "MUTAG": ("tud_gin_txt/MUTAG.txt", "0"),
    "PROTEINS": ("tud_gin_txt/PROTEINS.txt", "1"),
    "NCI1": ("tud_gin_txt/NCI1.txt", "1"),
    "BZR": ("tud_bzr", "1"),
    "AIDS (trap)": ("tud_aids", "0"),
}
"""Path, and the class that stands for the anomaly: the smaller one; in NCI1, of equal classes, the
active compounds."""
SHARES = (0.7, 0.15, 0.15)
QUANTILE = 0.9
"""Of training scores: the threshold of methods that see no labels."""


@dataclass(frozen=True)
class Task:
    """Graphs with labels, split."""

    graphs: Graphs
    labels: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    seed: int


Method = Callable[[Task], tuple[np.ndarray, float]]
"""Returns scores of test graphs and the threshold for F1."""


def random_scores(task: Task) -> tuple[np.ndarray, float]:
    """Return noise."""
    rng = np.random.default_rng(100 + task.seed)
    return rng.random(len(task.test)), 0.5


def size_only(task: Task) -> tuple[np.ndarray, float]:
    """Return the node count, in the direction that ranks training graphs best."""
    n = np.diff(task.graphs.node_from).astype(np.float32)
    seen = np.concatenate([task.train, task.valid])
    sign = 1 if roc_auc_score(task.labels[task.train], n[task.train]) >= 0.5 else -1
    threshold, _ = best_threshold(sign * n[seen], task.labels[seen])
    return sign * n[task.test], threshold


def _forest(task: Task, features: np.ndarray) -> tuple[np.ndarray, float]:
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=task.seed)
    forest.fit(features[task.train], task.labels[task.train])
    scores = [forest.predict_proba(features[part])[:, 1] for part in (task.valid, task.test)]
    threshold, _ = best_threshold(scores[0], task.labels[task.valid])
    return scores[1], threshold


def forest_on_labels(task: Task) -> tuple[np.ndarray, float]:
    """Return a random forest on how many nodes of each type a graph has."""
    words = learn_vocabulary(task.graphs[task.train], max_types=64)
    numbers = words.encode(task.graphs.types)
    share = fractions(task.graphs, numbers, len(words))
    return _forest(task, share * np.diff(task.graphs.node_from)[:, None])


def forest_on_vector(task: Task) -> tuple[np.ndarray, float]:
    """Return a random forest on the vector the label-free detector reads."""
    words = learn_vocabulary(task.graphs[task.train])
    return _forest(task, GraphVectors(words)(task.graphs))


def _network(task: Task, recipe: Recipe, **plan: bool) -> tuple[np.ndarray, float]:
    words = learn_vocabulary(task.graphs[task.train])
    made = InputPlan(vocabulary=words, **plan)
    inputs = made(task.graphs)
    trained = train_network(made, inputs, task.labels, (task.train, task.valid), recipe)
    return scores_of(trained.network, made, inputs, task.test), trained.threshold


def rqgnn(task: Task) -> tuple[np.ndarray, float]:
    """Return what `RQGNN` ships: the paper's form, with degree buckets beside types."""
    return _network(task, Recipe(seed=task.seed))


def rqgnn_paper(task: Task) -> tuple[np.ndarray, float]:
    """Return the paper's form: filters trained, quotient normalised, node types alone."""
    return _network(task, Recipe(seed=task.seed), buckets=False)


def rqgnn_code(task: Task) -> tuple[np.ndarray, float]:
    """Return the published code's form: filters frozen, quotient unnormalised, its weights."""
    return _network(task, published(seed=task.seed), buckets=False, normalised=False)


def _normal(task: Task) -> np.ndarray:
    return task.train[~task.labels[task.train]]


def size_distance(task: Task) -> tuple[np.ndarray, float]:
    """Return how far the log of the node count lies from that of normal training graphs."""
    n = np.log(np.diff(task.graphs.node_from))
    known = n[_normal(task)]
    scores = np.abs(n - known.mean()) / known.std()
    return scores[task.test], float(np.quantile(scores[_normal(task)], QUANTILE))


def graph_vector(task: Task) -> tuple[np.ndarray, float]:
    """Return the label-free detector, fitted on normal training graphs."""
    detector = GraphVector().fit(task.graphs[_normal(task)])
    usual = detector.score(task.graphs[_normal(task)])
    return detector.score(task.graphs[task.test]), float(np.quantile(usual, QUANTILE))


def graph_vector_mixed(task: Task) -> tuple[np.ndarray, float]:
    """Return it fitted on all training graphs but four in five anomalous ones: a dirty past."""
    rng = np.random.default_rng(task.seed)
    strange = rng.permutation(task.train[task.labels[task.train]])
    normal = _normal(task)
    seen = np.sort(np.concatenate([normal, strange[: len(normal) // 20]]))
    detector = GraphVector().fit(task.graphs[seen])
    usual = detector.score(task.graphs[seen])
    return detector.score(task.graphs[task.test]), float(np.quantile(usual, QUANTILE))


METHODS: dict[str, Method] = {
    "random": random_scores,
    "size only": size_only,
    "forest on label counts": forest_on_labels,
    "forest on graph vector": forest_on_vector,
    "rqgnn": rqgnn,
    "rqgnn, paper form": rqgnn_paper,
    "rqgnn, code form": rqgnn_code,
    "no labels: size": size_distance,
    "no labels: graph_vector": graph_vector,
    "no labels: graph_vector, 5 % anomalies": graph_vector_mixed,
}


def measure(name: str, data: Path, methods: list[str], n_seeds: int) -> list[dict[str, object]]:
    """Return a row per method: means and standard deviations over seeds."""
    path, anomaly = SETS[name]
    read = read_graphs(data / path)
    labels = (read.labels == anomaly).to_numpy()
    rows = []
    for method in methods:
        reached, seconds = [], time.perf_counter()
        for seed in range(n_seeds):
            train, valid, test = stratified(labels, SHARES, seed=seed)
            task = Task(read.graphs, labels, train, valid, test, seed)
            scores, threshold = METHODS[method](task)
            truth = labels[test]
            reached.append(
                (
                    roc_auc_score(truth, scores),
                    average_precision_score(truth, scores),
                    f1_score(truth, scores >= threshold, average="macro", zero_division=0),
                )
            )
        mean, sd = np.mean(reached, axis=0), np.std(reached, axis=0)
        rows.append(
            {
                "set": name,
                "method": method,
                "prevalence": round(float(labels.mean()), 3),
                "seeds": n_seeds,
                **{
                    key: [round(float(m), 3), round(float(s), 3)]
                    for key, m, s in zip(("auc", "ap", "macro_f1"), mean, sd, strict=True)
                },
                "seconds": round((time.perf_counter() - seconds) / n_seeds, 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def speed() -> list[dict[str, object]]:
    """Return graphs per second on one core, from a graph's columns to its score.

    Graphs have 1.5 edges per node and five types; the best of five runs counts.
    """
    rows = []
    for n_nodes, n in ((20, 4_000), (100, 800), (1_000, 80)):
        graphs = random_graphs(n, n_nodes=n_nodes, n_edges=3 * n_nodes // 2, n_types=5)
        detector = GraphVector().fit(graphs[: n // 2])
        labels = np.arange(n) % 5 == 0
        trained = RQGNN(epochs=1).fit(graphs, labels=labels)
        for name, run in (
            ("rqgnn", lambda d=trained, g=graphs: d.score(g)),
            ("graph_vector", lambda d=detector, g=graphs: d.score(g)),
        ):
            run()
            best = np.inf
            for _ in range(5):
                begun = time.perf_counter()
                run()
                best = min(best, time.perf_counter() - begun)
            rows.append({"method": name, "nodes": n_nodes, "graphs_per_s": round(n / best)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--speed", action="store_true", help="also measure graphs per second")
    given = parser.parse_args()
    rows = [
        row for name in given.sets for row in measure(name, given.data, given.methods, given.seeds)
    ]
    table = Table("set", "prevalence", "method", "AUC", "AP", "macro-F1", "s", title="graphs")
    for row in rows:
        cells = (f"{row[k][0]:.3f} ± {row[k][1]:.3f}" for k in ("auc", "ap", "macro_f1"))
        table.add_row(
            row["set"], f"{row['prevalence']}", row["method"], *cells, f"{row['seconds']}"
        )
    Console(width=120).print(table)
    if given.speed:
        rows += speed()
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
