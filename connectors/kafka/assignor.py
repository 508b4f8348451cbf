"""Who gets which partition: cooperative and sticky, and deaf to members that speak of the past.

A member tells which partitions it owns when it joins, and the leader gives to another only what
its owner has let go. The client's assignor neither says how old such a claim is nor forgets it when
the group throws the member out. A member that was frozen and comes back then claims what another
has been working on since, is given it at once, and reads a committed offset the true owner is about
to move: what that one had not committed is written twice. So a claim carries the generation it
comes from (as Java's client does since KIP-792), and only the newest counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)
from kafka.structs import TopicPartition


class CurrentOwnersAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """The client's assignor, with claims that say which generation of the group they are from.

    It keeps the name, so that members of both kinds may meet in one group while jobs are renewed; a
    claim without a generation counts as older than any other.
    """

    # The version of the subscription that has a generation.
    version = 2

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolSubscription:
        """Return what this member says of itself when it joins."""
        said = super().metadata(topics)
        said.generation_id = self.generation
        return said

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, Any]:
        """Return the assignment of each member id, by the claims that still hold."""
        _believe_newest(members)
        assignment: dict[str, Any] = super().assign(cluster, members)
        return assignment


class TogetherAssignor(CurrentOwnersAssignor):
    """Partitions of equal number, of all topics, go to one member: what one desk has to see.

    One topic, that with most partitions, is dealt with as ever, and the others follow it; further
    partitions of a topic than that has go by the remainder. Whatever another member still owns is
    given once it was let go.
    """

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, Any]:
        """Return the assignment of each member id."""
        common = set.intersection(*(set(member.metadata.topics) for member in members))
        numbers = {
            topic: cluster.partitions_for_topic(topic) or set()
            for topic in sorted({t for member in members for t in member.metadata.topics})
        }
        if not any(numbers[topic] for topic in common):
            # While jobs are renewed, members may have nothing in common.
            return super().assign(cluster, members)
        first = max(sorted(common), key=lambda topic: len(numbers[topic]))
        _believe_newest(members)
        owners = {part: one.member_id for one in members for part in _claims(one.metadata)}
        led = super().assign(cluster, [_narrowed(one, first) for one in members])
        made = {}
        for member in members:
            own = {part.partition for part in led[member.member_id].partitions()}
            kept: dict[str, list[int]] = defaultdict(list)
            for topic in sorted(member.metadata.topics):
                for number in sorted(numbers[topic]):
                    owner = owners.get(TopicPartition(topic, number), member.member_id)
                    if number % len(numbers[first]) in own and owner == member.member_id:
                        kept[topic].append(number)
            made[member.member_id] = ConsumerProtocolAssignment(
                self.version, sorted(kept.items()), b""
            )
        return made


def _narrowed(member: Any, topic: str) -> Any:
    """Return a member as if it read this topic alone."""
    said = member.metadata
    owned = [one for one in said.owned_partitions or () if one.topic == topic]
    return SimpleNamespace(
        member_id=member.member_id,
        metadata=SimpleNamespace(
            topics=[topic], owned_partitions=owned, generation_id=said.generation_id
        ),
    )


def _believe_newest(members: Sequence[Any]) -> None:
    """Leave of each claim on a partition the newest alone."""
    newest: dict[TopicPartition, tuple[int, int]] = {}
    for number, member in enumerate(members):
        for part in _claims(member.metadata):
            said = (member.metadata.generation_id, number)
            newest[part] = max(newest.get(part, said), said)
    for number, member in enumerate(members):
        for topic in member.metadata.owned_partitions or ():
            topic.partitions = [
                partition
                for partition in topic.partitions
                if newest[TopicPartition(topic.topic, partition)][1] == number
            ]


def _claims(metadata: Any) -> list[TopicPartition]:
    return [
        TopicPartition(topic.topic, partition)
        for topic in metadata.owned_partitions or ()
        for partition in topic.partitions
    ]
