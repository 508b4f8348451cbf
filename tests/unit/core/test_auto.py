"""Statistics of windows, and several detectors fused."""

import numpy as np
import pytest

from streamad.detectors.auto import Auto
from streamad.detectors.features import FeatureKNN
from streamad.detectors.knn import FusedKNN
from streamad.detectors.roughness import RoughnessKNN
from streamad.errors import ArtifactError, ConfigError

SIZE = 64


def windows_of(series, size=SIZE):
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def noise(n, seed, n_variates=1):
    return np.random.default_rng(seed).normal(size=(n, n_variates)).astype(np.float32)


def smooth_noise(n, seed):
    """Noise of the same level and spread, with a memory: no value and no window stands out."""
    steps = np.random.default_rng(seed).normal(size=n + 200)
    values = np.convolve(steps, 0.8 ** np.arange(40), mode="valid")[:n]
    return (values / values.std()).astype(np.float32)[:, None]


def test_statistics_see_a_change_of_kind_that_raw_windows_do_not():
    training = windows_of(noise(1500, 0))
    usual, changed = windows_of(noise(300, 1)), windows_of(smooth_noise(300, 2))
    features, raw = FeatureKNN(size=SIZE).fit(training), FusedKNN(size=SIZE).fit(training)
    assert np.median(features.score(changed)) > 1.5 * np.quantile(features.score(usual), 0.95)
    assert np.median(raw.score(changed)) < np.quantile(raw.score(usual), 0.95)


def test_the_fused_score_is_the_product_of_what_its_members_give():
    training, windows = windows_of(noise(600, 0)), windows_of(noise(100, 1))
    weights = {"knn_fused": 1.0, "knn_features": 0.25}
    auto = Auto(size=SIZE, members=weights).fit(training)
    members = (FusedKNN(size=SIZE).fit(training), FeatureKNN(size=SIZE).fit(training))
    raw, features = (member.score(windows).astype(float) for member in members)
    expected = (1 + raw) * (1 + features) ** weights["knn_features"] - 1
    np.testing.assert_allclose(auto.looks(windows)[:, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(auto.looks(windows)[:, 1], members[0].looks(windows)[:, 1])


@pytest.mark.parametrize("size", [16, 32, SIZE])
def test_by_default_raw_windows_and_their_roughness_count_evenly(size):
    training, windows = windows_of(noise(600, 0), size), windows_of(noise(100, 1), size)
    raw = FusedKNN(size=size).fit(training).score(windows).astype(float)
    rough = RoughnessKNN(size=size).fit(training).score(windows).astype(float)
    fused = Auto(size=size).fit(training).score(windows)
    np.testing.assert_allclose(fused, ((1 + raw) * (1 + rough)) ** 0.625 - 1, rtol=1e-5, atol=1e-6)


def test_the_guilty_variate_has_the_largest_share():
    series = noise(900, 0, 4)
    members = {"knn_fused": 1.0, "knn_features": 0.25}
    auto = Auto(size=SIZE, members=members).fit(windows_of(series))
    coming = noise(110, 3, 4)
    coming[:, 2] = smooth_noise(110, 4)[:, 0]
    share = auto.explain(windows_of(coming)).share
    assert (share.argmax(axis=1) == 2).mean() > 0.8


def test_misuse_of_members_is_told_in_words():
    training = windows_of(noise(300, 0))
    with pytest.raises(ConfigError, match="does not score in spreads"):
        Auto(members={"robust_z": 1.0})
    with pytest.raises(ConfigError, match="does not score in spreads"):
        Auto(members={"auto": 1.0})
    with pytest.raises(ConfigError, match="weight of member knn"):
        Auto(members={"knn": 0})
    with pytest.raises(ConfigError, match="1 to 8 members, got 0"):
        Auto(members={})
    alone = Auto(size=SIZE, members={"knn_fused": 1.0}).fit(training)
    with pytest.raises(ArtifactError, match="none called knn_roughness"):
        Auto(size=SIZE).load(alone.state())


def test_the_member_with_the_evidence_explains_a_window():
    series = np.sin(np.arange(2000) / 7)[:, None] + 0.05 * noise(2000, 0)
    fitted = Auto(size=SIZE).fit(windows_of(series.astype(np.float32)))
    raw = FusedKNN(size=SIZE).fit(windows_of(series.astype(np.float32)))
    coming = np.sin(np.arange(SIZE) / 7)[:, None] + 0.05 * noise(SIZE, 1)
    calm = windows_of(coming.astype(np.float32))
    spike, coarse = calm.copy(), calm.copy()
    spike[0, SIZE // 2] += 5
    coarse[0, 8:56] = np.round(4 * coarse[0, 8:56]) / 4  # each value is usual, not how it moves
    why = fitted.explain(np.concatenate([spike, coarse]))
    theirs = raw.explain(spike)
    assert why.observed[0, 0] == theirs.observed[0, 0] == spike[0, SIZE // 2, 0]
    assert why.expected[0, 0] == theirs.expected[0, 0]
    assert why.note[0] == ""
    assert "times as much as usual from sample to sample" in why.note[1]
    assert 8 <= why.position[1] < 60
