"""What every detector promises of its scores, explanations and state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from streamad.detectors.base import Detector, Floats
from streamad.errors import NotFittedError, WindowError
from streamad.testing.checks.made import (
    N_TRAINING,
    copied,
    equal,
    fitted,
    memory_of,
    same,
    stream,
    windows_of,
)


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
    detector = fitted(cls)
    scores = detector.score(windows_of(detector.size, 50, seed=1))
    assert scores.dtype == np.float32, f"scores are {scores.dtype}, not float32"
    assert scores.shape == (50,), f"50 windows gave scores of shape {scores.shape}"
    assert np.isfinite(scores).all(), "a score is not finite"


def check_score_does_not_learn(cls: type[Detector]) -> None:
    """Scoring and explaining leave the detector, and its memory, as they were."""
    detector = fitted(cls)
    windows, strange = (
        windows_of(detector.size, 30, seed=1),
        windows_of(detector.size, 30, seed=2) * 9,
    )
    before, first = copied(detector.state()), detector.score(windows)
    detector.score(strange)
    detector.explain(strange)
    assert same(first, detector.score(windows)), "scoring changed later scores"
    assert equal(before, detector.state()), "scoring changed the state"
    memory = memory_of(detector, n_slots=1)
    if memory is None:
        return
    slots = np.zeros(30, dtype=np.int32)
    stream(detector, memory, windows_of(detector.size, 600, seed=3), np.zeros(600, dtype=np.int32))
    held = copied(memory.state(slots[:1]))
    detector.score(strange, memory=memory, slots=slots)
    detector.explain(strange, memory=memory, slots=slots)
    assert equal(held, memory.state(slots[:1])), "scoring changed the memory"


def check_input_is_left_untouched(cls: type[Detector]) -> None:
    """No call writes to the windows it is given."""
    detector = cls()
    training = windows_of(detector.size, N_TRAINING, seed=0)
    windows = windows_of(detector.size, 20, seed=1)
    kept = training.copy(), windows.copy()
    for array in (training, windows):
        array.flags.writeable = False
    detector.fit(training)
    detector.score(windows)
    detector.explain(windows)
    memory = memory_of(detector, n_slots=1)
    if memory is not None:
        stream(detector, memory, windows, np.zeros(20, dtype=np.int32))
    assert same(training, kept[0]), "fit changed its input"
    assert same(windows, kept[1]), "score, explain or learn changed its input"


def check_a_batch_equals_one_by_one(cls: type[Detector]) -> None:
    """Scores are the same, bit for bit, alone, in a batch and in another order."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 70, seed=4)
    windows[::7] *= 3
    whole = detector.score(windows)
    alone = np.concatenate([detector.score(windows[i : i + 1]) for i in range(len(windows))])
    assert same(whole, alone), "windows alone have other scores than in a batch"
    assert same(whole[::-1], detector.score(windows[::-1].copy())), "their order matters"
    strided = np.repeat(windows, 2, axis=0)[::2]
    assert same(whole, detector.score(strided)), "a strided array has other scores"


def check_a_planted_spike_ranks_first(cls: type[Detector]) -> None:
    """Of many ordinary windows and one with a spike at its judged sample, the latter is first."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 60, seed=5)
    windows[37, detector.size - 1 - detector.lag] += 10
    assert int(np.argmax(detector.score(windows))) == 37, "a spike of ten scales is not the top"


def check_a_planted_level_shift_ranks_first(cls: type[Detector]) -> None:
    """Of many ordinary windows and one whose level changes at its judged sample, so is this."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 60, seed=6)
    windows[11, detector.size - 1 - detector.lag :] += 6
    assert int(np.argmax(detector.score(windows))) == 11, "a level shift is not the top"


def check_unfitted_says_so(cls: type[Detector]) -> None:
    """Without training, and without memory, a detector that needs one raises NotFittedError."""
    detector = cls()
    windows = windows_of(detector.size, 5, seed=1)
    try:
        scores = detector.score(windows)
    except NotFittedError:
        return
    assert not detector.info.needs_training, "an unfitted detector must raise NotFittedError"
    assert np.isfinite(scores).all(), "an unfitted detector returned a score that is not finite"


def check_state_comes_back_through_safetensors(cls: type[Detector]) -> None:
    """``state`` is named arrays of plain kinds; a new detector that loads them scores the same."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 30, seed=1)
    state = detector.state()
    assert state or not detector.info.needs_training, "a fitted detector has no state"
    for name, array in state.items():
        assert isinstance(array, np.ndarray), f"{name} is not an array"
        assert array.dtype.kind in "fiub", f"{name} is {array.dtype}, which safetensors cannot hold"
    stored = load_tensors(save_tensors({n: np.ascontiguousarray(a) for n, a in state.items()}))
    other = cls().load(stored)
    assert same(detector.score(windows), other.score(windows)), "a loaded detector scores else"
    assert equal(state, other.state()), "state changed on the way"


def check_equal_fits_are_equal(cls: type[Detector]) -> None:
    """Two fits on the same windows give the same state and scores."""
    one, other = fitted(cls), fitted(cls)
    windows = windows_of(one.size, 30, seed=1)
    assert equal(one.state(), other.state()), "two fits on the same windows differ"
    assert same(one.score(windows), other.score(windows)), "two equal fits score differently"


def check_missing_samples_are_scored_or_refused(cls: type[Detector]) -> None:
    """Up to ``nan_ok`` a score is finite; beyond it a WindowError says so."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 3, seed=1)
    n_ok = int(detector.info.nan_ok * detector.size)
    rows = np.random.default_rng(0).permutation(detector.size)
    windows[1, rows[:n_ok]] = np.nan
    assert np.isfinite(detector.score(windows)).all(), "missing samples gave no finite score"
    windows[1] = windows[2]
    windows[1, detector.size - n_ok :] = np.nan
    assert np.isfinite(detector.score(windows)).all(), "missing newest samples: no finite score"
    windows[1, : n_ok + 1] = np.nan
    _refuses(detector, windows, "more missing samples than info.nan_ok")


def check_partial_windows_are_scored(cls: type[Detector]) -> None:
    """Windows that hold ``min_periods`` samples or more, NaN before them, are scored and told."""
    detector = fitted(cls)
    size, least = detector.size, detector.min_periods
    assert 1 <= least < size, f"min_periods is {least}, windows have {size} samples"
    held = np.linspace(least, size, 9).astype(int)
    windows = windows_of(size, len(held), seed=1)
    for window, n in zip(windows, held, strict=True):
        window[: size - n] = np.nan
    detector.fit(windows)
    scores = detector.score(windows)
    assert np.isfinite(scores).all(), f"with {held} samples of {size} scores are {scores}"
    alone = np.concatenate([detector.score(one[None]) for one in windows])
    assert same(scores, alone), "a partial window scores else beside others"
    told = detector.explain(windows)
    assert np.isfinite(told.share).all(), "shares of a partial window are not finite"
    assert np.isfinite(told.expected).all(), "what a partial window has expected is not finite"
    assert (told.position >= size - held).all(), "a sample is told that the window does not hold"
    if told.first is not None:
        assert ((told.first < 0) | (told.first >= size - held)).all(), "an event begins too early"
    windows[0, : size - least + int(detector.info.nan_ok * least) + 1] = np.nan
    _refuses(detector, windows, "fewer samples than min_periods less info.nan_ok")


def check_infinite_samples_are_refused(cls: type[Detector]) -> None:
    """Infinite samples raise WindowError."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 3, seed=1)
    windows[1, 3] = np.inf
    _refuses(detector, windows, "an infinite sample")


def check_constant_series_are_scored(cls: type[Detector]) -> None:
    """Fitted on constants or not, constant and huge windows have finite scores."""
    size = cls().size
    for level in (0.0, 7.0, -1e6):
        flat = np.full((50, size, 1), level, dtype=np.float32)
        detector = cls().fit(flat)
        windows = np.concatenate([flat[:2], flat[:2] + 1, windows_of(size, 2, seed=1)])
        windows[1, size // 2] += 1
        windows[3] *= np.float32(1e20)
        scores = detector.score(windows)
        assert np.isfinite(scores).all(), f"fitted on a constant {level}: {scores}"
        assert np.isfinite(detector.explain(windows).share).all(), "shares are not finite"
    assert np.isfinite(fitted(cls).score(windows)).all(), "a constant window has no finite score"


def check_odd_shapes_are_scored_or_refused(cls: type[Detector]) -> None:
    """Empty and single batches are scored; wrong lengths, kinds and axes raise WindowError."""
    detector = fitted(cls)
    windows = windows_of(detector.size, 4, seed=1)
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
    detector = cls(size=smallest).fit(windows_of(smallest, N_TRAINING, seed=0))
    assert np.isfinite(detector.score(windows_of(smallest, 5, seed=1))).all(), "info.min_size fails"
    try:
        cls(size=smallest - 1)
    except WindowError:
        return
    msg = "a size below info.min_size must raise WindowError"
    raise AssertionError(msg)


def check_explanations_add_up(cls: type[Detector]) -> None:
    """Shares are not negative and sum to 1; the judged sample is in the window, and quoted."""
    detector = fitted(cls, n_variates=3 if cls.info.multivariate else 1)
    n_variates = 3 if cls.info.multivariate else 1
    windows = windows_of(detector.size, 20, seed=7, n_variates=n_variates)
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
    assert same(told.observed, quoted), "observed is not the sample at position"


def check_the_strange_variate_is_named(cls: type[Detector]) -> None:
    """Spikes in one variate of three give that variate the largest share."""
    detector = fitted(cls, n_variates=3)
    windows = windows_of(detector.size, 3, seed=8, n_variates=3)
    for variate in range(3):
        windows[variate, detector.size - 1 - detector.lag, variate] += 15
    named = detector.explain(windows).share.argmax(axis=1)
    assert named.tolist() == [0, 1, 2], f"spikes in variates 0, 1, 2 were laid on {named}"


def check_groups_may_differ_in_scale(cls: type[Detector]) -> None:
    """Series of very different level and scale can be fitted together; keys take their group's."""
    detector = cls()
    small = windows_of(detector.size, 200, seed=0)
    large = windows_of(detector.size, 200, seed=1) * np.float32(1e5) + np.float32(1e6)
    groups = np.repeat(np.arange(2, dtype=np.int32), 200)
    detector.fit(np.concatenate([small, large]), groups=groups)
    windows = np.concatenate([small[-5:], large[-5:]])
    slots = np.repeat(np.arange(2, dtype=np.int32), 5)
    memory = memory_of(detector, n_slots=2)
    spiked = windows.copy()
    spiked[[2, 7], detector.size - 1 - detector.lag] += np.array([[10.0], [1e6]], dtype=np.float32)
    calm = detector.score(windows, memory=memory, slots=slots)
    strange = detector.score(spiked, memory=memory, slots=slots)
    assert np.isfinite(calm).all(), "several groups gave a score that is not finite"
    assert (strange[[2, 7]] > calm[[2, 7]]).all(), "a spike is lost where groups differ in scale"


def _refuses(detector: Detector, windows: Floats | NDArray[np.float64], what: str) -> None:
    try:
        detector.score(windows)  # type: ignore[arg-type]
    except WindowError:
        return
    msg = f"{what} must raise WindowError"
    raise AssertionError(msg)
