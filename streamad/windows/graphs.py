"""Edges of many keys to one graph per window, each key in its own event time.

Windows tumble, or slide by panes: an edge belongs to the pane of its time, and a window is the
panes of one ``span``. A window closes once its key's clock (its greatest event time, in offset
order) passes its end plus ``lateness``. An edge whose pane is in a closed window and in no open one
is late. Open edges of all keys lie in one table per shard, in the order in which they came, and
equal ones are added up now and then; what a key yields depends on its own edges and their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import StateError
from streamad.graphs.rows import EdgeRows, Graphs, starts_of
from streamad.windows.arrays import NEVER, KeyedArrays
from streamad.windows.kernels import advance_clocks
from streamad.windows.signals import WindowBlock

COMPACT = 65_536
"""Rows that may come before equal edges are added up."""
_NONE = -1
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPlan:
    """How graphs are cut.

    span_ms : length of a window; slide_ms : from the start of one to that of the next, a whole part
    of the span; max_nodes, max_edges : of a window; edges beyond are counted and left out, those
    that came first stay
    """

    span_ms: int
    slide_ms: int
    lateness_ms: int = 0
    max_nodes: int = 10_000
    max_edges: int = 100_000

    @property
    def panes(self) -> int:
        """Return how many panes a window has."""
        return self.span_ms // self.slide_ms


@dataclass(slots=True)
class _Open:
    """Open edges, a row each, in the order of their first appearance; equal ones may be added up.

    code : int32, the key; pane : int64; names : ids of the two ends and their types in `_Names`
    ``(n, 4)``; weight : float64; dropped : int64, edges that were left out at this row
    """

    code: NDArray[np.int32]
    pane: Ids
    names: NDArray[np.int64]
    weight: NDArray[np.float64]
    dropped: Ids

    def take(self, rows: NDArray[Any]) -> _Open:
        return _Open(
            self.code[rows], self.pane[rows], self.names[rows], self.weight[rows],
            self.dropped[rows],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.code)


def _no_edges() -> _Open:
    i8 = np.int64
    return _Open(
        np.empty(0, np.int32), np.empty(0, i8), np.empty((0, 4), i8), np.empty(0), np.empty(0, i8)
    )


class GraphWindows:
    """The clocks of keys and the open edges of one shard."""

    def __init__(self, plan: GraphPlan) -> None:
        self.plan = plan
        # `done`: panes before this one are in no open window any more.
        self.state = KeyedArrays({"clock": ((), np.int64, NEVER), "done": ((), np.int64, NEVER)})
        self._open, self._fresh = _no_edges(), 0
        self._names: list[str] = []
        self._places: dict[str, int] = {}

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return that no kernel indexes with what is kept per key."""
        return {}

    @property
    def n_open(self) -> int:
        """Return how many rows of edges are held."""
        return len(self._open)

    def ingest(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: EdgeRows,
        late: NDArray[np.bool_],
        kinds: NDArray[np.int8] | None = None,
    ) -> Iterator[WindowBlock]:
        """Take edges in offset order; yield the graphs they close, and mark late edges."""
        del kinds
        plan, s = self.plan, self.state
        if not len(s["clock"]):
            return
        settings = np.array([plan.slide_ms, plan.span_ms, plan.lateness_ms], np.int64)
        at = 0
        while at < len(codes):
            at, taken, moved = advance_clocks(
                at, codes, time_ms, settings, s["clock"], s["done"], late
            )
            self._add(codes, time_ms, values, taken)
            if len(moved):
                yield from self._close(codes, moved)

    # ------------------------------------------------------------------ open edges

    def _add(self, codes: NDArray[np.int32], time_ms: Ids, values: EdgeRows, rows: Ids) -> None:
        if not len(rows):
            return
        columns = (values.source, values.target, values.source_type, values.target_type)
        names = np.stack([self._ids(column.gather(rows)) for column in columns], axis=1)
        weight = values.weight[rows]
        fresh = _Open(
            codes[rows],
            time_ms[rows] // self.plan.slide_ms,
            names,
            np.where(np.isfinite(weight) & (weight > 0), weight, 0.0),
            np.zeros(len(rows), np.int64),
        )
        self._open = _joined(self._open, fresh)
        self._fresh += len(rows)
        if self._fresh > COMPACT:
            self._compact()

    def _ids(self, column: pl.Series) -> Ids:
        """Return the places of names in our table, -1 of nulls."""
        known = column.unique(maintain_order=True).drop_nulls()
        places = [self._place(name) for name in known.to_list()]
        made = column.replace_strict(
            known, pl.Series(places, dtype=pl.Int64), default=_NONE, return_dtype=pl.Int64
        )
        return made.fill_null(_NONE).to_numpy()

    def _place(self, name: str) -> int:
        place = self._places.setdefault(name, len(self._names))
        if place == len(self._names):
            self._names.append(name)
        return place

    def _compact(self) -> None:
        """Add equal edges up, leave out what is beyond the bounds, and forget unused names."""
        self._open = _added_up(self._open, self.plan.max_edges)
        self._fresh = 0
        used = np.unique(self._open.names[self._open.names >= 0])
        if 2 * len(used) < len(self._names):
            place = np.full(len(self._names) + 1, _NONE, np.int64)
            place[used] = np.arange(len(used))
            self._names = [self._names[i] for i in used.tolist()]
            self._places = {name: i for i, name in enumerate(self._names)}
            self._open.names = place[self._open.names]

    # ------------------------------------------------------------------ closing

    def _close(self, codes: NDArray[np.int32], moved: Ids) -> Iterator[WindowBlock]:
        """Cut graphs out of the open edges for each row that moved its key past an end.

        moved : ``(n, 3)``: row, and the first pane of its key's open windows before and after it
        """
        mine = np.isin(self._open.code, codes[moved[:, 0]])
        found = _added_up(self._open.take(mine), self.plan.max_edges)
        others = self._open.take(~mine)
        made = []
        order = np.argsort(found.code, kind="stable")
        by_code = found.code[order]
        for row, before, after in moved.tolist():
            code = codes[row]
            lo, hi = np.searchsorted(by_code, [code, code + 1])
            own = order[lo:hi]
            panes = np.unique(found.pane[own])
            # Windows that begin at panes before .. after - 1, and hold an edge.
            firsts = {
                first
                for pane in panes.tolist()
                for first in range(max(pane - self.plan.panes + 1, before), min(pane + 1, after))
            }
            for first in sorted(firsts):
                inside = (found.pane[own] >= first) & (found.pane[own] < first + self.plan.panes)
                made.append((row, int(code), first, own[inside]))
        if made:
            yield self._block(found, made)
        self._open = _joined(others, found.take(found.pane >= self.state["done"][found.code]))

    def _block(self, found: _Open, made: list[tuple[int, int, int, Ids]]) -> WindowBlock:
        plan = self.plan
        graph = np.repeat(np.arange(len(made)), [len(rows) for *_, rows in made])
        edges = found.take(np.concatenate([rows for *_, rows in made]))
        begin = np.array([first for _, _, first, _ in made], np.int64) * plan.slide_ms
        end = begin + plan.span_ms
        values = _graphs(graph, edges, np.stack([begin, end], axis=1), self._names, plan)
        return WindowBlock(
            codes=np.array([code for _, code, _, _ in made], np.int32),
            values=values,
            start_ms=begin,
            # The time of the last moment inside, as a window's last sample is.
            end_ms=end - 1,
            incomplete=np.zeros(len(made), np.bool_),
            row=np.array([row for row, *_ in made], np.int64),
            still=np.zeros(len(made), np.int32),
        )

    # ------------------------------------------------------------------ state

    def reset(self, codes: NDArray[np.int32]) -> None:
        """Empty these keys."""
        self.state.reset(codes)
        self._open = self._open.take(~np.isin(self._open.code, codes))

    def apart(self, codes: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return the open edges of these keys; ``owner`` is the place of an edge's key in them."""
        self._compact()
        place = np.full(int(codes.max(initial=-1)) + 1, _NONE, np.int64)
        place[codes] = np.arange(len(codes))
        names = [name.encode() for name in self._names]
        return {
            "owner": place[self._open.code],
            "pane": self._open.pane,
            "places": self._open.names,
            "weight": self._open.weight,
            "dropped": self._open.dropped,
            "names": np.frombuffer(b"".join(names), np.uint8),
            "ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        }

    def load_apart(self, codes: NDArray[np.int32], arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what `apart` returned; raises StateError where parts do not agree."""
        owner, places, ends = arrays["owner"], arrays["places"], arrays["ends"]
        blob = arrays["names"].tobytes()
        n = len(owner)
        fits = (
            {len(arrays[name]) for name in ("pane", "places", "weight", "dropped")} == {n}
            and places.shape == (n, 4)
            and (not n or (0 <= owner.min() <= owner.max() < len(codes)))
            and (not n or (places.min() >= _NONE and places.max() < len(ends)))
            and (np.diff(ends, prepend=0) >= 0).all()
            and (ends[-1] if len(ends) else 0) == len(blob)
            and np.isfinite(arrays["weight"]).all()
        )
        if not fits:
            msg = "the state of open edges is damaged: its parts do not agree"
            raise StateError(msg)
        bounds = [0, *ends.tolist()]
        self._names = [blob[a:b].decode() for a, b in pairwise(bounds)]
        self._places = {name: place for place, name in enumerate(self._names)}
        self._open = _Open(
            codes[owner].astype(np.int32),
            arrays["pane"].astype(np.int64),
            places.astype(np.int64),
            arrays["weight"].astype(np.float64),
            arrays["dropped"].astype(np.int64),
        )


def _joined(one: _Open, other: _Open) -> _Open:
    return _Open(
        np.concatenate([one.code, other.code]),
        np.concatenate([one.pane, other.pane]),
        np.concatenate([one.names, other.names]),
        np.concatenate([one.weight, other.weight]),
        np.concatenate([one.dropped, other.dropped]),
    )


def _added_up(edges: _Open, max_edges: int) -> _Open:
    """Add equal edges of a pane up in their order; keep the first ``max_edges`` of each pane."""
    if not len(edges):
        return edges
    group = _dense(edges.code.astype(np.int64), edges.pane)
    same = _dense(group, *edges.names.T)
    first, inverse = _first_of(same)
    # Sums in the order of rows: what was added up before goes first.
    weight = np.asarray(np.bincount(inverse, edges.weight, len(first)), np.float64)
    dropped = np.bincount(inverse, edges.dropped, len(first)).astype(np.int64)
    order = np.argsort(first, kind="stable")
    first, weight, dropped = first[order], weight[order], dropped[order]
    kept = edges.take(first)
    kept.weight, kept.dropped = weight, dropped
    rank = _rank(group[first])
    if (rank < max_edges).all():
        return kept
    # Of each pane the last edge kept bears how many were left out after it.
    count = np.bincount(inverse, minlength=len(first))[order]
    over, owner = rank >= max_edges, group[first]
    lost = np.bincount(owner[over], (count + dropped)[over], int(owner.max()) + 1)
    last = np.flatnonzero(rank == max_edges - 1)
    kept.dropped[last] += lost[owner[last]].astype(np.int64)
    return kept.take(~over)


def _graphs(graph: Ids, edges: _Open, time_ms: Ids, names: list[str], plan: GraphPlan) -> Graphs:
    """Lay edges out as graphs: nodes and edges in the order of their first appearance.

    graph : ``(n,)``, of which graph each edge is
    """
    n_graphs = len(time_ms)
    source, target = edges.names[:, 0], edges.names[:, 1]
    ends = np.stack([source, target], axis=1).reshape(-1)
    types = edges.names[:, 2:].reshape(-1)
    owner = np.repeat(graph, 2)
    node = _dense(owner, ends)
    first, place = _first_of(node)
    order = np.argsort(owner[first] * (len(ends) + 1) + first, kind="stable")
    number = np.empty(len(first), np.int64)
    number[order] = _rank(owner[first][order])
    local = number[place].reshape(-1, 2)
    kept = (local < plan.max_nodes).all(axis=1)
    pair = _dense(graph, local[:, 0], local[:, 1])
    first_pair, at = _first_of(pair)
    pair_order = np.argsort(graph[first_pair] * (len(pair) + 1) + first_pair, kind="stable")
    rank = np.empty(len(first_pair), np.int64)
    rank[pair_order] = _rank(graph[first_pair][pair_order])
    kept &= rank[at] < plan.max_edges
    dropped = np.bincount(graph, edges.dropped, n_graphs) + np.bincount(graph, ~kept, n_graphs)
    chosen = pair_order[kept[first_pair[pair_order]]]
    weight = np.bincount(at[kept], edges.weight[kept], len(first_pair))
    known = np.full(len(first), _NONE, np.int64)
    typed = np.flatnonzero(types >= 0)[::-1]
    known[place[typed]] = types[typed]
    nodes = order[number[order] < plan.max_nodes]
    table = pl.Series(names, dtype=pl.String)
    return Graphs(
        time_ms=time_ms,
        node_from=starts_of(np.bincount(owner[first[nodes]], minlength=n_graphs)),
        edge_from=starts_of(np.bincount(graph[first_pair[chosen]], minlength=n_graphs)),
        names=table.gather(ends[first[nodes]]),
        types=table.gather(pl.Series(known[nodes]).replace(_NONE, None)),
        source=local[first_pair[chosen], 0].astype(np.int32),
        target=local[first_pair[chosen], 1].astype(np.int32),
        count=weight[chosen],
        dropped=dropped.astype(np.int64),
    )


def _dense(*columns: Ids) -> Ids:
    """Return a number per distinct row of columns, below their length."""
    made = np.unique(columns[0], return_inverse=True)[1].astype(np.int64)
    for column in columns[1:]:
        inverse = np.unique(column, return_inverse=True)[1].astype(np.int64)
        made = np.unique(made * (len(column) + 1) + inverse, return_inverse=True)[1].astype(
            np.int64
        )
    return made


def _first_of(numbers: Ids) -> tuple[Ids, Ids]:
    """Return the first row of each number, and each row's number among those."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def _rank(groups: Ids) -> Ids:
    """Return each row's place among the rows of its group, in their order."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - starts
    return rank
