"""Files as batches: columns found by name, bad rows rejected, wrong names helped."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from connectors.codecs import FieldMap
from connectors.files import read_series
from streamad.errors import ConfigError, SourceUnavailableError


def test_a_csv_file_with_usual_names_needs_no_map(tmp_path: Path):
    path = tmp_path / "pump.csv"
    path.write_text(
        "Timestamp,flow,heat,label,note\n"
        "2024-01-01 00:00:00,1,2,0,x\n"
        "2024-01-01T00:00:01Z,,3,1,x\n"
        "2024-01-01T00:00:02+01:00,4,5,0,x\n"
    )
    (decoded,) = read_series(path, joint=True).batches
    assert decoded.rejected == []
    assert decoded.batch.keys.to_list() == ["pump"] * 3
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert (decoded.batch.time_ms - start).tolist() == [2000 - 3_600_000, 0, 1000]
    np.testing.assert_array_equal(decoded.batch.values, [[4, 5], [1, 2], [np.nan, 3]])


@pytest.mark.parametrize(
    ("given", "unit"),
    [(1_700_000_000, "s"), (1.7e12, "ms"), (1_700_000_000_000_000, "us"), (1.7e18, "ns")],
)
def test_a_named_time_is_read_in_its_unit(tmp_path: Path, given: float, unit: Any):
    path = tmp_path / "a.csv"
    path.write_text(f"ts,value\n{given:.0f},1\n")
    (decoded,) = read_series(path, FieldMap(time_unit=unit)).batches
    assert decoded.batch.time_ms.tolist() == [1_700_000_000_000]


def test_bad_cells_are_rejected_row_by_row_and_batches_keep_their_row_numbers(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("key,ts,value\na,1,1\na,2,x\na,bad,3\na,4,\n,5,5\na,6,6\n")
    batches = list(read_series(path, FieldMap(), batch_rows=4).batches)
    assert [decoded.batch.values[:, 0].tolist() for decoded in batches] == [[1], [6]]
    assert [r.reason for decoded in batches for r in decoded.rejected] == [
        "wrong_type",
        "bad_time",
        "missing_field",
        "missing_field",
    ]
    assert batches[1].batch.offsets.tolist() == [4, 5]
    assert batches[0].rejected[0].payload == b'{"key":"a","ts":"2","value":"x"}'


def test_parquet_keeps_its_types(tmp_path: Path):
    path = tmp_path / "a.parquet"
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    frame = pl.DataFrame({"time": [moment, None], "id": [7, 8], "v": [1, 2], "name": ["x", "y"]})
    frame.write_parquet(path)
    (decoded,) = read_series(path, FieldMap(key=("id",), time="time", values=("v",))).batches
    assert decoded.batch.keys.to_list() == ["7"]
    assert decoded.batch.time_ms.tolist() == [1_700_000_000_000]
    assert [r.reason for r in decoded.rejected] == ["bad_time"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson"])
def test_json_lines_are_read_as_from_a_topic(tmp_path: Path, name: str):
    path = tmp_path / name
    text = b'{"key":"a","ts":1,"value":1}\n\nbad\n{"key":"b","ts":2,"value":2}\n'
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    batches = list(read_series(path, batch_rows=2).batches)
    assert [key for decoded in batches for key in decoded.batch.keys] == ["a", "b"]
    assert [r.reason for decoded in batches for r in decoded.rejected] == ["invalid_json"]


def test_a_wrong_column_is_named_with_the_nearest_right_one(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("key,timestamp,value\na,1,1\n")
    with pytest.raises(ConfigError, match="no column 'timestmp'; did you mean 'timestamp'"):
        read_series(path, FieldMap(time="timestmp"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "a,b\n1,2\n", "no column of times"),
        ("a.csv", "ts,b\n1,x\n", "no numeric column"),
        ("a.txt", "", "is empty"),
        ("a.xlsx", "PK\x03\x04", "save the sheet as CSV"),
        ("a.bin", "a\0b", "holds no text"),
        ("a.jsonl", "x\n", "first line"),
        ("a.jsonl", '{"time":1,"v":2}\n', "no field for the key"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, said: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        list(read_series(tmp_path / name).batches)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=r"there is no file .*a\."):
        list(read_series(tmp_path / name).batches)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.parquet", b"damaged"),
        ("a.parquet", b"PAR1damaged"),
        ("a.csv.gz", gzip.compress(b"ts,value\n1,1\n" * 1000, mtime=0)[:-20]),
        ("a.jsonl.gz", gzip.compress(b'{"key":"a","ts":1,"value":1}\n' * 1000, mtime=0)[:-20]),
        ("a.csv", b"\x1f\x8bdamaged"),
    ],
    ids=range(5),
)
def test_a_damaged_file_is_unavailable(tmp_path: Path, name: str, raw: bytes):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SourceUnavailableError, match="cannot be read"):
        list(read_series(tmp_path / name).batches)


def test_names_of_columns_may_hold_anything(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("time,cpu,cpu.user,a..b,value.\n2026-03-02,1,2,3,4\n2026-03-03,1,2,3,4\n")
    (decoded,) = read_series(path).batches
    assert set(decoded.batch.keys) == {"cpu", "cpu.user", "a..b", "value."}


def test_a_column_that_a_condition_reads_is_no_measurement(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("time,status,load\n2026-03-02,200,1\n2026-03-03,500,2\n")
    (decoded,) = read_series(path, FieldMap(where=(("status", "200"),))).batches
    assert decoded.batch.values.tolist() == [[1]]
    assert [r.counts for r in decoded.rejected] == [{"not_wanted": 1}]


def test_a_time_in_another_unit_is_named_with_its_unit(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("key,ts,value\na,1772409600,1\n")
    for unit in ("ms", "iso"):
        (decoded,) = read_series(path, FieldMap(time_unit=unit)).batches
        assert decoded.rejected[0].detail == (
            "a.csv, row 0: bad_time (ts is '1772409600'); time_unit: s reads it"
        )
