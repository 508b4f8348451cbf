"""Members come, go, and come back from the dead, and the output shows no trace of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
from kafka.errors import UnknownMemberIdError

from jobs.plain.loops import detect_loop
from streamad.errors import MembershipError


def test_partitions_move_under_load_and_a_zombie_writes_nothing(pipeline, rows):
    job = pipeline(partitions=4, settings={"session_timeout_ms": 3_000})
    job.tree["delivery"] |= {"max_poll_records": 50}
    series = rows(points=500, keys=8)
    job.create()
    done = threading.Event()

    def feed() -> None:
        # All along: partitions change hands while there is something to lose.
        step = len(series) // 40
        for at in range(0, len(series), step):
            job.send(series[at : at + step])
            done.wait(0.5)

    feeder = threading.Thread(target=feed)
    feeder.start()
    first = job.start("a")
    job.until(lambda: len(job.scores()) > 50, what="the first member works")
    second = job.start("b")
    time.sleep(4)
    assert first.is_alive()
    assert second.is_alive()
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(6)  # its session ends, and its partitions move while it holds an open end of work
    os.kill(first.pid, signal.SIGCONT)
    time.sleep(3)
    first.terminate()
    first.join(20)
    assert first.exitcode == 0
    feeder.join()
    job.until(job.done, what="the second member ends the work")
    second.terminate()
    second.join(20)
    assert second.exitcode == 0
    job.check()


def test_a_member_hands_a_partition_over_with_a_snapshot_of_its_last_word(pipeline, rows):
    job = pipeline(partitions=2)
    job.tree["delivery"] |= {"snapshot_interval": "1h"}
    job.create()
    job.send(rows())
    loops = []
    with contextlib.ExitStack() as closing:
        for name in ("a", "b"):
            loop, kafka = detect_loop(job.config, job.settings, member=name)
            closing.callback(kafka.close)
            loops.append(loop)
            deadline = time.monotonic() + 40
            # Both poll, as two processes would: a rebalance needs every member.
            while sum(len(one.shards) for one in loops) < 2 or not loop.shards:
                threads = [threading.Thread(target=one.turn, args=(100,)) for one in loops]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert time.monotonic() < deadline
            if name == "a":
                job.turn(loop, "detect")
        (shard,) = loops[1].shards.values()
        assert shard.snapshot_offset == shard.position > 0, "nothing was left to be read again"
        for one in loops:
            one.drain()
    expected = job.expected()
    assert job.findings() == expected.findings


def test_a_member_that_comes_back_as_somebody_new_writes_nothing_of_its_old_life(pipeline, rows):
    """So it is for a process that was frozen while it was joining: the client tells of no loss."""
    job = pipeline(partitions=1)
    job.create()
    series = rows(keys=2)
    job.send(series[:300])
    loop, kafka = detect_loop(job.config, job.settings, member="a")
    with contextlib.closing(kafka):
        job.turn(loop, "detect")
        (old,) = loop.shards.values()
        loop._commit_due_s = time.monotonic() + 1e6
        job.send(series[300:])
        deadline = time.monotonic() + 20
        while not old.scores:
            loop.turn(100)
            assert time.monotonic() < deadline
        coordinator = kafka._consumer._coordinator
        coordinator.reset_generation()
        coordinator.rejoining = True  # so that it does not call `on_partitions_lost`
        with pytest.raises(MembershipError, match="moved on"):
            loop._commit([old])
        loop._commit_due_s = 0.0
        job.turn(loop, "detect")
        (new,) = loop.shards.values()
        assert new is not old
        loop.drain()
    job.run()
    job.check()


def test_a_membership_only_the_client_believes_in_is_left(pipeline, rows, monkeypatch):
    """Seen once under load: heartbeats pass, and every commit is refused as of a stranger."""
    monkeypatch.setattr("connectors.kafka.member.REFUSED_S", 1.0)
    job = pipeline(partitions=1)
    job.create()
    series = rows(keys=2)
    job.send(series[:300])
    loop, kafka = detect_loop(job.config, job.settings, member="a")
    with contextlib.closing(kafka):
        job.turn(loop, "detect")
        stranger, write = kafka._consumer.group_metadata().member_id, kafka._output.write

        def refuse(records, offsets, membership):
            if membership.member_id == stranger:
                raise UnknownMemberIdError
            return write(records, offsets, membership)

        monkeypatch.setattr(kafka._output, "write", refuse)
        job.send(series[300:])
        job.turn(loop, "detect")
        assert kafka._consumer.group_metadata().member_id != stranger
        loop.drain()
    job.run()
    job.check()
