import numpy as np
import pytest

from streamad.windows.period import choose_size, period_of


def wave(period, n=2000, noise=0.0):
    return np.sin(2 * np.pi * np.arange(n) / period) + np.random.default_rng(0).normal(0, noise, n)


@pytest.mark.parametrize("period", [5, 24, 60, 288])
@pytest.mark.parametrize("noise", [0, 0.5])
def test_the_period_of_a_wave_is_found(period, noise):
    assert period_of(wave(period, noise=noise)) == pytest.approx(period, abs=max(1, period // 40))


def test_what_has_no_period_has_none():
    walk = np.cumsum(np.random.default_rng(1).normal(size=2000))
    noise = np.random.default_rng(0).normal(size=2000)
    assert period_of(noise) == 0
    assert choose_size([noise], default=64) == 64
    assert 32 <= choose_size([walk], default=64) <= 125
    assert period_of(np.ones(100)) == 0
    assert period_of(np.full(100, np.nan)) == 0
    assert period_of(np.zeros(2)) == 0


def test_missing_samples_do_not_hide_a_period():
    values = wave(40)
    values[::7] = np.nan
    assert period_of(values) == 40


@pytest.mark.parametrize(
    ("period", "n", "size"), [(50, 2000, 50), (10, 2000, 32), (288, 2000, 125), (50, 320, 40)]
)
def test_the_size_keeps_its_bounds(period, n, size):
    assert choose_size([wave(period, n)], default=64) == size


def test_many_series_agree_on_their_median_period():
    series = [wave(40), wave(60)[:, None], wave(100), np.ones(500)]
    assert choose_size(series, default=64) == 60
    assert choose_size([], default=64) == 3
    assert choose_size([wave(50, 60)], default=64, n_rows=4000) in range(32, 65)
