"""Alerts against labels: counts by hand, Numenta's published values, intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamad.evaluation.alerts import Episodes, alert_quality, rarer_than_promised
from streamad.evaluation.intervals import mean_interval, paired_difference, ratio_interval
from streamad.evaluation.nab import nab_parts, nab_score, scaled_sigmoid


def labels_with(*spans: tuple[int, int], n: int = 1000) -> np.ndarray:
    labels = np.zeros(n, np.int8)
    for begin, end in spans:
        labels[begin:end] = 1
    return labels


def episodes(*spans: tuple[int, int, int]) -> Episodes:
    rows = np.array(spans, np.int64).reshape(-1, 3)
    return Episodes(opened=rows[:, 0], first=rows[:, 1], last=rows[:, 2])


# ------------------------------------------------------------------ Numenta's score


def test_a_detection_is_worth_what_the_benchmark_states():
    # From the text of its scorer: left edge, middle, right edge, one width behind.
    stated = {-1.0: 0.98661, -0.5: 0.84828, 0.0: 0.0, 1.0: -0.98661}
    for position, worth in stated.items():
        assert scaled_sigmoid(position) == pytest.approx(worth, abs=1e-5)
    assert scaled_sigmoid(3.0) == scaled_sigmoid(50.0) == -1.0


def test_perfect_silent_and_late_detections_have_their_known_scores():
    labels = labels_with((200, 300), (600, 700))
    perfect, silent = nab_parts(labels, [200, 600]), nab_parts(labels, [])
    for profile in ("standard", "reward_low_FP", "reward_low_FN"):
        assert nab_score([perfect], profile) == 100.0
        assert nab_score([silent], profile) == 0.0
    late = nab_parts(labels, [250, 299])
    # One window found in its middle; a second hit in it adds nothing.
    assert late.earned == pytest.approx(0.84828 / 0.98661, abs=1e-4)
    assert (late.missed, late.charged) == (1, 0.0)
    assert nab_score([late]) == pytest.approx(100 * (0.84828 / 0.98661 + 1) / 4, abs=0.01)
    assert nab_score([late], "reward_low_FN") == pytest.approx(
        100 * (0.84828 / 0.98661 + 2) / 6, abs=0.01
    )


def test_false_detections_cost_by_their_distance_from_the_last_window():
    labels = labels_with((200, 300))
    before, just_behind, far = (nab_parts(labels, [row]).charged for row in (10, 310, 900))
    assert before == far == -1.0
    # Ten rows behind the last one of a window of 100: the benchmark divides by 99.
    assert just_behind == pytest.approx(scaled_sigmoid(11 / 99))
    assert nab_score([nab_parts(labels, [10, 200])]) == pytest.approx(100 * (2 - 0.11) / 2)
    assert nab_score([nab_parts(labels, [10, 200])], "reward_low_FP") == pytest.approx(
        100 * (2 - 0.22) / 2
    )


def test_series_without_a_window_still_charge_and_alone_have_no_score():
    quiet = nab_parts(np.zeros(50), [10, 20])
    assert quiet == (0.0, -2.0, 0, 0)
    assert math.isnan(nab_score([quiet]))
    found = nab_parts(labels_with((200, 300)), [200])
    assert nab_score([found, quiet]) == pytest.approx(100 * (2 - 0.22) / 2)
    with pytest.raises(ValueError, match=r"rows 0 \.\. 49"):
        nab_parts(np.zeros(50), [50])


# ------------------------------------------------------------------ alerts


def test_an_alert_that_was_open_already_finds_nothing():
    labels = labels_with((500, 550))
    old = alert_quality(labels, episodes((100, 90, 900)), slack=10)
    assert (old.true, old.found, old.false) == (1, 0, 0)
    new = alert_quality(labels, episodes((530, 500, 540)), slack=10)
    assert (new.true, new.found, new.delays) == (1, 1, (30,))
    assert new.in_alert == pytest.approx(0.041)


def test_the_lag_of_a_detector_is_part_of_the_delay_and_may_make_it_too_late():
    labels = labels_with((500, 505))
    assert alert_quality(labels, episodes((520, 500, 504)), slack=10).delays == (20,)
    late = alert_quality(labels, episodes((525, 500, 504)), slack=10)
    assert (late.found, late.true) == (0, 1)


def test_the_first_of_two_alerts_gives_the_delay_and_others_are_not_false():
    labels = labels_with((500, 600))
    made = alert_quality(
        labels, episodes((495, 495, 500), (550, 550, 560), (800, 800, 801)), slack=10
    )
    assert (made.episodes, made.true, made.false, made.found, made.delays) == (3, 2, 1, 1, (-5,))


def test_many_alerts_find_much_by_chance_and_chance_says_so():
    labels = labels_with((500, 550))
    many = episodes(*((row, row, row) for row in range(0, 1000, 40)))
    assert alert_quality(labels, many, slack=10).by_chance == 1.0
    one = episodes((500, 500, 510))
    # 80 of 1,000 places of the opening would find it.
    assert alert_quality(labels, one, slack=10).by_chance == pytest.approx(0.08, abs=0.016)


def test_windows_near_a_label_and_unscored_ones_are_not_ordinary():
    labels = labels_with((500, 510))
    p = np.full(1000, 0.5)
    p[[480, 505, 530]] = 1e-6
    p[[100, 101]] = [5e-3, 5e-4]
    p[:50] = np.nan
    assert rarer_than_promised(p, labels, near=20) == (1000 - 50 - 50, (3, 2, 1))


# ------------------------------------------------------------------ intervals


def test_intervals_cover_the_mean_about_as_often_as_they_promise():
    rng = np.random.default_rng(0)
    draws = rng.beta(2, 3, size=(120, 40))
    held = [low <= 0.4 <= high for _, low, high, _ in (mean_interval(d) for d in draws)]
    assert 0.88 <= np.mean(held) <= 0.99


def test_pairs_show_what_two_means_hide():
    rng = np.random.default_rng(1)
    hard = rng.random(60)
    ours = hard + 0.02 + rng.normal(0, 0.01, 60)
    difference = paired_difference(ours, hard)
    assert 0.01 < difference.low < difference.high < 0.03
    apart = mean_interval(ours)
    assert apart.low < mean_interval(hard).value < apart.high


def test_ratios_weigh_series_by_what_they_hold():
    made = ratio_interval([1, 0, np.nan], [1, 99, 5])
    assert (made.value, made.n) == (0.01, 2)
    assert math.isnan(ratio_interval([1.0], [2.0]).low)
    assert ratio_interval([], []).n == 0
