"""Deviations from training over all variates, alone and as a member of `auto`."""

import numpy as np
import pytest

from streamad.detectors.auto import MEMBERS, OF_SEVERAL, Auto
from streamad.detectors.deviations import Deviations
from streamad.detectors.knn import FusedKNN
from streamad.errors import NotFittedError
from streamad.evaluation.vus import auc_roc

SIZE, VARIATES = 32, 12


def windows_of(series, size=SIZE):
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def noise(n, seed, n_variates=VARIATES):
    return np.random.default_rng(seed).normal(size=(n, n_variates)).astype(np.float32)


def test_the_score_is_the_mean_deviation_in_spreads():
    series, coming = 3 + 2 * noise(1000, 0), 3 + 2 * noise(80, 1)
    detector = Deviations(size=SIZE).fit(windows_of(series))
    loc, scale = np.median(series, axis=0), series.std(axis=0)

    def far(values):
        judged = windows_of(np.log1p(np.abs(values - loc) / scale))[
            :, SIZE // 2 - 1 - 4 : SIZE // 2 - 1 + 4
        ]
        return judged.mean(axis=(1, 2))

    usual = np.sort(far(series)[np.unique(np.linspace(0, 1000 - SIZE, 512).astype(int))])
    middle, high = usual[len(usual) // 2], usual[int(0.9 * (len(usual) - 1))]
    expected = (far(coming) - middle) / max(high - middle, 0.3 * middle)
    np.testing.assert_allclose(detector.score(windows_of(coming)), expected, rtol=1e-3, atol=1e-4)


def test_what_all_variates_show_a_little_ranks_above_what_neighbours_see():
    training = windows_of(noise(3000, 0))
    coming = noise(1500, 1)
    labels = np.zeros(1500, dtype=np.int8)
    for first in range(200, 1500, 300):
        coming[first : first + 40] *= 1.3
        labels[first : first + 40] = 1
    windows = windows_of(coming)
    judged = labels[SIZE - 1 - SIZE // 2 :][: len(windows)]
    raw = auc_roc(judged, FusedKNN(size=SIZE).fit(training).score(windows))
    auto = auc_roc(judged, Auto(size=SIZE).fit(training).score(windows))
    assert auc_roc(judged, Deviations(size=SIZE).fit(training).score(windows)) > 0.95
    assert auto > raw


def test_of_one_variate_auto_is_what_it_was():
    training, windows = windows_of(noise(600, 0, 1), 64), windows_of(noise(120, 1, 1), 64)
    auto = Auto(size=64).fit(training)
    before = Auto(size=64, members=dict(MEMBERS)).fit(training)
    np.testing.assert_array_equal(auto.looks(windows), before.looks(windows))
    assert auto.state().keys() == before.state().keys()
    assert auto.new_memory(1).members.keys() == set(MEMBERS)
    assert auto.new_memory(2).members.keys() == set(OF_SEVERAL)


@pytest.mark.parametrize("guilty", [0, 7])
def test_the_variate_that_left_its_range_is_named(guilty):
    auto = Auto(size=SIZE).fit(windows_of(noise(1500, 0)))
    coming = noise(100, 3)
    coming[:, guilty] += 6
    share = auto.explain(windows_of(coming)).share
    assert (share.argmax(axis=1) == guilty).all()
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-5)


def test_a_key_without_training_is_judged_by_the_other_members():
    plain = Auto(size=SIZE, members={n: w for n, w in OF_SEVERAL.items() if n != "deviations"})
    auto = Auto(size=SIZE)
    series = noise(400, 5)
    found = []
    for detector in (auto, plain):
        memory = detector.new_memory(VARIATES)
        memory.reserve(1)
        scores = []
        windows = windows_of(series)
        for first in range(0, len(windows), 16):
            batch = windows[first : first + 16]
            slots = np.zeros(len(batch), dtype=np.int32)
            scores.append(detector.looks(batch, memory=memory, slots=slots))
            admit = np.ones(len(batch), dtype=np.bool_)
            detector.learn(memory, batch, slots=slots, admit=admit)
        found.append(np.concatenate(scores))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert found[0].any()


def test_an_adopted_level_is_no_deviation_once_its_period_is_over():
    detector = Deviations(size=SIZE).fit(windows_of(noise(1000, 0)))
    memory = detector.new_memory(VARIATES)
    memory.reserve(1)
    detector.seed_memory(memory, slot=0, group=0)
    shifted = windows_of(noise(SIZE + 47, 1) + 4)
    slots, admit = np.zeros(len(shifted), dtype=np.int32), np.ones(len(shifted), dtype=np.bool_)

    def score():
        return detector.score(shifted[:1], memory=memory, slots=slots[:1])[0]

    assert score() > 3
    detector.learn(memory, shifted[:10], slots=slots[:10], admit=admit[:10])
    detector.adopt(memory, slots[:1])
    detector.learn(memory, shifted[10:15], slots=slots[10:15], admit=admit[10:15])
    assert score() > 3
    detector.learn(memory, shifted[15:16], slots=slots[15:16], admit=admit[15:16])
    assert score() == 0


def test_a_stranger_scores_nothing_unless_the_only_group_may_stand_for_it():
    training, coming = windows_of(noise(1000, 0)), windows_of(noise(60, 1) + 4)
    slots = np.zeros(len(coming), dtype=np.int32)
    for strangers in (False, True):
        detector = Deviations(size=SIZE, strangers=strangers).fit(training)
        memory = detector.new_memory(VARIATES)
        memory.reserve(1)
        scores = detector.score(coming, memory=memory, slots=slots)
        expected = detector.score(coming) if strangers else np.zeros(len(coming))
        np.testing.assert_array_equal(scores, expected)


def test_without_training_it_cannot_be_asked():
    with pytest.raises(NotFittedError, match="was not fitted"):
        Deviations(size=SIZE).score(windows_of(noise(60, 0)))
