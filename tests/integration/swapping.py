"""Artifacts that replace one another: fitted into one place, and what calm handovers yield."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from connectors.records import cloudevents, scores_log
from jobs.build import build_detect, make
from jobs.offline.replay import codec_of
from streamad.artifacts import save_artifact
from streamad.config import PipelineConfig
from streamad.operators.detect import Position
from streamad.records import Rejected
from streamad.testing.batches import make_columns
from streamad.training.fit import fit_detector
from tests.integration.conftest import Pipeline, read


def wave(seed: int, n: int) -> list[float]:
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(n) / 5) + rng.normal(0, 0.1, n)
    for at in range(60, n - 10, 45):
        values[at : at + 4] += 8
    return values.round(4).tolist()


def fit(config: PipelineConfig, seed: int, keys: tuple[str, ...]) -> str:
    """Put an artifact into the pipeline's place; keep a copy, and return its id."""
    times = [i * 1_000 for i in range(300)] * len(keys)
    values = [value for n in range(len(keys)) for value in wave(seed + n, 300)]
    names = [key for key in keys for _ in range(300)]
    fitted = fit_detector(
        lambda size: make("knn", size=size), config, make_columns(names, times, values)
    )
    where = Path(str(config.detector.artifact))
    made = save_artifact(where, fitted.detector, fitted.manifest, seeds=fitted.seeds).id
    shutil.copytree(where, where.parent.parent / made)
    return made


def spans_of(job: Pipeline, partition: int) -> list[tuple[str, int]]:
    """Return the artifacts that scored a partition, in order, each with the offset it ends at."""
    spans: dict[str, int] = {}
    order = []
    for record in job.records(job.config.topic("scores")):
        found = scores_log.decode(record.value)
        assert not isinstance(found, Rejected)
        if found[0].partition == partition and "tick_ms" not in found[0].notes:
            order.append((found[0].first_offset, found[0].artifact))
            spans[found[0].artifact] = max(spans.get(found[0].artifact, 0), found[0].next_offset)
    names = [name for _, name in sorted(order)]
    changes = [a for a, b in pairwise([*names, ""]) if a != b]
    assert len(changes) == len(spans), "an artifact came back"
    return [(name, spans[name]) for name in changes]


def calm(
    job: Pipeline, partition: int, spans: list[tuple[str, int]], copies: Path
) -> tuple[list[Any], dict[str, bytes]]:
    """Return scores and findings of one operator an artifact, each handing over to the next."""
    records = read(job.settings, job.input, partition)
    offsets = np.array([record.offset for record in records], np.int64)
    batch = (
        codec_of(job.config)
        .decode(
            [record.value for record in records],
            offsets,
            np.array([record.timestamp for record in records], np.int64),
        )
        .batch
    )
    state, begin, scores, findings = None, 0, [], {}
    for number, (name, end) in enumerate(spans):
        config = job.config
        where = config.detector.model_copy(update={"artifact": str(copies / name)})
        operator = build_detect(config.model_copy(update={"detector": where}), strict=True)
        if state is None:
            state = operator.new_state()
        else:
            operator.follow(state)
        last = number == len(spans) - 1
        stop = len(batch) if last else int(np.searchsorted(offsets[batch.message], end))
        out = operator.process(
            state, batch.take(begin, stop), at=Position(topic=job.input, partition=partition)
        )
        begin = stop
        for part in out.scores:
            scores += zip(
                part.keys.to_list(), part.end_ms.tolist(), part.score.tolist(), strict=True
            )
        findings |= {f"{f.id}-{f.sequence}": cloudevents.encode(f).value for f in out.findings}
    return scores, findings


def require_calm(job: Pipeline, ids: list[str], copies: Path) -> None:
    """Compare what was written with calm handovers from each artifact to the next."""
    scores: list[Any] = []
    findings: dict[str, bytes] = {}
    for partition in range(job.partitions):
        spans = spans_of(job, partition)
        assert [name for name, _ in spans] == ids
        more = calm(job, partition, spans, copies)
        scores += more[0]
        findings |= more[1]
    assert job.findings() == findings
    assert len(findings) > 10
    assert {json.loads(body)["artifact"] for body in findings.values()} == set(ids)
    assert list(map(repr, job.scores())) == list(map(repr, sorted(scores, key=repr)))
