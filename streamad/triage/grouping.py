"""Alike alerts are grouped, beside the classes that have a name already.

Novel class discovery by k-means (Troisemaine et al., "A practical approach to novel class discovery
in tabular data", arXiv 2311.05440): the means of known classes stay where they are; new centers are
seeded away from them and from each other, with a probability proportional to the distance; Lloyd's
iterations then move the new ones only, over the alerts of no known class. Of ``restarts`` the one
with the lowest sum of distances is kept.

The number of new classes is the largest whose silhouette (Rousseeuw 1987) is within a share
`MARGIN` of the best one. The paper takes the best one itself, which merges small classes: a group
too many is undone by giving two groups one name, and a class that hides in another one is never
found. The result depends on the rows alone, not on their order: they are sorted first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS: Final = 300
RESTARTS: Final = 6
MARGIN: Final = 0.08
MAX_GROUPS: Final = 30
MAX_ROWS: Final = 5_000
"""More alerts than this are grouped by an even sample; the others go to the nearest group."""
MAX_SILHOUETTE_ROWS: Final = 1_500
LEAST_ALERTS: Final = 20
"""Fewer alerts of no known class are not grouped: they would be groups of chance."""
LEAST_MEMBERS: Final = 2
"""A group of fewer alerts is no group."""

Rows = NDArray[np.float64]
Labels = NDArray[np.int64]
Projection = Callable[[Rows, Labels, Rows], tuple[Rows, Rows]]
"""Takes rows of known classes ``(n, d)``, their classes ``(n,)`` and unknown rows ``(m, d)``;
returns both in another space, ``(n, s)`` and ``(m, s)``, in which the unknown ones are grouped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Groups of rows.

    labels : ``(n,)``, from 0, the largest group first
    centers : ``(k, d)``
    silhouette : mean of the rows, -1..1; near 0 where there are no clear groups
    """

    labels: Labels
    centers: Rows
    silhouette: float


def distances(rows: Rows, centers: Rows) -> Rows:
    """Return Euclidean distances ``(n, k)`` of rows ``(n, d)`` to centers ``(k, d)``."""
    squared = (
        np.einsum("ij,ij->i", rows, rows)[:, None]
        - 2.0 * rows @ centers.T
        + np.einsum("ij,ij->i", centers, centers)[None, :]
    )
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), np.float64)


def ncd_kmeans(
    rows: Rows, k: int, *, known: Rows, seed: int = 0, restarts: int = RESTARTS
) -> tuple[Labels, Rows]:
    """Return the label of each row ``(n,)`` and ``k`` new centers ``(k, d)``.

    known : means of the known classes ``(c, d)``, perhaps none
    Raises ValueError where there are fewer rows than centers.
    """
    if not 1 <= k <= len(rows):
        msg = f"expected 1 to {len(rows)} groups of {len(rows)} rows, got {k}"
        raise ValueError(msg)
    rngs = [np.random.default_rng((seed, k, restart)) for restart in range(max(restarts, 1))]
    runs = [_lloyd(rows, _seeded(rows, k, known, rng)) for rng in rngs]
    labels, centers, _ = min(runs, key=lambda run: run[2])
    return labels, centers


def _seeded(rows: Rows, k: int, known: Rows, rng: np.random.Generator) -> Rows:
    """Choose rows away from the known centers and from each other."""
    chosen: list[int] = []
    near = distances(rows, known).min(axis=1) if len(known) else np.ones(len(rows))
    while len(chosen) < k:
        total = float(near.sum())
        # All rows lie on centers: any will do.
        weights = near / total if total > 0 else np.full(len(rows), 1 / len(rows))
        at = int(rng.choice(len(rows), p=weights))
        own = distances(rows, rows[at : at + 1])[:, 0]
        near = np.minimum(near, own) if chosen or len(known) else own
        chosen.append(at)
    return rows[chosen].copy()


def _lloyd(rows: Rows, centers: Rows) -> tuple[Labels, Rows, float]:
    k = len(centers)
    labels = np.full(len(rows), -1, np.int64)
    for _ in range(MAX_ITERATIONS):
        away = distances(rows, centers)
        now = away.argmin(axis=1).astype(np.int64)
        sizes = np.bincount(now, minlength=k)
        for empty in np.flatnonzero(sizes == 0):
            # What fits its group least begins one of its own, unless it is alone there.
            own = np.where(sizes[now] > 1, away[np.arange(len(rows)), now], -1.0)
            at = int(own.argmax())
            sizes[now[at]] -= 1
            now[at], sizes[empty] = empty, 1
        if (now == labels).all():
            break
        labels = now
        member = np.zeros((k, len(rows)))
        member[labels, np.arange(len(rows))] = 1.0
        centers = member @ rows / sizes[:, None]
    own = distances(rows, centers)[np.arange(len(rows)), labels]
    return labels, centers, float(own.sum())


def silhouettes(apart: Rows, labels: Labels) -> Rows:
    """Return the silhouette of each row ``(n,)``; 0 for a row that is alone in its group.

    apart : distances of all pairs ``(n, n)``
    """
    k = int(labels.max()) + 1
    member = np.zeros((len(labels), k))
    member[np.arange(len(labels)), labels] = 1.0
    sizes = member.sum(axis=0)
    sums = apart @ member
    at = np.arange(len(labels))
    own_size = sizes[labels]
    inner = sums[at, labels] / np.maximum(own_size - 1, 1)
    means = sums / np.maximum(sizes, 1)
    means[at, labels] = np.inf
    means[:, sizes == 0] = np.inf
    outer = means.min(axis=1)
    largest = np.maximum(inner, outer)
    known = (own_size > 1) & np.isfinite(outer) & (largest > 0)
    out = np.zeros(len(labels))
    out[known] = (outer[known] - inner[known]) / largest[known]
    return out


def group(rows: Rows, *, known: Rows, k: int | None = None, seed: int = 0) -> Grouping:
    """Group rows ``(n, d)``, choosing the number of groups where ``k`` is not given.

    known : means of the known classes ``(c, d)``
    Raises ValueError where there are fewer than two rows.
    """
    if len(rows) < LEAST_MEMBERS:
        msg = f"expected at least {LEAST_MEMBERS} alerts to group, got {len(rows)}"
        raise ValueError(msg)
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    taken = ordered[_evenly(len(ordered), MAX_ROWS)]
    if k is None:
        k = choose_k(taken, known=known, seed=seed)
    k = min(k, len(taken))
    _, centers = ncd_kmeans(taken, k, known=known, seed=seed)
    labels = distances(ordered, centers).argmin(axis=1).astype(np.int64)
    sizes = np.bincount(labels, minlength=k)
    ranked = np.argsort(-sizes, kind="stable")
    ranked = ranked[sizes[ranked] > 0]
    renamed = np.zeros(k, np.int64)
    renamed[ranked] = np.arange(len(ranked))
    labels, centers = renamed[labels], centers[ranked]
    some = _evenly(len(ordered), MAX_SILHOUETTE_ROWS)
    quality = silhouettes(distances(ordered[some], ordered[some]), labels[some])
    out = np.empty(len(rows), np.int64)
    out[order] = labels
    return Grouping(labels=out, centers=centers, silhouette=float(quality.mean()))


def choose_k(rows: Rows, *, known: Rows, seed: int = 0) -> int:
    """Return the largest number of groups whose mean silhouette is nearly the best."""
    some = rows[_evenly(len(rows), MAX_SILHOUETTE_ROWS)]
    apart = distances(some, some)
    found: dict[int, float] = {}
    for k in range(2, min(MAX_GROUPS, len(some) - 1) + 1):
        labels, _ = ncd_kmeans(some, k, known=known, seed=seed, restarts=RESTARTS)
        found[k] = float(silhouettes(apart, labels).mean())
    if not found:
        return len(rows)
    best = max(found.values())
    return max(k for k, quality in found.items() if quality >= best - MARGIN * abs(best))


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of ``n`` positions, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
