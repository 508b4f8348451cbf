"""The demo as a user runs it: this machine, its own noise, a real disturbance."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.demo.disturbance import CHORE, DISTURBER, STRANGER, WORKER

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_raises_an_alert_for_each_disturbance_and_ends_in_two_minutes(tmp_path: Path):
    # The first run on a machine compiles kernels; that is not what is timed here.
    warm = (
        "from jobs.demo.kinds import KINDS; from jobs.demo.rehearsal import prepare; prepare(KINDS)"
    )
    subprocess.run([sys.executable, "-c", warm], check=True, cwd=ROOT, capture_output=True)
    out = tmp_path / "alerts.jsonl"
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "demo", "--out", str(out)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert time.monotonic() - began < 120
    alerts = [json.loads(line) for line in out.read_text().splitlines()]
    of_it = [
        alert for alert in alerts if alert["entity"].get("metric") == "disturbance.cpu_percent"
    ]
    assert [of_it[0]["state"], of_it[-1]["state"]] == ["opened", "resolved"]
    assert of_it[0]["observed"]["value"] > of_it[0]["expected"]["value"]
    (stranger,) = {
        alert["summary"]
        for alert in alerts
        if alert["pipeline"] == "demo-starts"
        and alert["entity"]["process"] == STRANGER
        and alert["state"] == "opened"
    }
    assert f"process={STRANGER}" in stranger
    fan = [
        alert
        for alert in alerts
        if alert["pipeline"] == "demo-connections" and alert["entity"]["process"] == WORKER
    ]
    assert fan[0]["state"] == "opened"
    assert f"fan-out: {WORKER} reaches about" in fan[-1]["summary"]
    for label in ("metrics", "process starts", "connections"):
        assert f"{label}: alert after" in ended.stdout
    left = [p.pid for p in psutil.process_iter() if _is_left_over(p, tmp_path)]
    assert not left
    assert list(tmp_path.iterdir()) == [out]


def _is_left_over(process: psutil.Process, folder: Path) -> bool:
    try:
        own = process.name() in {CHORE, STRANGER, WORKER, DISTURBER}
        return own or str(folder) in " ".join(process.cmdline())
    except psutil.Error:
        return False
