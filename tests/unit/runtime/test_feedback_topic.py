"""Answers come by a topic beside the findings: each counts once, whenever the process dies."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from connectors.memory import MemoryMember, MemoryTopics, Record
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.cloudevents import decode, encode
from connectors.telemetry import PrometheusTelemetry
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.incidents import Feedback, Incident, Silence
from streamad.paging.desk import Desk
from streamad.ports import Source
from streamad.records import Finding
from streamad.runtime.alert import AlertLoop
from streamad.runtime.placing import Clock

NOON = 1_700_049_600_000
CONFIG = PipelineConfig.model_validate({"name": "p", "input": {"topics": "in"}})
ALERTING = AlertingConfig.of(CONFIG)
FINDINGS, FEEDBACK = ALERTING.read


def finding(name: str, **changes: Any) -> Finding:
    made = Finding(
        id=name, sequence=0, state="began", kind="anomaly", pipeline="p", detector="knn",
        artifact="", tenant="default", group="p", key="web-1/cpu", entity={"host": "web-1"},
        window_start_ms=NOON, window_end_ms=NOON, began_ms=NOON, until_ms=NOON, score=9.0,
        p_value=1e-5, peak_score=9.0, peak_p_value=1e-5, level=5.0, n_windows=1, explanation=None,
        input={},
    )  # fmt: skip
    return replace(made, **changes)


class Job:
    """An alert stage on topics in memory, which can be started again."""

    def __init__(self) -> None:
        self.topics = MemoryTopics()
        for topic in (FINDINGS, FEEDBACK, state_topic(CONFIG)):
            self.topics.make(topic, 1)
        self.telemetry = PrometheusTelemetry(strict=True)
        self.wall_ms = NOON
        self.start()

    def start(self) -> None:
        seconds = itertools.count()
        self.loop = AlertLoop(
            CONFIG,
            Desk(CONFIG),
            member=MemoryMember(log=self.topics, topics=[FINDINGS, FEEDBACK], group="alert"),
            records=KafkaAlertRecords(CONFIG, self.topics, wall_ms=lambda: NOON),
            clock=Clock(seconds=lambda: float(next(seconds)), wall_ms=lambda: self.wall_ms),
            telemetry=self.telemetry,
        )

    def write(self, topic: str, record: Any) -> None:
        event = encode(record)
        row = Record(value=event.value, key=event.key, headers=event.headers, broker_ms=NOON)
        self.topics._append(Source(topic, 0), [row])

    def work(self) -> None:
        for _ in range(4):
            self.loop.turn(0)

    def incidents(self) -> list[Incident]:
        found = [decode(r.value, r.headers) for r in self.topics.records("streamad.p.incidents")]
        return [one for one in found if isinstance(one, Incident)]


def test_an_answer_is_read_once_and_its_effect_outlives_the_process():
    job = Job()
    job.write(FINDINGS, finding("e1"))
    job.work()
    (opened,) = job.incidents()
    answer = Feedback(id="a", subject=opened.id, verdict="false_positive", by="ann", time_ms=NOON)
    job.write(FEEDBACK, answer)
    job.topics.put(Source(FEEDBACK, 0), [b"{", b"x" * 100_000])
    job.work()
    assert [(one.state, one.verdict) for one in job.incidents()][-1] == (
        "updated",
        "false_positive",
    )
    job.start()
    # Written again, as by a client that did not see its first one arrive.
    job.write(FEEDBACK, answer)
    job.work()
    assert len(job.incidents()) == 2
    (table,) = job.loop._tables.values()
    assert table.state.notes["series/default/web-1/cpu"]["offset"] == pytest.approx(1.25)
    (counted,) = [r for r in job.telemetry.render().splitlines() if b"answers_total{" in r] or [b""]
    assert counted.endswith(b" 1.0")
    letters = job.topics.records(f"{FEEDBACK}.dlq")
    assert len(letters) == 2, "what is no answer is a dead-letter record"


def test_a_silence_needs_no_restart_and_a_feedback_topic_made_again_is_read_from_its_start():
    job = Job()
    silence = Silence(id="s", name="release", matchers=("host=web-1",), starts_ms=0,
                      ends_ms=NOON + 60_000, by="ann", time_ms=NOON)  # fmt: skip
    job.work()
    job.topics.remove(FEEDBACK)
    job.topics.make(FEEDBACK, 1)
    job.write(FEEDBACK, silence)
    job.loop.renewed(FEEDBACK)
    job.work()
    job.write(FINDINGS, finding("e1"))
    job.work()
    assert [one.withheld for one in job.incidents()] == ["silence: release"]


def test_findings_that_are_no_answers_have_no_effect_there():
    job = Job()
    job.write(FEEDBACK, finding("e1"))
    job.work()
    assert job.incidents() == []


def test_a_silence_given_while_nobody_was_at_work_comes_before_the_findings_of_that_time():
    job = Job()
    job.write(FINDINGS, finding("e1"))
    silence = Silence(id="s", name="release", matchers=(), starts_ms=0,
                      ends_ms=NOON + 60_000, by="ann", time_ms=NOON)  # fmt: skip
    job.write(FEEDBACK, silence)
    job.work()
    assert [one.withheld for one in job.incidents()] == ["silence: release"]


def test_an_incident_ends_by_time_alone_though_no_alert_is_open_any_more():
    job = Job()
    job.write(FINDINGS, finding("e1"))
    job.write(FINDINGS, finding("e1", sequence=1, state="ended"))
    job.work()
    assert [one.state for one in job.incidents()] == ["opened"]
    job.wall_ms += 600_000
    for _ in range(30):
        job.work()
    assert [one.state for one in job.incidents()] == ["opened", "resolved"]
