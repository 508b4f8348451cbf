"""The page job on topics in memory: order, retries, deaths at every step, what is never sent."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from connectors.memory import MemoryMember, MemoryTopics, Record
from connectors.records import cloudevents
from connectors.records.pages import KafkaPageRecords, page_state_topic
from connectors.telemetry import PrometheusTelemetry
from streamad.alerting.config import AlertingConfig
from streamad.paging.changes import Outcome, Told
from streamad.ports import Source
from streamad.runtime.page import PageLoop
from streamad.runtime.placing import Clock
from tests.unit.pagers.made import DIGEST, INCIDENT, T0, over, step

CONFIG = {"name": "shop", "findings": "f", "pagers": [
    {"name": "p", "kind": "webhook", "url": "http://h/", "secret": "x" * 16},
]}  # fmt: skip
OK = Outcome(result="ok")
DOWN = Outcome(result="retry", detail="down")


class Dying(BaseException):
    """The process is gone."""


class Receiver:
    """Takes pages by a script of outcomes; ``keys`` are what it was sent, each time."""

    updates, remind_every_s = True, 0.0

    def __init__(self, clock):
        self.script, self.clock = iter(()), clock
        self.keys: list[str] = []
        self.reminded: list[list[str]] = []

    def send(self, page):
        outcome = next(self.script, OK)
        if outcome.result == "ok":
            self.keys.append(page.key)
        return replace(outcome, reference=outcome.reference or f"ref-{page.record.id[:4]}")

    def remind(self, told: list[Told]):
        self.reminded.append([f"{one.incident}:{one.state}" for one in told])
        return OK

    @property
    def changes(self):
        """What a receiver that deduplicates shows, as (incident's first letters, change)."""
        parts = [key.rsplit("-", 2) for key in dict.fromkeys(self.keys)]
        return [(part[0][:4], part[-1]) for part in parts]


class Bench:
    """A topic of incidents, a receiver, and as many lives of the job as a test wants."""

    def __init__(self, **pager):
        tree = {**CONFIG, "pagers": [{**CONFIG["pagers"][0], **pager}]}
        self.config = AlertingConfig.model_validate(tree)
        self.topics = MemoryTopics()
        self.source = Source(self.config.topic("incidents"), 0)
        self.topics.make(self.source.topic)
        self.topics.make(page_state_topic(self.config))
        self.now_s, self.wall_ms = 1_000.0, T0 + 120_000
        self.receiver = Receiver(self)
        self.telemetry = PrometheusTelemetry(strict=True)

    def put(self, *records, broker_ms=None):
        for one in records:
            event = cloudevents.encode(one)
            at_ms = broker_ms if broker_ms is not None else getattr(one, "time_ms", T0)
            row = Record(value=event.value, key=event.key, headers=event.headers, broker_ms=at_ms)
            self.topics._append(self.source, [row])

    def life(self, fault=lambda step: None):
        self.member = MemoryMember(self.topics, topics=[self.source.topic])
        self.loop = PageLoop(
            self.config.pagers[0], self.receiver, member=self.member, fault=fault,
            records=KafkaPageRecords(
                self.config, self.topics, pager="p", wall_ms=lambda: self.wall_ms
            ),
            clock=Clock(seconds=lambda: self.now_s, wall_ms=lambda: self.wall_ms),
            telemetry=self.telemetry,
        )  # fmt: skip
        return self.loop

    def run(self, seconds=10, by=1.0):
        for _ in range(int(seconds / by)):
            self.loop.turn()
            self.now_s += by

    def letters(self):
        return self.topics.records(f"{self.source.topic}.dlq")

    def count(self, result):
        text = self.telemetry.render().decode()
        lines = [line for line in text.splitlines() if f'result="{result}"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if "_total{" in line)


@pytest.fixture
def bench():
    one = Bench()
    one.life()
    one.run(2)  # progress is committed: what comes from now on is new
    return one


def other(incident, letter):
    return replace(incident, id=letter * 32)


def test_a_life_is_sent_in_order_and_then_forgotten(bench):
    first = step(INCIDENT, acknowledged="ann")
    bench.put(INCIDENT)
    bench.run(2)
    bench.put(first)
    bench.run(2)
    bench.put(over(first))
    bench.run(8)
    assert [change for _, change in bench.receiver.changes] == ["open", "acknowledge", "resolve"]
    assert bench.topics.compacted(page_state_topic(bench.config)) == {}
    assert bench.member.committed(bench.source).offset == 3


def test_updates_that_are_overtaken_are_not_sent(bench):
    second = step(INCIDENT)
    third = step(second)
    bench.put(INCIDENT, second, third, step(third))
    bench.run(3)
    assert [key.rsplit("-", 2)[1:] for key in bench.receiver.keys] == [["0", "open"],
                                                                       ["3", "update"]]  # fmt: skip


def test_ten_minutes_of_a_pager_that_is_down_lose_nothing_and_repeat_nothing(bench):
    lives = [other(INCIDENT, letter) for letter in "abcdef"]
    bench.receiver.script = itertools.repeat(DOWN)
    bench.put(*lives, *(over(one) for one in lives[:3]))
    bench.run(600)
    assert bench.receiver.keys == []
    assert b'page_queue_records{pager="p"} 9.0' in bench.telemetry.render()
    bench.receiver.script = iter(())
    bench.run(90)
    sent = Counter(bench.receiver.keys)
    assert set(sent.values()) == {1}
    assert [change for _, change in bench.receiver.changes] == ["open"] * 6 + ["resolve"] * 3
    assert bench.letters() == []
    assert bench.count("retry") < 40  # it backs off


def shuffled(rng, letters):
    """Return the records of several lives, in turns."""
    lives = [
        [one := other(INCIDENT, letter), step(one, acknowledged="x"), over(step(one))]
        for letter in letters
    ]
    records = []
    while any(lives):
        records.append(rng.choice([life for life in lives if life]).pop(0))
    return records


def die(bench, at, nth):
    """Run a life of the job that ends at the n-th passing of a step; return whether it did."""
    left = [nth]

    def fault(passed):
        left[0] -= passed == at
        if not left[0]:
            raise Dying

    bench.life(fault)
    try:
        bench.run(3)
    except Dying:
        return True
    return False


@pytest.mark.parametrize("at", ["before_send", "after_send", "after_commit", "after_poll"])
def test_killed_at_every_passing_of_a_step(at):
    """Whatever the moment, a receiver that deduplicates sees each change once, in order."""
    records = shuffled(random.Random(at), "abcdefgh")  # noqa: S311 - a test
    bench = Bench()
    bench.life()
    bench.run(2)
    n_deaths = 0
    for nth in (1, 2, 3, 1, 2, 1, 5, 1, 1, 2, 3, 1):
        bench.put(*records[:2])
        del records[:2]
        n_deaths += die(bench, at, nth)
    assert n_deaths >= 8
    assert not records
    bench.life()
    bench.run(20)
    for letter in "abcdefgh":
        keys = [key.rsplit("-", 1)[1] for key in bench.receiver.keys if key[0] == letter]
        assert [one for one in dict.fromkeys(keys) if one != "update"] in (
            ["open", "acknowledge", "resolve"],
            ["open", "resolve"],
        )
        # No open after a resolve: it would ring again.
        assert "open" not in keys[keys.index("resolve") :]
    # The last one before a death is all that may come twice.
    assert len(bench.receiver.keys) - len(set(bench.receiver.keys)) <= n_deaths


def test_what_is_refused_for_good_is_a_dead_letter_and_delays_nobody(bench):
    bench.receiver.script = iter([Outcome(result="never", detail="status 400")])
    bench.put(other(INCIDENT, "a"), other(INCIDENT, "b"), over(other(INCIDENT, "a")))
    bench.run(3)
    assert bench.receiver.changes == [("bbbb", "open")]
    (letter,) = bench.letters()
    headers = dict(letter.headers)
    assert headers["streamad.error.reason"] == b"page_refused"
    assert b"status 400" in headers["streamad.error.detail"]
    assert cloudevents.decode(letter.value, letter.headers) == other(INCIDENT, "a")


def test_what_was_given_up_is_sent_once_the_pager_is_back_and_it_still_goes_on():
    bench = Bench(give_up="10m")
    bench.life()
    bench.run(2)
    bench.receiver.script = itertools.repeat(DOWN)
    bench.put(INCIDENT)
    bench.run(900, by=5.0)
    assert len(bench.letters()) == 1
    bench.receiver.script = iter(())
    bench.put(step(INCIDENT))
    bench.run(5)
    assert [change for _, change in bench.receiver.changes] == ["open"]


def test_a_new_pager_gets_nothing_old():
    bench = Bench(max_age="1h")
    old, done, new = (other(INCIDENT, letter) for letter in "abc")
    bench.put(old, done, over(done), broker_ms=bench.wall_ms - 7_200_000)
    bench.put(step(old), new, broker_ms=bench.wall_ms)
    bench.life()
    bench.run(3)
    assert bench.receiver.changes == [("cccc", "open")]
    bench.life()
    bench.put(step(step(old)), over(step(old)))
    bench.run(8)
    assert bench.receiver.changes == [("cccc", "open")]


def test_a_stopped_job_sends_what_still_goes_on_and_not_what_is_long_over(bench):
    goes_on, done = other(INCIDENT, "a"), other(INCIDENT, "b")
    bench.put(goes_on, done, over(done), broker_ms=bench.wall_ms)
    bench.wall_ms += 3 * 86_400_000
    bench.life()
    bench.run(3)
    assert bench.receiver.changes == [("aaaa", "open")]
    assert bench.count("too_late") == 2


def test_a_clock_that_jumps_changes_nothing(bench):
    for jump in (86_400_000, -3 * 86_400_000):
        bench.wall_ms += jump
        letter = "a" if jump > 0 else "b"
        bench.put(other(INCIDENT, letter), over(other(INCIDENT, letter)))
        bench.run(3)
    assert [change for _, change in bench.receiver.changes] == ["open", "resolve"] * 2


def test_routes():
    bench = Bench(groups=["pay*"], tenants=["default"], min_severity=2.0)
    bench.life()
    bench.run(2)
    held = replace(other(INCIDENT, "a"), paged_ms=None, withheld="budget")
    weak = replace(other(INCIDENT, "b"), severity=1.0)
    away = replace(other(INCIDENT, "c"), group="search")
    guest = replace(other(INCIDENT, "d"), tenant="guest")
    bench.put(held, weak, away, guest, INCIDENT, DIGEST)
    bench.put(step(weak, severity=2.5), *map(over, (held, away, guest)))
    bench.run(8)
    assert bench.receiver.changes == [("0123", "open"), ("d1", "d1"), ("bbbb", "open")]
    assert bench.member.committed(bench.source).offset == 10


def test_a_receiver_that_forgets_is_reminded_until_five_minutes_after_the_end(bench):
    bench.receiver.remind_every_s = 60.0
    bench.put(INCIDENT)
    bench.run(2)
    bench.life()  # a restart reminds at once
    bench.run(130)
    assert bench.receiver.reminded == [[f"{INCIDENT.id}:open"]] * 4
    bench.put(over(INCIDENT))
    bench.run(600)
    resolved = [one for one in bench.receiver.reminded if one == [f"{INCIDENT.id}:resolved"]]
    assert len(resolved) == 5
    assert bench.topics.compacted(page_state_topic(bench.config)) == {}


def test_a_member_that_was_thrown_out_sends_nothing(bench):
    bench.put(INCIDENT)
    bench.now_s += 60  # as after a long freeze: the group is asked before anything is sent
    bench.member.fence()
    bench.run(3)
    assert bench.receiver.keys == []


def test_noise_on_the_topics_is_passed_over(bench):
    bench.topics.put(bench.source, [b"{", None, b'{"id": 1}'], broker_ms=T0)
    state = Source(page_state_topic(bench.config), 0)
    for value in (b"{", b"[]", b'{"incident": 5}', b"x" * 100_000):
        bench.topics._append(state, [Record(value=value, key=b"p/0/" + value[:4])])
    bench.life()
    bench.put(INCIDENT)
    bench.run(8)
    assert [change for _, change in bench.receiver.changes] == ["open"]
    assert bench.member.committed(bench.source).offset == 4


def test_a_long_queue_waits_in_its_topic(bench, monkeypatch):
    monkeypatch.setattr("streamad.runtime.page.queue.MAX_QUEUE", 10)
    bench.receiver.script = itertools.repeat(DOWN)
    lives = [replace(INCIDENT, id=f"{n:032x}") for n in range(40)]
    bench.member.max_records = 4
    bench.put(*lives)
    bench.run(60)
    assert bench.loop.n_kept(bench.source) <= 14
    bench.receiver.script = iter(())
    bench.run(120)
    assert len(bench.receiver.keys) == 40
