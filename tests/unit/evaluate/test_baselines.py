"""Baselines keep the rules they are compared by: no look ahead, and what they claim to be."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from streamad.detectors import DETECTORS
from streamad.errors import UnknownNameError
from streamad.evaluation.baselines import ALWAYS, BASELINES, NEEDS
from streamad.evaluation.baselines.neighbours import APART, LeftMatrixProfile, RawKNN

SIZE, TRAIN = 16, 200
INSTALLED = [n for n in BASELINES if n not in NEEDS or find_spec(NEEDS[n][0])]


def windows_of(values: np.ndarray) -> np.ndarray:
    cut = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), SIZE)
    return np.ascontiguousarray(cut[:, :, None])


def wave(n: int = 500, seed: int = 0) -> np.ndarray:
    return np.sin(np.arange(n) / 3) + np.random.default_rng(seed).normal(0, 0.05, n)


def stream(name: str, values: np.ndarray, *, step: int = 16) -> np.ndarray:
    """Fit on the first windows, then score and learn the others in order."""
    windows = windows_of(values)
    detector = BASELINES.load(name)(size=SIZE)
    detector.fit(windows[:TRAIN])
    memory = detector.new_memory(1)
    if memory is None:
        return detector.score(windows[TRAIN:])
    memory.reserve(1)
    detector.seed_memory(memory, slot=0, group=0)
    scores = []
    for begin in range(TRAIN, len(windows), step):
        part = windows[begin : begin + step]
        slots = np.zeros(len(part), np.int32)
        scores.append(detector.score(part, memory=memory, slots=slots))
        detector.learn(memory, part, slots=slots, admit=np.ones(len(part), np.bool_))
    return np.concatenate(scores)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_baseline_scores_every_window_and_never_looks_ahead(name):
    values = wave()
    changed = values.copy()
    changed[400:] += 9.0
    one, other = stream(name, values), stream(name, changed)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    same = 400 - SIZE + 1 - TRAIN
    assert one[:same] == pytest.approx(other[:same], abs=1e-6)
    if name == "random":
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.2
        assert 0.4 < one.mean() < 0.6
    else:
        # Normalised alone, a window shows a shift only while it comes in.
        first = other[same : same + SIZE]
        assert first.max() > one.max(), "a shift of nine deviations stands out"


def test_the_matrix_profile_is_the_distance_to_the_nearest_earlier_window():
    values = wave(seed=1)
    scores, windows = stream("matrix_profile", values), windows_of(values)[:, :, 0]
    normal = windows - windows.mean(axis=1, keepdims=True)
    normal /= windows.std(axis=1, keepdims=True)
    for at in (TRAIN + 100, TRAIN + 239):
        # Learned in turns of 16, and older than four windows.
        known = TRAIN + (at - TRAIN) // 16 * 16 - APART * SIZE
        past = np.vstack([normal[:TRAIN], normal[TRAIN:known]])
        nearest = np.sqrt(((past - normal[at]) ** 2).mean(axis=1)).min()
        assert scores[at - TRAIN] == pytest.approx(nearest, abs=1e-4)


def test_what_was_not_admitted_is_no_neighbour():
    windows = windows_of(wave())
    odd = windows_of(np.random.default_rng(3).normal(size=60) * 5)[:1]
    scores = []
    for admitted in (True, False):
        detector = RawKNN(size=SIZE, k=1).fit(windows[:TRAIN])
        memory = detector.new_memory(1)
        memory.reserve(1)
        detector.seed_memory(memory, slot=0, group=0)
        fill = np.vstack([odd, windows[TRAIN : TRAIN + APART * SIZE]])
        admit = np.r_[admitted, np.ones(len(fill) - 1, np.bool_)].astype(np.bool_)
        detector.learn(memory, fill, slots=np.zeros(len(fill), np.int32), admit=admit)
        scores.append(float(detector.score(odd, memory=memory, slots=np.zeros(1, np.int32))[0]))
    assert scores[0] == pytest.approx(0.0, abs=1e-3)
    assert scores[1] > 1.0


def test_a_constant_window_has_distance_zero_to_another_one_and_one_to_a_wave():
    still = np.full((40, SIZE, 1), 7.0, np.float32)
    assert LeftMatrixProfile(size=SIZE).fit(still).score(still[:2]).tolist() == [0.0, 0.0]
    moving = LeftMatrixProfile(size=SIZE).fit(windows_of(wave())[:100])
    assert moving.score(still[:1])[0] == pytest.approx(1.0, abs=1e-3)


def test_baselines_are_known_only_while_they_are_compared():
    assert set(ALWAYS) <= {*BASELINES, *DETECTORS}
    assert not set(BASELINES) & set(DETECTORS)
    with DETECTORS.beside(BASELINES):
        assert DETECTORS.load("knn_raw") is RawKNN
    with pytest.raises(UnknownNameError):
        DETECTORS.load("knn_raw")
