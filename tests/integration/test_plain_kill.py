"""Killed at every step and started again: nothing is lost and nothing is said twice."""

from __future__ import annotations

import time

import pytest

DETECT_STEPS = ["after_poll", "after_score", "after_produce", "after_commit", "mid_snapshot"]
ALERT_STEPS = ["after_poll", "after_score", "after_produce", "after_commit"]


def test_killed_at_every_step_it_ends_as_a_calm_run_does(pipeline, rows):
    job = pipeline(input={"topics": "", "start": "earliest"})
    job.tree["input"]["topics"] = job.input
    job.tree["delivery"] |= {
        "commit_interval": "20ms", "snapshot_interval": "40ms", "max_poll_records": 40,
    }  # fmt: skip
    series = rows(points=400)
    step = len(series) // 20
    job.send(series[: 2 * step])
    at = 2 * step
    job.create()
    # Passed more than once each: the n-th passing, so that lives differ in what they had done.
    deaths = [f"detect.{name}:{n}" for n in (1, 3) for name in DETECT_STEPS]
    deaths += [f"alert.{name}:1" for name in ALERT_STEPS]
    for number, death in enumerate(deaths):
        process = job.start(kill_at=death)
        job.send(series[at : at + step])
        at += step
        deadline = time.monotonic() + 40
        while process.is_alive():
            assert time.monotonic() < deadline, f"{death} was never passed"
            time.sleep(0.05)
            if death.startswith("alert"):
                continue
        assert process.exitcode == -9, death
        assert number >= 0
    process = job.start()
    job.send(series[at:])
    job.until(job.done, what="the last life ends the work")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    job.check()
