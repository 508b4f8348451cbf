"""A pipeline of its own for each test, with its detect stage on Flink as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.flink.rest import FlinkRest
from jobs.flink.plan import CONNECTOR
from tests.integration.conftest import Pipeline, Rows, make_rows

ROOT = Path(__file__).resolve().parents[2]


class FlinkPipeline(Pipeline):
    """A pipeline that the command line starts and stops."""

    def __init__(self, bootstrap: str, folder: Path, **options: Any) -> None:
        super().__init__(bootstrap, **options)
        self.tree["flink"] = {
            "checkpoint_interval": "1s",
            "checkpoint_dir": str(folder / "state"),
            # Small, so that snapshots are taken and restored within a test.
            "journal_bytes": 20_000,
            **self.tree.get("flink", {}),
        }
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str, **more: str) -> list[str]:
        """Return a ``streamad flink`` command on this pipeline's file as it is now."""
        self.file.write_text(yaml.safe_dump(self.tree))
        name, *rest = arguments
        options = [text for key, value in more.items() for text in (f"--{key}", value)]
        return [sys.executable, "-m", "jobs.cli", "flink", name, str(self.file), *rest, *options]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.settings.bootstrap,
            "KAFKA_SESSION_TIMEOUT_MS": str(self.settings.session_timeout_ms),
        }

    def flink(self, *arguments: str, fails: bool = False, **more: str) -> str:
        """Run a command to its end; return what it said."""
        done = subprocess.run(
            self.command(*arguments, **more), cwd=ROOT, env=self.environment, text=True,
            capture_output=True, timeout=240, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def here(self, *arguments: str) -> subprocess.Popen[str]:
        """Run Flink in a process that stays."""
        self.create()
        process = subprocess.Popen(
            self.command("run", *arguments), cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def halt(self, process: subprocess.Popen[str]) -> str:
        """Stop such a process as Ctrl-C does; return all it said."""
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said

    def job(self, rest: FlinkRest) -> str:
        """Return the id of the newest job."""
        return rest.jobs(f"streamad {self.name}")[0].id

    def alert(self) -> None:
        """Run the alert stage over all findings that are committed."""
        from jobs.plain.loops import alert_loop

        loop, kafka = alert_loop(self.config, self.settings, member="a")
        try:
            self.turn(loop, "alert")
            loop.drain()
        finally:
            kafka.close()

    def until_judged(self, *, timeout_s: float = 90) -> None:
        """Wait until all that the calm run judges is committed."""
        wanted = len(self.expected().scores)
        self.until(
            lambda: len(self.scores()) >= wanted, timeout_s=timeout_s, what="all windows judged"
        )

    def close(self) -> None:
        super().close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def connector() -> None:
    """Flink's Kafka connector."""
    if not (ROOT / CONNECTOR).exists():
        missing = f"no {CONNECTOR}; fetch it with `make setup-flink`"
        if os.environ.get("STREAMAD_REQUIRE_FLINK", "") not in {"", "0"}:
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.fixture
def pipeline(
    kafka: Any, flink_distribution: None, connector: None, tmp_path: Path
) -> Iterator[Callable[..., FlinkPipeline]]:
    """Make pipelines: ``pipeline(partitions=1, series={"max_keys": 10})``."""
    made: list[FlinkPipeline] = []

    def make(**options: Any) -> FlinkPipeline:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(FlinkPipeline(kafka.bootstrap, folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def rows() -> Callable[..., Rows]:
    """Noise with a few jumps per key."""
    return make_rows
