"""Artifacts that replace one another on a real broker, with a kill around each swap.

The scores log names the artifact of each message. What was written must be what operators yield
that handed their state to one another at those offsets, with no kill in between.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.conftest import Pipeline, Rows
from tests.integration.swapping import fit, require_calm, wave

KEYS = ("key-0", "key-1", "key-2", "key-3")


def test_killed_around_each_swap_it_ends_as_calm_handovers_do(pipeline, tmp_path: Path):
    artifact = tmp_path / "models" / "one"
    job: Pipeline = pipeline(
        partitions=2,
        detector={"name": "knn", "artifact": str(artifact), "reload": "100ms"},
        scoring={"min_windows": 8, "candidate": 0.05, "exit": 0.2},
    )
    job.tree["delivery"] |= {"commit_interval": "20ms", "max_poll_records": 40}
    job.create()
    start_ms = time.time_ns() // 1_000_000 - 400_000
    columns = [wave(50 + n, 400) for n in range(len(KEYS))]
    times = range(start_ms, start_ms + 400_000, 1_000)
    rows = [(key, at, columns[n][i]) for i, at in enumerate(times) for n, key in enumerate(KEYS)]
    ids = [fit(job.config, 1, KEYS[:2])]
    # Of two partitions one has taken over in the first life, and none in the second.
    for life, death in enumerate(("detect.before_swap:2", "detect.after_swap:1")):
        ids.append(die(job, death, rows[life * 500 : (life + 1) * 500], 7 + life))
    process = job.start(role="detect")
    job.send(rows[1000:])
    job.until(lambda: job.done("detect"), timeout_s=120, what="the last life ends the work")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    require_calm(job, ids, tmp_path)


def die(job: Pipeline, death: str, rows: Rows, seed: int) -> str:
    """Let a process take over a new artifact and die of it; return the artifact's id."""
    process = job.start(role="detect", kill_at=death)
    job.send(rows[:200])
    job.until(lambda: job.done("detect"), timeout_s=120, what="the old artifact judges")
    new = fit(job.config, seed, KEYS[seed - 7 :])
    deadline, at = time.monotonic() + 120, 200
    while process.is_alive():
        assert time.monotonic() < deadline, f"{death} was never passed"
        if at < len(rows):  # a new artifact is tried on what comes
            job.send(rows[at : at + 50])
            at += 50
        time.sleep(0.05)
    assert process.exitcode == -9, death
    job.send(rows[at:])
    return new
