"""Time passes where a partition is silent, and not where it only cannot be read."""

from __future__ import annotations

from tests.unit.keyed.made import (
    SOURCE,
    Broker,
    Job,
    points,
)


def test_a_broker_that_is_away_makes_no_tick(caplog):
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics.away = True
    n = len(job.engine.outputs)
    job.pass_time(100_000)
    assert len(job.engine.outputs) == n
    assert "nobody answers" in caplog.text
    job.topics.away = False
    job.pass_time(5_000)
    assert job.kinds()[-1] == "no_data"


def test_a_topic_that_is_gone_makes_no_tick():
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics = job.engine.subtask(0)._log = Broker()
    job.pass_time(100_000)
    assert "no_data" not in job.kinds()


def test_a_backlog_makes_no_tick():
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics.put(SOURCE, points(1, start=40))
    job.pass_time(100_000)
    assert "no_data" not in job.kinds()


def test_silence_counts_from_the_restart_for_nobody_listened_before():
    job = Job(series={"ttl": "10m", "silence": "20s"})
    # Input whose times lag behind the wall clock, as behind a slow producer.
    job.pass_time(100_000)
    job.feed(*points(40))
    job.pass_time(200)
    job.engine.checkpoint()
    job.engine.advance(job.engine.now_ms - job.engine.now_ms % 5_000 + 4_700)
    job.feed(*points(1, start=40))
    job.pass_time(200)
    job.engine.checkpoint()
    job.fail()
    job.pass_time(200)
    assert "no_data" not in job.kinds()
    job.pass_time(10_000)
    assert job.kinds() == ["no_data"]


def test_ticks_do_not_pile_up():
    job = Job(flink={"journal_bytes": 4096}, series={"ttl": "7d", "silence": "1s"})
    job.feed(*points(40))
    job.pass_time(200)
    job.pass_time(2_000_000)
    assert sum(map(len, job.cells.journal)) < 10_000, "2,000 ticks are more than that"
    assert job.kinds() == ["no_data"]
