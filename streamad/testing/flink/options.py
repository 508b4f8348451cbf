"""The configuration of a small Flink cluster for tests: on loopback, quick to miss what died."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def cluster_options(
    *, root: Path, rest_port: int, rpc_port: int, blob_port: int, slots: int
) -> dict[str, str]:
    """Return the options of a small cluster that misses a killed task manager within seconds.

    Parameters
    ----------
    root : Path
        The folder under which checkpoints and temporary files go.
    rest_port, rpc_port, blob_port : int
        Where clients and task managers connect.
    slots : int
        The slots of a task manager.
    """
    loopback = dict.fromkeys(
        [
            "jobmanager.rpc.address",
            "jobmanager.bind-host",
            "rest.address",
            "rest.bind-address",
            "taskmanager.host",
            "taskmanager.bind-host",
        ],
        "127.0.0.1",
    )
    return loopback | {
        "jobmanager.rpc.port": str(rpc_port),
        "rest.port": str(rest_port),
        "rest.bind-port": str(rest_port),
        "blob.server.port": str(blob_port),
        "taskmanager.numberOfTaskSlots": str(slots),
        "jobmanager.memory.process.size": "768m",
        "taskmanager.memory.process.size": "2048m",
        # Each job that is submitted loads Flink's Python classes anew, and old ones go late.
        "taskmanager.memory.jvm-metaspace.size": "512m",
        # Python workers live outside the JVM, but are granted their memory out of this share.
        "taskmanager.memory.managed.fraction": "0.3",
        # The quick compiler only and one collector thread: on two cores, start-up is what costs.
        "env.java.opts.all": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        # A killed task manager refuses connections: two heartbeats are enough to miss it (10 s
        # apart by default). One that is only slow, on a busy machine, has the whole timeout.
        "heartbeat.interval": "2000",
        "heartbeat.timeout": "20000",
        "heartbeat.rpc-failure-threshold": "2",
        # A job manager that comes back should not wait for task managers that, once they have
        # missed it, sleep for up to 30 s between two attempts to register.
        "cluster.registration.error-delay": "1000",
        "cluster.registration.refused-registration-delay": "1000",
        "cluster.registration.max-timeout": "2000",
        # In a cluster older than this, a job short of slots fails at once instead of waiting for
        # `slot.request.timeout`. Tests share a cluster: its age must not change what they see.
        "resourcemanager.standalone.start-up-time": "86400000",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": (root / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (root / "savepoints").as_uri(),
        "io.tmp.dirs": str(root / "tmp"),
        "web.tmpdir": str(root / "tmp"),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }


def config_text(defaults: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """Return the text of a ``config.yaml``: the JVM flags Flink ships with, and the options.

    Parameters
    ----------
    defaults : Mapping[str, Any]
        The distribution's own ``config.yaml``, parsed. Only ``env.java.opts.all`` is taken: it
        opens the parts of Java that Flink reaches into, without which no process starts.
    options : Mapping[str, str]
        All other options, by their dotted names; JVM flags are added to the shipped ones.
    """
    shipped = defaults.get("env", {}).get("java", {}).get("opts", {}).get("all", "")
    flags = f"{shipped} {options.get('env.java.opts.all', '')}".strip()
    # Wide: Flink's scripts read the flags with grep, so they must stay on one line.
    return yaml.safe_dump({**options, "env.java.opts.all": flags}, width=1_000_000)
