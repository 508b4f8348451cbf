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
    """Enter texts ``first .. first + n - 1`` of a blob into an empty table, a power of two long."""
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
def encode_numbers(
    values: NDArray[np.float64], edges: NDArray[np.float64], out: Ints, column: int
) -> None:
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


@compiled
def enter_cells(cells: Longs, table: Ints) -> None:
    """Enter pairs of values into an empty table (-1), a power of two long."""
    mask = np.uint64(len(table) - 1)
    for cell in range(len(cells)):
        at = mix(np.uint64(cells[cell])) & mask
        while table[at] >= 0:
            at = (at + np.uint64(1)) & mask
        table[at] = cell


@compiled
def find_cell(key: np.int64, cells: Longs, table: Ints) -> np.int64:
    """Return the number of a pair of values, -1 where it was never seen."""
    mask = np.uint64(len(table) - 1)
    at = mix(np.uint64(key)) & mask
    while table[at] >= 0:
        if cells[table[at]] == key:
            return np.int64(table[at])
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def fill_dense(
    fields: tuple[Longs, Longs],
    first: Longs,
    second: Longs,
    dense_at: Longs,
    closed: tuple[Longs, Floats, Floats, Ints],
    energies: tuple[Floats, Floats],
    dense: Floats,
) -> None:
    """Write ``-PMI`` of both weightings and energies of all pairs of values of small fields.

    fields : starts and sizes ``(m,)``; dense_at : ``(n_pairs,)``, where a pair's table begins in
    ``dense``, -1 none, -2 the pair does not count in closed forms and has no table
    energies : vectors ``(n_seeds, n_ids, d)``, pair weights ``(n_seeds, n_pairs)``
    """
    starts, sizes = fields
    cells, excess, never, table = closed
    vectors, weights = energies
    n_ids = starts[-1] + sizes[-1]
    n_seeds, dim = vectors.shape[0], vectors.shape[2]
    for pair in range(len(first)):
        if dense_at[pair] < 0:
            continue
        i, j = first[pair], second[pair]
        for a in range(sizes[i]):
            for b in range(sizes[j]):
                row_a, row_b = starts[i] + a, starts[j] + b
                at = dense_at[pair] + a * sizes[j] + b
                cell = find_cell(row_a * n_ids + row_b, cells, table)
                for k in range(2):
                    dense[at, k] = excess[cell, k] if cell >= 0 else never[k]
                for seed in range(n_seeds):
                    dot = np.float32(0)
                    for d in range(dim):
                        dot += vectors[seed, row_a, d] * vectors[seed, row_b, d]
                    dense[at, 2 + seed] = -weights[seed, pair] * dot


@compiled
def sum_pairs(
    codes: Ints,
    fields: tuple[Longs, Longs],
    pairs: tuple[Longs, Longs, Longs, Flags],
    closed: tuple[Longs, Floats, Floats, Ints],
    energies: tuple[Floats, Floats],
    unary: Floats,
    dense: Floats,
) -> NDArray[np.float64]:
    """Return the members of each event ``(n, 6 + n_seeds)``: higher is stranger.

    Columns: marginal, pmi and rarest pair, each of both weightings; then the energy per seed.
    codes : ids ``(n, m)``; pairs : first and second field, place in ``dense`` (-1: none), used
    unary : ``(n_ids, 2 + n_seeds)``, surprise under both weightings, then the negative bias
    """
    starts, sizes = fields
    first, second, dense_at, used = pairs
    cells, excess, never, table = closed
    vectors, weights = energies
    n, m = codes.shape
    n_seeds, dim = vectors.shape[0], vectors.shape[2]
    n_ids = starts[-1] + sizes[-1]
    width = 2 + n_seeds
    out = np.zeros((n, 6 + n_seeds))
    total = np.zeros(width)
    single = np.zeros(width)
    for row in range(n):
        total[:] = 0
        single[:] = 0
        top_d, top_c = -1e30, -1e30
        for i in range(m):
            at = starts[i] + codes[row, i]
            for k in range(width):
                single[k] += unary[at, k]
        for pair in range(len(first)):
            i, j = first[pair], second[pair]
            a, b = codes[row, i], codes[row, j]
            if dense_at[pair] >= 0:
                at = dense_at[pair] + a * sizes[j] + b
                d0, d1 = dense[at, 0], dense[at, 1]
                for k in range(2, width):
                    total[k] += dense[at, k]
            else:
                row_a, row_b = starts[i] + a, starts[j] + b
                d0, d1 = np.float32(0), np.float32(0)
                if used[pair]:
                    cell = find_cell(row_a * n_ids + row_b, cells, table)
                    d0 = excess[cell, 0] if cell >= 0 else never[0]
                    d1 = excess[cell, 1] if cell >= 0 else never[1]
                for seed in range(n_seeds):
                    dot = np.float32(0)
                    for d in range(dim):
                        dot += vectors[seed, row_a, d] * vectors[seed, row_b, d]
                    total[2 + seed] -= weights[seed, pair] * dot
            if used[pair]:
                total[0] += d0
                total[1] += d1
                top_d = max(top_d, d0)
                top_c = max(top_c, d1)
        out[row, 0], out[row, 1] = single[0], single[1]
        out[row, 2], out[row, 3] = total[0], total[1]
        out[row, 4] = top_d if top_d > -1e30 else 0.0
        out[row, 5] = top_c if top_c > -1e30 else 0.0
        for k in range(2, width):
            out[row, 4 + k] = single[k] + total[k]
    return out


@compiled
def mean_tails(
    members: NDArray[np.float64], knots: Floats, tails: Floats, spans: Floats, groups: Ints
) -> Floats:
    """Return ``-log10`` of the mean tail probability of the groups, but for the calmest one.

    members : ``(n, n_members)``; knots : ``(n_members, n_knots)``, rising scores; tails : the share
    of ordinary events beyond each; spans : ``(n_members,)``, how far beyond the last knot the tail
    falls by e; groups : ``(n_members,)``, rising from 0: a group's tail is the mean of its members'
    """
    n, width = members.shape
    last = knots.shape[1] - 1
    n_groups = groups[width - 1] + 1
    n_of = np.zeros(n_groups)
    for k in range(width):
        n_of[groups[k]] += 1
    of_group = np.zeros(n_groups)
    out = np.empty(n, np.float32)
    for row in range(n):
        of_group[:] = 0
        for k in range(width):
            x = members[row, k]
            if x >= knots[k, last]:
                beyond = (x - knots[k, last]) / spans[k]
                p = tails[k, last] * np.exp(-min(beyond, 60.0))
            elif x < knots[k, 0]:
                p = 1.0
            else:
                low, high = 0, last
                while high - low > 1:
                    middle = (low + high) // 2
                    if x < knots[k, middle]:
                        high = middle
                    else:
                        low = middle
                share = (x - knots[k, low]) / (knots[k, high] - knots[k, low])
                p = tails[k, low] + share * (tails[k, high] - tails[k, low])
            of_group[groups[k]] += p
        total, largest = 0.0, 0.0
        for group in range(n_groups):
            p = of_group[group] / n_of[group]
            total += p
            largest = max(largest, p)
        mean = max((total - largest) / (n_groups - 1), 1e-30)
        out[row] = np.float32(-np.log10(min(mean, 1.0)))
    return out


@compiled
def hash_texts(data: Bytes, offsets: Longs, missing: Flags, out: Hashes, column: int) -> None:
    """Write a hash of each text and its field into ``out[:, column]``; missing ones are alike."""
    field = mix(np.uint64(column + 1) * SEED)
    for row in range(len(offsets) - 1):
        if len(missing) > 0 and missing[row]:
            out[row, column] = mix(field)
        else:
            out[row, column] = mix(hash_bytes(data, offsets[row], offsets[row + 1]) ^ field)


@compiled
def hash_cells(cells: Longs, out: Hashes, column: int) -> None:
    """Write a hash of each cell of a number, and of its field, into ``out[:, column]``."""
    field = mix(np.uint64(column + 1) * SEED)
    for row in range(len(cells)):
        out[row, column] = mix(np.uint64(cells[row]) * FNV_PRIME ^ field)
