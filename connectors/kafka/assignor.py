"""Who gets which partition: cooperative and sticky, and deaf to members that speak of the past.

A member tells which partitions it owns when it joins, and the leader gives to another only what
its owner has let go. The client's assignor neither says how old such a claim is nor forgets it when
the group throws the member out. A member that was frozen and comes back then claims what another
has been working on since, is given it at once, and reads a committed offset the true owner is about
to move: what that one had not committed is written twice. So a claim carries the generation it
comes from (as Java's client does since KIP-792), and only the newest counts.
"""

from __future__ import annotations

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
        _drop_old_claims(members)
        assignment: dict[str, Any] = super().assign(cluster, members)
        return assignment


class TogetherAssignor(CurrentOwnersAssignor):
    """Partitions of equal number go to one member, whatever topic they are of.

    What several topics hold of one tenant has the same partition number in each; whoever decides
    over a tenant needs all of it. The partitions of one topic (that with the most; among those the
    first by name) are placed as ever, and the others follow.
    """

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, Any]:
        """Return the assignment of each member id."""
        _drop_old_claims(members)
        topics = sorted({topic for member in members for topic in member.metadata.topics})
        found = {topic: cluster.partitions_for_topic(topic) or set() for topic in topics}
        if len(topics) < 2:
            return super().assign(cluster, members)
        lead = min(topics, key=lambda topic: (-len(found[topic]), topic))
        placed = super().assign(cluster, [_of_one_topic(member, lead) for member in members])
        owners = {part: member.member_id for member in members for part in _claims(member.metadata)}
        for member_id, assignment in placed.items():
            numbers = {part.partition for part in assignment.partitions() if part.topic == lead}
            given = {lead: numbers}
            for topic in topics:
                # What another still works on is his until he has let it go: see KIP-429.
                given[topic] = {
                    number
                    for number in numbers & found[topic]
                    if owners.get(TopicPartition(topic, number), member_id) == member_id
                }
            placed[member_id] = ConsumerProtocolAssignment(
                self.version,
                [(topic, sorted(parts)) for topic, parts in sorted(given.items()) if parts],
                b"",
            )
        return placed


def _of_one_topic(member: Any, topic: str) -> Any:
    """Return a member as if it had subscribed to one topic."""
    said = member.metadata
    owned = [one for one in said.owned_partitions or () if one.topic == topic]
    return SimpleNamespace(
        member_id=member.member_id,
        metadata=SimpleNamespace(
            topics=[topic], owned_partitions=owned, generation_id=said.generation_id
        ),
    )


def _drop_old_claims(members: Sequence[Any]) -> None:
    """Leave each partition to the newest of those who claim it."""
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
