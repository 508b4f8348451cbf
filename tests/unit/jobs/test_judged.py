"""Whoever reads a report learns why little of the input was judged."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import cli
from jobs.build import build_detect
from jobs.offline.backtest import replay
from jobs.offline.judged import NothingJudgedError
from jobs.offline.replay import Part, read_file
from streamad.config import PipelineConfig, parse_pipeline
from streamad.ports import Source
from streamad.records import Decoded, Rejected, SignalBatch
from streamad.testing.batches import make_columns

T0 = 1_772_366_400_000
STEP = 60_000
CONFIG = parse_pipeline("{name: t, windows: {size: 16}, detector: robust_z}")


def rejected(number: int, reason: str, detail: str = "") -> list[Rejected]:
    return [Rejected(message=i, reason=reason, detail=detail) for i in range(number)]


def run(
    batch: SignalBatch, lost: list[Rejected] | None = None, config: PipelineConfig = CONFIG
) -> tuple[list[str], str]:
    """Return the notes on a replay, and the error where nothing was judged."""
    operator = build_detect(config)
    part = Part(source=Source("t", 0), decoded=Decoded(batch=batch, rejected=lost or []))
    made = replay(operator, [part])
    notes = made.account.notes(operator)
    try:
        made.account.require(operator)
    except NothingJudgedError as error:
        return notes, str(error)
    return notes, ""


def calm(n: int, *, start: int = T0, step: int = STEP) -> SignalBatch:
    values = np.random.default_rng(0).normal(size=n)
    return make_columns(["a"] * n, start + step * np.arange(n), values)


def test_there_is_nothing_to_report_of_input_that_was_judged():
    assert run(calm(200)) == ([], "")


def test_the_commonest_reasons_stand_first_with_an_example():
    lost = [
        *rejected(3, "bad_time", "ts is 'noon'"),
        *rejected(5, "wrong_type", "value is 'x'"),
        *rejected(2, "empty_key"),
        *rejected(1, "not_finite"),
    ]
    ((note,), error) = run(calm(200), lost)
    assert note == (
        "11 rows are not used: 5 wrong_type (value is 'x'); 3 bad_time (ts is 'noon'); "
        "2 empty_key; and 1 other reasons"
    )
    assert error == ""
    assert run(calm(0), lost)[1] == f"nothing was judged: {note}"


def test_what_is_not_asked_for_is_no_fault():
    others = Rejected(
        message=0, reason="other_measurement", detail="", counts={"other_measurement": 7}
    )
    ((note,), _) = run(calm(200), [others])
    assert note == "rows that the pipeline does not ask for: 7 other_measurement"
    assert run(calm(0), [others])[1].endswith("asks for none of its rows (other_measurement)")


def test_a_series_that_is_too_short_is_told_what_it_takes():
    _, error = run(calm(10))
    assert "a series is scored after 16 samples, and the longest has 10" in error


def test_several_series_in_one_are_told_by_their_late_rows():
    batch = calm(200)
    batch.time_ms[:] = np.repeat(T0 + STEP * np.arange(4), 50)
    notes, error = run(batch)
    assert "196 of 200 rows come after later ones" in notes[0]
    assert "name their column as the key" in error


def test_windows_that_are_not_full_are_told_with_the_step():
    config = parse_pipeline(
        "{name: t, windows: {size: 16}, detector: robust_z, series: {step: 10s, silence: 30m}}"
    )
    notes, error = run(calm(200, step=60_000), config=config)
    assert "windows are incomplete and not judged" in notes[0]
    assert "series.step" in error


def test_a_few_series_that_are_hardly_judged_are_named():
    config = parse_pipeline(
        "{name: t, windows: {size: 16}, detector: robust_z, series: {step: 1m}}"
    )
    dense, thin = np.arange(900), np.arange(0, 900, 4)
    batch = make_columns(
        ["dense"] * 900 + ["thin"] * 225, T0 + STEP * np.concatenate([dense, thin]), np.zeros(1125)
    )
    notes, error = run(batch, config=config)
    assert notes == [
        "1 of 2 series are hardly judged (thin): more than 20% of their rows, one every 1 min "
        "(series.step), are absent (series.gaps)"
    ]
    assert error == ""


def test_rows_of_1970_are_counted_and_do_not_stretch_the_span():
    batch = calm(200)
    batch.time_ms[0] = 1_000
    operator = build_detect(CONFIG)
    part = Part(source=Source("t", 0), decoded=Decoded(batch=batch, rejected=[]))
    made = replay(operator, [part], keep_points=True)
    assert made.account.notes(operator)[-1].startswith("1 of 200 rows have a time in 1970")
    assert made.days < 1
    assert min(int(points.time_ms.min()) for points in made.points) > T0
    assert run(calm(200, start=0))[0] == [
        "200 of 200 rows have a time in 1970: check the column of times and its unit"
    ]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_read_is_an_error(n: int):
    assert run(calm(n))[1].startswith("nothing was judged: ")


def test_rows_that_are_refused_are_counted_by_field():
    lost = [
        Rejected(message=0, reason="bad_time", detail="ts: expected a time", column="ts"),
        *(Rejected(message=i, reason="wrong_type", detail="x", column="v") for i in range(3)),
        Rejected(message=9, reason="wrong_type", detail="y", column="w"),
        Rejected(message=9, reason="more_rejected", detail="", counts={"wrong_type": 40}),
    ]
    ((note,), _) = run(calm(200), lost)
    assert note == (
        "45 rows are not used: 44 wrong_type in v 3, w 1, others 40 (x); "
        "1 bad_time in ts (ts: expected a time)"
    )


def test_a_file_names_its_cells_that_cannot_be_read(tmp_path, capsys):
    lines = ["ts,host,cpu,mem"]
    lines += [f"2026-03-01T12:{i // 60:02d}:{i % 60:02d}Z,a,{i % 7},{i % 5}" for i in range(900)]
    lines[5], lines[6] = "noon,a,1,2", "2026-03-01T12:00:05Z,,1,2"
    lines[8], lines[9] = "2026-03-01T12:00:07Z,a,err,", "2026-03-01T12:00:08Z,a,,2"
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    words = ["score", str(path), "--key", "host", "-d", "robust_z", "-o", str(tmp_path / "s.csv")]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    assert "cells that count as missing: cpu: 1 empty, 1 such as 'err'; mem: 1 empty\n" in said
    assert "1 of 900 rows have no time in ts: 1 such as 'noon'\n" in said
    assert "1 of 900 rows have no key in host: 1 empty\n" in said


def test_a_backtest_counts_the_rows_of_a_table_by_field(tmp_path):
    lines = ["ts,host,cpu"] + [f"{T0 + i * STEP},a,{i % 7}" for i in range(300)]
    lines[5], lines[6], lines[7] = f"{T0},a,err", f"{T0},a,odd", "noon,a,1"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    config = parse_pipeline(
        "{name: t, windows: {size: 16}, detector: robust_z, "
        "input: {fields: {key: host, time: ts, values: [cpu]}}}"
    )
    made = replay(build_detect(config), read_file(tmp_path / "a.csv", config))
    assert made.account.columns == {"wrong_type": {"cpu": 2}, "bad_time": {"ts": 1}}
    lines = [b'{"key":"a","ts":%d,"value":1}' % (T0 + i * STEP) for i in range(300)]
    lines[3:6] = [b'{"key":"a","ts":"noon","value":1}', b'{"key":"a","ts":1}', b'{"ts":1}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    made = replay(build_detect(CONFIG), read_file(tmp_path / "a.jsonl", CONFIG))
    assert {r: dict(c) for r, c in made.account.columns.items()} == {
        "wrong_type": {"ts": 1}, "missing_field": {"value": 1, "key": 1},
    }  # fmt: skip


def test_validate_reports_what_of_a_file_can_be_used(tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("{name: t, windows: {size: 16}, detector: robust_z}")
    lines = [b'{"key":"a","ts":%d,"value":1}' % (T0 + i * STEP) for i in range(30)]
    lines[3:5] = [b'{"key":"a","ts":"noon","value":1}', b'{"key":"a","ts":1,"value":"x"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    words = ["validate", str(tmp_path / "p.yaml"), "--input", str(path)]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    assert f"{path}: 28 rows of 1 key can be used\n2 rows are not used: " in said
    assert "2 wrong_type in ts 1, value 1 (ts: expected a number (ms), got" in said
    path.write_bytes(b"\n".join(lines[3:5]))
    assert cli.main(words) == 1
    assert "not one row can be used: 2 rows are not used: 2 wrong_type" in capsys.readouterr().err
