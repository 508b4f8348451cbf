"""Make series to pretrain signal encoders on, from a seed and nothing else.

Three sources, as published for the Chronos family and ChatTS, in numpy alone:

* *KernelSynth* (Ansari et al. 2024, arXiv 2403.07815, section 4.2): paths of Gaussian processes
  whose kernel is a random sum and product out of a bank. Factorising a kernel is what costs, so
  several paths are drawn from each.
* *Base series* in the manner of ChatTS (Xie et al. 2024, arXiv 2412.03104): trend + season + noise,
  and what telemetry looks like besides: states that switch, counts, rare bursts, levels that drift.
* *TSMixup* (arXiv 2403.07815, section 4.1): convex mixes of one to three scaled series.

`Pool` keeps the first two on disk; `sample_windows` mixes and crops at every training step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Kernel = NDArray[np.float64]

PERIODS: Final = (
    24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 4, 6, 12, 4, 40, 10,
)  # fmt: skip
"""Seasonal periods of KernelSynth's bank, in samples."""

GRID: Final = 1024
"""Samples in KernelSynth's unit interval: kernel lengths are stated relative to it."""

FORMAT: Final = 1
"""Raised whenever the same seed begins to give other series, so that no stale pool is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """What a pool holds; equal configurations give equal pools, value for value."""

    seed: int = 0
    length: int = 768
    n_kernels: int = 1_200
    paths_per_kernel: int = 8
    n_base: int = 14_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBatch:
    """One training batch, already scaled; NaN marks values that are missing.

    ``context`` is float32 ``(n_windows, context_length)``, ``target`` ``(n_windows, horizon)``.
    """

    context: NDArray[np.float32]
    target: NDArray[np.float32]


# KernelSynth -------------------------------------------------------------------------------------


def kernel_bank(length: int) -> list[Callable[[], Kernel]]:
    """Return KernelSynth's bank as functions that each compute one ``(length, length)`` matrix.

    The bank has 35 members: 21 periodic, 3 linear, 3 squared-exponential, 3 rational quadratic,
    2 white, 3 constant ones, so that a draw is as often constant as in the published generator.
    """
    x = np.arange(length, dtype=np.float64) / GRID
    gap = np.abs(x[:, None] - x[None, :])
    product = x[:, None] * x[None, :]

    def periodic(period: float) -> Kernel:
        return np.asarray(np.exp(-2.0 * np.sin(np.pi * gap * GRID / period) ** 2))

    def linear(sigma: float) -> Kernel:
        return np.asarray(product + sigma**2)

    def squared_exponential(scale: float) -> Kernel:
        return np.asarray(np.exp(-0.5 * (gap / scale) ** 2))

    def rational_quadratic(alpha: float) -> Kernel:
        return np.asarray((1.0 + gap**2 / (2.0 * alpha)) ** -alpha)

    def white(level: float) -> Kernel:
        return np.asarray(level * np.eye(length))

    def constant() -> Kernel:
        return np.ones((length, length))

    return [
        *(partial(periodic, float(period)) for period in PERIODS),
        *(partial(linear, sigma) for sigma in (0.0, 1.0, 10.0)),
        *(partial(squared_exponential, scale) for scale in (0.1, 1.0, 10.0)),
        *(partial(rational_quadratic, alpha) for alpha in (0.1, 1.0, 10.0)),
        *(partial(white, level) for level in (0.1, 1.0)),
        *([constant] * 3),
    ]


def kernel_paths(
    bank: list[Callable[[], Kernel]], *, n_paths: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw a random kernel out of ``bank`` and return paths of its prior, ``(n_paths, length)``.

    One to five members are combined from left to right by a random sum or product.
    """
    chosen = [bank[int(i)]() for i in rng.integers(len(bank), size=int(rng.integers(1, 6)))]
    kernel = chosen[0].copy()
    for other in chosen[1:]:
        kernel = kernel + other if rng.random() < 0.5 else kernel * other
    length = kernel.shape[0]
    # Sums of periodic kernels are singular; the jitter is far below what float32 series can show.
    kernel[np.diag_indices(length)] += 1e-6 * float(np.mean(np.diag(kernel))) + 1e-10
    noise = rng.standard_normal((length, n_paths))
    try:
        root = np.linalg.cholesky(kernel)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(kernel)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray((root @ noise).T, dtype=np.float32)


# base series -------------------------------------------------------------------------------------


def _season(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one seasonal wave of random shape and period, amplitude about 1."""
    period = float(np.exp(rng.uniform(np.log(6.0), np.log(320.0))))
    phase = (np.arange(length) / period + rng.random()) % 1.0
    shape = rng.choice(5, p=[0.40, 0.15, 0.10, 0.20, 0.15])
    if shape == 0:
        orders = np.arange(1, 1 + int(rng.integers(1, max(2, min(int(period / 6), 10)) + 1)))
        gains = rng.standard_normal(orders.size) / orders
        shifts = rng.random(orders.size)
        waves = gains[:, None] * np.sin(2 * np.pi * (orders[:, None] * phase + shifts[:, None]))
        return np.asarray(waves.sum(axis=0))
    if shape == 1:
        return np.where(phase < rng.uniform(0.1, 0.9), 1.0, -1.0)
    if shape == 2:
        return np.asarray(2.0 * np.abs(2.0 * phase - 1.0) - 1.0)
    if shape == 3:
        # A beat: one narrow wave a period, as in hearts, cron jobs and batch loads.
        width = rng.uniform(0.01, 0.12)
        beat = np.exp(-0.5 * ((phase - 0.5) / width) ** 2)
        dip = np.exp(-0.5 * ((phase - 0.5 - 2 * width) / width) ** 2)
        return np.asarray(beat - rng.uniform(0, 0.8) * dip)
    template = np.convolve(rng.standard_normal(32), np.hanning(9) / 4.0, mode="same")
    return np.asarray(np.interp(phase * 32, np.arange(33), np.append(template, template[0])))


def _trend(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a slow component: none, a line, segments, steps or a random walk."""
    kind = rng.choice(5, p=[0.35, 0.15, 0.15, 0.20, 0.15])
    size = float(rng.lognormal(0.0, 0.8))
    if kind == 0:
        return np.zeros(length)
    if kind == 1:
        return np.asarray(np.linspace(0.0, size * rng.choice([-1.0, 1.0]), length))
    if kind == 2:
        knots = np.sort(rng.integers(0, length, size=int(rng.integers(1, 5))))
        at = np.concatenate([[0], knots, [length - 1]])
        return np.asarray(np.interp(np.arange(length), at, size * rng.standard_normal(at.size)))
    if kind == 3:
        jumps = np.zeros(length)
        where = rng.integers(0, length, size=int(rng.integers(1, 6)))
        jumps[where] = size * rng.standard_normal(where.size)
        return np.cumsum(jumps)
    return np.asarray(np.cumsum(rng.standard_normal(length)) * size / np.sqrt(length))


def _noise(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise of level 1: white, autoregressive, heavy-tailed or of changing volatility."""
    kind = rng.choice(4, p=[0.4, 0.3, 0.15, 0.15])
    white = rng.standard_normal(length)
    if kind == 0:
        return white
    if kind == 1:
        keep = float(rng.uniform(0.3, 0.98))
        out = np.empty(length)
        last = 0.0
        for t, shock in enumerate(white * np.sqrt(1.0 - keep**2)):
            last = keep * last + shock
            out[t] = last
        return out
    if kind == 2:
        return np.clip(rng.standard_t(3.0, size=length), -20.0, 20.0)
    knots = rng.uniform(0.1, 2.0, size=8)
    return np.asarray(white * np.interp(np.linspace(0, 7, length), np.arange(8), knots))


def _waves(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    out = _trend(length, rng)
    for _ in range(int(rng.choice(4, p=[0.15, 0.45, 0.25, 0.15]))):
        out = out + rng.uniform(0.2, 2.0) * _season(length, rng)
    level = rng.choice([0.0, 0.01, 0.05, 0.10, 0.20, 0.5], p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
    return np.asarray(out + level * _noise(length, rng))


def _states(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Switch among a few levels, as valves, modes and replicas do."""
    levels = rng.standard_normal(int(rng.integers(2, 5)))
    stay = rng.geometric(1.0 / float(np.exp(rng.uniform(np.log(3.0), np.log(150.0)))), size=length)
    sequence = np.repeat(rng.integers(levels.size, size=length), stay)[:length]
    return np.asarray(levels[sequence] + rng.choice([0.0, 0.02, 0.1]) * _noise(length, rng))


def _counts(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Count events whose rate has a season: requests, errors, logins."""
    rate = np.exp(rng.uniform(-1.0, 4.0) + rng.uniform(0.0, 1.0) * _season(length, rng))
    return np.asarray(rng.poisson(np.clip(rate, 0.0, 1e4)), dtype=np.float64)


def _bursts(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Stay quiet, with rare bursts that rise at once and decay."""
    share = float(np.exp(rng.uniform(np.log(0.003), np.log(0.08))))
    hits = (rng.random(length) < share) * rng.lognormal(0.0, 0.7, size=length)
    decay = np.exp(-np.arange(64) / float(np.exp(rng.uniform(-1.0, 2.7))))
    return np.asarray(np.convolve(hits, decay)[:length] + rng.uniform(0, 0.1) * _noise(length, rng))


def _rough(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return _noise(length, rng) + _trend(length, rng)


_FAMILIES: Final = (_waves, _states, _counts, _bursts, _rough)
_FAMILY_SHARE: Final = (0.60, 0.12, 0.10, 0.10, 0.08)


def base_series(length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one series of trend, season, noise and telemetry habits; float32 ``(length,)``."""
    out = _FAMILIES[int(rng.choice(len(_FAMILIES), p=_FAMILY_SHARE))](length, rng)
    if rng.random() < 0.1:
        # Monitoring values are often rounded; an encoder that never saw steps calls them odd.
        step = max(float(np.std(out)), 1e-6) * rng.uniform(0.1, 1.0)
        out = np.round(out / step) * step
    return np.asarray(out, dtype=np.float32)


# pool --------------------------------------------------------------------------------------------


def make_pool(config: PoolConfig) -> Iterator[NDArray[np.float32]]:
    """Yield the pool in a fixed order, in arrays ``(some, length)`` of standardised rows."""
    bank = kernel_bank(config.length)
    for i in range(config.n_kernels):
        rng = np.random.default_rng([config.seed, 1, i])
        yield _standardise(kernel_paths(bank, n_paths=config.paths_per_kernel, rng=rng))
    for start in range(0, config.n_base, 250):
        rngs = (
            np.random.default_rng([config.seed, 2, i])
            for i in range(start, min(start + 250, config.n_base))
        )
        made = [base_series(config.length, rng) for rng in rngs]
        yield _standardise(np.stack(made))


def _standardise(series: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = series - series.mean(axis=1, keepdims=True)
    scale = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(scale > 1e-6, scale, 1.0), dtype=np.float32)


def pool_path(config: PoolConfig, *, cache: Path) -> Path:
    """Name the file a pool of this configuration is kept in."""
    text = json.dumps({"format": FORMAT, **asdict(config)}, sort_keys=True)
    return cache / f"pool-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"


def load_pool(
    config: PoolConfig, *, cache: Path, progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Return the pool, float32 ``(n_series, length)``, memory-mapped; make it on first use.

    ``progress`` is called with the number of series made so far.
    """
    path = pool_path(config, cache=cache)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        parts: list[NDArray[np.float32]] = []
        n_done = 0
        for part in make_pool(config):
            parts.append(part)
            n_done += len(part)
            if progress is not None:
                progress(n_done)
        # A pool half written by a killed run must never be read: write aside, then rename.
        aside = path.with_suffix(".part.npy")
        np.save(aside, np.concatenate(parts), allow_pickle=False)
        aside.replace(path)
    loaded: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


# windows -----------------------------------------------------------------------------------------


def mixup(
    pool: NDArray[np.float32], *, n_series: int, length: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mix one to three crops of the pool, scaled by their mean magnitude; ``(n_series, length)``.

    Weights are drawn from a symmetric Dirichlet distribution of concentration 1.5.
    """
    n_parts = rng.integers(1, 4, size=n_series)
    weights = rng.gamma(1.5, size=(n_series, 3)) * (np.arange(3)[None, :] < n_parts[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    rows = rng.integers(len(pool), size=(n_series, 3))
    starts = rng.integers(pool.shape[1] - length + 1, size=(n_series, 3))
    out = np.zeros((n_series, length), dtype=np.float32)
    for i in range(n_series):
        for j in range(int(n_parts[i])):
            crop = pool[rows[i, j], starts[i, j] : starts[i, j] + length]
            magnitude = float(np.abs(crop).mean())
            out[i] += np.float32(weights[i, j] / max(magnitude, 1e-3)) * crop
    return out


def sample_windows(
    pool: NDArray[np.float32],
    *,
    n_windows: int,
    context_length: int,
    horizon: int,
    rng: np.random.Generator,
) -> WindowBatch:
    """Draw one training batch: mixed, cropped, scaled, with values missing.

    Half of the windows are scaled by their own mean and deviation, as Chronos-Bolt does; the other
    half by those of a longer past of the same series. Thus the encoder also learns windows whose
    level or size is unusual *for their series*: a detector that scales by training statistics shows
    it such windows, and a window's own scale would hide exactly what is to be found.
    """
    past = min(pool.shape[1], 2 * context_length + horizon)
    series = mixup(pool, n_series=n_windows, length=past, rng=rng)
    flips = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(n_windows, 1))
    series *= flips
    context = series[:, past - horizon - context_length : past - horizon].copy()
    target = series[:, past - horizon :].copy()

    shown = rng.integers(2, context_length // 16 + 1, size=n_windows) * 16
    shown[rng.random(n_windows) < 0.4] = context_length
    hidden = np.arange(context_length)[None, :] < (context_length - shown)[:, None]
    context[hidden] = np.nan

    own = rng.random((n_windows, 1)) < 0.5
    loc = np.where(own, np.nanmean(context, axis=1, keepdims=True), series.mean(1, keepdims=True))
    own_scale = np.nanstd(context, axis=1, keepdims=True)
    long_scale = series.std(axis=1, keepdims=True)
    scale = np.where(own, own_scale, np.maximum(long_scale, 0.1 * own_scale))
    scale = np.where(scale > 1e-4, scale, 1.0)
    context = np.clip((context - loc) / scale, -12.0, 12.0).astype(np.float32)
    target = np.clip((target - loc) / scale, -12.0, 12.0).astype(np.float32)

    dropped = rng.uniform(0.0, 0.2, size=(n_windows, 1)) * (rng.random((n_windows, 1)) < 0.5)
    context[rng.random(context.shape) < dropped] = np.nan
    return WindowBatch(context=context, target=target)
