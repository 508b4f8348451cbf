"""Which named class an alert is of, or none: Gaussians with one covariance, and a rejection.

Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018
(arXiv 1807.03888): a mean per class, one covariance of all classes about their means, and the
squared Mahalanobis distance to the nearest mean. The covariance is shrunk (Ledoit and Wolf 2004),
since there are about as many columns as named alerts.

When is an alert too far? Distances of members that took no part (cross-fitting) show how far
members lie. Beyond all but a share `LEVEL` of them, an alert is of no known class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FOLDS: Final = 5
LEVEL: Final = 0.05
"""About this share of the alerts of named classes is not recognised."""
FLOOR: Final = 0.2
"""Added to the variance of every direction, in squared spreads: that a few named alerts agree in
something is no proof that all of their kind do."""

Rows = NDArray[np.float64]


def shrunk_covariance(rows: Rows) -> Rows:
    """Return the shrunk covariance ``(d, d)`` of rows ``(n, d)`` with mean 0 (Ledoit and Wolf).

    The identity where there are no rows.
    """
    n, d = rows.shape
    if n == 0:
        return np.eye(d)
    sample = rows.T @ rows / n
    mean = float(np.trace(sample)) / d
    apart = float(((sample - mean * np.eye(d)) ** 2).sum())
    fourth = float((np.einsum("ij,ij->i", rows, rows) ** 2).sum()) / n
    noise = max(fourth - float((sample**2).sum()), 0.0) / n
    shrink = min(noise / apart, 1.0) if apart > 0 else 1.0
    return np.asarray((1 - shrink) * sample + shrink * mean * np.eye(d), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussians:
    """Classes as means in a space where their covariance is the identity.

    whiten : ``(d, d)``, rows times it are in that space; means : ``(c, d)``, whitened
    limit : squared distance beyond which a row is of no class
    """

    whiten: Rows
    means: Rows
    limit: float

    @classmethod
    def fit(cls, rows: Rows, classes: NDArray[np.int64]) -> Gaussians:
        """Fit scaled rows ``(n, d)`` of classes ``(n,)``, numbered from 0, none of them empty.

        Raises ValueError where there is no row, or a class without one.
        """
        n_classes = int(classes.max()) + 1 if len(classes) else 0
        sizes = np.bincount(classes, minlength=n_classes)
        if not len(rows) or (sizes == 0).any():
            msg = f"expected rows of each class, numbered from 0, got sizes {sizes.tolist()!r:.80}"
            raise ValueError(msg)
        whiten, means = _fitted(rows, classes, n_classes)
        held = _held_out(rows, classes, n_classes)
        # Where nothing could be held out, nothing is known of how far a member may lie.
        limit = float(np.quantile(held, 1 - LEVEL, method="higher")) if len(held) else 0.0
        return cls(whiten=whiten, means=means, limit=limit)

    def distances(self, rows: Rows) -> Rows:
        """Return squared Mahalanobis distances ``(n, c)`` of scaled rows ``(n, d)``."""
        return _squared(rows @ self.whiten, self.means)

    def nearest(self, rows: Rows) -> tuple[NDArray[np.int64], Rows]:
        """Return the nearest class of each row ``(n,)``, and its squared distance."""
        away = self.distances(rows)
        best = away.argmin(axis=1).astype(np.int64)
        return best, np.asarray(away[np.arange(len(rows)), best], np.float64)

    def recognise(self, rows: Rows) -> NDArray[np.int64]:
        """Return the class of each row ``(n,)``, -1 where it is of none."""
        best, away = self.nearest(rows)
        return np.where(away <= self.limit, best, -1)


def _fitted(rows: Rows, classes: NDArray[np.int64], n_classes: int) -> tuple[Rows, Rows]:
    member = np.zeros((n_classes, len(rows)))
    member[classes, np.arange(len(rows))] = 1.0
    sizes = member.sum(axis=1, keepdims=True)
    means = member @ rows / np.maximum(sizes, 1.0)
    inner = rows - means[classes]
    # Each class takes one degree of freedom: small classes would look tighter than they are.
    loose = np.sqrt(sizes / np.maximum(sizes - 1.0, 1.0))[classes]
    covariance = shrunk_covariance((inner * loose)[(sizes > 1)[classes][:, 0]])
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(np.maximum(values, 0.0) + FLOOR)
    return np.asarray(whiten, np.float64), np.asarray(means @ whiten, np.float64)


def _held_out(rows: Rows, classes: NDArray[np.int64], n_classes: int) -> Rows:
    """Return the distance of each row to its class, fitted without it."""
    out = np.full(len(rows), np.nan)
    # By rank in its class: every class keeps members in every fold.
    rank = np.zeros(len(rows), np.int64)
    for one in range(n_classes):
        own = np.flatnonzero(classes == one)
        rank[own[np.lexsort(rows[own].T[::-1])]] = np.arange(len(own))
    for fold in range(FOLDS):
        held = rank % FOLDS == fold
        rest = ~held
        if not held.any() or not rest.any():
            continue
        kept = np.bincount(classes[rest], minlength=n_classes) > 0
        renamed = np.cumsum(kept) - 1
        whiten, means = _fitted(rows[rest], renamed[classes[rest]], int(kept.sum()))
        held &= kept[classes]
        away = _squared(rows[held] @ whiten, means)
        out[held] = away[np.arange(int(held.sum())), renamed[classes[held]]]
    return np.asarray(out[np.isfinite(out)], np.float64)


def _squared(rows: Rows, means: Rows) -> Rows:
    inner = rows @ means.T
    lengths = np.einsum("ij,ij->i", rows, rows)[:, None]
    squared = lengths - 2 * inner + np.einsum("ij,ij->i", means, means)[None, :]
    return np.asarray(np.maximum(squared, 0.0), np.float64)
