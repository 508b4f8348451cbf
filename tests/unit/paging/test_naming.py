"""Alerts and incidents carry the name of the group they look like, through updates and restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamad.paging.desk import Desk
from streamad.records import Alert, Explanation
from streamad.triage.book import Book
from streamad.triage.recognise import Recogniser
from streamad.triage.stories import stories_of, vectors_of_stories
from tests.unit.paging.made import HOUR, MINUTE, Stage, ended, finding, logged

HIGH = Explanation(
    observed={"value": 97.0}, expected={"value": 70.0}, variates={"value": 1.0}, time_ms=0
)
LOW = Explanation(
    observed={"value": 1.0}, expected={"value": 12.0}, variates={"value": 1.0}, time_ms=0
)


def history() -> list[Alert]:
    """Return alerts of two kinds, 15 each: disks that fill up, and traffic that is gone."""
    stage, made = Stage(), []
    for number in range(15):
        at = number * 5 * HOUR
        disk = finding(f"db-{number}/disk", at, explanation=HIGH)
        gone = finding(f"web-{number}/requests", at + 2 * HOUR, p=1e-9, explanation=LOW)
        rows = [disk, ended(disk, 70 * MINUTE), gone, ended(gone, 4 * MINUTE)]
        made += stage.desk.process(stage.state, logged(rows)).alerts
    return made


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    """Return what recognises the two kinds, as a person named them."""
    book = Book()
    book.propose(vectors_of_stories(stories_of(history())), k=2)
    for label, group in list(book.proposed.items()):
        book.name(label, "disk full" if "disk" in group.examples[0].key else "traffic lost")
    assert {name: one.n for name, one in book.named.items()} == {
        "disk full": 15, "traffic lost": 15,
    }  # fmt: skip
    return book.recogniser()


def stage_with(recogniser: Recogniser | None, **incidents: Any) -> Stage:
    stage = Stage(**incidents)
    stage.desk = Desk(stage.config, None, recogniser)
    stage.state = stage.desk.new_state()
    return stage


def test_the_line_of_an_incident_ends_with_what_it_looks_like(recogniser: Recogniser):
    stage = stage_with(recogniser)
    opened = finding("db-77/disk", 400 * HOUR, explanation=HIGH)
    (incident,) = stage.take(opened)
    assert incident.summary.endswith("; looks like 'disk full' (15 before)")
    (resolved,) = stage.desk.process(stage.state, logged([ended(opened, 66 * MINUTE)])).alerts
    assert resolved.looks_like == "disk full"
    assert resolved.summary.count("looks like") == 1


def test_what_is_like_no_group_gets_no_name(recogniser: Recogniser):
    stage = stage_with(recogniser)
    strange = finding("db-77/locks", 400 * HOUR, kind="no_data", explanation=None)
    (incident,) = stage.take(strange)
    assert "looks like" not in incident.summary
    plain = stage_with(None)
    (incident,) = plain.take(finding("db-77/disk", 400 * HOUR, explanation=HIGH))
    assert "looks like" not in incident.summary


def test_a_name_outlives_a_restart_and_the_name_being_dropped(recogniser: Recogniser):
    stage = stage_with(recogniser)
    opened = finding("db-77/disk", 400 * HOUR, explanation=HIGH)
    stage.take(opened)
    records: dict[str, Any] = {}
    stage.restart(records)
    worse = finding(
        "db-77/disk", 400 * HOUR + 5 * MINUTE, name=opened.id, sequence=1, state="continues",
        p=1e-12, explanation=HIGH, began_ms=opened.began_ms,
    )  # fmt: skip
    (updated,) = stage.desk.process(stage.state, logged([worse])).alerts
    assert updated.state == "updated"
    assert updated.looks_like == "disk full"
    assert updated.summary.endswith("; looks like 'disk full' (15 before)")


def test_what_was_recognised_is_no_evidence_the_next_time(recogniser: Recogniser):
    alert = history()[0]
    named = alert.summary + recogniser.line("traffic lost")
    bare = vectors_of_stories(stories_of([alert])).whole
    assert (vectors_of_stories(stories_of([replace(alert, summary=named)])).whole == bare).all()
