"""Prometheus Alertmanager for tests: replicas of one cluster on loopback ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from streamad.testing.processes import free_ports, kill_with_me

START_S = 30.0
CONFIG = """
global: {resolve_timeout: %s}
route: {receiver: none, group_wait: 1s}
receivers: [{name: none}]
"""


def program() -> str | None:
    """Return where Alertmanager is; Debian's looks for its templates where it was installed."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def require_program() -> str:
    """Return where it is; skip the test where it is not, or fail where it is required."""
    found = program()
    if found is None:
        why = "no Alertmanager on the PATH (on Debian: apt-get install prometheus-alertmanager)"
        if os.environ.get("STREAMAD_REQUIRE_ALERTMANAGER", "") not in {"", "0"}:
            pytest.fail(f"required here: {why}", pytrace=False)
        pytest.skip(why)
    return found


class Alertmanager:
    """Replicas of Alertmanager that know each other, each with its own port."""

    def __init__(self, folder: Path, *, replicas: int = 2, resolve_timeout: str = "5m") -> None:
        self._program, self._folder = require_program(), folder
        ports = free_ports(2 * replicas)
        self._web, self._cluster = ports[:replicas], ports[replicas:]
        self._config = folder / "alertmanager.yml"
        self._config.write_text(CONFIG % resolve_timeout)
        self._running: dict[int, list[subprocess.Popen[bytes]]] = {}

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._web]

    def __enter__(self) -> Self:
        for number in range(len(self._web)):
            self.start(number)
        return self

    def __exit__(self, *exc: object) -> None:
        for number in list(self._running):
            self.kill(number)

    def start(self, number: int) -> None:
        """Start a replica, with nothing of its past."""
        peers = [f"--cluster.peer=127.0.0.1:{port}" for port in self._cluster]
        store = self._folder / f"data-{number}-{time.monotonic_ns()}"
        process = subprocess.Popen(
            [
                self._program, f"--config.file={self._config}", f"--storage.path={store}",
                f"--web.listen-address=127.0.0.1:{self._web[number]}",
                f"--cluster.listen-address=127.0.0.1:{self._cluster[number]}",
                "--log.level=error", *peers,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._running[number] = [process, kill_with_me(process.pid)]
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                self.alerts(number)
                return
            assert process.poll() is None, "Alertmanager ended as it was started"
            assert time.monotonic() < deadline, "Alertmanager does not answer"
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        process, guard = self._running.pop(number)
        process.kill()
        process.wait()
        guard.stdin.close()
        guard.wait()

    def alerts(self, number: int = 0) -> list[dict[str, Any]]:
        """Return what fires, as a replica has it."""
        url = f"{self.urls[number]}/api/v2/alerts"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())

    def firing(self, number: int = 0) -> set[str]:
        """Return the ids of incidents that fire."""
        return {alert["labels"]["incident"] for alert in self.alerts(number)}

    def silence(self, *matchers: dict[str, Any], number: int = 0, **more: Any) -> str:
        """Make a silence as its page does; return its id."""
        now = datetime.now(UTC)
        body = {
            "matchers": list(matchers), "createdBy": "ann", "comment": "new kernel",
            "startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat(), **more,
        }  # fmt: skip
        return self._ask(number, "silences", body)["silenceID"]

    def expire(self, silence: str, number: int = 0) -> None:
        """End a silence as its page does."""
        self._ask(number, f"silence/{silence}", method="DELETE")

    def _ask(self, number: int, path: str, body: Any = None, method: str = "POST") -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.urls[number]}/api/v2/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read() or b"{}")
