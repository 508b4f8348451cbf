"""Topics in memory behave as Kafka's: offsets, progress, transactions, retention."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.memory import MemoryMember, MemoryTopics
from streamad.errors import MembershipError
from streamad.ports import Outgoing, Progress, Source

SOURCE = Source("in", 0)


def member(topics: MemoryTopics) -> MemoryMember:
    new = MemoryMember(log=topics, topics=["in"], max_records=2)
    for source in new.assigned():
        progress = new.committed(source)
        new.place(source, progress.offset if progress else 0)
    return new


def test_records_are_read_in_order_and_what_is_not_committed_is_read_again():
    topics = MemoryTopics()
    topics.put(SOURCE, [b"a", b"b", b"c"], broker_ms=7)
    first = member(topics)
    (messages,) = first.poll(0)
    assert (messages.payloads, messages.offsets.tolist()) == ([b"a", b"b"], [0, 1])
    assert messages.broker_ms.tolist() == [7, 7]
    assert first.end_reached(SOURCE) is None
    first.commit([], {SOURCE: Progress(offset=1, note="n")})
    second = member(topics)
    assert second.committed(SOURCE) == Progress(offset=1, note="n")
    assert second.poll(0)[0].payloads == [b"b", b"c"]
    assert second.end_reached(SOURCE) == 3
    assert second.poll(0) == []


def test_a_fenced_member_writes_nothing():
    topics = MemoryTopics()
    topics.put(SOURCE, [b"a"])
    fenced = member(topics)
    fenced.fence()
    with pytest.raises(MembershipError):
        fenced.commit([Outgoing(topic="out", value=b"x")], {SOURCE: Progress(offset=1)})
    assert topics.records("out") == []
    assert fenced.committed(SOURCE) is None


def test_a_key_always_lands_in_one_partition_and_commits_return_offsets():
    topics = MemoryTopics(partitions=4)
    out = [Outgoing(topic="out", value=bytes([i]), key=b"k") for i in range(3)]
    topics.put(SOURCE, [])
    assert member(topics).commit(out, {}) == [0, 1, 2]
    used = [stop for _, stop in topics.bounds("out").values() if stop]
    assert used == [3]


def test_retention_moves_the_first_offset():
    topics = MemoryTopics(capacity=2)
    topics.put(SOURCE, [b"a", b"b", b"c"])
    assert topics.bounds("in") == {SOURCE: (1, 3)}
    (messages,) = topics.read(SOURCE, 0, 3)
    assert messages.offsets.tolist() == [1, 2]
    assert messages.offsets.dtype == np.int64


def test_offsets_are_found_by_time():
    topics = MemoryTopics()
    topics.put(SOURCE, [b"a"], broker_ms=10)
    topics.put(SOURCE, [b"b"], broker_ms=20)
    assert [topics.offset_at(SOURCE, t) for t in (0, 11, 21)] == [0, 1, 2]


def test_compaction_leaves_the_last_of_each_key_and_no_tombstones():
    topics = MemoryTopics()
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None)):
        topics.write(Outgoing(topic="out", key=key, value=value))
    assert {key: record.value for key, record in topics.compacted("out").items()} == {b"a": b"2"}
