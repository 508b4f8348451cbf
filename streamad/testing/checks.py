"""What every detector promises, as checks to run against your own.

    import pytest
    from streamad.testing.checks import yield_detector_checks

    CHECKS = list(yield_detector_checks(MyDetector))

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_detector_keeps_the_contract(check):
        check(MyDetector)

A check takes the class, makes instances without arguments, and raises AssertionError, with what was
broken, where a promise is not kept. Data is made here, small and from fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from streamad.detectors.base import Arrays, Detector, Floats, Ints, Memory
from streamad.errors import NotFittedError, WindowError

Check = Callable[[type[Detector]], None]

N_TRAINING = 400
"""Windows fitted on, at stride 1."""


def yield_detector_checks(cls: type[Detector]) -> Iterator[Check]:
    """Yield every check that a detector of the signals modality has to pass.

    A check of memories, or of several variates, is for detectors that have them: where it could
    assert nothing it is not yielded.
    """
    yield check_it_declares_itself
    yield check_one_finite_float32_a_window
    yield check_score_does_not_learn
    yield check_input_is_left_untouched
    yield check_a_batch_equals_one_by_one
    yield check_a_planted_spike_ranks_first
    yield check_a_planted_level_shift_ranks_first
    yield check_unfitted_says_so
    yield check_state_comes_back_through_safetensors
    yield check_equal_fits_are_equal
    yield check_missing_samples_are_scored_or_refused
    yield check_infinite_samples_are_refused
    yield check_constant_series_are_scored
    yield check_odd_shapes_are_scored_or_refused
    yield check_sizes_have_a_lower_bound
    yield check_explanations_add_up
    yield check_groups_may_differ_in_scale
    if cls.info.multivariate:
        yield check_the_strange_variate_is_named
    if cls().new_memory(1) is not None:
        yield check_batch_splits_do_not_matter
        yield check_memory_comes_back
        yield check_memory_does_not_grow
        yield check_a_forgotten_key_is_new
        yield check_incomplete_windows_may_be_learned_from


def check_it_declares_itself(cls: type[Detector]) -> None:
    """Its declaration is complete and consistent."""
    info = cls.info
    assert info.name, "info.name is empty"
    assert info.summary, "info.summary is empty"
    assert np.isfinite(info.tail).all(), "info.tail must be finite"
    assert (np.diff(info.tail) > 0).all(), "info.tail must rise: rarer is stranger"
    assert 0 <= info.nan_ok < 1, "info.nan_ok is a share of samples below 1"
    assert 0 <= cls().lag < cls().size, "the judged sample must lie in the window"
    has_memory = cls().new_memory(1) is not None
    assert has_memory or not info.learns, "info.learns needs new_memory()"
    assert info.learn_every > 0 or not has_memory, "a memory needs info.learn_every"


def check_one_finite_float32_a_window(cls: type[Detector]) -> None:
    """``score`` returns float32 ``(n_windows,)`` without NaN or infinity."""
    detector = _fitted(cls)
    scores = detector.score(_windows(detector.size, 50, seed=1))
    assert scores.dtype == np.float32, f"scores are {scores.dtype}, not float32"
    assert scores.shape == (50,), f"50 windows gave scores of shape {scores.shape}"
    assert np.isfinite(scores).all(), "a score is not finite"


def check_score_does_not_learn(cls: type[Detector]) -> None:
    """Scoring and explaining leave the detector, and its memory, as they were."""
    detector = _fitted(cls)
    windows, strange = _windows(detector.size, 30, seed=1), _windows(detector.size, 30, seed=2) * 9
    before, first = _copied(detector.state()), detector.score(windows)
    detector.score(strange)
    detector.explain(strange)
    assert _same(first, detector.score(windows)), "scoring changed later scores"
    assert _equal(before, detector.state()), "scoring changed the state"
    memory = _new_memory(detector, n_slots=1)
    if memory is None:
        return
    slots = np.zeros(30, dtype=np.int32)
    _stream(detector, memory, _windows(detector.size, 600, seed=3), np.zeros(600, dtype=np.int32))
    held = _copied(memory.state(slots[:1]))
    detector.score(strange, memory=memory, slots=slots)
    detector.explain(strange, memory=memory, slots=slots)
    assert _equal(held, memory.state(slots[:1])), "scoring changed the memory"


def check_input_is_left_untouched(cls: type[Detector]) -> None:
    """No call writes to the windows it is given."""
    detector = cls()
    training = _windows(detector.size, N_TRAINING, seed=0)
    windows = _windows(detector.size, 20, seed=1)
    kept = training.copy(), windows.copy()
    for array in (training, windows):
        array.flags.writeable = False
    detector.fit(training)
    detector.score(windows)
    detector.explain(windows)
    memory = _new_memory(detector, n_slots=1)
    if memory is not None:
        _stream(detector, memory, windows, np.zeros(20, dtype=np.int32))
    assert _same(training, kept[0]), "fit changed its input"
    assert _same(windows, kept[1]), "score, explain or learn changed its input"


def check_a_batch_equals_one_by_one(cls: type[Detector]) -> None:
    """Scores are the same, bit for bit, alone, in a batch and in another order."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 70, seed=4)
    windows[::7] *= 3
    whole = detector.score(windows)
    alone = np.concatenate([detector.score(windows[i : i + 1]) for i in range(len(windows))])
    assert _same(whole, alone), "windows alone have other scores than in a batch"
    assert _same(whole[::-1], detector.score(windows[::-1].copy())), "their order matters"
    strided = np.repeat(windows, 2, axis=0)[::2]
    assert _same(whole, detector.score(strided)), "a strided array has other scores"


def check_a_planted_spike_ranks_first(cls: type[Detector]) -> None:
    """Of many ordinary windows and one with a spike at its judged sample, the latter is first."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 60, seed=5)
    windows[37, detector.size - 1 - detector.lag] += 10
    assert int(np.argmax(detector.score(windows))) == 37, "a spike of ten scales is not the top"


def check_a_planted_level_shift_ranks_first(cls: type[Detector]) -> None:
    """Of many ordinary windows and one whose level changes at its judged sample, so is this."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 60, seed=6)
    windows[11, detector.size - 1 - detector.lag :] += 6
    assert int(np.argmax(detector.score(windows))) == 11, "a level shift is not the top"


def check_unfitted_says_so(cls: type[Detector]) -> None:
    """Without training, and without memory, a detector that needs one raises NotFittedError."""
    detector = cls()
    windows = _windows(detector.size, 5, seed=1)
    try:
        scores = detector.score(windows)
    except NotFittedError:
        return
    assert not detector.info.needs_training, "an unfitted detector must raise NotFittedError"
    assert np.isfinite(scores).all(), "an unfitted detector returned a score that is not finite"


def check_state_comes_back_through_safetensors(cls: type[Detector]) -> None:
    """``state`` is named arrays of plain kinds; a new detector that loads them scores the same."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 30, seed=1)
    state = detector.state()
    assert state or not detector.info.needs_training, "a fitted detector has no state"
    for name, array in state.items():
        assert isinstance(array, np.ndarray), f"{name} is not an array"
        assert array.dtype.kind in "fiub", f"{name} is {array.dtype}, which safetensors cannot hold"
    stored = load_tensors(save_tensors({n: np.ascontiguousarray(a) for n, a in state.items()}))
    other = cls().load(stored)
    assert _same(detector.score(windows), other.score(windows)), "a loaded detector scores else"
    assert _equal(state, other.state()), "state changed on the way"


def check_equal_fits_are_equal(cls: type[Detector]) -> None:
    """Two fits on the same windows give the same state and scores."""
    one, other = _fitted(cls), _fitted(cls)
    windows = _windows(one.size, 30, seed=1)
    assert _equal(one.state(), other.state()), "two fits on the same windows differ"
    assert _same(one.score(windows), other.score(windows)), "two equal fits score differently"


def check_missing_samples_are_scored_or_refused(cls: type[Detector]) -> None:
    """Up to ``nan_ok`` a score is finite; beyond it a WindowError says so."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 3, seed=1)
    n_ok = int(detector.info.nan_ok * detector.size)
    rows = np.random.default_rng(0).permutation(detector.size)
    windows[1, rows[:n_ok]] = np.nan
    assert np.isfinite(detector.score(windows)).all(), "missing samples gave no finite score"
    windows[1] = windows[2]
    windows[1, detector.size - n_ok :] = np.nan
    assert np.isfinite(detector.score(windows)).all(), "missing newest samples: no finite score"
    windows[1, : n_ok + 1] = np.nan
    _refuses(detector, windows, "more missing samples than info.nan_ok")


def check_infinite_samples_are_refused(cls: type[Detector]) -> None:
    """Infinite samples raise WindowError."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 3, seed=1)
    windows[1, 3] = np.inf
    _refuses(detector, windows, "an infinite sample")


def check_constant_series_are_scored(cls: type[Detector]) -> None:
    """Fitted on constants or not, constant and huge windows have finite scores."""
    size = cls().size
    for level in (0.0, 7.0, -1e6):
        flat = np.full((50, size, 1), level, dtype=np.float32)
        detector = cls().fit(flat)
        windows = np.concatenate([flat[:2], flat[:2] + 1, _windows(size, 2, seed=1)])
        windows[1, size // 2] += 1
        windows[3] *= np.float32(1e20)
        scores = detector.score(windows)
        assert np.isfinite(scores).all(), f"fitted on a constant {level}: {scores}"
        assert np.isfinite(detector.explain(windows).share).all(), "shares are not finite"
    assert np.isfinite(_fitted(cls).score(windows)).all(), "a constant window has no finite score"


def check_odd_shapes_are_scored_or_refused(cls: type[Detector]) -> None:
    """Empty and single batches are scored; wrong lengths, kinds and axes raise WindowError."""
    detector = _fitted(cls)
    windows = _windows(detector.size, 4, seed=1)
    empty = detector.score(windows[:0])
    assert empty.shape == (0,), f"no windows gave scores of shape {empty.shape}"
    assert empty.dtype == np.float32, f"no windows gave {empty.dtype}"
    assert detector.score(windows[:1]).shape == (1,), "one window must give one score"
    assert detector.explain(windows[:0]).share.shape == (0, 1), "explain fails on no windows"
    _refuses(detector, windows[:, 1:].copy(), "windows that are too short")
    _refuses(detector, np.concatenate([windows, windows], axis=1), "windows that are too long")
    _refuses(detector, windows.astype(np.float64), "float64 windows")
    _refuses(detector, windows[:, :, 0].copy(), "windows without an axis of variates")


def check_sizes_have_a_lower_bound(cls: type[Detector]) -> None:
    """Sizes from the smallest declared one on work, a smaller one raises WindowError."""
    smallest = cls.info.min_size
    detector = cls(size=smallest).fit(_windows(smallest, N_TRAINING, seed=0))
    assert np.isfinite(detector.score(_windows(smallest, 5, seed=1))).all(), "info.min_size fails"
    try:
        cls(size=smallest - 1)
    except WindowError:
        return
    msg = "a size below info.min_size must raise WindowError"
    raise AssertionError(msg)


def check_explanations_add_up(cls: type[Detector]) -> None:
    """Shares are not negative and sum to 1; the judged sample is in the window, and quoted."""
    detector = _fitted(cls, n_variates=3 if cls.info.multivariate else 1)
    n_variates = 3 if cls.info.multivariate else 1
    windows = _windows(detector.size, 20, seed=7, n_variates=n_variates)
    windows[4, -detector.size // 2 :] += 5
    told = detector.explain(windows)
    for name in ("observed", "expected", "share"):
        array = getattr(told, name)
        assert array.shape == (20, n_variates), f"{name} has the shape {array.shape}"
        assert array.dtype == np.float32, f"{name} is {array.dtype}"
        assert np.isfinite(array).all(), f"{name} is not finite"
    assert told.position.dtype == np.int32, f"position is {told.position.dtype}"
    assert ((told.position >= 0) & (told.position < detector.size)).all(), "position is outside"
    assert (told.share >= 0).all(), "a share is negative"
    assert np.allclose(told.share.sum(axis=1), 1, atol=1e-4), "shares do not sum to 1"
    quoted = windows[np.arange(20), told.position]
    assert _same(told.observed, quoted), "observed is not the sample at position"


def check_the_strange_variate_is_named(cls: type[Detector]) -> None:
    """Spikes in one variate of three give that variate the largest share."""
    detector = _fitted(cls, n_variates=3)
    windows = _windows(detector.size, 3, seed=8, n_variates=3)
    for variate in range(3):
        windows[variate, detector.size - 1 - detector.lag, variate] += 15
    named = detector.explain(windows).share.argmax(axis=1)
    assert named.tolist() == [0, 1, 2], f"spikes in variates 0, 1, 2 were laid on {named}"


def check_groups_may_differ_in_scale(cls: type[Detector]) -> None:
    """Series of very different level and scale can be fitted together; keys take their group's."""
    detector = cls()
    small = _windows(detector.size, 200, seed=0)
    large = _windows(detector.size, 200, seed=1) * np.float32(1e5) + np.float32(1e6)
    groups = np.repeat(np.arange(2, dtype=np.int32), 200)
    detector.fit(np.concatenate([small, large]), groups=groups)
    windows = np.concatenate([small[-5:], large[-5:]])
    slots = np.repeat(np.arange(2, dtype=np.int32), 5)
    memory = _new_memory(detector, n_slots=2)
    spiked = windows.copy()
    spiked[[2, 7], detector.size - 1 - detector.lag] += np.array([[10.0], [1e6]], dtype=np.float32)
    calm = detector.score(windows, memory=memory, slots=slots)
    strange = detector.score(spiked, memory=memory, slots=slots)
    assert np.isfinite(calm).all(), "several groups gave a score that is not finite"
    assert (strange[[2, 7]] > calm[[2, 7]]).all(), "a spike is lost where groups differ in scale"


def check_batch_splits_do_not_matter(cls: type[Detector]) -> None:
    """However a stream is cut into calls, every window of every key has the same score."""
    detector = _fitted(cls)
    windows, slots, admit = _three_keys(detector.size)
    expected: Floats | None = None
    for seed in range(4):
        memory = _new_memory(detector, n_slots=3)
        assert memory is not None
        rng = np.random.default_rng(seed)
        scores = _stream(detector, memory, windows, slots, admit=admit, rng=rng if seed else None)
        expected = scores if expected is None else expected
        wrong = int(np.sum(scores != expected))
        assert wrong == 0, f"{wrong} of {len(scores)} scores depend on how calls were cut"


def check_memory_comes_back(cls: type[Detector]) -> None:
    """Memories that left through ``state`` go on as if they had stayed, in other slots too."""
    detector = _fitted(cls)
    memory = _new_memory(detector, n_slots=3)
    assert memory is not None, "new_memory() gives none any more"
    windows, slots, _ = _three_keys(detector.size)
    half = len(windows) // 2
    _stream(detector, memory, windows[:half], slots[:half])
    stored = load_tensors(
        save_tensors(
            {n: np.ascontiguousarray(a) for n, a in memory.state(_ints([0, 1, 2])).items()}
        )
    )
    other = detector.new_memory(1)
    assert other is not None
    other.reserve(9)
    other.load(_ints([7, 2, 5]), stored)
    stayed = _stream(detector, memory, windows[half:], slots[half:], n_before=half // 3)
    moved = _stream(
        detector, other, windows[half:], _ints([7, 2, 5])[slots[half:]], n_before=half // 3
    )
    assert _same(stayed, moved), "a restored memory scores differently"


def check_memory_does_not_grow(cls: type[Detector]) -> None:
    """Keys cost what is declared, and no more as their streams get longer."""
    detector = _fitted(cls)
    memory = _new_memory(detector, n_slots=1)
    assert memory is not None, "new_memory() gives none any more"
    windows = _windows(detector.size, 500, seed=3)
    sizes = []
    for _ in range(3):
        _stream(detector, memory, windows, np.zeros(500, dtype=np.int32))
        sizes.append(sum(array.nbytes for array in memory.state(_ints([0])).values()))
    assert len(set(sizes)) == 1, f"the memory of one key grows: {sizes}"
    declared = memory.bytes_per_slot
    assert 0.5 * sizes[0] <= declared <= 2 * sizes[0], f"declares {declared}, holds {sizes[0]}"


def check_a_forgotten_key_is_new(cls: type[Detector]) -> None:
    """Slots that were forgotten hold what fresh ones do."""
    detector = _fitted(cls)
    memory, fresh = _new_memory(detector, n_slots=2), detector.new_memory(1)
    assert memory is not None, "new_memory() gives none any more"
    assert fresh is not None, "new_memory() gives none any more"
    fresh.reserve(2)
    _stream(detector, memory, _windows(detector.size, 300, seed=3), _ints([1] * 300))
    memory.forget(_ints([1]))
    left, right = memory.state(_ints([1])), fresh.state(_ints([1]))
    assert _equal(left, right), "a forgotten slot is not empty"


def check_incomplete_windows_may_be_learned_from(cls: type[Detector]) -> None:
    """Windows without any sample, which no one scores, pass ``learn`` and spoil nothing."""
    detector = _fitted(cls)
    memory = _new_memory(detector, n_slots=1)
    assert memory is not None, "new_memory() gives none any more"
    windows = _windows(detector.size, 400, seed=3)
    slots = np.zeros(400, dtype=np.int32)
    _stream(detector, memory, windows, slots)
    gap = np.full((20, detector.size, 1), np.nan, dtype=np.float32)
    detector.learn(memory, gap, slots=slots[:20], admit=np.zeros(20, dtype=np.bool_))
    scores = _stream(detector, memory, windows, slots, n_before=420)
    assert np.isfinite(scores).all(), "missing windows made later scores not finite"


def _series(n: int, seed: int, n_variates: int = 1) -> Floats:
    """Return a noisy wave of scale 1 and period 25, ``(n, n_variates)``."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 25) + np.arange(n)[:, None] + 4 * np.arange(n_variates)
    wave = np.sin(2 * np.pi * phase / 25) + 0.1 * rng.normal(size=(n, n_variates))
    series: Floats = wave.astype(np.float32)
    return series


def _windows(size: int, n: int, seed: int, n_variates: int = 1) -> Floats:
    series = _series(n + size - 1, seed, n_variates)
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def _fitted(cls: type[Detector], n_variates: int = 1) -> Detector:
    detector = cls()
    return detector.fit(_windows(detector.size, N_TRAINING, seed=0, n_variates=n_variates))


def _new_memory(detector: Detector, *, n_slots: int) -> Memory | None:
    memory = detector.new_memory(1)
    if memory is not None:
        memory.reserve(n_slots)
        for slot in range(n_slots):
            detector.seed_memory(memory, slot=slot, group=slot)
    return memory


def _three_keys(size: int) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """Return the interleaved windows of three keys, and a stretch that is not admitted."""
    keys = [_windows(size, 500, seed=s) * (1 + s) for s in range(3)]
    windows = np.stack(keys, axis=1).reshape(-1, size, 1)
    windows[700:760] += 4
    admit = np.ones(len(windows), dtype=np.bool_)
    admit[600:860] = False
    return windows, np.tile(_ints([0, 1, 2]), 500), admit


def _stream(  # noqa: PLR0913, PLR0917 a driver of all there is
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


def _refuses(detector: Detector, windows: Floats | NDArray[np.float64], what: str) -> None:
    try:
        detector.score(windows)  # type: ignore[arg-type]
    except WindowError:
        return
    msg = f"{what} must raise WindowError"
    raise AssertionError(msg)


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int32)


def _copied(state: Arrays) -> Arrays:
    return {name: array.copy() for name, array in state.items()}


def _equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    """Say whether two arrays hold the same bits (missing values are equal)."""
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    )
