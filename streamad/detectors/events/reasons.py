"""Why an event is strange, in plain words: new or rare values or pairs, or rare for its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import Floats
from streamad.events.counts import pairs_of
from streamad.events.members import Members
from streamad.events.rows import EventRows
from streamad.events.tails import field_tails
from streamad.events.vocabulary import UNKNOWN, Codes
from streamad.records import Explanation, Part

MAX_TEXT: Final = 80
"""Characters of a value that are quoted."""
UNUSUAL: Final = 0.1
"""A value whose tail probability, given the others, is less has an expected value beside it."""


def explain_keys(items: EventRows, judged: Floats | None) -> list[Explanation]:
    """Explain events by their keys' own counts alone, ``judged`` ``(n, m, 2)``."""
    made = []
    for row in range(len(items)):
        observed, quoted = _values(items, row)
        own = np.zeros(len(quoted)) if judged is None else judged[row, :, 0].astype(np.float64)
        top = int(own.argmax()) if len(own) else 0
        text = "nothing is known of this key yet"
        if len(own) and own[top] > 0:
            text = f"rare for this key: {quoted[top]}"
        made.append(
            Explanation(
                observed=observed,
                expected={},
                variates=_shares(items.names, own),
                time_ms=int(items.time_ms[row]),
                text=text,
            )
        )
    return made


def explain_events(
    items: EventRows, members: Members, codes: Codes, combined: Floats, judged: Floats | None
) -> list[Explanation]:
    """Explain events by counts and models of training, and by their keys' counts where known.

    combined : scores without a memory ``(n,)``
    """
    if len(items) == 0:
        return []
    evidence = Evidence.of(members, codes)
    tails = field_tails(members, codes)
    made = []
    for row in range(len(items)):
        observed, quoted = _values(items, row)
        peers = (
            np.zeros(len(quoted)) if judged is None else judged[row].min(axis=1).astype(np.float64)
        )
        by_key = len(peers) > 0 and peers.max() - np.log10(len(peers)) >= combined[row]
        if by_key and peers.max() > 0:
            parts, text = (
                peers,
                f"rare for this key (common among its peers): {quoted[int(peers.argmax())]}",
            )
        else:
            parts = evidence.by_field(row)
            text = _reason(members, evidence, codes, row, quoted)
        expected: dict[str, Part] = {}
        for field, name in enumerate(items.names):
            usual = int(tails.usual[row, field])
            if tails.p[row, field] < UNUSUAL and usual != codes[row, field]:
                expected[name] = _short(members.vocabulary.text_of(field, usual))
        made.append(
            Explanation(
                observed=observed,
                expected=expected,
                variates=_shares(items.names, parts),
                time_ms=int(items.time_ms[row]),
                text=text,
            )
        )
    return made


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is strange about each value and each pair, in nats; 0 where nothing is.

    values : float64 ``(n, m)``, surprise above what is usual in that field
    pairs : float64 ``(n, n_pairs)``, ``-PMI`` where positive, and energy where positive
    fields : the first and the second field of each pair, ``(n_pairs,)``
    seen : bool ``(n, n_pairs)``, the pair of values was seen in training
    due : float64 ``(n, n_pairs)``, ``log`` of the share of events that would have it by chance
    """

    values: NDArray[np.float64]
    pairs: NDArray[np.float64]
    fields: tuple[NDArray[np.int64], NDArray[np.int64]]
    seen: NDArray[np.bool_]
    due: NDArray[np.float64]

    @classmethod
    def of(cls, members: Members, codes: Codes) -> Evidence:
        """Measure encoded events ``(n, m)``."""
        closed, vocabulary = members.closed, members.vocabulary
        surprise = closed.surprise.astype(np.float64)
        weighted = np.exp(-surprise) * surprise
        usual = np.add.reduceat(weighted, vocabulary.starts, axis=0)
        rows = codes.astype(np.int64) + vocabulary.starts
        values = np.maximum(surprise[rows] - usual, 0).mean(axis=2)
        excess = closed.pair_excess(vocabulary, codes).astype(np.float64)
        _, energy = members.energy_parts(codes)
        first, second = pairs_of(codes.shape[1])
        share = np.log(closed.share.astype(np.float64))[rows]
        return cls(
            values=values,
            pairs=np.maximum(excess, 0).mean(axis=2) + np.maximum(energy, 0),
            fields=(first, second),
            seen=closed.pair_seen(vocabulary, codes),
            due=share[:, first] + share[:, second],
        )

    def by_field(self, row: int) -> NDArray[np.float64]:
        """Return each field's part: its value's, and half of its pairs'."""
        parts: NDArray[np.float64] = self.values[row].copy()
        for fields in self.fields:
            np.add.at(parts, fields, 0.5 * self.pairs[row])
        return parts


def _reason(members: Members, evidence: Evidence, codes: Codes, row: int, quoted: list[str]) -> str:
    """Return the strongest reason in words."""
    vocabulary, own = members.vocabulary, codes[row]
    new = np.flatnonzero(own == UNKNOWN)
    if len(new):
        kinds = {bool(vocabulary.numbers[field]) for field in new}
        how = "outside the range seen in training" if kinds == {True} else "not seen in training"
        return f"new value: {', '.join(quoted[field] for field in new[:3])} ({how})"
    first, second = evidence.fields
    unseen = np.flatnonzero(~evidence.seen[row])
    if len(unseen):
        # All pairs that are new are as surprising; the one that was due most often is named.
        top = int(unseen[evidence.due[row, unseen].argmax()])
        return f"new pair: {quoted[first[top]]} with {quoted[second[top]]}"
    value = int(evidence.values[row].argmax())
    if len(first) == 0 or evidence.values[row, value] >= evidence.pairs[row].max():
        share = float(members.closed.share[vocabulary.starts[value] + own[value]])
        return f"rare value: {quoted[value]} ({_one_in(share)})"
    top = int(evidence.pairs[row].argmax())
    return f"rare combination: {quoted[first[top]]} with {quoted[second[top]]}"


def _one_in(share: float) -> str:
    return f"about 1 in {max(round(1 / max(share, 1e-9)), 1):,} events"


def _values(items: EventRows, row: int) -> tuple[dict[str, Part], list[str]]:
    """Return the values of a row, missing ones left out, and ``field=value`` of all fields."""
    observed: dict[str, Part] = {}
    quoted = []
    for name, value in items.fields.row(row, named=True).items():
        if value is None or value != value:  # noqa: PLR0124 a number that is missing
            quoted.append(f"{name} missing")
        elif isinstance(value, str):
            observed[name] = _short(value)
            quoted.append(f"{name}={observed[name]}")
        else:
            observed[name] = float(value)
            quoted.append(f"{name}={value:g}")
    return observed, quoted


def _short(value: str) -> str:
    """Return a value on one line, no longer than is read."""
    if len(value) <= MAX_TEXT and value.isprintable() and "  " not in value:
        return value.strip() or value
    line = " ".join(value.split()) if value.strip() else value
    shown = "".join(c if c.isprintable() else "?" for c in line)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def _shares(names: tuple[str, ...], parts: NDArray[np.float64]) -> dict[str, float]:
    """Return parts as shares that sum to 1; equal ones where there is nothing."""
    total = float(parts.sum())
    if len(names) == 0:
        return {}
    even = 1 / len(names)
    return {n: float(p) / total if total > 0 else even for n, p in zip(names, parts, strict=True)}
