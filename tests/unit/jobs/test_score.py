"""One score a row, in place, and nothing known before its time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import jobs.offline.score
from connectors.files import ROW_MS
from jobs.offline.score import Scored, pipeline_for, score_table
from jobs.offline.tables import read_table
from streamad.artifacts import save_artifact
from streamad.errors import ConfigError

N, TRAIN, SIZE = 700, 400, 32
T0 = 1_700_000_000_000


def wave(n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sin(2 * np.pi * np.arange(n) / 40) + 0.05 * rng.normal(size=n)


def score(  # noqa: PLR0913 - all by keyword
    frame: pl.DataFrame,
    folder: Path,
    *,
    detector: str = "knn",
    train_end: int | None = TRAIN,
    time: str | None = None,
    key: Sequence[str] = (),
    columns: Sequence[str] = (),
    joint: bool = False,
    size: int | None = SIZE,
    artifact: str | None = None,
) -> Scored:
    frame.write_parquet(folder / "in.parquet")
    table = read_table(folder / "in.parquet", columns=columns, time=time, key=key, joint=joint)
    config = pipeline_for(table, detector=detector, size=size, artifact=artifact)
    return score_table(table, config, train_end=train_end)


def series(values: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"timestamp": T0 + np.arange(len(values)) * 60_000, "v0": values})


@pytest.mark.parametrize("detector", ["robust_z", "knn", "knn_fused", "pca"])
def test_every_row_has_its_score_in_its_place(tmp_path: Path, detector: str):
    values = wave()
    values[550] += 8
    made = score(series(values), tmp_path, detector=detector)
    frame = made.frame
    assert frame["row"].to_list() == list(range(N))
    assert frame["timestamp"].to_list() == (T0 + np.arange(N) * 60_000).tolist()
    scores = frame["score"].to_numpy()
    assert np.isfinite(scores).all()
    assert abs(int(scores[TRAIN:].argmax()) + TRAIN - 550) <= SIZE // 2
    # Every row from train_end on is judged, but for the last `lag` of them.
    incomplete = frame["incomplete"].to_numpy()
    assert incomplete[TRAIN : N - made.lag].sum() == 0
    assert incomplete[N - made.lag :].all()
    assert (scores[N - made.lag :] == scores[N - made.lag - 1]).all()


@pytest.mark.parametrize("detector", ["robust_z", "knn", "knn_fused", "pca"])
def test_a_score_knows_nothing_after_its_lag(tmp_path: Path, detector: str):
    values = wave()
    whole = score(series(values), tmp_path, detector=detector)
    changed = values.copy()
    changed[560:] += np.random.default_rng(1).normal(size=N - 560) * 50
    other = score(series(changed), tmp_path, detector=detector)
    same = 560 - whole.lag
    for column in ("score", "p_value", "severity", "alert"):
        assert whole.frame[column][:same].equals(other.frame[column][:same])
    assert not whole.frame["score"].equals(other.frame["score"])


def test_a_score_is_the_same_when_the_file_ends_earlier(tmp_path: Path):
    values = wave()
    whole = score(series(values), tmp_path, size=None)
    cut = score(series(values[:560]), tmp_path, size=None)
    same = 560 - whole.lag
    assert whole.size == cut.size
    assert whole.frame["score"][:same].equals(cut.frame["score"][:same])


def test_the_size_of_chunks_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = wave()
    values[550:560] += 8
    whole = score(series(values), tmp_path)
    for chunk in (1, 7, 100):
        monkeypatch.setattr(jobs.offline.score, "CHUNK", chunk)
        assert score(series(values), tmp_path).frame.equals(whole.frame)


def test_a_detector_of_partial_windows_judges_a_young_series_and_no_training_row(tmp_path: Path):
    values = wave()
    values[90] += 8
    values[550] += 8
    young = score(series(values), tmp_path, detector="timercd", size=512, train_end=None)
    judged = np.flatnonzero(young.frame["incomplete"].to_numpy() == 0)
    assert judged[0] == 63 - young.lag
    assert judged[-1] == N - 1 - young.lag
    assert len(judged) == judged[-1] - judged[0] + 1
    scores = young.frame["score"].to_numpy()
    near = np.zeros(N, np.bool_)
    near[88:93] = near[548:553] = True
    assert min(scores[90], scores[550]) > 3 * scores[~near].max()
    # What comes before is context: the windows that it fills in part are not heard.
    trained = score(series(values), tmp_path, detector="timercd", size=128)
    incomplete = trained.frame["incomplete"].to_numpy()
    assert incomplete[: TRAIN - trained.lag].all()
    assert not incomplete[TRAIN - trained.lag : N - trained.lag].any()
    full = trained.frame["score"][TRAIN:].arg_max()
    assert full is not None
    assert full + TRAIN == 550


def test_only_rows_before_train_end_are_fitted_on(tmp_path: Path):
    """A change right at train_end must look strange: it was not in what was fitted."""
    values = wave()
    values[TRAIN:] = values[TRAIN:] * 0.1 + 5
    frame = score(series(values), tmp_path).frame
    assert frame["score"][TRAIN + SIZE] > 2 * frame["score"][TRAIN - SIZE // 2]


def test_alerts_cover_the_anomaly_and_agree_with_severity(tmp_path: Path):
    values = wave()
    values[600:612] += 8
    made = score(series(values), tmp_path)
    frame = made.frame
    alerted = frame.filter(pl.col("alert") == 1)
    assert len(alerted) >= 12
    assert alerted["row"].min() >= 600 - SIZE
    assert alerted["row"].max() <= 612 + 2 * SIZE
    assert alerted["severity"].max() >= 1.0
    assert frame.filter(pl.col("severity") >= 1.0)["alert"].min() == 1
    assert [alert.state for alert in made.alerts].count("opened") == 1


def test_a_second_row_of_a_time_carries_the_score_of_the_first(tmp_path: Path):
    frame = series(wave())
    times = frame["timestamp"].to_numpy().copy()
    times[500] = times[499]
    times[510:513] = times[520:523]
    made = score(frame.with_columns(timestamp=times), tmp_path)
    double = [500, 520, 521, 522]
    assert len(made.frame) == N
    assert made.frame["row"].to_list() == list(range(N))
    assert made.frame["incomplete"].to_numpy()[double].all()
    scores = made.frame["score"].to_numpy()
    assert (scores[double] == scores[[499, 510, 511, 512]]).all()
    assert made.n_incomplete == made.lag + len(double)
    assert "4 of 331 rows come after later ones" in " ".join(made.notes)


def test_rows_judge_their_own_samples_though_doubles_lie_between(tmp_path: Path):
    """What is late is as if it were not there: all other rows score as without it."""
    values = wave()
    values[600] += 8
    clean = score(series(values), tmp_path).frame["score"].to_numpy()
    marred = np.insert(values, 500, 99.0)
    times = np.insert(T0 + np.arange(N) * 60_000, 500, T0 + 499 * 60_000)
    frame = pl.DataFrame({"timestamp": times, "v0": marred})
    found = score(frame, tmp_path).frame["score"].to_numpy()
    assert (np.delete(found, 500)[TRAIN:] == clean[TRAIN:]).all()


@pytest.mark.parametrize("order", ["newest first", "mixed"])
def test_the_order_of_rows_in_the_file_changes_no_score(tmp_path: Path, order: str):
    values = wave()
    values[550] += 8
    frame = series(values)
    place = (
        np.arange(N)[::-1] if order == "newest first" else np.random.default_rng(1).permutation(N)
    )
    wanted = score(frame, tmp_path).frame
    found = score(frame[place], tmp_path)
    assert found.frame["row"].to_list() == list(range(N))
    assert found.frame["score"].to_list() == wanted["score"].gather(place).to_list()


def test_every_column_is_a_series_of_its_own(tmp_path: Path):
    frame = series(wave()).with_columns(v1=wave(seed=5) * 3)
    values = frame["v1"].to_numpy().copy()
    values[600] += 60
    made = score(frame.with_columns(v1=values), tmp_path).frame
    alone = score(series(values).rename({"v0": "v1"}), tmp_path).frame
    assert made.columns[:3] == ["row", "timestamp", "series"]
    own = made.filter(pl.col("series") == "v1")
    # Both series fit one detector.
    assert abs(int(own["score"][TRAIN:].arg_max() or 0) + TRAIN - 600) <= SIZE // 2
    assert own["row"].to_list() == alone["row"].to_list()


def test_missing_cells_are_filled_and_too_many_of_them_are_incomplete(tmp_path: Path):
    values = wave()
    values[500] = np.nan
    values[560:600] = np.nan
    made = score(series(values), tmp_path)
    assert np.isfinite(made.frame["score"].to_numpy()).all()
    incomplete = made.frame["incomplete"].to_numpy()
    assert not incomplete[500]
    assert incomplete[580]


def test_keys_are_scored_as_if_each_were_alone(tmp_path: Path):
    one, two = wave(seed=1), 100 * wave(seed=2)
    both = pl.DataFrame(
        {
            "ts": np.repeat(np.arange(N), 2),
            "host": ["one", "two"] * N,
            "v": np.stack([one, two], axis=1).ravel(),
        }
    )
    made = score(both, tmp_path, key=["host"], train_end=None, detector="robust_z").frame
    for name, values in (("one", one), ("two", two)):
        alone = pl.DataFrame({"ts": np.arange(N), "host": [name] * N, "v": values})
        single = score(alone, tmp_path, key=["host"], train_end=None, detector="robust_z").frame
        assert made.filter(pl.col("host") == name)["score"].to_list() == single["score"].to_list()


def test_each_key_is_judged_from_its_first_row_after_the_training_part(tmp_path: Path):
    both = pl.DataFrame(
        {
            "ts": np.repeat(np.arange(N), 2),
            "host": ["one", "two"] * N,
            "v": np.stack([wave(seed=1), 100 * wave(seed=2)], axis=1).ravel(),
        }
    )
    made = score(both, tmp_path, key=["host"], train_end=2 * TRAIN)
    judged = made.frame[2 * TRAIN : 2 * (N - made.lag)]
    assert judged["incomplete"].sum() == 0


def test_a_key_unknown_to_the_training_part_is_learned_before_it_is_judged(tmp_path: Path):
    frame = pl.concat(
        [
            series(wave()).with_columns(host=pl.lit("old")),
            series(wave(seed=3)).with_columns(host=pl.lit("new")),
        ]
    )
    made = score(frame, tmp_path, key=["host"], train_end=TRAIN).frame
    new = made.filter(pl.col("host") == "new")
    warm = SIZE - 1 + 32 - SIZE // 2
    assert new["incomplete"][:warm].sum() == warm
    assert new["score"][:warm].to_list() == [0.0] * warm
    assert new["incomplete"].sum() < len(new) - 100


def test_without_training_a_cold_start_scores_zero_and_says_incomplete(tmp_path: Path):
    made = score(series(wave()), tmp_path, train_end=None)
    warm = SIZE - 1 + 32 - made.lag
    assert made.frame["incomplete"][:warm].sum() == warm
    assert made.frame["score"][:warm].to_list() == [0.0] * warm
    assert made.frame["p_value"][:warm].to_list() == [1.0] * warm
    assert made.frame["incomplete"][warm : N - made.lag].sum() == 0


def test_a_detector_that_needs_training_asks_for_it(tmp_path: Path):
    with pytest.raises(ConfigError, match="pca needs an artifact"):
        score(series(wave()), tmp_path, detector="pca", train_end=None)


def test_a_training_part_without_a_single_window_is_a_cold_start_and_said(tmp_path: Path):
    made = score(series(wave()), tmp_path, train_end=5)
    cold = score(series(wave()), tmp_path, train_end=None)
    assert any("started without training" in note for note in made.notes)
    assert made.frame.equals(cold.frame)
    with pytest.raises(ConfigError, match="no training window could be cut"):
        score(series(wave()), tmp_path, detector="pca", train_end=5)


@pytest.mark.parametrize("train_end", [0, N, -3, N + 1])
def test_an_impossible_train_end_is_refused(tmp_path: Path, train_end: int):
    with pytest.raises(ConfigError, match=r"--train-end must lie in 1 \.\. 699"):
        score(series(wave()), tmp_path, train_end=train_end)


def test_an_artifact_scores_as_the_fit_it_was_made_from(tmp_path: Path):
    values = wave()
    frame = series(values)
    direct = score(frame, tmp_path)
    frame[:TRAIN].write_parquet(tmp_path / "train.parquet")
    table = read_table(tmp_path / "train.parquet")
    fitted = jobs.offline.score.fit_table(table, pipeline_for(table, detector="knn", size=SIZE))
    save_artifact(tmp_path / "model", fitted.detector, fitted.manifest, seeds=fitted.seeds)
    loaded = score(frame, tmp_path, artifact=str(tmp_path / "model"))
    assert loaded.frame.equals(direct.frame)
    assert direct.size == loaded.size == SIZE


def test_several_columns_are_one_multivariate_series(tmp_path: Path):
    frame = series(wave()).with_columns(v1=wave(seed=5) * 3)
    values = frame["v1"].to_numpy().copy()
    values[600] += 60
    made = score(frame.with_columns(v1=values), tmp_path, columns=("v0", "v1"), joint=True).frame
    assert abs(int(made["score"][TRAIN:].arg_max() or 0) + TRAIN - 600) <= SIZE // 2


def test_far_apart_rows_do_not_make_a_key_forgotten(tmp_path: Path):
    frame = series(wave()).with_columns(timestamp=T0 + np.arange(N) * 86_400_000 * 30)
    assert score(frame, tmp_path).n_incomplete == SIZE // 2


# ------------------------------------------------------------------ reading


def test_labels_are_never_judged_and_a_column_nobody_has_is_named(tmp_path: Path):
    series(wave()).with_columns(label=pl.lit(0)).write_csv(tmp_path / "a.csv")
    assert read_table(tmp_path / "a.csv").columns == ("v0",)
    with pytest.raises(ConfigError, match="no column 'v1'; did you mean 'v0'"):
        read_table(tmp_path / "a.csv", columns=["v1"])
    with pytest.raises(ConfigError, match="did you mean 'timestamp'"):
        read_table(tmp_path / "a.csv", time="timestmp")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2], [0, ROW_MS, 2 * ROW_MS]),
        ([1_700_000_000, 1_700_000_060], [1_700_000_000_000, 1_700_000_060_000]),
        ([1_700_000_000_000, 1_700_000_060_000], [1_700_000_000_000, 1_700_000_060_000]),
        ([1_700_000_000_000_000], [1_700_000_000_000]),
        ([1_700_000_000.5], [1_700_000_000_500]),
        (["2023-11-14T22:13:20Z", "2023-11-14 22:13:21"], [1_700_000_000_000, 1_700_000_001_000]),
    ],
)
def test_times_are_read_in_the_unit_their_size_tells(tmp_path: Path, times, expected):
    pl.DataFrame({"time": times, "v": [0.0] * len(times)}).write_csv(tmp_path / "a.csv")
    assert read_table(tmp_path / "a.csv").batch.time_ms.tolist() == expected


def test_rows_are_the_time_where_there_is_none(tmp_path: Path):
    pl.DataFrame({"v": [5.0, 6.0]}).write_ndjson(tmp_path / "a.jsonl")
    table = read_table(tmp_path / "a.jsonl")
    assert (table.time, table.batch.time_ms.tolist()) == (None, [0, ROW_MS])
    assert read_table(tmp_path / "a.jsonl", time="row").time is None


def test_a_row_without_a_time_or_a_key_stays_in_its_place(tmp_path: Path):
    text = "ts,host,v\n1,a,1\nnever,a,2\n3,,3\n4,a,inf\n"
    (tmp_path / "a.csv").write_text(text)
    table = read_table(tmp_path / "a.csv", time="ts", key=["host"], columns=["v"])
    assert table.usable.tolist() == [True, False, False, True]
    assert table.n_unreadable == 1


def test_a_cell_that_is_no_number_is_missing_and_a_column_of_texts_is_no_variate(tmp_path: Path):
    (tmp_path / "a.csv").write_text(
        "ts,v,w\n" + "".join(f"{i},{i},x\n" for i in range(9)) + "9,?,x\n"
    )
    table = read_table(tmp_path / "a.csv")
    assert table.columns == ("v",)
    assert table.n_unreadable == 1
    with pytest.raises(ConfigError, match="'w' holds texts, and a variate must be numeric"):
        read_table(tmp_path / "a.csv", columns=["w"])
