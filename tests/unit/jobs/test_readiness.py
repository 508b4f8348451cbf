"""When alerts can come, as `validate`, `score` and `backtest` say it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from jobs.build import build_detect
from jobs.cli import main
from jobs.offline.readiness import beyond_memory, readiness, samples, still_learning
from streamad.config import PipelineConfig
from streamad.records import FLAG_WARMING, SignalBatch

DAY_MS = 86_400_000


def operator_of(**more):
    tree = {"name": "p", "windows": {"size": 32}, "series": {"step": "10s"}, **more}
    return build_detect(PipelineConfig.model_validate(tree))


def one_key(values: np.ndarray, step_ms: int = 10_000) -> SignalBatch:
    n = len(values)
    return SignalBatch(
        keys=pl.Series(["a"] * n), time_ms=np.arange(1, n + 1) * step_ms,
        values=values.reshape(-1, 1), message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32), offsets=np.zeros(1, np.int64),
        broker_ms=np.full(1, -1, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("detector", ["robust_z", "knn", "knn_fused"])
def test_it_is_scored_and_watched_from_the_samples_it_says(detector: str):
    operator = operator_of(detector=detector)
    said = readiness(operator)
    rng = np.random.default_rng(0)
    scored = operator.process(operator.new_state(), one_key(rng.normal(size=200))).scores
    flags = np.concatenate([one.flags for one in scored])
    first = np.flatnonzero(flags & FLAG_WARMING == 0)[0]
    assert said.scored == 32 + first
    opened = {}
    for at in range(said.watched - 4, said.watched + 4):  # a leap from this sample on, from 0
        values = rng.normal(size=at + 40)
        values[at:] += 1_000
        out = operator.process(operator.new_state(), one_key(values))
        opened[at] = out.findings[0].window_end_ms // 10_000
    assert opened == {at: max(at + 1, said.watched) for at in opened}


def test_a_second_look_learns_for_a_day():
    lines = readiness(operator_of(detector="knn_fused")).lines()
    assert lines["all_alerts_after"] == "1 d; until then only sudden changes alert"
    assert readiness(operator_of(detector="robust_z")).learning_ms in {0, DAY_MS}


def test_a_level_rarer_than_its_history_is_said_to_be():
    assert beyond_memory(operator_of()) is None
    said = beyond_memory(operator_of(alerts={"level": "90d"}))
    assert said == (
        "alerts.level asks for once in 90 d, but scoring.memory holds 14 d of history: the level "
        "is extrapolated from that"
    )
    assert beyond_memory(operator_of(alerts={"level": 1e-9})) is None


def test_keys_in_their_first_day_are_counted():
    operator = operator_of(detector="knn_fused")
    assert still_learning([DAY_MS, 2 * DAY_MS], operator) is None
    assert still_learning([], operator) is None
    assert "1 of 2 keys has less than 1 d of history" in str(still_learning([5, DAY_MS], operator))
    assert "the series has less" in str(still_learning([5], operator))


def test_samples_are_also_a_time():
    assert samples(0, 1_000) == "0 samples"
    assert samples(1_440, 60_000) == "1,440 samples (1 d)"


def test_the_commands_say_it(tmp_path, capsys):
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: p\ninput: {topics: t}\nseries: {step: 10s}\nwindows: {size: 64}\n"
        "detector: knn_fused\nalerts: {level: 90d}\n"
    )
    assert main(["validate", str(file)]) == 0
    out = capsys.readouterr().out
    assert "lag: 16 samples (2 min 40 s)" in out or "lag: 32 samples (5 min 20 s)" in out
    assert "scored_after: " in out
    assert "extrapolated" in out

    csv = tmp_path / "a.csv"
    rows = "\n".join(f"{1_700_000_000 + 60 * i},{i % 7}" for i in range(300))
    csv.write_text(f"time,value\n{rows}\n")
    assert main(["score", str(csv), "-o", str(tmp_path / "o.csv")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "samples (" in said
    assert "less than 1 d of history" in said
