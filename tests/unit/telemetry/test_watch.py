"""The watcher: ready once every partition is at work; a loop that waits is not stuck."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from connectors.records.status import Health
from connectors.telemetry import PrometheusTelemetry
from jobs.plain.watch import LAG_EVERY_S, BeatingTelemetry, Watcher
from streamad.ports import Source


@dataclass
class Loop:
    sources: list = field(default_factory=list)
    settled: bool = False
    kept: int = 0

    def n_kept(self, source):
        return self.kept


@dataclass
class Member:
    in_group: bool = False
    lags: dict = field(default_factory=dict)

    def joined(self):
        return self.in_group

    def lag(self, source):
        return self.lags.get(source)


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def health(now):
    return Health(("detect",), stuck_after_s=60, clock=lambda: now[0])


@pytest.fixture
def telemetry():
    return PrometheusTelemetry(strict=True)


@pytest.fixture
def watcher(health, telemetry, now):
    return Watcher(health, telemetry, clock=lambda: now[0])


def test_ready_comes_with_the_group_and_the_last_recovery(watcher, health, telemetry):
    loop, member = Loop(), Member()
    watcher.turned("detect", loop, member)
    assert health.missing() == "detect: partitions are being recovered"
    loop.settled = True
    watcher.turned("detect", loop, member)
    assert health.missing() == "detect: not in the group"
    member.in_group = True
    watcher.turned("detect", loop, member)
    assert health.missing() == "", "a spare member without partitions is ready too"
    assert b"streamad_ready 1.0" in telemetry.render()


def test_lag_is_told_for_the_partitions_at_work_alone(watcher, telemetry, now):
    zero, one = Source("cpu", 0), Source("cpu", 1)
    loop = Loop(sources=[zero, one], settled=True)
    member = Member(in_group=True, lags={zero: 5, one: 7})
    watcher.turned("detect", loop, member)
    assert b'streamad_input_lag_messages{partition="1",topic="cpu"} 7.0' in telemetry.render()
    loop.sources, now[0] = [zero], LAG_EVERY_S
    watcher.turned("detect", loop, member)
    text = telemetry.render()
    assert b'streamad_input_lag_messages{partition="0",topic="cpu"} 5.0' in text
    assert b'partition="1"' not in text


def test_a_loop_that_tries_its_broker_again_is_not_stuck(watcher, health, telemetry, now):
    watcher.turned("detect", Loop(settled=True), Member(in_group=True))
    beating = BeatingTelemetry(telemetry, health)
    now[0] = 59
    beating.count("delivery_broker_retries_total", operation="poll")
    now[0] = 61
    assert health.stuck() == ""
    now[0] = 59 + 61
    assert "has not turned for 61 s" in health.stuck()


def test_a_process_told_to_stop_is_not_ready_while_it_commits(health, telemetry, now):
    told = []
    watcher = Watcher(health, telemetry, stopping=lambda: bool(told), clock=lambda: now[0])
    watcher.turned("detect", Loop(settled=True), Member(in_group=True))
    assert health.missing() == ""
    told.append("SIGTERM")
    watcher.turned("detect", Loop(settled=True), Member(in_group=True))
    assert health.missing() == "running: shutting down"
    assert health.stuck() == ""


def test_activity_of_other_threads_is_no_sign_of_life(health, telemetry, now):
    beating = BeatingTelemetry(telemetry, health)
    beating.gauge("alert_open", 1)
    beating.observe("delivery_commit_seconds", 0.1)
    now[0] = 61
    assert health.stuck().startswith("process")


def test_input_in_hand_has_to_be_committed(watcher, health, telemetry, now):
    watcher.turned("detect", Loop(settled=True), Member(in_group=True))
    beating = BeatingTelemetry(telemetry, health)
    uncommitted = "delivery_uncommitted_since_timestamp_seconds"
    beating.gauge(uncommitted, 1_700_000_000.0, stage="detect")

    def turn(seconds: int) -> None:
        for _ in range(seconds // 10):
            now[0] += 10
            health.beat(threading.current_thread().name)

    turn(30)
    assert health.missing() == ""
    turn(10)
    assert health.missing() == "detect: nothing was committed for 40 s"
    assert health.stuck() == ""
    turn(270)
    assert "nothing was committed for 310 s, with input in hand" in health.stuck()
    beating.count("delivery_broker_retries_total", operation="producer")
    assert health.stuck() == "", "it waits for its broker: a restart would not help"
    turn(70)
    assert health.stuck()
    beating.gauge(uncommitted, 0.0, stage="detect")
    assert (health.stuck(), health.missing()) == ("", "")
