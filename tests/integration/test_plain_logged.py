"""A detector that is dear, and learns: recovery reads its scores from the log, not the model."""

from __future__ import annotations

import time


def test_a_learning_detector_recovers_by_its_logged_scores(pipeline, rows):
    # No snapshot but the one at the end: everything before the kill comes back from the log.
    job = pipeline(
        detector="knn",
        delivery={"commit_interval": "1ms", "snapshot_interval": "1h", "max_poll_records": 200},
    )
    series = rows(points=500)
    job.create()
    half = 2 * len(series) // 3
    job.send(series[:half])
    process = job.start(kill_at="detect.after_commit:8")
    deadline = time.monotonic() + 60
    while process.is_alive():
        assert time.monotonic() < deadline, "the eighth commit never came"
        time.sleep(0.05)
    assert process.exitcode == -9
    process = job.start()
    job.send(series[half:])
    job.until(job.done, what="the second life ends the work")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    job.check()
    assert len(job.findings()) > 0
