"""Flink's REST interface: which jobs run, how they are, stop them with a savepoint."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamad.errors import ClusterError

_TIMEOUT_S = 30.0
_WHILE = {
    "CREATED": "CREATED: waits for a free slot",
    "SCHEDULED": "SCHEDULED: waits for a free slot",
    "INITIALIZING": "INITIALIZING: waits for Python to start, or for state",
}
"""What a task that does not run yet is waiting for, by its state."""
_ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as the cluster lists it."""

    id: str
    name: str
    state: str

    @property
    def ended(self) -> bool:
        """Say whether it will never run again."""
        return self.state in _ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A completed checkpoint; ``duration_ms`` from its trigger to the last acknowledgement."""

    id: int
    path: str
    at_ms: int
    duration_ms: int
    size_bytes: int


class FlinkRest:
    """A cluster by the address of its REST interface.

    Parameters
    ----------
    address : str
        ``host:port``, or a URL with a path where a proxy stands before it.
    """

    def __init__(self, address: str) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")

    def jobs(self, name: str | None = None) -> list[JobSummary]:
        """Return jobs, the newest first; ``name`` keeps those of one name."""
        found = self._ask("/jobs/overview")["jobs"]
        found.sort(key=lambda job: -int(job["start-time"]))
        return [
            JobSummary(id=job["jid"], name=job["name"], state=job["state"])
            for job in found
            if name is None or job["name"] == name
        ]

    def job(self, job_id: str) -> dict[str, Any]:
        """Return all that is told of a job."""
        told: dict[str, Any] = self._ask(f"/jobs/{job_id}")
        return told

    def is_running(self, job_id: str) -> bool:
        """Say whether every task of a job runs."""
        told = self.job(job_id)
        return told["state"] == "RUNNING" and all(
            vertex["status"] == "RUNNING" for vertex in told["vertices"]
        )

    def last_checkpoint(self, job_id: str) -> Checkpoint | None:
        """Return the newest completed checkpoint, if there is one."""
        told = self._ask(f"/jobs/{job_id}/checkpoints")["latest"].get("completed")
        if told is None:
            return None
        return Checkpoint(
            id=told["id"],
            path=told.get("external_path", ""),
            at_ms=told["trigger_timestamp"],
            duration_ms=told["end_to_end_duration"],
            size_bytes=told["state_size"],
        )

    def failures(self, job_id: str) -> list[str]:
        """Return the roots of what failed a job, the newest first; Flink keeps the last few."""
        told = self._ask(f"/jobs/{job_id}/exceptions").get("exceptionHistory", {})
        return [root_cause(entry["stacktrace"]) for entry in told.get("entries", [])]

    def delay(self, job_id: str) -> str:
        """Say what keeps a job from its next checkpoint: tasks that do not run, or do not answer.

        Returns
        -------
        str
            One line for people; "" where nothing is known to keep it.
        """
        vertices = self.job(job_id)["vertices"]
        # Flink names a task by all that is chained in it; the first says enough.
        names = {vertex["id"]: vertex["name"].partition(" -> ")[0] for vertex in vertices}
        idle = [
            f"{names[vertex['id']]} ({_WHILE.get(vertex['status'], vertex['status'])})"
            for vertex in vertices
            if vertex["status"] != "RUNNING"
        ]
        if idle:
            return f"not all tasks run: {', '.join(idle)}"
        told = self._ask(f"/jobs/{job_id}/checkpoints")
        pending = [one for one in told["history"] if one["status"] == "IN_PROGRESS"]
        if pending:
            tasks = self._ask(f"/jobs/{job_id}/checkpoints/details/{pending[0]['id']}")["tasks"]
            silent = [
                names[vertex_id]
                for vertex_id, task in tasks.items()
                if task["num_acknowledged_subtasks"] < task["num_subtasks"]
            ]
            return f"checkpoint {pending[0]['id']} waits for {', '.join(silent)}"
        failed = told["latest"].get("failed")
        return f"checkpoint {failed['id']} failed: {failed['failure_message']}" if failed else ""

    def config(self) -> dict[str, str]:
        """Return the options the cluster was started with."""
        return {one["key"]: one["value"] for one in self._ask("/jobmanager/config")}

    def cancel(self, job_id: str) -> None:
        """End a job as it is; its last checkpoint stays."""
        self._ask(f"/jobs/{job_id}?mode=cancel", method="PATCH")

    def stop(self, job_id: str, *, directory: str, timeout_s: float = 120.0) -> str:
        """Stop a job with a savepoint under ``directory``; return where it is."""
        body = {"targetDirectory": directory, "drain": False}
        asked = self._ask(f"/jobs/{job_id}/stop", method="POST", body=body)["request-id"]
        deadline = time.monotonic() + timeout_s
        while True:
            told = self._ask(f"/jobs/{job_id}/savepoints/{asked}")
            if told["status"]["id"] == "COMPLETED":
                break
            if time.monotonic() > deadline:
                msg = f"the savepoint was not made within {timeout_s:g} s; the job keeps running"
                raise ClusterError(msg)
            time.sleep(0.2)
        done = told["operation"]
        if "location" not in done:
            cause = root_cause(str(done.get("failure-cause", {}).get("stack-trace", "")))
            msg = f"the job was not stopped, its savepoint failed: {cause}"
            raise ClusterError(msg)
        return str(done["location"])

    def _ask(
        self, path: str, *, method: str = "GET", body: Mapping[str, object] | None = None
    ) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the user names the cluster
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            said = root_cause(error.read().decode(errors="replace"))
            msg = f"Flink at {self.url} refused {method} {path}: {said}"
            raise ClusterError(msg) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            msg = (
                f"no Flink cluster answers at {self.url} ({reason}); "
                "start one with 'make flink-up', or give --cluster HOST:PORT"
            )
            raise ClusterError(msg) from error


def root_cause(trace: str) -> str:
    r"""Return the line of a Java or Python stack trace that says what went wrong.

    Examples
    --------
    >>> root_cause("A: outer\n\tat x.y\nCaused by: B: no state\n\tat z")
    'B: no state'
    >>> root_cause("Traceback (most recent call last):\n  File x\nE: why\n\n\tat j")
    'E: why'
    """
    lines = [line.rstrip() for line in trace.replace("\\n", "\n").splitlines() if line.strip()]
    python = [number for number, line in enumerate(lines) if "Traceback (most recent" in line]
    if python:
        told = [line for line in lines[python[-1] + 1 :] if line[:1] not in (" ", "\t")]
        if told:
            return told[0]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return causes[-1].removeprefix("Caused by: ") if causes else (lines[0] if lines else trace)
