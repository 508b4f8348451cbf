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
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
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
        assignment: dict[str, Any] = super().assign(cluster, members)
        return assignment


def _claims(metadata: Any) -> list[TopicPartition]:
    return [
        TopicPartition(topic.topic, partition)
        for topic in metadata.owned_partitions or ()
        for partition in topic.partitions
    ]
