"""What holds for every `streamad.ports.Member`: on Kafka, and for its double in memory.

A test brings a `Bench`; `yield_member_checks` gives the checks, each a function of it::

    @pytest.mark.parametrize("check", list(yield_member_checks()), ids=lambda check: check.__name__)
    def test_my_member_keeps_the_contract(bench, check):
        check(bench)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from streamad.errors import MembershipError
from streamad.ports import Log, Member, Messages, Outgoing, Progress, Source

WAIT_S = 20.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An input of two partitions, an output topic, and members of one group, one at a time.

    put : write payloads into a partition of the input; join : return a new member of the group, the
    one before has left or died; expel : let the group move on without a member; log : reads topics
    as anyone may
    """

    input: str
    output: str
    put: Callable[[Source, Sequence[bytes]], None]
    join: Callable[[], Member]
    expel: Callable[[Member], None]
    log: Log

    @property
    def first(self) -> Source:
        """Return the partition that most checks use."""
        return Source(self.input, 0)

    def written(self) -> list[bytes]:
        """Return what readers of committed records see in the output."""
        return [
            payload or b""
            for source, (first, stop) in sorted(self.log.bounds(self.output).items())
            for messages in self.log.read(source, first, stop)
            for payload in messages.payloads
        ]


Check = Callable[[Bench], None]


def yield_member_checks() -> Iterator[Check]:
    """Yield every check."""
    yield check_every_partition_comes_once
    yield check_nothing_comes_before_it_is_placed
    yield check_messages_come_in_order_from_where_they_are_placed
    yield check_a_paused_partition_is_silent_until_it_is_placed_again
    yield check_the_end_is_known_once_all_is_read
    yield check_a_commit_writes_records_and_progress
    yield check_an_empty_commit_moves_progress_alone
    yield check_the_next_member_goes_on_where_the_last_one_committed
    yield check_what_was_read_and_not_committed_is_read_again
    yield check_who_is_no_member_writes_nothing


def check_every_partition_comes_once(bench: Bench) -> None:
    """Partitions stand in `assigned` once each."""
    member = bench.join()
    assert _assigned(member, 2) == {Source(bench.input, 0), Source(bench.input, 1)}
    assert member.assigned() == []


def check_nothing_comes_before_it_is_placed(bench: Bench) -> None:
    """Bring nothing of a partition that came and was not placed."""
    bench.put(bench.first, [b"a"])
    member = bench.join()
    _assigned(member, 2)
    for _ in range(5):
        assert member.poll(50) == []


def check_messages_come_in_order_from_where_they_are_placed(bench: Bench) -> None:
    """Messages come from the place on, each once, with their offsets; unread partitions do not."""
    bench.put(bench.first, [b"%d" % i for i in range(6)])
    member = _placed(bench, {bench.first: 2})
    found = _read(member, 4)
    assert [payload for one in found for payload in one.payloads] == [b"2", b"3", b"4", b"5"]
    assert [offset for one in found for offset in one.offsets.tolist()] == [2, 3, 4, 5]
    assert {one.source for one in found} == {bench.first}
    assert all(len(one.raw) == len(one) for one in found)
    assert member.poll(50) == []


def check_a_paused_partition_is_silent_until_it_is_placed_again(bench: Bench) -> None:
    """`pause` holds a partition, `place` lets it go on."""
    bench.put(bench.first, [b"a"])
    member = _placed(bench, {bench.first: 0})
    _read(member, 1)
    member.pause(bench.first)
    bench.put(bench.first, [b"b"])
    for _ in range(5):
        assert member.poll(50) == []
    member.place(bench.first, 1)
    assert [one.payloads for one in _read(member, 1)] == [[b"b"]]


def check_the_end_is_known_once_all_is_read(bench: Bench) -> None:
    """`end_reached` is the next offset to come, and None where something is left."""
    bench.put(bench.first, [b"a", b"b"])
    member = _placed(bench, {bench.first: 0})
    _read(member, 2)
    assert _soon(lambda: member.end_reached(bench.first)) == 2
    bench.put(bench.first, [b"c"])
    assert member.end_reached(bench.first) is None


def check_a_commit_writes_records_and_progress(bench: Bench) -> None:
    """Both are there after a commit, and neither before."""
    member = _placed(bench, {bench.first: 0})
    assert member.committed(bench.first) is None
    out = [Outgoing(topic=bench.output, value=b"x", key=b"k", partition=0)]
    progress = Progress(offset=0, note='{"from": 0}')
    offsets = member.commit(out, {bench.first: progress})
    assert offsets in ([0], None)
    assert bench.written() == [b"x"]
    assert member.committed(bench.first) == progress
    assert member.committed(Source(bench.input, 1)) is None


def check_an_empty_commit_moves_progress_alone(bench: Bench) -> None:
    """Progress may move without a record."""
    member = _placed(bench, {bench.first: 0})
    member.commit([], {bench.first: Progress(offset=0, note="n")})
    assert bench.written() == []
    assert member.committed(bench.first) == Progress(offset=0, note="n")


def check_the_next_member_goes_on_where_the_last_one_committed(bench: Bench) -> None:
    """Progress is the group's."""
    bench.put(bench.first, [b"a", b"b", b"c"])
    member = _placed(bench, {bench.first: 0})
    _read(member, 3)
    member.commit([], {bench.first: Progress(offset=2)})
    member.close()
    after = bench.join()
    _assigned(after, 2)
    done = after.committed(bench.first)
    assert done == Progress(offset=2)
    after.place(bench.first, done.offset)
    assert [one.payloads for one in _read(after, 1)] == [[b"c"]]


def check_what_was_read_and_not_committed_is_read_again(bench: Bench) -> None:
    """Have done nothing where a member leaves without a commit."""
    bench.put(bench.first, [b"a"])
    member = _placed(bench, {bench.first: 0})
    _read(member, 1)
    member.close()
    after = _placed(bench, {bench.first: 0})
    assert after.committed(bench.first) is None
    assert [one.payloads for one in _read(after, 1)] == [[b"a"]]


def check_who_is_no_member_writes_nothing(bench: Bench) -> None:
    """Refuse the commit of a member that the group has moved on without, as a whole."""
    member = _placed(bench, {bench.first: 0})
    member.commit([], {bench.first: Progress(offset=0)})
    bench.expel(member)
    out = [Outgoing(topic=bench.output, value=b"x", key=b"k", partition=0)]
    try:
        member.commit(out, {bench.first: Progress(offset=7)})
    except MembershipError:
        pass
    else:
        msg = "a member that the group has moved on without committed"
        raise AssertionError(msg)
    assert bench.written() == []
    assert member.committed(bench.first) == Progress(offset=0)


# ---------------------------------------------------------------------- helpers


def _soon(look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + WAIT_S
    while (found := look()) is None or found is False:
        if time.monotonic() > deadline:
            msg = f"nothing came within {WAIT_S:g} s"
            raise AssertionError(msg)
        time.sleep(0.02)
    return found


def _assigned(member: Member, n: int) -> set[Source]:
    found: list[Source] = []

    def look() -> bool:
        member.poll(50)
        found.extend(member.assigned())
        return len(found) >= n

    _soon(look)
    assert len(set(found)) == len(found), f"a partition came twice: {found}"
    return set(found)


def _placed(bench: Bench, places: dict[Source, int]) -> Member:
    member = bench.join()
    _assigned(member, 2)
    for source, offset in places.items():
        member.place(source, offset)
    return member


def _read(member: Member, n: int) -> list[Messages]:
    found: list[Messages] = []

    def look() -> bool:
        found.extend(member.poll(50))
        return sum(map(len, found)) >= n

    _soon(look)
    return found
