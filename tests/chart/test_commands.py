"""The commands of rendered containers, run here: jobs start, are ready, pass `helm test`, end."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.kafka.admin import Topic, make_topics
from connectors.kafka.client import KafkaSettings
from streamad.testing.kafka_broker import KafkaBroker
from streamad.testing.processes import free_ports
from tests.chart.rendering import ROOT, Object, of_kind, rendered

READY_S = 120.0


class Here:
    """A container's command on this machine: its files, environment and port are laid here."""

    def __init__(self, objects: list[Object], folder: Path) -> None:
        self._folder = folder
        for name, config in of_kind(objects, "ConfigMap").items():
            for file, text in config["data"].items():
                (folder / name).mkdir(exist_ok=True)
                (folder / name / file).write_text(text)

    def _laid(self, text: str, spec: Object, ports: Mapping[str, int]) -> str:
        (config,) = (one for one in spec["volumes"] if one["name"] == "config")
        text = text.replace("/etc/streamad", str(self._folder / config["configMap"]["name"]))
        for host, port in ports.items():
            text = text.replace(f"http://{host}:8080", f"http://127.0.0.1:{port}")
        return text

    def popen(self, pod: Object, name: str, ports: Mapping[str, int]) -> subprocess.Popen[str]:
        spec = pod["spec"]
        (container,) = spec["containers"]
        arguments = [self._laid(one, spec, ports) for one in container["args"]]
        arguments = [str(ports[name]) if one == "8080" else one for one in arguments]
        environment = {one["name"]: one.get("value", f"{name}-0") for one in container["env"]}
        program = self._folder / "streamad"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobs.cli "$@"\n')
        program.chmod(0o755)
        return subprocess.Popen(
            [str(ROOT / "images" / "start"), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "STREAMAD_COMMAND": str(program),
                "STREAMAD_HOST": "127.0.0.1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def running(self, pod: Object, name: str, ports: Mapping[str, int]) -> Iterator[None]:
        """Run until the block ends, then stop it as Kubernetes does."""
        process = self.popen(pod, name, ports)
        try:
            await_ready(process, ports[name])
            yield
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=pod["spec"]["terminationGracePeriodSeconds"])
            assert process.returncode == 0, output
        finally:
            process.kill()
            process.wait()


def await_ready(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()[0]}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    pytest.fail(f"not ready within {READY_S:g} s")


def test_rendered_commands_run_and_the_hook_of_helm_test_finds_them_well(
    kafka: KafkaBroker, tmp_path: Path
):
    name = f"chart-{uuid.uuid4().hex[:8]}"
    make_topics(KafkaSettings(bootstrap=kafka.bootstrap), [Topic(name=f"in-{name}", partitions=2)])
    values = {
        "kafka": {"bootstrapServers": kafka.bootstrap, "sessionTimeoutMs": 6000},
        "pipelines": {
            "hosts": {
                "kind": "plain",
                "config": {
                    "name": name,
                    "input": {"topics": f"in-{name}"},
                    "detector": "robust_z",
                    "windows": {"size": 16},
                },
            }
        },
    }
    objects = rendered(values=values)
    sets = of_kind(objects, "StatefulSet")
    here = Here(objects, tmp_path)
    detect, alert = "one-streamad-hosts-detect", "one-streamad-hosts-alert"
    ports = dict(zip((detect, alert), free_ports(2), strict=True))
    (hook,) = (one for one in objects if one["kind"] == "Pod")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
    with (
        here.running(sets[detect]["spec"]["template"], detect, ports),
        here.running(sets[alert]["spec"]["template"], alert, ports),
    ):
        check = here.popen(hook, "test", {**ports, "test": 0})
        said, _ = check.communicate(timeout=READY_S)
        assert check.returncode == 0, said
        assert f"a record to streamad.{name}.check came back in" in said
        assert "topics and their settings fit" in said
    # The job has ended: the hook says so, and fails.
    hook["spec"]["containers"][0]["args"] += ["--wait", "0", "--no-round-trip"]
    check = here.popen(hook, "test", {**ports, "test": 0})
    said, _ = check.communicate(timeout=READY_S)
    assert check.returncode != 0
    assert "is not ready after 0 s: no answer" in said
