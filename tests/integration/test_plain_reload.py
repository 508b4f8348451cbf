"""A file of settings that changes below a running job, as the kubelet changes a ConfigMap.

The job is a process of its own on a real broker; its metrics are scraped over HTTP. It is killed
around a change, too. What it writes is what a calm run over the same input writes, whichever links
its alerts have.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from streamad.testing.processes import free_ports
from tests.integration.conftest import Pipeline, Rows, make_rows
from tests.integration.test_serve import get, until
from tests.unit.jobs.test_config_watch import Folder

LINK = "https://wiki.example.org/"
TAKEN = "streamad_config_last_reload_success_timestamp_seconds"


class Running:
    """`streamad run` beside a folder whose file changes."""

    def __init__(self, job: Pipeline, where: Path) -> None:
        self.job, self.where = job, where
        (where / "etc").mkdir()
        self.folder, self.log = Folder(where / "etc"), where / "log"
        (self.port,) = free_ports(1)
        self.put("one")

    def put(self, link: str, **sections: dict[str, Any]) -> None:
        tree = json.loads(json.dumps(self.job.tree))
        tree["alerts"]["runbook"] = f"{LINK}{link}"
        for name, changes in sections.items():
            tree[name] = {**tree.get(name, {}), **changes}
        self.folder.put(json.dumps(tree))

    @contextmanager
    def life(self, kill_at: str = "") -> Iterator[subprocess.Popen[bytes]]:
        environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": self.job.settings.bootstrap,
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "STREAMAD_MEMBER": "m",
            "STREAMAD_HOST": "127.0.0.1",
            "STREAMAD_TEST_KILL_AT": kill_at,
        }
        command = [sys.executable, "-m", "jobs.cli", "run", str(self.folder.file)]
        command += ["--log-format", "json", "--health-port", str(self.port)]
        with self.log.open("ab") as stderr:
            process = subprocess.Popen(command, env=environment, stderr=stderr)
        try:
            until(lambda: get(self.port, "/readyz") == (200, "ok\n"), what="readiness")
            yield process
        finally:
            process.kill()
            process.wait()

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{name}{{[^}}]*}} (\S+)$", get(self.port, "/metrics")[1], re.M)
        return float(value)

    def successful(self) -> bool:
        return self.metric("streamad_config_last_reload_successful") == 1

    def lines(self, part: str) -> list[str]:
        said = [json.loads(line)["msg"] for line in self.log.read_text().splitlines()]
        return [line for line in said if part in line]

    def opened(self, link: str, rows: Rows) -> None:
        """Send rows; the alerts that they open have the link."""
        before = links(self.job)
        self.job.send(rows)
        until(self.job.done, what="the rows are worked off")
        new = {name: found for name, found in links(self.job).items() if name not in before}
        assert new
        assert set(new.values()) == {link}

    def check(self) -> int:
        """Return the status of `streamad check` beside the job."""
        file = self.where / "as-it-was.yaml"
        file.write_text(json.dumps(self.job.tree))
        url = f"http://127.0.0.1:{self.port}"
        return main(["check", str(file), "--url", url, "--no-round-trip"])


def links(job: Pipeline) -> dict[str, str]:
    """Return the link that each alert was opened with."""
    opened = {}
    for body in job.alerts().values():
        alert = json.loads(body)
        if alert["state"] == "opened":
            opened[alert["id"]] = alert["links"]["runbook"].removeprefix(LINK)
    return opened


def test_a_file_that_changes_is_taken_over_or_refused_and_nothing_is_lost(
    pipeline: Callable[..., Pipeline],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    job = pipeline()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", job.settings.bootstrap)
    rows = make_rows(keys=8, points=300)
    parts = [rows[at : at + 400] for at in range(0, len(rows), 400)]
    run = Running(job, tmp_path)
    with run.life() as process:
        run.opened("one", parts[0] + parts[1] + parts[2])
        taken_over(run)
        run.opened("two", parts[3])
        refused(run)
        run.opened("two", parts[4][:200])
        assert run.check() != 0
        assert "refused the changed file" in capsys.readouterr().err
        run.put("four", delivery={"commit_interval": "20ms"})
        until(run.successful, what="a right file is taken after wrong ones")
        assert run.check() == 0
        run.opened("four", parts[4][200:])
        assert process.poll() is None, "all that was one process"
    killed(run, parts[5])
    expected = job.expected()
    assert job.findings() == expected.findings
    assert links(job).keys() == opened_in(expected.alerts)


def opened_in(alerts: dict[str, bytes]) -> set[str]:
    made = map(json.loads, alerts.values())
    return {alert["id"] for alert in made if alert["kind"] != "flood"}


def taken_over(run: Running) -> None:
    before_s = run.metric(TAKEN)
    run.put("two")
    until(lambda: run.metric(TAKEN) > before_s, what="the link is taken over")
    assert run.successful()
    (line,) = run.lines("is taken over")
    assert line.endswith("alerts.runbook")


def refused(run: Running) -> None:
    run.put("three", series={"silence": "5m"})
    until(lambda: not run.successful(), what="a setting that needs a restart is refused")
    (line,) = run.lines("settings are not taken over")
    assert "got another value of series.silence" in line
    run.folder.put("alerts: [")
    until(lambda: len(run.lines("settings are not taken over")) == 2, what="it is not YAML")
    assert not run.successful()


def killed(run: Running, rows: Rows) -> None:
    """Kill the job at each side of a swap, and as its file has just changed; then let it work."""
    for number, step in enumerate(("alert.before_reload:1", "detect.after_reload:1", "")):
        share = rows[number * 100 : (number + 1) * 100]
        with run.life(kill_at=step) as process:
            run.job.send(share[:50])
            run.put(f"death-{number}")
            run.job.send(share[50:])
            if step:
                assert process.wait(timeout=60) == -signal.SIGKILL
    with run.life() as process:
        run.job.send(rows[300:])
        until(run.job.done, what="the rest")
        assert run.successful()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
