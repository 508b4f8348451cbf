"""Task manager and job manager are killed under load, and the output shows no trace of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from connectors.flink.rest import FlinkRest
from streamad.testing.flink import FlinkCluster


def test_exactly_once_through_the_death_of_both_managers(
    flink_distribution: None, pipeline: Any, rows: Any
):
    job = pipeline(partitions=4)
    series = rows(points=600)
    done = threading.Event()
    feeder = threading.Thread(target=feed, args=(job, series, done))
    # A job that has lost its job manager runs on until it misses the heartbeat.
    quick = {"heartbeat.timeout": "8000", "heartbeat.interval": "1000"}
    # A task manager whose job ends in the middle of a batch may end with it: see docs/flink.md.
    with FlinkCluster(slots=1, task_managers=2, options=quick) as cluster, cluster.supervised():
        rest = FlinkRest(cluster.address)
        feeder.start()
        try:
            job.flink("run", cluster=cluster.address, parallelism="2")
            job.until(lambda: len(job.scores()) > 200, what="both slots work")
            cluster.kill_task_manager(0)
            before = len(job.scores())
            job.until(
                lambda: len(job.scores()) > before + 200, timeout_s=120, what="the job comes back"
            )
            assert rest.failures(job.job(rest))
            cluster.kill_job_manager()
            cluster.start_job_manager()
            cluster.wait_for_slots(2)
            # The cluster has forgotten the job; the checkpoint has not.
            said = job.flink("run", cluster=cluster.address, parallelism="2")
            assert "resumes from" in said
            assert "chk-" in said
        finally:
            done.set()
            feeder.join()
        job.until_judged(timeout_s=40)
        job.flink("stop", cluster=cluster.address)
    job.alert()
    job.check()


def test_what_waits_at_a_checkpoint_is_judged_after_a_death_though_nothing_comes(
    flink_distribution: None, pipeline: Any, rows: Any
):
    """Flink does not restore timers that Python set in the batch which the checkpoint ended."""
    job = pipeline(partitions=3)
    # Only checkpoints end a batch, so that the timers of all that waits are of that kind.
    job.tree["flink"] |= {
        "checkpoint_interval": "6s", "bundle_size": 1_000_000, "bundle_time": "10m", "linger": "30s"
    }  # fmt: skip
    with FlinkCluster(slots=1, task_managers=1) as cluster:
        rest = FlinkRest(cluster.address)
        job.flink("run", cluster=cluster.address)

        def checkpoint() -> int:
            found = rest.last_checkpoint(job.job(rest))
            return found.id if found else 0

        job.until(lambda: checkpoint() > 0, what="the first checkpoint")
        assert "not all tasks run" not in rest.delay(job.job(rest))
        before = checkpoint()
        job.send(rows(points=200), per_message=5)
        job.until(lambda: checkpoint() > before, what="a checkpoint with all the input")
        cluster.kill_task_manager(0)
        assert job.scores() == [], "it waits"
        job.until(
            lambda: "waits for a free slot" in rest.delay(job.job(rest)), what="the loss is missed"
        )
        cluster.add_task_manager()
        job.until_judged()
        job.flink("stop", cluster=cluster.address)
    job.alert()
    job.check()


PLUGIN = {
    "deadly-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: deadly\nVersion: 1\n",
    "deadly-1.dist-info/entry_points.txt": "[streamad.codecs]\ndeadly = deadly:Deadly\n",
    "deadly.py": """
import os, signal
from connectors.codecs.json import JsonCodec

class Deadly(JsonCodec):
    def decode(self, payloads, offsets, broker_ms):
        if b"poison" in payloads:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(payloads, offsets, broker_ms)
""",
}
"""A format as another package brings one: it takes the worker with it, as native code may."""


def test_a_message_that_kills_the_worker_is_set_aside(
    flink_distribution: None,
    pipeline: Any,
    rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, text in PLUGIN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = pipeline(partitions=2)
    job.tree["input"]["format"] = "deadly"
    job.create()
    series = rows(points=300)
    # Quick to come back: what is tested is how often it must.
    quick = {
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.delay": "500 ms",
        "restart-strategy.fixed-delay.attempts": "1000",
    }
    job.tree["flink"]["options"] = quick
    # A task manager whose worker is killed may end with it: see docs/flink.md.
    with FlinkCluster(slots=1, task_managers=1) as cluster, cluster.supervised():
        rest = FlinkRest(cluster.address)
        job.flink("run", cluster=cluster.address)
        job.tree["input"]["format"] = "json"  # what the rest is judged by, in this process
        job.send(series[: len(series) // 2])
        job.until(lambda: len(job.scores()) > 50, what="the first life works")
        job.send_raw(b"poison")
        job.send(series[len(series) // 2 :])
        job.until_judged(timeout_s=200)
        assert rest.failures(job.job(rest))
        job.tree["input"]["format"] = "deadly"
        job.flink("stop", cluster=cluster.address)
        job.tree["input"]["format"] = "json"
    assert [reason for reason, _ in job.dead()] == ["quarantined"]
    job.alert()
    (told,) = [one for one in job.alerts().values() if json.loads(one)["kind"] == "quarantine"]
    assert f"{job.input}/0".encode() in told
    assert list(map(repr, job.scores())) == list(map(repr, job.expected().scores))


def feed(job: Any, series: Any, done: threading.Event) -> None:
    """Send all along, so that there is always something to lose; the rest at once when done."""
    step = len(series) // 60
    for at in range(0, len(series), step):
        job.send(series[at : at + step], per_message=3)
        done.wait(1)
