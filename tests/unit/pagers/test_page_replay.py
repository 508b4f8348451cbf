"""Dead letters of pages, replayed: what is still true is sent, and nothing pages that is over."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from connectors.records.pages import KEY, PAGER
from jobs.dlq.pages import PageSender
from jobs.dlq.replay import letters, replay
from streamad.incidents import PageRequest
from streamad.paging.changes import Outcome
from streamad.ports import Outgoing
from tests.unit.pagers.made import INCIDENT, T0, over, step
from tests.unit.pagers.test_page_loop import Bench, other

NEVER = Outcome(result="never", detail="so it goes")


class Desk:
    """Writes what is replayed, and remembers how far it came."""

    def __init__(self, topics):
        self.topics, self.known = topics, {}

    def done(self, reason):
        return {source: offset for (why, source), offset in self.known.items() if why == reason}

    def send(self, records, done):
        self.known |= done
        for record in records:
            self.topics.write(record)


class Site(Bench):
    def __init__(self):
        super().__init__()
        self.life()
        self.run(2)
        self.desk = Desk(self.topics)

    def refuse(self, *records):
        self.receiver.script = iter([NEVER])
        self.put(*records)
        self.run(3)
        assert self.receiver.keys == []

    def replay(self, **options):
        sender = PageSender(
            config=self.config, incidents=self.topics, wall_ms=lambda: T0, **options
        )
        dead = f"{self.source.topic}.dlq"
        return replay(letters(self.topics, [dead]), self.desk, sender, pipeline=self.config.name)


@pytest.fixture
def site():
    return Site()


def test_a_letter_has_the_key_and_its_replay_pages_under_it_once(site):
    site.refuse(INCIDENT)
    (letter,) = site.letters()
    headers = dict(letter.headers)
    assert headers[KEY].decode() == f"{INCIDENT.id}-0-open"
    assert headers[PAGER] == b"p"
    assert site.replay().replayed == Counter(page_refused=1)
    site.run(3)
    assert site.receiver.keys == [headers[KEY].decode()]
    # Once more, as of a replay whose progress was deleted: its pager knows that it was sent.
    assert site.replay().total == 0
    site.desk = Desk(site.topics)
    assert site.replay().total == 1
    site.run(3)
    site.put(over(INCIDENT))
    site.run(3)
    assert [change for _, change in site.receiver.changes] == ["open", "resolve"]
    assert len(site.receiver.keys) == 2
    # A replayed record is no news of the incident, for whoever compacts or reads the topic.
    newest = site.topics.compacted(site.source.topic)[INCIDENT.id.encode()]
    assert b'"resolved"' in newest.value


def test_what_is_over_since_does_not_page(site):
    site.refuse(INCIDENT)
    site.put(over(INCIDENT))
    site.run(3)
    made = site.replay()
    assert (made.total, made.over) == (0, Counter(page_refused=1))


def test_what_is_over_before_its_pager_reads_the_request_does_not_page(site):
    """It ends between the look of the one who replays and the pager's."""
    site.refuse(INCIDENT)
    letter = next(letters(site.topics, [f"{site.source.topic}.dlq"]))
    sender = PageSender(config=site.config, incidents=site.topics, wall_ms=lambda: T0)
    request = sender.outgoing(letter, replay([], Desk(site.topics), sender, pipeline="shop"))
    site.put(over(INCIDENT))
    site.topics.write(request)
    site.run(3)
    assert site.receiver.keys == []
    assert site.count("replay_over") == 1


def test_an_end_that_was_refused_is_sent_without_a_page(site):
    site.put(INCIDENT)
    site.run(2)
    site.receiver.script = iter([NEVER])
    site.put(over(INCIDENT))
    site.run(3)
    site.receiver.keys.clear()
    assert site.replay().total == 1
    site.run(3)
    assert [change for _, change in site.receiver.changes] == ["resolve"]


def test_an_incident_that_grew_is_paged_as_it_is_now(site):
    site.refuse(INCIDENT, step(INCIDENT, severity=5.0))
    site.replay()
    site.run(3)
    assert site.receiver.keys == [f"{INCIDENT.id}-1-open"]


def test_a_replay_that_fails_again_is_a_letter_again_and_ends(site):
    site.refuse(INCIDENT)
    site.receiver.script = itertools.repeat(NEVER)
    totals = []
    for _ in range(4):
        made = site.replay(max_attempts=2)
        totals.append(made.total)
        site.run(3)
    assert totals == [1, 1, 0, 0]
    keys = [dict(one.headers)[KEY].decode() for one in site.letters()]
    assert keys == [f"{INCIDENT.id}-0-open"] * 3


def test_requests_of_other_pagers_and_of_nobody_are_passed_over(site):
    site.put(other(INCIDENT, "a"))
    site.run(2)
    site.receiver.keys.clear()
    ask = {"key": "k", "change": "open", "since_offset": 0, "name": "shop", "time_ms": T0}
    site.put(
        PageRequest(incident=INCIDENT.id, pager="other", **ask),
        PageRequest(incident="f" * 32, pager="p", **ask),
        PageRequest(incident="a" * 32, pager="p", **ask),
    )
    site.run(4)
    assert site.receiver.keys == []
    assert site.count("replay_gone") == 1
    assert site.member.committed(site.source).offset == 4


def test_letters_without_key_or_of_unknown_pagers_are_refused(site):
    site.refuse(INCIDENT)
    (letter,) = site.letters()
    topic = f"{site.source.topic}.dlq"
    for headers in (
        [one for one in letter.headers if one[0] != KEY],
        [*letter.headers, (PAGER, b"gone")],
        [*letter.headers, ("streamad.error.topic", b"other")],
    ):
        site.topics.write(
            Outgoing(topic=topic, key=letter.key, value=letter.value, headers=tuple(headers))
        )
    made = site.replay()
    assert made.refused == Counter(page_refused=3)
    assert made.total == 1
