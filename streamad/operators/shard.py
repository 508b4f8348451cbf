"""The state of one shard: everything detect knows about the keys of one input partition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors.base import Memory
from streamad.errors import StateError
from streamad.operators.identity import StateIdentity
from streamad.scoring.episodes import Episodes
from streamad.windows.arrays import NEVER, KeyedArrays
from streamad.windows.keys import KeyTable
from streamad.windows.signals import SignalWindows


@dataclass(slots=True, kw_only=True)
class ShardState:
    """Keys, windows, tails, episodes and memories of one shard; grown and emptied together.

    partition_ms is the greatest event time of the shard; it serves silence and TTL only. Of flags:
    ordinal counts the windows of a key; opened_ordinal and silent_ordinal are those at which its
    open episode and its silence began; event_ms are the first and last anomalous sample of the open
    episode; failures, failed_ms and failure_ms are of its run of failing
    windows: how many, when the last one ended, and the end of the last one that made a finding.
    """

    keys: KeyTable
    windows: SignalWindows
    episodes: Episodes
    memory: Memory | None
    flags: KeyedArrays = field(
        default_factory=lambda: KeyedArrays(
            {
                "selected": ((), np.bool_, False),
                "silent": ((), np.bool_, False),
                "silent_ms": ((), np.int64, 0),
                "silent_ordinal": ((), np.int64, 0),
                "seeded": ((), np.bool_, False),
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
    partition_ms: int = int(NEVER)
    last_tick: int = int(NEVER)

    def add(self, codes: list[int], selected: list[bool], tags: list[dict[str, str]]) -> None:
        """Make empty rows for new keys."""
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
        self.windows.state.reset(codes)
        self.flags.reset(codes)
        if self.memory is not None:
            self.memory.forget(codes)
        for code in codes.tolist():
            self.tags.pop(code, None)

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
        """Return header, key names and arrays (first axis: the key) that `restore` takes back."""
        rows = self.keys.live()
        arrays: dict[str, NDArray[Any]] = {}
        for part, table in self._tables().items():
            arrays |= {f"{part}.{name}": value for name, value in table.state(rows).items()}
        if self.memory is not None:
            saved = self.memory.state(rows)
            arrays |= {f"memory.{name}": value for name, value in saved.items()}
        header = {
            **identity.header(),
            "partition_ms": self.partition_ms,
            "last_tick": self.last_tick,
            "tags": json.dumps({str(self.keys.names[c]): t for c, t in self.tags.items()}),
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
        self._require_shapes(arrays, len(names))
        codes, created = self.keys.encode(names)
        tags = json.loads(header["tags"])
        self.add(created, [True] * len(created), [tags.get(name, {}) for name in names.to_list()])
        for part, table in self._tables().items():
            table.load(codes, _part(arrays, part))
        if self.memory is not None:
            self.memory.load(codes, _part(arrays, "memory"))
        self.partition_ms = int(header["partition_ms"])
        self.last_tick = int(header["last_tick"])

    def _tables(self) -> dict[str, KeyedArrays]:
        return {
            "windows": self.windows.state,
            "episodes": self.episodes.state,
            "flags": self.flags,
        }

    def _require_shapes(self, arrays: dict[str, NDArray[Any]], n: int) -> None:
        """Refuse arrays this shard has not, or has in another shape; the error names the array."""
        none = np.empty(0, np.int32)
        wanted = {
            f"{part}.{k}": v for part, t in self._tables().items() for k, v in t.arrays.items()
        }
        if self.memory is not None:
            wanted |= {f"memory.{k}": v for k, v in self.memory.state(none).items()}
        for name in sorted(wanted.keys() | arrays.keys()):
            ours, theirs = _kind(wanted.get(name), n), _kind(arrays.get(name))
            if ours != theirs:
                msg = (
                    f"state array {name}: the state has {theirs} and this job {ours}; restore the "
                    "version and the detector that wrote it, or set delivery.on_state_mismatch: "
                    "fresh to start with empty state"
                )
                raise StateError(msg)


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
