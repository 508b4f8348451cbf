"""Synthetic series depend on the seed alone, and batches hold what the recipe says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamad.training.synthetic import (
    PoolConfig,
    base_series,
    kernel_bank,
    kernel_paths,
    load_pool,
    mixup,
    pool_path,
    sample_windows,
)

SMALL = PoolConfig(length=320, n_kernels=4, paths_per_kernel=3, n_base=20)


def test_equal_seeds_make_equal_pools_and_others_do_not(tmp_path: Path):
    one = load_pool(SMALL, cache=tmp_path / "a")
    two = load_pool(SMALL, cache=tmp_path / "b")
    other = PoolConfig(seed=1, length=320, n_kernels=4, paths_per_kernel=3, n_base=20)
    assert np.array_equal(one, two)
    assert one.shape == (32, 320)
    assert np.isfinite(one).all()
    assert pool_path(other, cache=tmp_path) != pool_path(SMALL, cache=tmp_path)
    assert not np.array_equal(one, load_pool(other, cache=tmp_path / "c"))


def test_a_pool_is_made_once(tmp_path: Path):
    made: list[int] = []
    load_pool(SMALL, cache=tmp_path, progress=made.append)
    n_calls = len(made)
    load_pool(SMALL, cache=tmp_path, progress=made.append)
    assert made[-1] == 32
    assert len(made) == n_calls


def test_the_bank_holds_the_published_kernels_and_paths_follow_them():
    bank = kernel_bank(64)
    assert len(bank) == 35
    daily = bank[0]()
    assert np.allclose(daily[0, 24], 1)
    assert daily[0, 12] < 0.2
    paths = kernel_paths(bank, n_paths=5, rng=np.random.default_rng(0))
    assert paths.shape == (5, 64)
    assert np.isfinite(paths).all()


def test_base_series_of_many_seeds_are_finite():
    for seed in range(100):
        assert np.isfinite(base_series(128, np.random.default_rng(seed))).all()


def test_mixed_series_and_windows_have_the_shapes_and_gaps_asked_for(tmp_path: Path):
    pool = load_pool(SMALL, cache=tmp_path)
    mixed = mixup(pool, n_series=6, length=100, rng=np.random.default_rng(0))
    assert mixed.shape == (6, 100)
    batch = sample_windows(
        pool, n_windows=32, context_length=128, horizon=16, rng=np.random.default_rng(0)
    )
    assert batch.context.shape == (32, 128)
    assert batch.target.shape == (32, 16)
    assert np.isfinite(batch.target).all()
    assert np.isnan(batch.context).any()
    assert (~np.isnan(batch.context)).sum(axis=1).min() >= 16
    assert np.nanmax(np.abs(batch.context)) <= 12
