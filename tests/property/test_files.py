"""Whatever a file holds, it is read or refused in one line; nothing else is raised."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files import find_roles, points_of, read_series, read_sheet
from streamad.errors import StreamadError

cells = st.one_of(
    st.sampled_from([
        "", "1", "-1.5", "1,5", "1.234,5", "NaN", "1e400", "12 ms", "29.3%", "3 MB", "a", "web-1",
        "2026-03-02", "2026-03-02T00:00:00Z", "03/02/2026", "25/12/2025 10:00", "10:00",
        "1772409600", "1772409600000", "0", '"', "'", "#", "#datatype", "time", "value", "\0", "é",
    ]),
    st.text(max_size=8),
)  # fmt: skip
tables = st.builds(
    lambda rows, separator, end: end.join(separator.join(row) for row in rows).encode(
        "utf-8", "surrogatepass"
    ),
    st.lists(st.lists(cells, max_size=5), max_size=12),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from([
            "data", "result", "metric", "values", "value", "results", "series", "columns", "frames",
            "datapoints", "target", "Datapoints", "MetricDataResults", "ts", "a.b", "schema",
        ]),
        inner,
        max_size=4,
    ),
    max_leaves=20,
).map(lambda record: json.dumps(record).encode())  # fmt: skip
files = tables | documents | st.binary(max_size=200)


def refusal(read: Callable[[], object]) -> str:
    """Return the error of what was refused, "" where it was read."""
    try:
        read()
    except StreamadError as error:
        return str(error)
    return ""


@settings(max_examples=200, deadline=None, derandomize=True)
@given(files, st.sampled_from(["a.csv", "a.json", "a.jsonl", "a.parquet", "a.csv.gz"]))
def test_a_file_is_read_or_refused_in_one_line(raw: bytes, name: str):
    def table(*, joint: bool) -> None:
        points = points_of(find_roles(read_sheet(path)), one="file", joint=joint)
        assert len(points.keys) == len(points.ms) == len(points.values) == len(points.row)

    def batches(*, joint: bool) -> None:
        for decoded in read_series(path, joint=joint).batches:
            assert np.isfinite(decoded.batch.values).any(axis=1).all()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(raw)
        for reader in (table, batches):
            for joint in (False, True):
                assert len(refusal(partial(reader, joint=joint)).splitlines()) <= 1


values = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 4) + 0.0), min_size=3, max_size=30
)
names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\"';,|#"),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(values, st.lists(names.map(lambda n: f"v {n}"), unique=True, min_size=1, max_size=4))
def test_what_polars_writes_is_read_back(column, columns):
    times = 1_772_409_600_000 + 60_000 * np.arange(len(column))
    frame = pl.DataFrame({"time": times, **dict.fromkeys(columns, column)})
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, write in (
            ("a.csv", frame.write_csv),
            ("a.parquet", frame.write_parquet),
            ("a.jsonl", frame.write_ndjson),
            ("a.json", frame.write_json),
            ("a.arrow", frame.write_ipc),
        ):
            write(Path(folder) / name)
            points = points_of(find_roles(read_sheet(Path(folder) / name)), one="f", joint=True)
            assert points.variates == tuple(columns)
            found.append((points.ms.tolist(), points.values.tolist()))
        assert found == [found[0]] * 5
        assert found[0] == (times.tolist(), [[value] * len(columns) for value in column])
