"""What every detector of events, edges or graphs promises, as checks to run against your own.

    CHECKS = list(yield_item_checks(MyDetector))

As `streamad.testing.checks`, which is for windows of signals: a check takes the class, makes
instances without arguments, and raises AssertionError where a promise is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from streamad.detectors.contract import Arrays, Floats, ItemDetector
from streamad.errors import StreamadError
from streamad.testing.item_samples import odd_items, ordinary_items, strange_items

Check = Callable[[type[ItemDetector[Any]]], None]
N_TRAINING = 300


def yield_item_checks(cls: type[ItemDetector[Any]]) -> Iterator[Check]:
    """Yield every check that a detector of events, edges or graphs has to pass.

    A check of memories is for detectors that have them: where it could assert nothing it is not
    yielded.
    """
    yield check_it_declares_itself
    yield check_one_finite_float32_per_item
    yield check_score_does_not_learn
    yield check_a_batch_equals_one_by_one
    yield check_strange_items_rank_first
    yield check_state_comes_back_through_safetensors
    yield check_equal_fits_are_equal
    yield check_odd_items_are_scored
    yield check_explanations_are_whole
    if cls.info.modality == "events":
        yield check_scores_of_events_are_decades
    if cls.info.needs_training:
        yield check_unfitted_is_a_named_error
    if cls().new_memory(3) is not None:
        yield check_batch_splits_do_not_matter
        yield check_memory_comes_back
        yield check_a_forgotten_key_is_new
    if cls().new_shared() is not None:
        yield check_a_population_does_not_depend_on_batches
        yield check_a_population_comes_back
        yield check_a_population_does_not_grow


def check_it_declares_itself(cls: type[ItemDetector[Any]]) -> None:
    """Its declaration is complete and consistent."""
    info = cls.info
    assert info.name, "info.name is empty"
    assert info.summary, "info.summary is empty"
    assert (np.diff(info.tail) > 0).all(), "info.tail must rise: rarer is stranger"
    assert cls().size == 1, "an item is one item"
    memory, shared = cls().new_memory(3), cls().new_shared()
    assert memory is None or info.learn_every >= 256, "single rows are learned by the hundreds"
    assert (shared is not None) == (info.scope == "partition"), "scope is partition with new_shared"


def check_one_finite_float32_per_item(cls: type[ItemDetector[Any]]) -> None:
    """``score`` returns float32 ``(n,)`` without NaN or infinity; of no items, none."""
    detector = fitted(cls)
    for n in (0, 1, 50):
        scores = score(detector, ordinary_items(cls.info.modality, n, seed=1))
        assert scores.dtype == np.float32, f"scores are {scores.dtype}, not float32"
        assert scores.shape == (n,), f"{n} items gave scores of shape {scores.shape}"
        assert np.isfinite(scores).all(), "a score is not finite"


def check_score_does_not_learn(cls: type[ItemDetector[Any]]) -> None:
    """Scoring and explaining leave the detector as it was."""
    detector = fitted(cls)
    items = ordinary_items(cls.info.modality, 30, seed=1)
    strange = strange_items(cls.info.modality, 10, seed=2)
    before, first = copied(detector.state()), score(detector, items)
    score(detector, strange)
    explain(detector, strange)
    assert same(first, score(detector, items)), "scoring changed later scores"
    assert equal(before, detector.state()), "scoring changed the state"


def check_a_batch_equals_one_by_one(cls: type[ItemDetector[Any]]) -> None:
    """Scores are the same, bit for bit, alone and in a batch."""
    detector = fitted(cls)
    items = ordinary_items(cls.info.modality, 40, seed=4)
    whole = score(detector, items)
    alone = np.concatenate([score(detector, items[i : i + 1]) for i in range(len(items))])
    assert same(whole, alone), "items alone have other scores than in a batch"
    index = np.arange(0, len(items), 3)
    assert same(whole[index], score(detector, items[index])), "chosen items have other scores"


def check_strange_items_rank_first(cls: type[ItemDetector[Any]]) -> None:
    """Items unlike all of training score higher than nine in ten ordinary ones."""
    detector, strange_ones = fitted(cls), strange_items(cls.info.modality, 40, seed=6)
    shared = cls().new_shared()
    if shared is None:
        usual = stream(detector, ordinary_items(cls.info.modality, 200, seed=5))
        strange = stream(detector, strange_ones)
    else:
        # One stream: what a population shows later is judged by what it showed before.
        ordinary = ordinary_items(cls.info.modality, 2 * N_TRAINING, seed=5)
        usual = np.asarray(cls().watch(shared, ordinary).looks[N_TRAINING:, 0])
        strange = np.asarray(cls().watch(shared, strange_ones).looks[:, 0])
    assert np.median(strange) > np.quantile(usual, 0.9), "strange items look ordinary"


def check_state_comes_back_through_safetensors(cls: type[ItemDetector[Any]]) -> None:
    """Scores are equal after ``state`` was written and read."""
    detector = fitted(cls)
    items = ordinary_items(cls.info.modality, 30, seed=1)
    wanted = score(detector, items)
    arrays = {name: np.ascontiguousarray(a) for name, a in detector.state().items()}
    read = {name: np.array(a) for name, a in load_tensors(save_tensors(arrays)).items()}
    again = cls().load(read)
    assert same(wanted, score(again, items)), "a loaded detector scores otherwise"


def check_equal_fits_are_equal(cls: type[ItemDetector[Any]]) -> None:
    """Two fits on the same items give the same state."""
    assert equal(fitted(cls).state(), fit(cls).state()), "two equal fits differ"


def check_odd_items_are_scored(cls: type[ItemDetector[Any]]) -> None:
    """Missing values, unknown names, self loops, lone nodes: finite scores, and explanations."""
    detector = fitted(cls)
    items = odd_items(cls.info.modality)
    assert np.isfinite(score(detector, items)).all(), "an odd item has no finite score"
    assert np.isfinite(stream(detector, items)).all(), "an odd item has no finite score"
    for why in explain(detector, items):
        assert all(np.isfinite(x) for x in why.variates.values()), "a share is not finite"


def check_explanations_are_whole(cls: type[ItemDetector[Any]]) -> None:
    """Explanations have a reason in words, at most ten parts, and shares that add up to one."""
    detector = fitted(cls)
    items = strange_items(cls.info.modality, 20, seed=3)
    told = explain(detector, items)
    assert len(told) == len(items), f"{len(items)} items gave {len(told)} explanations"
    for why in told:
        assert why.text, "an explanation has no words"
        assert len(why.variates) <= 10, "an explanation has more than ten parts"
        assert len(why.entities) <= 10, "an explanation names more than ten entities"
        total = sum(why.variates.values())
        assert not why.variates or abs(total - 1) < 1e-4, f"shares add up to {total}"
        assert set(why.observed) <= set(why.variates) or not why.variates, "a part has no share"


def check_scores_of_events_are_decades(cls: type[ItemDetector[Any]]) -> None:
    """Scores of one key add up, so half of the ordinary events score less than one decade."""
    scores = stream(fitted(cls), ordinary_items(cls.info.modality, 300, seed=11))
    assert scores.min() >= 0, "a score is below 0"
    assert np.median(scores) < 1, f"the median of ordinary scores is {np.median(scores):.2f}"


def check_unfitted_is_a_named_error(cls: type[ItemDetector[Any]]) -> None:
    """Without training, scoring raises an error of ours."""
    try:
        score(cls(), ordinary_items(cls.info.modality, 3, seed=1))
    except StreamadError:
        return
    msg = "an unfitted detector scored, and info.needs_training is set"
    raise AssertionError(msg)


# ---------------------------------------------------------------------- memories


def check_batch_splits_do_not_matter(cls: type[ItemDetector[Any]]) -> None:
    """With a memory per key, scores do not depend on where batches were cut at learn_every."""
    detector, every = fitted(cls), cls.info.learn_every
    items = ordinary_items(cls.info.modality, 3 * every, seed=7)
    whole = _learned(detector, items, every)
    parts = _learned(detector, items, every // 2)
    assert same(whole, parts), "scores depend on the cut of batches"


def check_memory_comes_back(cls: type[ItemDetector[Any]]) -> None:
    """Arrays hold all that a key learned."""
    detector, every = fitted(cls), cls.info.learn_every
    items = ordinary_items(cls.info.modality, 3 * every, seed=7)
    memory, slots = _memory(detector, items), np.zeros(len(items), np.int32)
    _learned(detector, items, every, memory)
    fresh = _memory(detector, items)
    fresh.load(slots[:1], memory.state(slots[:1]))
    one = detector.score(items, memory=memory, slots=slots)
    other = detector.score(items, memory=fresh, slots=slots)
    assert same(one, other), "a restored memory scores otherwise"


def check_a_forgotten_key_is_new(cls: type[ItemDetector[Any]]) -> None:
    """Forget a slot, and its key scores as a new one."""
    detector, every = fitted(cls), cls.info.learn_every
    items = ordinary_items(cls.info.modality, 3 * every, seed=7)
    memory, slots = _memory(detector, items), np.zeros(len(items), np.int32)
    new = detector.score(items, memory=_memory(detector, items), slots=slots)
    _learned(detector, items, every, memory)
    memory.forget(slots[:1])
    assert same(new, detector.score(items, memory=memory, slots=slots)), "a key is remembered"


def _memory(detector: ItemDetector[Any], items: Any) -> Any:
    memory = detector.new_memory(len(getattr(items, "names", ("", ""))))
    assert memory is not None
    memory.reserve(1)
    return memory


def _learned(detector: ItemDetector[Any], items: Any, step: int, memory: Any = None) -> Floats:
    """Score and learn items of one key, ``step`` at a time."""
    memory = _memory(detector, items) if memory is None else memory
    made = [np.empty(0, np.float32)]
    for start in range(0, len(items), step):
        part = items[start : start + step]
        slots, admit = np.zeros(len(part), np.int32), np.ones(len(part), np.bool_)
        made.append(detector.score(part, memory=memory, slots=slots))
        detector.learn(memory, part, slots=slots, admit=admit)
    return np.concatenate(made)


def check_a_population_does_not_depend_on_batches(cls: type[ItemDetector[Any]]) -> None:
    """``watch`` gives the same scores however items are cut into batches."""
    items = ordinary_items(cls.info.modality, 300, seed=8)
    detector = fitted(cls)
    wanted = _watched(detector, items, 300)
    for step in (1, 7, 64):
        assert same(wanted, _watched(detector, items, step)), f"batches of {step} score otherwise"


def check_a_population_comes_back(cls: type[ItemDetector[Any]]) -> None:
    """Arrays hold all that was taken in."""
    items = ordinary_items(cls.info.modality, 300, seed=8)
    detector = fitted(cls)
    first, second = detector.new_shared(), detector.new_shared()
    assert first is not None
    assert second is not None
    detector.watch(first, items[:200])
    second.load(first.state())
    one = detector.watch(first, items[200:]).looks
    assert same(one, detector.watch(second, items[200:]).looks), "a restored memory scores else"


def check_a_population_does_not_grow(cls: type[ItemDetector[Any]]) -> None:
    """Whatever comes, a population's memory stays as large as it is."""
    detector = fitted(cls)
    shared = detector.new_shared()
    assert shared is not None
    before = shared.n_bytes
    for seed in range(4):
        detector.watch(shared, strange_items(cls.info.modality, 2_000, seed=seed))
    assert shared.n_bytes == before, f"it grew from {before} to {shared.n_bytes} bytes"


def _watched(detector: ItemDetector[Any], items: Any, step: int) -> Floats:
    shared = detector.new_shared()
    assert shared is not None
    parts = [
        detector.watch(shared, items[at : at + step]).looks[:, 0]
        for at in range(0, len(items), step)
    ]
    return np.concatenate(parts)


# ---------------------------------------------------------------------- common


@cache
def fitted(cls: type[ItemDetector[Any]]) -> ItemDetector[Any]:
    """Return a detector fitted on ordinary items; the same one each time, for fits may be long."""
    return fit(cls)


def fit(cls: type[ItemDetector[Any]]) -> ItemDetector[Any]:
    """Fit a detector on ordinary items, and on strange ones where it learns from labels."""
    items = ordinary_items(cls.info.modality, N_TRAINING, seed=0)
    made = cls()
    if "labels" in cls.fit.__annotations__:
        # It learns from both kinds.
        strange = strange_items(cls.info.modality, N_TRAINING // 5, seed=9)
        labels = np.repeat([0, 1], [len(items), len(strange)])
        return made.fit(type(items).join([items, strange]), labels=labels)  # type: ignore[call-arg]
    # Of several keys: what is rare for one and common among the others takes some.
    return made.fit(items, groups=np.arange(len(items), dtype=np.int32) % 3)


def score(detector: ItemDetector[Any], items: Any) -> Floats:
    """Return scores without a memory."""
    return detector.score(items)


def stream(detector: ItemDetector[Any], items: Any) -> Floats:
    """Return scores as a job would have them."""
    shared = detector.new_shared()
    if shared is None:
        return detector.score(items)
    return np.asarray(detector.watch(shared, items).looks[:, 0], np.float32)


def explain(detector: ItemDetector[Any], items: Any) -> list[Any]:
    """Return explanations as a job would have them."""
    shared = detector.new_shared()
    if shared is None:
        return list(detector.explain(items))
    return list(detector.watch(shared, items).explain(np.arange(len(items))))


def copied(arrays: Arrays) -> Arrays:
    """Return a copy of arrays."""
    return {name: np.array(value) for name, value in arrays.items()}


def equal(one: Arrays, other: Arrays) -> bool:
    """Say whether arrays are the same bit for bit."""
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Say whether two arrays are the same bit for bit."""
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )
