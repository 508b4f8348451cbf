"""A pipeline moves from the plain job to Flink, and the output shows no trace of it."""

from __future__ import annotations

from typing import Any

from connectors.flink.rest import FlinkRest
from streamad.ports import Source
from streamad.testing.flink_cluster import FlinkCluster


def test_flink_goes_on_where_the_plain_job_was_killed(
    flink: FlinkCluster, pipeline: Any, rows: Any
):
    job = pipeline(partitions=2)
    job.create()
    series = rows(points=300)
    half = len(series) // 2
    job.send(series[:half], per_message=7)
    plain = job.start("plain-1", role="detect")
    job.until(lambda: job.done("detect"), what="the plain job has committed all there is")
    said = job.flink("run", cluster=flink.address, fails=True)
    assert f"the plain job of {job.name} still runs (plain-1 in group" in said
    assert FlinkRest(flink.address).jobs(f"streamad {job.name}") == []
    # More than it can commit before it dies: the rest is Flink's.
    job.send(series[half : half + 200], per_message=1)
    plain.kill()
    plain.join()

    said = job.flink("run", cluster=flink.address)
    with job.log() as log:
        reached = [log.progress(Source(job.input, number)).offset for number in range(2)]
    assert "takes over from the plain job" in said
    assert all(f"{job.input}/{number} at offset {at}" in said for number, at in enumerate(reached))
    job.send(series[half + 200 :], per_message=7)
    job.until_judged()
    saved = job.flink("stop", cluster=flink.address).strip().rpartition("/")[2]
    # From now on it is Flink's own savepoint that counts, though the plain job's offsets are there.
    job.send(rows(points=20, start_ms=series[-1][1] + 1_000), per_message=7)
    said = job.flink("run", cluster=flink.address)
    assert "resumes from" in said
    assert saved in said
    job.until_judged()
    job.flink("stop", cluster=flink.address)
    job.alert()
    job.check()


def test_there_must_be_something_to_take_over(flink: FlinkCluster, pipeline: Any):
    job = pipeline(partitions=1)
    job.create()
    said = job.flink("run", "--from", "plain", cluster=flink.address, fails=True)
    assert "has committed nothing on this cluster; start without it: --from none" in said
