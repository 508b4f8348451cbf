"""Grouping and recognising, by their definitions and against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from streamad.triage.gaussians import FLOOR, LEVEL, Gaussians, shrunk_covariance
from streamad.triage.grouping import MAX_ROWS, distances, group, ncd_kmeans, silhouettes

NONE = np.empty((0, 4))


def blobs(seed: int, sizes: tuple[int, ...], apart: float = 8.0) -> tuple:
    rng = np.random.default_rng(seed)
    centers = apart * np.eye(4)[: len(sizes)]
    rows = np.concatenate(
        [c + rng.standard_normal((n, 4)) for c, n in zip(centers, sizes, strict=True)]
    )
    return rows, np.repeat(np.arange(len(sizes)), sizes), centers


def test_clear_groups_are_found_with_their_number():
    rows, truth, _ = blobs(1, (60, 25, 12, 9))
    made = group(rows, known=NONE)
    assert adjusted_rand_score(truth, made.labels) > 0.98
    assert np.bincount(made.labels).tolist() == sorted(np.bincount(made.labels), reverse=True)
    assert made.silhouette > 0.6


def test_the_order_of_the_rows_changes_nothing():
    rows, _, _ = blobs(2, (30, 20, 10), apart=2.0)
    order = np.random.default_rng(0).permutation(len(rows))
    assert (group(rows, known=NONE).labels[order] == group(rows[order], known=NONE).labels).all()


def test_known_means_keep_new_centers_away_and_get_no_rows():
    rows, truth, centers = blobs(3, (40, 40, 40))
    known = centers[:1]
    unknown = rows[truth > 0]
    first = [ncd_kmeans(unknown, 2, known=known, seed=s, restarts=1)[0] for s in range(20)]
    assert all(set(labels) == {0, 1} for labels in first)
    assert np.mean([adjusted_rand_score(truth[truth > 0], one) for one in first]) > 0.95


def test_every_center_has_rows_even_where_rows_are_equal():
    rows = np.repeat(np.eye(4), 3, axis=0)
    labels, centers = ncd_kmeans(rows, 6, known=NONE)
    assert np.bincount(labels, minlength=6).min() >= 1
    assert np.isfinite(centers).all()
    with pytest.raises(ValueError, match="expected 1 to 12 groups of 12 rows, got 13"):
        ncd_kmeans(rows, 13, known=NONE)


def test_silhouettes_are_those_of_scikit_learn():
    rows, truth, _ = blobs(4, (20, 15, 1), apart=2.0)
    mine = silhouettes(distances(rows, rows), truth)
    assert mine == pytest.approx(silhouette_samples(rows, truth), abs=1e-7)


def test_more_rows_than_are_clustered_each_get_a_group():
    rows, truth, _ = blobs(5, (MAX_ROWS, 1_000))
    made = group(rows, known=NONE, k=2)
    assert adjusted_rand_score(truth, made.labels) > 0.99


def test_too_few_rows_are_refused_with_the_number():
    with pytest.raises(ValueError, match="at least 2 alerts to group, got 1"):
        group(np.zeros((1, 4)), known=NONE)


@pytest.mark.parametrize("n", [3, 30, 3_000])
def test_the_covariance_is_that_of_ledoit_and_wolf(n: int):
    rows = np.random.default_rng(n).standard_normal((n, 6)) * [1, 2, 3, 1, 1, 5]
    assert shrunk_covariance(rows) == pytest.approx(ledoit_wolf(rows, assume_centered=True)[0])


def test_distances_are_those_of_mahalanobis():
    rows, classes, _ = blobs(6, (50, 40))
    fitted = Gaussians.fit(rows, classes)
    means = np.stack([rows[classes == c].mean(axis=0) for c in (0, 1)])
    inner = rows - means[classes]
    loose = np.sqrt(np.array([50 / 49, 40 / 39]))[classes][:, None]
    exact = np.linalg.inv(shrunk_covariance(inner * loose) + FLOOR * np.eye(4))
    apart = rows[:, None, :] - means[None]
    expected = np.einsum("ncd,de,nce->nc", apart, exact, apart)
    assert fitted.distances(rows) == pytest.approx(expected)


def test_about_the_promised_share_of_new_members_is_rejected_and_strangers_are():
    rng = np.random.default_rng(7)
    rejected = []
    for seed in range(20):
        rows, classes, centers = blobs(seed, (60, 40, 20))
        fitted = Gaussians.fit(rows, classes)
        fresh = centers[rng.integers(3, size=400)] + rng.standard_normal((400, 4))
        rejected.append((fitted.recognise(fresh) == -1).mean())
        assert (fitted.recognise(fresh + 100.0) == -1).all()
    assert np.mean(rejected) == pytest.approx(LEVEL, abs=0.02)


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 1), (2, 1)])
def test_with_hardly_any_alerts_a_stranger_is_not_recognised(sizes: tuple[int, ...]):
    rows, classes, _ = blobs(8, sizes)
    fitted = Gaussians.fit(rows, classes)
    assert (fitted.recognise(rows + 50.0) == -1).all()
    assert np.isfinite(fitted.distances(rows)).all()


def test_a_class_without_rows_is_refused():
    with pytest.raises(ValueError, match=r"rows of each class.*\[1, 0, 1\]"):
        Gaussians.fit(np.zeros((2, 4)), np.array([0, 2]))
