"""A pipeline moves from the plain job to Flink, and from one artifact to another there.

The output shows no trace of the move, and of the artifacts only which of them judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.flink.rest import FlinkRest
from streamad.ports import Source
from streamad.testing.flink import FlinkCluster
from tests.integration.conftest import Rows
from tests.integration.swapping import fit, require_calm


def test_flink_goes_on_where_the_plain_job_was_killed(
    flink: FlinkCluster, pipeline: Any, rows: Any, tmp_path: Path
):
    job = pipeline(
        partitions=2,
        detector={"name": "knn", "artifact": str(tmp_path / "models" / "one")},
        scoring={"min_windows": 8, "candidate": 0.05, "exit": 0.2},
    )
    job.create()
    artifacts = [fit(job.config, 1, ("key-0", "key-1"))]
    series = rows(points=300)
    half = killed_while_it_works(job, flink, series)
    said = job.flink("run", cluster=flink.address)
    with job.log() as log:
        reached = [log.progress(Source(job.input, number)).offset for number in range(2)]
    assert "takes over from the plain job" in said
    assert all(f"{job.input}/{number} at offset {at}" in said for number, at in enumerate(reached))
    job.send(series[half + 200 :], per_message=7)
    job.until_judged()
    saved = job.flink("stop", cluster=flink.address).strip().rpartition("/")[2]
    # From now on it is Flink's own savepoint that counts, though the plain job's offsets are there.
    # Another artifact lies in its place, and takes over there.
    artifacts.append(fit(job.config, 7, ("key-1", "key-2")))
    job.send(rows(points=100, start_ms=series[-1][1] + 1_000), per_message=7)
    said = job.flink("run", cluster=flink.address)
    assert "resumes from" in said
    assert saved in said
    job.until_judged()
    job.flink("stop", cluster=flink.address)
    require_calm(job, artifacts, tmp_path)
    job.alert()
    assert len({name.rpartition("-")[0] for name in job.alerts()}) >= 3


def killed_while_it_works(job: Any, flink: FlinkCluster, series: Rows) -> int:
    """Let the plain job die over 200 rows it cannot commit before; return where these begin."""
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
    return half


def test_there_must_be_something_to_take_over(flink: FlinkCluster, pipeline: Any):
    job = pipeline(partitions=1)
    job.create()
    said = job.flink("run", "--from", "plain", cluster=flink.address, fails=True)
    assert "has committed nothing on this cluster; start without it: --from none" in said
