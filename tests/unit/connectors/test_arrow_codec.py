"""Arrow IPC messages: types that fit, what is refused, and buffers that claim too much."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from connectors.codecs import FieldMap, arrow, make_codec
from streamad.records import Decoded
from tests.fuzz.bombs import listed_often, one_batch_file
from tests.machine import least_cpu_s

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
    more, first = decoded.rejected
    assert (first.row, first.reason, more.counts) == (0, "key_too_long", {"key_too_long": 2})


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


def test_a_row_alone_does_not_repeat_the_dictionary_or_the_schema():
    texts = [f"host-{i:06d}" for i in range(5_000)]
    keys = pa.DictionaryArray.from_arrays(pa.array(range(200), pa.int32()), pa.array(texts))
    wide = table(key=keys, ts=[1] * 200, value=[1e31] * 200, note=["n" * 500] * 200)
    decoded = decode(ipc(wide.replace_schema_metadata({"long": "x" * 50_000})))
    letters = [r for r in decoded.rejected if r.payload is not None]
    assert len(letters) == 100
    assert max(len(r.payload) for r in letters) < 1_000
    again = decode(letters[7].payload)
    assert [(r.reason, r.payload) for r in again.rejected] == [
        (letters[7].reason, letters[7].payload)
    ]


def test_a_footer_that_lists_one_batch_often_is_refused():
    file = one_batch_file(table())
    honest = decode(listed_often(file, 1))
    assert (len(honest.batch), honest.rejected) == (3, [])
    text = listed_often(file, 100_000)
    (rejected,) = decode(text).rejected
    assert rejected.reason == "invalid_arrow"
    assert "footer" in rejected.detail
    assert least_cpu_s(lambda: decode(text), allowed_s=1) < 1


def test_a_dictionary_that_comes_with_every_batch_is_read_only_so_often():
    keys = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["k" * 400] * 2_000))
    batch = table(key=keys, ts=[1], value=[1.0]).to_batches()[0]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(500):
            writer.write_batch(batch)
    (rejected,) = decode(sink.getvalue(), max_message_bytes=4_000_000).rejected
    assert rejected.reason == "oversized"


def test_columns_nobody_asked_for_are_not_read():
    notes = pa.array([b"\xff" * 3] * 3).cast(pa.binary()).view(pa.string())
    decoded = decode(ipc(table(note=notes)))
    assert (len(decoded.batch), decoded.rejected) == (3, [])
    (rejected,) = decode(ipc(table(key=notes))).rejected
    assert rejected.reason == "invalid_arrow"


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.int8(), pa.uint64(), pa.int16()])
@pytest.mark.parametrize("has_pandas", [True, False])
def test_numbers_of_every_width_are_read_from_slices_and_chunks(kind, has_pandas, monkeypatch):
    monkeypatch.setattr(arrow, "HAS_PANDAS", has_pandas)
    numbers = pa.array(np.array([9, 1, 2, 3, 8], np.float16)).cast(kind).slice(1, 3)
    many = pa.concat_tables([table(value=numbers), table(value=numbers)])
    assert decode(ipc(many)).batch.values[:, 0].tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(("kind", "bits"), [("<u2", 0x7D00), ("<u4", 0x7FA00000)])
def test_a_signalling_nan_is_a_nan_and_no_warning(kind: str, bits: int):
    width = pa.float16() if kind == "<u2" else pa.float32()
    raw = np.array([bits, 0, 0], kind)
    values = pa.Array.from_buffers(width, 3, [None, pa.py_buffer(raw.tobytes())])
    decoded = decode(ipc(table(value=values)))
    assert [(r.row, r.reason) for r in decoded.rejected] == [(0, "missing_field")]
    assert decoded.batch.values[:, 0].tolist() == [0, 0]
