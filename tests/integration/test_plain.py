"""The plain runtime on a real broker: what comes out is what a calm run in memory yields."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("per_message", "max_poll_records"), [(1, 20_000), (7, 30)])
def test_live_yields_what_a_replay_in_memory_does(pipeline, rows, per_message, max_poll_records):
    job = pipeline()
    job.send(rows(), per_message=per_message)
    job.run(max_poll_records=max_poll_records)
    job.check()
