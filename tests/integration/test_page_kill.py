"""The page job on a real Kafka: frozen, under a storm, and by its command."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from kafka import KafkaProducer

from connectors.kafka.admin import make_topics
from connectors.kafka.client import KafkaSettings
from connectors.records import cloudevents
from connectors.records.pages import page_state_topic
from jobs import cli
from jobs.plain.page import create_page_topics, run_page
from jobs.plain.run import KILL_AT
from jobs.plain.topics import COMPACTED, Topic
from streamad.alerting.config import AlertingConfig
from streamad.testing.pager_server import ROUTING_KEY, SECRET, TOKEN, PagerServer
from tests.integration.conftest import FORKS, read
from tests.unit.pagers.made import INCIDENT, over, step

KEY = "streamad-"


class Paging:
    """An alerting of its own on the broker, and a server that plays its receivers."""

    def __init__(self, bootstrap: str, server: PagerServer, kinds=("pagerduty",), **pager) -> None:
        self.name = f"a{uuid.uuid4().hex[:10]}"
        self.settings = KafkaSettings(bootstrap=bootstrap, session_timeout_ms=6_000)
        self.server = server
        known = {
            "pagerduty": {"url": f"{server.url}/v2/enqueue", "routing_key": ROUTING_KEY},
            "slack": {"url": f"{server.url}/api", "token": TOKEN, "channel": "C012"},
            "webhook": {"url": f"{server.url}/hook", "secret": SECRET, "updates": True},
        }
        pagers = [
            {"name": kind, "kind": kind, "timeout": "1s", **known[kind], **pager} for kind in kinds
        ]
        self.tree = {"name": self.name, "findings": "none", "pagers": pagers}
        self.config = AlertingConfig.model_validate(self.tree)
        self.topic = self.config.topic("incidents")
        make_topics(self.settings, [Topic(name=self.topic, configs=COMPACTED)])
        create_page_topics(self.config, self.settings)
        self.sent: list[object] = []
        self.started: list[object] = []

    def put(self, *records) -> None:
        with closing(KafkaProducer(**self.settings.client(), linger_ms=5)) as producer:
            for one in records:
                event = cloudevents.encode(one)
                producer.send(
                    self.topic, key=event.key, value=event.value, headers=list(event.headers)
                )
            producer.flush()
        self.sent += records

    def start(self, kill_at: str = "", *, member: str = "m"):
        process = FORKS.Process(
            target=run_page,
            args=(self.config, self.settings),
            kwargs={"environment": {"STREAMAD_MEMBER": member, KILL_AT: kill_at}},
        )
        process.start()
        self.started.append(process)
        return process

    def run(self, stop, telemetry=None):
        run_page(
            self.config, self.settings, environment={"STREAMAD_MEMBER": "m"}, stop=stop,
            telemetry=telemetry,
        )  # fmt: skip

    def letters(self):
        return read(self.settings, f"{self.topic}.dlq")

    def known(self):
        """Return what is known of incidents that are not over."""
        newest = {one.key: one.value for one in read(self.settings, page_state_topic(self.config))}
        return {key: json.loads(value) for key, value in newest.items() if value is not None}


@pytest.fixture
def server():
    with PagerServer() as one:
        yield one


@pytest.fixture
def paging(kafka, server):
    made = []

    def make(*kinds, **pager):
        made.append(Paging(kafka.bootstrap, server, kinds or ("pagerduty",), **pager))
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            process.kill()
            process.join()


def until(condition, what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.05)


def lives(count):
    """Return incidents of several lives: opened, acknowledged, resolved."""
    made = []
    for _ in range(count):
        first = replace(INCIDENT, id=uuid.uuid4().hex)
        second = step(first, acknowledged="ann")
        made.append((first, second, over(second)))
    return made


def once_each(server, names):
    """Check that every incident rang once, and was resolved once after that."""
    assert server.problems == []
    assert server.pagerduty.pages_of == Counter({KEY + name: 1 for name in names})
    assert server.pagerduty.resolved == Counter({KEY + name: 1 for name in names})
    assert server.pagerduty.open == {}


def test_a_process_that_was_frozen_repeats_no_page(paging, server):
    """It comes back with pages in hand that another one has sent, and resolved, since."""
    job = paging()
    first = job.start(member="one")
    before, *since = lives(5)
    job.put(*before)
    until(lambda: len(server.pagerduty.resolved) == 1, "the first one works")
    server.fail("500")
    job.put(*since[0], *since[1])
    until(lambda: server.attempts >= 4, "pages are in hand")
    os.kill(first.pid, signal.SIGSTOP)
    server.recover()
    second = job.start(member="two")
    until(lambda: len(server.pagerduty.resolved) == 3, "the second one takes over")
    os.kill(first.pid, signal.SIGCONT)
    job.put(*since[2], *since[3])
    until(lambda: len(server.pagerduty.resolved) == 5, "the rest")
    time.sleep(3)
    assert first.is_alive()
    assert second.is_alive()
    once_each(server, [life[0].id for life in (before, *since)])


def test_a_storm_of_pages_is_worked_off(paging, server):
    job, count = paging(), 300
    stop = threading.Event()
    thread = threading.Thread(target=job.run, args=(stop,))
    thread.start()
    try:
        job.put(lives(1)[0][0])
        until(lambda: server.pagerduty.pages == 1, "it works")
        began = time.monotonic()
        job.put(*(life[0] for life in lives(count)))
        until(lambda: server.pagerduty.pages == count + 1, "all rang")
        took = time.monotonic() - began
    finally:
        stop.set()
        thread.join(30)
    print(f"{count} pages in {took:.1f} s: {1000 * took / count:.1f} ms each")  # noqa: T201


def test_the_command_runs_pagers(paging, kafka, server, tmp_path: Path, monkeypatch):
    job = paging("webhook")
    (tmp_path / "secret").write_text(SECRET)
    path = tmp_path / "alerting.yaml"
    path.write_text(
        f"name: {job.name}\nfindings: none\npagers:\n- name: hook\n  kind: webhook\n"
        f"  url: {server.url}/hook\n  secret_file: {tmp_path}/secret\n"
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    codes = []
    run = partial(cli.main, ["run", "--alerting", str(path), "--role", "page"])
    started = threading.Event()
    monkeypatch.setattr("jobs.plain.serve.threading", SimpleNamespace(Event=lambda: started))
    thread = threading.Thread(target=lambda: codes.append(run()))
    thread.start()
    try:
        until(lambda: job.put(lives(1)[0][0]) or server.webhooks, "a page of the command", 90)
    finally:
        started.set()
        thread.join(30)
    assert codes == [0]
    assert server.problems == []
