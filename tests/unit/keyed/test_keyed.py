"""Detect over an engine's state: what it forgets, and when it judges."""

from __future__ import annotations

import pytest

from streamad.ports import Source
from streamad.runtime import snapshots
from streamad.runtime.decoding import PORTION_BYTES
from streamad.testing.keyed_state import Cells
from tests.unit.keyed.made import (
    BEGIN_MS,
    STEP_MS,
    TTL_MS,
    Job,
    about,
    points,
)

# ---------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("fail", [False, True])
def test_once_all_keys_are_forgotten_state_shrinks_and_no_timer_is_left(fail, monkeypatch):
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 1_500)
    job = Job(flink={"journal_bytes": 4096})
    for key in "abcdef":
        job.feed(*points(60, key=key))
    job.pass_time(200)
    held, n_chunks = job.engine.n_bytes, len(job.cells.chunks)
    assert job.timers
    job.pass_time(60 * STEP_MS + TTL_MS + 20_000)
    assert not job.timers
    assert job.cells.journal == []
    assert job.engine.n_bytes < min(held / 2, 10_000)
    assert sorted(job.cells.chunks) == list(range(-1, about(job)["chunks"]))
    assert len(job.cells.chunks) < n_chunks
    assert job.kinds().count("no_data") == 12, "each fell silent, and was forgotten"
    job.engine.checkpoint()
    if fail:
        job.fail()
    n_bytes, n_scored = job.engine.n_bytes, len(job.scored())
    job.pass_time(10 * TTL_MS)
    assert job.engine.n_bytes == n_bytes
    start = (job.engine.now_ms - BEGIN_MS) // STEP_MS
    job.feed(*points(40, start=start))
    assert job.timers
    job.pass_time(200)
    assert len(job.scored()) > n_scored
    job.pass_time(40 * STEP_MS + TTL_MS + 20_000)
    assert not job.timers


def test_messages_no_one_can_read_leave_no_timer():
    job = Job()
    job.feed(b"{", None, b"\xff")
    job.pass_time(200)
    assert not job.timers
    assert job.cells.journal == []
    assert [one.topic for one in job.engine.outputs] == ["in.dlq"] * len(job.engine.outputs)
    assert len(job.engine.outputs) >= 2


def test_state_that_shrank_to_nothing_is_left_alone_when_it_is_woken():
    job = Job()
    job.feed(*points(30))
    job.pass_time(2 * TTL_MS)
    job.engine.checkpoint()
    job.engine.fail_and_restore(timers=False)
    n = len(job.engine.outputs)
    job.engine.wake()
    assert not job.timers
    assert len(job.engine.outputs) == n


def test_a_timer_of_a_key_without_state_does_nothing():
    job = Job()
    job.engine.timers[5] = {BEGIN_MS + 1}
    job.pass_time(10)
    assert job.engine.outputs == []
    assert job.engine.timers[5] == set()


# ---------------------------------------------------------------------- when it is judged


def test_messages_wait_for_others_and_no_longer_than_they_should():
    job = Job(flink={"linger": "700ms"})
    job.feed(*points(40))
    assert job.engine.outputs == []
    job.pass_time(699)
    job.pass_time(1)
    assert len(job.scored()) > 20


def test_what_waits_at_a_failure_is_judged_by_the_timer_that_was_set():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.fail()
    job.pass_time(200)
    assert len(job.scored()) == len(set(job.scored())) > 20


def test_what_waits_at_a_failure_that_lost_its_timer_is_judged_once_it_is_woken():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.engine.fail_and_restore(timers=False)
    job.pass_time(60_000)
    assert job.scored() == [], "nothing came that would have opened the shard"
    job.engine.wake()
    assert len(job.scored()) == len(set(job.scored())) > 20
    n = len(job.engine.outputs)
    job.engine.wake()
    assert len(job.engine.outputs) == n
    job.pass_time(30_000)
    assert "no_data" in job.kinds(), "from here on time passes as ever"


def test_to_be_woken_changes_nothing_where_nothing_was_lost_and_nothing_is():
    job = Job(flink={"linger": "700ms"})
    job.engine.put(Source("in", 7))
    job.feed(*points(40))
    timers = set(job.timers)
    for _ in range(3):
        job.engine.wake()
    assert job.engine.outputs == []
    assert job.timers == timers
    assert job.engine.cells[7] == Cells(), "it was woken, and has nothing"


def test_a_message_of_more_than_a_portion_is_judged_at_once():
    job = Job(series={"ttl": "7d"})
    lines = b"\n".join(points(25_000))
    assert len(lines) > PORTION_BYTES
    job.feed(lines)
    assert len(job.scored()) > 24_900
    job.engine.checkpoint()
    job.fail()
    job.feed(*points(5, start=25_000))
    job.pass_time(200)
    rows = job.scored()
    assert len(rows) == len(set(rows)) > 24_950
