"""Detectors with a memory of keys take over a new artifact: in the plain job and on keyed state.

As if one operator had handed its state to the other where the scores log says so, whatever ended
the job around it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records import scores_log
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect, make
from jobs.offline.replay import codec_of
from jobs.plain.artifact_watch import ArtifactWatch, kept_artifact
from streamad.artifacts import save_artifact
from streamad.config import PipelineConfig
from streamad.errors import StateError
from streamad.operators.detect import DetectOperator
from streamad.ports import Source
from streamad.records import Rejected
from streamad.runtime.detect import DetectLoop
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.placing import Clock
from streamad.testing.batches import make_columns
from streamad.testing.keyed_state import MemoryEngine
from streamad.training.fit import fit_detector

HERE = Source("in", 0)
T0 = 1_700_000_000_000
N, CUT = 420, 300
KEYS = ("known", "later", "never")
"""In both trainings, in the second alone, in none."""
REMEMBERING = ("auto", "knn", "knn_fused", "lof", "themis")

Scores = list[tuple[str, int, str, str]]


def wave(seed: int, n: int, level: float, spread: float) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.2, n)
    return (level + spread * (np.sin(np.arange(n) / 5) + noise)).round(4).tolist()


def rows() -> list[tuple[str, int, float]]:
    columns = {key: wave(7 + i, N, 10 + 3 * i, 1 + i) for i, key in enumerate(KEYS)}
    for at in (200, 296, 380):  # the second is open at the cut
        for i in range(8):
            columns["known"][at + i] += 9
    return [(key, T0 + 1_000 * i, columns[key][i]) for i in range(N) for key in KEYS]


ROWS = rows()
FIRST = CUT * len(KEYS)
PAYLOADS = [json.dumps({"key": k, "ts": t, "value": v}).encode() for k, t, v in ROWS]


def config(detector: str, artifact: Path) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "name": "swapped",
            "input": {"topics": "in", "start": "earliest"},
            "detector": {"name": detector, "artifact": str(artifact)},
            "windows": {"size": 16},
            "scoring": {"min_windows": 8, "candidate": 0.05, "exit": 0.2},
            "alerts": {"level": 0.02},
            "delivery": {"snapshot_interval": "1h"},
        }
    )


def fit(detector: str, artifact: Path, seed: int, level: float, keys: tuple[str, ...]) -> str:
    """Put an artifact into its place, as ``streamad fit`` does; return its id."""
    trained = [
        (key, T0 + 1_000 * i, value)
        for n, key in enumerate(keys)
        for i, value in enumerate(wave(seed + n, 300, level, 1.5))
    ]
    names, times, values = (list(column) for column in zip(*trained, strict=True))
    given = config(detector, artifact)
    fitted = fit_detector(
        lambda size: make(detector, size=size), given, make_columns(names, times, values)
    )
    return save_artifact(artifact, fitted.detector, fitted.manifest, seeds=fitted.seeds).id


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PipelineConfig, str, Path]:
    """Return a pipeline whose artifact is the old one, its id, and a copy of it."""
    artifact = tmp_path / "models" / "one"
    old = fit(request.param, artifact, 1, 10, ("known",))
    shutil.copytree(artifact, tmp_path / "old")
    return config(request.param, artifact), old, tmp_path / "old"


def replace_artifact(given: PipelineConfig) -> str:
    return fit(given.detector.name, Path(str(given.detector.artifact)), 5, 12, ("later", "known"))


def operator_of(given: PipelineConfig, artifact: Path) -> DetectOperator:
    where = given.detector.model_copy(update={"artifact": str(artifact)})
    return build_detect(given.model_copy(update={"detector": where}), strict=True)


def expected(given: PipelineConfig, old: Path, n_old: int) -> tuple[Scores, Scores]:
    """Return scores and findings of one operator for the first rows, another for the rest."""
    first, second = operator_of(given, old), build_detect(given, strict=True)
    keys, times, values = (list(column) for column in zip(*ROWS, strict=True))
    batch, state = make_columns(keys, times, values), first.new_state()
    outs = [first.process(state, batch.take(0, n_old))]
    second.follow(state)
    outs.append(second.process(state, batch.take(n_old, len(ROWS))))
    scores = [
        (key, int(end), f"{score:.9g} {p:.9g}", by.artifact)
        for by, out in zip((first, second), outs, strict=True)
        for part in out.scores
        for key, end, score, p in zip(part.keys, part.end_ms, part.score, part.p_value, strict=True)
    ]
    found = [(f.id, f.sequence, f.state, f.kind) for out in outs for f in out.findings]
    return sorted(scores), sorted(found)


def written(given: PipelineConfig, values: dict[str, list[bytes]]) -> tuple[Scores, Scores]:
    scores: Scores = []
    for value in values["scores"]:
        read = scores_log.decode(value)
        assert not isinstance(read, Rejected)
        origin, part = read
        scores += [
            (key, int(end), f"{score:.9g} {p:.9g}", origin.artifact)
            for key, end, score, p in zip(
                part.keys, part.end_ms, part.score, part.p_value, strict=True
            )
        ]
    found = [json.loads(value) for value in values["findings"]]
    return sorted(scores), sorted((f["id"], f["sequence"], f["state"], f["kind"]) for f in found)


class Plain:
    """The plain job of a pipeline; what it wrote and read outlives it."""

    def __init__(self, given: PipelineConfig, folder: Path) -> None:
        self.given, self.folder, self.now_s = given, folder, 0.0
        self.topics = MemoryTopics()
        self.topics.make("in", 1)
        self.start()

    def start(self) -> None:
        operator = build_detect(self.given, strict=True)
        self.watch = ArtifactWatch(self.given, operator.artifact)
        self.loop = DetectLoop(
            self.given,
            operator,
            member=MemoryMember(log=self.topics, topics=["in"], max_records=50),
            decoder=codec_of(self.given),
            records=KafkaDetectRecords(
                self.given, detector=operator.detector.info.name, artifact=operator.artifact,
                partitions=1, wall_ms=lambda: 0,
            ),
            store=FileSnapshots(str(self.folder), pipeline="swapped"),
            clock=Clock(seconds=lambda: self.now_s, wall_ms=lambda: T0),
            staged=self.watch,
            kept=lambda artifact: kept_artifact(self.given, artifact),
        )  # fmt: skip

    def work(self, payloads: list[bytes]) -> None:
        self.topics.put(HERE, payloads)
        while self.loop.turn():
            self.now_s += 0.4

    def end_at(self, step: str, old: str) -> None:
        """Let the process take the new artifact over and die at a step of that."""

        def fault(at: str) -> None:
            if at == step and self.loop.shards[HERE].judge.artifact != old:
                raise KeyboardInterrupt(at)

        self.loop._fault = fault
        self.watch.look()
        with pytest.raises(KeyboardInterrupt):
            self.work(PAYLOADS[FIRST : FIRST + 300])

    def written(self) -> tuple[Scores, Scores]:
        values = {
            name: [record.value or b"" for record in self.topics.records(self.given.topic(name))]
            for name in ("scores", "findings")
        }
        return written(self.given, values)


@pytest.mark.parametrize(
    ("place", "ended"),
    [
        *(("knn", end) for end in ("unseen", "before_swap", "after_swap", "after_commit")),
        *((name, "never") for name in REMEMBERING),
        ("themis", "after_commit"),
    ],
    indirect=["place"],
)
def test_a_memory_is_carried_over_to_a_new_artifact(place, ended: str, tmp_path: Path):
    given, old, copy = place
    job = Plain(given, tmp_path / "state")
    job.work(PAYLOADS[:FIRST])
    new, done = replace_artifact(given), FIRST
    if ended == "never":
        job.watch.look()
    elif ended != "unseen":
        job.end_at(ended, old)
        done += 300
    if ended != "never":
        job.start()
    job.work(PAYLOADS[done:])
    job.loop.drain()
    scores, found = job.written()
    assert {row[3] for row in scores} == {old, new}
    # A window closes with its last sample, so that its end tells which row scored it.
    n_old = sum(row[3] == old for row in scores) + len(KEYS) * (given.windows.size - 1)
    assert (scores, found) == expected(given, copy, n_old)
    assert found


@pytest.mark.parametrize("place", ["knn", "lof", "themis"], indirect=True)
def test_a_job_on_flink_takes_over_a_new_artifact_when_it_is_restored(place):
    given, old, copy = place
    topics = MemoryTopics()
    topics.make("in", 1)

    def make_keyed() -> KeyedDetect:
        operator = build_detect(given, strict=True)
        return KeyedDetect(
            given,
            operator,
            decoder=codec_of(given),
            records=KafkaDetectRecords(
                given, detector=operator.detector.info.name, artifact=operator.artifact,
                partitions=1, wall_ms=lambda: 0,
            ),
            log=topics,
            kept=lambda artifact: kept_artifact(given, artifact),
        )  # fmt: skip

    engine = MemoryEngine(make_keyed, now_ms=T0)

    def feed(start: int, stop: int) -> None:
        topics.put(HERE, PAYLOADS[start:stop])
        for at in range(start, stop):
            engine.feed(HERE, Entry(offset=at, broker_ms=-1, payload=PAYLOADS[at]))
            if at % 60 == 0:
                engine.advance(engine.now_ms + 1_000)
        engine.advance(engine.now_ms + 1_000)

    feed(0, FIRST)
    engine.checkpoint()
    new = replace_artifact(given)
    engine.fail_and_restore()
    # Killed again before the first checkpoint of its own: it repeats the handing over.
    engine.advance(engine.now_ms + 1_000)
    engine.fail_and_restore()
    feed(FIRST, len(ROWS))
    engine.checkpoint()
    engine.fail_and_restore()
    engine.advance(engine.now_ms + 1_000)
    values = {
        name: [one.value or b"" for one in engine.outputs if one.topic == given.topic(name)]
        for name in ("scores", "findings")
    }
    scores, found = written(given, values)
    assert {row[3] for row in scores} == {old, new}
    assert (scores, found) == expected(given, copy, FIRST)
    assert found


def test_an_artifact_that_is_gone_or_has_other_windows_is_refused(tmp_path: Path, caplog):
    artifact = tmp_path / "models" / "one"
    old = fit("knn", artifact, 1, 10, ("known",))
    given = config("knn", artifact)
    before = build_detect(given, strict=True)
    longer = given.model_copy(update={"windows": given.windows.model_copy(update={"size": 32})})
    names, times, values = (list(column) for column in zip(*ROWS, strict=True))
    fitted = fit_detector(
        lambda size: make("knn", size=size), longer, make_columns(names, times, values)
    )
    save_artifact(tmp_path / "longer", fitted.detector, fitted.manifest, seeds=fitted.seeds)
    other = operator_of(longer, tmp_path / "longer")
    assert "windows had 16 samples so far, and have 32 with it" in other.cannot_follow(before)

    def keyed(job: PipelineConfig) -> KeyedDetect:
        operator: Any = build_detect(job, strict=True)
        return KeyedDetect(
            job, operator, decoder=codec_of(job), log=topics,
            records=KafkaDetectRecords(
                job, detector="knn", artifact=operator.artifact, partitions=1, wall_ms=lambda: 0
            ),
            kept=lambda artifact: kept_artifact(job, artifact),
        )  # fmt: skip

    topics = MemoryTopics()
    topics.make("in", 1)
    engine = MemoryEngine(lambda: keyed(given), now_ms=T0)
    engine.feed(HERE, Entry(offset=0, broker_ms=-1, payload=PAYLOADS[0]))
    engine.advance(T0 + 1_000)
    engine.checkpoint()
    replace_artifact(given)
    shutil.rmtree(artifact.with_name(".one.previous"))
    engine.fail_and_restore()
    topics.put(HERE, PAYLOADS[:2])
    with pytest.raises(StateError, match=f"made with artifact {old}.*put the other one beside it"):
        engine.feed(HERE, Entry(offset=1, broker_ms=-1, payload=PAYLOADS[1]))
