"""Roughness: what it is, that windows agree on it, and what it finds where raw windows do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.detectors.auto import Auto
from streamad.detectors.knn import FusedKNN
from streamad.detectors.roughness import RoughnessKNN, roughness
from streamad.errors import ArtifactError, WindowError
from streamad.evaluation.vus import auc_roc

SIZE = 64


def windows_of(series, size=SIZE):
    rolling = np.lib.stride_tricks.sliding_window_view(np.float32(series), size)
    return np.ascontiguousarray(rolling)[:, :, None]


def waves(n, seed):
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(n) * 2 * np.pi / SIZE) + rng.normal(0, 0.05, n)


@settings(deadline=None)  # compiled at the first call
@given(
    size=st.integers(6, 90),
    share=st.floats(0.05, 1),
    missing=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_roughness_is_the_deviation_of_differences(size, share, missing, seed):
    of = max(int(share * (size - 2)), 2)
    rng = np.random.default_rng(seed)
    windows = np.float32(rng.normal(rng.normal(0, 100), 1, (2, size, 2)))
    windows[rng.random(windows.shape) < missing] = np.nan
    found = roughness(windows, of)
    assert found.shape == (2, size - of, 2)
    apart = np.diff(windows.astype(np.float64), axis=1)
    stretches = np.lib.stride_tricks.sliding_window_view(apart, of, axis=1)
    known = 2 * (~np.isnan(stretches)).sum(axis=3) >= of
    assert (np.isnan(found) == ~known).all()
    deviation = [np.std(one[~np.isnan(one)]) for one in stretches[known]]
    np.testing.assert_allclose(found[known], deviation, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(of=st.integers(4, 40), by=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_windows_that_overlap_agree_to_the_last_bit(of, by, seed):
    rng = np.random.default_rng(seed)
    series = np.float32(rng.normal(0, 10 ** rng.uniform(-6, 6), 64 + by))
    series[rng.random(len(series)) < 0.1] = np.nan
    one, next_one = series[None, :64, None], series[None, by:, None]
    earlier = roughness(np.ascontiguousarray(one), of)[0, by:]
    later = roughness(np.ascontiguousarray(next_one), of)[0, : 64 - of - by]
    assert np.array_equal(earlier, later[: len(earlier)], equal_nan=True)


def test_a_steady_slope_is_not_rough_and_the_largest_samples_have_a_number():
    slope = windows_of(1e6 + 3.0 * np.arange(SIZE))
    assert (roughness(slope, 16) == 0).all()
    huge = windows_of(np.where(np.arange(SIZE) % 2, 3.4e38, -3.4e38))
    assert np.isfinite(roughness(huge, 16)).all()


def test_a_burst_is_found_on_a_level_that_never_was_before():
    """There all raw windows are far from the past, and the burst is lost among them."""
    training, coming = waves(1000, 1), waves(1000, 2) + 5
    coming[500:530] += np.random.default_rng(3).normal(0, 0.5, 30)
    windows, judged = windows_of(coming), np.arange(1000 - SIZE + 1) + SIZE // 2
    burst = ((judged >= 490) & (judged < 550)).astype(np.int8)
    found = {
        kind: auc_roc(burst, kind(size=SIZE).fit(windows_of(training)).score(windows))
        for kind in (FusedKNN, RoughnessKNN, Auto)
    }
    assert found[RoughnessKNN] > 0.99
    assert found[Auto] > 0.97
    assert found[FusedKNN] < found[Auto]


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: 1000 + 50 * x])
def test_neither_unit_nor_level_nor_direction_count(change):
    training, coming = waves(600, 1), waves(300, 2)
    coming[150] += 2
    as_it_is = RoughnessKNN(size=SIZE).fit(windows_of(training)).score(windows_of(coming))
    changed = RoughnessKNN(size=SIZE).fit(windows_of(change(training)))
    np.testing.assert_allclose(
        changed.score(windows_of(change(coming))), as_it_is, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("kind", ["spike", "frozen"])
def test_an_explanation_states_the_step_that_was_due(kind):
    training, coming = waves(1000, 1), waves(SIZE, 2)
    if kind == "spike":
        coming[36] += 3
    else:
        coming[30:] = coming[30]
    fitted = RoughnessKNN(size=SIZE).fit(windows_of(training))
    why = fitted.explain(windows_of(coming))
    (at,) = why.position
    assert why.observed[0, 0] == np.float32(coming[at])
    if kind == "spike":
        assert at in (36, 37)
        assert abs(why.expected[0, 0] - coming[at - 1]) < 0.3 < abs(coming[at] - coming[at - 1])
    else:
        assert at >= 30
        assert 0.01 < abs(why.expected[0, 0] - coming[at - 1]) < 0.3


def test_an_artifact_of_another_size_is_refused_with_both():
    fitted = RoughnessKNN(size=SIZE).fit(windows_of(waves(300, 1)))
    with pytest.raises(ArtifactError, match="size = 64, the pipeline has 32"):
        RoughnessKNN(size=32).load(fitted.state())
    again = RoughnessKNN(size=SIZE).load(fitted.state())
    windows = windows_of(waves(200, 2))
    assert np.array_equal(again.score(windows), fitted.score(windows))


@pytest.mark.parametrize("lag", [-1, SIZE])
def test_a_judged_sample_outside_the_window_is_refused(lag):
    with pytest.raises(WindowError, match=r"0 \.\. 63 \(inside the window\), got"):
        RoughnessKNN(size=SIZE, lag=lag)


def test_tumbling_windows_are_learned_from():
    detector = RoughnessKNN(size=SIZE)
    memory = detector.new_memory(1)
    memory.reserve(1)
    rolling = windows_of(waves(SIZE * 300, 1))[::SIZE]
    slots = np.zeros(len(rolling), dtype=np.int32)
    for first in range(0, len(rolling), 16):
        batch, of = rolling[first : first + 16], slots[first : first + 16]
        detector.score(batch, memory=memory, slots=of)
        admit = np.ones(len(batch), dtype=np.bool_)
        detector.learn(memory, batch, slots=of, admit=admit, stride=SIZE)
    calm = windows_of(waves(SIZE, 2))
    loud = calm + np.float32(np.random.default_rng(1).normal(0, 1, calm.shape))
    slots = np.zeros(1, dtype=np.int32)
    assert detector.score(calm, memory=memory, slots=slots)[0] < 3
    assert detector.score(loud, memory=memory, slots=slots)[0] > 10
