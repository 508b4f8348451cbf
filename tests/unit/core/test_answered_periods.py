"""What people called real or expected is not learned; what they dismissed is."""

from __future__ import annotations

import numpy as np
import orjson
import polars as pl
import pytest

from jobs import cli
from streamad.artifacts import load_manifest
from streamad.errors import ConfigError
from streamad.records import RecordBatch
from streamad.training.answers import Period, left_out, read_periods

T0 = 1_700_000_000_000


def batch(keys: list[str], at: list[int]) -> RecordBatch:
    n = len(keys)
    return RecordBatch(
        keys=pl.Series("key", keys, dtype=pl.String),
        time_ms=np.array(at, np.int64),
        values=np.zeros((n, 1)),
        message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.zeros(1, np.int64),
        broker_ms=np.zeros(1, np.int64),
    )


def period(key: str, began: int, until: int, verdict: str = "real") -> Period:
    return Period(key=key, began_ms=began, until_ms=until, verdict=verdict)


def test_rows_of_real_periods_are_left_out_and_dismissed_ones_stay():
    rows = batch([*"abababababab"], [0, 0, 10, 10, 20, 20, 30, 30, 40, 40, 50, 50])
    periods = [
        period("a", 10, 40),
        period("a", 20, 21),  # within the other: what comes after it is still inside
        period("a", 30, 30, "false_positive"),
        period("b", 50, 49),  # an end before its begin
        period("c", 0, 99),
        period("b", 0, 20, "acknowledged"),
    ]
    rows_out = left_out(rows, periods)
    found = [(rows.keys[int(i)], int(rows.time_ms[i])) for i in np.flatnonzero(rows_out)]
    assert found == [("a", 10), ("a", 20), ("a", 40), ("b", 50)]
    assert not left_out(rows, []).any()


def test_it_agrees_with_a_loop_over_all_rows_and_periods():
    rng = np.random.default_rng(3)
    rows = batch(rng.choice([*"abc"], 400).tolist(), rng.integers(0, 500, 400).tolist())
    periods = [
        period(str(rng.choice([*"abcd"])), int(at), int(at + rng.integers(0, 40)), str(verdict))
        for at, verdict in zip(
            rng.integers(0, 500, 60),
            rng.choice(["real", "expected", "false_positive", "acknowledged"], 60),
            strict=True,
        )
    ]

    def inside(number: int, *verdicts: str) -> bool:
        key, at = rows.keys[number], rows.time_ms[number]
        return any(
            p.key == key and p.began_ms <= at <= p.until_ms and p.verdict in verdicts
            for p in periods
        )

    wanted = [
        inside(n, "real", "expected") and not inside(n, "false_positive") for n in range(len(rows))
    ]
    assert left_out(rows, periods).tolist() == wanted
    assert any(wanted)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "key is None; expected str"),
        (b'{"key":"a","began_ms":true,"until_ms":1,"verdict":"real"}', "began_ms is True"),
        (b'{"key":"a","began_ms":1,"until_ms":1,"verdict":"bad"}', "expected one of real"),
    ],
)
def test_a_line_that_is_no_answer_is_named(line: bytes, why: str):
    with pytest.raises(ConfigError, match=rf"^a\.jsonl:2: .*{why}"):
        read_periods([b"", line], name="a.jsonl")


def test_fit_leaves_out_what_was_answered(tmp_path, capsys):
    value = np.sin(np.arange(800) / 8)
    value[300:340] = 50
    lines = [f"{T0 + i * 10_000},web-1,{v:.3f}" for i, v in enumerate(value)]
    (tmp_path / "in.csv").write_text("\n".join(["time,host,cpu", *lines]))
    answer = {"key": "web-1", "began_ms": T0 + 3_000_000, "until_ms": T0 + 3_390_000,
              "verdict": "real", "by": "ann"}  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(answer))
    out = str(tmp_path / "m")
    words = ["fit", "knn", str(tmp_path / "in.csv"), "--key", "host", "--size", "32", "-o", out]
    assert cli.main([*words, "--feedback", str(tmp_path / "a.jsonl")]) == 0
    assert "40 of 800 rows are anomalous" in capsys.readouterr().err
    assert load_manifest(out).trained.rows == 760
