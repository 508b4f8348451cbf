"""Silences made in a real Alertmanager withhold pages of the desk, by way of a real broker."""

from __future__ import annotations

import time
import uuid
from contextlib import closing

import pytest

from connectors.kafka.admin import Topic, make_topics
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.pagers import make_pager
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.telemetry import PrometheusTelemetry
from jobs.plain.silences import SilenceWatch
from streamad.alerting.config import AlertingConfig
from streamad.incidents import Incident
from streamad.paging.changes import page_of
from streamad.paging.desk import Desk, DeskOutput
from tests.integration.alertmanager import Alertmanager
from tests.integration.test_pager_alertmanager import soon
from tests.unit.paging.test_answers import finding

PARTITIONS = 2
HOLD_MS = 300_000


class Stage:
    """A desk that reads its feedback topic, and the watch on Alertmanager's silences."""

    def __init__(self, bootstrap: str, urls: list[str]) -> None:
        self.config = AlertingConfig.model_validate({
            "name": f"a{uuid.uuid4().hex[:10]}", "findings": "f", "incidents": {"hold": "5m"},
            "pagers": [{
                "name": "am", "kind": "alertmanager", "urls": urls, "timeout": "2s",
                "read_silences": "1s", "send": "all",
            }],
        })  # fmt: skip
        self.settings = KafkaSettings(bootstrap=bootstrap)
        self.topic = self.config.topic("feedback")
        make_topics(
            self.settings,
            [
                Topic(name=self.topic, partitions=PARTITIONS),
                Topic(name=state_topic(self.config), partitions=PARTITIONS),
            ],
        )
        self.telemetry = PrometheusTelemetry(strict=True)
        (self.pager,) = self.config.pagers
        self.watch = self.new_watch()
        self.desk = Desk(self.config)
        # One tenant's: of its partition, where silences of all tenants are, too.
        self.state, self.read = self.desk.new_state(), [0] * PARTITIONS
        self.last: dict[str, Incident] = {}

    def new_watch(self) -> SilenceWatch:
        return SilenceWatch(self.config, self.pager, self.settings, telemetry=self.telemetry)

    def answers(self) -> list:
        """Have the desk read what is new; return the records of each partition."""
        found: list = [[] for _ in range(PARTITIONS)]
        with closing(KafkaLog(self.settings, group="test")) as log:
            records = KafkaAlertRecords(self.config, log, wall_ms=lambda: 0)
            for source, (_, stop) in log.bounds(self.topic).items():
                for messages in log.read(source, self.read[source.partition], stop):
                    answers, rejected = records.answers(messages)
                    assert rejected == []
                    found[source.partition] += answers
                    self.keep(self.desk.answer(self.state, answers))
                self.read[source.partition] = stop
        return found

    def open(self, host: str):
        """Open an incident of a series now; return its newest record."""
        now_ms = time.time_ns() // 1_000_000
        one = finding(
            host, key=f"{host}/cpu", entity={"host": host}, began_ms=now_ms - 1_000,
            group=host, until_ms=now_ms, window_end_ms=now_ms,
        )  # fmt: skip
        out = self.desk.process(self.state, [(one, now_ms)])
        self.keep(out)
        return out.incidents[-1]

    def later(self) -> None:
        """Let the time pass after which incidents page."""
        self.keep(self.desk.tick(self.state, self.state.clock_ms + HOLD_MS))

    def keep(self, out: DeskOutput) -> None:
        self.last |= {one.id: one for one in out.incidents}

    @property
    def paged(self) -> set[str]:
        return {one.id for one in self.last.values() if one.paged_ms is not None}


@pytest.fixture
def replicas(tmp_path):
    with Alertmanager(tmp_path) as made:
        yield made


def equal(name: str, value: str, **more):
    return {"name": name, "value": value, "isRegex": False, "isEqual": True, **more}


def test_silences_of_its_page_withhold_pages_until_they_are_expired(kafka, replicas):
    stage = Stage(kafka.bootstrap, [*replicas.urls, "http://127.0.0.1:9"])
    assert stage.watch.turn() == []
    replicas.silence(equal("alertname", "NodeDown"))
    # On one replica, the other has it by gossip; one is away throughout.
    name = replicas.silence(
        equal("alertname", "StreamadIncident"),
        equal("entity_host", "web-[0-9]+", isRegex=True),
        number=1,
    )
    (made,) = stage.watch.turn()
    assert made.matchers == ('entity_host=~"web-[0-9]+"',)
    assert [len(part) for part in stage.answers()] == [1, 1]
    held, other = stage.open("web-1"), stage.open("db-1")
    assert held.withheld == "silence: Alertmanager: new kernel"
    stage.later()
    assert stage.paged == {other.id}
    # Another process knows what was written, and says nothing twice.
    stage.watch = stage.new_watch()
    assert stage.watch.turn() == []
    replicas.expire(name, 0)
    (over,) = stage.watch.turn()
    assert (over.id, over.ends_ms <= time.time() * 1000) == (made.id, True)
    stage.answers()
    assert stage.paged == {held.id, other.id}
    shown = stage.telemetry.render().decode()
    assert 'streamad_page_silences_total{pager="am",result="taken"} 1.0' in shown
    assert 'streamad_page_silences_total{pager="am",result="ended"} 1.0' in shown


def test_the_button_at_an_alert_expects_that_incident(kafka, replicas):
    stage = Stage(kafka.bootstrap, replicas.urls)
    incident = stage.open("web-1")
    sent = make_pager(stage.pager).send(page_of(incident, "open"))
    assert sent.result == "ok", sent
    soon(lambda: replicas.firing(0) == replicas.firing(1) == {incident.id})
    (alert,) = replicas.alerts()
    # The page fills in all labels of the alert.
    name = replicas.silence(*(equal(*label) for label in alert["labels"].items()))
    made = []
    soon(lambda: made.extend(stage.watch.turn()) or made)
    assert (made[0].subject, made[0].verdict) == (incident.id, "expected")
    assert made[0].by == "ann (Alertmanager)"
    stage.answers()
    stage.later()
    assert stage.paged == set()
    replicas.expire(name)
    soon(stage.watch.turn)
    stage.answers()
    assert stage.paged == {incident.id}
    assert stage.last[incident.id].acknowledged == "ann (Alertmanager)"
    ledger = [what for days in stage.state.budgets["web-1"].days.values() for what in days.ledger]
    assert {"answered expected", "answered no longer expected"} <= set(ledger)
