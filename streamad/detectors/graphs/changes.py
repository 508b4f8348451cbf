"""What changed among edges, in words: a new edge, one that vanished, a source that fans out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

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
from streamad.detectors.contract import SharedMemory as Contract
from streamad.detectors.graphs import kernels as k
from streamad.detectors.graphs.shared import SharedMemory, Watched
from streamad.detectors.graphs.tables import TableMemory
from streamad.detectors.graphs.words import number, plural, shown, span
from streamad.errors import ArtifactError, ConfigError
from streamad.graphs.kernels import Hashes
from streamad.graphs.names import buffers_of, hashes_of, read_only
from streamad.graphs.rows import EdgeRows
from streamad.records import Explanation

MOST_PLACES = 2**24
MOST_WINDOW = 2**31
TAIL = (0.15, 0.55, 1.0, 4.4)
"""Measured on the ordinary edges among the first 400,000 of DARPA 1998."""
FORGOTTEN = "(a node no longer in memory)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What edges scored, and why.

    scores : float32 ``(n,)``
    kinds : int8 ``(n,)``: 0 nothing, 1 a new edge, 2 another edge of its source vanished, 3 its
        source fans out
    facts : float64 ``(n, 6)``. New: age in ms and number of targets of the source, age and number
        of sources of the target, before this edge; how likely a tick of each is to bring a new
        edge. Vanished: when it was last seen in ms, ticks of its source since, usual ticks between,
        ticks seen in, when it was first seen in ms. Fan-out: targets now, usually, windows known.
    missed : per row the name of the target that is missed, by row; only of kind 2
    """

    scores: Floats
    kinds: NDArray[np.int8]
    facts: NDArray[np.float64]
    missed: dict[int, str]

    def row(self, i: int) -> tuple[int, list[float], str]:
        """Return kind, facts and the missed target's name of one edge."""
        return int(self.kinds[i]), self.facts[i].tolist(), self.missed.get(i, FORGOTTEN)


class EdgeChanges(ItemDetector[EdgeRows]):
    """Score an edge by what it shows to have changed, each in decades (-log10 of a probability).

    * *New edge*. By Laplace's rule over the ticks in which a node was active: how likely is a tick
      of its source, and of its target, to bring a new edge? The likelier of the two counts, so that
      an end of which little is known, that scans by trade or is open to all, explains the edge.
    * *Vanished edge*. Another edge of the same source, seen in ``least_seen`` ticks or more, has
      been silent for ``vanish_after`` times its usual gap. Gaps are counted in ticks in which the
      source was active, so an outage of the source, or of the whole stream, is no vanished edge. It
      shows, once, at a later edge of that source: a source that stays silent shows nothing
      here (silence of keys does). Four edges per edge are looked at, in turn.
    * *Fan-out*. Distinct targets of the source in the window of ``window`` ticks (linear counting
      in 512 bits, up to about 3,000), against its usual number: the surprise of `edge_stream`,
      once three windows are known. One window teaches at most 3 times the usual, plus 3.

    The score is the largest; 0 where nothing changed. Nodes and edges are kept in tables of fixed
    size, sets of eight places; where a set is full, the entry goes that was seen in the fewest
    ticks per tick since (`TableMemory.given_up` counts them). An edge given up is new again.

    An edge of an earlier tick than the current one counts into the current one. Weights and types
    are not looked at. What a partition yields depends on all its edges in offset order.

    Parameters
    ----------
    tick : milliseconds of event time per tick
    nodes, edges : places of the tables, multiples of 8; 352 and 104 bytes each
    window : ticks over which targets are counted
    least_seen : ticks an edge must have been seen in before it can vanish
    vanish_after : usual gaps (mean and two mean deviations) after which an edge has vanished
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="edge_changes",
        summary="new edges, vanished edges and fan-out, in words",
        modality="edges",
        scope="partition",
        min_size=1,
        default_size=1,
        learns=True,
        tail=TAIL,
        paper="Whang et al., A Linear-Time Probabilistic Counting Algorithm, TODS 1990",
    )

    def __init__(
        self,
        *,
        tick: int = 60_000,
        nodes: int = 16_384,
        edges: int = 65_536,
        window: int = 5,
        least_seen: int = 20,
        vanish_after: float = 10.0,
    ) -> None:
        for name, places in (("nodes", nodes), ("edges", edges)):
            if not 16 <= places <= MOST_PLACES or places % k.WAYS:
                msg = f"{name} must be a multiple of 8 in 16 .. {MOST_PLACES}, got {places}"
                raise ConfigError(msg)
        for name, value in (("tick", tick), ("window", window), ("least_seen", least_seen)):
            if not 1 <= value <= MOST_WINDOW:
                msg = f"{name} must lie in 1 .. {MOST_WINDOW}, got {value}"
                raise ConfigError(msg)
        if not 1.0 <= vanish_after <= 1e6:
            msg = f"vanish_after must lie in 1 .. 1e6, got {vanish_after}"
            raise ConfigError(msg)
        self.tick, self.nodes, self.edges, self.window = tick, nodes, edges, window
        self._plan = (window, least_seen, float(vanish_after))
        self._fitted = TableMemory(nodes, edges)

    def fit(self, edges: EdgeRows, *, groups: Ints | None = None) -> Self:
        """Learn nodes and edges in time order; ``groups`` are ignored: all are one."""
        memory = TableMemory(self.nodes, self.edges)
        self.observe(memory, edges)
        self._fitted = memory
        return self

    def new_shared(self) -> TableMemory:
        """Return the memory of a partition, which starts from what ``fit`` learned."""
        memory = TableMemory(self.nodes, self.edges)
        memory.load(self._fitted.state())
        return memory

    def watch(self, shared: Contract, edges: EdgeRows) -> Watched:
        """Judge each edge and then take it in, in order; the result explains what is asked for."""
        judged = self.judge(self._own(shared), edges)
        return Watched(judged, lambda places: self.explain_judged(edges, judged, at=places))

    def _own(self, memory: object) -> TableMemory:
        if not isinstance(memory, TableMemory):
            msg = f"{self.info.name} needs a memory made by new_shared, got {type(memory).__name__}"
            raise ArtifactError(msg)
        return memory

    def observe(self, memory: TableMemory, edges: EdgeRows) -> Floats:
        """Return the score of each edge, ``(n,)``, each judged before it is recorded, in order."""
        return self.judge(memory, edges).scores

    def judge(self, memory: TableMemory, edges: EdgeRows) -> Changed:
        """Do what `observe` does, and return what it found too, for `explain_judged`.

        The name of a missed target is looked up at the end: where its node has left the table
        within these very edges, it is not known.
        """
        n = len(edges)
        scores, kinds = np.zeros(n, np.float32), np.zeros(n, np.int8)
        facts = np.zeros((n, k.N_FACTS))
        places, missed = np.full(n, -1, np.int64), np.zeros(n, np.uint64)
        k.observe_changes(
            (read_only(edges.time_ms), read_only(np.floor_divide(edges.time_ms, self.tick))),
            (
                (_never_zero(hashes_of(edges.source)), *buffers_of(edges.source)),
                (_never_zero(hashes_of(edges.target)), *buffers_of(edges.target)),
            ),
            self._plan, memory["counters"], memory.nodes, memory.edges,
            (scores, kinds, facts, places, missed),
        )  # fmt: skip
        still = [
            i for i in np.flatnonzero(places >= 0) if memory["node_hash"][places[i]] == missed[i]
        ]
        names = {int(i): memory.name_at(int(places[i])) for i in still}
        return Changed(scores=scores, kinds=kinds, facts=facts, missed=names)

    def score(
        self,
        edges: EdgeRows,
        *,
        memory: Memory | SharedMemory | None = None,
        slots: Ints | None = None,
    ) -> Floats:
        """Return the score each edge would have if it came next, ``(n,)``; nothing is learned.

        memory : from `new_shared` (None: what ``fit`` learned); slots are ignored

        It works on a copy of the memory per edge: for looking into, not for streams.
        """
        found = [self._peek(edges[i : i + 1], memory).scores for i in range(len(edges))]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def explain(
        self,
        edges: EdgeRows,
        *,
        memory: Memory | SharedMemory | None = None,
        slots: Ints | None = None,
    ) -> list[Explanation]:
        """Return why each edge would score as it does if it came next."""
        singles = [edges[i : i + 1] for i in range(len(edges))]
        return [why for one in singles for why in self.explain_judged(one, self._peek(one, memory))]

    def explain_judged(
        self, edges: EdgeRows, changed: Changed, *, at: NDArray[np.int64] | None = None
    ) -> list[Explanation]:
        """Return why edges scored as `judge` found; ``at``: which of them (None: all)."""
        return [
            explain_change(
                (shown(edges.source[i]), shown(edges.target[i])),
                int(edges.time_ms[i]),
                changed.row(i),
                (self.tick, self.window),
            )
            for i in (range(len(edges)) if at is None else at.tolist())
        ]

    def state(self) -> Arrays:
        """Return what ``fit`` learned: the arrays of a `TableMemory`."""
        return self._fitted.state()

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned; raises ArtifactError where it does not fit."""
        self._fitted.load(state)
        return self

    def _peek(self, edges: EdgeRows, memory: Memory | SharedMemory | None) -> Changed:
        own = self._fitted if memory is None else self._own(memory)
        return self.judge(own.copy(), edges)


def _never_zero(hashes: Hashes) -> Hashes:
    """Return hashes of which none is 0, the mark of an empty place."""
    return read_only(np.maximum(hashes, np.uint64(1)))


def explain_change(
    ends: tuple[str, str],
    time_ms: int,
    row: tuple[int, list[float], str],
    spans: tuple[int, int],
) -> Explanation:
    """Return what changed, in words.

    row : of `Changed.row`; spans : milliseconds per tick, ticks per window
    """
    source, target = ends
    tick, window = spans
    kind, facts, missed = row
    edge = f"{source} -> {target}"
    both = ends if source != target else (source,)
    observed: dict[str, float | str] = {edge: "known"}
    expected: dict[str, float | str] = {}
    text = f"known edge: {edge}"
    if kind == k.NEW:
        observed = {edge: "seen for the first time"}
        text = f"new edge: {edge}; {_known(source, facts[:2], 'target')}"
        if source != target:
            text += f", {_known(target, facts[2:4], 'source')}"
    elif kind == k.VANISHED:
        missed = shown(missed)
        edge, both = f"{source} -> {missed}", (source, missed)
        ago = span(time_ms - int(facts[0]))
        active, usual = span(round(facts[1] * tick)), span(round(facts[2] * tick))
        observed = {edge: f"not seen for {ago}"}
        expected = {edge: f"after {usual} of activity"}
        text = (
            f"vanished edge: {edge}, last seen {ago} ago; {source} has been active for {active} "
            f"since then, and the edge usually came after {usual} of activity "
            f"(known for {span(int(facts[0] - facts[4]))})"
        )
    elif kind == k.FAN_OUT:
        edge, both = f"targets of {source}", (source,)
        observed, expected = {edge: round(facts[0])}, {edge: facts[1]}
        reached, within = plural(round(facts[0]), "target"), span(window * tick)
        text = (
            f"fan-out: {source} reaches about {reached} within {within}, usually {number(facts[1])}"
        )
    return Explanation(
        observed=observed,
        expected=expected,
        variates={edge: 1.0},
        time_ms=time_ms,
        text=text,
        entities=both,
    )


def _known(name: str, facts: list[float], others: str) -> str:
    """Return for how long a node has been known, and how many others it has."""
    age_ms, n_others = int(facts[0]), int(facts[1])
    if age_ms == 0 and n_others == 0:
        return f"{name} is new too" if others == "source" else f"{name} is new"
    return f"{name} has been seen for {span(age_ms)} with {plural(n_others, others)}"
