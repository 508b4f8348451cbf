"""Detect over an engine's state: batches, checkpoints, failures and rescaling change no output.

What is committed equals one pass of the operator over the whole of each partition; where the wall
clock ticked, one pass with the ticks that the scores log tells of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.memory import MemoryTopics
from connectors.records import scores_log
from connectors.records.detect import KafkaDetectRecords
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig, parse_pipeline
from streamad.operators.detect import DetectOperator, Position
from streamad.ports import Messages, Outgoing, Source
from streamad.records import ScoreBatch
from streamad.runtime import snapshots
from streamad.runtime.keyed import detect as keyed
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.testing.keyed_state import MemoryEngine
from streamad.testing.nasty import NASTY

SOURCES = (Source("in", 0), Source("in", 1))
BEGIN_MS = 1_700_000_000_000
PIPELINE = """
name: keyed
input: {{topics: in, start: earliest}}
detector: {{name: {detector}, params: {params}}}
windows: {{size: 16}}
series: {{step: 1s, lateness: 2s, late: topic, silence: 20s, ttl: 90s, max_keys: 4, max_ahead: 1m}}
scoring: {{min_windows: 8, cool_down: 3, update_every: 5, candidate: 0.01, exit: 0.05}}
"""
DETECTORS = {"robust_z": ("{}", 240), "auto": ("{}", 400)}
POISON = [payload for payload in NASTY if payload is None or len(payload) < 10_000]
HEADERS = (("trace", b"\x00\xff"), ("größe", b""))


def config_of(detector: str) -> PipelineConfig:
    return parse_pipeline(PIPELINE.format(detector=detector, params=DETECTORS[detector][0]))


@cache
def entries_of(detector: str, seed: int) -> dict[Source, list[Entry]]:
    return {source: make_entries(source, DETECTORS[detector][1], seed) for source in SOURCES}


def make_entries(source: Source, n_times: int, seed: int) -> list[Entry]:
    """Return messages of a few rows each, and among them what no one can read."""
    rng = np.random.default_rng([seed, source.partition])
    rows = make_rows(source.partition, n_times, rng)
    made: list[Entry] = []
    at = 0
    while at < len(rows):
        taken = rows[at : at + int(rng.choice([1, 5, 20], p=[0.3, 0.4, 0.3]))]
        at += len(taken)
        lines = [
            json.dumps({"key": key, "ts": BEGIN_MS + ms, "value": value})
            for _, key, ms, value in taken
        ]
        payloads: list[bytes | None] = ["\n".join(lines).encode()]
        if rng.random() < 0.1:
            payloads.append(POISON[int(rng.integers(len(POISON)))])
        made += [
            Entry(
                offset=len(made) + i,
                broker_ms=BEGIN_MS + taken[-1][0] * 1_000,
                payload=payload,
                key=taken[0][1].encode(),
                headers=HEADERS if rng.random() < 0.2 else (),
            )
            for i, payload in enumerate(payloads)
        ]
    return made


def make_rows(
    partition: int, n_times: int, rng: np.random.Generator
) -> list[tuple[int, str, int, float]]:
    """Return ``(arrival s, key, event ms, value)``: noise of three keys, with all that happens."""
    values = np.round(10 + rng.normal(size=(n_times, 3)), 3)
    for at in rng.integers(n_times // 3, n_times - 10, 6):
        values[at : at + 4, rng.integers(3)] += rng.choice([-60, 40])
    late_ms = rng.choice([0, 900, 12_000], p=[0.7, 0.27, 0.03], size=(n_times, 3))
    # The third key is silent for a while: long enough to be said so.
    quiet = int(rng.integers(n_times // 3, n_times - 60))
    rows: list[tuple[int, str, int, float]] = []
    for t in range(n_times):
        for k in range(2 if quiet <= t < quiet + 45 else 3):
            at = t * 1_000 - int(late_ms[t, k])
            rows.append((t, f"k{k}.{partition}", at, float(values[t, k])))
        if rng.random() < 0.05:  # passing keys, and more of them than are held
            rows.append((t, f"x{rng.integers(9)}.{partition}", t * 1_000, 1.0))
        if rng.random() < 0.02:  # from the future
            rows.append((t, f"k0.{partition}", t * 1_000 + 100_000, 5.0))
    return rows


# ---------------------------------------------------------------------- what comes out


@dataclass
class Seen:
    """Outputs in an order of their own: between partitions there is none."""

    findings: list[tuple[str, bytes]] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def add(self, outgoing: Iterable[Outgoing]) -> None:
        for one in outgoing:
            if one.topic == "in.dlq":
                self.letters.append(repr(one))
            elif one.topic.endswith("late"):
                self.late.append(repr(one))
            else:
                self.findings.append((dict(one.headers)["ce_id"].decode(), one.value or b""))

    def add_scores(self, batch: ScoreBatch) -> None:
        numbers = (batch.end_ms, batch.score, batch.p_value, batch.level, batch.flags)
        rows = zip(batch.keys.to_list(), *(one.tolist() for one in numbers), strict=True)
        # As text: the windows of a key that is warming up have NaN for a score, unlike itself.
        self.scores += map(repr, rows)

    def sorted(self) -> Seen:
        return Seen(*map(sorted, (self.findings, self.scores, self.letters, self.late)))


Ticks = dict[Source, list[tuple[int, int]]]
"""Of each partition: the offset before which time was let pass, and the time."""


def read(committed: Sequence[Outgoing], config: PipelineConfig) -> tuple[Seen, Ticks]:
    seen, ticks = Seen(), {source: [] for source in SOURCES}
    for one in committed:
        if one.topic != config.topic("scores"):
            seen.add([one])
            continue
        origin, batch = scores_log.decode(one.value)
        if tick := origin.notes.get("tick_ms"):
            ticks[Source(origin.topic, origin.partition)].append((origin.next_offset, int(tick)))
        else:
            seen.add_scores(batch)
    return seen.sorted(), ticks


class Job:
    """A pipeline, its operators, and what it yields in a calm run."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config, self.codec = config, codec_of(config)
        self.topics = MemoryTopics()
        for source in SOURCES:
            self.topics.put(source, [])
        self.records = KafkaDetectRecords(
            config, detector=config.detector.name, artifact="", partitions=1, wall_ms=lambda: 0
        )

    def make(self) -> KeyedDetect:
        return KeyedDetect(
            self.config,
            build_detect(self.config),
            decoder=self.codec,
            records=self.records,
            log=self.topics,
        )

    def calm(self, entries: dict[Source, list[Entry]], ticks: Ticks) -> Seen:
        """Judge all input, a partition at a time, as one batch between two ticks."""
        seen, operator = Seen(), build_detect(self.config)
        for source, of_source in entries.items():
            self._calm(seen, operator, source, of_source, ticks[source])
        return seen.sorted()

    def _calm(self, seen, operator: DetectOperator, source, entries, ticks) -> None:
        state, at = operator.new_state(), Position(topic=source.topic, partition=source.partition)
        start = 0
        for stop, tick_ms in [*ticks, (len(entries), None)]:
            messages = messages_of(source, entries[start:stop])
            start = stop
            decoded = self.codec.decode(messages.payloads, messages.offsets, messages.broker_ms)
            out = operator.process(state, decoded.batch, at=at)
            seen.add(self.records.rejected(messages, [*decoded.rejected, *out.rejected]))
            seen.add(self.records.late(messages, decoded.batch, out.late))
            outs = [out] if tick_ms is None else [out, operator.tick(state, tick_ms, at=at)]
            for one in outs:
                seen.add(self.records.findings(one.findings))
                for batch in one.scores:
                    seen.add_scores(batch)


def messages_of(source: Source, entries: list[Entry]) -> Messages:
    return Messages(
        source=source,
        payloads=[entry.payload for entry in entries],
        offsets=np.array([entry.offset for entry in entries], np.int64),
        broker_ms=np.array([entry.broker_ms for entry in entries], np.int64),
        raw=entries,
    )


# ---------------------------------------------------------------------- what happens

partitions = st.sampled_from(SOURCES)
EVENTS = st.one_of(
    st.tuples(st.just("feed"), partitions, st.integers(1, 60)),
    st.tuples(st.just("put"), partitions, st.integers(1, 30)),
    st.tuples(st.just("read"), partitions, st.integers(1, 30)),
    st.tuples(st.just("advance"), st.integers(1, 2_000), st.booleans()),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("fail"), st.booleans(), st.booleans()),
    st.tuples(st.just("wake")),
    st.tuples(st.just("rescale"), st.integers(1, 3)),
)
LAPSES = st.tuples(st.just("advance"), st.integers(1_000, 60_000), st.booleans())
SMALL = st.fixed_dictionaries(
    {
        "linger": st.sampled_from([1, 20, 700]),
        "journal_bytes": st.sampled_from([0, 600, 5_000, 10**7]),
        "pending": st.sampled_from([3, 20, 10**6]),
        "portion_bytes": st.sampled_from([300, 10**6]),
        "chunk_bytes": st.sampled_from([700, 10**6]),
    }
)


# What chance may leave out: failures with all of a journal judged, with some of it, and at once.
EVENTFUL = [
    *(("feed", source, 50) for source in SOURCES),
    ("advance", 1_500, False),
    ("checkpoint",),
    ("feed", SOURCES[0], 20),
    ("fail", True, True),
    ("advance", 1_500, True),
    ("feed", SOURCES[1], 20),
    ("rescale", 2),
    ("fail", False, False),
    ("put", SOURCES[0], 10),
    ("advance", 1_500, False),
    ("checkpoint",),
    ("fail", True, True),
]
JOURNAL_ALONE = {
    "linger": 20, "journal_bytes": 10**7, "pending": 20, "portion_bytes": 10**6,
    "chunk_bytes": 10**6,
}  # fmt: skip


class Run:
    """Let events happen to a job on the engine."""

    def __init__(self, job: Job, entries: dict[Source, list[Entry]], *, now_ms: int) -> None:
        self.job, self.entries = job, entries
        self.written = dict.fromkeys(SOURCES, 0)
        self.engine = MemoryEngine(job.make, now_ms=now_ms)

    def put(self, source: Source, n: int) -> None:
        start = self.written[source]
        new = self.entries[source][start : start + n]
        self.written[source] += len(new)
        self.job.topics.put(source, [entry.payload for entry in new])
        self.engine.put(source, *new)

    def feed(self, source: Source, n: int) -> None:
        self.put(source, n)
        self.read(source)

    def read(self, source: Source, n: int | None = None) -> None:
        if source in self.engine.positions:
            self.engine.read(source, n)

    def advance(self, ms: int, *how: bool) -> None:
        (at_once,) = how or (False,)
        self.engine.advance(self.engine.now_ms + ms, at_once=at_once)

    def checkpoint(self) -> None:
        self.engine.checkpoint()

    def fail(self, *how: bool) -> None:
        read_again, timers = how
        self.engine.fail_and_restore(read=read_again, timers=timers)

    def wake(self) -> None:
        self.engine.wake()

    def rescale(self, n: int) -> None:
        self.engine.rescale(n)

    def finish(self) -> None:
        for source in SOURCES:
            self.put(source, len(self.entries[source]))
        self.engine.read()
        self.engine.wake()
        self.advance(1_000)
        self.checkpoint()
        for cells in self.engine.cells.values():
            n_chunks = json.loads(cells.chunks[-1])["chunks"]
            assert sorted(cells.chunks) == list(range(-1, n_chunks)), "a chunk is stale"


def happen(detector: str, seed: int, events, small, *, now_ms: int) -> tuple[Seen, Seen, Ticks]:
    """Return what was committed, what a calm run yields, and how time was let pass."""
    base = config_of(detector)
    flink = base.flink.model_copy(update={n: small[n] for n in ("linger", "journal_bytes")})
    job = Job(base.model_copy(update={"flink": flink}))
    with ExitStack() as stack:
        for module, name, value in (
            (keyed, "MAX_PENDING", small["pending"]),
            (keyed, "PORTION_BYTES", small["portion_bytes"]),
            (snapshots, "CHUNK_BYTES", small["chunk_bytes"]),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        run = Run(job, entries_of(detector, seed), now_ms=now_ms)
        for name, *given_ in events:
            getattr(run, name)(*given_)
        run.finish()
    committed, ticks = read(run.engine.committed, job.config)
    if any(ticks.values()):
        return committed, job.calm(run.entries, ticks), ticks
    return committed, calm_run(detector, seed), ticks


@cache
def calm_run(detector: str, seed: int) -> Seen:
    return Job(config_of(detector)).calm(
        entries_of(detector, seed), {source: [] for source in SOURCES}
    )


def check(committed: Seen, expected: Seen) -> None:
    ids = [name for name, _ in committed.findings]
    assert len(set(ids)) == len(ids), "an event was written twice"
    assert committed.findings == expected.findings
    assert committed.scores == expected.scores
    assert committed.letters == expected.letters
    assert committed.late == expected.late


KINDS = {"anomaly", "no_data", "clock"}


def test_the_input_has_a_bit_of_everything():
    for detector in DETECTORS:
        expected = calm_run(detector, 0)
        assert len(expected.findings) > 20
        assert {json.loads(body)["kind"] for _, body in expected.findings} == KINDS
        assert len(expected.late) > 5
        letters = "".join(expected.letters)
        assert all(
            f"{reason}:" in letters for reason in ("time_ahead", "key_limit", "invalid_json")
        )


@pytest.mark.parametrize("detector", DETECTORS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 3), events=st.lists(EVENTS, max_size=25), small=SMALL)
@example(seed=0, events=EVENTFUL, small=JOURNAL_ALONE)
@example(seed=1, events=EVENTFUL, small={**JOURNAL_ALONE, "journal_bytes": 0, "chunk_bytes": 700})
def test_what_is_committed_equals_a_calm_run(detector, seed, events, small):
    # The wall clock stands long before all events: nothing is let pass.
    committed, expected, ticks = happen(detector, seed, events, small, now_ms=1)
    assert not any(ticks.values())
    check(committed, expected)


@pytest.mark.parametrize("detector", DETECTORS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 3),
    events=st.lists(EVENTS | LAPSES | LAPSES, max_size=25),
    small=SMALL,
)
def test_time_that_was_let_pass_is_let_pass_again(detector, seed, events, small):
    committed, expected, _ = happen(detector, seed, events, small, now_ms=BEGIN_MS)
    check(committed, expected)


def test_silence_is_told_once_whatever_fails_after_it():
    """All keys fall silent by the wall clock; a failure before and after the checkpoint."""
    half = 60
    pause = [("advance", 30_000, False)]
    told = None
    for events in (
        [*pause],
        [("fail", True, True), *pause, ("fail", True, True), *pause],
        [*pause, ("checkpoint",), ("fail", True, True)],
        [("checkpoint",), ("fail", True, False), ("wake",), *pause],
        [*pause, ("checkpoint",), ("fail", True, True), ("advance", 500, True), ("rescale", 2)],
    ):
        begun = [("feed", source, half) for source in SOURCES]
        committed, expected, ticks = happen(
            "robust_z", 1, [*begun, *events], JOURNAL_ALONE, now_ms=BEGIN_MS + 240_000
        )
        check(committed, expected)
        assert all(ticks.values())
        silent = [
            body["key"]
            for body in (json.loads(body) for _, body in committed.findings)
            if (body["kind"], body["state"]) == ("no_data", "began")
        ]
        told = told or silent
        assert silent == told
