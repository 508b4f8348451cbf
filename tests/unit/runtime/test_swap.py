"""A new artifact takes over a running job between two commits, whatever ends the job around it."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records import scores_log
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from jobs.plain.artifact_watch import ArtifactWatch, kept_artifact
from streamad.artifacts import Manifest, load_manifest, save_artifact
from streamad.config import PipelineConfig
from streamad.detectors.events.rare import RareEvents
from streamad.errors import StateError
from streamad.events.rows import EventRows
from streamad.ports import Source
from streamad.records import Rejected, ScoreBatch
from streamad.runtime.detect import DetectLoop
from streamad.runtime.placing import Clock

HERE = Source("in", 0)
BEGIN_MS = 1_700_000_000_000
FIELDS = ["process", "host"]
N = 900


Judged = dict[tuple[str, int], tuple[float, ...]]


class KilledError(Exception):
    """The process ends here: nothing after it happens."""


def events(seed: int, n: int, odd: float = 0.01) -> list[dict[str, Any]]:
    """Return events of three users, of which a share does what they never did."""
    rng = np.random.default_rng(seed)
    user, strange = rng.integers(0, 3, n), rng.random(n) < odd
    # Just before a kill: beside the wrong artifact an episode would be open after it.
    strange[770:776] = True
    return [
        {
            "user": f"u{u}",
            "ts": BEGIN_MS + 20_000 * i,
            "process": f"odd-{i}" if s else f"p{u}{rng.integers(0, 4)}",
            "host": f"h{(u + s) % 3}",
        }
        for i, (u, s) in enumerate(zip(user.tolist(), strange.tolist(), strict=True))
    ]


ROWS = events(1, N)
PAYLOADS = [json.dumps(row).encode() for row in ROWS]


def fit(folder: Path, seed: int, fields: list[str] = FIELDS) -> str:
    """Put an artifact into the pipeline's place, as ``streamad fit`` does; return its id.

    With seed 2 odd events are rare, with seed 3 they are ordinary.
    """
    rows = events(seed, 2_000, 0.4 * (seed - 2) + 0.01)
    frame = pl.DataFrame({name: [row.get(name, "x") for row in rows] for name in fields})
    users = np.array([int(row["user"][1:]) for row in rows], np.int32)
    detector = RareEvents().fit(EventRows(np.arange(len(rows)), frame), groups=users)
    about = Manifest(
        detector="rare_events", size=1, variates=tuple(fields), records="events",
        groups=("u0", "u1", "u2"),
    )  # fmt: skip
    return save_artifact(folder, detector, about).id


class Place:
    """A topic, an artifact and the snapshots of a pipeline: what outlives a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifact = folder / "models" / "audit"
        self.topics = MemoryTopics()
        self.topics.make("in", 1)
        self.now_s = 0.0

    @property
    def config(self) -> PipelineConfig:
        return PipelineConfig.model_validate(
            {
                "name": "swapped",
                "input": {
                    "topics": "in", "start": "earliest", "records": "events",
                    "fields": {"key": "user", "categories": FIELDS},
                },
                "detector": {"name": "rare_events", "artifact": str(self.artifact)},
                "scoring": {"min_windows": 8, "candidate": 0.05, "exit": 0.2},
                "alerts": {"level": 0.02},
                "delivery": {"snapshot_interval": "1h", "commit_interval": "1s"},
            }
        )  # fmt: skip

    def start(self) -> tuple[DetectLoop, ArtifactWatch]:
        """Return a new process of the job."""
        config = self.config
        operator = build_detect(config, strict=True)
        watch = ArtifactWatch(config, operator.artifact)

        loop = DetectLoop(
            config,
            operator,
            member=MemoryMember(log=self.topics, topics=["in"], max_records=50),
            decoder=codec_of(config),
            records=KafkaDetectRecords(
                config, detector="rare_events", artifact=operator.artifact, partitions=1,
                wall_ms=lambda: 0,
            ),
            store=FileSnapshots(str(self.folder / "state"), pipeline=config.name),
            clock=Clock(seconds=lambda: self.now_s, wall_ms=lambda: BEGIN_MS),
            staged=watch,
            kept=lambda artifact: kept_artifact(config, artifact),
        )  # fmt: skip
        return loop, watch

    def work(self, loop: DetectLoop, watch: ArtifactWatch | None = None) -> None:
        """Let a process work off what there is."""
        while loop.turn():
            self.now_s += 0.4
            if watch is not None:
                watch.look()

    def judged(self) -> list[tuple[str, int, str]]:
        """Return the key, the ordinal and the artifact of every score in the log."""
        made = []
        for record in self.topics.records(self.config.topic("scores")):
            read = scores_log.decode(record.value)
            assert not isinstance(read, Rejected)
            origin, scores = read
            made += [
                (key, int(n), origin.artifact)
                for key, n in zip(scores.keys, scores.ordinal, strict=True)
            ]
        return made

    def scores(self) -> Judged:
        """Return what was made of every row, by key and ordinal."""
        made: Judged = {}
        for record in self.topics.records(self.config.topic("scores")):
            read = scores_log.decode(record.value)
            assert not isinstance(read, Rejected)
            made |= by_row(read[1])
        return made

    def findings(self) -> list[tuple[str, int, str]]:
        """Return the findings that were written."""
        read = [json.loads(r.value) for r in self.topics.records(self.config.topic("findings"))]
        return sorted((one["id"], one["sequence"], one["state"]) for one in read)


def by_row(scores: ScoreBatch) -> Judged:
    """Return each row's score, tail probability, level and severity, both looks."""
    columns = ("score", "p_value", "level", "newest", "newest_p", "newest_level", "severity")
    values = np.stack([np.nan_to_num(getattr(scores, name), nan=-1) for name in columns], axis=1)
    rows = zip(scores.keys, scores.ordinal.tolist(), values.tolist(), strict=True)
    return {(key, n): tuple(row) for key, n, row in rows}


def expected(
    place: Place, old: Path, new: Path, n_old: int
) -> tuple[list[tuple[str, int, str]], Judged]:
    """Return findings and scores of one operator for the first rows, another for the rest."""
    config = place.config

    def operator(artifact: Path) -> Any:
        where = config.detector.model_copy(update={"artifact": str(artifact)})
        return build_detect(config.model_copy(update={"detector": where}), strict=True)

    before, after = operator(old), operator(new)
    offsets = np.arange(N)
    batch = codec_of(config).decode(PAYLOADS, offsets, np.full(N, -1)).batch
    state = before.new_state()
    outputs = [before.process(state, batch.take(0, n_old))]
    after.follow(state)
    outputs.append(after.process(state, batch.take(n_old, N)))
    findings = sorted((f.id, f.sequence, f.state) for out in outputs for f in out.findings)
    scores: Judged = {}
    for part in (part for out in outputs for part in out.scores):
        scores |= by_row(part)
    return findings, scores


def end_around_the_swap(place: Place, loop: DetectLoop, watch: ArtifactWatch, step: str) -> None:
    """Let a process see the new artifact and die at a step of the swap."""

    def fault(at: str) -> None:
        if at == step and loop.shards[HERE].judge.artifact != old:
            raise KilledError(at)

    def save(*_: object) -> None:
        raise KilledError(step)

    old, watch_it = loop._swap.current.artifact, loop._fault
    loop._fault = fault
    if step == "save":
        # Of a store of files: the snapshot is whole, or it is not there.
        loop._store.save = save  # type: ignore[method-assign]
    watch.look()
    place.topics.put(HERE, PAYLOADS[430:800])
    with pytest.raises(KilledError):
        place.work(loop, watch)
    loop._fault = watch_it


@pytest.mark.parametrize(
    "ended",
    [
        "never",
        "stopped",
        "unseen",
        "before_swap",
        "save",
        "after_swap",
        "after_score",
        "after_commit",
    ],
)
def test_rows_are_judged_by_the_old_artifact_up_to_an_offset_and_by_the_new_from_there(
    ended: str, tmp_path: Path
):
    place = Place(tmp_path)
    old = fit(place.artifact, 2)
    shutil.copytree(place.artifact, tmp_path / "old")
    place.topics.put(HERE, PAYLOADS[:430])
    loop, watch = place.start()
    place.work(loop)
    new = fit(place.artifact, 3)
    done = 430
    if ended == "never":
        watch.look()
    elif ended == "stopped":
        loop.drain()
    elif ended != "unseen":
        end_around_the_swap(place, loop, watch, ended)
        done = 800
    if ended != "never":
        loop, watch = place.start()
    place.topics.put(HERE, PAYLOADS[done:])
    place.work(loop, watch)
    loop.drain()

    judged = place.judged()
    assert len({row[:2] for row in judged}) == len(judged) == N, "each row is judged once"
    for key in {row[0] for row in judged}:
        rows = sorted(row[1:] for row in judged if row[0] == key)
        artifacts = [artifact for _, artifact in rows]
        assert [a for a, b in pairwise([*artifacts, ""]) if a != b] == [old, new]
    n_old = sum(artifact == old for _, _, artifact in judged)
    findings, scores = expected(place, tmp_path / "old", place.artifact, n_old)
    assert findings
    assert place.findings() == findings
    assert place.scores() == scores


def test_an_artifact_that_does_not_fit_is_refused_and_the_old_one_goes_on(tmp_path: Path, caplog):
    place = Place(tmp_path)
    old = fit(place.artifact, 2)
    place.topics.put(HERE, PAYLOADS[:100])
    loop, watch = place.start()
    place.work(loop, watch)
    fit(place.artifact, 3, ["process", "site"])
    watch.look()
    assert "does not fit pipeline 'swapped'" in caplog.text
    (place.artifact / "weights.safetensors").write_bytes(b"half")
    watch.look()
    assert watch.take() is None
    place.topics.put(HERE, PAYLOADS[100:300])
    place.work(loop, watch)
    assert {artifact for _, _, artifact in place.judged()} == {old}
    whole = fit(place.artifact, 3)
    place.topics.put(HERE, PAYLOADS[300:500])
    place.work(loop, watch)
    place.topics.put(HERE, PAYLOADS[500:])
    place.work(loop, watch)
    assert {artifact for _, _, artifact in place.judged()} == {old, whole}


def test_an_artifact_whose_scores_are_not_finite_is_refused(tmp_path: Path, monkeypatch, caplog):
    place = Place(tmp_path)
    old = fit(place.artifact, 2)
    place.topics.put(HERE, PAYLOADS[:100])
    loop, watch = place.start()
    place.work(loop, watch)
    new = fit(place.artifact, 3)
    watch.look()
    assert watch._loaded is not None
    bad = watch._loaded.detector
    monkeypatch.setattr(bad, "looks", lambda items, **_: np.full((len(items), 1), np.nan))
    place.topics.put(HERE, PAYLOADS[100:])
    place.work(loop, watch)
    assert f"artifact {new} is not used" in caplog.text
    assert {artifact for _, _, artifact in place.judged()} == {old}
    assert len(place.judged()) == N


def test_state_whose_artifact_is_gone_names_it_and_what_to_do(tmp_path: Path):
    place = Place(tmp_path)
    old = fit(place.artifact, 2)
    place.topics.put(HERE, PAYLOADS[:300])
    loop, _ = place.start()
    place.work(loop)
    fit(place.artifact, 3)
    kept = place.artifact.with_name(".audit.previous")
    assert load_manifest(kept).id == old
    shutil.move(kept, tmp_path / "elsewhere")
    place.topics.put(HERE, PAYLOADS[300:])
    with pytest.raises(StateError, match=f"artifact {old} judged the input from 0 to 300"):
        place.start()[0].turn()
    shutil.move(tmp_path / "elsewhere", place.artifact.with_name("any-name"))
    loop, _ = place.start()
    place.work(loop)
    assert len(set(place.judged())) == len(place.judged()) == N
