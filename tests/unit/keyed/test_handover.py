"""What a plain job left is taken over once, silent partitions included, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.errors import SourceUnavailableError, StateError
from streamad.ports import NullTelemetry, Source
from streamad.runtime.decoding import Decoding
from streamad.runtime.detect import DetectLoop
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.placing import Clock
from streamad.runtime.recovery import Handover, Recovery
from streamad.testing.keyed_state import MemoryEngine

HERE, THERE = Source("in", 0), Source("in", 1)
BEGIN_MS, STEP_MS = 1_700_000_000_000, 1_000
N = 60
END_MS = BEGIN_MS + N * STEP_MS


def points(key: str, start: int, stop: int) -> list[bytes]:
    return [
        json.dumps({"key": key, "ts": BEGIN_MS + t * STEP_MS, "value": 1.0 + t % 7}).encode()
        for t in range(start, stop)
    ]


class Move:
    """A pipeline that ran as a plain job on partition 0, and now begins on an engine."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.topics = MemoryTopics(partitions=2)
        self.topics.make("in", 2)
        self.store = FileSnapshots(str(folder), pipeline="moved")
        self.sections: dict[str, Any] = {"series": {"ttl": "10m", "silence": "20s"}, **sections}
        self.topics.put(HERE, points("a", 0, N))
        plain = DetectLoop(
            self.config,
            build_detect(self.config),
            member=MemoryMember(log=self.topics, topics=["in"]),
            decoder=codec_of(self.config),
            records=self.records(),
            store=self.store,
            clock=Clock(seconds=lambda: 0.0, wall_ms=lambda: BEGIN_MS),
        )
        while plain.turn():
            pass
        plain.drain()
        self.progress = dict(self.topics.groups["memory"])
        del self.progress[THERE]  # as if no member had ever been given it

    @property
    def config(self) -> PipelineConfig:
        tree = {
            "name": "moved",
            "input": {"topics": "in", "start": "earliest"},
            "detector": "robust_z",
            "windows": {"size": 16},
            "scoring": {"min_windows": 8},
        }
        return PipelineConfig.model_validate({**tree, **self.sections})

    def records(self) -> KafkaDetectRecords:
        return KafkaDetectRecords(
            self.config, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
        )

    def make(self) -> KeyedDetect:
        config, operator = self.config, build_detect(self.config)
        recovery = Recovery(
            config,
            operator,
            decoding=Decoding(codec_of(config), pipeline=config.name),
            records=self.records(),
            log=self.topics,
            store=self.store,
            telemetry=NullTelemetry(),
        )
        return KeyedDetect(
            config,
            operator,
            decoder=codec_of(config),
            records=self.records(),
            log=self.topics,
            handover=Handover(recovery=recovery, progress=self.progress),
        )

    def engine(self) -> MemoryEngine[KeyedDetect]:
        made = MemoryEngine(self.make, now_ms=END_MS)
        made.put(HERE)
        made.put(THERE)
        made.checkpoint()
        return made

    def feed(self, engine: MemoryEngine[KeyedDetect], source: Source, *payloads: bytes) -> None:
        offset = self.topics.bounds("in")[source][1]
        self.topics.put(source, payloads)
        entries = [
            Entry(offset=offset + i, broker_ms=-1, payload=p) for i, p in enumerate(payloads)
        ]
        engine.feed(source, *entries)

    def found(self, engine: MemoryEngine[KeyedDetect]) -> list[tuple[str, str]]:
        topic = self.config.topic("findings")
        read = [json.loads(one.value) for one in engine.outputs if one.topic == topic]
        return [(one["kind"], one["key"]) for one in read]


def test_a_partition_that_is_silent_since_is_told_though_no_message_ever_came(tmp_path):
    move = Move(tmp_path)
    engine = move.engine()
    engine.wake()
    engine.advance(END_MS + 60_000)
    assert move.found(engine) == [("no_data", "a")]


def test_a_partition_the_plain_job_never_had_begins_anew(tmp_path):
    move = Move(tmp_path)
    engine = move.engine()
    engine.wake()
    assert set(engine.subtask(0).shards) == {0}
    move.feed(engine, THERE, *points("b", N, N + 3))
    shard = engine.subtask(1).shards[1]
    engine.advance(END_MS + 1_000)
    assert (shard.position, shard.state.n_keys) == (3, 1)


def test_what_was_taken_over_is_the_engines_from_its_first_checkpoint_on(tmp_path):
    move = Move(tmp_path)
    engine = move.engine()
    engine.wake()
    engine.checkpoint()
    (tmp_path / "moved").rename(tmp_path / "gone")
    move.topics = MemoryTopics(partitions=2)  # nor does the input reach back any more
    move.topics.make("in", 2)
    move.topics.put(HERE, points("a", 0, N))
    engine.fail_and_restore()
    move.feed(engine, HERE, *points("a", N, N + 1))
    shard = engine.subtask(0).shards[0]
    assert shard.position == N + 1
    assert shard.state.partition_ms == END_MS - STEP_MS, "what was learned is still known"


def test_state_of_other_settings_is_refused_or_forgotten_as_configured(tmp_path):
    move = Move(tmp_path)
    move.sections["scoring"] = {"first_day": "2h"}
    with pytest.raises(StateError, match=r"in/0: .*configuration"):
        move.engine().wake()
    move.sections["delivery"] = {"on_state_mismatch": "fresh"}
    engine = move.engine()
    engine.wake()
    shard = engine.subtask(0).shards[0]
    assert (shard.position, shard.state.n_keys) == (N, 0)


def test_a_broker_that_does_not_know_the_partition_is_asked_again(tmp_path):
    move = Move(tmp_path)
    engine, topics = move.engine(), move.topics
    move.topics = MemoryTopics()
    engine.fail_and_restore()
    with pytest.raises(SourceUnavailableError, match="in/0: the broker knows nothing of it"):
        engine.wake()
    move.topics = topics
    engine.fail_and_restore()
    engine.wake()
    assert engine.subtask(0).shards[0].position == N
