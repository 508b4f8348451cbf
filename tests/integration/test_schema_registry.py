"""Confluent's wire format on a broker, with a server that behaves as a schema registry does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connectors.kafka.admin import Topic, make_topics
from connectors.kafka.client import KafkaSettings
from connectors.kafka.writer import write
from connectors.records.cloudevents import encode
from connectors.records.wire import frame_of
from connectors.subscribe import Subscription
from jobs import cli
from jobs.plain.run import run
from jobs.plain.topics import create_topics
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.errors import ConfigError
from streamad.incidents import Incident
from streamad.ports import Outgoing
from streamad.records import Alert
from streamad.testing.registry_server import RegistryServer
from tests.integration.conftest import read
from tests.unit.paging.made import ended, finding

AUTH = "Basic YW5uOmh1bnRlcjItb2YtdGhlLXJlZ2lzdHJ5"
USER_INFO = "ann:hunter2-of-the-registry"


class Site:
    """An alerting file whose findings a test writes, and its job in a thread."""

    def __init__(self, bootstrap: str, name: str, folder: Path, registry: RegistryServer) -> None:
        self.findings = f"streamad.{name}-p.findings"
        self.file = folder / "alerting.yaml"
        self.file.write_text(
            f"name: {name}\nfindings: {self.findings}\nalerts: {{max_age: 3650d}}\n"
            "budget: {soak: 0s}\noutput: {format: confluent}\n"
        )
        self.settings = KafkaSettings(bootstrap=bootstrap, session_timeout_ms=6_000)
        self.config: AlertingConfig = load_alerting(self.file, environment={})
        self.registry = registry
        self.environment = {
            "STREAMAD_MEMBER": "m",
            "SCHEMA_REGISTRY_URL": registry.url,
            "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": USER_INFO,
        }
        make_topics(self.settings, [Topic(name=self.findings)])
        create_topics(self.config, self.settings)
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            run(self.config, self.settings, environment=self.environment, stop=self._stop)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failures.append(error)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def find(self, key: str, *, frame: bytes = b"", cut: int | None = None) -> None:
        one = finding(key, name=key.encode().hex().ljust(32, "0"))
        made = []
        for part in (one, ended(one, 60_000)):
            event = encode(part)
            value = (frame + event.value)[:cut]
            made.append(
                Outgoing(topic=self.findings, key=event.key, value=value, headers=event.headers)
            )
        write(self.settings, made)

    def records(self, role: Any) -> list[Any]:
        return read(self.settings, self.config.topic(role))

    def until(self, condition: Any, what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
            time.sleep(0.1)


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer(authorization=AUTH) as server:
        yield server


@pytest.fixture
def site(kafka: Any, topic: Any, tmp_path: Path, registry: RegistryServer) -> Site:
    return Site(kafka.bootstrap, topic("framed"), tmp_path, registry)


def as_a_client_reads(site: Site, record: Any) -> dict[str, Any]:
    """Read a record as clients of a registry do: the schema of its id, then its JSON."""
    magic, number = record.value[0], int.from_bytes(record.value[1:5], "big")
    assert magic == 0
    text = site.registry.by_id[number]
    assert text in site.registry.subjects[f"{record.topic}-value"]
    body: dict[str, Any] = json.loads(record.value[5:])
    jsonschema.validate(body, json.loads(text))
    return body


def test_alerts_and_incidents_are_read_by_clients_of_a_registry_and_by_ours(
    site: Site, capsys, monkeypatch
):
    with site:
        site.find("web-1/cpu")
        site.until(lambda: len(site.records("alerts")) >= 2, "an alert and its end")
        # Ids are known: the registry may go, and nothing waits for it.
        site.registry.down()
        site.find("db-9/io", frame=frame_of(4_711))
        site.until(lambda: len(site.records("alerts")) >= 4, "alerts without a registry")
        site.registry.up()
    assert site.failures == []
    assert site.registry.problems == []
    for role, states in (("alerts", {"opened", "resolved"}), ("incidents", {"opened"})):
        bodies = [as_a_client_reads(site, record) for record in site.records(role)]
        assert {body["state"] for body in bodies} >= states
    topics = [site.config.topic("alerts"), site.config.topic("incidents")]
    got: list[Any] = []
    with Subscription(site.settings, topics, start="earliest") as subscription:
        while not subscription.at_end():
            got += [one.record for one in subscription.poll()]
        assert subscription.n_unreadable == 0
    alerts = [one for one in got if isinstance(one, Alert)]
    incidents = [one for one in got if isinstance(one, Incident)]
    assert {one.key for one in alerts} == {"web-1/cpu", "db-9/io"}
    assert len({one.id for one in incidents}) == 2
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", site.settings.bootstrap)
    _check_commands(str(site.file), capsys, {one.id for one in incidents})


def _check_commands(file: str, capsys: Any, incidents: set[str]) -> None:
    assert cli.main(["alerts", "tail", file, "--from", "1h ago", "--no-follow"]) == 0
    tail = capsys.readouterr().out
    assert "web-1/cpu is 97" in tail
    assert "db-9/io is 97" in tail
    assert cli.main(["alerts", "list", file, "--since", "3650d ago", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["id"] for one in listed} == incidents
    assert cli.main(["alerts", "show", file, next(iter(incidents))[:8]]) == 0
    assert "is 97" in capsys.readouterr().out


def test_a_frame_that_is_cut_off_becomes_a_dead_letter_and_the_stream_continues(site: Site):
    with site:
        site.find("web-1/cpu", frame=frame_of(7), cut=3)
        site.find("web-2/cpu", frame=frame_of(7), cut=40)
        site.find("web-3/cpu", frame=frame_of(7))
        site.until(lambda: len(site.records("alerts")) >= 2, "an alert and its end")
    dead = read(site.settings, f"{site.findings}.dlq")
    reasons = [dict(one.headers)["streamad.error.reason"] for one in dead]
    assert reasons == [b"invalid_json"] * 4
    assert [len(one.value) for one in dead] == [3, 3, 40, 40]
    assert {as_a_client_reads(site, one)["key"] for one in site.records("alerts")} == {"web-3/cpu"}


def test_a_registry_that_is_down_at_the_start_is_waited_for(site: Site):
    site.registry.down()
    site.find("web-1/cpu")
    with site:
        time.sleep(3)
        assert site._thread.is_alive(), site.failures
        assert site.records("alerts") == []
        site.registry.up()
        site.until(lambda: len(site.records("alerts")) >= 2, "alerts, once the registry is up")
    assert site.failures == []
    for record in site.records("alerts"):
        as_a_client_reads(site, record)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda site: setattr(site.registry, "authorization", "Basic other"), "status 401"),
        (lambda site: site.registry.fail("redirect"), "got a redirect"),
        (lambda site: site.registry.fail("html"), "leads to no schema registry"),
        (
            lambda site: site.registry.subjects.update(
                {f"{site.config.topic('alerts')}-value": ['{"type": "object"}']}
            ),
            "status 409",
        ),
    ],
)
def test_a_registry_that_refuses_ends_the_start_with_a_line(site: Site, spoil: Any, why: str):
    spoil(site)
    with site:
        site._thread.join(30)
        assert not site._thread.is_alive()
    (failure,) = site.failures
    assert isinstance(failure, ConfigError)
    assert why in str(failure)
    assert "\n" not in str(failure)
    assert "hunter2" not in str(failure)


def test_the_command_ends_with_the_line_and_no_secret(site: Site):
    site.registry.authorization = "Basic other"
    given = {**os.environ, **site.environment, "KAFKA_BOOTSTRAP_SERVERS": site.settings.bootstrap}
    command = [sys.executable, "-m", "jobs.cli", "run", "--alerting", str(site.file)]
    ran = subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert "status 401" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "hunter2" not in ran.stderr + ran.stdout
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "validate", str(site.file), "--online"],
        env=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "status 401" in ran.stderr
    assert "hunter2" not in ran.stderr + ran.stdout
