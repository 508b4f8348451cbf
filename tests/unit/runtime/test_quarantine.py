"""A message that ends the job again and again is set aside; all else is judged as without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from connectors.memory import MemoryMember, MemoryTopics, Record
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.dead_letters import from_record
from connectors.records.detect import KafkaDetectRecords
from connectors.snapshot_stores import FileSnapshots
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.paging.desk import Desk
from streamad.ports import Messages, Progress, Source
from streamad.records import Decoded
from streamad.runtime.alert import AlertLoop
from streamad.runtime.detect import DetectLoop
from streamad.runtime.placing import Clock
from streamad.runtime.quarantine import QUARANTINE_AFTER, skipped_in, without

POISON = b"poison"
BEGIN_MS = 1_700_000_000_000
CONFIG = PipelineConfig.model_validate(
    {
        "name": "hurt",
        "input": {"topics": "in", "start": "earliest"},
        "detector": "robust_z",
        "windows": {"size": 16},
        "series": {"step": "1s"},
    }
)


class Died(BaseException):
    """The process is gone."""


class Fragile:
    """A decoder that takes the process with it."""

    def __init__(self) -> None:
        self._codec = codec_of(CONFIG)

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        if POISON in payloads:
            raise Died
        return self._codec.decode(payloads, offsets, broker_ms)


def point(t: int, key: str = "a") -> bytes:
    value = 100.0 if t % 97 == 96 else float(t % 7)
    return json.dumps({"key": key, "ts": BEGIN_MS + 1_000 * t, "value": value}).encode()


class Job:
    """Lives of a detect job over topics that outlive it."""

    def __init__(self, folder: Path, partitions: int = 1) -> None:
        self.folder, self.now_s = folder, 0.0
        self.topics = MemoryTopics(partitions=partitions)
        self.topics.make("in", partitions)

    def life(self) -> DetectLoop:
        return DetectLoop(
            CONFIG,
            build_detect(CONFIG),
            member=MemoryMember(log=self.topics, topics=["in"], max_records=200),
            decoder=Fragile(),
            records=KafkaDetectRecords(
                CONFIG, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: BEGIN_MS
            ),
            store=FileSnapshots(str(self.folder), pipeline=CONFIG.name),
            clock=Clock(seconds=lambda: self.now_s, wall_ms=lambda: BEGIN_MS),
        )

    def turn_until_quiet(self, loop: DetectLoop) -> None:
        quiet = 0
        while quiet < 4:
            self.now_s += 0.3
            quiet = 0 if loop.turn(0) or any(map(loop.n_kept, loop.sources)) else quiet + 1

    def run(self, *, most_lives: int = 200) -> int:
        """Live until everything is read and committed; return how many lives ended."""
        for ended in range(most_lives):
            loop = self.life()
            try:
                self.turn_until_quiet(loop)
                loop.drain()
            except Died:
                continue
            return ended
        pytest.fail("the job never got past its poison")

    def scores(self) -> list[str]:
        """Return what is in the scores log, however it was cut into records."""
        loop, found = self.life(), []
        records = loop._records
        for source in self.topics.bounds("in"):
            for messages in self.topics.read(Source(CONFIG.topic("scores"), 0), 0, 10**6):
                for entry in records.read_log(messages, source):
                    if entry.scores is not None:
                        rows = zip(
                            entry.scores.keys.to_list(),
                            entry.scores.end_ms.tolist(),
                            entry.scores.score.tolist(),
                            entry.scores.p_value.tolist(),
                            strict=True,
                        )
                        found += map(repr, rows)  # as text: NaN is equal to itself
        return found

    def letters(self) -> list[tuple[str, int]]:
        found = []
        for record in self.topics.records("in.dlq"):
            letter = from_record(record.key, record.value, record.headers)
            found.append((letter.reason, letter.offset))
        return found


def calm(folder: Path, payloads: dict[Source, list[bytes]]) -> Job:
    job = Job(folder, len(payloads))
    for source, given_ in payloads.items():
        job.topics.put(source, [one for one in given_ if one != POISON])
    assert job.run() == 0
    return job


IN = Source("in", 0)


def test_a_message_that_kills_is_set_aside_after_a_few_lives(tmp_path: Path):
    payloads = [point(t) for t in range(500)]
    payloads[321:321] = [POISON]
    job = Job(tmp_path / "hurt")
    job.topics.put(IN, payloads)

    assert job.run() == QUARANTINE_AFTER

    assert job.letters() == [("quarantined", 321)]
    assert job.scores() == calm(tmp_path / "calm", {IN: payloads}).scores()
    assert job.run() == 0


def test_poison_that_comes_to_a_job_at_work_costs_one_life_more(tmp_path: Path):
    job = Job(tmp_path)
    job.topics.put(IN, [point(t) for t in range(100)])
    loop = job.life()
    job.turn_until_quiet(loop)
    job.topics.put(IN, [*[point(t) for t in range(100, 150)], POISON, point(150)])
    with pytest.raises(Died):
        job.turn_until_quiet(loop)

    assert job.run() == QUARANTINE_AFTER
    assert job.letters() == [("quarantined", 150)]


def test_it_is_told_as_a_finding_that_becomes_an_alert(tmp_path: Path):
    job = Job(tmp_path)
    job.topics.put(IN, [point(0), POISON])
    job.run()
    job.topics.make(state_topic(CONFIG), 1)
    alert = AlertLoop(
        CONFIG,
        Desk(CONFIG),
        member=MemoryMember(log=job.topics, topics=[CONFIG.topic("findings")], group="alert"),
        records=KafkaAlertRecords(CONFIG, job.topics, wall_ms=lambda: BEGIN_MS),
        clock=Clock(seconds=lambda: 0.0, wall_ms=lambda: BEGIN_MS),
    )
    for _ in range(3):
        alert.turn()
    alert.drain()
    (told,) = [json.loads(one.value) for one in job.topics.records(CONFIG.topic("alerts"))]
    told = told.get("data", told)
    assert (told["kind"], told["key"], told["state"]) == ("quarantine", "in/0", "opened")
    assert "in/0: a message is quarantined" in told["summary"]
    assert "4 times in a row" in told["summary"]


def test_state_is_brought_back_without_what_was_set_aside(tmp_path: Path):
    """Recovery reads again what lies behind the snapshot: the poison is among it."""
    job = Job(tmp_path)
    job.topics.put(IN, [point(t) for t in range(50)])
    job.run()  # leaves a snapshot of 50
    job.topics.put(IN, [POISON, *[point(t) for t in range(50, 120)]])
    for _ in range(QUARANTINE_AFTER):
        loop = job.life()
        with pytest.raises(Died):
            job.turn_until_quiet(loop)
    loop = job.life()
    for _ in range(300):
        job.now_s += 0.01  # no snapshot is due
        loop.turn(0)
    note = job.topics.groups["memory"][IN]
    assert note.offset == 121
    assert skipped_in(note.note) == (50,)
    # Killed here, without a snapshot: the next life reads from 50 on.
    assert job.run() == 0
    assert job.letters() == [("quarantined", 50)]


def test_kills_that_no_message_is_to_blame_for_set_nothing_aside(tmp_path: Path):
    job = Job(tmp_path)
    job.topics.put(IN, [point(t) for t in range(3_000)])
    for _ in range(40):
        loop = job.life()
        for _ in range(4):  # killed after a few turns, most of the time in the middle of something
            job.now_s += 0.3
            loop.turn(0)
    assert job.run() == 0
    assert job.topics.records("in.dlq") == []


def test_a_job_that_is_killed_while_nothing_comes_blames_nothing(tmp_path: Path):
    job = Job(tmp_path)
    job.topics.put(IN, [point(0)])
    job.run()
    for _ in range(10):
        job.life().turn(0)
    job.topics.put(IN, [point(1)])
    assert job.run() == 0
    assert job.letters() == []


@settings(max_examples=15, deadline=None)
@given(
    poisons=st.sets(st.integers(0, 299), max_size=3),
    other=st.sets(st.integers(0, 299), max_size=2),
    kills=st.lists(st.integers(1, 12), max_size=6),
)
def test_whatever_is_poisoned_and_killed_the_rest_is_judged_once(
    tmp_path_factory: pytest.TempPathFactory, poisons: set[int], other: set[int], kills: list[int]
):
    given_ = {
        Source("in", number): [
            POISON if t in bad else point(t, f"k{number}{t % 2}") for t in range(300)
        ]
        for number, bad in enumerate((poisons, other))
    }
    job = Job(tmp_path_factory.mktemp("hurt"), 2)
    for source, payloads in given_.items():
        job.topics.put(source, payloads)
    for turns in kills:
        loop = job.life()
        try:
            for _ in range(turns):
                job.now_s += 0.3
                loop.turn(0)
        except Died:
            pass
    job.run()
    assert sorted(job.letters()) == [
        ("quarantined", offset) for offset in sorted([*poisons, *other])
    ]
    expected = calm(tmp_path_factory.mktemp("calm"), given_)
    assert sorted(job.scores()) == sorted(expected.scores())


def test_an_alert_stage_is_not_stopped_by_a_record(tmp_path: Path):
    topics = MemoryTopics()
    findings = Source(CONFIG.topic("findings"), 0)
    topics.put(findings, [POISON])
    topics.make(state_topic(CONFIG), 1)

    class Records(KafkaAlertRecords):
        def findings(self, messages: Messages) -> Any:
            if POISON in messages.payloads:
                raise Died
            return super().findings(messages)

    lives = 0
    while True:
        lives += 1
        assert lives < 20
        member = MemoryMember(log=topics, topics=[findings.topic], group="alert")
        loop = AlertLoop(
            CONFIG,
            Desk(CONFIG),
            member=member,
            records=Records(CONFIG, topics, wall_ms=lambda: BEGIN_MS),
            clock=Clock(seconds=lambda: 0.0, wall_ms=lambda: BEGIN_MS),
        )
        try:
            for _ in range(8):
                loop.turn(0)
            loop.drain()
        except Died:
            continue
        break
    assert lives == QUARANTINE_AFTER + 1
    (told,) = [json.loads(one.value) for one in topics.records(CONFIG.topic("alerts"))]
    assert told.get("data", told)["kind"] == "quarantine"


def test_without_leaves_out_offsets_and_keeps_the_rest():
    messages = Messages(
        source=IN,
        payloads=[b"a", b"b", b"c"],
        offsets=np.array([3, 5, 9]),
        broker_ms=np.array([1, 2, 3]),
        raw=[Record(value=b"a"), Record(value=b"b"), Record(value=b"c")],
    )
    left = without(messages, (5, 7))
    assert (left.payloads, left.offsets.tolist()) == ([b"a", b"c"], [3, 9])
    assert without(messages, ()) is messages
    assert len(without(messages, (3, 5, 9))) == 0


@pytest.mark.parametrize("note", ["", "{", "[]", '{"guard":3}', '{"guard":{"skipped":"x"}}'])
def test_a_note_of_others_means_nothing(note: str):
    assert skipped_in(note) == ()


def test_notes_of_the_loop_pass_through(tmp_path: Path):
    job = Job(tmp_path)
    job.topics.put(IN, [point(0)])
    job.run()
    done = job.topics.groups["memory"][IN]
    assert isinstance(done, Progress)
    assert "guard" not in json.loads(done.note)
    assert json.loads(done.note)["from"] == 0
