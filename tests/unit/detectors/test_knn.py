import numpy as np
import pytest

from streamad.detectors.knn import KNN, FusedKNN
from streamad.errors import ArtifactError, NotFittedError, WindowError

SIZE = 16


def wave(n, seed=0, n_variates=1):
    rng = np.random.default_rng(seed)
    phase = np.arange(n)[:, None] + 3 * np.arange(n_variates)
    noisy = np.sin(phase / 3) + 0.2 * rng.normal(size=(n, n_variates))
    return noisy.astype(np.float32)


def windows_of(series, size=SIZE, stride=1):
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)[::stride]
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def slots(n, slot=0):
    return np.full(n, slot, dtype=np.int32)


def distances(query, places):
    """Distances of one window to many, the plain way."""
    return np.sqrt(((places - query) ** 2).mean(axis=(1, 2)))


def in_spreads(detector, distances, row=0, usual=None):
    """Distances as the detector tells them: in spreads from what is usual."""
    middle, spread = (detector.state()["usual"][0] if usual is None else usual)[row]
    return np.maximum((np.array(distances) - middle) / spread, 0)


def stream(detector, memory, windows, admit=None, stride=1):
    every = detector.info.learn_every
    scores = []
    for first in range(0, len(windows), every):
        part = windows[first : first + every]
        ok = np.ones(len(part), bool) if admit is None else admit[first : first + every]
        scores.append(detector.score(part, memory=memory, slots=slots(len(part))))
        detector.learn(memory, part, slots=slots(len(part)), admit=ok, stride=stride)
    return np.concatenate(scores)


@pytest.mark.parametrize("n_variates", [1, 3])
def test_the_score_is_the_mean_of_the_three_smallest_distances(n_variates):
    series = wave(400, n_variates=n_variates)
    training, windows = windows_of(series), windows_of(wave(40, 1, n_variates))
    scale = series.std(axis=0)
    expected = [np.sort(distances(w / scale, training / scale))[:3].mean() for w in windows]
    detector = KNN(size=SIZE).fit(training)
    scores = detector.score(windows)
    np.testing.assert_allclose(scores, in_spreads(detector, expected), rtol=1e-3, atol=1e-4)


def nearest(windows, series, start, length, scale):
    places = windows_of(series, length) / scale
    return [
        np.sort(distances(w[start : start + length] / scale, places))[:3].mean() for w in windows
    ]


def test_fused_takes_the_larger_of_two_lengths_each_in_its_own_spreads():
    series = wave(400)
    training, windows = windows_of(series), windows_of(wave(40, 1))
    detector = FusedKNN(size=SIZE).fit(training)
    # The short one stands ahead of the judged sample (7) by what smoothing trails (1).
    parts = [(6, 4), (0, 16)]
    told = [
        in_spreads(detector, nearest(windows, series, *part, series.std()), row)
        for row, part in enumerate(parts)
    ]
    expected = np.max(told, axis=0)
    np.testing.assert_allclose(detector.score(windows), expected, rtol=1e-3, atol=1e-4)


def test_the_look_at_the_newest_samples_sums_three_short_lengths():
    series = wave(400)
    training, windows = windows_of(series), windows_of(wave(40, 1))
    detector = FusedKNN(size=SIZE).fit(training)
    total = sum(np.array(nearest(windows, series, SIZE - n, n, series.std())) for n in (4, 8, 16))
    told = detector.looks(windows)[:, 1]
    np.testing.assert_allclose(told, in_spreads(detector, total, -1), rtol=1e-3, atol=1e-3)


def test_a_spike_shows_at_once_in_the_newest_samples_and_later_in_the_centred_look():
    detector = FusedKNN(size=SIZE).fit(windows_of(wave(400)))
    series = wave(100, 1)
    series[60] += 4
    looks = detector.looks(windows_of(series))
    ends = np.arange(len(looks)) + SIZE - 1
    assert ends[looks[:, 1].argmax()] == 60
    assert 60 < ends[looks[:, 0].argmax()] <= 60 + detector.lag + 4


@pytest.mark.parametrize("stride", [1, 3, 15])
def test_overlapping_training_windows_become_one_series_again(stride):
    series = wave(400)
    training = windows_of(series, stride=stride)
    state = KNN(size=SIZE).fit(training).state()
    n = (len(training) - 1) * stride + SIZE
    assert state["samples"].shape == (1, n)
    assert state["usable"].all()
    expected = (series[:n] - np.median(series[:n])) / series[:n].std()
    np.testing.assert_allclose(state["samples"][0], expected[:, 0], rtol=1e-4, atol=1e-6)


def test_windows_apart_and_groups_are_not_joined():
    training = windows_of(wave(64), stride=SIZE)
    state = KNN(size=SIZE).fit(training, groups=np.array([0, 0, 1, 1], dtype=np.int32)).state()
    assert state["samples"].shape == (1, 4 * SIZE + 3)
    assert np.flatnonzero(state["usable"] == 0).tolist() == [16, 33, 50]


def test_missing_samples_of_a_query_are_left_out():
    training, windows = windows_of(wave(400)), windows_of(wave(40, 1))
    detector = KNN(size=SIZE).fit(training)
    holed = windows.copy()
    holed[:, 5:7] = np.nan
    scale = wave(400).std()
    keep = [i for i in range(SIZE) if i not in (5, 6)]
    expected = [
        np.sort(distances(w[keep] / scale, training[:, keep] / scale))[:3].mean() for w in windows
    ]
    told = in_spreads(detector, expected)
    np.testing.assert_allclose(detector.score(holed), told, rtol=1e-3, atol=1e-4)


def test_missing_training_samples_are_nobodys_neighbour():
    series = wave(400)
    series[100:103] = np.nan
    training = windows_of(series)
    complete = training[~np.isnan(training).any(axis=(1, 2))]
    windows, scale = windows_of(wave(40, 1)), np.nanstd(series)
    expected = [np.sort(distances(w / scale, complete / scale))[:3].mean() for w in windows]
    detector = KNN(size=SIZE).fit(training)
    told = in_spreads(detector, expected)
    np.testing.assert_allclose(detector.score(windows), told, rtol=1e-3, atol=1e-4)


def test_a_new_shape_is_strange_once_and_known_after_the_delay():
    detector = KNN(size=SIZE).fit(windows_of(wave(400)))
    memory = detector.new_memory(1)
    detector.seed_memory(memory, slot=0, group=0)
    series = wave(700, 1)
    for at in (200, 210, 220, 500):
        series[at : at + 8] += 3
    scores = stream(detector, memory, windows_of(series))
    judged = lambda t: scores[t - (SIZE - 1) + detector.lag]  # noqa: E731
    assert judged(203) > 5 * np.median(scores)
    assert judged(223) > 0.8 * judged(203)  # too recent to count as past
    assert judged(503) < 0.7 * judged(203)


def test_what_was_not_admitted_stays_strange():
    detector = KNN(size=SIZE).fit(windows_of(wave(400)))
    memory = detector.new_memory(1)
    detector.seed_memory(memory, slot=0, group=0)
    series = wave(700, 1)
    for at in (200, 500):
        series[at : at + 8] += 3
    windows = windows_of(series)
    admit = np.ones(len(windows), bool)
    admit[200 - SIZE : 216] = False
    scores = stream(detector, memory, windows, admit)
    judged = lambda t: scores[t - (SIZE - 1) + detector.lag]  # noqa: E731
    assert judged(503) > 0.7 * judged(203)


def test_a_cold_key_takes_its_scale_from_its_warm_up_and_then_sees_all_of_it():
    detector = KNN(size=SIZE)
    memory = detector.new_memory(1)
    memory.reserve(1)
    series = wave(600) * 50 + 1000
    scores = stream(detector, memory, windows_of(series))
    warm = detector.info.warm_up
    assert (scores[:warm] == 0).all()
    seen = series[: warm + SIZE - 1]
    memory = detector.new_memory(1)
    memory.reserve(1)
    stream(detector, memory, windows_of(series)[:warm])
    assert memory.loc[0, 0] == pytest.approx(np.median(seen))
    assert memory.scale[0, 0] == pytest.approx(seen.std(), rel=1e-4)
    past, window = windows_of(seen)[:-15] / seen.std(), windows_of(series)[warm] / seen.std()
    expected = np.sort(distances(window, past[: warm - SIZE]))[:3].mean()
    told = in_spreads(detector, expected, usual=memory.usual[0])
    assert scores[warm] == pytest.approx(told, rel=1e-3, abs=1e-3)


def test_a_key_is_measured_again_once_it_has_shown_more():
    detector = KNN(size=SIZE)
    memory = detector.new_memory(1)
    memory.reserve(1)
    series = wave(600)
    series[100:] *= 5
    windows = windows_of(series)
    stream(detector, memory, windows[:240])
    early = memory.scale[0, 0]
    stream(detector, memory, windows[240:256])
    assert memory.scale[0, 0] > 2 * early


def test_what_was_banned_is_learned_once_it_is_adopted():
    detector = KNN(size=SIZE)
    memory = detector.new_memory(1)
    memory.reserve(1)
    series = wave(900)
    series[400:] += 50
    windows = windows_of(series)
    stream(detector, memory, windows[:400])
    before = detector.score(windows[500:501], memory=memory, slots=slots(1))[0]
    stream(detector, memory, windows[400:784], admit=np.zeros(384, bool))
    assert detector.score(windows[784:785], memory=memory, slots=slots(1))[0] > 0.5 * before
    detector.adopt(memory, slots(1))
    stream(detector, memory, windows[784:800], admit=np.zeros(16, bool))
    assert detector.score(windows[800:801], memory=memory, slots=slots(1))[0] < 0.1 * before


@pytest.mark.parametrize("constant", [0.0, 100.0, -3.5])
def test_a_departure_from_a_constant_past_does_not_depend_on_the_unit(constant):
    told = []
    for unit in (1.0, 1000.0):
        detector = FusedKNN(size=SIZE)
        memory = detector.new_memory(1)
        memory.reserve(1)
        series = np.full((200, 1), constant * unit, np.float32)
        series[150:] += unit
        told.append(stream(detector, memory, windows_of(series)))
    np.testing.assert_allclose(told[0], told[1], rtol=1e-4)
    assert told[0].max() > 100


@pytest.mark.parametrize("stride", [2, SIZE, SIZE + 5])
def test_any_stride_is_learned_from(stride):
    detector = KNN(size=SIZE, history=500)
    memory = detector.new_memory(1)
    memory.reserve(1)
    scores = stream(detector, memory, windows_of(wave(400 * stride), stride=stride), stride=stride)
    assert np.isfinite(scores).all()
    assert (scores[detector.info.warm_up :] > 0).mean() > 0.2


def test_a_ring_that_is_full_forgets_the_oldest():
    detector = KNN(size=SIZE, history=100)
    memory = detector.new_memory(1)
    memory.reserve(1)
    series = wave(1500)
    series[300:308] += 3  # after the warm-up
    series[1300:1308] += 3  # when the ring has long turned
    scores = stream(detector, memory, windows_of(series))
    judged = lambda t: scores[t - (SIZE - 1) + detector.lag]  # noqa: E731
    assert judged(1303) > 0.7 * judged(303)


def test_an_unknown_group_leaves_its_key_cold():
    detector = KNN(size=SIZE).fit(windows_of(wave(100)))
    memory = detector.new_memory(1)
    detector.seed_memory(memory, slot=0, group=4)
    assert memory.phase[0] == 0


def test_the_reference_has_a_bound_and_room_for_several_groups():
    groups = np.repeat(np.arange(40, dtype=np.int32), 85)
    training = np.concatenate([windows_of(wave(100, seed)) for seed in range(40)])
    state = KNN(size=SIZE, reference=640).fit(training, groups=groups).state()
    assert state["samples"].shape[1] <= 640 + 10
    assert state["loc"].shape == (40, 1)


def test_the_expected_value_is_the_neighbours_in_units_of_the_input():
    series = wave(400) * 50 + 1000
    detector = FusedKNN(size=SIZE).fit(windows_of(series))
    window = windows_of(series)[100:101].copy()
    judged = SIZE - 1 - detector.lag
    right = float(window[0, judged, 0])
    window[0, judged] += 400
    told = detector.explain(window)
    assert told.observed[0, 0] == pytest.approx(right + 400)
    assert told.expected[0, 0] == pytest.approx(right, abs=60)


def test_the_judged_sample_can_be_the_newest():
    detector = FusedKNN(size=SIZE, lag=0).fit(windows_of(wave(400)))
    windows = windows_of(wave(40, 1))
    windows[9, -1] += 4
    assert detector.score(windows).argmax() == 9
    assert detector.explain(windows).position[9] == SIZE - 1


def test_misuse_is_told_in_words():
    windows = windows_of(wave(100))
    detector = KNN(size=SIZE)
    with pytest.raises(NotFittedError, match="call fit"):
        detector.score(windows)
    with pytest.raises(WindowError, match="at least one"):
        detector.fit(windows[:0])
    with pytest.raises(WindowError, match="lag"):
        KNN(size=SIZE, lag=SIZE)
    with pytest.raises(WindowError, match="1 or more"):
        KNN(size=SIZE, k=0)
    memory = detector.fit(windows).new_memory(1)
    with pytest.raises(WindowError, match="reserve"):
        detector.score(windows, memory=memory, slots=slots(len(windows), 7))
    with pytest.raises(WindowError, match="variates"):
        detector.score(windows_of(wave(50, n_variates=2)))
    with pytest.raises(ArtifactError, match=r"windows\.size"):
        KNN(size=SIZE + 1).load(detector.state())
    with pytest.raises(ArtifactError, match="does not fit"):
        KNN(size=SIZE, history=9).new_memory(1).load(slots(0), memory.state(slots(0)))
