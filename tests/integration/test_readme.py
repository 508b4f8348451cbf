"""The README, followed to the letter in a copy of the repository: each command, in its order."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from streamad.testing.kafka_broker import KafkaBroker

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".cache", "__pycache__", "*.egg-info", ".*_cache"
)

BY_OTHER_TESTS = ("make ",)
"""The environment is that of this test, and the broker is one of its own; CI runs the targets."""

NEEDS_TIME = "streamad explain"
"""It reads what the job writes, which takes the job some seconds."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy for what is written and read; the programs are those that are installed."""
    return Path(shutil.copytree(ROOT, tmp_path / "streamad", ignore=LEFT_OUT))


def commands(readme: str) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL):
        for line in block.splitlines():
            bare = re.sub(r"\s+#\s.*$", "", line).strip()
            if bare and not bare.startswith(BY_OTHER_TESTS):
                yield bare


class Shell:
    """Runs lines as a person would type them; those that end with ``&`` go on beside."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.beside: list[subprocess.Popen[bytes]] = []

    def run(self, line: str) -> None:
        given = {"cwd": self.folder, "env": self.environment}
        if line.endswith("&"):
            words = line.removesuffix("&").split()
            with (self.folder / "beside.log").open("ab") as log:
                self.beside.append(subprocess.Popen(words, **given, stdout=log, stderr=log))
            return
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(
                ["bash", "-c", line], **given, check=False, capture_output=True, text=True
            )
            if done.returncode == 0:
                return
            waits = line.startswith(NEEDS_TIME) and time.monotonic() < deadline
            assert waits, f"{line}: {done.stdout}{done.stderr}{self.log()}"
            time.sleep(1)

    def log(self) -> str:
        log = self.folder / "beside.log"
        return log.read_text()[-2_000:] if log.exists() else ""

    def end(self) -> None:
        for process in self.beside:
            process.send_signal(signal.SIGTERM)
        for process in self.beside:
            assert process.wait(40) == 0, self.log()


def alerts(log: KafkaLog, topic: str) -> list[dict[str, object]]:
    return [
        json.loads(payload)
        for source, (first, stop) in log.bounds(topic).items()
        for messages in log.read(source, first, stop)
        for payload in messages.payloads
    ]


def test_the_readme_works_command_by_command(clone: Path, kafka_libs: Path):
    readme = (clone / "README.md").read_text()
    for sample, page in (("hosts", "README.md"), ("logins", "docs/events-and-graphs.md")):
        text = (clone / f"docs/sample/{sample}.yaml").read_text()
        assert f"```yaml\n{text}```" in (clone / page).read_text()
    with KafkaBroker(libs=kafka_libs) as broker:
        shell = Shell(
            clone,
            {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
                "NO_COLOR": "1",
            },
        )
        ran = list(commands(readme))
        for line in ran:
            shell.run(line)
        log = KafkaLog(KafkaSettings(bootstrap=broker.bootstrap), group="readme")
        deadline = time.monotonic() + 60
        while len(opened := [a for a in alerts(log, "streamad.hosts.alerts")
                             if a["state"] == "opened"]) < 2:  # fmt: skip
            assert time.monotonic() < deadline, shell.log()
            time.sleep(1)
        log.close()
        shell.end()
    assert len(ran) >= 9
    assert {one["key"] for one in opened} == {"web-1/cpu", "web-2/requests"}
    found = [json.loads(line) for line in (clone / "alerts.jsonl").read_text().splitlines()]
    assert {one["key"] for one in found} == {"web-1/cpu", "web-2/requests"}
    odd = [json.loads(line) for line in (clone / "odd.jsonl").read_text().splitlines()]
    assert {one["key"] for one in odd} == {"alice", "carol", "deploy"}
    assert any(f"`{one['summary']}`" in readme for one in odd)
    for name in (
        "alerts.html",
        "scores.html",
        "scores.csv",
        "first.yaml",
        "models/hosts/manifest.json",
    ):
        assert (clone / name).stat().st_size > 100, name
