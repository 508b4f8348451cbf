"""A pipeline on an engine in memory, and its broker, which may be away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from connectors.memory import MemoryTopics
from connectors.records import scores_log
from connectors.records.detect import KafkaDetectRecords
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.errors import SourceUnavailableError
from streamad.ports import Messages, Source
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.testing.keyed_state import Cells, MemoryEngine

SOURCE, OTHER = Source("in", 0), Source("in", 1)
BEGIN_MS = 1_700_000_000_000
STEP_MS = 1_000
TTL_MS = 60_000


class Broker(MemoryTopics):
    """Topics that may be away."""

    away = False
    marked = emptied = False

    def bounds(self, topic: str) -> Mapping[Source, tuple[int, int]]:
        if self.away:
            msg = "nobody answers"
            raise SourceUnavailableError(msg)
        # A transaction ends with a mark, an offset without a record.
        found = {
            source: (first, after + self.marked)
            for source, (first, after) in super().bounds(topic).items()
        }
        return {source: (b if self.emptied else a, b) for source, (a, b) in found.items()}

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        if self.away:
            msg = "nobody answers"
            raise SourceUnavailableError(msg)
        return super().read(source, start, min(stop, super().bounds(source.topic)[source][1]))


class Job:
    """A pipeline on the engine; ``sections`` may change under its state."""

    def __init__(self, **sections: dict[str, object]) -> None:
        self.sections: dict[str, dict[str, object]] = {
            "series": {"ttl": "60s", "silence": "20s"},
            **sections,
        }
        self.topics = Broker(partitions=2)
        self.topics.make("in", 2)
        self.engine = MemoryEngine(self.make, now_ms=BEGIN_MS)

    @property
    def config(self) -> PipelineConfig:
        tree = {
            "name": "keyed",
            "input": {"topics": "in"},
            "detector": "robust_z",
            "windows": {"size": 16},
            "scoring": {"min_windows": 8},
        }
        merged = {**tree}
        for name, section in self.sections.items():
            merged[name] = {**tree.get(name, {}), **section}
        return PipelineConfig.model_validate(merged)

    def make(self) -> KeyedDetect:
        config = self.config
        return KeyedDetect(
            config,
            build_detect(config),
            decoder=codec_of(config),
            records=KafkaDetectRecords(
                config, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            log=self.topics,
        )

    def feed(self, *payloads: bytes | None, source: Source = SOURCE) -> None:
        offset = self.topics.bounds("in")[source][1]
        self.topics.put(source, payloads)
        entries = [
            Entry(offset=offset + i, broker_ms=-1, payload=payload)
            for i, payload in enumerate(payloads)
        ]
        self.engine.feed(source, *entries)

    def pass_time(self, ms: int) -> None:
        self.engine.advance(self.engine.now_ms + ms)

    def fail(self) -> None:
        self.engine.fail_and_restore()

    @property
    def cells(self) -> Cells:
        return self.engine.cells[0]

    @property
    def timers(self) -> set[int]:
        return self.engine.timers.get(0, set())

    def scored(self) -> list[tuple[str, int]]:
        rows: list[tuple[str, int]] = []
        for one in self.engine.outputs:
            if one.topic == self.config.topic("scores"):
                _, batch = scores_log.decode(one.value)
                rows += zip(batch.keys.to_list(), batch.end_ms.tolist(), strict=True)
        return rows

    def kinds(self) -> list[str]:
        found = [one for one in self.engine.outputs if one.topic == self.config.topic("findings")]
        return [json.loads(one.value)["kind"] for one in found]


def points(n: int, *, start: int = 0, key: str = "a") -> list[bytes]:
    return [
        json.dumps({"key": key, "ts": BEGIN_MS + t * STEP_MS, "value": 1.0 + t % 7}).encode()
        for t in range(start, start + n)
    ]


def about(job: Job) -> dict[str, object]:
    return json.loads(job.cells.chunks[-1])
