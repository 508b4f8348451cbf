"""The state of one shard: everything detect knows about the keys of one input partition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors.contract import Memory, SharedMemory
from streamad.errors import StateError
from streamad.modalities.base import Windows
from streamad.operators.ahead import AheadState
from streamad.operators.identity import StateIdentity
from streamad.scoring.episodes import NO_SEED, Episodes
from streamad.windows.arrays import MAX_COUNT, NEVER, KeyedArrays
from streamad.windows.keys import KeyTable
from streamad.windows.waiting import WaitingRoom

WAITING = "waiting."
"""Begins the names of arrays of keys that wait for their first window."""
SHARED = "shared."
"""Begins the names of arrays of a population, which no key owns."""
OPEN = "open."
"""Begins the names of arrays of what keys hold open, which have a row per edge."""
APART = (WAITING, SHARED, OPEN)


@dataclass(slots=True, kw_only=True)
class ShardState:
    """Keys, windows, tails, episodes and memories of one shard; grown and emptied together.

    Keys without a window yet are in waiting alone. shared : of a detector that judges by a whole
    population, what it has taken in of all keys.

    partition_ms is the greatest event time of the shard; it serves silence and TTL only. No tick
    before due_ms decides anything; it follows from the rest, and is not saved. Of flags:
    late_run counts late rows in a row, blind is of incomplete windows (`blind_runs`), kind a
    place in `KINDS`, ordinal the windows of a key; opened_ordinal and
    silent_ordinal are those at which its open episode and its silence began; event_ms are the
    first and last anomalous sample of the open
    episode; failures, failed_ms and failure_ms are of its run of failing
    windows: how many, when the last one ended, and the end of the last one that made a finding.
    """

    keys: KeyTable
    waiting: WaitingRoom
    windows: Windows
    episodes: Episodes
    memory: Memory | None
    shared: SharedMemory | None = None
    flags: KeyedArrays = field(
        default_factory=lambda: KeyedArrays(
            {
                "selected": ((), np.bool_, False),
                "silent": ((), np.int8, 0),
                "silent_ms": ((), np.int64, 0),
                "silent_ordinal": ((), np.int64, 0),
                "born_ms": ((), np.int64, 0),
                "stands_in": ((), np.bool_, False),
                "seeded": ((), np.bool_, False),
                "late_run": ((), np.int32, 0),
                "blind": ((2,), np.int32, 0),
                "kind": ((), np.int8, 0),
                "ordinal": ((), np.int64, 0),
                "opened_ordinal": ((), np.int64, 0),
                "event_ms": ((2,), np.int64, 0),
                "failures": ((), np.int64, 0),
                "failed_ms": ((), np.int64, NEVER),
                "failure_ms": ((), np.int64, NEVER),
            }
        )
    )
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    ahead: AheadState = field(default_factory=AheadState)
    partition_ms: int = int(NEVER)
    last_tick: int = int(NEVER)
    due_ms: int = int(NEVER)

    def add(self, codes: list[int], selected: list[bool], tags: list[dict[str, str]]) -> None:
        """Make empty rows for new keys."""
        self.due_ms = int(NEVER)
        n = self.keys.capacity
        for table in (self.windows.state, self.episodes.state, self.flags):
            table.reserve(n)
        if self.memory is not None:
            self.memory.reserve(n)
        rows = np.array(codes, np.int32)
        self.windows.state.reset(rows)
        self.flags.reset(rows)
        self.flags["selected"][rows] = selected
        self.episodes.begin(codes)
        for code, tag in zip(codes, tags, strict=True):
            if tag:
                self.tags[code] = tag

    def drop(self, codes: NDArray[np.int32]) -> None:
        """Forget keys that were not seen for their TTL."""
        self.keys.drop(codes)
        self.windows.reset(codes)
        self.flags.reset(codes)
        if self.memory is not None:
            self.memory.forget(codes)
        for code in codes.tolist():
            self.tags.pop(code, None)

    def break_off(self) -> None:
        """Begin the windows of all keys anew, and nothing else: input is missing from here on."""
        self.windows.reset(self.keys.live())
        self.waiting.drop(self.waiting.keys.live())

    @property
    def n_keys(self) -> int:
        """Return how many keys the shard knows, those that wait included."""
        return len(self.keys) + len(self.waiting)

    def name(self, code: int) -> str:
        """Return the key behind a code, or behind what `waiting_code` made of one."""
        if code < 0:
            return str(self.waiting.keys.names[waiting_code(code)])
        return str(self.keys.names[code])

    def tags_of(self, code: int) -> dict[str, str]:
        """Return the tags of a key; see `name`."""
        return (
            self.waiting.tags.get(waiting_code(code), {}) if code < 0 else self.tags.get(code, {})
        )

    @property
    def bytes_per_key(self) -> int:
        """Return what one key costs, its name apart."""
        memory = self.memory.bytes_per_slot if self.memory is not None else 0
        tables = (self.windows.state, self.episodes.state, self.flags)
        # 2 x 20 bytes: an entry of the hash table, at a load of one half.
        return sum(table.bytes_per_row for table in tables) + memory + 40

    def save(
        self, identity: StateIdentity
    ) -> tuple[dict[str, Any], pl.Series, dict[str, NDArray[Any]]]:
        """Return header, key names and arrays that `restore` takes back.

        The first axis of arrays is the key, but for those of `APART`: they have their own.
        """
        rows = self.keys.live()
        arrays: dict[str, NDArray[Any]] = {}
        for part, table in self._tables().items():
            arrays |= {f"{part}.{name}": value for name, value in table.state(rows).items()}
        if self.memory is not None:
            saved = self.memory.state(rows)
            arrays |= {f"memory.{name}": value for name, value in saved.items()}
        arrays |= {f"{WAITING}{name}": value for name, value in self.waiting.save().items()}
        arrays |= {f"{OPEN}{name}": value for name, value in self.windows.apart(rows).items()}
        if self.shared is not None:
            arrays |= {f"{SHARED}{name}": value for name, value in self.shared.state().items()}
        header = {
            **identity.header(),
            "partition_ms": self.partition_ms,
            "last_tick": self.last_tick,
            "ahead": self.ahead.save(),
            "tags": json.dumps(
                {str(self.keys.names[c]): t for c, t in self.tags.items()}
                | {str(self.waiting.keys.names[c]): t for c, t in self.waiting.tags.items()}
            ),
        }
        return header, self.keys.decode(rows), arrays

    def restore(
        self,
        header: dict[str, Any],
        names: pl.Series,
        arrays: dict[str, NDArray[Any]],
        *,
        identity: StateIdentity,
    ) -> None:
        """Take back what `save` gave, into an empty shard.

        Raises StateError where it does not fit; the shard is then as empty as it was.
        """
        identity.require(header)
        shared, held = (_part(arrays, part.removesuffix(".")) for part in (SHARED, OPEN))
        self._require_parts(shared, held)
        arrays = {n: array for n, array in arrays.items() if not n.startswith((SHARED, OPEN))}
        self._require_shapes(arrays, len(names))
        self._require_ranges(arrays)
        if held:
            # What does not fit is refused before anything is taken.
            self.windows.load_apart(np.arange(len(names), dtype=np.int32), held)
        if self.shared is not None:
            self.shared.load(shared)
        waiting = _part(arrays, WAITING.removesuffix("."))
        codes, created = self.keys.encode(names)
        tags = json.loads(header["tags"])
        self.add(created, [True] * len(created), [tags.get(name, {}) for name in names.to_list()])
        for part, table in self._tables().items():
            table.load(codes, _part(arrays, part))
        if held:
            self.windows.load_apart(codes, held)
        if self.memory is not None:
            self.memory.load(codes, _part(arrays, "memory"))
        self.waiting.load(waiting, tags)
        self.partition_ms = int(header["partition_ms"])
        self.last_tick = int(header["last_tick"])
        self.ahead.load(header["ahead"])

    def _tables(self) -> dict[str, KeyedArrays]:
        return {
            "windows": self.windows.state,
            "episodes": self.episodes.state,
            "flags": self.flags,
        }

    def _require_parts(
        self, shared: dict[str, NDArray[Any]], held: dict[str, NDArray[Any]]
    ) -> None:
        """Refuse parts that this shard has not, or lacks."""
        none = np.empty(0, np.int32)
        ours = {} if self.shared is None else self.shared.state()
        pairs = ((SHARED, ours, shared), (OPEN, self.windows.apart(none), held))
        for part, mine, theirs in pairs:
            for name in sorted(mine.keys() ^ theirs.keys()):
                of_theirs, of_mine = (_kind(one.get(name)) for one in (theirs, mine))
                raise StateError(_mismatch(f"{part}{name}", of_theirs, of_mine))

    def _require_shapes(self, arrays: dict[str, NDArray[Any]], n: int) -> None:
        """Refuse arrays this shard has not, or has in another shape; the error names the array."""
        none = np.empty(0, np.int32)
        wanted = {
            f"{part}.{k}": v for part, t in self._tables().items() for k, v in t.arrays.items()
        }
        if self.memory is not None:
            wanted |= {f"memory.{k}": v for k, v in self.memory.state(none).items()}
        ours, theirs = self.waiting.save(), _part(arrays, WAITING.removesuffix("."))
        for name in sorted(ours.keys() | theirs.keys()):
            # Their length differs: only kind and inner shape can be wrong.
            mine, other = (_kind(one.get(name), 0) for one in (ours, theirs))
            if mine != other:
                raise StateError(_mismatch(f"{WAITING}{name}", other, mine))
        given = arrays.keys() - {f"{WAITING}{name}" for name in theirs}
        for name in sorted(wanted.keys() | given):
            mine, other = _kind(wanted.get(name), n), _kind(arrays.get(name))
            if mine != other:
                raise StateError(_mismatch(name, other, mine))

    def _require_ranges(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Refuse counts that kernels would index with and that lie outside of what they index.

        A compiled kernel checks no bounds: a wrong count under a right checksum would end the
        process, and again at each start.
        """
        ranges = {f"windows.{name}": span for name, span in self.windows.ranges.items()}
        ranges |= {
            "episodes.count": (0, MAX_COUNT),
            "episodes.seed": (NO_SEED, self.episodes.n_groups - 1),
        }
        if self.memory is not None:
            ranges |= {f"memory.{name}": span for name, span in self.memory.ranges.items()}
        for name, (low, high) in ranges.items():
            array = arrays[name]
            if len(array) and not low <= array.min() <= array.max() <= high:
                msg = (
                    f"state array {name} holds {array.min()} to {array.max()}, and {low} to {high} "
                    "is possible: the state is damaged"
                )
                raise StateError(msg)
        self.waiting.require(_part(arrays, WAITING.removesuffix(".")))


def waiting_code(code: int) -> int:
    """Return what stands for the code of a key that waits where codes of others stand, and back.

    >>> waiting_code(0), waiting_code(waiting_code(7))
    (-2, 7)
    """
    return -2 - code


def _mismatch(name: str, theirs: str, ours: str) -> str:
    return (
        f"state array {name}: the state has {theirs} and this job {ours}; restore the version and "
        "the detector that wrote it, or set delivery.on_state_mismatch: fresh to start with empty "
        "state"
    )


def _kind(array: NDArray[Any] | None, n: int | None = None) -> str:
    """Return type and shape in words; ``n`` stands for the length where it is given."""
    if array is None:
        return "none"
    shape = (len(array) if n is None else n, *array.shape[1:])
    return f"{array.dtype} {shape}"


def _part(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


ShardFactory = Callable[[], ShardState]
