"""State of another configuration, version or partition is refused, or begun afresh."""

from __future__ import annotations

import json

import pytest

from streamad.errors import StateError
from tests.unit.keyed.made import (
    OTHER,
    SOURCE,
    TTL_MS,
    Job,
    about,
    points,
)


@pytest.mark.parametrize("resume", ["message", "timer"])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_state_of_another_configuration_is_refused_and_both_are_told(resume, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    with pytest.raises(StateError) as refused:
        job.feed(*points(1, start=200)) if resume == "message" else job.pass_time(60_000)
    said = str(refused.value)
    assert "scoring.first_day: 1d -> 2h" in said
    assert "delivery.on_state_mismatch" in said


@pytest.mark.parametrize("resume", ["message", "timer"])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_fresh_begins_anew_with_nothing_stale(resume, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes}, delivery={"on_state_mismatch": "fresh"})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    assert len(job.cells.journal) > 100 or len(job.cells.chunks) > 1
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    if resume == "timer":
        job.pass_time(TTL_MS)
        assert (job.cells.journal, list(job.cells.chunks)) == ([], [-1])
        # The wiped state can be restored in its turn: it waits for no offset yet.
        job.engine.checkpoint()
        job.topics.capacity = 5
        job.topics.put(SOURCE, [])
        job.fail()
        job.pass_time(TTL_MS)
    n_scored = len(job.scored())
    job.feed(*points(30, start=200))
    job.pass_time(200)
    assert about(job)["checksum"] == job.config.state_checksum()
    # 16 samples make the first window of a key that is new.
    assert len(job.scored()) - n_scored == 30 - 16 + 1
    job.engine.checkpoint()
    job.fail()
    job.feed(*points(5, start=230))
    job.pass_time(200)
    assert job.engine.subtask(0).shards[0].position == 235


def test_fresh_judges_what_waited():
    job = Job(delivery={"on_state_mismatch": "fresh"})
    job.feed(*points(20))
    job.pass_time(200)
    job.feed(*points(10, start=20))
    job.engine.checkpoint()
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    n_scored = len(job.scored())
    job.feed(*points(20, start=30))
    job.pass_time(200)
    # The source has passed offsets 20 to 29: they come from the journal, or not at all.
    assert len(job.scored()) - n_scored == 30 - 16 + 1


def test_another_layout_or_state_version_is_refused():
    for name in ("layout", "version"):
        job = Job()
        job.feed(*points(3))
        job.engine.checkpoint()
        job.fail()
        job.cells.chunks[-1] = json.dumps({**about(job), name: 99}).encode()
        with pytest.raises(StateError, match="99"):
            job.feed(*points(1, start=3))


def test_settings_that_decide_nothing_may_change():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.sections["flink"] = {"linger": "5s", "journal_bytes": 4096}
    job.fail()
    job.feed(*points(40, start=40))
    job.pass_time(6_000)
    assert len(job.scored()) == len(set(job.scored())) > 60


def test_a_key_given_input_of_another_partition_is_refused():
    job = Job()
    job.feed(*points(3))
    job.engine.key_of = lambda _: 0
    with pytest.raises(StateError, match=r"state of in/0 would be given input of in/1"):
        job.feed(*points(3), source=OTHER)


def test_a_key_given_input_of_another_partition_after_a_restart_is_refused():
    job = Job()
    job.feed(*points(3))
    job.engine.checkpoint()
    job.fail()
    job.engine.key_of = lambda _: 0
    with pytest.raises(StateError, match=r"flink\.max_parallelism"):
        job.feed(*points(3), source=OTHER)


def test_a_snapshot_that_lacks_a_chunk_is_refused():
    job = Job(flink={"journal_bytes": 4096})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    job.fail()
    del job.cells.chunks[0]
    with pytest.raises(StateError, match="damaged"):
        job.pass_time(60_000)
