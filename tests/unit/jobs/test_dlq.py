"""A dead-letter topic holds what its writers liked: each record stands by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from connectors.memory import MemoryTopics
from connectors.records.dead_letters import OWN, Origin, from_record, to_record
from jobs.dlq.commands import _facts
from jobs.dlq.replay import REPLAYED, Found, InputSender, letters, replay, summary
from streamad.ports import Outgoing, Source
from streamad.records import Rejected

GOOD = to_record(
    Rejected(message=0, reason="invalid_json", detail="d", payload=b"{"),
    Origin(
        topic="t", partition=0, offset=7, key=b"k", headers=[], pipeline="p", stage="s", time_ms=1
    ),
)


def with_header(name: str, value: bytes | None) -> Outgoing:
    """Return the good record with one header changed; None leaves it out."""
    kept = [one for one in GOOD.headers if one[0] != name]
    changed = kept if value is None else [*kept, (name, value)]
    return Outgoing(topic=GOOD.topic, key=GOOD.key, value=GOOD.value, headers=tuple(changed))


class Desk:
    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    def done(self, reason: str) -> dict[Source, int]:
        return {}

    def send(self, records, done) -> None:
        self.sent += records


ODD = [
    (OWN + "topic", None),
    (OWN + "reason", None),
    (OWN + "reason", b"a b/" + b"x" * 300),
    (OWN + "partition", b"\xff\xfe"),
    (OWN + "partition", b"-1"),
    (OWN + "partition", b"9" * 5000),
    (OWN + "offset", str(2**63).encode()),
    (OWN + "offset", "\u0661".encode()),
    (OWN + "row", b"first"),
    (OWN + "time", b"9" * 17),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_an_odd_record_is_counted_and_those_beside_it_are_read_and_sent(name, value):
    topics = MemoryTopics()
    for record in (GOOD, with_header(name, value), GOOD):
        topics.write(record)
    assert summary(letters(topics, ["t.dlq"]), pipeline="p", keep=5)[0] == Counter(
        invalid_json=2, not_a_dead_letter=1
    )
    desk = Desk()
    made = replay(
        letters(topics, ["t.dlq"]),
        desk,
        InputSender(pipeline="p", targets=[Source("t", 0)], originals=topics),
        pipeline="p",
    )
    assert (made.total, made.odd, len(desk.sent)) == (2, 1, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [(OWN + "topic", b"payments"), (OWN + "topic", b"\xff"), (OWN + "partition", b"5")],
)
def test_a_letter_sends_nothing_to_what_is_no_input(name, value):
    topics = MemoryTopics()
    for record in (with_header(name, value), GOOD):
        topics.write(record)
    desk = Desk()
    made = replay(
        letters(topics, ["t.dlq"]),
        desk,
        InputSender(pipeline="p", targets=[Source("t", 0)], originals=topics),
        pipeline="p",
    )
    assert made.refused == Counter(invalid_json=1)
    assert {record.topic for record in desk.sent} == {"t"}


def test_a_count_of_thousands_of_digits_is_no_count():
    letter = from_record(b"k", b"{", with_header(REPLAYED, b"9" * 5000).headers)
    assert not isinstance(letter, Rejected)
    assert Found(source=Source("t.dlq", 0), offset=0, letter=letter).attempts == 0


def test_what_is_shown_gives_no_orders_to_the_terminal():
    record = with_header(OWN + "detail", b"x\x1b[2J")
    letter = from_record(b"k", b"\x1b]0;owned\x07\xe2\x80\xae", record.headers)
    assert not isinstance(letter, Rejected)
    facts = _facts(Found(source=Source("t.dlq", 0), offset=0, letter=letter), payloads=True)
    assert facts["detail"] == "x\\x1b[2J"
    assert facts["payload"] == "\\x1b]0;owned\\x07\\u202e"
