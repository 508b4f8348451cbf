"""Every detector on every runtime: the same input gives the same findings and scores.

A runtime that works in memory is one function here; a detector is tested by existing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records import cloudevents, scores_log
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.detectors.base import Floats
from streamad.operators.detect import DetectOperator
from streamad.ports import NullTelemetry, Outgoing, Progress, Source
from streamad.records import Finding, ScoreBatch
from streamad.runtime.decoding import Decoding
from streamad.runtime.detect import DetectLoop
from streamad.runtime.embedded import EmbeddedPipeline, Hooks
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.placing import Clock
from streamad.runtime.recovery import Handover, Recovery
from streamad.testing.keyed_state import MemoryEngine
from tests.contract.inputs import KEYS, N_JUDGED, config_of, fitted, new, payloads_of

SOURCE = Source("in", 0)
DEAR = [name for name in DETECTORS if DETECTORS.load(name).info.cost != "cheap"]


@dataclass
class Asked:
    """How many windows the models were asked for, over all lives of a job."""

    windows: int = 0


def operator_of(name: str, asked: Asked | None = None) -> DetectOperator:
    detector = new(name)
    if fitted(name):
        detector.load(fitted(name))
    looks, counted = detector.looks, asked or Asked()

    def count(items: Any, **given) -> Floats:
        counted.windows += len(items)
        return looks(items, **given)

    detector.looks = count  # type: ignore[method-assign]
    return DetectOperator(config_of(name), detector)


# ---------------------------------------------------------------------- what comes out


@dataclass
class Seen:
    findings: list[Finding] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)

    def add_scores(self, batch: ScoreBatch) -> None:
        numbers = (
            batch.end_ms, batch.ordinal, batch.score, batch.p_value, batch.level, batch.newest,
            batch.newest_p, batch.newest_level, batch.severity, batch.flags,
        )  # fmt: skip
        rows = zip(batch.keys.to_list(), *(one.tolist() for one in numbers), strict=True)
        # As text: the windows of a key that is warming up have NaN for a score, unlike itself.
        self.scores += map(repr, rows)

    def sorted(self) -> Seen:
        # Where a batch came from is no part of what was found.
        findings = [replace(one, input={}) for one in self.findings]
        return Seen(sorted(findings, key=lambda one: (one.id, one.sequence)), sorted(self.scores))


def read(records: Iterable[Outgoing], config: PipelineConfig) -> Seen:
    seen = Seen()
    for one in records:
        if one.topic == config.topic("scores"):
            seen.add_scores(scores_log.decode(one.value)[1])
        else:
            seen.findings.append(cloudevents.decode(one.value, one.headers, message=0))
    return seen.sorted()


def records_of(config: PipelineConfig) -> KafkaDetectRecords:
    return KafkaDetectRecords(
        config, detector=config.detector.name, artifact="", partitions=1, wall_ms=lambda: 0
    )


# ---------------------------------------------------------------------- the runtimes


def run_embedded(name: str, folder: Path) -> Seen:
    seen, config = Seen(), config_of(name)
    hooks = Hooks(scores=seen.add_scores, finding=seen.findings.append)
    pipeline = EmbeddedPipeline(config, operator_of(name), clock=lambda: 0, hooks=hooks)
    payloads = payloads_of(name)
    n = len(payloads)
    decoded = codec_of(config).decode(payloads, np.arange(n), np.full(n, -1))
    pipeline.feed(decoded.batch)
    return seen.sorted()


@dataclass
class Wall:
    now_s: float = 0.0

    def seconds(self) -> float:
        return self.now_s


def run_plain(name: str, folder: Path) -> Seen:
    """Two lives of the plain loop: the first ends with much that it has not committed."""
    job = Plain(name, folder)
    job.first_life()
    loop = job.begin()
    while loop.turn():
        job.wall.now_s += 0.05
    loop.drain()
    return read(job.committed(), job.config)


class Plain:
    """A plain job on topics in memory."""

    def __init__(self, name: str, folder: Path) -> None:
        self.config, self.name, self.topics, self.wall = (
            config_of(name),
            name,
            MemoryTopics(),
            Wall(),
        )
        self.store = FileSnapshots(str(folder), pipeline=self.config.name)
        self.payloads = payloads_of(name)
        self.topics.put(SOURCE, self.payloads)

    def begin(self) -> DetectLoop:
        return DetectLoop(
            self.config,
            operator_of(self.name),
            member=MemoryMember(log=self.topics, topics=["in"], max_records=3),
            decoder=codec_of(self.config),
            records=records_of(self.config),
            store=self.store,
            clock=Clock(seconds=self.wall.seconds, wall_ms=lambda: 1),
        )

    def first_life(self) -> Progress:
        """Work until killed, with a snapshot behind it; return what the group knows."""
        loop, n = self.begin(), len(self.payloads)
        for turn in range(n // 4):
            loop.turn()
            self.wall.now_s += 1.0 if turn < n // 8 else 0.0
        done = self.topics.groups["memory"][SOURCE]
        assert 0 < loop.shards[SOURCE].snapshot_offset <= done.offset
        assert done.offset < loop.shards[SOURCE].position < n
        return done

    def committed(self) -> list[Outgoing]:
        return [
            Outgoing(topic=topic, value=one.value, key=one.key, headers=one.headers)
            for topic in (self.config.topic("findings"), self.config.topic("scores"))
            for one in self.topics.records(topic)
        ]


def run_taken_over(name: str, folder: Path) -> Seen:
    """A plain job is killed, and an engine with keyed state goes on from what it left."""
    plain, job = Plain(name, folder), Keyed(name)
    done = plain.first_life()
    recovery = Recovery(
        job.config,
        operator_of(name),
        decoding=Decoding(codec_of(job.config), pipeline=job.config.name),
        records=records_of(job.config),
        log=plain.topics,
        store=plain.store,
        telemetry=NullTelemetry(),
    )
    job.topics = plain.topics
    job.handover = Handover(recovery=recovery, progress={SOURCE: done})
    job.engine = MemoryEngine(job.make)
    n, half = len(job.entries), (len(job.entries) + done.offset) // 2
    job.engine.feed(SOURCE, *job.entries[done.offset : done.offset + 5])
    job.engine.fail_and_restore()  # it is all taken over once more
    job.engine.read()
    job.engine.feed(SOURCE, *job.entries[done.offset + 5 : half])
    job.engine.checkpoint()
    job.engine.feed(SOURCE, *job.entries[half:n])
    job.engine.fail_and_restore()
    job.engine.read()
    job.engine.advance(job.engine.now_ms + 1_000)
    job.engine.checkpoint()
    return read([*plain.committed(), *job.engine.committed], job.config)


class Keyed:
    """A job on an engine that has keyed state."""

    def __init__(self, name: str) -> None:
        self.config, self.name, self.topics = config_of(name), name, MemoryTopics()
        self.asked = Asked()
        self.entries = [
            Entry(offset=i, broker_ms=-1, payload=payload)
            for i, payload in enumerate(payloads_of(name))
        ]
        self.handover: Handover | None = None
        self.engine = MemoryEngine(self.make)

    def make(self) -> KeyedDetect:
        return KeyedDetect(
            self.config,
            operator_of(self.name, self.asked),
            decoder=codec_of(self.config),
            records=records_of(self.config),
            log=self.topics,
            handover=self.handover,
        )

    def feed(self, start: int, stop: int) -> None:
        """Give messages, a few at a time, and have them judged."""
        for at in range(start, stop, 7):
            taken = self.entries[at : min(at + 7, stop)]
            self.topics.put(SOURCE, [entry.payload for entry in taken])
            self.engine.feed(SOURCE, *taken)
            self.engine.advance(self.engine.now_ms + 1_000)

    def seen(self) -> Seen:
        self.engine.checkpoint()
        return read(self.engine.committed, self.config)


def run_keyed(name: str, folder: Path) -> Seen:
    job = Keyed(name)
    n = len(job.entries)
    job.feed(0, n // 2)
    job.engine.checkpoint()
    job.feed(n // 2, 2 * n // 3)
    job.engine.fail_and_restore()
    job.feed(2 * n // 3, n)
    return job.seen()


RUNTIMES: dict[str, Callable[[str, Path], Seen]] = {
    "plain": run_plain, "keyed": run_keyed, "taken over": run_taken_over
}  # fmt: skip


@cache
def expected(name: str) -> Seen:
    return run_embedded(name, Path())


@pytest.mark.parametrize("name", list(DETECTORS))
def test_the_input_has_something_to_find(name):
    found = {(one.key, one.state) for one in expected(name).findings}
    assert {(key, state) for key in KEYS for state in ("began", "ended")} <= found
    assert len(expected(name).scores) >= len(KEYS) * N_JUDGED


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_finds_the_same_on_every_runtime(name, runtime, tmp_path):
    seen = RUNTIMES[runtime](name, tmp_path)
    assert seen.scores == expected(name).scores
    assert seen.findings == expected(name).findings


@contextmanager
def small_journals(job: Keyed, *, n_bytes: int) -> Iterator[None]:
    """Have snapshots made often, or never."""
    flink = job.config.flink.model_copy(update={"journal_bytes": n_bytes})
    with mock.patch.object(job, "config", job.config.model_copy(update={"flink": flink})):
        yield


@pytest.mark.parametrize("journal_bytes", [4096, 10**8], ids=["snapshots", "journal alone"])
@pytest.mark.parametrize("name", DEAR)
def test_a_dear_detector_is_not_asked_again_for_what_it_has_judged(name, journal_bytes):
    job = Keyed(name)
    n = len(job.entries)
    with small_journals(job, n_bytes=journal_bytes):
        job.engine = MemoryEngine(job.make)
        job.feed(0, n - 8)
        judged = job.asked.windows
        assert judged > 0
        job.engine.checkpoint()
        job.engine.fail_and_restore()
        job.engine.advance(job.engine.now_ms + 10**8)
        assert job.engine.subtask(0).shards[0].position == n - 8, "it was restored"
        assert job.asked.windows == judged
        job.feed(n - 8, n)
    assert judged < job.asked.windows
    seen = job.seen()
    assert seen.scores == expected(name).scores
    assert seen.findings == expected(name).findings
    assert job.asked.windows == n_scored(seen)


def n_scored(seen: Seen) -> int:
    # Key, time and ordinal, then the score: NaN where there was none.
    return sum(row.split(", ")[3] != "nan" for row in seen.scores)


def test_some_detectors_are_dear_and_some_are_not():
    assert set(DEAR) not in (set(), set(DETECTORS))
