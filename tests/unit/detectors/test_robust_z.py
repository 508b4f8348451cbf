import numpy as np
import pytest

from streamad.detectors.robust_z import RobustZ


def literal(series):
    """Distance of the newest sample from the median in floored MADs, of one series."""
    present = series[~np.isnan(series)].astype(np.float64)
    middle = np.median(present)
    apart = np.sort(np.abs(present - middle))
    mad = apart[len(apart) // 2]
    scale = max(1.4826 * mad, 1e-3 * apart[-1], 1e-4 * abs(middle), 1e-12)
    return abs(present[-1] - middle) / scale


@pytest.mark.parametrize("size", [4, 5, 31, 32, 64, 125])
def test_any_length_and_missing_samples(size):
    rng = np.random.default_rng(size)
    windows = rng.normal(5, 2, size=(90, size, 2)).astype(np.float32)
    windows[rng.random(windows.shape) < 0.2] = np.nan
    windows[:, 0] = 1
    windows = windows[np.isnan(windows).mean(axis=(1, 2)) <= 0.5]
    expected = [max(literal(window[:, v]) for v in range(2)) for window in windows]
    np.testing.assert_allclose(RobustZ(size=size).score(windows), expected, rtol=1e-4)


def test_a_constant_is_ordinary_and_leaving_it_is_far_out_but_finite():
    windows = np.full((3, 64, 1), 20.0, dtype=np.float32)
    windows[1, -1] = 20.5
    windows[2, -1] = 1e30
    np.testing.assert_allclose(RobustZ().score(windows), [0, 250, 1000], rtol=1e-3)


def test_a_variate_without_samples_takes_no_part():
    windows = np.ones((1, 8, 2), dtype=np.float32)
    windows[0, -1, 0] = 2
    windows[0, :, 1] = np.nan
    detector = RobustZ(size=8)
    assert detector.score(windows)[0] == pytest.approx(1000)
    assert detector.explain(windows).share.tolist() == [[1.0, 0.0]]
    assert detector.explain(windows).observed[0, 0] == 2
    assert detector.explain(windows).expected[0, 0] == 1
