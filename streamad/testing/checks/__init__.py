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

from streamad.detectors.base import Detector
from streamad.testing.checks.memories import (
    check_a_forgotten_key_is_new,
    check_batch_splits_do_not_matter,
    check_incomplete_windows_may_be_learned_from,
    check_memory_comes_back,
    check_memory_does_not_grow,
)
from streamad.testing.checks.scores import (
    check_a_batch_equals_one_by_one,
    check_a_planted_level_shift_ranks_first,
    check_a_planted_spike_ranks_first,
    check_constant_series_are_scored,
    check_equal_fits_are_equal,
    check_explanations_add_up,
    check_groups_may_differ_in_scale,
    check_infinite_samples_are_refused,
    check_input_is_left_untouched,
    check_it_declares_itself,
    check_missing_samples_are_scored_or_refused,
    check_odd_shapes_are_scored_or_refused,
    check_one_finite_float32_a_window,
    check_partial_windows_are_scored,
    check_score_does_not_learn,
    check_sizes_have_a_lower_bound,
    check_state_comes_back_through_safetensors,
    check_the_strange_variate_is_named,
    check_unfitted_says_so,
)

__all__ = ["Check", "yield_detector_checks"]

Check = Callable[[type[Detector]], None]


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
    if cls().min_periods < cls().size:
        yield check_partial_windows_are_scored
    if cls.info.multivariate:
        yield check_the_strange_variate_is_named
    if cls().new_memory(1) is not None:
        yield check_batch_splits_do_not_matter
        yield check_memory_comes_back
        yield check_memory_does_not_grow
        yield check_a_forgotten_key_is_new
        yield check_incomplete_windows_may_be_learned_from
