"""From alerts to named groups and back: proposing, naming, recognising, keeping."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from streamad.errors import ArtifactError, ConfigError, UnknownNameError
from streamad.records import Alert
from streamad.testing.alert_classes import TROUBLES, make_alerts
from streamad.triage.book import MAX_NAMES, MAX_ROWS, Book
from streamad.triage.saved import dumps, loads
from streamad.triage.stories import Stories, stories_of, vectors_of_stories

TROUBLE = {one.name: one for one in TROUBLES}
NAMES = ("disk full", "cpu saturated", "password guessing")


def made(seed: int, names: tuple[str, ...] = NAMES, n: int = 30) -> dict[str, list[Alert]]:
    rng = np.random.default_rng(seed)
    return {name: make_alerts(TROUBLE[name], n, rng=rng) for name in names}


def stories(alerts: dict[str, list[Alert]]) -> Stories:
    return vectors_of_stories(stories_of([one for some in alerts.values() for one in some]))


def truth(alerts: dict[str, list[Alert]]) -> dict[str, str]:
    return {one.id: name for name, some in alerts.items() for one in some}


@pytest.fixture
def book() -> Book:
    """Return a book in which the groups of `NAMES` are named by what most of them are."""
    alerts = made(0)
    known = {name[:12]: trouble for name, trouble in truth(alerts).items()}
    made_book = Book()
    assert made_book.propose(stories(alerts)) == [""] * 90
    assert len(made_book.proposed) == 3
    for label, group in list(made_book.proposed.items()):
        inside = [known[name] for name in group.ids]
        made_book.name(label, max(set(inside), key=inside.count))
    assert set(made_book.named) == set(NAMES)
    return made_book


def test_new_alerts_of_named_groups_are_recognised_and_others_are_grouped(book: Book):
    alerts = made(1, (*NAMES, "host down"), n=40)
    known = truth(alerts)
    found = stories(alerts)
    names = dict(zip([one.id for one in found.alerts], book.propose(found), strict=True))
    old = [one for one in names if known[one] != "host down"]
    assert np.mean([names[one] == known[one] for one in old]) > 0.85
    assert all(names[one] in ("", known[one]) for one in old)
    assert not any(names[one] for one in names if known[one] == "host down")
    largest = book.proposed["g1"]
    assert {known[one.id] for one in largest.examples} == {"host down"}
    assert "no data" in largest.about


def test_alerts_are_recognised_as_they_open_with_how_many_there_were(book: Book):
    recogniser = book.recogniser()
    said = [
        recogniser.name_of(replace(one, state="opened", until_ms=one.began_ms))
        for one in made(2)["disk full"]
    ]
    assert said.count("disk full") > 24
    assert set(said) <= {"disk full", ""}
    n = book.named["disk full"].n
    assert recogniser.line("disk full") == f"; looks like 'disk full' ({n} before)"
    assert recogniser.line("") == ""
    # A name that was dropped since the alert opened.
    assert recogniser.line("other") == "; looks like 'other'"
    strange = made(3, ("network split",))["network split"]
    assert not any(recogniser.name_of(one) for one in strange)
    assert Book().recogniser().name_of(strange[0]) == ""


def test_an_alert_is_counted_once_however_often_it_is_looked_at(book: Book):
    found = stories(made(4))
    book.propose(found)
    counted = {name: group.n for name, group in book.named.items()}
    assert sum(counted.values()) > 90 + 70
    book.propose(found)
    # The scaling is measured again, so one at the boundary may be recognised now.
    again = {name: group.n for name, group in book.named.items()}
    assert all(0 <= again[name] - n <= 2 for name, n in counted.items())


def test_the_order_of_the_alerts_changes_nothing():
    alerts = [one for some in made(5).values() for one in some]
    one, other = Book(), Book()
    one.propose(vectors_of_stories(stories_of(alerts)))
    other.propose(vectors_of_stories(stories_of(alerts[::-1])))
    assert dumps(one) == dumps(other)


def test_a_book_comes_back_as_it_was_and_recognises_the_same(book: Book):
    book.propose(stories(made(6, (*NAMES, "host down"))))
    text = dumps(book)
    back = loads(text, where="triage.json")
    assert dumps(back) == text
    rows = stories(made(7)).whole
    assert back.recogniser().names_of(rows) == book.recogniser().names_of(rows)
    assert max(len(group.whole) for group in back.named.values()) <= MAX_ROWS


def test_two_groups_with_one_name_are_one_and_names_can_be_changed(book: Book):
    book.propose(stories(made(8, (*NAMES, "host down", "traffic lost"))))
    first, second = book.proposed["g1"], book.proposed["g2"]
    book.name("g1", "outage")
    joined = book.name("g2", " outage ")
    assert joined.n == first.n + second.n
    assert set(joined.ids) == {*first.ids, *second.ids}
    counted = book.named["disk full"].n
    book.rename("outage", "disk full")
    assert book.named["disk full"].n == counted + joined.n
    assert "outage" not in book.named
    book.drop("disk full")
    assert "disk full" not in book.named
    with pytest.raises(UnknownNameError, match="no proposed group is called 'g99'"):
        book.name("g99", "x")
    with pytest.raises(UnknownNameError, match="no named group is called 'outage'"):
        book.drop("outage")


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x1b[2J", "a\u202eb"])
def test_a_name_that_cannot_be_shown_is_refused(book: Book, name: str):
    book.propose(stories(made(9, ("host down",))))
    with pytest.raises(ConfigError, match="expected a name of 1 to 60 characters"):
        book.name("g1", name)
    assert "g1" in book.proposed


def test_there_are_only_so_many_names(book: Book):
    group = book.named["disk full"]
    book.named = {f"name {n}": group for n in range(MAX_NAMES)}
    book.proposed = {"g1": group}
    with pytest.raises(ConfigError, match="there are 64 names already"):
        book.name("g1", "one more")


def test_few_alerts_are_not_grouped():
    found = stories(made(10, ("disk full",), n=19))
    book = Book()
    book.propose(found)
    assert not book.proposed
    assert book.n_alone == 19
    book.propose(stories({}))
    assert book.n_alone == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.update(format="other"), "expected format 'streamad.triage.v1', got 'other'"),
        (lambda b: b.update(features=0), "version 0 of the columns"),
        (lambda b: b.pop("named"), "damaged"),
        (lambda b: b["named"]["disk full"].update(whole="x" * 10**6), "damaged"),
        (lambda b: b["named"]["disk full"].update(whole=""), "damaged"),
        (lambda b: b["named"]["disk full"].update(n=-1), "a count of -1"),
        (lambda b: b["named"]["disk full"].update(about=["x"]), "a text"),
        (lambda b: b["named"].update({"a\x1bb": b["named"]["disk full"]}), "damaged"),
        (lambda b: b["scaling"].update(spread=[0.0] * 12), "not above 0"),
        (lambda b: b["scaling"].update(center=[1.0]), "a scaling of shape"),
        (lambda b: b.update(silhouette=7), "a silhouette of 7"),
    ],
)
def test_a_damaged_book_is_refused_with_what_is_wrong(book: Book, change, why: str):
    body = json.loads(dumps(book))
    change(body)
    with pytest.raises(ArtifactError, match=why):
        loads(json.dumps(body), where="triage.json")


@pytest.mark.parametrize("text", ["", "[", "[]", "3", "[" * 100_000, "\x00"])
def test_what_is_no_book_is_refused(text: str):
    with pytest.raises(ArtifactError, match=r"^triage.json: "):
        loads(text, where="triage.json")
