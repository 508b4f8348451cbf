"""What is gone from the input stops the job, or is a gap by policy."""

from __future__ import annotations

import pytest

from streamad.errors import OffsetOutOfRangeError
from tests.unit.keyed.made import (
    SOURCE,
    Broker,
    Job,
    points,
)


def out_of_range(policy: str) -> Job:
    job = Job(input={"topics": "in", "on_out_of_range": policy})
    job.feed(*points(40))
    job.pass_time(200)
    job.engine.checkpoint()
    # What follows was written and has been deleted, but for the last two.
    job.topics.capacity = 2
    job.topics.put(SOURCE, [b"{}"] * 60)
    job.engine.fail_and_restore()
    return job


def test_input_that_is_gone_stops_the_job():
    job = out_of_range("fail")
    with pytest.raises(OffsetOutOfRangeError) as refused:
        job.pass_time(5_000)
    said = str(refused.value)
    assert "in/0: offset 40 is out of range, the topic holds 98 to 100" in said
    assert "input.on_out_of_range" in said


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_input_that_is_gone_is_a_gap_by_policy(policy, caplog):
    job = out_of_range(policy)
    job.feed(*points(20, start=40))
    job.pass_time(200)
    assert "continuing with a gap" in caplog.text
    assert job.engine.subtask(0).shards[0].position == 120
    # The key is the one it was: every sample closes a window.
    assert len(job.scored()) == 60 - 16 + 1


def test_a_topic_made_anew_is_out_of_range():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.topics = Broker()
    job.topics.put(SOURCE, points(3))
    job.fail()
    with pytest.raises(OffsetOutOfRangeError, match=r"offset 40 .* holds 0 to 3"):
        job.pass_time(5_000)


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_a_transactions_mark_that_retention_deleted_is_no_gap(quiet, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes}, series={"ttl": "7d"})
    job.engine.put(SOURCE)
    job.engine.wake()
    job.feed(*points(200))
    job.topics.marked = True
    job.pass_time(60_000)
    if quiet:
        job.engine.wake()
    job.engine.checkpoint()
    job.topics.emptied = True
    job.fail()
    if quiet:
        job.engine.wake()
        assert job.engine.subtask(0).shards[0].position == 201
    else:  # it is not known that only the mark is missing
        with pytest.raises(OffsetOutOfRangeError):
            job.engine.wake()


def test_a_topic_made_anew_is_not_measured_by_what_was_known_of_the_old_one():
    job = Job(input={"on_out_of_range": "earliest"}, series={"ttl": "7d"})
    job.feed(*points(40))
    job.pass_time(60_000)
    job.engine.wake()
    job.engine.checkpoint()
    for number in (1, 2):
        if number == 1:
            job.topics = Broker(partitions=2)
            job.topics.make("in", 2)
        job.engine.fail_and_restore()
        job.feed(*points(2, start=40 + 2 * number))
        job.pass_time(200)
        job.engine.checkpoint()
        assert job.engine.subtask(0).shards[0].position == 2 * number
