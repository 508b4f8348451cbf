"""The state of one shard: everything detect knows about the keys of one input partition."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
from streamad.windows.arrays import GROWTH, MAX_COUNT, NEVER, KeyedArrays
from streamad.windows.keys import KeyTable
from streamad.windows.waiting import WaitingRoom

WAITING = "waiting."
"""Begins the names of arrays of keys that wait for their first window."""
SHARED = "shared."
"""Begins the names of arrays of a population, which no key owns."""
OPEN = "open."
"""Begins the names of arrays of what keys hold open, which have a row per edge."""
APART = (WAITING, SHARED, OPEN)
NAME_BYTES = 320
"""Of a key: its name of some dozen characters, twice, and up to eight places in a hash table."""

Part = tuple[pl.Series, dict[str, NDArray[Any]]]
"""Names of some keys, and their arrays by name."""


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
        self._reserve(self.keys.capacity)
        rows = np.array(codes, np.int32)
        self.windows.state.reset(rows)
        self.flags.reset(rows)
        self.flags["selected"][rows] = selected
        self.episodes.begin(codes)
        for code, tag in zip(codes, tags, strict=True):
            if tag:
                self.tags[code] = tag

    def _reserve(self, n: int) -> None:
        for table in self._tables().values():
            table.reserve(n)
        if self.memory is not None:
            self.memory.reserve(n)

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
        """Return what one key with windows costs at the most, room to grow and name included."""
        memory = self.memory.bytes_per_slot if self.memory is not None else 0
        rows = sum(table.bytes_per_row for table in self._tables().values()) + memory
        return rows + rows // GROWTH + NAME_BYTES

    @property
    def bytes_per_waiting_key(self) -> int:
        """Return what one key that waits costs at the most, its rows apart."""
        rows = self.waiting.state.bytes_per_row
        return rows + rows // GROWTH + NAME_BYTES

    def save(
        self, identity: StateIdentity
    ) -> tuple[dict[str, Any], pl.Series, dict[str, NDArray[Any]]]:
        """Return header, key names and arrays that `restore` takes back.

        The first axis of arrays is the key, but for those of `APART`: they have their own.
        """
        rows = self.keys.live()
        arrays = self.rows(rows) | self.apart(rows)
        return self.header(identity), self.keys.decode(rows), arrays

    def rows(self, rows: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return copies of what these keys hold; the first axis of each array is the key."""
        arrays: dict[str, NDArray[Any]] = {}
        for part, table in self._tables().items():
            arrays |= {f"{part}.{name}": value for name, value in table.state(rows).items()}
        if self.memory is not None:
            saved = self.memory.state(rows)
            arrays |= {f"memory.{name}": value for name, value in saved.items()}
        return arrays

    def parts(self, n: int) -> Iterator[Part]:
        """Yield names and `rows` of ``n`` keys at a time; at least once, of no key if need be."""
        live = self.keys.live()
        for start in range(0, max(len(live), 1), n):
            some = live[start : start + n]
            yield self.keys.decode(some), self.rows(some)

    def apart(self, rows: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return the arrays of `APART`; rows : of all keys, ascending."""
        arrays = {f"{WAITING}{name}": value for name, value in self.waiting.save().items()}
        arrays |= {f"{OPEN}{name}": value for name, value in self.windows.apart(rows).items()}
        if self.shared is not None:
            arrays |= {f"{SHARED}{name}": value for name, value in self.shared.state().items()}
        return arrays

    def header(self, identity: StateIdentity) -> dict[str, Any]:
        """Return what is saved beside arrays, JSON-ready."""
        return {
            **identity.header(),
            "partition_ms": self.partition_ms,
            "last_tick": self.last_tick,
            "ahead": self.ahead.save(),
            "tags": json.dumps(
                {str(self.keys.names[c]): t for c, t in self.tags.items()}
                | {str(self.waiting.keys.names[c]): t for c, t in self.waiting.tags.items()}
            ),
        }

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
        apart = {n: array for n, array in arrays.items() if n.startswith(APART)}
        rows = {n: array for n, array in arrays.items() if n not in apart}
        self.restore_parts(header, lambda: iter([(names, rows)]), apart, identity=identity)

    def restore_parts(
        self,
        header: dict[str, Any],
        parts: Callable[[], Iterator[Part]],
        apart: dict[str, NDArray[Any]],
        *,
        identity: StateIdentity,
    ) -> None:
        """Do what `restore` does, with some keys at a time.

        parts : names of keys and their arrays, as `rows` returned them; at least one, and twice the
            same: all are looked at before any is taken
        """
        identity.require(header)
        shared, held, waiting = (
            _part(apart, part.removesuffix(".")) for part in (SHARED, OPEN, WAITING)
        )
        self._require_parts(shared, held)
        self._require_waiting(waiting)
        n = 0
        for names, arrays in parts():
            self._require_shapes(arrays, len(names))
            self._require_ranges(arrays)
            n += len(names)
        self.waiting.require(waiting)
        if held:
            # What does not fit is refused before anything is taken.
            self.windows.load_apart(np.arange(n, dtype=np.int32), held)
        if self.shared is not None:
            self.shared.load(shared)
        tags = json.loads(header["tags"])
        self._reserve(n)
        # Keys that were taken in stay, where fewer are allowed since.
        self.keys.max_keys = max(self.keys.max_keys, n)
        codes = np.concatenate([self._take(*part, tags) for part in parts()])
        if held:
            self.windows.load_apart(codes, held)
        self.waiting.load(waiting, tags)
        self.partition_ms = int(header["partition_ms"])
        self.last_tick = int(header["last_tick"])
        self.ahead.load(header["ahead"])

    def _take(
        self, names: pl.Series, arrays: dict[str, NDArray[Any]], tags: dict[str, dict[str, str]]
    ) -> NDArray[np.int32]:
        """Take keys back with what `rows` returned of them; return their codes."""
        codes, created = self.keys.encode(names)
        self.add(created, [True] * len(created), [tags.get(name, {}) for name in names.to_list()])
        for part, table in self._tables().items():
            table.load(codes, _part(arrays, part))
        if self.memory is not None:
            self.memory.load(codes, _part(arrays, "memory"))
        return codes

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

    def _require_waiting(self, theirs: dict[str, NDArray[Any]]) -> None:
        """Refuse arrays of keys that wait which are of another kind or inner shape."""
        ours = self.waiting.save()
        for name in sorted(ours.keys() | theirs.keys()):
            mine, other = (_kind(one.get(name), 0) for one in (ours, theirs))
            if mine != other:
                raise StateError(_mismatch(f"{WAITING}{name}", other, mine))

    def _require_shapes(self, arrays: dict[str, NDArray[Any]], n: int) -> None:
        """Refuse arrays this shard has not, or has in another shape; the error names the array."""
        none = np.empty(0, np.int32)
        wanted = {
            f"{part}.{k}": v for part, t in self._tables().items() for k, v in t.arrays.items()
        }
        if self.memory is not None:
            wanted |= {f"memory.{k}": v for k, v in self.memory.state(none).items()}
        for name in sorted(wanted.keys() | arrays.keys()):
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
