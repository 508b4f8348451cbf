"""PBN: a small network whose latent space holds what known classes are told apart by.

Projection-based novel class discovery (Troisemaine et al., "A practical approach to novel class
discovery in tabular data", arXiv 2311.05440): an encoder, trained to classify the known classes
and, with a mirrored decoder, to reconstruct every row; new classes are the clusters of the latent
rows. The loss is w * cross entropy (known rows) + (1 - w) * squared error of a row (all rows).

Two slips of the published code are not repeated: clusters are sought among normalised latent rows,
as the network was trained on, and batches are drawn anew each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional

from streamad.triage.grouping import Labels, Rows, ncd_kmeans

Score = Callable[[Labels, Labels], float]
BATCH: Final = 512
EPOCHS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PbnSettings:
    """What is chosen by hiding known classes: see `choose_settings`."""

    weight: float = 0.5
    size: int = 32
    dropout: float = 0.1
    rate: float = 2e-3


GRID: Final = tuple(
    PbnSettings(weight=weight, size=size) for weight in (0.2, 0.6, 0.95) for size in (16, 48)
)


class _Network(nn.Module):
    def __init__(self, width: int, n_classes: int, settings: PbnSettings) -> None:
        super().__init__()
        sizes = (width, max(3 * width // 4, 2), max(width // 2, 2), settings.size)
        self.encoder = _layers(sizes, settings.dropout)
        self.decoder = _layers(sizes[::-1], settings.dropout)
        self.classes = nn.Linear(settings.size, n_classes)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        latent: torch.Tensor = functional.normalize(self.encoder(rows), dim=1)
        return latent


def _layers(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    made: list[nn.Module] = []
    for at in range(len(sizes) - 1):
        made.append(nn.Linear(sizes[at], sizes[at + 1]))
        if at < len(sizes) - 2:
            made += [nn.ReLU(), nn.BatchNorm1d(sizes[at + 1]), nn.Dropout(dropout)]
    return nn.Sequential(*made)


def latent_rows(
    known: Rows,
    labels: Labels,
    unknown: Rows,
    *,
    settings: PbnSettings,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> tuple[Rows, Rows]:
    """Train on all rows; return the known ``(n, size)`` and unknown ``(m, size)`` latent rows.

    known : ``(n, d)`` rows of classes ``labels`` ``(n,)``, from 0; unknown : ``(m, d)``
    Raises ValueError where there are fewer than two known classes, or two rows to learn from.
    """
    n_classes = int(labels.max(initial=-1)) + 1
    if n_classes < 2 or len(known) + len(unknown) < 4:
        msg = f"expected rows of at least 2 known classes, got {len(known)} rows of {n_classes}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(known.shape[1], n_classes, settings)
        rows = torch.from_numpy(np.concatenate([known, unknown]).astype(np.float32))
        truth = torch.from_numpy(np.r_[labels, np.full(len(unknown), -1)].astype(np.int64))
        steps = torch.optim.AdamW(network.parameters(), lr=settings.rate)
        network.train()
        for _ in range(epochs):
            for part in np.array_split(rng.permutation(len(rows)), -(-len(rows) // BATCH)):
                loss = _loss(network, rows[part], truth[part], settings.weight)
                steps.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                steps.step()
        network.eval()
        with torch.no_grad():
            latent = network.encode(rows).numpy().astype(np.float64)
    return latent[: len(known)], latent[len(known) :]


def _loss(
    network: _Network, rows: torch.Tensor, truth: torch.Tensor, weight: float
) -> torch.Tensor:
    latent = network.encode(rows)
    error = (network.decoder(latent) - rows).square().sum(dim=1).mean()
    named = truth >= 0
    loss: torch.Tensor = (1.0 - weight) * error
    if bool(named.any()):
        missed = functional.cross_entropy(network.classes(latent[named]), truth[named])
        loss = loss + weight * missed
    return loss


LEAST_CLASSES: Final = 2
"""Fewer named groups leave nothing for the network to tell apart."""


def project(known: Rows, labels: Labels, unknown: Rows) -> tuple[Rows, Rows]:
    """Return known and unknown rows in the latent space: a `streamad.triage.grouping.Projection`.

    Settings are chosen by hiding known classes. The result depends on the rows alone, not on their
    order. Raises ValueError where there are fewer than `LEAST_CLASSES` known classes.
    """
    first, second = np.lexsort((*known.T[::-1], labels)), np.lexsort(unknown.T[::-1])
    own, named = known[first], labels[first]
    with _one_thread():
        settings = choose_settings(own, named, score=matched_share)
        latent = latent_rows(own, named, unknown[second], settings=settings)
    return latent[0][np.argsort(first)], latent[1][np.argsort(second)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have torch use one thread: these matrices are so small that others only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matched_share(truth: Labels, groups: Labels) -> float:
    """Return the share of rows whose group is the one assigned to their class (Hungarian)."""
    counts = np.zeros((int(truth.max()) + 1, int(groups.max()) + 1))
    np.add.at(counts, (truth, groups), 1)
    rows, columns = linear_sum_assignment(-counts)
    return float(counts[rows, columns].sum() / len(truth))


def choose_settings(
    known: Rows,
    labels: Labels,
    *,
    score: Score,
    grid: Sequence[PbnSettings] = GRID,
    folds: int = 2,
    seed: int = 0,
) -> PbnSettings:
    """Choose settings by known classes that are hidden in turn and sought as if they were new.

    score : takes true classes and found groups ``(n,)``, larger is better. The classes of a fold
    are clustered into as many groups as they are.
    """
    classes = np.random.default_rng(seed).permutation(np.unique(labels))
    found = np.zeros(len(grid))
    for hidden in np.array_split(classes, folds):
        out = np.isin(labels, hidden)
        kept = np.unique(labels[~out])
        if len(kept) < 2 or len(hidden) < 2:
            continue
        inner = np.searchsorted(kept, labels[~out])
        truth = np.searchsorted(np.sort(hidden), labels[out])
        for at, settings in enumerate(grid):
            own, rows = latent_rows(known[~out], inner, known[out], settings=settings, seed=seed)
            groups, _ = ncd_kmeans(rows, len(hidden), known=means_of(own, inner), seed=seed)
            found[at] += score(truth, groups)
    return grid[int(found.argmax())]


def means_of(rows: Rows, labels: Labels) -> NDArray[np.float64]:
    """Return the mean of each class ``(c, d)``."""
    return np.stack([rows[labels == one].mean(axis=0) for one in range(int(labels.max()) + 1)])
