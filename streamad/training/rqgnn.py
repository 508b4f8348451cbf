"""Train RQGNN on labelled graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from streamad.errors import TrainingError
from streamad.graphs.inputs import InputPlan, Inputs
from streamad.networks.rqgnn import RQGNN, RQShape, focal_loss
from streamad.training.rqgnn_export import export_arrays

Int64s = NDArray[np.int64]
Floats = NDArray[np.float32]
Weighting = Literal["inverse", "class_balanced"]
Progress = Callable[[str], None]
LEAST = 2
"""Graphs of each class, in each part of a split: fewer cannot be ranked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train; `published` has what differs in the authors' code.

    batch : graphs per step (None: a sixteenth of them, from 16 to 512)
    weighting : of the classes: ``inverse`` to how many there are, or ``class_balanced``, by
        ``(1 - beta) / (1 - beta^n)``, which for many graphs hardly corrects (Cui et al., CVPR 2019)
    patience : epochs without a better validation AUC after which training ends
    """

    epochs: int = 100
    patience: int = 30
    batch: int | None = None
    learning_rate: float = 5e-3
    weighting: Weighting = "inverse"
    beta: float = 0.999
    gamma: float = 1.5
    hidden: int = 64
    n_filters: int = 4
    n_terms: int = 6
    dropout: float = 0.4
    train_filters: bool = True
    seed: int = 0


def published(*, seed: int = 0) -> Recipe:
    """Return the settings of the authors' code: frozen filters, its weights, batch and patience.

    Its unnormalised quotient is `InputPlan`'s ``normalised=False``.
    """
    return Recipe(
        patience=50, batch=512, weighting="class_balanced", train_filters=False, seed=seed
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The network of the epoch with the best validation AUC, and what it reached there.

    threshold : the score (log odds) from which on macro-F1 is best on validation graphs
    """

    network: RQGNN
    threshold: float
    auc: float
    macro_f1: float
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some graphs as tensors, see `RQGNN.forward`."""

    signals: torch.Tensor
    adjacency: torch.Tensor
    graph_of_node: torch.Tensor
    quotients: torch.Tensor


def stratified(
    labels: NDArray[np.bool_], shares: tuple[float, ...], *, seed: int
) -> tuple[Int64s, ...]:
    """Return the places of graphs in parts of these shares, each class alike; each part sorted.

    >>> [len(part) for part in stratified(np.arange(20) < 10, (0.7, 0.3), seed=0)]
    [14, 6]
    """
    rng = np.random.default_rng(seed)
    parts: list[list[Int64s]] = [[] for _ in shares]
    for label in (False, True):
        places = rng.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares) / np.sum(shares) * len(places)).astype(int)
        for part, cut in zip(parts, np.split(places, ends[:-1]), strict=True):
            part.append(cut)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def train_network(
    plan: InputPlan,
    inputs: Inputs,
    labels: NDArray[np.bool_],
    parts: tuple[Int64s, Int64s],
    recipe: Recipe,
    *,
    progress: Progress = lambda _: None,
) -> Trained:
    """Train on ``parts[0]`` and choose epoch and threshold on ``parts[1]``, by AUC, then loss.

    AUC and macro-F1 are of the same network: the published code reports each of its own best.

    Raises
    ------
    TrainingError
        where a part has fewer than two graphs of a class
    """
    _require_classes(labels, parts)
    lesson = _Lesson(plan, inputs, labels, *parts, recipe)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)  # sums in one order: equal seeds give equal fits
        try:
            torch.manual_seed(recipe.seed)
            return _run(lesson, RQGNN(shape_of(plan, recipe)), progress)
        finally:
            torch.set_num_threads(threads)


def shape_of(plan: InputPlan, recipe: Recipe) -> RQShape:
    """Return the network's sizes."""
    return RQShape(
        n_features=plan.n_features,
        hidden=recipe.hidden,
        n_filters=recipe.n_filters,
        n_terms=recipe.n_terms,
        dropout=recipe.dropout,
        train_filters=recipe.train_filters,
    )


def class_weights(labels: NDArray[np.bool_], recipe: Recipe) -> torch.Tensor:
    """Return the weights of normal and anomalous graphs; together they are 2.

    Examples
    --------
    >>> [round(x, 3) for x in class_weights(np.arange(10) < 2, Recipe()).tolist()]
    [0.4, 1.6]
    """
    counts = np.bincount(labels.astype(int), minlength=2).astype(np.float64)
    if recipe.weighting == "inverse":
        raw = 1.0 / np.maximum(counts, 1)
    else:
        raw = (1 - recipe.beta) / (1 - recipe.beta ** np.maximum(counts, 1))
    return torch.tensor(2 * raw / raw.sum(), dtype=torch.float32)


def batches(places: Int64s, size: int, rng: np.random.Generator) -> Iterator[Int64s]:
    """Yield the places in random order, ``size`` at a time; a single last one joins those ahead.

    Batch normalisation fails on a batch of one graph.
    """
    shuffled = rng.permutation(places)
    starts = list(range(0, len(shuffled), size))
    if len(starts) > 1 and len(shuffled) - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], len(shuffled)], strict=True):
        yield shuffled[start:stop]


def batch_of(plan: InputPlan, inputs: Inputs, places: Int64s) -> Batch:
    """Return some graphs as one block-diagonal batch; nothing of it is dense in graphs x nodes."""
    spectra = inputs.spectra
    sizes = np.diff(spectra.node_from)[places]
    nodes = _runs(spectra.node_from[places], sizes)
    degrees = np.diff(spectra.begins)[nodes]
    entries = _runs(spectra.begins[nodes], degrees)
    begins = np.cumsum(sizes) - sizes
    graph = np.repeat(np.arange(len(places)), sizes)
    shift = (begins - spectra.node_from[places])[graph]
    rows = np.repeat(np.arange(len(nodes)), degrees)
    columns = spectra.neighbours[entries] + shift[rows]
    adjacency = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, columns])),
        torch.from_numpy(spectra.shares[entries].astype(np.float32)),
        (len(nodes), len(nodes)),
        is_coalesced=True,
        check_invariants=False,
    )
    return Batch(
        signals=torch.from_numpy(plan.features(inputs.codes[nodes]).astype(np.float32)),
        adjacency=adjacency,
        graph_of_node=torch.from_numpy(graph),
        quotients=torch.from_numpy(inputs.quotients[places]),
    )


@torch.no_grad()
def scores_of(network: RQGNN, plan: InputPlan, inputs: Inputs, places: Int64s) -> Floats:
    """Return the log odds of being anomalous, float32 ``(len(places),)``."""
    network.eval()
    made = [np.zeros(0, np.float32)]
    for start in range(0, len(places), 512):
        one = batch_of(plan, inputs, places[start : start + 512])
        logits = network(one.signals, one.adjacency, one.graph_of_node, one.quotients)
        made.append((logits[:, 1] - logits[:, 0]).numpy())
    return np.concatenate(made)


def best_threshold(scores: Floats, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the score from which on graphs count as anomalous for the best macro-F1, and that F1.

    >>> best_threshold(np.array([0.0, 1.0, 2.0], np.float32), np.array([False, False, True]))
    (1.5, 1.0)
    """
    order = np.unique(scores.astype(np.float64))
    between = (order[1:] + order[:-1]) / 2
    tried = between[:: max(len(between) // 200, 1)] if len(between) else order
    reached = [f1_score(labels, scores >= t, average="macro", zero_division=0) for t in tried]
    best = int(np.argmax(reached))
    return float(tried[best]), float(reached[best])


def fit_arrays(
    plan: InputPlan,
    inputs: Inputs,
    labels: NDArray[np.bool_],
    *,
    as_published: bool = False,
    **settings: int,
) -> dict[str, Floats]:
    """Train on 85 % of labelled graphs, choose on the rest, and return what serving needs.

    settings : of `Recipe`, by name
    Returns the arrays of `export_arrays`, and ``threshold`` ``(1,)``: log odds from which on graphs
    count as anomalous.
    """
    recipe = replace(published() if as_published else Recipe(), **settings)  # type: ignore[arg-type]
    parts = stratified(labels, (0.85, 0.15), seed=recipe.seed)
    trained = train_network(plan, inputs, labels, (parts[0], parts[1]), recipe)
    threshold = np.array([trained.threshold], np.float32)
    return {**export_arrays(trained.network, plan), "threshold": threshold}


# training ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a network is trained on, and how."""

    plan: InputPlan
    inputs: Inputs
    labels: NDArray[np.bool_]
    train: Int64s
    valid: Int64s
    recipe: Recipe

    @property
    def batch(self) -> int:
        return self.recipe.batch or int(np.clip(len(self.train) // 16, 16, 512))


def _run(lesson: _Lesson, network: RQGNN, progress: Progress) -> Trained:
    recipe, truth = lesson.recipe, lesson.labels[lesson.valid]
    rng = np.random.default_rng(recipe.seed)
    weights = class_weights(lesson.labels[lesson.train], recipe)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=recipe.learning_rate)
    best, kept, at = (-1.0, -np.inf), network.state_dict(), 0
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for places in batches(lesson.train, lesson.batch, rng):
            _step(lesson, network, optimiser, places, weights)
        scores = scores_of(network, lesson.plan, lesson.inputs, lesson.valid)
        reached = (_auc(truth, scores), -_log_loss(truth, scores, weights))
        progress(f"epoch {epoch}: validation AUC {reached[0]:.3f}")
        if reached > best:
            best, at = reached, epoch
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        if epoch - at >= recipe.patience:
            break
    network.load_state_dict(kept)
    scores = scores_of(network, lesson.plan, lesson.inputs, lesson.valid)
    threshold, macro_f1 = best_threshold(scores, truth)
    return Trained(network=network, threshold=threshold, auc=best[0], macro_f1=macro_f1, epoch=at)


def _step(
    lesson: _Lesson,
    network: RQGNN,
    optimiser: torch.optim.Optimizer,
    places: Int64s,
    weights: torch.Tensor,
) -> None:
    one = batch_of(lesson.plan, lesson.inputs, places)
    logits = network(one.signals, one.adjacency, one.graph_of_node, one.quotients)
    target = torch.from_numpy(lesson.labels[places].astype(np.int64))
    loss = focal_loss(logits, target, weights, lesson.recipe.gamma)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward([loss])
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()


def _auc(labels: NDArray[np.bool_], scores: Floats) -> float:
    return float(roc_auc_score(labels, scores)) if np.isfinite(scores).all() else 0.0


def _log_loss(labels: NDArray[np.bool_], scores: Floats, weights: torch.Tensor) -> float:
    margin = np.where(labels, scores, -scores).astype(np.float64)
    loss = np.where(labels, float(weights[1]), float(weights[0])) * np.logaddexp(0, -margin)
    return float(np.mean(loss))


def _require_classes(labels: NDArray[np.bool_], parts: tuple[Int64s, Int64s]) -> None:
    for name, part in zip(("training", "validation"), parts, strict=True):
        counts = np.bincount(labels[part].astype(int), minlength=2)
        if counts.min() < LEAST:
            msg = (
                f"rqgnn: the {name} part has {counts[0]} normal and {counts[1]} anomalous graphs, "
                f"expected {LEAST} or more of each; label more graphs, or use graph_vector"
            )
            raise TrainingError(msg)


def _runs(first: Int64s, counts: Int64s) -> Int64s:
    shift = first - (np.cumsum(counts) - counts)
    return np.asarray(np.arange(counts.sum(), dtype=np.int64) + np.repeat(shift, counts))
