"""Killed at every step and started again: nothing is lost and nothing is said twice."""

from __future__ import annotations

import time

DETECT_STEPS = ["after_poll", "after_score", "after_produce", "after_commit", "mid_snapshot"]
ALERT_STEPS = ["after_poll", "after_score", "after_produce", "after_commit"]


def test_killed_at_every_step_it_ends_as_a_calm_run_does(pipeline, rows):
    job = pipeline()
    job.tree["delivery"] |= {
        "commit_interval": "20ms", "snapshot_interval": "40ms", "max_poll_records": 40,
    }  # fmt: skip
    series = rows(points=400)
    step = len(series) // 20
    job.send(series[: 2 * step])
    at = 2 * step
    job.create()
    # The first, the second, the third passing: lives differ in how much they had done.
    deaths = [f"detect.{name}:{n % 3 + 1}" for n, name in enumerate(DETECT_STEPS)]
    deaths += [f"alert.{name}:1" for name in ALERT_STEPS]
    for death in deaths:
        process = job.start(kill_at=death)
        job.send(series[at : at + step])
        at += step
        deadline = time.monotonic() + 40
        while process.is_alive():
            assert time.monotonic() < deadline, f"{death} was never passed"
            time.sleep(0.05)
        assert process.exitcode == -9, death
    process = job.start()
    job.send(series[at:])
    job.until(job.done, what="the last life ends the work")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    job.check()
