"""Which silent keys were replaced: another of their kind has come in their place.

A rolling deploy or an autoscaler puts one instance in the place of another. Its series end and are
no failure; a page for each old pod of a deploy would teach people to ignore pages.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.names import split_key
from streamad.operators.shard import ShardState, waiting_code
from streamad.windows.arrays import NEVER, KeyedArrays

Family = Callable[[str, int], str]
"""From a key and the code by which the shard knows it to what it has in common with others."""


@dataclass(frozen=True, slots=True)
class Table:
    """The keys with windows, or those that wait for one, as a tick finds them.

    codes : in use; clock : of these; flags : of all keys, by code
    """

    codes: NDArray[np.int32]
    clock: NDArray[np.int64]
    flags: KeyedArrays
    waiting: bool

    def column(self, name: str) -> NDArray[np.int64]:
        """Return a flag of the keys in use."""
        return np.asarray(self.flags[name][self.codes])

    def watched(self) -> NDArray[np.bool_]:
        """Say which keys have sent data and are selected."""
        return np.asarray((self.clock > NEVER) & (self.column("selected") > 0))


@dataclass(frozen=True, slots=True)
class Member:
    """One key, where it stands in its table."""

    table: Table
    place: int

    @property
    def code(self) -> int:
        """Return the code by which the shard knows the key."""
        code = int(self.table.codes[self.place])
        return waiting_code(code) if self.table.waiting else code

    @property
    def clock_ms(self) -> int:
        """Return the key's latest event time."""
        return int(self.table.clock[self.place])

    def get(self, name: str) -> int:
        """Return a flag of the key."""
        return int(self.table.flags[name][self.table.codes[self.place]])

    def set(self, name: str, value: int) -> None:
        """Set a flag of the key."""
        self.table.flags[name][self.table.codes[self.place]] = value


def tables_of(state: ShardState) -> tuple[Table, Table]:
    """Return the keys of a shard as of now."""
    room, live, waiting = state.waiting, state.keys.live(), state.waiting.keys.live()
    return (
        Table(live, state.windows.state["clock"][live], state.flags, waiting=False),
        Table(waiting, room.state["clock"][waiting], room.state, waiting=True),
    )


def members(table: Table, mask: NDArray[np.bool_]) -> list[Member]:
    """Return the keys of a table that are in a mask."""
    return [Member(table, place) for place in np.flatnonzero(mask).tolist()]


def replaced(
    lost: Sequence[Member],
    heard: Sequence[tuple[Table, NDArray[np.bool_]]],
    *,
    silence_ms: int,
    name: Callable[[Member], str],
    family: Family,
) -> dict[int, str]:
    """Return the lost keys in whose place a new one has come, by their codes, and its name.

    A key is replaced by one of its family that began when it was known for long and about to end:
    later than one silence after its own beginning, and than one silence before its last data. Each
    new key stands in for one.

    lost : keys that are silent; heard : by table, the keys that send
    """
    since = [max(one.clock_ms - silence_ms, one.get("born_ms") + silence_ms) for one in lost]
    fresh = defaultdict[str, list[tuple[int, str, Member]]](list)
    for table, sends in heard:
        new = (table.column("born_ms") >= min(since)) & (table.column("stands_in") == 0)
        for one in members(table, sends & new):
            fresh[family(name(one), one.code)].append((one.get("born_ms"), name(one), one))
    for queue in fresh.values():
        queue.sort(key=lambda entry: entry[:2])
    found: dict[int, str] = {}
    order = sorted(
        zip(lost, since, strict=True), key=lambda pair: (pair[0].clock_ms, name(pair[0]))
    )
    for one, since_ms in order if fresh else ():
        queue = fresh.get(family(name(one), one.code), [])
        heir = next((i for i, (born_ms, _, _) in enumerate(queue) if born_ms >= since_ms), None)
        if heir is not None:
            _, by, other = queue.pop(heir)
            other.set("stands_in", 1)
            found[one.code] = by
    return found


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LETTERS = re.compile(r"[^\W\d_]*")


def family_of(key: str, n_fields: int) -> str:
    r"""Return what the names of interchangeable series have in common.

    Of each field of the key that is what letters it begins with; of series that are named by labels
    it is all but their values.

    Examples
    --------
    >>> family_of("api-7d9f-x2/cpu_idle", 2), family_of("10.0.0.7", 1)
    ('api/cpu', '')
    >>> family_of('api/load{host.name="h1"}', 1)
    'api/load{host.name=""}'
    """
    if '="' in key:
        return _QUOTED.sub('""', key)
    parts = split_key(key, n_fields) or [key]
    return "/".join(found[0] for part in parts if (found := _LETTERS.match(part)))
