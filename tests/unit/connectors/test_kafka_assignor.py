"""Who gets a partition that two members claim."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import ClassVar

import pytest
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)

from connectors.kafka import client as kafka
from connectors.kafka.assignor import CurrentOwnersAssignor, TogetherAssignor

PARTITIONS = range(4)


class Group:
    """Members that join with what went over the wire."""

    def __init__(self, kind: type[CooperativeStickyAssignor] = CurrentOwnersAssignor) -> None:
        self.kind = kind
        self.members: dict[str, CooperativeStickyAssignor] = {}
        self.generation = 0

    def rebalance(self, *present: str) -> dict[str, set[int]]:
        """Let these join, in this order; return what each is given."""
        joined = [
            SimpleNamespace(
                member_id=name,
                metadata=ConsumerProtocolSubscription.decode(
                    self.members.setdefault(name, self.kind()).metadata({"in"}).encode()
                ),
            )
            for name in present
        ]
        topics = SimpleNamespace(
            partitions_for_topic=lambda _: set(PARTITIONS), topics=lambda: {"in"}
        )
        given = self.kind().assign(topics, joined)
        self.generation += 1
        made = {}
        for name, assignment in given.items():
            decoded = ConsumerProtocolAssignment.decode(assignment.encode())
            self.members[name].on_assignment(decoded, self.generation)
            made[name] = {part.partition for part in decoded.partitions()}
        return made


def test_members_of_the_plain_job_are_placed_by_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka, "KafkaConsumer", lambda **options: options)
    monkeypatch.setattr(kafka, "guard", lambda consumer: consumer)
    options = kafka.group_consumer(kafka.KafkaSettings(), group="g", member="m", max_poll_records=1)
    assert options["partition_assignment_strategy"] == [CurrentOwnersAssignor]


def test_partitions_move_in_two_rounds():
    group = Group()
    assert group.rebalance("a") == {"a": {0, 1, 2, 3}}
    first = group.rebalance("a", "b")
    assert len(first["a"]) == 2
    assert first["b"] == set()
    second = group.rebalance("a", "b")
    assert second["a"] == first["a"]
    assert second["b"] == set(PARTITIONS) - first["a"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_nobody_is_given_what_its_owner_has_not_let_go(order):
    group = Group()
    group.rebalance("a")
    group.rebalance("a", "b")
    group.rebalance("a", "b")
    # `a` is frozen and thrown out, all is given to `b`; then `a` is back and claims its old share.
    assert group.rebalance("b") == {"b": {0, 1, 2, 3}}
    back = group.rebalance(*order)
    assert back["a"] == set(), "it is still at work at `b`"
    assert len(back["b"]) == 2
    settled = group.rebalance(*order)
    assert settled["b"] == back["b"]
    assert settled["a"] == set(PARTITIONS) - back["b"]


def test_a_member_of_before_is_believed_less_than_one_that_says_its_generation():
    group = Group()
    group.members["old"] = CooperativeStickyAssignor()
    group.rebalance("old")
    group.rebalance("new")
    assert group.rebalance("new", "old")["old"] == set()


def test_a_claim_that_nobody_disputes_holds():
    group = Group()
    group.rebalance("a", "b")
    before = group.rebalance("a", "b")
    assert group.rebalance("b", "a") == before


class Topics(Group):
    """Members that read two topics, one of which may have fewer partitions."""

    counts: ClassVar = {"a.findings": 4, "b.findings": 4, "feedback": 3}

    def rebalance_all(self, *present: str) -> dict[str, dict[str, set[int]]]:
        joined = [
            SimpleNamespace(
                member_id=name,
                metadata=ConsumerProtocolSubscription.decode(
                    self.members.setdefault(name, self.kind()).metadata(set(self.counts)).encode()
                ),
            )
            for name in present
        ]
        cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(range(self.counts[topic])),
            topics=lambda: set(self.counts),
        )
        given = self.kind().assign(cluster, joined)
        self.generation += 1
        made: dict[str, dict[str, set[int]]] = {}
        for name, assignment in given.items():
            decoded = ConsumerProtocolAssignment.decode(assignment.encode())
            self.members[name].on_assignment(decoded, self.generation)
            made[name] = {topic: set() for topic in self.counts}
            for part in decoded.partitions():
                made[name][part.topic].add(part.partition)
        return made


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_partitions_of_equal_number_are_never_at_two_members(order: tuple[str, ...]):
    group = Topics(TogetherAssignor)
    for present in (order[:1], order[:2], order[:2], order, order, order, order[1:], order[1:]):
        made = group.rebalance_all(*present)
        for topic, other in itertools.permutations(Topics.counts, 2):
            for one, two in itertools.permutations(present, 2):
                assert not made[one][topic] & made[two][other], made
    for topic, n in Topics.counts.items():
        assert set().union(*(made[name][topic] for name in order[1:])) == set(range(n)), made
