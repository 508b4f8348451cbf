"""The member in memory keeps the contract of members; Kafka's does in `tests/integration`."""

from __future__ import annotations

import pytest

from connectors.memory import MemoryMember, MemoryTopics
from streamad.testing.members import Bench, Check, yield_member_checks


@pytest.mark.parametrize("check", list(yield_member_checks()), ids=lambda one: one.__name__)
def test_the_member_in_memory(check: Check):
    topics = MemoryTopics()
    topics.make("in", 2)
    topics.make("out", 1)
    check(
        Bench(
            input="in",
            output="out",
            put=topics.put,
            join=lambda: MemoryMember(log=topics, topics=["in"]),
            expel=MemoryMember.fence,
            log=topics,
        )
    )
