"""Scores become tail probabilities and episodes, per key: laws of block maxima, two looks."""

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.scoring.episodes import EpisodePlan, Episodes, Level
from streamad.scoring.kernels import ADOPT_MESSAGES, ADOPTED, BEGAN, CONTINUES, ENDED, NOTHING
from streamad.scoring.law import (
    block_probability,
    box_cox,
    fit_law,
    from_box_cox,
    law_of_tail,
    position,
    probability,
    tail_of_law,
)
from streamad.scoring.zone import offsets

TAIL = (2.0, 4.0, 6.0, 8.0)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SIZE = 64


def one_key(*, tail=TAIL, n_looks=1, seeds=None, **settings):
    plan = EpisodePlan(**{"size": SIZE, "step_ms": MINUTE, "first_ms": 0, **settings})
    episodes = Episodes(plan, tail, n_looks=n_looks, seeds=seeds)
    episodes.state.reserve(4)
    episodes.begin([0, 1])
    return episodes


def judge(  # noqa: PLR0913 - all by keyword
    episodes, scores, *, code=0, start=0, step=MINUTE, suppressed=None, still=None, message=None
):
    looks = np.asarray(scores, np.float32).reshape(len(scores), -1)
    n = len(looks)
    end = (start + np.arange(n, dtype=np.int64)) * step
    return episodes.judge(
        np.full(n, code, np.int32),
        looks,
        end - (SIZE - 1) * step,
        end,
        np.zeros(n, np.bool_) if suppressed is None else np.array(suppressed),
        still=None if still is None else np.array(still, np.int32),
        message=None if message is None else np.asarray(message, np.int64),
    )


def noise(n, seed=0):
    return np.random.default_rng(seed).exponential(1.0, n).astype(np.float32)


def spans(made):
    return [
        (int(a), int(b))
        for a, b in zip(
            np.flatnonzero(made.event == BEGAN), np.flatnonzero(made.event >= ENDED), strict=False
        )
    ]


# ---------------------------------------------------------------------- laws


@settings(deadline=None)
@given(st.floats(1e-9, 0.999))
def test_position_and_probability_are_inverse(block_p):
    assert probability(position(block_p), 1.0) == pytest.approx(block_p, rel=1e-6)


@settings(deadline=None)
@given(st.floats(-5, 1e7), st.floats(1e-6, 1e3), st.sampled_from([0.02, 0.25, 1.0]))
def test_a_probability_is_finite_and_never_rises(z, more, share):
    low, high = probability(z + more, share), probability(z, share)
    assert 0 < low <= high <= 1


def test_large_scores_are_told_apart_however_large():
    got = [probability(z, 0.25) for z in np.geomspace(1, 1e6, 200)]
    assert all(a > b for a, b in pairwise(got))
    assert got[-1] > 0


def test_a_law_holds_the_tail_it_was_made_from():
    location, scale = law_of_tail(TAIL)
    assert tail_of_law(location, scale)[:2] == pytest.approx(TAIL[:2])
    assert block_probability(0.01, share=0.25) == pytest.approx(1 - 0.99**4)


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_the_transform_keeps_the_order_and_can_be_undone(a, b, power):
    low, high = sorted((a, b))
    assert box_cox(low, power) <= box_cox(high, power) <= high * (1 + 1e-12)
    assert from_box_cox(box_cox(high, power), power) == pytest.approx(high, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_transform_brings_heavy_maxima_to_their_law(seed):
    # As the logarithm of what is judged, block maxima have the law the kernel fits.
    heavy = np.exp(1.2 * np.random.default_rng(seed).gumbel(0, 1, 40_000)) - 1

    def high(power):
        judged = np.array([box_cox(one, power) for one in heavy])
        location, scale = fit_law(judged[:300].astype(np.float32), 1.0, 1e-3)
        return ((judged[300:] - location) / scale > 6).mean()

    assert high(1.0) > 0.03
    assert high(0.1) < high(1.0) / 3


def test_the_centred_look_is_judged_transformed_and_the_newest_as_it_is():
    looks = np.stack([noise(3000, 1), noise(3000, 2)], axis=1) * 3
    plain = judge(one_key(n_looks=2, smooth_delay=4, power=1.0), looks)
    drawn = judge(one_key(n_looks=2, smooth_delay=4, power=0.25), looks)
    np.testing.assert_array_equal(plain.newest_p, drawn.newest_p)
    assert drawn.score.max() < box_cox(float(looks.max()), 0.25)
    assert plain.score.max() > drawn.score.max()
    # What was read from the log is transformed already.
    n = len(looks)
    end = np.arange(n, dtype=np.int64) * MINUTE
    again = one_key(n_looks=2, smooth_delay=4, power=0.25).judge(
        np.zeros(n, np.int32), np.stack([drawn.score, looks[:, 1]], axis=1),
        end - (SIZE - 1) * MINUTE, end, np.zeros(n, np.bool_), final=np.ones(n, np.bool_),
    )  # fmt: skip
    np.testing.assert_array_equal(again.score, drawn.score)
    np.testing.assert_array_equal(again.p_value, drawn.p_value)


def test_a_few_anomalies_do_not_move_a_law():
    maxima = np.random.default_rng(1).gumbel(5, 1, 200).astype(np.float32)
    clean = fit_law(maxima, 2.0, 1.0)
    maxima[::20] = 1e4
    dirty = fit_law(maxima, 2.0, 1.0)
    assert dirty[0] == pytest.approx(clean[0], abs=0.3)
    assert dirty[1] == pytest.approx(clean[1], rel=0.3)


def test_a_default_law_fades_with_the_keys_own_blocks():
    assert fit_law(np.empty(0, np.float32), 2.0, 1.0)[0] == pytest.approx(2.0, abs=0.2)
    own = np.random.default_rng(1).gumbel(20, 1, 16).astype(np.float32)
    assert fit_law(own, 2.0, 1.0)[0] == pytest.approx(20, abs=2)


def test_p_values_keep_their_promise_on_ordinary_scores():
    episodes = one_key()
    n = 60_000
    smooth = np.convolve(noise(n + 15), np.ones(16) / 16, "valid")
    made = judge(episodes, smooth)
    ordinary = made.p_value[10_000:]
    for promise in (1e-1, 1e-2, 1e-3, 1e-4):
        assert (ordinary < promise).mean() < 3 * promise
    # Heavier excursions, as real series have them.
    made = judge(one_key(), smooth**3)
    ordinary = made.p_value[10_000:]
    assert 1e-2 / 5 < (ordinary < 1e-2).mean() < 3e-2
    assert (ordinary < 1e-3).mean() < 3e-3


# ---------------------------------------------------------------------- episodes


def test_an_episode_begins_continues_and_ends():
    episodes = one_key(cool_down=3, update_every=4)
    made = judge(episodes, [1.0] * 40 + [20, 20, 20, 20, 20, 30] + [0.5] * 5)
    events = [(i, int(e)) for i, e in enumerate(made.event) if e != NOTHING]
    assert events == [(40, BEGAN), (44, CONTINUES), (45, CONTINUES), (48, ENDED)]
    assert made.sequence[[40, 44, 45, 48]].tolist() == [0, 1, 2, 3]
    assert made.opened_ms[[40, 48]].tolist() == [40 * MINUTE] * 2
    assert made.peak[48] == 30
    assert made.inside[40:49].all()
    assert not made.inside[49:].any()


def test_crossing_the_alert_level_is_reported_at_once():
    episodes = one_key(
        candidate=Level(probability=1e-2), alert=Level(probability=3e-3), update_every=1_000
    )
    quiet = judge(episodes, [1.0] * 40)
    entry = float(quiet.level[-1])
    law, marks = episodes.state["laws"][0, 0], episodes.state["marks"][0]
    alert = law[0] + law[2] + law[1] * marks[2]
    made = judge(episodes, [entry * 1.01, alert * 1.01, alert * 1.01], start=40)
    assert made.event.tolist() == [BEGAN, CONTINUES, NOTHING]
    assert made.severity[0] < 1 <= made.severity[1]


def test_min_duration_opens_late_and_remembers_when_it_began():
    episodes = one_key(min_duration=3)
    made = judge(episodes, [1.0] * 40 + [20, 20, 1, 20, 20, 20])
    assert np.flatnonzero(made.event == BEGAN).tolist() == [45]
    assert made.began_ms[45] == 43 * MINUTE
    assert made.opened_ms[45] == 45 * MINUTE


def test_a_cold_key_makes_no_episode():
    assert (judge(one_key(min_windows=32), [50.0] * 20).event == NOTHING).all()


def test_the_look_at_the_newest_samples_opens_and_ends_and_the_centred_one_only_trails():
    episodes = one_key(n_looks=2)
    looks = np.ones((400, 2), np.float32)
    looks[200:206, 1] = 40  # at once
    looks[232:250, 0] = 40  # half a window later
    made = judge(episodes, looks)
    assert spans(made) == [(200, 210)]


def test_what_only_the_centred_look_sees_opens_an_episode():
    episodes = one_key(n_looks=2)
    looks = np.ones((400, 2), np.float32)
    looks[232:270, 0] = 40
    made = judge(episodes, looks)
    assert (made.event == BEGAN).sum() == 1
    assert 232 <= np.flatnonzero(made.event == BEGAN)[0] <= 240


def test_a_new_key_is_not_known_by_its_first_day():
    episodes = one_key(n_looks=2, first_ms=DAY)
    looks = np.ones((3_000, 2), np.float32)
    looks[500:520, 0] = looks[2_000:2_020, 0] = 40
    made = judge(episodes, looks)
    assert np.flatnonzero(made.event == BEGAN).size == 1
    assert np.flatnonzero(made.event == BEGAN)[0] >= 2_000


def test_seeds_from_training_stand_for_history():
    seeds = np.full((1, 1, 20), 30.0, np.float32)
    scores = [1.0] * 40 + [20.0] * 10
    cold = judge(one_key(), scores)
    seeded = one_key(seeds=seeds)
    seeded.seed(0, 0)
    assert (cold.event == BEGAN).any()
    assert (judge(seeded, scores).event == NOTHING).all()


# ---------------------------------------------------------------------- what is learned


def test_data_inside_an_open_episode_does_not_update_the_law():
    episodes = one_key(adopt_ms=10**12)
    judge(episodes, noise(4_000))
    before = episodes.state["laws"][0, 0, :2].copy()
    made = judge(episodes, np.full(3_000, 40.0, np.float32), start=4_000)
    assert made.inside.all()
    judge(episodes, noise(600, 1), start=7_000)
    np.testing.assert_allclose(episodes.state["laws"][0, 0, :2], before, rtol=0.3)


def test_a_lasting_level_is_adopted_in_bounded_time_and_the_next_anomaly_is_seen():
    episodes = one_key(adopt_ms=DAY // 2)
    judge(episodes, noise(5_000))
    high = 40 + noise(5_000, 1)
    high[3_000:3_005] = 400
    made = judge(episodes, high, start=5_000)
    assert np.flatnonzero(made.event == ADOPTED).tolist() == [720]
    assert made.event[3_000] == BEGAN
    assert (made.event == BEGAN).sum() <= 3


@pytest.mark.parametrize("hushed", [False, True])
@settings(max_examples=20, deadline=None)
@given(borders=st.sets(st.integers(1, 1_999), max_size=ADOPT_MESSAGES))
def test_a_level_that_too_few_messages_showed_is_not_adopted(hushed, borders):
    """However many rows and days a message holds, it takes several to change what is normal."""
    episodes = one_key(adopt_ms=DAY // 2)
    judge(episodes, noise(2_000), message=np.arange(2_000))
    message = 2_000 + np.searchsorted(sorted(borders), np.arange(2_000), side="right")
    made = judge(
        episodes, np.full(2_000, 40, np.float32), start=2_000, message=message,
        suppressed=[hushed] * 2_000,
    )  # fmt: skip
    adopted = np.flatnonzero(made.adopted)
    # The message and the time that are both due: never before the one that completes the number.
    if len(borders) < ADOPT_MESSAGES - 1:
        assert not len(adopted)
    else:
        assert adopted[0] == max(720, sorted(borders)[ADOPT_MESSAGES - 2])


def test_suppressed_windows_open_nothing_and_are_not_learned():
    episodes = one_key()
    judge(episodes, noise(5_000))
    before = episodes.state["laws"][0, 0].copy()
    away = np.full(300, 40.0, np.float32)
    made = judge(episodes, away, start=5_000, suppressed=[True] * 300)
    assert (made.event == NOTHING).all()
    assert made.withheld.all()
    judge(episodes, noise(600, 1), start=5_300)
    np.testing.assert_allclose(episodes.state["laws"][0, 0], before, rtol=0.3, atol=0.1)


def test_what_lasts_is_adopted_where_it_is_suppressed_without_a_word():
    episodes = one_key(adopt_ms=DAY // 2)
    judge(episodes, noise(5_000))
    made = judge(episodes, 40 + noise(2_000), start=5_000, suppressed=[True] * 2_000)
    assert (made.event == NOTHING).all()
    assert made.adopted.sum() == 1


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_blip_at_the_same_hour_every_night_is_normal_after_two(zone):
    """Across the change to summer time (29 March and 8 March 2026): the hour is the people's."""
    episodes = one_key(zone=zone, memory_ms=14 * DAY)
    start = int(datetime(2026, 3, 25 if zone != "America/New_York" else 4, tzinfo=UTC).timestamp())
    n = 9 * 1440
    times = start * 1000 + np.arange(n, dtype=np.int64) * MINUTE
    begins, offset = offsets(zone)
    local = times + offset[np.searchsorted(begins, times, side="right") - 1]
    scores = noise(n) * 0.3
    scores[(local % DAY) // MINUTE == 2 * 60 + 30] = 40
    made = judge(episodes, scores, start=start * 1000 // MINUTE)
    days = (local[made.event == BEGAN] - local[0]) // DAY
    assert 1 <= len(days) <= 2
    assert days.max() <= 1
    scores = noise(1440, 3) * 0.3
    scores[14 * 60] = 40
    made = judge(episodes, scores, start=start * 1000 // MINUTE + n)
    assert made.event[14 * 60] == BEGAN, "at another hour it is still an anomaly"


def test_a_reading_of_zero_once_in_500_stops_paging_after_a_few_and_an_outage_does_not():
    episodes = one_key()
    scores = noise(20_000) * 0.3
    scores[700::497] = 40
    made = judge(episodes, scores)
    began = np.flatnonzero(made.event == BEGAN)
    assert len(began) <= 8
    assert began.max() < 10_000
    outage = np.full(240, 400.0, np.float32)
    assert judge(episodes, outage, start=20_000).event[0] == BEGAN


def test_flapping_is_one_episode_in_the_end():
    episodes = one_key(cool_down=5)
    judge(episodes, noise(3_000) * 0.3)
    scores = noise(600, 1) * 0.3
    for at in range(100, 500, 12):
        scores[at : at + 3] = 40
    made = judge(episodes, scores, start=3_000)
    assert (made.event == BEGAN).sum() <= 6  # of 34 bursts


def test_a_sensor_that_stands_still_where_it_never_did_is_an_episode():
    episodes = one_key()
    still = [0] * 500 + list(range(1, 61)) + [0] * 40
    made = judge(episodes, [0.1] * 600, still=still)
    assert spans(made) == [(531, 564)]
    assert made.severity[540] > 1
    rests = [i % 12 for i in range(1_000)]  # it often stands still
    assert (judge(one_key(), [0.1] * 1_000, still=rests).event == NOTHING).all()
    constant = list(range(3_000))  # it never moved
    assert (judge(one_key(), [0.1] * 3_000, still=constant).event == NOTHING).all()


def test_a_constant_score_is_never_strange():
    for value in (0.0, 1.0, 100.0):
        made = judge(one_key(), np.full(3_000, value, np.float32))
        assert (made.event[2_100:] == NOTHING).all()
        assert np.isfinite(made.p_value).all()
        assert (made.p_value > 0).all()


# ---------------------------------------------------------------------- the contract of a pass


def test_a_level_counts_the_samples_an_event_moves_and_not_those_of_a_window():
    """Windows of 1,024 samples whose score is of 64 of them: an hour of its own, as of 64."""
    scores = noise(3_000)
    end = np.arange(len(scores), dtype=np.int64) * MINUTE
    found = []
    for size, window in ((64, 64), (64, 1_024), (1_024, 1_024)):
        episodes = one_key(size=size, window=window, step_ms=0)
        found.append(
            episodes.judge(
                np.zeros(len(scores), np.int32), scores[:, None],
                end - (window - 1) * MINUTE, end, np.zeros(len(scores), np.bool_),
            ).p_value
        )  # fmt: skip
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_batches_do_not_matter(batch):
    rng = np.random.default_rng(4)
    n = 3_000
    codes = rng.integers(0, 2, n).astype(np.int32)
    looks = rng.exponential(1.0, (n, 2)).astype(np.float32)
    looks[2_000:2_040] = 30
    end = np.arange(n, dtype=np.int64) * MINUTE
    none, still = np.zeros(n, np.bool_), rng.integers(0, 60, n).astype(np.int32)
    whole, parts = one_key(n_looks=2, smooth_delay=20), one_key(n_looks=2, smooth_delay=20)
    expected = whole.judge(codes, looks, end - SIZE * MINUTE, end, none, still=still)
    made = []
    for s in range(0, n, batch):
        cut = slice(s, s + batch)
        made.append(
            parts.judge(
                codes[cut], looks[cut], end[cut] - SIZE * MINUTE, end[cut], none[cut],
                still=still[cut],
            )
        )  # fmt: skip
    for name in ("event", "p_value", "score", "severity"):
        got = np.concatenate([getattr(m, name) for m in made])
        assert got.tobytes() == getattr(expected, name).tobytes(), name
    for name in whole.state.arrays:
        assert whole.state[name][:2].tobytes() == parts.state[name][:2].tobytes(), name


def test_logged_scores_give_the_same_state_as_the_model():
    rng = np.random.default_rng(5)
    n = 2_000
    looks = rng.exponential(1.0, (n, 2)).astype(np.float32)
    end = np.arange(n, dtype=np.int64) * MINUTE
    codes, none = np.zeros(n, np.int32), np.zeros(n, np.bool_)
    live, replayed = (one_key(n_looks=2, smooth_delay=20) for _ in range(2))
    made = live.judge(codes, looks, end - SIZE * MINUTE, end, none)
    logged = np.stack([made.score, looks[:, 1]], axis=1)
    again = replayed.judge(
        codes, logged, end - SIZE * MINUTE, end, none, final=np.ones(n, np.bool_)
    )
    assert again.event.tobytes() == made.event.tobytes()
    for name in live.state.arrays:
        assert live.state[name][:1].tobytes() == replayed.state[name][:1].tobytes(), name


def test_a_key_costs_less_than_two_kibibytes():
    plan = EpisodePlan(size=125, step_ms=MINUTE, smooth_delay=46)
    assert Episodes(plan, TAIL, n_looks=2).state.bytes_per_row <= 2048
