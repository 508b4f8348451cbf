"""The processes of a Flink cluster for tests: with what they are started, found and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

STOP_TIMEOUT_S = 20.0

_MARK = "STREAMAD_FLINK_CLUSTER"
"""An environment variable all processes of a cluster inherit, Python workers too: its folder."""

_STRAY_VARIABLES = ("HADOOP_", "HBASE_", "YARN_", "FLINK_", "_FLINK_")
"""Variables Flink's scripts heed; what the caller has set for another Flink must not get in."""


@dataclasses.dataclass
class Jvm:
    """One process of the cluster, and the one that kills it once the tests are gone."""

    name: str
    process: subprocess.Popen[bytes]
    watchdog: subprocess.Popen[bytes] | None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self.process.pid if self.process.poll() is None else None

    def release(self) -> subprocess.Popen[bytes]:
        """Take the watchdog off: whoever has the process sees to its end."""
        watchdog, self.watchdog = self.watchdog, None
        if watchdog is not None:
            watchdog.kill()  # before the JVM ends: its id may be given to another process
            watchdog.communicate()
        return self.process

    def kill(self) -> None:
        """End it with SIGKILL, and wait for that."""
        process = self.release()
        process.kill()
        process.wait()


def flink_environment(root: Path, *, conf_dir: Path, log_dir: Path) -> dict[str, str]:
    """Return the variables the processes of the cluster in this folder are started with."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_STRAY_VARIABLES) and name != "JVM_ARGS"
    }
    return inherited | {
        _MARK: str(root),
        "FLINK_CONF_DIR": str(conf_dir),
        "FLINK_LOG_DIR": str(log_dir),
        "FLINK_PID_DIR": str(root / "tmp"),  # else /tmp, shared with every other Flink
    }


def _marked(root: Path) -> list[psutil.Process]:
    """Return the processes of the cluster in this folder, whoever started them."""
    found = []
    for process in psutil.process_iter():
        # Others' processes and those that are ending do not show their environment.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == str(root):
                found.append(process)
    return found


def kill_leftovers(root: Path) -> None:
    """Kill what outlived the JVMs: Python workers, which notice the loss at their leisure."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := _marked(root)) and time.monotonic() < deadline:
        send_all(left, signal.SIGKILL)
        time.sleep(0.05)


def send_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to all that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def running_of(pid_file: Path) -> list[psutil.Process]:
    """Return the processes the file names, without ids that have passed to other programs."""
    try:
        pids = {int(line) for line in pid_file.read_text().split()}
    except (FileNotFoundError, ValueError):
        return []
    return [process for process in _marked(pid_file.parent.resolve()) if process.pid in pids]
