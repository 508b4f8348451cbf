"""The compiled loop over what a field could hold; see `streamad.events.tails`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.events.kernels import find_cell

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ALIKE = 1e-5
"""Odds as close as this are equal: they are sums of float32."""


@compiled
def tails_of_values(
    codes: Ints,
    fields: tuple[Longs, Longs, Longs],
    pairs: tuple[Longs, Longs, Longs, NDArray[np.bool_]],
    closed: tuple[Longs, Floats, Floats, Ints],
    dense: Floats,
    energies: tuple[Floats, Floats, Floats],
    alone: tuple[Doubles, Doubles],
    p: Doubles,
    usual: Ints,
) -> None:
    """Write mid-p-values and the most likely ids ``(n, m)``; see `field_tails`.

    fields : starts, sizes, and how many ids are compared, ``(m,)``; pairs, closed, dense : as of
    `streamad.events.kernels.sum_pairs`; energies : vectors, pair weights, biases
    alone : log odds of each id ``(n_ids,)`` before models, and by counts
    """
    starts, sizes, most = fields
    first, second, dense_at, used = pairs
    cells, excess, never, table = closed
    all_ids = starts[-1] + sizes[-1]
    vectors, weights, biases = energies
    n, m = codes.shape
    n_seeds, dim = vectors.shape[0], vectors.shape[2]
    odds = np.empty(most.max() + 1)
    around = np.empty(dim)
    for row in range(n):
        for field in range(m):
            start, own = starts[field], codes[row, field]
            # The observed value stands last where it is not among those that are compared.
            n_ids = most[field]
            apart = own >= n_ids
            n_odds = n_ids + 1 if apart else n_ids
            base = alone[1] if n_seeds == 0 else alone[0]
            for place in range(n_odds):
                odds[place] = base[start + (own if place == n_ids else place)]
            for seed in range(n_seeds):
                around[:] = 0
                for pair in range(len(first)):
                    if first[pair] != field and second[pair] != field:
                        continue
                    other = second[pair] if first[pair] == field else first[pair]
                    at = starts[other] + codes[row, other]
                    for d in range(dim):
                        around[d] += weights[seed, pair] * vectors[seed, at, d]
                for place in range(n_odds):
                    at = start + (own if place == n_ids else place)
                    dot = np.float64(biases[seed, at])
                    for d in range(dim):
                        dot += around[d] * vectors[seed, at, d]
                    odds[place] += dot / n_seeds
            if n_seeds == 0:
                for pair in range(len(first)):
                    if not used[pair] or (first[pair] != field and second[pair] != field):
                        continue
                    is_first = first[pair] == field
                    other = second[pair] if is_first else first[pair]
                    beside, table_at = np.int64(codes[row, other]), dense_at[pair]
                    # From one value of the field to the next, in the table and among the keys.
                    step = sizes[other] if is_first else np.int64(1)
                    table_at += beside if is_first else beside * sizes[field]
                    key = np.int64(starts[other] + beside)
                    key_step = all_ids if is_first else np.int64(1)
                    key = start * all_ids + key if is_first else key * all_ids + start
                    for place in range(n_odds):
                        value = np.int64(own if place == n_ids else place)
                        if dense_at[pair] >= 0:
                            here = dense[table_at + value * step, 1]
                        else:
                            cell = find_cell(key + value * key_step, cells, table)
                            here = excess[cell, 1] if cell >= 0 else never[1]
                        odds[place] -= here / (m - 1)
            mine = odds[n_ids] if apart else odds[own]
            top, best = odds[0], 0
            for place in range(n_odds):
                if odds[place] > top:
                    top, best = odds[place], place
            total, less, equal = 0.0, 0.0, 0.0
            for place in range(n_odds):
                chance = np.exp(odds[place] - top)
                total += chance
                if odds[place] < mine - ALIKE:
                    less += chance
                elif odds[place] <= mine + ALIKE:
                    equal += chance
            p[row, field] = (less + 0.5 * equal) / total
            usual[row, field] = own if best == n_ids else best
