"""Data of the checks, small and from fixed seeds, and what they compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import Arrays, Detector, Floats, Ints, Memory

N_TRAINING = 400
"""Windows fitted on, at stride 1."""


def _series(n: int, seed: int, n_variates: int = 1) -> Floats:
    """Return a noisy wave of scale 1 and period 25, ``(n, n_variates)``."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 25) + np.arange(n)[:, None] + 4 * np.arange(n_variates)
    wave = np.sin(2 * np.pi * phase / 25) + 0.1 * rng.normal(size=(n, n_variates))
    series: Floats = wave.astype(np.float32)
    return series


def windows_of(size: int, n: int, seed: int, n_variates: int = 1) -> Floats:
    """Return the windows of such a wave, at stride 1."""
    series = _series(n + size - 1, seed, n_variates)
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def fitted(cls: type[Detector], n_variates: int = 1) -> Detector:
    """Return a detector that was fitted."""
    detector = cls()
    return detector.fit(windows_of(detector.size, N_TRAINING, seed=0, n_variates=n_variates))


def memory_of(detector: Detector, *, n_slots: int) -> Memory | None:
    """Return a memory with so many keys, None where the detector has none."""
    memory = detector.new_memory(1)
    if memory is not None:
        memory.reserve(n_slots)
        for slot in range(n_slots):
            detector.seed_memory(memory, slot=slot, group=slot)
    return memory


def three_keys(size: int) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """Return the interleaved windows of three keys, and a stretch that is not admitted."""
    keys = [windows_of(size, 500, seed=s) * (1 + s) for s in range(3)]
    windows = np.stack(keys, axis=1).reshape(-1, size, 1)
    windows[700:760] += 4
    admit = np.ones(len(windows), dtype=np.bool_)
    admit[600:860] = False
    return windows, np.tile(ints([0, 1, 2]), 500), admit


def stream(  # noqa: PLR0913, PLR0917 a driver of all there is
    detector: Detector,
    memory: Memory,
    windows: Floats,
    slots: Ints,
    admit: NDArray[np.bool_] | None = None,
    rng: np.random.Generator | None = None,
    n_before: int = 0,
) -> Floats:
    """Score and learn in order, in calls that end where a key's memory may change, or sooner.

    ``n_before`` is how many windows each key has seen already. With ``rng`` calls are cut further,
    at random.
    """
    n_seen = dict.fromkeys(slots.tolist(), n_before)
    every = detector.info.learn_every
    scores = np.empty(len(windows), dtype=np.float32)
    start = 0
    while start < len(windows):
        stop = start
        most = len(windows) if rng is None else int(rng.integers(1, 40))
        while stop < len(windows) and stop - start < most:
            slot = int(slots[stop])
            n_seen[slot] += 1
            stop += 1
            if n_seen[slot] % every == 0:
                break
        part = slice(start, stop)
        scores[part] = detector.score(windows[part], memory=memory, slots=slots[part])
        admitted = np.ones(stop - start, dtype=np.bool_) if admit is None else admit[part]
        detector.learn(memory, windows[part], slots=slots[part], admit=admitted)
        start = stop
    return scores


def ints(values: list[int]) -> Ints:
    """Return slots as an array."""
    return np.array(values, dtype=np.int32)


def copied(state: Arrays) -> Arrays:
    """Return a state that nothing else refers to."""
    return {name: array.copy() for name, array in state.items()}


def equal(one: Arrays, other: Arrays) -> bool:
    """Say whether two states hold the same bits."""
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Say whether two arrays hold the same bits (missing values are equal)."""
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    )
