"""How likely each value of an event is, given all others: what explanations call usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.events.members import Members
from streamad.events.tail_kernels import tails_of_values
from streamad.events.vocabulary import FIRST, Codes

MOST_VALUES: Final = 1024
"""Texts of a field that an observed one is compared with, the most frequent: rarer ones are hardly
what is usual, and an explanation must not cost as much as a field has values."""
UNLIKELY: Final = 20.0
"""Nats by which an id that was never counted is less likely than the rest."""


@dataclass(frozen=True, slots=True)
class FieldTails:
    """How likely each value is, given all others of its event.

    p : float64 ``(n, m)``, mid-p: the share of values less likely, and half of those as likely
    usual : int32 ``(n, m)``, the id of the most likely value
    """

    p: NDArray[np.float64]
    usual: NDArray[np.int32]


def field_tails(members: Members, codes: Codes) -> FieldTails:
    """Return the mid-p-value of every field of encoded events ``(n, m)``.

    ``p_i = sum_v P(v) [P(v) < P(a_i)] + sum_v P(v) [P(v) = P(a_i)] / 2``, ``P`` given the others:
    by the trained models, the mean over seeds of their log odds; without any by counts, the mean
    over the other fields of ``log p(value | their value)``. Of a field with more than `MOST_VALUES`
    texts the most frequent are compared, and the observed one.
    """
    vocabulary, closed, energies = members.vocabulary, members.closed, members.energies
    p, usual = np.ones(codes.shape), np.zeros(codes.shape, np.int32)
    most = np.minimum(vocabulary.sizes, FIRST + vocabulary.buckets + MOST_VALUES)
    possible = np.where(vocabulary.counts > 0, 0.0, -UNLIKELY)
    counted = possible - closed.surprise[:, -1]
    tails_of_values(
        np.require(codes, np.int32, ["C", "W"]),
        (vocabulary.starts, vocabulary.sizes, most),
        members.pairs,
        members.counted_pairs,
        members.dense,
        (_own(energies.vectors), _own(energies.weights), _own(energies.biases)),
        (possible, counted),
        p,
        usual,
    )
    return FieldTails(np.clip(p, 0, 1), usual)


def _own(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an array as kernels were compiled for: those read from a file may be read-only."""
    return np.require(array, np.float32, ["C", "W"])
