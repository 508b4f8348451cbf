"""Rare values and rare pairs of values, by counts alone; a detector that can start with nothing."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    ItemDetector,
    Memory,
)
from streamad.detectors.events.peers import EVERY, PeerMemory, hashes_of
from streamad.detectors.events.reasons import explain_events, explain_keys
from streamad.errors import ArtifactError, NotFittedError, TrainingError, WindowError
from streamad.events.counts import ClosedForms, distinct
from streamad.events.decades import Decades
from streamad.events.members import Energies, Members, Ranks, sound
from streamad.events.rows import Encoded, EventRows
from streamad.events.vocabulary import UNKNOWN, Codes, Vocabulary, VocabularySize, texts_of
from streamad.records import Explanation

HELD_OUT: Final = 5
"""One in so many distinct training events measures what is ordinary."""
FEW: Final = 20
"""Distinct events below which none is held out."""
MAX_GROUPS: Final = 4096
"""Training keys whose own counts an artifact holds; others start from the population alone."""
PEERS: Final = ("counts", "totals", "habits")


class RareEvents(ItemDetector[EventRows]):
    """Decide by how rare an event's values are, and how rare they are together.

    Fitted, six members are read from counts of training events (`streamad.events.counts`): the
    marginal surprise, the sum of ``-PMI`` over pairs of fields and the rarest pair, each for
    distinct events and for events as often as they happened. A member's score becomes the share of
    held-out training events beyond it; the event's score is ``-log10`` of the mean of these, the
    calmest member left out. So a score of 3 is about one event in a thousand.

    With a memory the key itself counts too: a value that is common in the population and that the
    key, which has many events, never or seldom has, is *rare for this key*. Without an artifact the
    key's own habits are all there is: each value's share of the key's events, against how rare the
    values of that field usually are for this key.

    Cost per event: one look-up per pair of fields. To avoid: fields of ever new values (ids,
    timestamps); they share buckets, and add nothing but cost.

    Parameters
    ----------
    min_count : events a text needs in training for an id of its own
    max_values : ids of texts per field at the most
    buckets : per field, shared by rarer texts
    seed : of the choice of held-out events
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="rare_events",
        summary="rare values and rare pairs of values, by counts; needs no training",
        modality="events",
        min_size=1,
        default_size=1,
        learns=True,
        warm_up=2 * EVERY,
        learn_every=EVERY,
        delay=EVERY,
        cost="cheap",
        tail=(0.7, 1.3, 2.1, 2.9),
    )

    calibrated = True
    keeps_memory = True

    def __init__(
        self,
        *,
        min_count: int = 2,
        max_values: int = 32_768,
        buckets: int = 16,
        seed: int = 0,
    ) -> None:
        self.bounds = VocabularySize(min_count=min_count, max_values=max_values, buckets=buckets)
        self.seed = seed
        self._members: Members | None = None
        self._ranks: Ranks | None = None
        self._decades = Decades.fit(np.empty(0, np.float32), np.empty(0))
        self._peers: Arrays = {}

    def fit(
        self,
        items: EventRows,
        /,
        *,
        groups: Ints | None = None,
        counts: NDArray[np.float64] | None = None,
    ) -> Self:
        """Count training events.

        Parameters
        ----------
        items : events, in time order inside a group
        groups : int32 ``(n,)``, numbered from 0: the key of each event (None: keys have no counts
            of their own)
        counts : float64 ``(n,)``, how often each row happened (None: once)

        Raises TrainingError where there is no event, or counts that are not positive.
        """
        mass = np.ones(len(items)) if counts is None else np.asarray(counts, np.float64)
        if mass.shape != (len(items),) or not (np.isfinite(mass) & (mass > 0)).all():
            msg = f"counts must be {len(items)} numbers above 0, one per event"
            raise TrainingError(msg)
        vocabulary = Vocabulary.fit(items, weights=mass, size=self.bounds)
        events, of_event = distinct(vocabulary.encode(items), mass)
        held = np.zeros(len(events), np.bool_)
        if len(events) >= FEW:
            order = np.random.default_rng([self.seed, 0x4E1D]).permutation(len(events))
            held[order[: len(events) // HELD_OUT]] = True
        kept = ~held
        energies = self._train(vocabulary, events, of_event, held)
        closed = ClosedForms.fit(vocabulary, events[kept], of_event[kept])
        measured = events[held] if held.any() else events
        if len(energies):
            members = Members(vocabulary, closed, energies)
            energies = sound(members, measured, members.of(measured), self.seed)
        ordinary = Members(vocabulary, closed, energies).of(measured)
        self._ranks = Ranks.fit(ordinary, energies.groups)
        closed = ClosedForms.fit(vocabulary, events, of_event)
        self._members = Members(vocabulary, closed, energies)
        self._decades = self._measured(self._members, events, of_event)
        # One key alone has no peers: what is rare for it is what is rare.
        several = groups is not None and len(groups) > 0 and bool((groups != groups[0]).any())
        self._peers = self._learned_peers(items, groups) if several and groups is not None else {}
        return self

    def prepared(self, items: EventRows, /) -> EventRows:
        """Return events with their ids and hashes: scores, reasons and counts all need them."""
        items = self._ordered(items)
        texts = texts_of(items)
        vocabulary = None if self._members is None else self._members.vocabulary
        codes = None if vocabulary is None else vocabulary.encode(items, texts)
        made = Encoded(self._encoder, codes, hashes_of(items, vocabulary, texts))
        return EventRows(items.time_ms, items.fields, made)

    def score(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return one score per event, float32 ``(n,)``; 0 for keys of which nothing is known."""
        items = self._ordered(items)
        judged = self._judged(items, memory, slots)
        if self._members is None or self._ranks is None:
            return np.zeros(len(items), np.float32) if judged is None else _worst(judged[:, :, 0])
        codes = self._encoded(items)
        scores = self._decades.of(self._ranks.score(self._members.of(codes)))
        scores = with_novelty(scores, self._members.vocabulary, codes)
        if judged is not None:
            scores = np.maximum(scores, _worst(judged.min(axis=2)))
        return scores

    def explain(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> list[Explanation]:
        """Return per event the share of each field, its value, the usual one, and the reason."""
        items = self._ordered(items)
        judged = self._judged(items, memory, slots)
        if self._members is None or self._ranks is None:
            return explain_keys(items, judged)
        combined = self.score(items)
        return explain_events(items, self._members, self._encoded(items), combined, judged)

    @property
    def warm_up(self) -> int:
        """Events of a key that are only counted: none where training events tell what is rare."""
        return self.info.warm_up if self._members is None else 0

    def new_memory(self, n_variates: int) -> PeerMemory | None:
        """Return an empty memory of keys whose events have ``n_variates`` fields.

        None after a fit on one key: it has no peers that its habits could differ from.
        """
        if self._members is None:
            return PeerMemory(n_variates)
        return PeerMemory(len(self._members.vocabulary.names)) if self._peers else None

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Start a key from what its training group counted."""
        self.seed_memories(memory, slots=np.array([slot]), groups=np.array([group]))

    def seed_memories(self, memory: Memory, *, slots: Ints, groups: Ints) -> None:
        """Start keys from what their training groups counted."""
        own = _own(memory)
        own.reserve(int(slots.max(initial=-1)) + 1)
        if not self._peers:
            return
        known = groups < len(self._peers["totals"])
        for name in PEERS:
            getattr(own, name)[slots[known]] = self._peers[name][groups[known]]

    def learn(
        self,
        memory: Memory,
        items: EventRows,
        /,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Count each event's values for its key; those not admitted are held back."""
        _own(memory).learn(self._hashed(self._ordered(items)), slots, admit)

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Count what was held back in an episode of these keys."""
        _own(memory).adopt(slots)

    def state(self) -> Arrays:
        """Return vocabulary, counts and ranks; empty before ``fit``."""
        if self._members is None or self._ranks is None:
            return {}
        parts: dict[str, Arrays] = {
            "vocabulary": self._members.vocabulary.state(),
            "counts": self._members.closed.state(),
            "models": self._members.energies.state(),
            "ranks": self._ranks.state(),
            "decades": self._decades.state(),
            "peers": self._peers,
        }
        return {f"{part}.{name}": a for part, own in parts.items() for name, a in own.items()}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned; ArtifactError where it is damaged."""
        if not state:
            return self
        try:
            vocabulary = Vocabulary.from_state(_part(state, "vocabulary"))
            closed = ClosedForms.from_state(vocabulary, _part(state, "counts"))
            energies = Energies.from_state(vocabulary, _part(state, "models"))
            ranks = Ranks.from_state(energies.groups, _part(state, "ranks"))
            decades = Decades.from_state(_part(state, "decades"))
            peers = _part(state, "peers")
            self._require_peers(peers, len(vocabulary.names))
        except (KeyError, ValueError, IndexError) as error:
            msg = f"{self.info.name}: the artifact lacks a part ({error}); fit it again"
            raise ArtifactError(msg) from error
        self._members, self._ranks = Members(vocabulary, closed, energies), ranks
        self._decades = decades
        self._peers = peers
        return self

    def _train(
        self,
        vocabulary: Vocabulary,
        events: Codes,
        mass: NDArray[np.float64],
        held: NDArray[np.bool_],
    ) -> Energies:
        """Return models trained on distinct events that are not held out; here none."""
        return Energies.none(vocabulary.n_ids, events.shape[1])

    def _measured(self, members: Members, events: Codes, mass: NDArray[np.float64]) -> Decades:
        """Return how often events score as much, as they happen: on a part that was not counted."""
        if self._ranks is None or len(events) < FEW:
            return Decades.fit(np.empty(0, np.float32), np.empty(0))
        draw = np.random.default_rng([self.seed, 0xDEC])
        whole = np.maximum(np.rint(mass), 1).astype(np.int64)
        apart = draw.binomial(whole, 1 / HELD_OUT)
        rest = np.maximum(mass - apart, 0.0)
        known, asked = rest >= 0.5, apart > 0
        if not (known.any() and asked.any()):
            return Decades.fit(np.empty(0, np.float32), np.empty(0))
        closed = ClosedForms.fit(members.vocabulary, events[known], rest[known])
        judged = Members(members.vocabulary, closed, members.energies).of(events[asked])
        return Decades.fit(self._ranks.score(judged), apart[asked].astype(np.float64))

    def _encoded(self, items: EventRows) -> Codes:
        if self._members is None:
            msg = f"{self.info.name} has not been fitted"
            raise NotFittedError(msg)
        ours = items.encoded
        if ours is not None and ours.by is self._encoder and ours.codes is not None:
            return ours.codes
        return self._members.vocabulary.encode(items)

    def _ordered(self, items: EventRows) -> EventRows:
        """Return events with the fields of training, in its order; WindowError where one lacks."""
        if self._members is None or items.names == self._members.vocabulary.names:
            return items
        names = self._members.vocabulary.names
        absent = [name for name in names if name not in items.fields.columns]
        if absent:
            msg = f"events have no field {absent[0]!r}; expected {', '.join(names)}"
            raise WindowError(msg)
        return EventRows(items.time_ms, items.fields.select(names))

    def _judged(self, items: EventRows, memory: Memory | None, slots: Ints | None) -> Floats | None:
        """Return how strange values are for their keys ``(n, m, 2)``; None without a memory."""
        if memory is None or slots is None:
            if self._members is None:
                msg = f"{self.info.name} knows no event; call fit, or give it a memory"
                raise NotFittedError(msg)
            return None
        share = np.zeros((0, 0), np.float32)
        if self._members is not None:
            vocabulary = self._members.vocabulary
            rows = self._encoded(items).astype(np.int64) + vocabulary.starts
            share = self._members.own_share[rows]
        return _own(memory).judge(self._hashed(items), slots, share)

    @property
    def _encoder(self) -> object:
        """Return what ids and hashes depend on: another fit has other ones."""
        return self if self._members is None else self._members.vocabulary

    def _hashed(self, items: EventRows) -> NDArray[np.uint64]:
        if items.encoded is not None and items.encoded.by is self._encoder:
            return items.encoded.hashes
        return hashes_of(items, None if self._members is None else self._members.vocabulary)

    def _learned_peers(self, items: EventRows, groups: Ints) -> Arrays:
        """Return what each training group counted."""
        known = (groups >= 0) & (groups < MAX_GROUPS)
        memory = PeerMemory(len(items.names))
        memory.reserve(int(groups[known].max(initial=-1)) + 1)
        chosen = items[known]
        memory.learn(self._hashed(chosen), groups[known], np.ones(len(chosen), np.bool_))
        memory.settle()
        return {name: getattr(memory, name) for name in PEERS}

    def _require_peers(self, peers: Arrays, n_fields: int) -> None:
        like = PeerMemory(n_fields)
        for name in PEERS if peers else ():
            fits = peers[name].shape[1:] == getattr(like, name).shape[1:]
            if not fits or len(peers[name]) != len(peers["totals"]):
                msg = f"{name} of keys has the shape {peers[name].shape}"
                raise ValueError(msg)
            if not (np.isfinite(peers[name]) & (peers[name] >= 0)).all():
                msg = f"{name} of keys holds values that are no counts"
                raise ValueError(msg)


def _own(memory: Memory) -> PeerMemory:
    if not isinstance(memory, PeerMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def _worst(judged: Floats) -> Floats:
    """Return the strangest of ``m`` fields, less ``log10 m``: one of them had to be."""
    n_fields = np.float32(max(judged.shape[1], 1))
    worst: Floats = np.maximum(judged.max(axis=1, initial=0) - np.log10(n_fields), 0)
    return worst


def with_novelty(scores: Floats, vocabulary: Vocabulary, codes: Codes) -> Floats:
    """Return scores in which texts never seen before count by themselves ``(n,)``.

    By the share of training events whose value came but once (Good and Turing 1953). Members that
    measure what goes together find a new value calm: nothing is known of what it goes with. Of
    several new values the rarest counts, and half of the others: they often come together. The mean
    with the score decides, where it is more: new values may come more often than they once did.
    """
    unknown = (codes == UNKNOWN) & ~vocabulary.numbers
    if not unknown.any():
        return np.asarray(np.maximum(scores, np.float32(0.5) * scores), np.float32)
    new = np.where(unknown, vocabulary.novelty, 0.0)
    most = new.max(axis=1, initial=0.0)
    novelty = np.asarray(most + 0.5 * (new.sum(axis=1) - most), np.float32)
    return np.asarray(np.maximum(scores, np.float32(0.5) * (scores + novelty)), np.float32)


def _part(state: Arrays, part: str) -> dict[str, NDArray[Any]]:
    begin = f"{part}."
    return {name[len(begin) :]: a for name, a in state.items() if name.startswith(begin)}
