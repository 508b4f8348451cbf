"""The members of an ensemble over events, in one pass, and what their scores mean together.

All of them are sums over values and pairs of values: closed forms (`streamad.events.counts`) and
energies of trained models (`streamad.networks.ape`). Small pairs of fields become tables, in which
a pair of values is one look-up for all members; others are computed when they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.errors import ArtifactError
from streamad.events.counts import N_WEIGHTINGS, ClosedForms, pairs_of
from streamad.events.kernels import enter_cells, fill_dense, mean_tails, sum_pairs
from streamad.events.vocabulary import Codes, Vocabulary

N_CLOSED: Final = 3 * N_WEIGHTINGS
"""Marginal, pmi and rarest pair, under both weightings; the columns before the energies."""
MAX_TABLE: Final = 1 << 16
MAX_TABLES: Final = 1 << 21
"""Entries of one pair's table, and of all tables."""
BEHIND: Final = 0.05
"""AUC on nonsense by which a model may stay behind; see `sound`."""
MAX_KNOTS: Final = 256
"""Per member: half of them for all of its scores, half for the highest."""


@dataclass(frozen=True, slots=True)
class Energies:
    """Trained models: ``E(e) = -sum_{i<j} w_ij <v_i, v_j> - sum_i b_i``, one per seed.

    vectors : float32 ``(n_seeds, n_ids, d)``; weights : float32 ``(n_seeds, n_pairs)``, not
    negative; biases : float32 ``(n_seeds, n_ids)``; kinds : uint8 ``(n_seeds,)``, by which loss
    each was trained: models of one kind are one member of the ensemble
    """

    vectors: NDArray[np.float32]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    kinds: NDArray[np.uint8]

    @classmethod
    def none(cls, n_ids: int, n_fields: int) -> Self:
        """Return no model at all."""
        n_pairs = n_fields * (n_fields - 1) // 2
        return cls(
            np.zeros((0, n_ids, 1), np.float32),
            np.zeros((0, n_pairs), np.float32),
            np.zeros((0, n_ids), np.float32),
            np.zeros(0, np.uint8),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as named arrays."""
        names = ("vectors", "weights", "biases", "kinds")
        return {name: getattr(self, name) for name in names}

    def take(self, kinds: NDArray[np.uint8]) -> Energies:
        """Return the models of these kinds alone."""
        kept = np.isin(self.kinds, kinds)
        return Energies(self.vectors[kept], self.weights[kept], self.biases[kept], self.kinds[kept])

    @property
    def groups(self) -> NDArray[np.int32]:
        """Return the member each column of `Members.of` is part of; seeds of a kind share one."""
        _, of_kind = np.unique(self.kinds, return_inverse=True)
        return np.append(np.arange(N_CLOSED), N_CLOSED + of_kind).astype(np.int32)

    @classmethod
    def from_state(cls, vocabulary: Vocabulary, state: dict[str, NDArray[Any]]) -> Self:
        """Read back what `state` returned; ArtifactError where it does not fit the vocabulary."""
        vectors, weights, biases = (
            np.ascontiguousarray(state[name], np.float32)
            for name in ("vectors", "weights", "biases")
        )
        kinds = np.ascontiguousarray(state["kinds"], np.uint8)
        n_fields, n_ids, n = len(vocabulary.names), vocabulary.n_ids, len(vectors)
        n_pairs = n_fields * (n_fields - 1) // 2
        fits = vectors.ndim == 3 and vectors.shape[1] == n_ids and vectors.shape[2] > 0
        fits &= weights.shape == (n, n_pairs) and kinds.shape == (n,)
        if not fits or biases.shape != (n, n_ids):
            msg = (
                f"vectors of the shape {vectors.shape}, expected (seeds, {n_ids}, d); fit it again"
            )
            raise ArtifactError(msg)
        if not all(np.isfinite(one).all() for one in (vectors, weights, biases)):
            msg = "the models hold values that are not finite; fit them again"
            raise ArtifactError(msg)
        return cls(vectors, weights, biases, kinds)


class Members:
    """All members of the ensemble, ready to score encoded events.

    Attributes
    ----------
    pairs : first and second field of each pair, the place of its table in ``dense`` (-1: none), and
        whether it counts; int64, int64, int64, bool ``(n_pairs,)``
    counted_pairs : pairs of values that were seen, their ``-PMI``, that of the others, and a table
        that finds them; see `ClosedForms`
    dense : float32 ``(n_entries, 2 + n_seeds)``, the same and the energies of all pairs of values
        of small fields
    """

    def __init__(self, vocabulary: Vocabulary, closed: ClosedForms, energies: Energies) -> None:
        self.vocabulary, self.closed, self.energies = vocabulary, closed, energies
        self._fields = (vocabulary.starts, vocabulary.sizes)
        first, second = pairs_of(len(vocabulary.names))
        products = vocabulary.sizes[first] * vocabulary.sizes[second]
        order = np.argsort(products, kind="stable")
        fits = (np.cumsum(products[order]) <= MAX_TABLES) & (products[order] <= MAX_TABLE)
        dense_at = np.full(len(first), -1, np.int64)
        dense_at[order[fits]] = np.cumsum(products[order[fits]]) - products[order[fits]]
        table = np.full(1 << max((2 * len(closed.cells)).bit_length(), 3), -1, np.int32)
        enter_cells(closed.cells, table)
        # With no pair at all the arrays still need a row, so that kernels can index them.
        excess = closed.excess if len(closed.excess) else np.zeros((1, 2), np.float32)
        self.counted_pairs = (closed.cells, excess, closed.never, table)
        self._energies = (energies.vectors, energies.weights)
        self._unary = np.ascontiguousarray(
            np.concatenate([closed.surprise, -energies.biases.T], axis=1), np.float32
        )
        width = N_WEIGHTINGS + len(energies)
        self.dense = np.zeros((max(int(products[order[fits]].sum()), 1), width), np.float32)
        fill_dense(
            self._fields, first, second, dense_at, self.counted_pairs, self._energies, self.dense
        )
        self.pairs = (first, second, dense_at, closed.used)

    @cached_property
    def own_share(self) -> NDArray[np.float32]:
        """Return the share of training events that have each value ``(n_ids,)``.

        0 of a bucket: many texts share it, and of one of them alone its share says nothing.
        """
        return np.where(self.vocabulary.single, self.closed.share, np.float32(0))

    def of(self, codes: Codes) -> NDArray[np.float64]:
        """Return the members of each event ``(n, 6 + n_seeds)``; higher is stranger.

        codes : int32 ``(n, m)`` as `Vocabulary.encode` returns them
        """
        return sum_pairs(
            codes,
            self._fields,
            self.pairs,
            self.counted_pairs,
            self._energies,
            self._unary,
            self.dense,
        )

    def energy_parts(self, codes: Codes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the energy by value ``(n, m)`` and by pair ``(n, n_pairs)``, means over seeds."""
        rows = codes.astype(np.int64) + self.vocabulary.starts
        first, second = pairs_of(codes.shape[1])
        n = max(len(self.energies), 1)
        single, paired = np.zeros(rows.shape), np.zeros((len(rows), len(first)))
        for seed in range(len(self.energies)):
            vectors = self.energies.vectors[seed].astype(np.float64)[rows]
            dots = (vectors[:, first] * vectors[:, second]).sum(axis=2)
            paired -= self.energies.weights[seed] * dots / n
            single -= self.energies.biases[seed][rows] / n
        return single, paired


@dataclass(frozen=True, slots=True)
class Ranks:
    """What is ordinary for each member: its scores on held-out events, as tail probabilities.

    knots : float32 ``(n_members, n_knots)``, rising; tails : float32, share of ordinary events
    beyond each, half of those equal; spans : float32 ``(n_members,)``: beyond the last knot the
    tail falls by e per span; groups : int32 ``(n_members,)``: columns of one group are averaged
    """

    knots: NDArray[np.float32]
    tails: NDArray[np.float32]
    spans: NDArray[np.float32]
    groups: NDArray[np.int32]

    @classmethod
    def fit(cls, members: NDArray[np.float64], groups: NDArray[np.int32]) -> Self:
        """Measure held-out events ``(n, n_members)``; n of 1 or more."""
        knots, tails, spans = [], [], []
        for column in members.T:
            own = np.sort(column.astype(np.float32))
            n = len(own)
            evenly = np.linspace(0, n - 1, MAX_KNOTS // 2).round().astype(np.int64)
            at = np.unique(np.append(evenly, np.arange(max(n - MAX_KNOTS // 2, 0), n)))
            marks = own[at]
            below = np.searchsorted(own, marks, side="left")
            upto = np.searchsorted(own, marks, side="right")
            beyond = 1 - (below + upto + 1) / 2 / (n + 1)
            most = float(np.quantile(own, 0.9))
            excess = own[own > most].astype(np.float64) - most
            spread = max(float(own[-1] - own[0]), 1e-3)
            spans.append(max(float(excess.mean()) if len(excess) else 0.0, 0.01 * spread))
            knots.append(np.pad(marks, (0, MAX_KNOTS - len(marks)), mode="edge"))
            tails.append(np.pad(beyond, (0, MAX_KNOTS - len(beyond)), mode="edge"))
        return cls(
            np.stack(knots).astype(np.float32),
            np.stack(tails).astype(np.float32),
            np.array(spans, np.float32),
            groups,
        )

    def score(self, members: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return ``-log10`` of the mean tail probability, the calmest member left out ``(n,)``.

        A mean ranks events as averaged ranks do, and one member that is blind to a kind of anomaly
        cannot hide it. Seeds of one model count as one member.
        """
        return mean_tails(members, self.knots, self.tails, self.spans, self.groups)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as named arrays."""
        return {"knots": self.knots, "tails": self.tails, "spans": self.spans}

    @classmethod
    def from_state(cls, groups: NDArray[np.int32], state: dict[str, NDArray[Any]]) -> Self:
        """Read back what `state` returned; ArtifactError where it does not fit."""
        knots, tails, spans = (
            np.ascontiguousarray(state[name], np.float32) for name in ("knots", "tails", "spans")
        )
        n_members = len(groups)
        shape = (n_members, MAX_KNOTS)
        if knots.shape != shape or tails.shape != shape or spans.shape != (n_members,):
            msg = f"the ranks have the shape {knots.shape}, expected {shape}; fit it again"
            raise ArtifactError(msg)
        usable = np.isfinite(knots).all() and (np.diff(knots) >= 0).all() and (spans > 0).all()
        if not usable or not ((tails >= 0) & (tails <= 1)).all():
            msg = "the ranks do not rise, or are no probabilities; fit it again"
            raise ArtifactError(msg)
        return cls(knots, tails, spans, groups)


def sound(members: Members, events: Codes, ordinary: NDArray[np.float64], seed: int) -> Energies:
    """Return the models that recognise nonsense, of each kind all or none.

    Half of the fields of held-out events get values drawn evenly from those of training, and the
    members are compared by how often they find these stranger (AUC, the mean over a kind's seeds).
    Models that stay `BEHIND` the best closed form or more have not learned what is ordinary, and
    would only blur what the others see.

    events : held-out ``(n, m)``; ordinary : their members ``(n, n_members)``
    """
    vocabulary, energies = members.vocabulary, members.energies
    rng = np.random.default_rng([seed, 0x5041])
    nonsense = events.copy()
    for field, (start, size) in enumerate(zip(vocabulary.starts, vocabulary.sizes, strict=True)):
        known = np.flatnonzero(vocabulary.counts[start + 1 : start + size] > 0) + 1
        drawn = rng.choice(known, len(events)).astype(np.int32)
        replaced = rng.random(len(events)) < 0.5
        nonsense[:, field] = np.where(replaced, drawn, events[:, field])
    strange = members.of(nonsense)
    aucs = np.array([_auc(a, b) for a, b in zip(ordinary.T, strange.T, strict=True)])
    least = aucs[:N_CLOSED].max() - BEHIND
    of_seed = aucs[N_CLOSED:]
    kinds = np.unique(energies.kinds)
    kept = [kind for kind in kinds if of_seed[energies.kinds == kind].mean() >= least]
    return energies.take(np.array(kept, np.uint8))


def _auc(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return how often a score of ``high`` is above one of ``low``; ties count half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / max(len(low), 1))
