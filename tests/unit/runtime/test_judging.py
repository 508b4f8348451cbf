"""What runtimes share: the same metrics of the same input, and when the wall clock counts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from connectors.telemetry import DETECT_COUNTS, PrometheusTelemetry
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.detectors.graphs.label_free import GraphVector
from streamad.operators.detect import DetectOperator
from streamad.ports import NullTelemetry, Source
from streamad.records import RecordBatch, Rejected
from streamad.runtime.detect import DetectLoop
from streamad.runtime.judging import Judging, OpenShard, count_rejected
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.placing import Clock
from streamad.testing.graphs import town
from streamad.testing.keyed_state import MemoryEngine

BEGIN_MS = 1_700_000_000_000
HERE, THERE = Source("in", 0), Source("in", 1)
CONFIG = PipelineConfig.model_validate(
    {
        "name": "judging",
        "input": {"topics": "in", "start": "earliest"},
        "detector": "robust_z",
        "windows": {"size": 16},
        "scoring": {"min_windows": 8},
        "series": {"ttl": "5m", "silence": "20s", "late": "topic"},
    }
)


def point(key: str, t: int) -> bytes:
    return json.dumps({"key": key, "ts": BEGIN_MS + 1000 * t, "value": 1.0 + t % 7}).encode()


INPUT = {
    HERE: [
        *[point(key, t) for t in range(60) for key in "ab"],
        b"no JSON",
        point("a", -600),
    ],
    THERE: [point(key, t) for t in range(60) for key in "bc"],
}


def records(config: PipelineConfig = CONFIG) -> KafkaDetectRecords:
    return KafkaDetectRecords(
        config, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
    )


def on_the_plain_loop(
    telemetry: PrometheusTelemetry,
    folder: str,
    config: PipelineConfig = CONFIG,
    given: dict[Source, list[bytes]] = INPUT,
    operator: DetectOperator | None = None,
) -> None:
    topics = MemoryTopics(partitions=2)
    topics.make("in", 2)
    for source, payloads in given.items():
        topics.put(source, payloads)
    loop = DetectLoop(
        config,
        operator or build_detect(config),
        member=MemoryMember(log=topics, topics=["in"]),
        decoder=codec_of(config),
        records=records(config),
        store=FileSnapshots(folder, pipeline=config.name),
        clock=Clock(seconds=lambda: 0.0, wall_ms=lambda: BEGIN_MS),
        telemetry=telemetry,
        counters=DETECT_COUNTS,
    )
    while loop.turn():
        pass
    loop.drain()


def on_keyed_state(telemetry: PrometheusTelemetry) -> None:
    topics = MemoryTopics(partitions=2)
    topics.make("in", 2)

    def make() -> KeyedDetect:
        return KeyedDetect(
            CONFIG,
            build_detect(CONFIG),
            decoder=codec_of(CONFIG),
            records=records(),
            log=topics,
            telemetry=telemetry,
            counters=DETECT_COUNTS,
        )

    engine = MemoryEngine(make, now_ms=BEGIN_MS)
    for source, payloads in INPUT.items():
        topics.put(source, payloads)
        entries = [Entry(offset=i, broker_ms=-1, payload=p) for i, p in enumerate(payloads)]
        engine.feed(source, *entries)
    engine.advance(BEGIN_MS + 1_000)


def samples(telemetry: PrometheusTelemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        name: float(value)
        for name, value in pairs
        if name.startswith(("streamad_input_", "streamad_detect_"))
        and not any(word in name for word in ("_seconds", "_created"))
    }


def test_the_same_input_gives_the_same_metrics_on_both_runtimes(tmp_path, caplog):
    plain = PrometheusTelemetry(strict=True)
    on_the_plain_loop(plain, str(tmp_path))
    warned = [one.message for one in caplog.records if "more than one partition" in one.message]
    assert len(warned) == 1
    keyed = PrometheusTelemetry(strict=True)
    on_keyed_state(keyed)
    found = samples(plain)
    assert found == samples(keyed)
    assert found['streamad_input_key_in_two_partitions_total{topic="in"}'] == 1
    assert sum(value for name, value in found.items() if "input_rejected" in name) == 1
    assert sum(value for name, value in found.items() if "late" in name) == 1
    assert (
        sum(value for name, value in found.items() if name.startswith("streamad_detect_keys")) == 4
    )


def test_series_that_are_hardly_judged_are_named_once_in_a_while(tmp_path, caplog):
    series = {"step": "1s"}
    config = PipelineConfig.model_validate({**CONFIG.model_dump(mode="json"), "series": series})
    thin = [point(key, t) for t in range(0, 900, 4) for key in ("gappy", "thin")]
    given = {HERE: [*thin, *[point("dense", t) for t in range(300)]]}
    telemetry = PrometheusTelemetry(strict=True)
    on_the_plain_loop(telemetry, str(tmp_path), config, given)
    (said,) = [one.getMessage() for one in caplog.records if "hardly watched" in one.message]
    assert "2 series are hardly watched (gappy, thin)" in said
    assert "more than 20 % of their samples, one every 1 s," in said
    assert samples(telemetry)["streamad_detect_blind_keys_total"] == 2


def test_edges_left_out_of_graphs_are_counted_and_told(tmp_path, caplog):
    config = PipelineConfig.model_validate(
        {
            "name": "judging",
            "input": {
                "topics": "in",
                "start": "earliest",
                "records": "edges",
                "fields": {"source": "a", "target": "b"},
            },
            "graphs": {"span": "10s", "max_edges": 50, "max_nodes": 40},
            "detector": "graph_vector",
            "scoring": {"min_windows": 0},
        }
    )

    def call(t: int, a: str, b: str) -> bytes:
        return json.dumps({"key": "x", "ts": BEGIN_MS + 1000 * t, "a": a, "b": b}).encode()

    calls = [call(t, f"web-{t % 5}", f"db-{t % 3}") for t in range(600)]
    # In two windows more edges, and more nodes, than graphs may have.
    scan = [call(305, f"web-{i % 5}", f"db-{i}") for i in range(60)]
    dense = [call(405, f"n-{i}", f"n-{j}") for i in range(12) for j in range(12)]
    given = {HERE: [*calls[:306], *scan, *calls[306:406], *dense, *calls[406:]]}
    usual = town(["usual"] * 40)
    operator = DetectOperator(config, GraphVector().fit(usual))
    telemetry = PrometheusTelemetry(strict=True)
    on_the_plain_loop(telemetry, str(tmp_path), config, given, operator)
    counted = samples(telemetry)
    assert counted["streamad_detect_graphs_cut_total"] == 2
    n_left_out = counted["streamad_detect_graph_edges_left_out_total"]
    assert n_left_out > 100
    said = [one.getMessage() for one in caplog.records if "left out of" in one.message]
    assert len(said) == 1
    assert "graphs.max_nodes (40) or graphs.max_edges (50): raise these" in said[0]
    out = operator.process(operator.new_state(), decoded(config, given[HERE]))
    texts = [one.explanation.text for one in out.findings if one.explanation is not None]
    assert any("edges were left out of it" in text for text in texts)


def decoded(config: PipelineConfig, payloads: list[bytes]) -> RecordBatch[Any]:
    n = len(payloads)
    return codec_of(config).decode(payloads, np.arange(n), np.full(n, -1)).batch


@pytest.fixture
def judging() -> Judging:
    return Judging(CONFIG, build_detect(CONFIG), records=records(), telemetry=NullTelemetry())


def shard(source: Source, *names: str | None) -> OpenShard:
    state = build_detect(CONFIG).new_state()
    state.keys.names += names
    return OpenShard(source=source, state=state)


def test_keys_that_were_forgotten_are_not_met_in_two_partitions(judging, caplog):
    judging.meet_keys(shard(HERE, "a", None))
    judging.meet_keys(shard(THERE, None, "b"))
    assert not caplog.records
    judging.meet_keys(shard(THERE, "a"))
    assert "1 keys were met in more than one partition" in caplog.text


@pytest.mark.parametrize(
    ("partition_s", "ticked_s", "quiet_s", "now_s", "due"),
    [
        (1000, 0, 100, 1100, True),
        (1000, 0, 0.5, 1100, False),  # something has just come
        (1000, 1100, 100, 1100, False),  # this tick has been passed
        (2000, 0, 100, 1100, False),  # its own time is ahead of the wall
        (0, 0, 100, 1100, False),  # nothing ever came
    ],
)
def test_the_wall_clock_counts_once_a_tick_and_only_where_it_is_quiet(
    judging, partition_s, ticked_s, quiet_s, now_s, due
):
    one = shard(HERE)
    one.state.partition_ms, one.ticked_ms = partition_s * 1000, ticked_s * 1000
    assert judging.tick_ms <= 100_000
    assert judging.is_due(one, quiet_ms=quiet_s * 1000, now_ms=now_s * 1000) is due


def test_rejections_are_counted_with_all_they_stand_for():
    telemetry = PrometheusTelemetry(strict=True)
    count_rejected(
        telemetry,
        [
            Rejected(message=0, reason="bad_time", detail="d"),
            Rejected(
                message=0, reason="more_rejected", detail="d", counts={"bad_time": 40, "x": 2}
            ),
            Rejected(message=1, reason="no_rows", detail="d"),
        ],
    )
    value = telemetry.registry.get_sample_value
    assert value("streamad_input_rejected_total", {"reason": "bad_time"}) == 41
    assert value("streamad_input_rejected_total", {"reason": "x"}) == 2
    assert value("streamad_input_rejected_total", {"reason": "no_rows"}) is None
    assert value("streamad_input_empty_messages_total") == 1
