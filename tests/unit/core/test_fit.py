"""Fitting from tables: windows of each key, an honest tail, and facts for the manifest."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from streamad.config import PipelineConfig
from streamad.detectors.knn import KNN
from streamad.detectors.timercd import TimeRcd
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_columns
from streamad.training.fit import (
    N_SEEDS,
    cut_windows,
    fit_detector,
    measure_tail,
    pick_size,
)

CONFIG = PipelineConfig.model_validate(
    {"name": "t", "windows": {"size": 32}, "detector": "knn", "series": {"ttl": "36500d"}}
)
AUTO = CONFIG.model_copy(update={"windows": PipelineConfig(name="t").windows})


def knn(size: int | None) -> KNN:
    return KNN(size=size)


def two_hosts(n: int = 900, *, spike: bool = False):
    t = np.arange(n)
    rng = np.random.default_rng(0)
    one = np.sin(2 * np.pi * t / 50) + 0.1 * rng.normal(size=n)
    two = 100 + 10 * np.sin(2 * np.pi * t / 50) + rng.normal(size=n)
    if spike:
        one[-60:-30] += 20
    keys = ["one", "two"] * n
    values = np.stack([one, two], axis=1).ravel()
    return make_columns(keys, np.repeat(t * 1000, 2), values)


def test_every_key_is_a_group_with_its_own_windows_in_order():
    cut = cut_windows(CONFIG, knn(32), two_hosts(100))
    assert cut.names == ("one", "two")
    assert np.bincount(cut.groups).tolist() == [69, 69]
    assert (np.diff(cut.groups) >= 0).all()
    assert cut.values[0, 1:].tolist() == cut.values[1, :-1].tolist()
    assert cut.values[cut.groups == 1].min() > 80


def test_a_key_too_short_for_a_window_is_no_group():
    short = make_columns(["a"] * 100 + ["b"] * 5, [*range(100), *range(5)], np.zeros(105))
    assert cut_windows(CONFIG, knn(32), short).names == ("a",)


def test_many_rows_are_cut_at_a_longer_stride_and_memory_stays_bounded(monkeypatch):
    monkeypatch.setattr("streamad.training.fit.MAX_WINDOW_BYTES", 40 * 32 * 4)
    cut = cut_windows(CONFIG, knn(32), two_hosts(1000))
    assert len(cut.values) <= 64
    assert cut.names == ("one", "two")


def test_auto_takes_the_period_of_the_series():
    assert pick_size(knn, AUTO, two_hosts()) == 50
    assert pick_size(knn, CONFIG, two_hosts()) == 32


@pytest.mark.parametrize(("n", "size"), [(10, 10), (24, 16), (50, 16), (150, 37), (1000, 125)])
def test_auto_leaves_room_for_several_windows_where_nothing_repeats(n: int, size: int):
    flat = np.zeros(n)
    assert pick_size(knn, AUTO, make_columns(["a"] * n, range(n), flat)) == size


def test_the_manifest_says_what_was_learned_from_what():
    fitted = fit_detector(knn, CONFIG, two_hosts(), facts={"licence": "MIT"})
    told = fitted.manifest
    assert (told.detector, told.size, told.licence) == ("knn", 32, "MIT")
    assert told.groups == ("one", "two")
    assert (told.trained.rows, told.trained.windows) == (1800, 2 * 869)
    assert (told.trained.from_ms, told.trained.to_ms) == (0, 899_000)
    assert told.config_checksum == CONFIG.decision_checksum()


def test_the_tail_is_out_of_sample_ascending_and_deterministic():
    measured = measure_tail(knn, CONFIG, two_hosts(), size=32)
    assert measured.n_windows == 600
    assert measured.tail is not None
    assert all(a < b for a, b in pairwise(measured.tail))
    assert measured.tail == measure_tail(knn, CONFIG, two_hosts(), size=32).tail


def test_each_key_has_block_maxima_of_its_own_newest_first():
    seeds = measure_tail(knn, CONFIG, two_hosts(spike=True), size=32).seeds
    assert set(seeds) == {"one", "two"}
    assert seeds["one"].shape == (2, N_SEEDS)
    known = seeds["one"][0] >= 0
    assert known.sum() == 300 // 32
    # The spike is in the last blocks of one, and nowhere in two.
    assert seeds["one"][1][:3].max() > 5 * seeds["two"][1].max()


def test_an_anomaly_in_the_training_data_does_not_lift_the_level_out_of_reach():
    calm = measure_tail(knn, CONFIG, two_hosts(), size=32).tail
    marred = measure_tail(knn, CONFIG, two_hosts(spike=True), size=32).tail
    assert calm is not None
    assert marred is not None
    assert marred[1] < 3 * calm[1]


class Drawn(KNN):
    """Judged by the Box-Cox transform of its scores."""

    info = replace(KNN.info, power=0.25)


def test_maxima_are_of_what_is_judged_and_the_tail_is_in_the_detectors_unit():
    batch = two_hosts(spike=True)
    plain = measure_tail(knn, CONFIG, batch, size=32)
    drawn = measure_tail(lambda size: Drawn(size=size), CONFIG, batch, size=32)
    centred, newest = drawn.seeds["one"]
    assert 0 < centred.max() < 0.5 * plain.seeds["one"][0].max()
    np.testing.assert_array_equal(newest, plain.seeds["one"][1])
    assert plain.tail is not None
    assert drawn.tail is not None
    # The law is another one; its body says the same of the detector's scores.
    assert drawn.tail[0] == pytest.approx(plain.tail[0], rel=0.3)


def test_too_few_windows_say_nothing_of_a_tail():
    assert measure_tail(knn, CONFIG, two_hosts(120), size=32).tail is None


def test_scores_that_are_all_equal_still_make_a_rising_tail():
    n = 900
    flat = make_columns(["one"] * n, np.arange(n) * 1000, np.zeros(n))
    tail = measure_tail(knn, CONFIG, flat, size=32).tail
    assert tail is not None
    assert all(a < b for a, b in pairwise(tail))
    assert np.isfinite(tail).all()


def test_nothing_to_fit_on_is_said():
    with pytest.raises(ConfigError, match="no rows"):
        fit_detector(knn, CONFIG, make_columns([], [], []))
    with pytest.raises(ConfigError, match="windows have 32 samples and the longest series has 9"):
        fit_detector(knn, CONFIG, make_columns(["a"] * 9, range(9), np.zeros(9)))


def test_a_window_that_is_all_of_the_context_has_no_size_from_a_period():
    def timercd(size):
        return TimeRcd(size=size)

    assert pick_size(timercd, AUTO, two_hosts()) == TimeRcd.info.default_size
    assert pick_size(timercd, CONFIG, two_hosts()) == 32
    detector = TimeRcd(size=512)
    modality = DetectOperator(AUTO, detector).modality
    assert [modality.episodes.size, modality.episodes.window] == [detector.reach, 512] == [64, 512]
    fitted = fit_detector(timercd, AUTO, two_hosts(200))
    assert fitted.manifest.size == TimeRcd.info.default_size
