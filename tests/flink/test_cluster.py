"""The cluster Flink's other tests stand on; `test_kill.py` kills one piece by piece."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streamad.testing.flink import ClusterError, FlinkCluster
from streamad.testing.processes import free_ports

pytestmark = pytest.mark.flink


def gone(*pids: int) -> bool:
    """Say whether the processes end within seconds; the dead whom nobody reaps have ended."""
    return soon(lambda: not any(map(alive, pids)))


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes(cluster: FlinkCluster) -> list[int]:
    assert cluster.job_manager_pid is not None
    return [cluster.job_manager_pid, *cluster.task_manager_pids.values()]


def test_the_cluster_of_the_session_offers_its_slots_and_listens_on_loopback_only(
    flink: FlinkCluster,
):
    assert flink.overview()["slots-total"] == 2
    assert flink.rest == f"http://{flink.address}"
    for pid in processes(flink):
        process = psutil.Process(pid)
        assert process.name() == "java"
        listening = [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"]
        assert listening
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_task_manager_without_slots_yet_is_no_complete_cluster(
    flink: FlinkCluster, monkeypatch: pytest.MonkeyPatch
):
    """Its report of slots arrives a moment after it is known itself."""
    known = flink.get("/taskmanagers")["taskmanagers"]
    early = {"taskmanagers": [{**one, "slotsNumber": 0} for one in known]}
    monkeypatch.setattr(flink, "get", lambda _: early)
    with pytest.raises(ClusterError, match="not complete"):
        flink._await(flink._all_registered, "the cluster is not complete", 0.3)
    monkeypatch.undo()
    assert flink._all_registered()


def test_a_process_that_dies_says_so_with_the_end_of_its_log(
    flink_distribution: None, tmp_path: Path
):
    cluster = FlinkCluster(root=tmp_path, options={"taskmanager.memory.process.size": "1m"})
    with pytest.raises(ClusterError, match=r"(?s)tm-0 ended with .*the logs end:.*[Mm]emory"):
        cluster.start()
    assert cluster.job_manager_pid is None
    assert (tmp_path / "conf" / "config.yaml").exists()


def test_under_supervision_a_task_manager_that_ends_is_replaced(flink_distribution: None):
    with FlinkCluster(slots=1) as cluster, cluster.supervised():
        cluster.kill_task_manager(0)
        assert soon(lambda: list(cluster.task_manager_pids) == [1])
        os.kill(cluster.task_manager_pids[1], signal.SIGKILL)  # as if it had ended by itself
        assert soon(lambda: list(cluster.task_manager_pids) == [2])
        cluster.start()  # waits until it has registered
        cluster.wait_for_slots(1)


def test_a_cluster_dies_with_the_process_that_started_it(flink_distribution: None, tmp_path: Path):
    script = (
        "import os, pathlib, signal\n"
        "from streamad.testing.flink import FlinkCluster\n"
        f"cluster = FlinkCluster(root=pathlib.Path({str(tmp_path)!r})).start()\n"
        "print(cluster.job_manager_pid, *cluster.task_manager_pids.values(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = list(map(int, ended.stdout.split()))
    assert len(pids) == 2
    assert gone(*pids)


def test_up_starts_a_cluster_that_stays_and_down_ends_it(flink_distribution: None, tmp_path: Path):
    def command(*arguments: str) -> str:
        module = [sys.executable, "-m", "streamad.testing.flink", *arguments]
        where = ["--dir", str(tmp_path)]
        return subprocess.run([*module, *where], check=True, capture_output=True, text=True).stdout

    port = str(free_ports(1)[0])
    pids: list[int] = []
    try:
        assert f"answers on http://127.0.0.1:{port}" in command("up", "--port", port)
        pids = list(map(int, (tmp_path / "cluster.pid").read_text().split()))
        assert all(map(alive, pids))
        assert "already up" in command("up", "--port", port)
        os.kill(pids[1], signal.SIGKILL)
        assert gone(pids[1])
        assert "was started anew" in command("up", "--port", port)
        assert gone(pids[0])
        pids = list(map(int, (tmp_path / "cluster.pid").read_text().split()))
        assert all(map(alive, pids))
    finally:
        assert "is down" in command("down")
    assert len(pids) == 2
    assert gone(*pids)
    assert "no cluster is up" in command("down")
    assert any((tmp_path / "log").iterdir())
