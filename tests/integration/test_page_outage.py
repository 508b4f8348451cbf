"""Ten minutes of a pager that is down, with deaths and jumps of the clock, on a real Kafka.

Time of the page job runs faster than ours: its back-off, not its requests, is what takes long.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from statistics import median

import pytest

from jobs.plain import page
from jobs.plain.run import KILL_AT
from streamad.alerting.config import AlertingConfig
from streamad.runtime.placing import Clock
from streamad.testing.pager_server import PagerServer
from tests.integration.conftest import FORKS
from tests.integration.test_page_kill import KEY, Paging, lives, once_each, until

SCALE = float(os.environ.get("STREAMAD_TEST_OUTAGE_SCALE", "40"))
"""How much faster the page job's time runs; 1 is real time."""
OUTAGE_S = 600.0 / SCALE
STEPS = ["after_poll", "before_send", "after_send", "after_produce", "after_commit"]
LATE_STEPS = ["after_send", "after_produce"]
"""Passed with an answer in hand that is not committed."""
DAY_MS = 86_400_000
JUMPS_MS = [30 * 60_000, -40 * DAY_MS, 0, -3_600_000, 45 * 60_000]
"""Of the wall clock at each start; ahead by less than ``max_age``, which would be a long stop."""


def serve(config, settings, environment, shift_ms):
    page.CLOCK = Clock(
        seconds=lambda: time.monotonic() * SCALE,
        wall_ms=lambda: time.time_ns() // 1_000_000 + shift_ms.value,
    )
    page.run_page(config, settings, environment=environment)


class Outage(Paging):
    """Receivers that fail, one that never does, and a clock that jumps."""

    def __init__(self, bootstrap: str, server: PagerServer, steady: PagerServer) -> None:
        super().__init__(bootstrap, server, ("pagerduty", "webhook", "slack"))
        sure = {**self.tree["pagers"][0], "name": "steady", "url": f"{steady.url}/v2/enqueue"}
        self.tree["pagers"].append(sure)
        self.config = AlertingConfig.model_validate(self.tree)
        self.steady, self.shift_ms = steady, FORKS.Value("q", 0)
        self.put_s: dict[str, float] = {}
        self.process = None
        self.deaths = 0

    def put(self, *records) -> None:
        now_s = time.monotonic()
        self.put_s |= {KEY + one.id: now_s for one in records if one.state == "opened"}
        super().put(*records)

    def start(self, kill_at: str = "", *, member: str = "m"):
        self.process = FORKS.Process(
            target=serve,
            args=(
                self.config, self.settings, {"STREAMAD_MEMBER": member, KILL_AT: kill_at},
                self.shift_ms,
            ),
        )  # fmt: skip
        self.process.start()
        self.started.append(self.process)
        return self.process

    def die(self, kill_at: str, life) -> None:
        """Live until a step is passed, with something to do."""
        process = self.start(f"page.{kill_at}")
        self.put(*life)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{kill_at} was never passed"
        self.deaths += 1

    def delays_s(self, lives_) -> list[float]:
        """Return how long the pager that works has waited for each opening."""
        came = {one.body["dedup_key"]: one.at_s for one in reversed(self.steady.taken)
                if one.body["event_action"] == "trigger"}  # fmt: skip
        return [came[KEY + life[0].id] - self.put_s[KEY + life[0].id] for life in lives_]


@pytest.fixture
def outage(kafka):
    with PagerServer() as server, PagerServer() as steady:
        job = Outage(kafka.bootstrap, server, steady)
        yield job
        for process in job.started:
            process.kill()
            process.join()


def test_an_outage_with_deaths_and_clock_jumps_loses_no_page(outage):
    server, steady = outage.server, outage.steady
    calm = _calm(outage)
    began_s = time.monotonic()
    hit = _down_in_all_ways(outage, calm)
    quiet_s, hit_s = outage.delays_s(calm[1:]), outage.delays_s(hit)
    os.kill(outage.process.pid, signal.SIGKILL)
    outage.process.join()
    dying = lives(len(STEPS) + len(LATE_STEPS))
    for step, jump_ms, life in zip(STEPS, JUMPS_MS, dying, strict=False):
        outage.shift_ms.value = jump_ms
        outage.die(f"{step}:3", life)
    while time.monotonic() < began_s + OUTAGE_S:
        time.sleep(0.1)
    minutes = (time.monotonic() - began_s) * SCALE / 60
    server.recover()
    outage.shift_ms.value = 0
    for step, life in zip(LATE_STEPS, dying[len(STEPS) :], strict=True):
        outage.die(f"{step}:2", life)
    every = [*calm, *hit, *dying]
    _back(outage, every)
    # Once each, in order, none lost.
    for one in (server, steady):
        once_each(one, [life[0].id for life in every])
    _same_at_every_attempt(server)
    # Where nothing deduplicates, a page comes again once for each answer that was lost.
    assert len(every) <= len(server.messages) <= len(every) + outage.deaths + 12
    assert outage.letters() == []
    print(  # noqa: T201
        f"{len(every)} incidents, {outage.deaths} deaths, {minutes:.0f} minutes down; the other "
        f"pager had each after {median(quiet_s):.3f} s before, {median(hit_s):.3f} s during it "
        f"(at most {max(hit_s):.3f} s); Slack: {len(server.messages)} messages"
    )
    assert median(hit_s) < max(2.0, 3 * median(quiet_s))


def _calm(outage):
    """Send incidents while nothing is wrong."""
    outage.start()
    calm, open_of = lives(5), outage.steady.pagerduty
    for number, life in enumerate(calm, 1):
        # The first is new to the topic: what comes from now on is to be paged.
        outage.put(*life)
        until(lambda number=number: len(open_of.resolved) == number, "it works")
    until(lambda: len(outage.server.pagerduty.resolved) == len(calm), "it works")
    return calm


def _down_in_all_ways(outage, calm):
    """Have receivers fail, and the wall clock jump, while the process lives on."""
    server, hit = outage.server, []
    for number, mode in enumerate(["down", "429", "500", "garbage", "hang", "no_answer"]):
        attempts = server.attempts
        if mode == "down":
            server.down()
        else:
            server.fail(mode)
        outage.shift_ms.value = (-1) ** number * 400 * DAY_MS
        for life in lives(2):
            outage.put(*life)
            hit.append(life)
        if mode == "down":
            time.sleep(OUTAGE_S / 12)
            server.up()
        else:
            until(lambda n=attempts: server.attempts >= n + 3, f"{mode} is met")
        # Down again at once.
        server.recover()
        server.fail("500")
    known = len(calm) + len(hit)
    until(lambda: len(outage.steady.pagerduty.resolved) == known, "the other pager has all")
    return hit


def _back(outage, every):
    """Start again, wait until all receivers have all, and stop in order."""
    server = outage.server
    outage.start()
    wanted = Counter({KEY + life[0].id: 1 for life in every})
    until(lambda: server.pagerduty.resolved == wanted, "PagerDuty has all", 90)
    changes = {f"{one.id}-{one.sequence}" for life in every for one in (life[0], life[2])}
    until(lambda: changes <= _shown(server.webhooks), "webhooks have all", 90)
    until(lambda: _n_over(server.messages.values()) >= len(every), "Slack has all", 90)
    until(lambda: outage.steady.pagerduty.resolved == wanted, "the other pager has all", 90)
    until(lambda: outage.known() == {}, "what is over is forgotten")
    outage.process.terminate()
    outage.process.join(20)
    assert outage.process.exitcode == 0


def _shown(webhooks):
    return {name.rsplit("-", 1)[0] for name in webhooks}


def _n_over(messages):
    texts = [one[-1]["blocks"][0]["text"]["text"] for one in messages]
    return sum("RESOLVED" in text for text in texts)


def _same_at_every_attempt(server):
    """Check that whoever keeps ids sees each change of an incident once, and in order."""
    bodies: dict[str, dict] = {}
    for one in server.taken:
        if one.path.startswith("/hook"):
            name = one.headers["webhook-id"]
            assert bodies.setdefault(name, one.body) == one.body
    order: dict[str, list[int]] = {}
    for name in bodies:
        incident, sequence, _ = name.rsplit("-", 2)
        order.setdefault(incident, []).append(int(sequence))
    assert all(numbers == sorted(numbers) for numbers in order.values())
