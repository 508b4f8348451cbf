"""Measures of scores against labels: VUS-PR and its relatives, event-wise F1.

VUS ("volume under the surface") is Paparrizos et al., "Volume Under the Surface: A New Accuracy
Evaluation Measure for Time-Series Anomaly Detection", PVLDB 15(11), 2022. A label gets a buffer of
half a length ``w`` on either side that slopes down from 1, so that a score slightly early or late
is not punished as a miss; a curve counts recall only for the share of anomalies found at all (the
existence reward); and the area under the curve is averaged over all lengths ``w = 0 .. window``.

A buffer counts as something to be found only where it *was* found, so a perfect score reaches 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamad.compiled import compiled

Labels = NDArray[np.int8]
Scores = NDArray[np.float64]

N_THRESHOLDS = 250
"""Thresholds of the published figures: the scores at 250 evenly spaced ranks, the highest first.

A few short anomalies are punished by so coarse a sweep (two single rows found exactly among 4,000
have .34, not 1); ``n_thresholds=None`` takes every distinct score instead, but its figures must
not be compared with published ones.
"""


class Vus(NamedTuple):
    """Volumes under the precision-recall and the ROC surface, in 0..1; NaN without an anomaly."""

    pr: float
    roc: float


def vus(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    window: int,
    n_thresholds: int | None = N_THRESHOLDS,
) -> Vus:
    """Return VUS-PR and VUS-ROC of scores.

    Parameters
    ----------
    labels : ``(n,)``, 0 or 1 (anomaly)
    scores : ``(n,)``, finite, higher is stranger
    window : the longest buffer in samples, usually the period of the series
    n_thresholds : see `N_THRESHOLDS`

    Returns
    -------
    Vus : both NaN where no label, or every label, is an anomaly

    Raises
    ------
    ValueError : shapes differ, scores are not finite, or ``window`` is negative

    Examples
    --------
    >>> vus([0, 0, 1, 1, 0], [0, 0, 9, 9, 0], window=2)
    Vus(pr=1.0, roc=1.0)
    """
    truth, values = _checked(labels, scores)
    if window < 0:
        msg = f"window must be 0 or more samples, got {window}"
        raise ValueError(msg)
    if not 0 < int(truth.sum()) < len(truth):
        return Vus(math.nan, math.nan)
    starts, stops = _segments(truth)
    levels = _levels(values, n_thresholds)
    found_at = np.searchsorted(-levels, -values, side="left")
    n_predicted = np.cumsum(np.bincount(found_at, minlength=len(levels) + 1))[: len(levels)]
    pr, roc = _volumes(truth, found_at, n_predicted, starts, stops, window)
    return Vus(float(pr), float(roc))


def vus_pr(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    window: int,
    n_thresholds: int | None = N_THRESHOLDS,
) -> float:
    """Return VUS-PR, the headline measure; arguments as for `vus`.

    A random score gets about the share of anomalies (more with a long ``window``, since buffers
    count too).
    """
    return vus(labels, scores, window=window, n_thresholds=n_thresholds).pr


def vus_roc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    window: int,
    n_thresholds: int | None = N_THRESHOLDS,
) -> float:
    """Return VUS-ROC; arguments as for `vus`. Rare anomalies flatter it: prefer `vus_pr`."""
    return vus(labels, scores, window=window, n_thresholds=n_thresholds).roc


def auc_pr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision over rows; NaN without an anomaly or without a normal row.

    Parameters
    ----------
    labels : ``(n,)``, 0 or 1 (anomaly)
    scores : ``(n,)``, finite, higher is stranger

    Examples
    --------
    >>> auc_pr([0, 1, 0, 1], [1, 2, 3, 4])
    0.8333333333333333
    """
    truth, values = _checked(labels, scores)
    n_anomalies = int(truth.sum())
    if not 0 < n_anomalies < len(truth):
        return math.nan
    n_predicted, n_hits = _counts(truth, values)
    gained = np.diff(n_hits, prepend=0.0)
    return float(np.dot(gained, n_hits / n_predicted) / n_anomalies)


def auc_roc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the chance that an anomalous row scores above a normal one (ties count half).

    NaN without an anomaly or without a normal row; arguments as for `auc_pr`.

    Examples
    --------
    >>> auc_roc([0, 1, 0, 1], [1, 2, 3, 4])
    0.75
    """
    truth, values = _checked(labels, scores)
    n_anomalies = int(truth.sum())
    n_normal = len(truth) - n_anomalies
    if n_anomalies == 0 or n_normal == 0:
        return math.nan
    n_predicted, n_hits = _counts(truth, values)
    hits = np.concatenate([[0.0], n_hits])
    misses = np.concatenate([[0.0], n_predicted - n_hits])
    area = np.dot(np.diff(misses), hits[1:] + hits[:-1]) / 2
    return float(area / (n_anomalies * n_normal))


def event_f1(labels: ArrayLike, scores: ArrayLike, *, threshold: float) -> float:
    """Return F1 counted by episodes: what whoever is paged sees.

    A run of rows at or above ``threshold`` is one alarm; a run of labels is one anomaly. An anomaly
    is found where any alarm touches it, an alarm is right where it touches any anomaly; neither
    grows by being long. NaN without an anomaly, 0 without an alarm.

    Examples
    --------
    >>> event_f1([0, 1, 1, 0, 0, 1, 0], [0, 0, 9, 0, 9, 0, 0], threshold=5)
    0.5
    """
    truth, values = _checked(labels, scores)
    if not truth.any():
        return math.nan
    alarms = (values >= threshold).astype(np.int8)
    if not alarms.any():
        return 0.0
    recall = _share_touched(truth, alarms)
    precision = _share_touched(alarms, truth)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def point_adjusted_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best F1 after point adjustment. It is misleading: never report it alone.

    One row found inside an anomaly counts as the whole anomaly found, so that even random scores
    get a high value where anomalies are long (Kim et al., arXiv 2109.05257). Here for comparison
    with papers that report nothing else, and to show that it misleads.
    """
    truth, values = _checked(labels, scores)
    n_anomalies = int(truth.sum())
    if n_anomalies == 0:
        return math.nan
    adjusted = values.copy()
    for start, stop in zip(*_segments(truth), strict=True):
        adjusted[start:stop] = values[start:stop].max()
    n_predicted, n_hits = _counts(truth, adjusted)
    return float((2 * n_hits / (n_predicted + n_anomalies)).max())


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Labels, Scores]:
    truth = np.asarray(labels)
    values = np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        msg = f"labels and scores must both be (n,), got {truth.shape} and {values.shape}"
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = "scores must be finite; leave rows without a score out, with their labels"
        raise ValueError(msg)
    return (truth > 0).astype(np.int8), values


def _segments(truth: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of ones start and stop (one past the end)."""
    edges = np.diff(truth, prepend=np.int8(0), append=np.int8(0))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _share_touched(events: Labels, others: Labels) -> float:
    starts, stops = _segments(events)
    before = np.concatenate([[0], np.cumsum(others)])
    return float(np.mean(before[stops] > before[starts]))


def _counts(truth: Labels, values: Scores) -> tuple[Scores, Scores]:
    """Return how many rows, and how many anomalous ones, lie at or above each distinct score."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return (last + 1).astype(np.float64), np.cumsum(truth[order], dtype=np.float64)[last]


def _levels(values: Scores, n_thresholds: int | None) -> Scores:
    """Return the thresholds of the sweep, distinct and falling."""
    if n_thresholds is None:
        return np.unique(values)[::-1]
    ranks = np.linspace(0, len(values) - 1, n_thresholds).astype(np.int64)
    return np.unique(-np.sort(-values)[ranks])[::-1]


@compiled
def _volumes(
    truth: Labels,
    found_at: NDArray[np.int64],
    n_predicted: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    window: int,
) -> tuple[float, float]:
    """Average the areas under both curves over the buffer lengths ``0 .. window``.

    ``found_at`` is the first threshold a row is found at. Only rows in buffers differ between
    lengths, so a length costs as much as its buffers and the thresholds are long.
    """
    n_levels = len(n_predicted)
    hits = np.zeros(n_levels)
    for i in range(len(truth)):
        if truth[i] and found_at[i] < n_levels:
            hits[found_at[i]] += 1.0
    hits = np.cumsum(hits)
    extra = np.zeros(len(truth))
    total_pr = 0.0
    total_roc = 0.0
    for length in range(window + 1):
        touched = _slope(extra, truth, starts, stops, length)
        soft = np.zeros(n_levels)
        for start, stop in touched:
            for i in range(start, stop):
                if extra[i] > 0.0:
                    if found_at[i] < n_levels:
                        soft[found_at[i]] += min(extra[i], 1.0)
                    extra[i] = 0.0
        existence = _existence(found_at, starts, stops, length // 2, n_levels)
        pr, roc = _areas(hits, np.cumsum(soft), existence, n_predicted, len(truth))
        total_pr += pr
        total_roc += roc
    return total_pr / (window + 1), total_roc / (window + 1)


@compiled
def _slope(
    extra: Scores,
    truth: Labels,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    length: int,
) -> list[tuple[int, int]]:
    """Add the buffers of one length to ``extra``; return the ranges of rows they may touch."""
    n = len(truth)
    half = length // 2
    touched = []
    for start, stop in zip(starts, stops):  # noqa: B905 numba knows no strict zip
        first = max(start - half, 0)
        last = min(stop + half, n)
        touched.append((first, last))
        for i in range(first, start):
            if not truth[i]:
                extra[i] += math.sqrt(1.0 - (start - i) / length)
        for i in range(stop, last):
            if not truth[i]:
                extra[i] += math.sqrt(1.0 - (i - stop + 1) / length)
    return touched


@compiled
def _existence(
    found_at: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    half: int,
    n_levels: int,
) -> Scores:
    """Return the share of anomalies found at each threshold; touching buffers make one anomaly."""
    n = len(found_at)
    share = np.zeros(n_levels)
    n_anomalies = 0
    first = max(starts[0] - half, 0)
    for j in range(len(starts)):
        merges = j + 1 < len(starts) and stops[j] - 1 + half >= starts[j + 1] - half
        if merges:
            continue
        best = n_levels
        for i in range(first, min(stops[j] + half, n)):
            best = min(best, found_at[i])
        if best < n_levels:
            share[best] += 1.0
        n_anomalies += 1
        if j + 1 < len(starts):
            first = starts[j + 1] - half
    return np.cumsum(share) / n_anomalies


@compiled
def _areas(
    hits: Scores,
    soft: Scores,
    existence: Scores,
    n_predicted: NDArray[np.int64],
    n: int,
) -> tuple[float, float]:
    """Return the areas under the precision-recall curve (steps) and the ROC curve (trapezes)."""
    n_anomalous = hits[-1]
    area_pr = 0.0
    area_roc = 0.0
    recall_before = 0.0
    fpr_before = 0.0
    for k in range(len(hits)):
        found = hits[k] + soft[k]
        n_soft = n_anomalous + soft[k] / 2.0
        recall = min(found / n_soft, 1.0) * existence[k]
        fpr = (n_predicted[k] - found) / (n - n_soft)
        area_pr += (recall - recall_before) * found / n_predicted[k]
        area_roc += (fpr - fpr_before) * (recall + recall_before) / 2.0
        recall_before = recall
        fpr_before = fpr
    area_roc += (1.0 - fpr_before) * (1.0 + recall_before) / 2.0
    return area_pr, area_roc
