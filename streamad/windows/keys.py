"""Keys to dense codes, by the batch.

Keys are told apart by two independent 64-bit hashes (polars, vectorised) in an open-addressing
table. 10^6 keys collide in both with a chance below 1e-26, so strings are touched only when a key
is new: that is what makes 10^7 rows a second possible.
"""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.compiled import compiled

Hashes = tuple[NDArray[np.uint64], NDArray[np.uint64]]

NO_KEY = -1
MAX_PIECES = 8
"""Pieces of the column of names, one per batch that brought new keys, before they are joined."""
_EMPTY = -1
_TOMB = -2


class KeyTable:
    """The keys of one shard and their codes; codes of dropped keys are given out again."""

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self._slots: NDArray[np.int32] = np.full(1024, _EMPTY, np.int32)
        self._first: NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self._second: NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self._used = 0
        self._free: list[int] = []
        self.names: list[str | None] = []
        self._series: pl.Series | None = None
        self._alive: NDArray[np.bool_] = np.zeros(1024, np.bool_)
        self._live: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    @property
    def capacity(self) -> int:
        """Return one more than the highest code in use."""
        return len(self.names)

    def find(self, hashes: Hashes) -> NDArray[np.int32]:
        """Return the code of each row's key, `NO_KEY` where there is none; nothing is added."""
        return _probe(*hashes, self._slots, self._first, self._second)[0]

    def add(self, names: list[str]) -> NDArray[np.int32]:
        """Return the codes of keys, which are added where they are new and there is room."""
        return self.encode(pl.Series(names, dtype=pl.String))[0]

    def encode(
        self, keys: pl.Series, hashes: Hashes | None = None
    ) -> tuple[NDArray[np.int32], list[int]]:
        """Return the code of each row's key, and the codes that are new.

        Codes are int32 ``(n,)``; `NO_KEY` where the key is new and the table is full.
        """
        first, second = hashes or hashes_of(keys)
        codes, missing = _probe(first, second, self._slots, self._first, self._second)
        if not len(missing):
            return codes, []
        return codes, self._add(keys, first, second, codes, missing)

    def _add(
        self,
        keys: pl.Series,
        first: NDArray[np.uint64],
        second: NDArray[np.uint64],
        codes: NDArray[np.int32],
        missing: NDArray[np.int64],
    ) -> list[int]:
        room = min(max(self.max_keys - len(self), 0), len(missing))
        if not room:
            return []
        n_reused = min(len(self._free), room)
        codes_to_give = np.empty(room, np.int32)
        codes_to_give[:n_reused] = self._free[: -n_reused - 1 : -1]
        codes_to_give[n_reused:] = np.arange(len(self.names), len(self.names) + room - n_reused)
        self._grow(room)
        firsts = _put_missing(
            (first, second), missing, codes_to_give, codes, (self._slots, self._first, self._second)
        )
        created: list[int] = codes_to_give[: len(firsts)].tolist()
        self._used += len(created)
        names = keys.gather(firsts).to_list()
        n_reused = min(n_reused, len(created))
        for code, name in zip(created[:n_reused], names[:n_reused], strict=True):
            self.names[code] = name
        self.names += names[n_reused:]
        if n_reused:
            del self._free[-n_reused:]
            self._series = None
        if len(self.names) > len(self._alive):
            grown = np.zeros(max(2 * len(self._alive), len(self.names)), np.bool_)
            grown[: len(self._alive)] = self._alive
            self._alive = grown
        self._live = None
        self._alive[created] = True
        return created

    def _grow(self, n: int) -> None:
        """Make room for ``n`` more entries, at a load of one half."""
        if (self._used + n) * 2 <= len(self._slots):
            return
        live = np.flatnonzero(self._slots >= 0)
        size = 1024
        while size < 4 * (len(live) + 1) or size < 2 * (len(live) + n):
            size *= 2
        old = self._slots[live], self._first[live], self._second[live]
        self._slots = np.full(size, _EMPTY, np.int32)
        self._first = np.zeros(size, np.uint64)
        self._second = np.zeros(size, np.uint64)
        _put_all(old[1], old[2], old[0], self._slots, self._first, self._second)
        self._used = len(live)

    def drop(self, codes: NDArray[np.int32]) -> None:
        """Forget these keys; their codes may be given to other keys from now on."""
        gone = [int(code) for code in codes if self.names[int(code)] is not None]
        names = [str(self.names[code]) for code in gone]
        if not gone:
            return
        first, second = hashes_of(pl.Series(names, dtype=pl.String))
        _remove(first, second, self._slots, self._first, self._second)
        for code in gone:
            self.names[code] = None
            self._free.append(code)
        self._alive[gone] = False
        self._series = self._live = None

    def decode(self, codes: NDArray[np.int32]) -> pl.Series:
        """Return the keys of these codes as a String series."""
        known = self._series
        if known is None:
            known = pl.Series("key", self.names, dtype=pl.String)
        elif len(known) < len(self.names):
            known = known.append(pl.Series("key", self.names[len(known) :], dtype=pl.String))
        # Every piece of a column is asked for every name.
        self._series = known.rechunk() if known.n_chunks() > MAX_PIECES else known
        return self._series.gather(codes)

    def live(self) -> NDArray[np.int32]:
        """Return the codes in use, ascending; the array is shared, do not write to it."""
        if self._live is None:
            self._live = np.flatnonzero(self._alive).astype(np.int32)
        return self._live


def stable_hash(key: str) -> int:
    """Return 32 bits that depend on the key alone, in every process and version."""
    return zlib.crc32(key.encode())


def hashes_of(keys: pl.Series) -> Hashes:
    """Return both hashes of each key: what a table needs to know of one it has."""
    return keys.hash(seed=1).to_numpy(), keys.hash(seed=0x5EED).to_numpy()


@compiled
def _probe(
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    slots: NDArray[np.int32],
    table_first: NDArray[np.uint64],
    table_second: NDArray[np.uint64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    n = len(first)
    codes = np.empty(n, np.int32)
    missing = np.empty(n, np.int64)
    n_missing = 0
    mask = len(slots) - 1
    for i in range(n):
        at = np.int64(first[i] & np.uint64(mask))
        code = NO_KEY
        while slots[at] != _EMPTY:
            if slots[at] >= 0 and table_first[at] == first[i] and table_second[at] == second[i]:
                code = slots[at]
                break
            at = (at + 1) & mask
        codes[i] = code
        if code == NO_KEY:
            missing[n_missing] = i
            n_missing += 1
    return codes, missing[:n_missing].copy()


@compiled
def _put(
    first: np.uint64,
    second: np.uint64,
    code: int,
    slots: NDArray[np.int32],
    table_first: NDArray[np.uint64],
    table_second: NDArray[np.uint64],
) -> None:
    mask = len(slots) - 1
    at = np.int64(first & np.uint64(mask))
    while slots[at] != _EMPTY:
        at = (at + 1) & mask
    slots[at] = code
    table_first[at] = first
    table_second[at] = second


@compiled
def _put_all(
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    codes: NDArray[np.int32],
    slots: NDArray[np.int32],
    table_first: NDArray[np.uint64],
    table_second: NDArray[np.uint64],
) -> None:
    for i in range(len(codes)):
        _put(first[i], second[i], codes[i], slots, table_first, table_second)


@compiled
def _remove(
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    slots: NDArray[np.int32],
    table_first: NDArray[np.uint64],
    table_second: NDArray[np.uint64],
) -> None:
    mask = len(slots) - 1
    for i in range(len(first)):
        at = np.int64(first[i] & np.uint64(mask))
        while slots[at] != _EMPTY:
            if slots[at] >= 0 and table_first[at] == first[i] and table_second[at] == second[i]:
                slots[at] = _TOMB
                break
            at = (at + 1) & mask


@compiled
def _put_missing(
    hashes: Hashes,
    missing: NDArray[np.int64],
    to_give: NDArray[np.int32],
    codes: NDArray[np.int32],
    table: tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.uint64]],
) -> NDArray[np.int64]:
    """Enter the keys of ``missing`` rows while codes last, and write the code of each row.

    Returns the first row of each key that was entered, in the order of their codes.
    """
    first, second = hashes
    slots, table_first, table_second = table
    firsts = np.empty(len(to_give), np.int64)
    n = 0
    mask = len(slots) - 1
    for row in missing:
        at = np.int64(first[row] & np.uint64(mask))
        while slots[at] != _EMPTY:
            if slots[at] >= 0 and table_first[at] == first[row] and table_second[at] == second[row]:
                codes[row] = slots[at]
                break
            at = (at + 1) & mask
        if slots[at] == _EMPTY and n < len(to_give):
            slots[at] = to_give[n]
            table_first[at] = first[row]
            table_second[at] = second[row]
            codes[row] = to_give[n]
            firsts[n] = row
            n += 1
    return firsts[:n].copy()
