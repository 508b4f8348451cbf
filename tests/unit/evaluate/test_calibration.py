"""p-values of the newest samples on ordinary rows, through the code that scores files."""

import numpy as np
import polars as pl
import pytest

from jobs.offline.score import pipeline_for, score_table
from jobs.offline.tables import read_table

STEP_MS, N, SETTLED = 300_000, 4_000, 1_500


def noise(rng):
    return rng.normal(size=N)


def slow(rng):
    values, steps = np.zeros(N), rng.normal(size=N)
    for i in range(1, N):
        values[i] = 0.95 * values[i - 1] + steps[i]
    return values


def daily(rng):
    turn = 2 * np.pi * np.arange(N) * STEP_MS / 86_400_000
    return 3 * np.sin(turn) + np.sin(8 * turn) + 0.3 * rng.normal(size=N)


def with_a_lasting_level(rng):
    values = rng.normal(size=N)
    values[1_000:] += 10
    return values


def scored(tmp_path, values, train_end):
    times = 1_772_323_200_000 + np.arange(N) * STEP_MS
    pl.DataFrame({"timestamp": times, "value": values}).write_csv(tmp_path / "a.csv")
    table = read_table(tmp_path / "a.csv", columns=["value"], time="timestamp")
    config = pipeline_for(table, detector="knn", size=64)
    return score_table(table, config, train_end=train_end)


@pytest.mark.parametrize("train_end", [None, 900])
@pytest.mark.parametrize("made", [noise, slow, daily, with_a_lasting_level])
def test_ordinary_windows_are_as_rare_as_their_p_values_promise(tmp_path, made, train_end):
    # A level that lasts is adopted a day (288 rows) after it began, within what is left out.
    newest = []
    for seed in (0, 1, 2):
        found = scored(tmp_path, made(np.random.default_rng(seed)), train_end)
        newest.append(np.concatenate([one.newest_p for one in found.scores])[SETTLED - N :])
    p = np.concatenate(newest)
    assert np.isfinite(p).mean() > 0.95
    assert (p < 1e-2).mean() < 3e-2
    assert (p < 1e-3).mean() < 5e-3


def test_a_file_may_adopt_a_lasting_level_as_a_stream_does(tmp_path):
    found = scored(tmp_path, with_a_lasting_level(np.random.default_rng(2)), 800)
    assert any("adopted" in one.summary for one in found.alerts)
    p = np.concatenate([one.newest_p for one in found.scores])[-2_000:]
    assert np.median(p) > 0.1
