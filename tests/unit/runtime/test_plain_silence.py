"""A silent partition is noticed beside a busy one, and its end beyond the last record is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.ports import Source
from streamad.runtime.detect import DetectLoop
from streamad.runtime.placing import Clock

BUSY, SILENT = Source("in", 0), Source("in", 1)
BEGIN_S = 1_700_000_000
CONFIG = PipelineConfig.model_validate(
    {
        "name": "silence",
        "input": {"topics": "in", "start": "earliest"},
        "detector": "robust_z",
        "windows": {"size": 16},
        "series": {"ttl": "10m", "silence": "20s"},
    }
)


def point(key: str, t: int) -> bytes:
    return json.dumps({"key": key, "ts": 1_000 * (BEGIN_S + t), "value": 1.0}).encode()


class Marked(MemoryMember):
    """Its silent partition ends with the mark of a transaction."""

    def end_reached(self, source: Source) -> int | None:
        reached = super().end_reached(source)
        return None if reached is None else reached + (source == SILENT)


class Job:
    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.topics = MemoryTopics(partitions=2)
        self.topics.make("in", 2)
        self.loop = DetectLoop(
            CONFIG,
            build_detect(CONFIG),
            member=Marked(log=self.topics, topics=["in"]),
            decoder=codec_of(CONFIG),
            records=KafkaDetectRecords(
                CONFIG, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            store=FileSnapshots(str(folder), pipeline=CONFIG.name),
            clock=Clock(
                seconds=lambda: self.now_s, wall_ms=lambda: round(1_000 * (BEGIN_S + self.now_s))
            ),
        )

    def run(self, seconds: int) -> None:
        """Go on second by second, with a point in the busy partition each."""
        for _ in range(seconds):
            self.topics.put(BUSY, [point("busy", int(self.now_s))])
            self.now_s += 1
            assert self.loop.turn() > 0

    def told(self) -> list[tuple[str, str]]:
        read = [json.loads(one.value) for one in self.topics.records(CONFIG.topic("findings"))]
        return [(one["kind"], one["key"]) for one in read]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path)
    made.topics.put(SILENT, [point("silent", t) for t in range(-9, 1)])
    return made


def test_a_partition_that_is_silent_beside_a_busy_one_is_told(job):
    job.run(60)
    assert job.told() == [("no_data", "silent")]


def test_a_quiet_partition_is_committed_up_to_its_end_and_a_busy_one_to_its_last_record(job):
    job.run(20)
    assert job.topics.groups["memory"][SILENT].offset == 10
    job.run(40)
    assert job.topics.groups["memory"][SILENT].offset == 11
    assert job.topics.groups["memory"][BUSY].offset == 60
