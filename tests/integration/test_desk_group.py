"""Two members of one desk: one is killed, frozen, comes back; the incidents show no trace of it.

A desk is one per partition number, over the findings of several pipelines. What it decides follows
from the order of their logs, so what comes out is compared with the same log judged in memory.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import jobs.plain.run
from connectors.kafka.admin import Topic, make_topics
from connectors.kafka.client import KafkaSettings, plain_producer
from connectors.kafka.log import KafkaLog
from connectors.records import cloudevents
from jobs.plain.loops import group_of
from jobs.plain.run import KILL_AT, run
from jobs.plain.topics import create_topics
from streamad.alerting.config import AlertingConfig
from streamad.incidents import Incident
from streamad.paging.desk import Desk
from streamad.records import Alert, Finding
from tests.integration.conftest import FORKS, by_id, read
from tests.unit.paging.findings import finding

PARTITIONS, TENANTS, HOSTS = 4, 16, 6
FREEZE_AT = "TEST_FREEZE_AT"
Phase = list[tuple[int, Finding]]


def run_and_freeze(config: Any, settings: Any, **given: Any) -> None:
    """Run the job, and stop this process at the n-th passing of a step, as a machine would."""
    step, _, number = given["environment"][FREEZE_AT].partition(":")
    left = [int(number)]

    def fault(passed: str) -> None:
        if passed == step:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    jobs.plain.run.kill_at = lambda _: fault
    run(config, settings, **given)


class Site:
    """An alerting file over the findings of two pipelines, and the processes that work on it."""

    def __init__(self, bootstrap: str) -> None:
        name = f"g{uuid.uuid4().hex[:8]}"
        self.topics = [f"streamad.{name}-{one}.findings" for one in ("hosts", "logins")]
        self.config = AlertingConfig.model_validate(
            {
                "name": name,
                "findings": self.topics,
                "alerts": {"max_age": "36500d", "limit": {"per_group": 100_000, "per_key": 100}},
                "budget": {"pages": "1 per week", "soak": "0s"},
                "incidents": {"links": ["host"], "update_every": "1s"},
                "delivery": {"commit_interval": "20ms", "transaction_timeout": "4s"},
            }
        )
        self.settings = KafkaSettings(bootstrap=bootstrap, session_timeout_ms=6_000)
        make_topics(
            self.settings, [Topic(name=topic, partitions=PARTITIONS) for topic in self.topics]
        )
        create_topics(self.config, self.settings)
        self.fed: list[list[tuple[Finding, int]]] = [[] for _ in range(PARTITIONS)]
        self.started: list[Any] = []
        self._log = KafkaLog(self.settings, group=group_of(self.config, "alert"))

    # ------------------------------------------------------------------ processes

    def start(self, member: str, *, kill_at: str = "", freeze_at: str = "") -> Any:
        environment = {"STREAMAD_MEMBER": member, KILL_AT: kill_at, FREEZE_AT: freeze_at}
        process = FORKS.Process(
            target=run_and_freeze if freeze_at else run,
            args=(self.config, self.settings),
            kwargs={"environment": environment},
        )
        process.start()
        self.started.append(process)
        return process

    def close(self) -> None:
        self._log.close()
        for process in self.started:
            if process.is_alive():
                process.kill()
            process.join()

    # ------------------------------------------------------------------ in

    def feed(self, topic: str, phase: Phase) -> None:
        """Write findings of one pipeline, and note them with the time the broker gave them."""
        with closing(plain_producer(self.settings)) as producer:
            sent = []
            for partition, one in phase:
                event = cloudevents.encode(one)
                future = producer.send(
                    topic, key=event.key, value=event.value, headers=list(event.headers),
                    partition=partition,
                )  # fmt: skip
                sent.append((partition, one, future))
            producer.flush()
        assert all(future.succeeded() for _, _, future in sent)
        for partition, one, future in sent:
            self.fed[partition].append((one, future.value.timestamp))

    def worked_off(self, topic: str) -> bool:
        for source, (_, after) in self._log.bounds(topic).items():
            done = self._log.committed(source)
            if after and (done is None or done[0] < after):
                return False
        return True

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
            time.sleep(0.2)

    # ------------------------------------------------------------------ out

    def written(self, role: Any) -> dict[str, bytes]:
        return by_id(read(self.settings, self.config.topic(role)))

    def expected(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Judge what was fed in memory, a desk per partition number: the calm single member."""
        desk = Desk(self.config)
        alerts: list[Alert] = []
        incidents: list[Incident] = []
        for fed in self.fed:
            out = desk.process(desk.new_state(), fed)
            alerts += out.alerts
            incidents += out.incidents
        return (
            {f"{one.id}-{one.sequence}": cloudevents.encode(one).value for one in alerts},
            {f"{one.id}-{one.sequence}": cloudevents.encode(one).value for one in incidents},
        )

    def check(self, *, paged: int, merged_pipelines: bool) -> None:
        alerts, incidents = self.expected()
        bodies = [orjson.loads(value) for value in incidents.values()]
        assert len({one["id"] for one in bodies if one["paged_ms"]}) >= paged, "a weak test"
        assert any(one["withheld"] for one in bodies), "a weak test"
        assert any(len(one["pipelines"]) > 1 for one in bodies) == merged_pipelines, "a weak test"
        assert self.written("alerts") == alerts
        assert self.written("incidents") == incidents


@pytest.fixture
def site(kafka: Any) -> Iterator[Site]:
    made = Site(kafka.bootstrap)
    yield made
    made.close()


def phases(seed: int, *, n: int, episodes: int, pipelines: int = 2) -> Iterator[tuple[int, Phase]]:
    """Yield the findings of one pipeline after another: episodes of many entities and tenants.

    Episodes begin in one phase, and continue and end in later ones of their pipeline.
    """
    rng = np.random.default_rng(seed)
    running: list[list[tuple[int, Finding]]] = [[] for _ in range(pipelines)]
    at_ms, number = 1_700_000_000_000, 0
    for phase in range(n + 2 * pipelines):
        pipeline = phase % pipelines
        made: Phase = []
        waiting: list[tuple[int, Finding]] = []
        for partition, last in running[pipeline]:
            at_ms += 500
            over = phase >= n or rng.random() < 0.6
            grown = last.peak_p_value * 10.0 ** -float(rng.integers(0, 2))
            newer = {
                "sequence": last.sequence + 1, "state": "ended" if over else "continues",
                "window_end_ms": at_ms, "until_ms": at_ms, "n_windows": last.n_windows + 1,
                "peak_p_value": grown, "p_value": 0.3 if over else grown,
            }  # fmt: skip
            one = Finding(**{name: getattr(last, name) for name in last.__slots__} | newer)
            made.append((partition, one))
            if not over:
                waiting.append((partition, one))
        for _ in range(episodes if phase < n else 0):
            at_ms, number = at_ms + 500, number + 1
            tenant, host = int(rng.integers(TENANTS)), int(rng.integers(HOSTS))
            one = finding(
                f"host-{host}/m{rng.integers(3)}", at_ms, 3 + 3 * float(rng.random()),
                id=f"{number:032x}", tenant=f"t{tenant}", group=f"team-{host}",
                pipeline=("hosts", "logins")[pipeline],
                detector=("robust_z", "rare")[pipeline],
            )  # fmt: skip
            made.append((tenant % PARTITIONS, one))
            waiting.append((tenant % PARTITIONS, one))
        running[pipeline] = waiting
        yield pipeline, made


def test_a_member_that_dies_again_and_again_leaves_no_trace(site: Site):
    """At each step of its work in turn, while the other member works on."""
    steps = ("after_produce", "after_score", "after_commit", "after_poll")
    calm = site.start("a")
    for number, (pipeline, phase) in enumerate(phases(1, n=6, episodes=150)):
        dies = site.start("b", kill_at=f"alert.{steps[number % len(steps)]}:{1 + number // 4}")
        site.feed(site.topics[pipeline], phase)

        def dead_or_done(dies: Any = dies, topic: str = site.topics[pipeline]) -> bool:
            return not dies.is_alive() or site.worked_off(topic)

        site.until(dead_or_done, "a death")
        dies.kill()
        dies.join()
        comes_back = site.start("b")
        # Before the other pipeline's findings: the order between two topics is nobody's promise.
        site.until(lambda at=pipeline: site.worked_off(site.topics[at]), "a phase")
        comes_back.kill()
        comes_back.join()
    assert calm.is_alive()
    site.check(paged=8, merged_pipelines=True)


@pytest.mark.parametrize("step", ["after_produce", "after_score"])
def test_a_member_that_is_frozen_while_the_other_takes_over_writes_nothing_twice(
    site: Site, step: str
):
    """The worst time: its transaction is open, and its partitions move before it ends."""
    frozen = site.start("a", freeze_at=f"alert.{step}:5")
    backlog = [one for _, phase in phases(3, n=12, episodes=400, pipelines=1) for one in phase]
    for at in range(0, len(backlog), 400):
        site.feed(site.topics[0], backlog[at : at + 400])
    site.until(lambda: is_stopped(frozen.pid), "the freeze")
    other = site.start("b")
    time.sleep(9)  # its session and its transaction end
    os.kill(frozen.pid, signal.SIGCONT)
    site.until(lambda: site.worked_off(site.topics[0]), "all findings")
    assert frozen.is_alive()
    for process in (frozen, other):
        process.terminate()
        process.join(30)
        assert process.exitcode == 0
    site.check(paged=8, merged_pipelines=False)


def test_members_come_and_go_while_both_work(site: Site):
    """Partitions are given up and taken over with a desk in the middle of its work."""
    first = site.start("a")
    stop, rounds = threading.Event(), [0]

    def come_and_go() -> None:
        while not stop.is_set():
            process = site.start("b")
            stop.wait(5)
            process.terminate()
            process.join(30)
            assert process.exitcode == 0
            rounds[0] += 1

    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    try:
        for pipeline, phase in phases(4, n=6, episodes=150):
            site.feed(site.topics[pipeline], phase)
            site.until(lambda at=pipeline: site.worked_off(site.topics[at]), "a phase")
            time.sleep(0.5)
    finally:
        stop.set()
        visitor.join()
    assert rounds[0] >= 2
    first.terminate()
    first.join(30)
    assert first.exitcode == 0
    site.check(paged=8, merged_pipelines=True)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
