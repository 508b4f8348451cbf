"""Raw scores become tail probabilities and episodes, per key."""

from itertools import pairwise

import numpy as np
import pytest
from streamad.scoring.tail import fit_tail, level_at, p_value, prior_scores

from streamad.scoring.episodes import EpisodePlan, Episodes
from streamad.scoring.kernels import ADOPTED, BEGAN, CONTINUES, ENDED, NOTHING

TAIL = (2.0, 4.0, 6.0, 8.0)


def judge(episodes, scores, *, code=0, start=0, suppressed=None):
    n = len(scores)
    quiet = np.zeros(n, np.bool_) if suppressed is None else np.array(suppressed)
    return episodes.judge(
        np.full(n, code, np.int32),
        np.asarray(scores, np.float32),
        np.arange(start, start + n, dtype=np.int64),
        quiet,
    )


def one_key(**settings):
    episodes = Episodes(EpisodePlan(**settings), TAIL)
    episodes.state.reserve(4)
    episodes.begin([0, 1], [7, 9])
    return episodes


def test_the_prior_is_the_default_tail():
    fitted = np.zeros(4)
    fit_tail(prior_scores(TAIL), 320.0, 0.0, 0.0, fitted)
    assert level_at(1e-2, *fitted) == pytest.approx(4.0, abs=0.6)
    assert level_at(1e-3, *fitted) == pytest.approx(6.0, abs=1.0)


@pytest.mark.parametrize("xi", [-0.2, 0.0, 0.3])
@pytest.mark.parametrize("p", [0.5, 0.05, 1e-3, 1e-5])
def test_level_and_probability_are_inverse(xi, p):
    tail = (3.0, 1.5, xi, 0.1)
    assert p_value(level_at(p, *tail), *tail) == pytest.approx(p, rel=1e-6)


def test_probability_falls_as_the_score_rises():
    tail = (3.0, 1.5, 0.2, 0.1)
    got = [p_value(s, *tail) for s in np.linspace(0, 50, 200)]
    assert all(a >= b for a, b in pairwise(got))
    assert 0 < got[-1] < 1e-4


def test_candidates_come_as_rarely_as_asked():
    episodes = one_key(candidate=1e-3)
    rng = np.random.default_rng(1)
    scores = rng.exponential(1.0, 60_000).astype(np.float32)
    made = judge(episodes, scores)
    share = made.candidate[5_000:].mean()
    assert 2e-4 < share < 3e-3


def test_an_episode_begins_goes_on_and_ends():
    episodes = one_key(min_windows=32, cool_down=3, update_every=4)
    scores = [1.0] * 40 + [20, 20, 20, 20, 20, 30] + [0.5] * 5
    made = judge(episodes, scores)
    events = [(i, int(e)) for i, e in enumerate(made.event) if e != NOTHING]
    assert events == [(40, BEGAN), (44, CONTINUES), (45, CONTINUES), (48, ENDED)]
    assert made.sequence[[40, 44, 45, 48]].tolist() == [0, 1, 2, 3]
    assert made.opened_ms[[40, 48]].tolist() == [40, 40]
    assert made.peak[48] == 30
    assert made.inside[40:49].all()
    assert not made.inside[49:].any()


def test_crossing_what_the_alert_stage_acts_on_is_told_at_once():
    episodes = one_key(notable=1e-4, update_every=1_000, cool_down=100)
    quiet = judge(episodes, [1.0] * 40)
    entry = float(quiet.level[-1])
    tail = episodes.state["tail"][0]
    boundary = level_at(1e-4, *tail)
    just_below, just_above = boundary * 0.99, boundary * 1.01
    assert entry < just_below < just_above < just_below * 1.1
    made = judge(episodes, [just_below, just_above, just_above], start=40)
    assert made.event.tolist() == [BEGAN, CONTINUES, NOTHING]


def test_min_duration_opens_late_and_remembers_when_it_began():
    episodes = one_key(min_duration=3)
    made = judge(episodes, [1.0] * 40 + [20, 20, 1, 20, 20, 20])
    assert np.flatnonzero(made.event == BEGAN).tolist() == [45]
    assert made.began_ms[45] == 43
    assert made.opened_ms[45] == 45


def test_a_cold_key_makes_no_episode():
    episodes = one_key(min_windows=32)
    made = judge(episodes, [50.0] * 20)
    assert (made.event == NOTHING).all()


def test_suppressed_windows_open_nothing():
    episodes = one_key()
    made = judge(episodes, [1.0] * 40 + [50.0], suppressed=[False] * 40 + [True])
    assert (made.event == NOTHING).all()


def test_what_is_alerted_on_is_not_learned_as_normal():
    episodes = one_key(adopt_after=10_000)
    rng = np.random.default_rng(2)
    judge(episodes, rng.exponential(1.0, 2_000).astype(np.float32))
    before = episodes.state["levels"][0, 0]
    made = judge(episodes, np.full(1_500, 40.0, np.float32), start=2_000)
    assert made.inside.all()
    judge(episodes, rng.exponential(1.0, 300).astype(np.float32), start=4_000)
    assert episodes.state["levels"][0, 0] < 1.5 * before


def test_a_lasting_level_is_adopted_once_and_is_then_normal():
    episodes = one_key(adopt_after=500)
    rng = np.random.default_rng(3)
    judge(episodes, rng.exponential(1.0, 2_000).astype(np.float32))
    high = (40 + rng.exponential(1.0, 2_000)).astype(np.float32)
    made = judge(episodes, high, start=2_000)
    assert (made.event == ADOPTED).sum() == 1
    adopted = int(np.flatnonzero(made.event == ADOPTED)[0])
    assert (made.event[adopted + 1 :] == BEGAN).sum() <= 2


def test_a_constant_score_is_never_strange():
    episodes = one_key()
    for value in (0.0, 1.0, 100.0):
        made = judge(episodes, np.full(3_000, value, np.float32), code=1)
        assert (made.event[2_100:] == NOTHING).all()
        assert np.isfinite(made.p_value).all()


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_batches_do_not_matter(batch):
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 2, 3_000).astype(np.int32)
    scores = rng.exponential(1.0, 3_000).astype(np.float32)
    scores[2_000:2_040] = 30
    times = np.arange(3_000, dtype=np.int64)
    none = np.zeros(3_000, np.bool_)
    whole = one_key()
    expected = whole.judge(codes, scores, times, none)
    parts = one_key()
    events, p_values = [], []
    for s in range(0, 3_000, batch):
        cut = slice(s, s + batch)
        made = parts.judge(codes[cut], scores[cut], times[cut], none[cut])
        events.append(made.event)
        p_values.append(made.p_value)
    assert (np.concatenate(events) == expected.event).all()
    assert np.concatenate(p_values).tobytes() == expected.p_value.tobytes()
    for name in whole.state.arrays:
        assert whole.state[name][:2].tobytes() == parts.state[name][:2].tobytes()
