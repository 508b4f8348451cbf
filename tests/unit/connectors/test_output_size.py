"""No record that is written exceeds what a broker takes, whatever it was made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import orjson
import polars as pl
import pytest

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.budget import MAX_LETTER_BYTES, MAX_LETTERS
from connectors.memory import MemoryTopics
from connectors.records import cloudevents
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.dead_letters import Letter, Writer, from_record
from connectors.records.detect import LATE_BYTES, KafkaDetectRecords
from connectors.records.output_size import MAX_RECORD_BYTES, size_of
from connectors.records.rekeyed import KafkaRekeyRecords, RekeyedCodec
from jobs.dlq.replay import InputSender, replay
from jobs.dlq.replay import letters as dlq_letters
from streamad.alerts.operator import AlertOperator
from streamad.config import parse_pipeline
from streamad.ports import Messages, Outgoing, Source
from streamad.records import Explanation, Finding, Rejected, SignalBatch

START_MS = 1_700_000_000_000
HEADERS = [(f"h{i}", b"x" * 1000) for i in range(15)]
CONFIG = parse_pipeline(
    "{name: p, input: {topics: [t]}, detector: robust_z, series: {late: topic}}"
)


@dataclass
class Raw:
    key: bytes | None = None
    headers: object = ()


def messages(*payloads: bytes, key: bytes | None = None, headers: object = ()) -> Messages:
    return Messages(
        source=Source("t", 3),
        payloads=list(payloads),
        offsets=np.arange(100, 100 + len(payloads)),
        broker_ms=np.full(len(payloads), -1),
        raw=[Raw(key, headers)] * len(payloads),
    )


def detect_records() -> KafkaDetectRecords:
    return KafkaDetectRecords(
        CONFIG, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 1
    )


def letters(given: Messages, codec: str = "json") -> list[Outgoing]:
    made = make_codec(codec, FieldMap()).decode(given.payloads, given.offsets, given.broker_ms)
    return detect_records().rejected(given, made.rejected)


def read(record: Outgoing) -> Letter:
    letter = from_record(record.key, record.value, record.headers)
    assert isinstance(letter, Letter)
    return letter


# ---------------------------------------------------------------------- dead letters


@pytest.mark.parametrize("key", [None, b"k" * 500_000])
def test_many_bad_rows_with_large_headers_and_key_stay_within_the_budget(key):
    given = messages(b"1\n" * 99_999, key=key, headers=HEADERS)
    made = letters(given)
    assert max(map(size_of, made)) < MAX_RECORD_BYTES
    assert sum(map(size_of, made)) < MAX_LETTER_BYTES + 20_000
    found = [read(record) for record in made]
    (more,) = [letter for letter in found if letter.reason == "more_rejected"]
    assert (more.pointer, more.value, more.offset, more.partition) == (True, b"", 100, 3)
    n_more = int(more.detail.partition(" ")[0].replace(",", ""))
    assert n_more + len(made) - 1 == 99_999
    assert [letter.row for letter in found if letter is not more] == list(range(len(made) - 1))


def test_small_letters_are_bounded_by_number():
    assert len(letters(messages(b"1\n" * 500))) == MAX_LETTERS + 1


def test_each_message_has_a_budget_of_its_own():
    made = [read(record) for record in letters(messages(b"1\n" * 300, b"{\n" * 300))]
    offsets = [letter.offset for letter in made]
    assert offsets.count(100) == offsets.count(101) == MAX_LETTERS + 1


def test_what_the_operator_refuses_counts_as_well():
    given = messages(b"x" * 200_000, b"y")
    rejected = [
        Rejected(message=0, row=row, reason=reason, detail="d")
        for row in range(50_000)
        for reason in ("time_ahead", "key_limit")
    ]
    made = [read(record) for record in detect_records().rejected(given, rejected)]
    assert [(one.reason, one.pointer, one.offset) for one in made] == [
        ("more_rejected", True, 100),
        ("time_ahead", False, 100),
    ]
    assert made[1].detail.endswith("and 49999 more rows of this message")


def test_a_long_key_is_left_at_the_original():
    given = messages(b"1", key=b"k" * 1025)
    (record,) = letters(given)
    assert record.key is None
    assert read(record).key_pointer
    (record,) = letters(messages(b"1", key=b"k" * 1024))
    assert record.key == b"k" * 1024
    assert not read(record).key_pointer


def test_a_payload_that_is_too_large_becomes_a_pointer_in_every_stage():
    writer = Writer(pipeline="p", stage="alert", topic="{topic}.dlq")
    whole = Rejected(message=0, reason="x", detail="d", payload=b"x" * 500_001)
    (record,) = writer.records(messages(b""), [whole], time_ms=1)
    assert (record.value, read(record).pointer) == (b"", True)
    assert writer.records(messages(b""), [replace(whole, reason="no_rows")], time_ms=1) == []


class Desk:
    """Keeps what a replay sends."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    def done(self, reason: str) -> dict[Source, int]:
        return {}

    def send(self, records, done) -> None:
        self.sent += records


@pytest.mark.parametrize(
    ("payload", "n"), [(b"0", 1), (b"\n".join(b"%d" % i for i in range(200)), 101)]
)
def test_a_replay_reads_key_and_payload_where_a_letter_points(payload: bytes, n: int):
    topics, key = MemoryTopics(), b"k" * 2_000
    topics.write(Outgoing(topic="t", value=payload, key=key))
    (given,) = topics.read(Source("t", 0), 0, 1)
    for record in letters(given):
        topics.write(record)
    desk = Desk()
    made = replay(
        dlq_letters(topics, ["t.dlq"]),
        desk,
        InputSender(pipeline="p", targets=[Source("t", 0)], originals=topics),
        pipeline="p",
    )
    assert made.total == len(desk.sent) == n
    assert {record.key for record in desk.sent} == {key}
    assert {record.value for record in desk.sent} >= {b"0", payload}
    topics.capacity = 0
    topics.write(Outgoing(topic="t", value=b"", key=key))
    made = replay(
        dlq_letters(topics, ["t.dlq"]),
        Desk(),
        InputSender(pipeline="p", targets=[Source("t", 0)], originals=topics),
        pipeline="p",
    )
    assert made.gone.total() == n


# ---------------------------------------------------------------------- late rows


def batch(rows: int, n_variates: int = 1, tag: str = "") -> SignalBatch:
    return SignalBatch(
        keys=pl.Series("key", [f"host-{i}" for i in range(rows)]),
        time_ms=START_MS + np.arange(rows),
        values=np.arange(rows * n_variates, dtype=np.float64).reshape(rows, n_variates),
        message=np.repeat(np.arange(2, dtype=np.int32), [rows - rows // 4, rows // 4]),
        row=np.arange(rows, dtype=np.int32),
        offsets=np.arange(2),
        broker_ms=np.full(2, -1),
        tags={"dc": pl.Series("dc", [tag] * rows, dtype=pl.String)} if tag else {},
    )


def test_late_rows_of_one_message_are_split_and_none_is_lost():
    given = batch(40_000, tag="\x01" * 500)
    rows = np.arange(1, 40_000, 2)
    made = detect_records().late(messages(b"", b""), given, rows)
    assert max(map(size_of, made)) < LATE_BYTES + 4_000
    lines = [orjson.loads(line) for record in made for line in record.value.split(b"\n")]
    assert [line["key"] for line in lines] == [f"host-{i}" for i in rows.tolist()]
    offsets = [dict(record.headers)["streamad-offset"] for record in made]
    assert offsets == sorted(offsets)
    assert set(offsets) == {b"100", b"101"}


def test_few_late_rows_are_one_record_a_message():
    made = detect_records().late(messages(b"", b""), batch(8), np.array([0, 1, 6, 7]))
    assert [record.value.count(b"\n") for record in made] == [1, 1]
    assert detect_records().late(messages(b"", b""), batch(8), np.array([], np.int64)) == []


def test_one_late_row_of_very_many_variates_is_cut():
    variates = [f"variate-{i:040d}" for i in range(20_000)]
    config = CONFIG.model_copy(
        update={
            "input": CONFIG.input.model_copy(
                update={"fields": CONFIG.input.fields.model_copy(update={"values": variates})}
            )
        }
    )
    records = KafkaDetectRecords(
        config, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 1
    )
    (record,) = records.late(messages(b"", b""), batch(4, n_variates=20_000), np.array([2]))
    assert size_of(record) < MAX_RECORD_BYTES
    assert orjson.loads(record.value) == {
        "key": "host-2", "time_ms": START_MS + 2, "values": {}, "cut": True, "tags": {},
    }  # fmt: skip


# ---------------------------------------------------------------------- re-keyed points


def test_rekeyed_points_of_many_variates_are_split_and_read_back():
    names = ", ".join(f"v{i}" for i in range(40))
    config = parse_pipeline(
        f"{{name: p, input: {{topics: [t], repartition: true, fields: {{values: [{names}]}}}}, "
        "detector: robust_z}"
    )
    given = batch(10_000, n_variates=40)
    given.values[:] = np.random.default_rng(1).normal(size=given.values.shape)
    records = KafkaRekeyRecords(config, partitions=4, wall_ms=lambda: 1)
    made = records.points(given, np.arange(10_000), 2)
    assert len(made) > 1
    assert max(map(size_of, made)) <= MAX_RECORD_BYTES
    offsets = np.arange(len(made))
    back = RekeyedCodec(config).decode([record.value for record in made], offsets, offsets)
    assert back.rejected == []
    assert back.batch.keys.to_list() == given.keys.to_list()
    np.testing.assert_array_equal(back.batch.values, given.values)


@pytest.mark.parametrize("tags", ["", "dc", "kind, dc"])
def test_rekeyed_points_keep_tags_and_the_kind_their_format_gave(tags: str):
    config = parse_pipeline(
        f"{{name: p, input: {{topics: [t], format: otlp_json, repartition: true, fields: {{tags: "
        f"[{tags}]}}}}, detector: robust_z}}"
    )
    given = batch(8)
    names = [*filter(None, tags.split(", ")), *(["kind"] if "kind" not in tags else [])]
    given.tags.update({name: pl.Series(name, [f"a {name}"] * 8) for name in names})
    records = KafkaRekeyRecords(config, partitions=4, wall_ms=lambda: 1)
    made = [record.value for record in records.points(given, np.arange(8), 2)]
    back = RekeyedCodec(config).decode(made, np.arange(len(made)), np.arange(len(made)))
    assert {name: set(tag) for name, tag in back.batch.tags.items()} == {
        name: {f"a {name}"} for name in names
    }


# ---------------------------------------------------------------------- findings and alerts


def finding(n_variates: int, text: str, n_tags: int = 1) -> Finding:
    names = [f"variate-{i:05d}" for i in range(n_variates)]
    shares = {name: i / n_variates for i, name in enumerate(names)}
    return Finding(
        id="f", sequence=0, state="began", kind="anomaly", pipeline="p", detector="robust_z",
        artifact="", tenant="default", group="p", key="a",
        entity={f"t{i}": text for i in range(n_tags)},
        window_start_ms=START_MS, window_end_ms=START_MS + 1, began_ms=START_MS, score=99.0,
        p_value=1e-12, peak_score=99.0, peak_p_value=1e-12, level=1.0, n_windows=1,
        explanation=Explanation(
            observed=dict.fromkeys(names, 2.5), expected=dict.fromkeys(names, 1.5),
            variates=shares, time_ms=START_MS, text=text,
        ),
        input={"topic": "t"}, reason=text, degraded=text,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        finding(30_000, "x"),
        finding(2, "\x01" * 150_000),
        finding(300, "\x01" * 3_000, n_tags=200),
        finding(20_000, "é" * 20_000, n_tags=40),
    ],
    ids=["variates", "texts", "tags", "all"],
)
def test_findings_alerts_and_their_state_fit_a_record(given: Finding):
    (record,) = detect_records().findings([given])
    assert size_of(record) <= MAX_RECORD_BYTES
    read_back = cloudevents.decode(record.value, record.headers)
    assert isinstance(read_back, Finding)
    assert (read_back.id, read_back.key, read_back.score) == (given.id, given.key, given.score)
    shares = list(read_back.explanation.variates)
    assert shares == sorted(given.explanation.variates, reverse=True)[:100][: len(shares)]
    assert len(shares) == min(100, len(given.explanation.variates))
    topics = MemoryTopics()
    topics.make(state_topic(CONFIG))
    records = KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: 1)
    # A finding of an earlier version may be larger than those that are written now.
    event = orjson.dumps(given)
    old = replace_value(messages(b""), event, record.headers)
    found, rejected = records.findings(old)
    assert rejected == []
    operator = AlertOperator(CONFIG)
    state = operator.new_state()
    alerts = operator.process(state, found)
    assert [alert.state for alert in alerts] == ["opened"]
    written = records.alerts(alerts) + records.state(Source("f", 0), state.drain_changes(), 1)
    assert max(map(size_of, written)) <= MAX_RECORD_BYTES


def replace_value(given: Messages, value: bytes, headers: object) -> Messages:
    return replace(given, payloads=[value], raw=[Raw(None, headers)])


def test_an_ordinary_finding_is_written_as_it_is():
    given = finding(1_000, "text", n_tags=40)
    (record,) = detect_records().findings([given])
    assert cloudevents.decode(record.value, record.headers) == given
