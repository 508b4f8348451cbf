"""``python -m streamad.testing.flink up``: a cluster that stays until ``down``."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from streamad.errors import StreamadError
from streamad.testing.flink.cluster import ClusterError, FlinkCluster
from streamad.testing.flink.processes import (
    STOP_TIMEOUT_S,
    kill_leftovers,
    running_of,
    send_all,
)
from streamad.testing.processes import port_is_free


def start(directory: Path, *, port: int, slots: int, task_managers: int) -> str:
    """Start a cluster that outlives this process; return what to print."""
    pid_file = directory / "cluster.pid"
    running = running_of(pid_file)
    if running and len(running) == len(pid_file.read_text().split()):
        return f"already up; stop it with `make flink-down` (logs: {directory / 'log'})"
    if running:
        stop(directory)  # a part of it has ended, and jobs would wait for it in vain
    cluster = FlinkCluster(slots=slots, task_managers=task_managers, root=directory, rest_port=port)
    if not port_is_free(port):
        msg = f"port {port} is taken; name another one: `make flink-up FLINK_PORT=8082`"
        raise ClusterError(msg)
    cluster.start(survive=True)
    pids = [cluster.job_manager_pid, *cluster.task_manager_pids.values()]
    pid_file.write_text("".join(f"{pid}\n" for pid in pids))
    anew = "a part of it had ended, so it was started anew: " if running else ""
    return f"{anew}Flink answers on {cluster.rest}, its web page too (logs: {cluster.log_dir})"


def stop(directory: Path) -> str:
    """End the cluster of a directory; return what to print."""
    pid_file = directory / "cluster.pid"
    running = running_of(pid_file)
    pid_file.unlink(missing_ok=True)
    send_all(running, signal.SIGTERM)
    psutil.wait_procs(running, STOP_TIMEOUT_S)
    kill_leftovers(directory.resolve())
    return "Flink is down; its logs stay until `make clean`" if running else "no cluster is up"


def main(arguments: Sequence[str] | None = None) -> int:
    """Start or stop a cluster that stays: ``up [--slots 2] [--port 8081]`` and ``down``."""
    parser = argparse.ArgumentParser(prog="python -m streamad.testing.flink")
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--task-managers", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=Path(".cache/flink/up"))
    given = parser.parse_args(arguments)
    given.dir.mkdir(parents=True, exist_ok=True)
    act = functools.partial(
        start, port=given.port, slots=given.slots, task_managers=given.task_managers
    )
    try:
        said = act(given.dir) if given.command == "up" else stop(given.dir)
    except StreamadError as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_UNAVAILABLE
    sys.stdout.write(f"{said}\n")
    return 0
