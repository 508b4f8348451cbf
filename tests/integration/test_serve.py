"""`streamad run` as an operator sees it: probes, metrics, logs, explanations; a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from jobs.cli import main
from streamad.testing.processes import free_ports

STEP_MS = 1_000


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def until(condition, *, timeout_s=90, what=""):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.2)
    return found


@pytest.fixture
def running(pipeline, tmp_path):
    """Run a pipeline through the command, with one spike in its input."""
    made = pipeline()
    now_ms = time.time_ns() // 1_000_000 - 200 * STEP_MS
    calm = [("key-0", now_ms + i * STEP_MS, (i * 7919 % 13) / 13) for i in range(160)]
    made.send([*calm, ("key-0", now_ms + 160 * STEP_MS, 60.0)])
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(made.tree))
    (port,) = free_ports(1)
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": made.settings.bootstrap,
        "KAFKA_SASL_PASSWORD": "hunter22",
        "STREAMAD_MEMBER": "m",
        "STREAMAD_HOST": "127.0.0.1",
    }
    command = [sys.executable, "-m", "jobs.cli", "run", str(file), "--log-format", "json"]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--health-port", str(port)], env=environment, stderr=stderr
        )
    yield made, file, port, process, log, now_ms + 160 * STEP_MS
    process.kill()
    process.wait()


def test_a_running_pipeline_can_be_probed_scraped_and_explained(running, monkeypatch, capsys):
    made, file, port, process, log, spike_ms = running
    until(lambda: get(port, "/readyz") == (200, "ok\n"), what="readiness")
    assert get(port, "/healthz") == (200, "ok\n")
    until(made.alerts, what="an alert")
    until(lambda: "streamad_alert_open 1.0" in get(port, "/metrics")[1], what="its metric")
    text = get(port, "/metrics")[1]
    assert "streamad_detect_points_total 161.0" in text
    assert "streamad_telemetry_undeclared_total 0.0" in text
    lag = 'streamad_input_lag_messages{partition="0"'
    until(lambda: lag in get(port, "/metrics")[1], what="the lag")

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", made.settings.bootstrap)
    assert main(["explain", "key-0", str(file), "--at", str(spike_ms), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "alert"
    assert told["window_end_ms"] == spike_ms
    assert told["finding"]["explanation"]["observed"] == {"value": 60.0}
    assert main(["explain", "key-0", str(file), "--at", str(spike_ms - 20_000)]) == 0
    assert "no finding, no alert" in capsys.readouterr().out
    assert main(["explain", "key0", str(file), "--at", str(spike_ms)]) == 1
    assert "did you mean 'key-0'" in capsys.readouterr().err

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"ts", "level", "logger", "msg"} <= lines[0].keys()
    assert "hunter22" not in log.read_text()
