"""What records hold: every format, file and topic of ours gives the same rows."""

from __future__ import annotations

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

from connectors.codecs import make_codec
from connectors.records.detect import KafkaDetectRecords
from connectors.records.rekeyed import KafkaRekeyRecords, RekeyedCodec
from jobs.offline.replay import codec_of, field_map, read_file
from streamad.config import parse_pipeline
from streamad.ports import Messages, Source

EVENTS = parse_pipeline(
    """
name: audit
input:
  topics: audit
  records: events
  fields: {key: user, time: ts, categories: [user, process, "parent.name"], numbers: [bytes]}
detector: rare_events
"""
)
EDGES = parse_pipeline(
    """
name: flows
input:
  topics: flows
  records: edges
  fields: {key: site, time: ts, source: src, target: dst, target_type: kind, weight: bytes}
detector: edge_stream
"""
)
ROWS = [
    {"user": "alice", "ts": 1_772_409_600_000, "process": "cat", "bytes": 5.0},
    {"user": "bob", "ts": 1_772_409_600_001, "process": "", "bytes": None},
    {"user": "bob", "ts": 1_772_409_600_002, "parent": {"name": "sh"}},
    {"user": "", "ts": 1_772_409_600_003, "process": "cat"},
    {"user": "carol", "ts": "no time", "process": "cat"},
]
FLOWS = [
    {"site": "a", "ts": 1_772_409_600_000, "src": "w1", "dst": "d1", "kind": "db", "bytes": 10},
    {"site": "a", "ts": 1_772_409_600_001, "src": "w1", "dst": "d2"},
    {"site": "a", "ts": 1_772_409_600_002, "src": "w1"},
    {"site": "a", "ts": 1_772_409_600_003, "src": "", "dst": "d1"},
]


def decoded(config, payloads):
    n = len(payloads)
    return codec_of(config).decode(payloads, np.arange(n), np.full(n, -1))


def test_events_in_json_have_nulls_for_what_they_lack():
    made = decoded(EVENTS, [orjson.dumps(row) for row in ROWS])
    assert made.batch.keys.to_list() == ["alice", "bob", "bob"]
    assert made.batch.values.fields.to_dicts() == [
        {"user": "alice", "process": "cat", "parent.name": None, "bytes": 5.0},
        {"user": "bob", "process": None, "parent.name": None, "bytes": None},
        {"user": "bob", "process": None, "parent.name": "sh", "bytes": None},
    ]
    assert [one.reason for one in made.rejected] == ["empty_key", "wrong_type"]
    assert not made.batch.tags


def test_edges_in_json_need_both_ends():
    made = decoded(EDGES, [orjson.dumps(row) for row in FLOWS])
    edges = made.batch.values
    assert (edges.source.to_list(), edges.target.to_list()) == (["w1", "w1"], ["d1", "d2"])
    assert edges.target_type.to_list() == ["db", None]
    assert edges.source_type.to_list() == [None, None]
    assert edges.weight.tolist() == [10.0, 1.0]
    assert [(one.reason, one.detail) for one in made.rejected] == [
        ("missing_field", "no field 'dst' among those: site, src, ts; did you mean 'site'?"),
        ("missing_field", "src is empty"),
    ]


@pytest.mark.parametrize("config", [EVENTS, EDGES], ids=["events", "edges"])
def test_arrow_and_a_columnar_message_and_csv_give_what_json_gives(config, tmp_path):
    rows = ROWS[:3] if config is EVENTS else FLOWS[:2]
    wanted = decoded(config, [orjson.dumps(row) for row in rows]).batch
    flat = (
        [
            {**{k: v for k, v in row.items() if k != "parent"}, "parent.name": parent}
            for row in rows
            for parent in [row.get("parent", {}).get("name")]
        ]
        if config is EVENTS
        else rows
    )
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: [row.get(name) for row in flat] for name in names}
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = make_codec("arrow", field_map(config)).decode(
        [bytes(sink.getvalue().to_pybytes())], np.arange(1), np.full(1, -1)
    )
    assert not arrow.rejected
    same(arrow.batch, wanted)
    same(decoded(config, [orjson.dumps(columns)]).batch, wanted)
    path = tmp_path / "rows.csv"
    pl.DataFrame(flat, infer_schema_length=None).write_csv(path)
    parts = list(read_file(path, config))
    assert not parts[0].decoded.rejected
    same(parts[0].decoded.batch, wanted)


@pytest.mark.parametrize("config", [EVENTS, EDGES], ids=["events", "edges"])
def test_rows_come_back_from_the_rekeyed_topic_and_late_ones_can_be_read(config):
    rows = ROWS[:3] if config is EVENTS else FLOWS[:2]
    batch = decoded(config, [orjson.dumps(row) for row in rows]).batch
    writer = KafkaRekeyRecords(config, partitions=1, wall_ms=lambda: 0)
    (record,) = writer.points(batch, np.arange(len(batch)), 0)
    back = RekeyedCodec(config).decode([record.value], np.arange(1), np.full(1, -1))
    assert not back.rejected
    same(back.batch, batch)
    late = KafkaDetectRecords(
        config, detector="d", artifact="", partitions=1, wall_ms=lambda: 0
    ).late(messages(len(rows)), batch, np.arange(1))
    assert orjson.loads(late[0].value)["values"] == (
        {"user": "alice", "process": "cat", "parent.name": "", "bytes": 5.0}
        if config is EVENTS
        else {"source": "w1", "target": "d1", "target_type": "db", "bytes": 10.0}
    )


def messages(n):
    return Messages(
        source=Source("t", 0), payloads=[b""] * n, offsets=np.arange(n), broker_ms=np.zeros(n, int),
        raw=[],
    )  # fmt: skip


def same(one, other):
    assert one.keys.to_list() == other.keys.to_list()
    assert one.time_ms.tolist() == other.time_ms.tolist()
    left, right = one.values, other.values
    if hasattr(left, "fields"):
        assert left.fields.to_dicts() == right.fields.to_dicts()
        return
    for name in ("source", "target", "source_type", "target_type", "weight"):
        assert list(getattr(left, name)) == list(getattr(right, name))
