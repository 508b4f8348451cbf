"""The pipelines on a real cluster say what the plain job says, at any parallelism."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from connectors.flink.rest import FlinkRest
from streamad.testing.flink import FlinkCluster
from tests.flink.conftest import ROOT
from tests.integration.poisons import check_letters, send_poisons

BROKEN = (b"{not json", None, b'{"key": "key-0"}', b'{"key": "", "ts": 1, "value": 2}')


def metric(rest: FlinkRest, job_id: str, name: str) -> float:
    """Return the sum of a metric over all subtasks, whatever scope its name stands under."""
    total = 0.0
    for vertex in rest.job(job_id)["vertices"]:
        for number in range(vertex["parallelism"]):
            path = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/{number}/metrics"
            names = [one["id"] for one in rest._ask(path) if one["id"].endswith(name)]
            if names:
                found = rest._ask(f"{path}?get={','.join(names)}")
                total += sum(float(one["value"]) for one in found)
    return total


def shares_of(rest: FlinkRest, job_id: str) -> list[int]:
    """Return how many messages each slot was given to judge."""
    (vertex,) = [v for v in rest.job(job_id)["vertices"] if v["name"].startswith("detect")]
    told = rest._ask(f"/jobs/{job_id}/vertices/{vertex['id']}")
    return [one["metrics"]["read-records"] for one in told["subtasks"]]


def test_parity_through_a_savepoint_and_a_rescale(flink: FlinkCluster, pipeline: Any, rows: Any):
    job = pipeline(partitions=2, series={"late": "topic"})
    rest = FlinkRest(flink.address)
    series = rows(points=300)
    half = len(series) // 2
    job.send(series[:half], per_message=7)
    job.send_raw(*BROKEN)
    saved = first_life(rest, job, points=half)
    refused_under_other_settings(flink, job, saved)

    late = [(key, ts - 30_000, value) for key, ts, value in series[half - 3 : half]]
    job.send(late)
    job.send(series[half:], per_message=7)
    job.tree["flink"]["parallelism"] = 2
    told = submitted(flink, job, "-s", saved)
    assert told.returncode == 0, told.stderr + told.stdout
    job.until_judged()
    second = job.job(rest)
    job.until(lambda: min(shares_of(rest, second)) > 0, what="each slot has a shard")
    assert len(shares_of(rest, second)) == 2
    job.flink("stop", cluster=flink.address)
    kept = [json.loads(record.value) for record in job.records(f"{job.input}.late")]
    assert sorted(row["time_ms"] for row in kept) == sorted(ts for _, ts, _ in late)
    reasons = {reason for reason, _ in job.dead()}
    assert reasons == {"invalid_json", "null_payload", "missing_field", "empty_key"}
    assert len(job.dead()) == len(BROKEN)
    job.alert()
    job.check()


def first_life(rest: FlinkRest, job: Any, *, points: int) -> str:
    """Run at parallelism 1 over all there is; return the savepoint it is stopped with."""
    assert "runs as" in job.flink("run", cluster=rest.url)
    first = job.job(rest)
    job.until_judged()
    job.until(
        lambda: metric(rest, first, "streamad_detect_points_total") == points,
        what="the counter of points, as the plain job has it",
    )
    assert metric(rest, first, "streamad_input_rejected_total") == len(BROKEN)
    assert "runs on" in job.flink("run", cluster=rest.url, fails=True)
    saved: str = job.flink("stop", cluster=rest.url).strip()
    assert "savepoint-" in saved
    assert "FINISHED" in job.flink("status", cluster=rest.url)
    return saved


def refused_under_other_settings(flink: FlinkCluster, job: Any, saved: str) -> None:
    """By our command, and by what Flink itself starts: the savepoint is named to Flink alone."""
    kept = job.tree["windows"]
    job.tree["windows"] = {"size": 32}
    said = job.flink("run", cluster=flink.address, fails=True)
    assert "was made with configuration" in said
    assert len(said.strip().splitlines()[-1]) < 500
    told = submitted(flink, job, "-s", saved)
    assert told.returncode != 0
    assert "was made with configuration" in told.stderr + told.stdout
    job.tree["windows"] = kept


def submitted(flink: FlinkCluster, job: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """Submit with Flink's own client, as a FlinkDeployment does."""
    (distribution,) = importlib.util.find_spec("pyflink").submodule_search_locations
    job.command("run")  # writes the file
    environment = {
        **job.environment,
        "FLINK_CONF_DIR": str(flink.conf_dir),
        "FLINK_LOG_DIR": str(flink.log_dir),
    }
    return subprocess.run(
        [
            "bash", f"{distribution}/bin/flink", "run", "-d", *options,
            "-pyclientexec", sys.executable, "-pym", "jobs.flink.job", str(job.file),
        ],
        env=environment, text=True, capture_output=True, timeout=200, check=False, cwd=ROOT,
    )  # fmt: skip


def test_no_poison_costs_more_than_itself(flink: FlinkCluster, pipeline: Any, rows: Any):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.create()
    job.flink("run", cluster=flink.address)
    job.send(series[:300], per_message=7)
    send_poisons(job)
    job.send(series[300:], per_message=7)
    job.until_judged(timeout_s=150)
    job.flink("stop", cluster=flink.address)
    check_letters(job)
    job.alert()
    job.check()


def test_in_this_process_with_a_dear_detector_and_the_wall_clock(pipeline: Any, rows: Any):
    job = pipeline(partitions=1, detector="themis", series={"silence": "4s"}, windows={"size": 64})
    job.send(rows(keys=3, points=100))
    process = job.here()
    job.until_judged()
    # Nothing comes any more: the wall clock says so, once a key, and it is logged.
    silent = lambda: [one for one in job.findings().values() if b'"no_data"' in one]  # noqa: E731
    job.until(lambda: len(silent()) >= 3, what="three keys fall silent")
    assert "savepoint" in job.halt(process)
    # Ahead of the wall clock, which would find them silent again while the worker starts.
    job.send(rows(keys=3, points=40, start_ms=time.time_ns() // 1_000_000 + 30_000))
    process = job.here()
    job.until(lambda: len(silent()) >= 6, what="they speak again")
    said = job.halt(process)
    assert "resumes from" in said
    scores = job.scores()
    assert [row[:2] for row in scores] == [row[:2] for row in job.expected().scores]
    assert [row[2] for row in scores] == pytest.approx(
        [row[2] for row in job.expected().scores], abs=1e-5, nan_ok=True
    )
