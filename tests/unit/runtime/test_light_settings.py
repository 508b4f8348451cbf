"""Settings that change nothing learned may change at any time, after a stop and after a crash.

What was committed is brought back by the settings it was decided by; what comes then is judged by
the new ones. So it is as if one operator had handed its state to the other in between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.ports import Source
from streamad.runtime.detect import DetectLoop
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.placing import Clock
from streamad.testing.batches import make_columns
from streamad.testing.keyed_state import MemoryEngine

HERE = Source("in", 0)
BEGIN_MS = 1_700_000_000_000
N, CUT = 600, 423
"""The second of three events is open at the cut."""

CHANGES = [
    {"scoring": {"direction": "below"}},
    {"scoring": {"min_effect": {"absolute": 1000.0}}},
    {"scoring": {"cool_down": 40, "update_every": 7}},
    {"series": {"silence": "90s"}},
    {"series": {"ttl": "5m", "gone_after": "2m"}, "scoring": {"min_duration": 3}},
]


def config(**changes: dict[str, Any]) -> PipelineConfig:
    tree: dict[str, Any] = {
        "name": "light",
        "input": {"topics": "in", "start": "earliest"},
        "detector": "robust_z",
        "windows": {"size": 16},
        "series": {"silence": "20s", "ttl": "10m"},
        "scoring": {"min_windows": 8, "candidate": 0.01, "exit": 0.05, "update_every": 20},
        "alerts": {"level": 0.01},
        "delivery": {"snapshot_interval": "1h"},
    }
    for name, section in changes.items():
        tree[name] = {**tree.get(name, {}), **section}
    return PipelineConfig.model_validate(tree)


def series() -> list[tuple[str, int, float]]:
    values = np.random.default_rng(4).normal(10, 1, N)
    for at in (200, 420, 540):
        values[at : at + 12] += 25
    rows = [("a", BEGIN_MS + 1_000 * i, float(value)) for i, value in enumerate(values)]
    rows += [("b", BEGIN_MS + 1_000 * i, 1.0 + i % 3) for i in range(N) if i % 250 < 190]
    return sorted(rows, key=lambda row: row[1])


ROWS = series()
FIRST = sum(row[1] < BEGIN_MS + 1_000 * CUT for row in ROWS)
PAYLOADS = [json.dumps({"key": k, "ts": t, "value": v}).encode() for k, t, v in ROWS]

Told = list[tuple[str, int, str, str]]


def expected(old: PipelineConfig, new: PipelineConfig) -> Told:
    first, second = build_detect(old), build_detect(new)
    keys, times, values = (list(column) for column in zip(*ROWS, strict=True))
    batch, state = make_columns(keys, times, values), first.new_state()
    found = first.process(state, batch.take(0, FIRST)).findings
    state = second.adopt(state)
    found += second.process(state, batch.take(FIRST, len(ROWS))).findings
    return sorted((one.id, one.sequence, one.state, one.kind) for one in found)


def told(records: list[bytes]) -> Told:
    read = [json.loads(record) for record in records]
    return sorted((one["id"], one["sequence"], one["state"], one["kind"]) for one in read)


def on_the_plain_loop(old: PipelineConfig, new: PipelineConfig, folder: Path, how: str) -> Told:
    topics = MemoryTopics()
    topics.make("in", 1)
    now = [0.0]

    def loop(given: PipelineConfig) -> DetectLoop:
        return DetectLoop(
            given,
            build_detect(given),
            member=MemoryMember(log=topics, topics=["in"], max_records=50),
            decoder=codec_of(given),
            records=KafkaDetectRecords(
                given, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            store=FileSnapshots(str(folder), pipeline=given.name),
            clock=Clock(seconds=lambda: now[0], wall_ms=lambda: BEGIN_MS),
        )

    def work(given: PipelineConfig) -> DetectLoop:
        running = loop(given)
        while running.turn():
            now[0] += 1
        return running

    topics.put(HERE, PAYLOADS[:FIRST])
    running = work(old)
    if how == "stopped":
        running.drain()
    if how == "killed twice":  # the new job ends before it has judged anything
        loop(new).turn()
    topics.put(HERE, PAYLOADS[FIRST:])
    work(new).drain()
    return told([record.value for record in topics.records(new.topic("findings"))])


def on_keyed_state(old: PipelineConfig, new: PipelineConfig, how: str) -> Told:
    topics, given = MemoryTopics(), [old]
    topics.make("in", 1)

    def make() -> KeyedDetect:
        return KeyedDetect(
            given[0],
            build_detect(given[0]),
            decoder=codec_of(given[0]),
            records=KafkaDetectRecords(
                given[0], detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            log=topics,
        )

    engine = MemoryEngine(make, now_ms=BEGIN_MS)
    for at, part in ((0, PAYLOADS[:FIRST]), (FIRST, PAYLOADS[FIRST:])):
        topics.put(HERE, part)
        for i, payload in enumerate(part):
            engine.feed(HERE, Entry(offset=at + i, broker_ms=-1, payload=payload))
            if i % 40 == 0 or how == "stopped":
                engine.advance(engine.now_ms + 1_000)
        if at == 0:
            if how != "waiting":
                engine.advance(engine.now_ms + 1_000)
            engine.checkpoint()
            given[0] = new
            engine.fail_and_restore()
    engine.advance(engine.now_ms + 1_000)
    found = [one.value for one in engine.outputs if one.topic == new.topic("findings")]
    return told(found)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("how", ["stopped", "killed", "killed twice"])
def test_the_plain_job_resumes_under_other_light_settings(changes, how: str, tmp_path: Path):
    old, new = config(), config(**changes)
    assert expected(old, new) != expected(new, new)
    assert expected(old, new) != expected(old, old)
    assert on_the_plain_loop(old, new, tmp_path, how) == expected(old, new)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_job_on_flink_resumes_under_other_light_settings(changes, how: str):
    old, new = config(), config(**changes)
    assert on_keyed_state(old, new, how) == expected(old, new)


def test_messages_that_wait_on_flink_are_judged_by_the_new_settings():
    old, new = config(), config(**CHANGES[1])
    found = on_keyed_state(old, new, "waiting")
    assert found
    assert len({one[:2] for one in found}) == len(found)
