import math

import numpy as np
import pytest

from streamad.evaluation.vus import (
    auc_pr,
    auc_roc,
    event_f1,
    point_adjusted_f1,
    vus,
    vus_pr,
    vus_roc,
)


def labels_with(*episodes: tuple[int, int], n: int = 1000) -> np.ndarray:
    labels = np.zeros(n, dtype=np.int8)
    for start, stop in episodes:
        labels[start:stop] = 1
    return labels


def literal_vus(labels, scores, window, n_thresholds):
    """The definition, row by row and threshold by threshold, as slow as it reads."""
    n, n_anomalous = len(labels), labels.sum()
    edges = np.flatnonzero(np.diff(np.r_[0, labels, 0]))
    segments = list(zip(edges[::2], edges[1::2] - 1, strict=True))
    ranks = np.linspace(0, n - 1, n_thresholds).astype(int)
    pr, roc = [], []
    for length in range(window + 1):
        half = length // 2
        soft = labels.astype(float)
        for i in np.flatnonzero(labels == 0):
            near = [max(s - i, i - e) for s, e in segments]
            soft[i] = min(1.0, sum(math.sqrt(1 - d / length) for d in near if d <= half))
        joined = [[segments[0][0] - half, segments[0][1] + half]]
        for start, stop in segments[1:]:
            if joined[-1][1] < start - half:
                joined.append([start - half, stop + half])
            else:
                joined[-1][1] = stop + half
        curve, precision = [(0.0, 0.0)], []
        for threshold in np.sort(scores)[::-1][ranks]:
            predicted = scores >= threshold
            found = np.sum(soft * predicted)
            wanted = n_anomalous + np.sum((soft * predicted)[labels == 0]) / 2
            exists = np.mean([predicted[max(a, 0) : b + 1].any() for a, b in joined])
            curve.append(
                (min(found / wanted, 1) * exists, (predicted.sum() - found) / (n - wanted))
            )
            precision.append(found / predicted.sum())
        recall, fpr = np.transpose([*curve, (1.0, 1.0)])
        pr.append(np.sum(np.diff(recall[:-1]) * precision))
        roc.append(np.sum(np.diff(fpr) * (recall[1:] + recall[:-1]) / 2))
    return np.mean(pr), np.mean(roc)


@pytest.mark.parametrize("window", [0, 1, 7, 40])
def test_vus_is_what_the_definition_says(window):
    rng = np.random.default_rng(window)
    labels = labels_with((0, 4), (50, 51), (60, 80), (190, 200), n=200)
    scores = np.round(rng.normal(size=200) + labels, 1)  # rounded: ties
    expected = literal_vus(labels, scores, window, 250)
    assert vus(labels, scores, window=window) == pytest.approx(expected)


@pytest.mark.parametrize("window", [0, 5, 64])
def test_a_perfect_score_reaches_one(window):
    labels = labels_with((100, 130), (500, 510))
    assert vus(labels, labels, window=window) == (1.0, 1.0)
    assert auc_pr(labels, labels) == auc_roc(labels, labels) == 1.0


def test_a_random_score_gets_about_the_share_of_anomalies():
    labels = labels_with((1000, 1500), (7000, 7500), n=10_000)
    scores = np.random.default_rng(0).random(10_000)
    assert vus_pr(labels, scores, window=0) == pytest.approx(0.1, abs=0.02)
    assert vus_pr(labels, scores, window=100) == pytest.approx(0.1, abs=0.03)
    assert auc_pr(labels, scores) == pytest.approx(0.1, abs=0.02)
    assert auc_roc(labels, scores) == pytest.approx(0.5, abs=0.03)


def test_a_constant_score_finds_nothing_out():
    labels = labels_with((100, 200))
    scores = np.full(1000, 3.0)
    assert vus_pr(labels, scores, window=0) == pytest.approx(0.1)
    assert vus_roc(labels, scores, window=0) == pytest.approx(0.5)
    assert auc_pr(labels, scores) == pytest.approx(0.1)
    assert auc_roc(labels, scores) == pytest.approx(0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_without_both_kinds_of_row_there_is_no_value(label):
    labels, scores = np.full(50, label), np.arange(50.0)
    assert math.isnan(vus_pr(labels, scores, window=5))
    assert math.isnan(auc_pr(labels, scores))
    assert math.isnan(auc_roc(labels, scores))


def test_a_near_miss_counts_for_something_and_a_far_one_for_little():
    labels = labels_with((100, 120))
    exact, near, far = labels, np.roll(labels, 8), np.roll(labels, 400)
    values = [vus_pr(labels, s, window=40, n_thresholds=None) for s in (exact, near, far)]
    assert values[0] == 1.0
    assert 0.5 < values[1] < 1.0
    assert values[2] < 0.1


def test_the_published_sweep_is_too_coarse_for_two_spikes_and_the_full_one_is_not():
    labels = labels_with((1000, 1001), (2000, 2001), n=4000)
    scores = np.arange(4000) + labels * 9000.0
    assert vus_pr(labels, scores, window=0) == pytest.approx(1 / 4 + 3 / 4 * 2 / 17)
    assert vus_pr(labels, scores, window=0, n_thresholds=None) == 1.0


def test_only_the_order_of_scores_matters():
    rng = np.random.default_rng(3)
    labels, scores = labels_with((100, 150), (700, 720)), rng.normal(size=1000)
    assert vus(labels, scores, window=30) == vus(labels, np.exp(scores), window=30)


def test_hand_made_areas():
    assert auc_pr([0, 1, 0, 1], [1, 2, 3, 4]) == pytest.approx((1 + 2 / 3) / 2)
    assert auc_roc([0, 1, 0, 1], [1, 2, 3, 4]) == 0.75
    assert auc_roc([0, 1], [1, 1]) == 0.5
    assert vus_pr([0, 1, 0, 1], [1, 2, 3, 4], window=0) == pytest.approx(0.25 + 0.75 * 2 / 3)


def test_events_are_counted_once_however_long():
    labels = labels_with((100, 300), (500, 501))
    scores = labels_with((299, 310), (800, 801))
    assert event_f1(labels, scores, threshold=1) == 0.5
    assert event_f1(labels, labels, threshold=1) == 1.0
    assert event_f1(labels, np.zeros(1000), threshold=1) == 0.0
    assert math.isnan(event_f1(np.zeros(1000), scores, threshold=1))


def test_point_adjustment_flatters_a_random_score():
    labels = labels_with((1000, 1500), (7000, 7500), n=10_000)
    scores = np.random.default_rng(0).random(10_000)
    assert point_adjusted_f1(labels, scores) > 0.9
    assert auc_pr(labels, scores) < 0.12


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="both be"):
        vus_pr([0, 1], [1.0], window=3)
    with pytest.raises(ValueError, match="finite"):
        auc_pr([0, 1], [1.0, np.nan])
    with pytest.raises(ValueError, match="window"):
        vus_pr([0, 1], [1.0, 2.0], window=-1)
