"""Arrow IPC messages: types that fit, what is refused, and buffers that claim too much."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from connectors.codecs import FieldMap, make_codec
from streamad.records import Decoded

NOW_MS = 1_700_000_000_000


def ipc(table: pa.Table, *, compression: str | None = None, as_file: bool = False) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with opened(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def decode(*payloads: bytes, fields: FieldMap | None = None, **bounds: int) -> Decoded:
    offsets = np.arange(len(payloads))
    return make_codec("arrow", fields or FieldMap(), **bounds).decode(payloads, offsets, offsets)


def table(**columns: Any) -> pa.Table:
    given = {"key": ["a", "b", "c"], "ts": [NOW_MS, NOW_MS + 1, NOW_MS + 2], "value": [1, 2, 3]}
    return pa.table({**given, **columns})


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("form", ["stream", "file"])
def test_streams_and_files_are_read_compressed_or_not(compression: str | None, form: str):
    decoded = decode(ipc(table(), compression=compression, as_file=form == "file"))
    assert decoded.rejected == []
    assert decoded.batch.keys.to_list() == ["a", "b", "c"]
    assert decoded.batch.values[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_what_polars_writes_is_read(compression: str):
    frame = pl.from_arrow(table())
    file, stream = io.BytesIO(), io.BytesIO()
    compat = pl.CompatLevel.oldest()
    frame.write_ipc(file, compression=compression, compat_level=compat)
    frame.write_ipc_stream(stream, compression=compression, compat_level=compat)
    decoded = decode(file.getvalue(), stream.getvalue())
    assert decoded.rejected == []
    assert decoded.batch.values[:, 0].tolist() == [1, 2, 3] * 2


@pytest.mark.parametrize(
    "columns",
    [
        {"key": pa.array(["a", "b", "c"], pa.large_string())},
        {"key": pa.array(["a", "b", "c"]).dictionary_encode()},
        {"value": pa.array([1, 2, 3], pa.uint8())},
        {"value": pa.array(np.array([1, 2, 3], np.float16))},
        {"ts": pa.array([NOW_MS, NOW_MS + 1, NOW_MS + 2], pa.timestamp("ms", tz="Europe/Berlin"))},
        {"ts": pa.array([t * 10**6 + 9 for t in range(NOW_MS, NOW_MS + 3)], pa.timestamp("ns"))},
        {"ts": pa.array([NOW_MS, NOW_MS + 1, NOW_MS + 2], pa.float64())},
    ],
    ids=range(7),
)
def test_columns_may_have_any_type_that_means_the_same(columns: dict[str, pa.Array]):
    decoded = decode(ipc(table(**columns)))
    assert decoded.rejected == []
    assert decoded.batch.keys.to_list() == ["a", "b", "c"]
    assert decoded.batch.time_ms.tolist() == [NOW_MS, NOW_MS + 1, NOW_MS + 2]
    assert decoded.batch.values[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"value": ["1", "2", "3"]}, "value: expected numbers, got string"),
        ({"value": [True, False, True]}, "got bool"),
        ({"key": [1.5, 2.5, 3.5]}, "key: expected a text"),
        ({"ts": ["x", "y", "z"]}, "expected a timestamp or numbers (ms)"),
        ({"key": pa.array([1, 2, 3]).dictionary_encode()}, "dictionary of texts"),
    ],
)
def test_a_column_of_a_wrong_type_rejects_the_message(columns: dict[str, Any], said: str):
    good = ipc(table())
    decoded = decode(good, ipc(table(**columns)), good)
    assert len(decoded.batch) == 6
    (rejected,) = decoded.rejected
    assert (rejected.message, rejected.row, rejected.reason) == (1, None, "wrong_type")
    assert said in rejected.detail


def test_bad_rows_are_rejected_alone_and_replay_alone():
    bad = table(key=["a", None, "c"], value=[None, 2, float("inf")], ts=[1, 2, 3])
    decoded = decode(ipc(bad))
    reasons = [(r.row, r.reason) for r in decoded.rejected]
    assert reasons == [(0, "missing_field"), (1, "missing_field"), (2, "not_finite")]
    again = decode(*[r.payload or b"" for r in decoded.rejected])
    assert [r.reason for r in again.rejected] == [reason for _, reason in reasons]


def test_structs_tags_and_several_keys():
    labels = pa.array([{"host": "h1"}, {"host": "h2"}, None])
    fields = FieldMap(key=("key", "labels.host"), tags=("labels.host", "absent"))
    decoded = decode(ipc(table(labels=labels)), fields=fields)
    assert decoded.batch.keys.to_list() == ["a/h1", "b/h2"]
    assert decoded.batch.tags["labels.host"].to_list() == ["h1", "h2"]
    assert decoded.batch.tags["absent"].to_list() == ["", ""]
    assert [r.reason for r in decoded.rejected] == ["missing_field"]


def test_a_long_text_in_a_dictionary_is_not_laid_out_in_every_row():
    long = "x" * 1_000_000
    keys = pa.DictionaryArray.from_arrays(pa.array([0] * 3), pa.array([long]))
    decoded = decode(ipc(table(key=keys)))
    assert [r.reason for r in decoded.rejected] == ["key_too_long"] * 3


def test_buffers_that_claim_to_expand_too_far_are_refused():
    rows = 200_000
    keys = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a"]))
    many = pa.table({"key": keys, "ts": [1] * rows, "value": [0.0] * rows})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, many.schema, options=options) as writer:
        writer.write_table(many)
    assert len(sink.getvalue()) < 60_000
    (rejected,) = decode(sink.getvalue(), max_message_bytes=60_000).rejected
    assert rejected.reason == "oversized"


def test_an_absent_column_is_named_with_those_there_are():
    (rejected,) = decode(ipc(pa.table({"key": ["a"], "ts": [1]}))).rejected
    assert rejected.detail == "no column 'value' among ['key', 'ts']"
