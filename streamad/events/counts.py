"""Closed forms: how rare values and pairs of values are among training events.

Per weighting ``W`` of distinct events (each once; each as often as it happened)::

    marginal(e) = -sum_i log p_W(a_i),           p_W(a) = (c_a + 1/2) / (N + |A_i| / 2)
    pmi(e)      = -sum_{i<j} PMI_W(a_i, a_j),    PMI = log (c_ab + k p_a p_b) / ((N + k) p_a p_b)
    rarest(e)   = max_{i<j} -PMI_W(a_i, a_j)

``k`` = 0.1 was chosen on held-out training events against corrupted ones. A pair never seen has the
same PMI, whatever its values: ``-log((N + k) / k)``. The pair surprise ``-sum log p(a_i, a_j)`` is
``(m - 1) marginal + pmi``, and adds nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import ArtifactError
from streamad.events.vocabulary import UNKNOWN, Codes, Vocabulary

WEIGHTINGS: Final = ("distinct", "count")
N_WEIGHTINGS: Final = len(WEIGHTINGS)
SMOOTHING: Final = 0.1
PRIOR: Final = 0.5
MAX_CELLS: Final = 1 << 20
"""Pairs of values kept over all pairs of fields; the most diverse pairs of fields are left out."""
MAX_CELLS_PER_PAIR: Final = 1 << 17


def distinct(codes: Codes, weights: NDArray[np.float64]) -> tuple[Codes, NDArray[np.float64]]:
    """Return the distinct events ``(n_distinct, m)`` in order of appearance, and their mass."""
    names = [f"f{field}" for field in range(codes.shape[1])]
    frame = pl.DataFrame(dict(zip(names, codes.T, strict=True))).with_columns(mass=weights)
    grouped = frame.group_by(names, maintain_order=True).agg(pl.col("mass").sum())
    rows = grouped.select(names).to_numpy().astype(np.int32)
    return np.ascontiguousarray(rows), grouped["mass"].to_numpy().astype(np.float64)


def pairs_of(n_fields: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the second field of each pair, in the order (0, 1), (0, 2) .."""
    first, second = np.triu_indices(n_fields, 1)
    return first.astype(np.int64), second.astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClosedForms:
    """Surprise of values, and of pairs, under each weighting.

    surprise : float32 ``(n_ids, 2)``, ``-log p`` of each value; fields one after the other
    cells : int64 ``(n_cells,)``, pairs of values that were seen, rising: ``row_a * n_ids + row_b``
    excess : float32 ``(n_cells, 2)``, ``-PMI`` of each
    never : float32 ``(2,)``, ``-PMI`` of a pair that was never seen
    used : bool ``(n_pairs,)``, pairs of fields that count; others have too many different pairs
    share : float32 ``(n_ids,)``, share of training rows that have the value, smoothed
    """

    surprise: NDArray[np.float32]
    cells: NDArray[np.int64]
    excess: NDArray[np.float32]
    never: NDArray[np.float32]
    used: NDArray[np.bool_]
    share: NDArray[np.float32]

    @classmethod
    def fit(cls, vocabulary: Vocabulary, events: Codes, counts: NDArray[np.float64]) -> Self:
        """Count distinct events ``(n, m)`` that happened ``counts`` ``(n,)`` times."""
        rows = events.astype(np.int64) + vocabulary.starts
        masses = (np.ones(len(events)), counts)
        log_p = np.stack([_log_shares(vocabulary, events, mass) for mass in masses], axis=1)
        kept: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        first, second = pairs_of(events.shape[1])
        for i, j in zip(first, second, strict=True):
            keys = rows[:, i] * vocabulary.n_ids + rows[:, j]
            cells, of_cell = np.unique(keys, return_inverse=True)
            seen = np.stack([np.bincount(of_cell, mass) for mass in masses], axis=1)
            kept.append((cells, seen))
        used = _fitting([len(cells) for cells, _ in kept])
        chosen = [one for one, use in zip(kept, used, strict=True) if use]
        cells = np.concatenate([np.zeros(0, np.int64), *(one[0] for one in chosen)])
        seen = np.concatenate([np.zeros((0, N_WEIGHTINGS)), *(one[1] for one in chosen)])
        order = np.argsort(cells)
        cells, seen = cells[order], seen[order]
        totals = np.array([mass.sum() for mass in masses])
        joint = log_p[cells // vocabulary.n_ids] + log_p[cells % vocabulary.n_ids]
        prior = SMOOTHING * np.exp(joint)
        excess = joint + np.log(totals + SMOOTHING) - np.log(seen + prior)
        return cls(
            surprise=(-log_p).astype(np.float32),
            cells=cells,
            excess=excess.astype(np.float32),
            never=np.log((totals + SMOOTHING) / SMOOTHING).astype(np.float32),
            used=used,
            share=np.exp(log_p[:, -1]).astype(np.float32),
        )

    def pair_excess(self, vocabulary: Vocabulary, codes: Codes) -> NDArray[np.float32]:
        """Return ``-PMI`` of every pair of fields ``(n, n_pairs, 2)``; 0 where one is not used."""
        at, seen = self._find(vocabulary, codes)
        found = np.where(seen[:, :, None], self.excess[at], self.never)
        return np.where(self.used[:, None], found, np.float32(0))

    def pair_seen(self, vocabulary: Vocabulary, codes: Codes) -> NDArray[np.bool_]:
        """Return which pairs of values were seen in training ``(n, n_pairs)``."""
        return self._find(vocabulary, codes)[1] | ~self.used

    def _find(
        self, vocabulary: Vocabulary, codes: Codes
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        rows = codes.astype(np.int64) + vocabulary.starts
        first, second = pairs_of(codes.shape[1])
        keys = rows[:, first] * vocabulary.n_ids + rows[:, second]
        if len(self.cells) == 0:
            return np.zeros(keys.shape, np.int64), np.zeros(keys.shape, np.bool_)
        at = np.minimum(np.searchsorted(self.cells, keys), len(self.cells) - 1)
        return at, self.cells[at] == keys

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as named arrays."""
        return {
            "surprise": self.surprise,
            "cells": self.cells,
            "excess": self.excess,
            "never": self.never,
            "used": self.used.astype(np.uint8),
            "share": self.share,
        }

    @classmethod
    def from_state(cls, vocabulary: Vocabulary, state: dict[str, NDArray[Any]]) -> Self:
        """Read back what `state` returned; ArtifactError where it does not fit the vocabulary."""
        n_fields, n_ids, n_cells = len(vocabulary.names), vocabulary.n_ids, len(state["cells"])
        shapes = {
            "surprise": (n_ids, N_WEIGHTINGS),
            "cells": (n_cells,),
            "excess": (n_cells, N_WEIGHTINGS),
            "never": (N_WEIGHTINGS,),
            "used": (n_fields * (n_fields - 1) // 2,),
            "share": (n_ids,),
        }
        wrong = [name for name, shape in shapes.items() if state[name].shape != shape]
        if wrong:
            msg = f"counts of events: {', '.join(wrong)} of a wrong shape; fit it again"
            raise ArtifactError(msg)
        cells = state["cells"].astype(np.int64)
        if n_cells and not (
            (np.diff(cells) > 0).all() and cells[0] >= 0 and cells[-1] < n_ids * n_ids
        ):
            msg = "counts of events: pairs of values out of range; fit it again"
            raise ArtifactError(msg)
        floats = {name: state[name].astype(np.float32) for name in ("surprise", "excess", "never")}
        share = np.clip(state["share"].astype(np.float32), 1e-12, 1)
        if not all(np.isfinite(array).all() for array in (*floats.values(), share)):
            msg = "counts of events: values that are not finite; fit it again"
            raise ArtifactError(msg)
        return cls(cells=cells, used=state["used"].astype(np.bool_), share=share, **floats)


def _log_shares(
    vocabulary: Vocabulary, events: Codes, mass: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``log p`` of every id; unknown has the share a new value is due with."""
    parts = []
    total = float(mass.sum())
    for field, size in enumerate(vocabulary.sizes):
        counts = np.bincount(events[:, field], weights=mass, minlength=int(size))
        counts[UNKNOWN] += total * vocabulary.due[field]
        parts.append(np.log((counts + PRIOR) / (counts.sum() + PRIOR * size)))
    return np.concatenate(parts)


def _fitting(n_cells: list[int]) -> NDArray[np.bool_]:
    """Return which pairs of fields are kept: the least diverse first, while there is room."""
    sizes = np.array(n_cells, np.int64)
    order = np.argsort(sizes, kind="stable")
    used = np.zeros(len(sizes), np.bool_)
    used[order] = (np.cumsum(sizes[order]) <= MAX_CELLS) & (sizes[order] <= MAX_CELLS_PER_PAIR)
    return used
