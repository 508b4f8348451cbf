"""Nearest neighbours of each variate by itself, their evidence together."""

import numpy as np
import pytest

from streamad.detectors.auto import Auto
from streamad.detectors.knn import FusedKNN
from streamad.detectors.variates import VariateKNN
from streamad.errors import ArtifactError, WindowError
from streamad.evaluation.vus import auc_roc

SIZE, VARIATES = 32, 10


def windows_of(series, size=SIZE):
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def waves(n, seed):
    """Each variate has its own period, so that no moment comes again in all of them."""
    rng = np.random.default_rng(seed)
    turns = np.arange(n)[:, None] / (3 + 1.7 * np.arange(VARIATES))
    return (np.sin(turns + seed) + 0.1 * rng.normal(size=(n, VARIATES))).astype(np.float32)


def test_the_score_is_the_mean_logarithm_of_each_variates_own():
    training, coming = windows_of(waves(600, 0)), windows_of(waves(120, 1))
    coming[20:40, :, 3] += 4
    looks = VariateKNN(size=SIZE).fit(training).looks(coming)
    each = [
        FusedKNN(size=SIZE)
        .fit(np.ascontiguousarray(training[:, :, v : v + 1]))
        .looks(np.ascontiguousarray(coming[:, :, v : v + 1]))
        for v in range(VARIATES)
    ]
    expected = np.expm1(np.log1p(np.stack(each).astype(float)).mean(axis=0))
    np.testing.assert_allclose(looks, expected, rtol=1e-5, atol=1e-6)


def test_of_one_variate_it_is_the_default_detector():
    training, coming = windows_of(waves(600, 0)[:, :1]), windows_of(waves(90, 1)[:, :1])
    ours = VariateKNN(size=SIZE).fit(training).looks(coming)
    theirs = FusedKNN(size=SIZE).fit(training).looks(coming)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_broken_shape_of_one_variate_ranks_above_what_the_joint_window_sees():
    training, coming = windows_of(waves(2500, 0)), waves(1500, 1)
    labels = np.zeros(1500, dtype=np.int8)
    for number, first in enumerate(range(150, 1450, 130)):
        variate = number % VARIATES
        coming[first : first + 20, variate] = coming[first, variate]
        labels[first : first + 20] = 1
    windows = windows_of(coming)
    judged = labels[SIZE - 1 - SIZE // 2 :][: len(windows)]
    joint = auc_roc(judged, FusedKNN(size=SIZE).fit(training).score(windows))
    apart = auc_roc(judged, VariateKNN(size=SIZE).fit(training).score(windows))
    assert apart > 0.8
    assert apart > joint + 0.05
    assert auc_roc(judged, Auto(size=SIZE).fit(training).score(windows)) > joint


@pytest.mark.parametrize("detector", [VariateKNN, Auto])
def test_the_variate_whose_shape_breaks_is_named(detector):
    fitted = detector(size=SIZE).fit(windows_of(waves(2500, 0)))
    coming = waves(1000, 1)
    windows = []
    for variate in range(VARIATES):
        one = coming[100 * variate : 100 * variate + SIZE].copy()
        one[SIZE // 2 - 5 : SIZE // 2 + 5, variate] += 2
        windows.append(one)
    why = fitted.explain(np.stack(windows))
    assert why.share.argmax(axis=1).tolist() == list(range(VARIATES))
    assert (np.abs(why.position - SIZE // 2) <= 6).all()


def test_a_variate_without_a_sample_leaves_the_others_judged():
    fitted = VariateKNN(size=SIZE).fit(windows_of(waves(800, 0)))
    windows = windows_of(waves(60, 1))
    windows[:, :, 2] = np.nan
    scores = fitted.score(windows)
    assert np.isfinite(scores).all()
    windows[:, :, 5] += 5
    assert (fitted.score(windows) > scores).all()
    assert np.isfinite(fitted.explain(windows).share).all()


def test_windows_of_other_variates_and_other_artifacts_are_refused_in_words():
    fitted = VariateKNN(size=SIZE).fit(windows_of(waves(300, 0)))
    with pytest.raises(WindowError, match="10 variates of fit, got 2"):
        fitted.score(windows_of(waves(60, 0)[:, :2]))
    with pytest.raises(ArtifactError, match=r"windows.size = 32, the pipeline has 64"):
        VariateKNN(size=64).load(fitted.state())


@pytest.mark.parametrize("detector", [VariateKNN, Auto])
def test_a_new_artifact_measures_the_keys_it_knows_again_and_that_can_be_undone(detector):
    old = detector(size=SIZE).fit(windows_of(waves(400, 0)))
    new = detector(size=SIZE).fit(windows_of(10 + 3 * waves(400, 0)))
    memory, fresh, slots = old.new_memory(VARIATES), new.new_memory(VARIATES), np.arange(2)
    for made, by in ((memory, old), (fresh, new)):
        made.reserve(2)
        by.seed_memory(made, slot=0, group=0)
    before, wanted = memory.state(slots), fresh.state(slots)
    undo = new.retrained(memory, slots=slots, groups=np.array([0, -1]))
    after = memory.state(slots)
    measured = [name for name in after if name.rpartition(".")[2] in {"loc", "scale", "usual"}]
    assert len(measured) >= 3
    for name in measured:
        np.testing.assert_array_equal(after[name], wanted[name])
        unit = name.endswith("usual") or not np.array_equal(after[name], before[name])
        assert unit  # what is usual is in spreads, whatever the unit
    undo()
    assert all(
        np.array_equal(array, before[name], equal_nan=True)
        for name, array in memory.state(slots).items()
    )
