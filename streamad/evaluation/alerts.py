"""Alerts as people feel them: how many, how many for nothing, what was found, how late.

Nothing is adjusted to the labels. An anomaly is found by an alert that opens for it; one that was
open already tells nobody anything. Chance is measured beside it: the same alerts at random times
find something too, the more the longer the anomalies and the more numerous the alerts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.int64]
N_SHIFTS = 64
PROMISES = (1e-2, 1e-3, 1e-4)
"""p-values whose promise is compared with what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Alerts of one series, by rows, in order of ``opened``.

    opened : at which each was raised, the lag of its detector included; first, last : of its event
    """

    opened: Rows
    first: Rows
    last: Rows

    def __post_init__(self) -> None:
        if not len(self.opened) == len(self.first) == len(self.last):
            msg = "episodes need as many openings as first and last rows"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertQuality:
    """Counts of one series; sums of them are counts of many.

    episodes : alerts that opened; true : those that overlap an anomaly; anomalies : labelled;
    found : by an alert that opened for them; by_chance : as many would be found by the same alerts
    at random times; delays : rows from an anomaly's first to the opening, of those found;
    in_alert : share of rows inside an alert's event
    """

    episodes: int
    true: int
    anomalies: int
    found: int
    by_chance: float
    delays: tuple[int, ...]
    in_alert: float

    @property
    def false(self) -> int:
        """Return the alerts that overlap no anomaly."""
        return self.episodes - self.true


def runs(flags: ArrayLike) -> tuple[Rows, Rows]:
    """Return the first and the last row of every run of what is true.

    Examples
    --------
    >>> [rows.tolist() for rows in runs([0, 1, 1, 0, 1])]
    [[1, 4], [2, 4]]
    """
    edges = np.flatnonzero(np.diff((np.asarray(flags) > 0).astype(np.int8), prepend=0, append=0))
    return edges[::2].astype(np.int64), edges[1::2].astype(np.int64) - 1


def alert_quality(labels: ArrayLike, episodes: Episodes, *, slack: int) -> AlertQuality:
    """Return what the alerts of one series are worth.

    Parameters
    ----------
    labels : ``(n,)``, 0 or 1; a run of ones is an anomaly
    episodes : rows count from the same first row as labels
    slack : half a window, in rows. An alert overlaps an anomaly if its event comes so near; it
        finds the anomaly if it opens from ``slack`` rows before its first to twice as many after
        its last

    Examples
    --------
    >>> one = np.array([4])
    >>> made = Episodes(opened=one + 2, first=one, last=one + 1)
    >>> alert_quality([0, 0, 0, 0, 1, 1, 0, 0, 0, 0], made, slack=1).delays
    (2,)
    """
    truth = np.asarray(labels)
    begins, ends = runs(truth)
    near = (episodes.first[:, None] <= ends + slack) & (episodes.last[:, None] >= begins - slack)
    opens = _finds(episodes.opened, begins, ends, slack)
    hit = opens.any(axis=0)
    first = np.where(hit, opens.argmax(axis=0), 0) if len(episodes) else np.zeros(len(begins), int)
    delays = (episodes.opened[first[hit]] - begins[hit]).tolist() if len(episodes) else []
    return AlertQuality(
        episodes=len(episodes),
        true=int(near.any(axis=1).sum()),
        anomalies=len(begins),
        found=int(hit.sum()),
        by_chance=_by_chance(episodes.opened, begins, ends, slack=slack, n=len(truth)),
        delays=tuple(int(one) for one in delays),
        in_alert=_share_inside(episodes, len(truth)),
    )


def rarer_than_promised(
    p_values: ArrayLike, labels: ArrayLike, *, near: int
) -> tuple[int, tuple[int, ...]]:
    """Return the number of ordinary windows, and how many of them lie below each of `PROMISES`.

    p_values : ``(n,)``, NaN where nothing was scored; labels : ``(n,)``; near : windows within so
    many rows of a label are not ordinary

    Examples
    --------
    >>> rarer_than_promised([1e-5, 0.5, 5e-3, 0.9], [1, 0, 0, 0], near=1)
    (2, (1, 0, 0))
    """
    p, truth = np.asarray(p_values, dtype=np.float64), np.asarray(labels) > 0
    sums = np.concatenate([[0], np.cumsum(truth)])
    at = np.arange(len(truth))
    around = sums[np.minimum(at + near + 1, len(truth))] - sums[np.maximum(at - near, 0)]
    ordinary = p[np.isfinite(p) & (around == 0)]
    return len(ordinary), tuple(int((ordinary < promise).sum()) for promise in PROMISES)


def _finds(opened: Rows, begins: Rows, ends: Rows, slack: int) -> NDArray[np.bool_]:
    at = opened[:, None]
    found: NDArray[np.bool_] = (at >= begins - slack) & (at <= ends + 2 * slack)
    return found


def _by_chance(opened: Rows, begins: Rows, ends: Rows, *, slack: int, n: int) -> float:
    """Return the mean number found when all openings are moved round the series together."""
    if len(opened) == 0 or len(begins) == 0:
        return 0.0
    shifts = np.linspace(0, n, N_SHIFTS, endpoint=False).astype(np.int64)
    found = [_finds((opened + k) % n, begins, ends, slack).any(axis=0).sum() for k in shifts]
    return float(np.mean(found))


def _share_inside(episodes: Episodes, n: int) -> float:
    if len(episodes) == 0 or n == 0:
        return 0.0
    steps = np.zeros(n + 1, np.int64)
    np.add.at(steps, np.clip(episodes.first, 0, n), 1)
    np.add.at(steps, np.clip(episodes.last + 1, 0, n), -1)
    return float((np.cumsum(steps)[:n] > 0).mean())
