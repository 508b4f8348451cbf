"""What every stage's loop does, whatever it makes of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.memory import MemoryMember, MemoryTopics
from streamad.config import PipelineConfig
from streamad.errors import MembershipError, SourceUnavailableError
from streamad.ports import Messages, Outgoing, Progress, Source
from streamad.runtime.loop import Loop
from streamad.runtime.placing import Clock

HERE, THERE = Source("in", 0), Source("in", 1)
CONFIG = PipelineConfig.model_validate(
    {"name": "loop", "input": {"topics": "in"}, "delivery": {"commit_interval": "1s"}}
)


@dataclass
class Part:
    source: Source
    position: int = 0
    dirty: bool = False
    kept: list[bytes] = field(default_factory=list)


class Echo(Loop[Part]):
    """Writes each message again, and notes what it is asked to do."""

    def __init__(self, topics: MemoryTopics) -> None:
        self.now_s, self.notes, self.away = 0.0, [], False
        self.inner = MemoryMember(log=topics, topics=["in"])
        self.waited: list[int] = []
        super().__init__(
            CONFIG.delivery,
            member=self.inner,
            clock=Clock(seconds=lambda: self.now_s, wall_ms=lambda: 0),
            fault=self.notes.append,
        )
        poll = self._member.poll
        self._member.poll = lambda ms: (self.waited.append(ms), poll(ms))[1]

    def _place(self, source: Source) -> None:
        if self.away:
            raise SourceUnavailableError(source)
        done = self._member.committed(source)
        part = self.parts[source] = Part(source, 0 if done is None else done.offset)
        self._member.place(source, part.position)
        if done is None:
            # Nothing is handed out before there is an offset to note it with.
            part.dirty = True
            self._commit_softly([part])

    def _take(self, polled: Sequence[Messages]) -> None:
        for messages in polled:
            part = self.parts[messages.source]
            part.kept += [payload or b"" for payload in messages.payloads]
            part.position, part.dirty = int(messages.offsets[-1]) + 1, True

    def _commit(self, dirty: Sequence[Part]) -> tuple[str, int]:
        records = [Outgoing(topic="out", value=one) for part in dirty for one in part.kept]
        self._member.commit(records, {p.source: Progress(offset=p.position) for p in dirty})
        for part in dirty:
            part.kept, part.dirty = [], False
        return "detect", len(records)

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        raise AssertionError(why)

    def _pass_time(self, now_s: float) -> None:
        self.notes.append("time")

    def _prepare(self) -> None:
        self.notes.append("prepare")

    def _save_due(self, now_s: float) -> None:
        self.notes.append("save")

    def _save_all(self, parts: Sequence[Part]) -> None:
        self.notes += [f"saved {part.source.partition}" for part in parts]

    _hand_over = _save_all


@pytest.fixture
def topics() -> MemoryTopics:
    made = MemoryTopics()
    made.make("in", 2)
    made.put(HERE, [b"a", b"b"])
    made.put(THERE, [b"c"])
    return made


def written(topics: MemoryTopics) -> list[bytes]:
    return sorted(one.value for one in topics.records("out"))


def test_a_turn_does_its_steps_in_order_and_commits_where_it_is_time(topics):
    loop = Echo(topics)
    assert loop.turn() == 3
    assert loop.notes == ["prepare", "after_poll", "after_score", "time", "save"]
    assert written(topics) == [], "the commit is due in a second"
    loop.now_s = 1.0
    assert loop.turn() == 0
    assert written(topics) == [b"a", b"b", b"c"]
    loop.now_s = 9.0
    assert loop.turn() == 0
    topics.put(HERE, [b"d"])
    loop.turn()
    assert written(topics)[-1] == b"d"


def test_it_waits_no_longer_for_input_than_until_its_commit_is_due(topics):
    loop = Echo(topics)
    loop.turn(500)
    loop.now_s = 0.75
    loop.turn(500)
    loop.now_s = 1.0
    loop.turn(500)
    loop.turn(500)
    assert loop.waited == [500, 250, 1, 500]


def test_a_refused_commit_is_put_off_and_nothing_is_lost(topics, monkeypatch):
    loop, refused = Echo(topics), [True]
    commit = MemoryMember.commit

    def refuse(member: MemoryMember, *given: Any) -> object:
        if refused and given[0]:
            refused.pop()
            raise MembershipError
        return commit(member, *given)

    monkeypatch.setattr(MemoryMember, "commit", refuse)
    loop.turn()
    loop.now_s = 1.0
    loop.turn()
    assert (written(topics), refused) == ([], [])
    loop.now_s = 1.5
    loop.turn()
    assert written(topics) == [], "and not tried again at once"
    loop.now_s = 2.0
    loop.turn()
    assert written(topics) == [b"a", b"b", b"c"]


def test_what_is_given_up_is_committed_and_handed_over_and_what_is_lost_is_not(topics):
    loop = Echo(topics)
    loop.turn()
    loop.give_up([HERE])
    assert (written(topics), loop.sources) == ([b"a", b"b"], [THERE])
    assert "saved 0" in loop.notes
    loop.lose([THERE])
    assert (written(topics), loop.sources) == ([b"a", b"b"], [])
    assert "saved 1" not in loop.notes


@pytest.mark.parametrize("last", ["stopped", "fenced"])
def test_it_drains_before_it_leaves(topics, last: str):
    loop = Echo(topics)

    def stop() -> bool:
        if loop.notes and last == "fenced":
            loop.inner.fence()
        return bool(loop.notes)

    loop.run(stop)
    assert written(topics) == ([] if last == "fenced" else [b"a", b"b", b"c"])
    assert loop.parts == {}


def test_messages_of_partitions_that_are_not_at_work_wait(topics):
    loop = Echo(topics)
    loop.away = True
    assert (loop.turn(), loop.settled, loop.sources) == (0, False, [])
    loop.away, loop.now_s = False, 100.0
    loop.turn()
    loop.now_s = 200.0
    loop.turn()
    assert loop.settled
    assert written(topics) == [b"a", b"b", b"c"]
