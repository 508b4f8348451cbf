"""A desk is taken over while its last owner's transaction is open: what that holds is not lost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from connectors.memory import MemoryMember, MemoryTopics
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.cloudevents import encode
from streamad.alerting.config import AlertingConfig
from streamad.paging.desk import Desk
from streamad.ports import Outgoing, Progress, Source
from streamad.runtime.alert import AlertLoop
from streamad.runtime.placing import Clock
from tests.unit.paging.made import NOON, ended, finding

A, B = "streamad.a.findings", "streamad.b.findings"
CONFIG = AlertingConfig.model_validate(
    {"name": "shop", "findings": [A, B], "alerts": {"max_age": "36500d"}}
)


@dataclass(slots=True, kw_only=True)
class OpenMember(MemoryMember):
    """A member whose records and progress are seen by others once they ask for that progress.

    So a broker answers that is asked for offsets while a transaction on them is open: it waits
    until the transaction has ended.
    """

    under_way: list[tuple[list[Outgoing], dict[Source, Progress]]] = field(default_factory=list)

    def commit(self, records, progress):
        self.under_way.append((list(records), dict(progress)))


@dataclass(slots=True, kw_only=True)
class NextMember(MemoryMember):
    last: OpenMember

    def committed(self, source: Source) -> Progress | None:
        for records, progress in list(self.last.under_way):
            if source in progress:
                self.last.under_way.remove((records, progress))
                MemoryMember.commit(self, records, progress)
        return MemoryMember.committed(self, source)


def loop(member: MemoryMember, topics: MemoryTopics) -> AlertLoop:
    seconds = itertools.count()
    return AlertLoop(
        CONFIG,
        Desk(CONFIG),
        member=member,
        records=KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: NOON),
        clock=Clock(seconds=lambda: float(next(seconds)), wall_ms=lambda: NOON),
    )


def test_what_is_under_way_of_one_topic_is_waited_for_before_the_desk_is_read():
    topics = MemoryTopics()
    for name in (state_topic(CONFIG), *CONFIG.read, CONFIG.topic("alerts")):
        topics.make(name)
    one = finding("web-1/cpu")

    def write(found) -> None:
        event = encode(found)
        topics.write(Outgoing(topic=B, key=event.key, value=event.value, headers=event.headers))

    write(one)
    # The last owner could not place the other topic yet: its transaction is of this one alone.
    last = OpenMember(log=topics, topics=[B], group="alert")
    first = loop(last, topics)
    for _ in range(4):
        first.turn(0)
    assert any(progress for _, progress in last.under_way)
    assert not topics.records(CONFIG.topic("alerts"))

    write(ended(one, 60_000))
    second = loop(NextMember(log=topics, topics=CONFIG.read, group="alert", last=last), topics)
    for _ in range(4):
        second.turn(0)
    second.drain()
    states = [record.headers for record in topics.records(CONFIG.topic("alerts"))]
    types = [dict(headers)["ce_type"].decode().split(".")[3] for headers in states]
    assert types == ["opened", "resolved"]
