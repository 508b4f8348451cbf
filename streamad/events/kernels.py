"""Compiled loops over events: texts to ids, closed forms, energies, and counts per key."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

FNV_START = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
SEED = np.uint64(0x9E3779B97F4A7C15)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """Spread all bits of a hash over all others (the last step of MurmurHash3)."""
    value = (value ^ (value >> SHIFT)) * MIX_1
    value = (value ^ (value >> SHIFT)) * MIX_2
    return value ^ (value >> SHIFT)


@compiled
def hash_bytes(data: Bytes, start: int, stop: int) -> np.uint64:
    """Return a 64-bit hash of bytes: the same in every process and on every machine.

    FNV-1a over words of eight bytes, little end first, then over the bytes that are left; mixed.
    """
    value = FNV_START ^ np.uint64(stop - start)
    at = start
    while at + 8 <= stop:
        word = (
            np.uint64(data[at])
            | np.uint64(data[at + 1]) << np.uint64(8)
            | np.uint64(data[at + 2]) << np.uint64(16)
            | np.uint64(data[at + 3]) << np.uint64(24)
            | np.uint64(data[at + 4]) << np.uint64(32)
            | np.uint64(data[at + 5]) << np.uint64(40)
            | np.uint64(data[at + 6]) << np.uint64(48)
            | np.uint64(data[at + 7]) << np.uint64(56)
        )
        value = mix((value ^ word) * FNV_PRIME)
        at += 8
    word = np.uint64(0)
    while at < stop:
        word = (word << np.uint64(8)) | np.uint64(data[at])
        at += 1
    return mix((value ^ word) * FNV_PRIME)


@compiled
def build_table(blob: Bytes, ends: Longs, first: int, n: int, table: Ints) -> None:
    """Enter texts ``first .. first + n - 1`` of a blob into an empty table (-1), a power of two long."""
    mask = np.uint64(len(table) - 1)
    for value in range(first, first + n):
        start = ends[value - 1] if value > 0 else 0
        at = hash_bytes(blob, start, ends[value]) & mask
        while table[at] >= 0:
            at = (at + np.uint64(1)) & mask
        table[at] = value


@compiled
def encode_texts(
    data: Bytes,
    offsets: Longs,
    missing: Flags,
    words: tuple[Bytes, Longs, int, Ints],
    tail: tuple[Flags, int, int],
    out: Ints,
    column: int,
) -> None:
    """Write the id of each text into ``out[:, column]``.

    data, offsets : texts one after the other, ``(n + 1,)`` offsets; missing : ``(n,)`` or empty
    words : blob, ends, number of the field's first text, its table
    tail : which buckets hold something, the id of the first bucket, of the first text
    """
    blob, ends, first, table = words
    occupied, first_bucket, first_id = tail
    mask = np.uint64(len(table) - 1)
    n_buckets = np.uint64(len(occupied))
    for row in range(len(offsets) - 1):
        if len(missing) > 0 and missing[row]:
            out[row, column] = 1
            continue
        start, stop = offsets[row], offsets[row + 1]
        size = stop - start
        hashed = hash_bytes(data, start, stop)
        at = hashed & mask
        found = -1
        while table[at] >= 0:
            value = table[at]
            begin = ends[value - 1] if value > 0 else 0
            if ends[value] - begin == size:
                same = True
                for k in range(size):
                    if blob[begin + k] != data[start + k]:
                        same = False
                        break
                if same:
                    found = value
                    break
            at = (at + np.uint64(1)) & mask
        if found >= 0:
            out[row, column] = first_id + found - first
        else:
            bucket = np.int64((hashed >> SHIFT) % n_buckets)
            out[row, column] = first_bucket + bucket if occupied[bucket] else 0


@compiled
def buckets_of(data: Bytes, offsets: Longs, n_buckets: int) -> Ints:
    """Return the tail bucket of each text, ``(n,)``."""
    made = np.empty(len(offsets) - 1, np.int32)
    for row in range(len(made)):
        hashed = hash_bytes(data, offsets[row], offsets[row + 1])
        made[row] = np.int64((hashed >> SHIFT) % np.uint64(n_buckets))
    return made


@compiled
def encode_numbers(values: NDArray[np.float64], edges: NDArray[np.float64], out: Ints, column: int) -> None:
    """Write the cell of each number into ``out[:, column]``: 0 outside all, 1 missing, then cells.

    Cell ``k`` is ``edges[k] <= x < edges[k + 1]``.
    """
    n_edges = len(edges)
    for row in range(len(values)):
        x = values[row]
        if np.isnan(x):
            out[row, column] = 1
        elif n_edges == 0 or x < edges[0] or x >= edges[n_edges - 1]:
            out[row, column] = 0
        else:
            low, high = 0, n_edges - 1
            while high - low > 1:
                middle = (low + high) // 2
                if x < edges[middle]:
                    high = middle
                else:
                    low = middle
            out[row, column] = 2 + low
