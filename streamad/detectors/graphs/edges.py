"""Bursts in a stream of edges, in constant memory: MIDAS with calibrated surprise."""

from __future__ import annotations

import math
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
from streamad.detectors.graphs.shared import SharedMemory, Watched, require_range
from streamad.detectors.graphs.words import number, shown, span
from streamad.errors import ArtifactError, ConfigError
from streamad.graphs.kernels import (
    MOST_COUNT,
    MOST_HELD,
    Hashes,
    Settings,
    Sketches,
    observe_edges,
    peek_edges,
    surprise,
)
from streamad.graphs.names import hashes_of, read_only
from streamad.graphs.rows import EdgeRows
from streamad.records import Explanation

MOST_ROWS, MOST_BUCKETS = 16, 2**20
MOST_HORIZON = 2**31
TAIL = (2.0, 5.0, 12.0, 30.0)
"""Between steady traffic (Poisson counts: .4, .9, 1.5, 2.2) and the bursts of the ordinary edges of
DARPA 1998 (79, 320, 810, 930): a key's own history soon shows which it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What edges scored, and why; columns of the last two: edge, source, target.

    scores : float32 ``(n,)``
    counts : float64 ``(n, 3)``, this edge included: those of the tick, and of earlier ones faded
    usual : float64 ``(n, 3)``, the mean of such counts at the end of past ticks
    """

    scores: Floats
    counts: NDArray[np.float64]
    usual: NDArray[np.float64]


class SketchMemory(SharedMemory):
    """Three count-min sketches, and where event time stands.

    current, total : float64 ``(3, rows, buckets)``, faded counts of now, sums of past ticks
    held : int32 ``(3, rows, buckets)``, ticks for which a bucket has not been learned from
    clock : int64 ``(3,)``: number of the current tick, ticks learned, 1 once an edge was seen
    """

    def __init__(self, rows: int, buckets: int) -> None:
        shape = (3, rows, buckets)
        super().__init__(
            {
                "current": np.zeros(shape, np.float64),
                "total": np.zeros(shape, np.float64),
                "held": np.zeros(shape, np.int32),
                "clock": np.zeros(3, np.int64),
            }
        )

    def check(self, state: Arrays) -> None:
        """Refuse counts below 0 or beyond the bound, and a clock that never was."""
        require_range(state, "current", 0.0, MOST_COUNT)
        require_range(state, "total", 0.0, MOST_COUNT)
        require_range(state, "held", 0, MOST_HELD)
        _, learned, started = state["clock"].tolist()
        if started not in (0, 1) or not 0 <= learned <= (MOST_HORIZON if started else 0):
            msg = f"clock of the state is {state['clock'].tolist()}: it is damaged"
            raise ArtifactError(msg)

    @property
    def sketches(self) -> Sketches:
        """Return the arrays that kernels write."""
        return self["current"], self["total"], self["held"]


class EdgeStream(ItemDetector[EdgeRows]):
    """Score an edge by how far it, its source or its target exceeds the usual count per tick.

    Three count-min sketches (edge, source, target) hold a current count, which fades by ``decay``
    per tick, and the sum of what the counts were at the end of past ticks: MIDAS-F (Bhatia et al.,
    algorithm 4), with the same conservative minimum over rows. A bucket whose newest statistic
    ``(a + s - a t)^2 / (s (t - 1))`` reaches ``threshold`` is held: its tick adds the mean instead
    of the count, so a flood is not learned as normal.

    Four things differ from the publication, each for a stream that does not end:

    * *Score*. The statistic assumes Poisson counts and is in no fixed unit: a source of ten times
      the traffic scores ten times as much, and a rare edge scores in proportion to t. The score is
      the largest of the three *surprises*: -log10 of Chernoff's bound of the tail of a geometric
      count with the same mean, ``(s + 1) / (t - 1 + 1)``. It is 0 at or below the usual (MIDAS
      squares, so that a lull counts as a burst), in decades, and depends on ratios of counts.
    * *Ticks*. t counts the ticks that held an edge, as the published preprocessing does: an outage
      or a night does not lower what is usual, and a wild clock costs one tick. Current counts fade
      by the ticks that passed, empty ones included: what was an hour ago is not current.
    * *Adoption*. A level held for ``adopt_after`` ticks in a row becomes the usual one at once.
      Published, a lasting change is never learned.
    * *Horizon*. Beyond ``horizon`` ticks totals fade, so that usual counts follow, and the surprise
      of a first sighting stays below its logarithm.

    An edge of an earlier tick than the current one counts into the current one. Weights that are
    not above 0 (NaN among them) count as 0, the largest as 1e12. Types of nodes are not looked at.
    An edge far in the future makes those behind it late, and they would all be of one tick: times
    are to be sound before they get here. Sketches only overestimate counts: collisions hide bursts
    of small edges.

    What a partition yields depends on all its edges in offset order, and on nothing else.

    Parameters
    ----------
    tick : milliseconds of event time per tick
    rows, buckets : of each sketch; 20 bytes each, three times: 326 kB by default
    decay : share of a current count that is left one tick later, 0 .. 1 (below 1)
    threshold : statistic from which a count is not learned; ``inf``: everything is learned
    adopt_after : ticks after which a held level is the new normal; 0: never
    horizon : ticks that totals remember
    seed : of the hash functions
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="edge_stream",
        summary="bursts of edges, sources and targets against their usual count per tick",
        modality="edges",
        scope="partition",
        min_size=1,
        default_size=1,
        learns=True,
        tail=TAIL,
        paper="Bhatia et al., Real-Time Anomaly Detection in Edge Streams, TKDD 2022",
    )

    def __init__(  # noqa: PLR0913 each is a setting of the pipeline file, all with a default
        self,
        *,
        tick: int = 60_000,
        rows: int = 2,
        buckets: int = 2719,
        decay: float = 0.5,
        threshold: float = 1000.0,
        adopt_after: int = 1440,
        horizon: int = 10_080,
        seed: int = 0,
    ) -> None:
        _require(tick >= 1, f"tick must be 1 ms or more, got {tick}")
        _require(1 <= rows <= MOST_ROWS, f"rows must lie in 1 .. {MOST_ROWS}, got {rows}")
        sane = 16 <= buckets <= MOST_BUCKETS
        _require(sane, f"buckets must lie in 16 .. {MOST_BUCKETS}, got {buckets}")
        _require(0.0 <= decay < 1.0, f"decay must lie in 0 .. 1 and below 1, got {decay}")
        _require(threshold > 0.0, f"threshold must be above 0, got {threshold}")
        _require(0 <= adopt_after < MOST_HELD, f"adopt_after must be 0 or more, got {adopt_after}")
        sane = 2 <= horizon <= MOST_HORIZON
        _require(sane, f"horizon must lie in 2 .. {MOST_HORIZON}, got {horizon}")
        _require(0 <= seed < 2**31, f"seed must lie in 0 .. 2^31 - 1, got {seed}")
        self.tick, self.rows, self.buckets, self.decay = tick, rows, buckets, float(decay)
        self._settings: Settings = (seed, float(decay), float(threshold), adopt_after, horizon)
        self._fitted = SketchMemory(rows, buckets)

    def fit(self, edges: EdgeRows, *, groups: Ints | None = None) -> Self:
        """Learn what is usual from edges in time order; ``groups`` are ignored: all are one."""
        memory = SketchMemory(self.rows, self.buckets)
        self.observe(memory, edges)
        self._fitted = memory
        return self

    def new_shared(self) -> SketchMemory:
        """Return the memory of a partition, which starts from what ``fit`` learned."""
        memory = SketchMemory(self.rows, self.buckets)
        memory.load(self._fitted.state())
        return memory

    def watch(self, shared: Contract, edges: EdgeRows) -> Watched:
        """Judge each edge and then take it in, in order; the result explains what is asked for."""
        judged = self.judge(self._own(shared), edges)
        return Watched(judged, lambda places: self.explain_judged(edges, judged, at=places))

    def _own(self, memory: object) -> SketchMemory:
        if not isinstance(memory, SketchMemory):
            msg = f"{self.info.name} needs a memory made by new_shared, got {type(memory).__name__}"
            raise ArtifactError(msg)
        return memory

    def observe(self, memory: SketchMemory, edges: EdgeRows) -> Floats:
        """Return the score of each edge, ``(n,)``, each judged before it is recorded, in order."""
        return self.judge(memory, edges).scores

    def judge(self, memory: SketchMemory, edges: EdgeRows) -> Judged:
        """Do what `observe` does, and return what it saw too, for `explain_judged`."""
        nodes = (hashes_of(edges.source), hashes_of(edges.target))
        return self.judge_hashes(memory, edges.time_ms, nodes, edges.weight)

    def judge_hashes(
        self,
        memory: SketchMemory,
        time_ms: NDArray[np.int64],
        nodes: tuple[Hashes, Hashes],
        weight: NDArray[np.float64],
    ) -> Judged:
        """Do what `judge` does with nodes as uint64 hashes (`streamad.graphs.names.hashes_of`)."""
        judged = _empty(len(time_ms))
        observe_edges(
            *self._input(time_ms, nodes, weight), self._settings, memory["clock"],
            memory.sketches, (judged.scores, judged.counts, judged.usual),
        )  # fmt: skip
        return judged

    def _input(
        self,
        time_ms: NDArray[np.int64],
        nodes: tuple[Hashes, Hashes],
        weight: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], tuple[Hashes, Hashes], NDArray[np.float64]]:
        """Return ticks, nodes and weights as kernels take them."""
        ticks = read_only(np.floor_divide(time_ms, self.tick))
        return ticks, (read_only(nodes[0]), read_only(nodes[1])), read_only(weight)

    def score(
        self,
        edges: EdgeRows,
        *,
        memory: Memory | SharedMemory | None = None,
        slots: Ints | None = None,
    ) -> Floats:
        """Return the score each edge would have if it came next, ``(n,)``; nothing is learned.

        memory : from `new_shared` (None: what ``fit`` learned); slots are ignored
        """
        return self._peek(edges, memory).scores

    def explain(
        self,
        edges: EdgeRows,
        *,
        memory: Memory | SharedMemory | None = None,
        slots: Ints | None = None,
    ) -> list[Explanation]:
        """Return why each edge would score as it does if it came next."""
        return self.explain_judged(edges, self._peek(edges, memory))

    def explain_judged(
        self, edges: EdgeRows, judged: Judged, *, at: NDArray[np.int64] | None = None
    ) -> list[Explanation]:
        """Return why edges scored as `judge` found; ``at``: which of them (None: all).

        Counts are those of the last ``tick / (1 - decay)`` ms: of the tick, and faded of earlier
        ones. ``expected`` is their usual value.
        """
        within = span(round(self.tick / (1.0 - self.decay)))
        return [
            _explanation(
                (shown(edges.source[i]), shown(edges.target[i])),
                (judged.counts[i].tolist(), judged.usual[i].tolist()),
                int(edges.time_ms[i]),
                within,
            )
            for i in (range(len(edges)) if at is None else at.tolist())
        ]

    def state(self) -> Arrays:
        """Return what ``fit`` learned: the arrays of a `SketchMemory`."""
        return self._fitted.state()

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned; raises ArtifactError where it does not fit."""
        self._fitted.load(state)
        return self

    def _peek(self, edges: EdgeRows, memory: Memory | SharedMemory | None) -> Judged:
        own = self._fitted if memory is None else self._own(memory)
        judged = _empty(len(edges))
        nodes = (hashes_of(edges.source), hashes_of(edges.target))
        peek_edges(
            *self._input(edges.time_ms, nodes, edges.weight), self._settings, own["clock"],
            own.sketches, (judged.scores, judged.counts, judged.usual),
        )  # fmt: skip
        return judged


def _require(sane: bool, message: str) -> None:  # noqa: FBT001 a condition and its message
    if not sane:
        raise ConfigError(message)


def _empty(n: int) -> Judged:
    return Judged(scores=np.zeros(n, np.float32), counts=np.zeros((n, 3)), usual=np.zeros((n, 3)))


def _explanation(
    ends: tuple[str, str], seen: tuple[list[float], list[float]], time_ms: int, within: str
) -> Explanation:
    """Return an edge's explanation; the text begins with the most surprising of the three."""
    names = (f"{ends[0]} -> {ends[1]}", f"from {ends[0]}", f"to {ends[1]}")
    counts, usual = seen
    found = [float(surprise(c, u)) for c, u in zip(counts, usual, strict=True)]
    total = math.fsum(found)
    shares = [part / total if total > 0 else 1 / 3 for part in found]
    order = sorted(range(3), key=lambda k: -found[k])
    parts = [f"{names[k]}: {number(counts[k])}, usually {number(usual[k])}" for k in order]
    most = order[0]
    parts[0] = (
        f"{names[most]}: {number(counts[most])} in the last {within}, usually {number(usual[most])}"
    )
    return Explanation(
        observed=dict(zip(names, counts, strict=True)),
        expected=dict(zip(names, usual, strict=True)),
        variates=dict(zip(names, shares, strict=True)),
        time_ms=time_ms,
        text="; ".join(parts),
        entities=ends if ends[0] != ends[1] else ends[:1],
    )
