"""What a detector promises of the memory it learns into as it goes."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from streamad.detectors.base import Detector, Floats
from streamad.testing.checks.made import (
    equal,
    fitted,
    ints,
    memory_of,
    same,
    stream,
    three_keys,
    windows_of,
)


def check_batch_splits_do_not_matter(cls: type[Detector]) -> None:
    """However a stream is cut into calls, every window of every key has the same score."""
    detector = fitted(cls)
    windows, slots, admit = three_keys(detector.size)
    expected: Floats | None = None
    for seed in range(4):
        memory = memory_of(detector, n_slots=3)
        assert memory is not None
        rng = np.random.default_rng(seed)
        scores = stream(detector, memory, windows, slots, admit=admit, rng=rng if seed else None)
        expected = scores if expected is None else expected
        wrong = int(np.sum(scores != expected))
        assert wrong == 0, f"{wrong} of {len(scores)} scores depend on how calls were cut"


def check_memory_comes_back(cls: type[Detector]) -> None:
    """Memories that left through ``state`` go on as if they had stayed, in other slots too."""
    detector = fitted(cls)
    memory = memory_of(detector, n_slots=3)
    assert memory is not None, "new_memory() gives none any more"
    windows, slots, _ = three_keys(detector.size)
    half = len(windows) // 2
    stream(detector, memory, windows[:half], slots[:half])
    stored = load_tensors(
        save_tensors({n: np.ascontiguousarray(a) for n, a in memory.state(ints([0, 1, 2])).items()})
    )
    other = detector.new_memory(1)
    assert other is not None
    other.reserve(9)
    other.load(ints([7, 2, 5]), stored)
    stayed = stream(detector, memory, windows[half:], slots[half:], n_before=half // 3)
    moved = stream(
        detector, other, windows[half:], ints([7, 2, 5])[slots[half:]], n_before=half // 3
    )
    assert same(stayed, moved), "a restored memory scores differently"


def check_memory_does_not_grow(cls: type[Detector]) -> None:
    """Keys cost what is declared, and no more as their streams get longer."""
    detector = fitted(cls)
    memory = memory_of(detector, n_slots=1)
    assert memory is not None, "new_memory() gives none any more"
    windows = windows_of(detector.size, 500, seed=3)
    sizes = []
    for _ in range(3):
        stream(detector, memory, windows, np.zeros(500, dtype=np.int32))
        sizes.append(sum(array.nbytes for array in memory.state(ints([0])).values()))
    assert len(set(sizes)) == 1, f"the memory of one key grows: {sizes}"
    declared = memory.bytes_per_slot
    assert 0.5 * sizes[0] <= declared <= 2 * sizes[0], f"declares {declared}, holds {sizes[0]}"


def check_a_forgotten_key_is_new(cls: type[Detector]) -> None:
    """Slots that were forgotten hold what fresh ones do."""
    detector = fitted(cls)
    memory, fresh = memory_of(detector, n_slots=2), detector.new_memory(1)
    assert memory is not None, "new_memory() gives none any more"
    assert fresh is not None, "new_memory() gives none any more"
    fresh.reserve(2)
    stream(detector, memory, windows_of(detector.size, 300, seed=3), ints([1] * 300))
    memory.forget(ints([1]))
    left, right = memory.state(ints([1])), fresh.state(ints([1]))
    assert equal(left, right), "a forgotten slot is not empty"


def check_incomplete_windows_may_be_learned_from(cls: type[Detector]) -> None:
    """Windows without any sample, which no one scores, pass ``learn`` and spoil nothing."""
    detector = fitted(cls)
    memory = memory_of(detector, n_slots=1)
    assert memory is not None, "new_memory() gives none any more"
    windows = windows_of(detector.size, 400, seed=3)
    slots = np.zeros(400, dtype=np.int32)
    stream(detector, memory, windows, slots)
    gap = np.full((20, detector.size, 1), np.nan, dtype=np.float32)
    detector.learn(memory, gap, slots=slots[:20], admit=np.zeros(20, dtype=np.bool_))
    scores = stream(detector, memory, windows, slots, n_before=420)
    assert np.isfinite(scores).all(), "missing windows made later scores not finite"
