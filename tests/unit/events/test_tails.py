"""What is usual given the other fields: the kernel against sums written out."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from streamad.detectors.events.rare import RareEvents
from streamad.events import tails
from streamad.events.counts import pairs_of
from streamad.events.members import Energies, Members
from streamad.events.rows import EventRows
from streamad.events.vocabulary import UNKNOWN, Codes


def fitted(n: int = 400) -> tuple[Members, Codes]:
    """Return members of three fields of texts and one of numbers, and events old and new."""
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 9, n)
    fields = pl.DataFrame(
        {
            "user": [f"u{k}" for k in kind],
            "host": [f"h{k}" for k in kind // 2 + rng.integers(0, 2, n)],
            "tool": [f"t{k}" for k in rng.zipf(1.6, n) % 30],
            "bytes": rng.normal(size=n),
        }
    )
    detector = RareEvents().fit(EventRows(np.arange(n), fields))
    members = detector._members
    assert members is not None
    codes = members.vocabulary.encode(EventRows(np.arange(60), fields[:60]))
    codes[::7, 2] = UNKNOWN
    codes[3::9, 1] = (codes[3::9, 1] + 1) % members.vocabulary.sizes[1]
    return members, codes


def reference(members: Members, codes: Codes, field: int) -> NDArray[np.float64]:
    """Return ``log p(value | the others)`` up to a constant, of every id ``(n, size)``."""
    vocabulary, energies = members.vocabulary, members.energies
    start, size = int(vocabulary.starts[field]), int(vocabulary.sizes[field])
    first, second = pairs_of(codes.shape[1])
    odds = np.zeros((len(codes), size))
    for row, value in itertools.product(range(len(codes)), range(size)):
        event = codes[row].copy()
        event[field] = value
        impossible = -tails.UNLIKELY * (vocabulary.counts[start + value] <= 0)
        beside = (first == field) | (second == field)
        if len(energies):
            single, paired = members.energy_parts(event[None])
            odds[row, value] = impossible - single[0, field] - paired[0, beside].sum()
        else:
            excess = members.closed.pair_excess(vocabulary, event[None])[0, beside, -1]
            surprise = members.closed.surprise[start + value, -1]
            odds[row, value] = impossible - surprise - excess.mean()
    return odds


def with_models(members: Members) -> Members:
    """Return the members with two models of random weights."""
    rng = np.random.default_rng(5)
    n_ids = members.vocabulary.n_ids
    energies = Energies(
        rng.normal(size=(2, n_ids, 3)).astype(np.float32),
        rng.random((2, 6)).astype(np.float32),
        rng.normal(size=(2, n_ids)).astype(np.float32),
        np.zeros(2, np.uint8),
    )
    return Members(members.vocabulary, members.closed, energies)


@pytest.mark.parametrize("tables", ["dense", "sparse"])
@pytest.mark.parametrize("by", ["models", "counts"])
def test_tails_are_those_of_the_sums_written_out(by: str, tables: str) -> None:
    members, codes = fitted()
    members = with_models(members) if by == "models" else members
    if tables == "sparse":
        members.pairs[2][:] = -1
    found = tails.field_tails(members, codes)
    for field in range(codes.shape[1]):
        odds = reference(members, codes, field)
        chance = np.exp(odds - odds.max(axis=1, keepdims=True))
        own = np.take_along_axis(odds, codes[:, field][:, None].astype(np.int64), axis=1)
        alike = np.isclose(odds, own, rtol=0, atol=1e-5)
        less = (chance * ((odds < own) & ~alike)).sum(axis=1) + (chance * alike).sum(axis=1) / 2
        np.testing.assert_allclose(found.p[:, field], less / chance.sum(axis=1), atol=1e-4)
        best = np.take_along_axis(odds, found.usual[:, field][:, None].astype(np.int64), axis=1)
        np.testing.assert_allclose(best[:, 0], odds.max(axis=1), atol=1e-5)


def test_a_field_of_many_texts_is_compared_with_its_most_frequent_and_the_observed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members, codes = fitted()
    whole = tails.field_tails(members, codes)
    monkeypatch.setattr(tails, "MOST_VALUES", 2)
    cut = tails.field_tails(members, codes)
    least = members.vocabulary.buckets + 2 + 2
    assert (codes[:, 2] >= least).any(), "no observed value lies beyond the most frequent"
    common = whole.usual[:, 2] < least
    assert common.any()
    assert (cut.usual[common, 2] == whole.usual[common, 2]).all()
    beyond = cut.usual[:, 2] >= least
    assert (cut.usual[beyond, 2] == codes[beyond, 2]).all()
    assert np.isfinite(cut.p).all()
