"""Two members of one desk group: killed, rebalanced, under load, they decide as one undisturbed."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaProducer

from connectors.feedback import give
from connectors.kafka.admin import make_topics
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.records import cloudevents
from connectors.records.alerts import KafkaAlertRecords
from jobs.desk.reading import budgets_of
from jobs.plain.run import KILL_AT, run
from jobs.plain.topics import Topic, create_topics
from streamad.alerting.config import AlertingConfig
from streamad.incidents import ALL_TENANTS, Incident, Silence
from streamad.paging.budget import SPENT
from streamad.paging.desk import Desk
from streamad.records import Alert
from tests.integration.conftest import FORKS, read
from tests.integration.test_page_kill import until
from tests.unit.paging.test_answers import finding

PARTITIONS = 4
TENANTS = [f"tenant-{n}" for n in range(6)]
PAUSE_S = 0.8


class Group:
    """An alerting of its own over two pipelines' findings, and members that may die."""

    def __init__(self, bootstrap: str) -> None:
        name = f"g{uuid.uuid4().hex[:10]}"
        self.findings = (f"streamad.{name}-a.findings", f"streamad.{name}-b.findings")
        self.config = AlertingConfig.model_validate({
            "name": name, "findings": self.findings,
            "incidents": {"links": ["host"], "update_every": "1ms"},
            "budget": {"groups": {"paid": "1 per week"}, "soak": "1ms"},
            "alerts": {"limit": {"per_group": 10_000, "per_key": 10_000}},
            "delivery": {"commit_interval": "30ms", "transaction_timeout": "30s"},
        })  # fmt: skip
        self.settings = KafkaSettings(bootstrap=bootstrap, session_timeout_ms=8_000)
        make_topics(self.settings, [Topic(name=t, partitions=PARTITIONS) for t in self.findings])
        create_topics(self.config, self.settings)
        self.started: dict[str, object] = {}
        self.deaths = 0

    def start(self, member: str, kill_at: str = "") -> None:
        process = FORKS.Process(
            target=run,
            args=(self.config, self.settings),
            kwargs={"role": "alert", "environment": {"STREAMAD_MEMBER": member, KILL_AT: kill_at}},
        )
        process.start()
        self.started[member] = process

    def died(self, member: str) -> bool:
        process = self.started[member]
        if process.is_alive():
            return False
        process.join()
        assert process.exitcode == -9
        self.deaths += 1
        return True

    def stop(self) -> None:
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            process.join(30)
            assert process.exitcode == 0

    def done(self) -> bool:
        """Return whether all findings and answers are committed."""
        with closing(KafkaLog(self.settings, group=f"streamad.{self.config.name}.alert")) as log:
            for topic in self.config.read:
                for source in log.bounds(topic):
                    records = read(self.settings, topic, source.partition)
                    known = log.committed(source)
                    if records and (known is None or known[0] <= records[-1].offset):
                        return False
        return True

    def spent(self) -> Counter[str]:
        """Return the pages of each group, as the desks have them in their state."""
        with closing(KafkaLog(self.settings, group="budgets")) as log:
            known = budgets_of(log, self.config)
        return Counter({
            name: sum(day.ledger[SPENT] for one in parts for day in one.days.values())
            for name, parts in known.items()
        })  # fmt: skip

    # ------------------------------------------------------------------ what was decided

    def written(self) -> tuple[list[Alert], list[Incident]]:
        """Return what the members wrote, each record once."""
        found = []
        for role in ("alerts", "incidents"):
            records = read(self.settings, self.config.topic(role))
            ids = Counter(dict(one.headers)["ce_id"] for one in records)
            assert max(ids.values()) == 1, "a record was written twice"
            found.append([cloudevents.decode(one.value, one.headers) for one in records])
        return found[0], [one for one in found[1] if isinstance(one, Incident)]

    def undisturbed(self) -> tuple[list[Alert], list[Incident], Counter[str]]:
        """Decide the same log in memory, at one desk per partition; return also pages, a group."""
        alerts, incidents, spent = [], [], Counter()
        with closing(KafkaLog(self.settings, group="calm")) as log:
            records = KafkaAlertRecords(self.config, log, wall_ms=lambda: 0)
            for number in range(PARTITIONS):
                desk = Desk(self.config)
                state = desk.new_state()
                logged = []
                for topic in self.config.read:
                    for source, (first, stop) in log.bounds(topic).items():
                        if source.partition != number:
                            continue
                        for messages in log.read(source, first, stop):
                            answers = topic not in self.findings
                            one = records.answers if answers else records.findings
                            logged += [(at, answers, rec) for rec, at in one(messages)[0]]
                for at, answers, record in sorted(logged, key=lambda one: one[0]):
                    take = desk.answer if answers else desk.process
                    out = take(state, [(record, at)])
                    alerts += out.alerts
                    incidents += out.incidents
                for name, budget in state.budgets.items():
                    spent[name] += sum(day.ledger[SPENT] for day in budget.days.values())
        return alerts, incidents, spent


def decisions(alerts, incidents):
    """Return what was decided, whatever the order in which two topics were read."""
    last = {one.id: one for one in incidents}
    opened = Counter(one.id for one in incidents if one.state == "opened")
    assert opened == Counter(last.keys())
    return {
        "alerts": Counter((one.id, one.state) for one in alerts if one.state != "updated"),
        "incidents": {
            frozenset(member.alert for member in one.members): (
                one.tenant, one.paged_ms is not None, one.withheld,
            )
            for one in last.values()
        },
    }  # fmt: skip


@pytest.fixture
def group(kafka):
    made = Group(kafka.bootstrap)
    yield made
    for process in made.started.values():
        process.kill()
        process.join()


class Feeder:
    """Writes rounds of findings, each ended by the next one; a thread of its own."""

    def __init__(self, group: Group) -> None:
        self.rounds, self._group, self._stop = 0, group, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def go_on(self, rounds: int) -> None:
        """Wait until so many more rounds are written."""
        wanted = self.rounds + rounds
        until(lambda: self.rounds >= wanted, "the feeder")

    def _run(self) -> None:
        open_: list[Any] = []
        with closing(KafkaProducer(**self._group.settings.client(), linger_ms=5)) as producer:
            while open_ or not self._stop.is_set():
                begun = [] if self._stop.is_set() else load(self._group, self.rounds)
                for topic, one in [*begun, *ends(open_)]:
                    event = cloudevents.encode(one)
                    producer.send(
                        topic, key=event.key, value=event.value, headers=list(event.headers)
                    )
                producer.flush()
                self.rounds += bool(begun)
                open_ = begun
                time.sleep(PAUSE_S)


def load(group, number):
    """Write one round: episodes of each tenant, of hosts that only this round has."""
    now_ms = time.time_ns() // 1_000_000
    topic_a, topic_b = group.findings
    begun = []
    for tenant in TENANTS:
        host = f"{tenant}-{number}"
        quiet = f"quiet-{host}"
        common = {
            "tenant": tenant, "began_ms": now_ms, "until_ms": now_ms, "window_end_ms": now_ms,
            "window_start_ms": now_ms, "born_ms": now_ms - 1_000_000,
        }  # fmt: skip
        # One incident of two pipelines, one that a silence is about, one that costs budget.
        for topic, key in ((topic_a, host), (topic_b, host), (topic_a, quiet)):
            entity = {"host": key}
            begun.append((topic, finding(
                f"{topic[-10:-9]}-{key}", key=f"{key}/cpu", entity=entity,
                group=f"free-{key}", **common,
            )))  # fmt: skip
        entity = {"host": f"paid-{host}"}
        begun.append((topic_a, finding(
            f"paid-{host}", key=f"paid-{host}/cpu", entity=entity, group="paid", **common,
        )))  # fmt: skip
    return begun


def ends(begun):
    return [
        (topic, replace(one, sequence=1, state="ended", p_value=0.5, calm=True))
        for topic, one in begun
    ]


def silence_all(group):
    """Silence some series of every tenant, before there is a member."""
    now_ms = time.time_ns() // 1_000_000
    silence = Silence(
        id="s", name="quiet", matchers=('host=~"quiet-.*"',), starts_ms=now_ms - 60_000,
        ends_ms=now_ms + 3_600_000, by="ann", time_ms=now_ms, tenant=ALL_TENANTS,
    )  # fmt: skip
    give(group.settings, group.config.topic("feedback"), [silence])


def test_killed_and_rebalanced_members_decide_as_one_undisturbed(group):
    silence_all(group)
    group.start("one")
    until(group.done, "the silence is known")
    with Feeder(group) as feeder:
        group.start("two", "alert.after_produce:4")
        until(lambda: group.died("two"), "the second one dies as it commits", 120)
        group.start("two")
        feeder.go_on(3)
        group.started["one"].kill()
        until(lambda: group.died("one"), "the first one is killed")
        feeder.go_on(2)
        group.start("one", "alert.after_commit:5")
        until(lambda: group.died("one"), "it dies after a commit", 120)
    group.start("one")
    until(group.done, "all is decided", 90)
    alerts, incidents, spent = group.undisturbed()
    expected = decisions(alerts, incidents)
    assert decisions(*group.written()) == expected
    group.stop()
    assert group.spent() == spent
    assert group.deaths == 3
    # There was something to decide: two pipelines in one incident, silences, a spent budget.
    kinds = Counter(
        (len(members), paged, withheld)
        for members, (_, paged, withheld) in expected["incidents"].items()
    )
    total = feeder.rounds * len(TENANTS)
    assert kinds[2, True, ""] == total
    assert kinds[1, False, "silence: quiet"] == total
    paid = Counter(paged for members, (_, paged, _) in expected["incidents"].items()
                   if any(name.startswith("paid-") for name in members))  # fmt: skip
    assert paid.total() == len(TENANTS)
    assert 0 < paid[True] < len(TENANTS)
