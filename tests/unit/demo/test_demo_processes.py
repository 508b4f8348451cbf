"""The real processes the demo starts: they do what they are told, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from jobs.demo.disturbance import CHORE, N_SERVICES, STRANGER, WORKER, Disturbance

ROOT = Path(__file__).resolve().parents[3]


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def soon(holds, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def names_below(pid: int) -> set[str]:
    try:
        return {child.name() for child in psutil.Process(pid).children()}
    except psutil.NoSuchProcess:
        return set()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_burst_works_when_told_and_leaves_nothing_behind(home: Path):
    with Disturbance(home) as disturbance:
        child = psutil.Process(disturbance.pid)
        disturbance.burst(20)
        assert soon(lambda: sum(child.cpu_times()[:2]) >= 0.3)
    assert wait_until_gone(disturbance.pid, 0.1)
    assert wait_until_gone(disturbance.worker_pid, 0.1)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name a process otherwise")
def test_ordinary_work_and_the_stranger_have_names_and_end(home: Path):
    with Disturbance(home) as disturbance:
        worker, disturber = disturbance.worker_pid, disturbance.pid
        assert soon(lambda: disturbance.worker_name == WORKER)
        assert soon(lambda: CHORE in names_below(worker))
        assert names_below(disturber) == set()
        disturbance.start_stranger()
        assert soon(lambda: names_below(disturber) == {STRANGER})
        disturbance.rest()
        assert soon(lambda: names_below(worker) == set())
        strangers = psutil.Process(disturber).children()
    assert soon(lambda: not any(one.is_running() for one in strangers), 5)


def test_a_fan_out_reaches_every_service_and_closes(home: Path):
    with Disturbance(home) as disturbance:
        worker = psutil.Process(disturbance.worker_pid)

        def open_now() -> int:
            listed = worker.net_connections("tcp")
            return sum(one.status == psutil.CONN_ESTABLISHED for one in listed)

        assert soon(lambda: open_now() == 2)
        disturbance.fan_out()
        assert soon(lambda: open_now() == 2 + N_SERVICES)
        assert soon(lambda: open_now() == 2)


def test_processes_whose_parent_was_killed_end_by_themselves(home: Path):
    script = (
        "import os, pathlib, sys, tempfile\n"
        "from jobs.demo.disturbance import Disturbance\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "disturbance = Disturbance(pathlib.Path(sys.argv[1]))\n"
        "disturbance.burst(20)\n"
        "disturbance.start_stranger()\n"
        "print(disturbance.pid, disturbance.worker_pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    for pid in ended.stdout.split():
        assert wait_until_gone(int(pid))
    assert len(ended.stdout.split()) == 2
    assert soon(lambda: list(home.iterdir()) == [], 5)


def test_processes_that_died_are_no_error(home: Path):
    with Disturbance(home) as disturbance:
        for pid in (disturbance.pid, disturbance.worker_pid):
            psutil.Process(pid).kill()
            assert wait_until_gone(pid)
        for _ in range(2):
            disturbance.burst(1)
            disturbance.fan_out()
        assert disturbance.worker_name
    assert list(home.iterdir()) == []
