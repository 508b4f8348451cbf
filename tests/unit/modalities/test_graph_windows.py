"""Windows of edges become graphs, against a reference in plain Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.errors import StateError
from streamad.graphs.rows import EdgeRows
from streamad.windows import graphs as module
from streamad.windows.graphs import GraphPlan, GraphWindows

NAMES = ["a", "b", "c", "d", "e"]
EDGES = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 12), st.sampled_from(NAMES), st.sampled_from(NAMES),
        st.sampled_from([None, "host", "db"]),
    ),
    max_size=60,
)  # fmt: skip
PLANS = st.sampled_from(
    [
        GraphPlan(span_ms=3, slide_ms=3),
        GraphPlan(span_ms=4, slide_ms=2),
        GraphPlan(span_ms=3, slide_ms=1, lateness_ms=2),
        GraphPlan(span_ms=4, slide_ms=4, lateness_ms=1, max_edges=2),
        GraphPlan(span_ms=6, slide_ms=3, max_nodes=3),
    ]
)


def rows_of(edges) -> EdgeRows:
    none = pl.repeat(None, len(edges), dtype=pl.String, eager=True)
    return EdgeRows(
        np.array([t for _, t, *_ in edges], np.int64),
        pl.Series([source for _, _, source, _, _ in edges], dtype=pl.String),
        pl.Series([target for *_, target, _ in edges], dtype=pl.String),
        pl.Series([kind for *_, kind in edges], dtype=pl.String),
        none,
        np.ones(len(edges)),
    )


def graphs_of(plan, edges, sizes=(), restart=None):
    """Return what the windows yield by key and begin, and the edges that are late."""
    windows = GraphWindows(plan)
    windows.state.reserve(3)
    found, late, at = {}, [], 0
    for size in [*sizes, len(edges)]:
        part = edges[at : at + size]
        codes = np.array([key for key, *_ in part], np.int32)
        is_late = np.zeros(len(part), np.bool_)
        for block in windows.ingest(codes, rows_of(part).time_ms, rows_of(part), is_late):
            graphs = block.values
            for i in range(len(block)):
                one = graphs[i : i + 1]
                names = one.names.to_list()
                key = (int(block.codes[i]), int(block.start_ms[i]))
                assert key not in found, "a window is judged once"
                assert int(block.end_ms[i]) == key[1] + plan.span_ms - 1
                pairs = zip(one.source.tolist(), one.target.tolist(), strict=True)
                found[key] = (
                    list(zip(names, one.types.to_list(), strict=True)),
                    [(names[a], names[b]) for a, b in pairs],
                    one.count.tolist(),
                    int(one.dropped[0]),
                    at + int(block.row[i]),
                )
        late += [at + i for i in np.flatnonzero(is_late).tolist()]
        at += len(part)
        if restart is not None and at >= restart:
            windows, restart = restarted(plan, windows), None
    return found, late


def restarted(plan, windows):
    codes = np.arange(3, dtype=np.int32)
    again = GraphWindows(plan)
    again.state.reserve(3)
    again.state.load(codes, windows.state.state(codes))
    again.load_apart(codes, windows.apart(codes))
    return again


def reference(plan, edges):
    clock, first_open, open_edges = {}, {}, defaultdict(list)
    found, late = {}, []
    for number, (key, t, source, target, kind) in enumerate(edges):
        pane = t // plan.slide_ms
        if key not in clock:
            first_open[key] = pane - plan.panes + 1
        elif pane < first_open[key]:
            late.append(number)
            continue
        open_edges[key].append((pane, source, target, kind))
        clock[key] = max(clock.get(key, t), t)
        while first_open[key] * plan.slide_ms + plan.span_ms + plan.lateness_ms <= clock[key]:
            first = first_open[key]
            first_open[key] += 1
            inside = [e for e in open_edges[key] if first <= e[0] < first + plan.panes]
            if inside:
                found[key, first * plan.slide_ms] = (*graph(inside), number)
    return found, late


def graph(inside):
    """Return the nodes with their types, the edges and the counts of a window without bounds."""
    types, counts = {}, {}
    for _, source, target, kind in inside:
        types[source] = types.get(source) or kind
        types.setdefault(target, None)
        counts[source, target] = counts.get((source, target), 0.0) + 1.0
    return list(types.items()), list(counts), list(counts.values()), 0


@given(plan=PLANS, edges=EDGES)
@settings(max_examples=150, deadline=None)
def test_graphs_are_those_of_the_reference(plan, edges):
    found, late = graphs_of(plan, edges)
    wanted, wanted_late = reference(plan, edges)
    assert late == wanted_late
    assert found.keys() == wanted.keys()
    if plan.max_edges > 100 and plan.max_nodes > 100:
        assert found == wanted


@given(
    plan=PLANS, edges=EDGES, sizes=st.lists(st.integers(1, 20), max_size=8),
    restart=st.integers(0, 60),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_neither_batches_nor_restarts_nor_adding_up_change_graphs(plan, edges, sizes, restart):
    wanted = graphs_of(plan, edges)
    assert graphs_of(plan, edges, sizes) == wanted
    assert graphs_of(plan, edges, sizes, restart) == wanted


def test_bounds_count_what_they_leave_out():
    plan = GraphPlan(span_ms=10, slide_ms=10, max_edges=3)
    edges = [(0, 1, f"n{i}", "hub", None) for i in range(6)] + [(0, 2, "n0", "hub", None)]
    found, _ = graphs_of(plan, [*edges, (0, 99, "x", "y", None)])
    nodes, pairs, count, dropped, _ = found[0, 0]
    assert pairs == [("n0", "hub"), ("n1", "hub"), ("n2", "hub")]
    assert (count, dropped) == ([2.0, 1.0, 1.0], 3)
    assert [name for name, _ in nodes] == ["n0", "hub", "n1", "n2"]


def test_many_edges_of_one_window_are_held_once(monkeypatch):
    monkeypatch.setattr(module, "COMPACT", 1_000)
    windows = GraphWindows(GraphPlan(span_ms=60_000, slide_ms=60_000))
    windows.state.reserve(1)
    edges = [(0, 5, f"n{i % 50}", "hub", "host") for i in range(2_500)]
    codes, late = np.zeros(2_500, np.int32), np.zeros(2_500, np.bool_)
    for _ in range(20):
        list(windows.ingest(codes, rows_of(edges).time_ms, rows_of(edges), late))
    assert windows.n_open <= 50 + 2_500
    (block,) = windows.ingest(
        codes[:1], np.array([120_000]), rows_of([(0, 120_000, "a", "b", None)]), late[:1]
    )
    assert block.values.count.tolist() == [1_000.0] * 50


def test_names_that_are_gone_are_forgotten(monkeypatch):
    monkeypatch.setattr(module, "COMPACT", 10)
    windows = GraphWindows(GraphPlan(span_ms=10, slide_ms=10))
    windows.state.reserve(1)
    for minute in range(200):
        edges = [(0, minute * 10, f"pod-{minute}-{i}", "hub", None) for i in range(20)]
        list(windows.ingest(np.zeros(20, np.int32), rows_of(edges).time_ms, rows_of(edges),
                            np.zeros(20, np.bool_)))  # fmt: skip
    assert len(windows._names) < 100


@pytest.mark.parametrize("harm", ["owner", "places", "ends", "weight"])
def test_a_damaged_state_is_refused(harm):
    windows = GraphWindows(GraphPlan(span_ms=10, slide_ms=10))
    windows.state.reserve(1)
    edges = [(0, 1, "a", "b", None)]
    list(windows.ingest(np.zeros(1, np.int32), rows_of(edges).time_ms, rows_of(edges),
                        np.zeros(1, np.bool_)))  # fmt: skip
    codes = np.arange(1, dtype=np.int32)
    arrays = windows.apart(codes)
    arrays[harm] = {
        "owner": np.array([7]), "places": np.array([[9, 0, -1, -1]]), "ends": np.array([5, 99]),
        "weight": np.array([np.inf]),
    }[harm]  # fmt: skip
    with pytest.raises(StateError, match="parts do not agree"):
        GraphWindows(GraphPlan(span_ms=10, slide_ms=10)).load_apart(codes, arrays)
