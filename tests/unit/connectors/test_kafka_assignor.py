"""Who gets a partition that two members claim."""

from __future__ import annotations

from types import SimpleNamespace

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
    monkeypatch.setattr(kafka, "guard", lambda consumer, *, columns: consumer)
    options = kafka.group_consumer(kafka.KafkaSettings(), group="g", member="m", max_poll_records=1)
    assert options["partition_assignment_strategy"] == [CurrentOwnersAssignor]
    options = kafka.group_consumer(
        kafka.KafkaSettings(), group="g", member="m", max_poll_records=1, together=True
    )
    assert options["partition_assignment_strategy"] == [TogetherAssignor]


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


class Together:
    """Members of the alert role: two topics of findings and one of feedback."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.owned: dict[str, dict[str, list[int]]] = {}
        self.generation = 0

    def rebalance(self, *present: str, topics: str = "abf") -> dict[str, set[str]]:
        pairs = ConsumerProtocolSubscription.TopicPartition
        joined = [
            SimpleNamespace(
                member_id=name,
                metadata=ConsumerProtocolSubscription(
                    version=2,
                    topics=[topic for topic in topics if topic in self.counts],
                    user_data=b"",
                    owned_partitions=[
                        pairs(topic=topic, partitions=list(numbers))
                        for topic, numbers in self.owned.get(name, {}).items()
                    ],
                    generation_id=self.generation,
                ),
            )
            for name in present
        ]
        cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(range(self.counts[topic])),
            topics=lambda: set(self.counts),
        )
        given = TogetherAssignor().assign(cluster, joined)
        self.generation += 1
        for name, one in given.items():
            assigned = ConsumerProtocolAssignment.decode(one.encode()).partitions()
            self.owned[name] = {}
            for part in assigned:
                self.owned[name].setdefault(part.topic, []).append(part.partition)
        return {
            name: {f"{topic}{n}" for topic, numbers in own.items() for n in numbers}
            for name, own in self.owned.items()
            if name in present
        }


def test_partitions_of_equal_number_are_one_members():
    group = Together(a=1, f=1)
    group.rebalance("x", "y")
    assert sorted(map(len, group.rebalance("x", "y").values())) == [0, 2]

    group = Together(a=4, b=4, f=4)
    assert len(group.rebalance("x")["x"]) == 12
    first = group.rebalance("x", "y")
    assert first["y"] == set(), "not before they are let go"
    second = group.rebalance("x", "y")
    for own in second.values():
        numbers = {name[1] for name in own}
        assert own == {f"{topic}{number}" for topic in "abf" for number in numbers}
        assert len(numbers) == 2
    assert group.rebalance("y", "x") == second


def test_what_was_spread_before_comes_together_in_two_rounds():
    group = Together(a=2, f=2)
    group.owned = {"x": {"a": [0], "f": [1]}, "y": {"a": [1], "f": [0]}}
    first = group.rebalance("x", "y")
    assert first == {"x": {"a0"}, "y": {"a1"}}, "each is still at work on the other's"
    assert group.rebalance("x", "y") == {"x": {"a0", "f0"}, "y": {"a1", "f1"}}


def test_a_topic_with_fewer_partitions_is_read_as_a_whole():
    group = Together(a=3, f=1)
    group.rebalance("x", "y")
    both = group.rebalance("x", "y")
    assert set.union(*both.values()) == {"a0", "a1", "a2", "f0"}
    (owner,) = (name for name, own in both.items() if "f0" in own)
    assert "a0" in both[owner]
