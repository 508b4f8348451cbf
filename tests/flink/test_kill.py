"""Task manager and job manager are killed under load, and the output shows no trace of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from connectors.flink_rest import FlinkRest
from streamad.testing.flink_cluster import FlinkCluster


@pytest.mark.xfail(
    strict=False,
    reason="known defect: after both deaths the last windows of a slot are missing in most runs "
    "(docs/flink.md); passed and failed on Kafka's transaction.version 1 and 2",
)
def test_exactly_once_through_the_death_of_both_managers(
    flink_distribution: None, pipeline: Any, rows: Any
):
    job = pipeline(partitions=4)
    series = rows(points=600)
    done = threading.Event()
    feeder = threading.Thread(target=feed, args=(job, series, done))
    # A job that has lost its job manager runs on until it misses the heartbeat.
    quick = {"heartbeat.timeout": "8000", "heartbeat.interval": "1000"}
    with FlinkCluster(slots=1, task_managers=2, options=quick) as cluster:
        rest = FlinkRest(cluster.address)
        feeder.start()
        try:
            job.flink("run", cluster=cluster.address, parallelism="2")
            job.until(lambda: len(job.scores()) > 200, what="both slots work")
            cluster.kill_task_manager(0)
            before = len(job.scores())
            cluster.add_task_manager()
            job.until(lambda: len(job.scores()) > before + 200, what="the job comes back")
            assert rest.failures(job.job(rest))
            cluster.kill_job_manager()
            cluster.start_job_manager()
            cluster.wait_for_slots(2)
            # The cluster has forgotten the job; the checkpoint has not.
            said = job.flink("run", cluster=cluster.address, parallelism="2")
            assert "goes on from" in said
            assert "chk-" in said
        finally:
            done.set()
            feeder.join()
        job.until_judged(timeout_s=40)
        job.flink("stop", cluster=cluster.address)
    job.alert()
    job.check()


def feed(job: Any, series: Any, done: threading.Event) -> None:
    """Send all along, so that there is always something to lose; the rest at once when done."""
    step = len(series) // 60
    for at in range(0, len(series), step):
        job.send(series[at : at + step], per_message=3)
        done.wait(1)
