"""On an engine, too, a message that ends the worker again and again is set aside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from connectors.memory import MemoryNotes, MemoryTopics
from connectors.records import scores_log
from connectors.records.dead_letters import from_record
from connectors.records.detect import KafkaDetectRecords
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Source
from streamad.records import Decoded
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.in_hand import LEAST_WATCH_MS, InHand
from streamad.runtime.keyed.journal import Entry
from streamad.testing.keyed_state import MemoryEngine

SOURCE, OTHER = Source("in", 0), Source("in", 1)
BEGIN_MS = 1_700_000_000_000
POISON = b"poison"
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
    """The worker is gone."""


class Fragile:
    """A decoder that takes the worker with it."""

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


class Away(MemoryNotes):
    """Notes that are out of reach."""

    def read(self, source: Source) -> str:
        raise SourceUnavailableError(str(source))

    def write(self, source: Source, note: str) -> None:
        raise SinkUnavailableError(note)


def point(t: int, key: str = "a") -> bytes:
    value = 100.0 if t % 97 == 96 else float(t % 7)
    return json.dumps({"key": key, "ts": BEGIN_MS + 1_000 * t, "value": value}).encode()


class Job:
    """A pipeline on the engine; ``run`` is its life after life."""

    def __init__(self, notes: MemoryNotes | None = None) -> None:
        self.notes = MemoryNotes() if notes is None else notes
        self.topics = MemoryTopics(partitions=2)
        self.topics.make("in", 2)
        self.engine = MemoryEngine(self.make, now_ms=BEGIN_MS)
        self.deaths = 0

    def make(self) -> KeyedDetect:
        return KeyedDetect(
            CONFIG,
            build_detect(CONFIG),
            decoder=Fragile(),
            records=KafkaDetectRecords(
                CONFIG, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            log=self.topics,
            notes=self.notes,
        )

    def put(self, *payloads: bytes, source: Source = SOURCE) -> None:
        first = self.topics.bounds("in")[source][1]
        self.topics.put(source, payloads)
        self.engine.put(
            source,
            *(
                Entry(offset=first + i, broker_ms=-1, payload=payload)
                for i, payload in enumerate(payloads)
            ),
        )

    def turn(self, *, at_most: int | None = None) -> None:
        """Read, and let what waits be judged; where the worker ends, begin again."""
        self.lived(lambda: self.engine.read(at_most=at_most))
        self.lived(lambda: self.engine.advance(self.engine.now_ms + 1_000))

    def lived(self, act: Any) -> None:
        try:
            act()
        except Died:
            self.deaths += 1
            self.engine.fail_and_restore(read=False)

    def run(self, turns: int = 20) -> None:
        for _ in range(turns):
            self.turn()
        self.engine.checkpoint()

    def scored(self) -> Counter[tuple[str, int, float]]:
        rows: Counter[tuple[str, int, float]] = Counter()
        for one in self.engine.committed:
            if one.topic == CONFIG.topic("scores"):
                _, batch = scores_log.decode(one.value)
                rows.update(
                    zip(
                        batch.keys.to_list(),
                        batch.end_ms.tolist(),
                        map(repr, batch.score.tolist()),
                        strict=True,
                    )
                )
        return rows

    def letters(self) -> list[tuple[str, int]]:
        found = [one for one in self.engine.committed if one.topic.endswith(".dlq")]
        letters = [from_record(one.key, one.value, one.headers) for one in found]
        return [(one.reason, one.offset) for one in letters]

    def quarantined(self) -> list[str]:
        told = [one for one in self.engine.committed if one.topic == CONFIG.topic("findings")]
        bodies = [json.loads(one.value) for one in told]
        return [one["key"] for one in bodies if one["kind"] == "quarantine"]


def calm(*payloads: bytes, source: Source = SOURCE) -> Counter[tuple[str, int, float]]:
    job = Job()
    job.put(*(payload for payload in payloads if payload != POISON), source=source)
    job.run(2)
    return job.scored()


def test_the_worker_ends_four_times_and_then_continues_without_the_message():
    job = Job()
    good = [point(t) for t in range(300)]
    job.put(*good[:150], POISON, *good[150:])
    job.run()
    assert job.deaths == 4
    assert job.letters() == [("quarantined", 150)]
    assert job.quarantined() == ["in/0"]
    assert job.scored() == calm(*good)


def test_what_is_set_aside_stays_so_when_the_worker_ends_before_a_checkpoint():
    job = Job()
    good = [point(t) for t in range(100)]
    job.put(*good[:50], POISON, *good[50:])
    for _ in range(20):
        job.turn()
    assert job.deaths == 4
    job.engine.fail_and_restore(read=False)
    assert job.letters() == [], "not committed"
    job.run()
    assert job.deaths == 4, "it cost no further life"
    assert job.letters() == [("quarantined", 50)]
    assert job.scored() == calm(*good)


def test_a_checkpoint_with_the_message_waiting_or_set_aside_is_gone_on_from():
    job = Job()
    good = [point(t) for t in range(100)]
    job.put(*good[:50], POISON, *good[50:])
    job.engine.read()
    job.engine.checkpoint()  # the message waits in the journal
    job.run()
    job.engine.fail_and_restore()
    job.put(*[point(t) for t in range(100, 150)])
    job.run()
    assert job.deaths == 4
    assert job.letters() == [("quarantined", 50)]
    assert job.scored() == calm(*[point(t) for t in range(150)])


def test_ends_that_have_nothing_to_do_with_a_message_set_nothing_aside():
    job = Job()
    job.put(*[point(t) for t in range(40)])
    for _ in range(8):
        job.turn()
        job.engine.fail_and_restore(read=False)
    job.run()
    assert job.letters() == []
    assert job.scored() == calm(*[point(t) for t in range(40)])
    assert job.notes.kept == {}


def test_no_note_stays_once_the_first_minutes_are_over():
    job = Job()
    job.put(point(0), POISON, point(1))
    job.run()
    assert json.loads(job.notes.kept[SOURCE]) == {"aside": [1]}
    job.engine.advance(job.engine.now_ms + LEAST_WATCH_MS)
    job.engine.wake()
    assert job.notes.kept == {}


def test_without_notes_within_reach_all_is_judged_as_ever():
    job = Job(Away())
    good = [point(t) for t in range(60)]
    job.put(*good)
    job.run(2)
    assert job.scored() == calm(*good)


def test_a_damaged_note_is_none_and_one_of_many_messages_sets_none_aside():
    entries = [Entry(offset=i, broker_ms=-1, payload=b"") for i in range(100)]
    for note in ("[]", "{", '{"span": [1]}', '{"span": ["a", 2], "deaths": 9}', '{"aside": ["x"]}'):
        notes = MemoryNotes()
        notes.write(SOURCE, note)
        (part,) = InHand.read(notes, SOURCE, now_ms=0, interval_ms=1).parts(entries)
        assert (len(part.entries), part.aside) == (100, False)
    notes.write(SOURCE, '{"span": [10, 20], "deaths": 9}')
    parts = list(InHand.read(notes, SOURCE, now_ms=0, interval_ms=1).parts(entries))
    assert [len(part.entries) for part in parts] == [10, *[1] * 11, 79]
    assert not any(part.aside for part in parts)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_poisons_among_any_failures_cost_themselves_alone(data: st.DataObject):
    job = Job()
    good = {source: [point(t, key) for t in range(120)] for source, key in
            ((SOURCE, "a"), (OTHER, "b"))}  # fmt: skip
    poisons: list[int] = []
    for source, payloads in good.items():
        at = data.draw(st.lists(st.integers(0, 120), max_size=3, unique=True).map(sorted))
        mixed = list(payloads)
        for n, place in enumerate(at):
            mixed.insert(place + n, POISON)
        poisons += [place + n for n, place in enumerate(at)]
        job.put(*mixed, source=source)
    act = st.sampled_from(["turn", "turn", "turn", "some", "checkpoint", "fail", "silence"])
    for step in data.draw(st.lists(act, max_size=40)):
        if step == "turn":
            job.turn()
        elif step == "some":
            job.turn(at_most=data.draw(st.integers(1, 40)))
        elif step == "checkpoint":
            job.engine.checkpoint()
        elif step == "silence":
            job.lived(job.engine.wake)
        else:
            job.engine.fail_and_restore(read=False)
    job.run(60)
    letters = job.letters()
    assert sorted(offset for _, offset in letters) == sorted(poisons)
    wanted = calm(*good[SOURCE]) + calm(*good[OTHER], source=OTHER)
    assert job.scored() == wanted
