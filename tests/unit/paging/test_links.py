"""What is linked, what was learned, and who is named as the cause."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.alerting.config import IncidentsConfig
from streamad.errors import ConfigError
from streamad.incidents import Affected
from streamad.paging.incidents import habits as habits_module
from streamad.paging.incidents import topology as topology_module
from streamad.paging.incidents.causes import MAX_CAUSES, causes, suspects
from streamad.paging.incidents.habits import Habits
from streamad.paging.incidents.links import Linking
from streamad.paging.incidents.topology import Topology
from tests.unit.paging.made import HOUR, MINUTE

DAY = 24 * HOUR
GAP = 5 * MINUTE
NAMES = "abcdefgh"


# ---------------------------------------------------------------------- topology


def by_definition(graph: Any, one: str, other: str, distance: int) -> bool:
    """One reaches the other, or both reach a third in half as many steps."""
    below = {name: nx.single_source_shortest_path_length(graph, name) for name in (one, other)}
    reaches = below[one].get(other, 99), below[other].get(one, 99)
    shared = [
        name for name in graph
        if max(below[one].get(name, 99), below[other].get(name, 99)) <= distance // 2
    ]  # fmt: skip
    return min(reaches) <= distance or bool(shared)


@settings(max_examples=80, deadline=None)
@given(
    edges=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=14),
    distance=st.integers(1, 4),
)
def test_places_that_meet_halfway_are_the_definition(edges: list[tuple[str, str]], distance: int):
    topology = Topology(edges, distance=distance)
    graph = nx.DiGraph(edges)
    for one in sorted(graph):
        for other in sorted(graph):
            if one != other and one in topology and other in topology:
                wanted = by_definition(graph, one, other, distance)
                assert topology.linked(one, other) == wanted, (one, other)


def test_a_topology_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(topology_module, "MAX_EDGES", 3)
    with pytest.raises(ConfigError, match="more than 3 edges"):
        Topology(pairwise("abcdef"))


# ---------------------------------------------------------------------- habits


def test_what_was_learned_survives_a_restart_at_any_point():
    rng = np.random.default_rng(2)
    onsets = sorted(
        [(day * DAY + int(rng.integers(60_000)), name) for day in range(5) for name in "ab"]
        + [(int(at), str(rng.choice(list("cdefg")))) for at in rng.integers(0, 5 * DAY, 60)]
    )
    straight, records = Habits(), {}
    restarted = Habits()
    for at, name in onsets:
        straight.learn(name, at, gap_ms=GAP)
        restarted.learn(name, at, gap_ms=GAP)
        records |= orjson.loads(orjson.dumps(restarted.drain_changes()))
        restarted = Habits()
        for known, record in records.items():
            restarted.load(known, record)
        names = sorted({name for _, name in onsets})
        assert [restarted.partners(one, gap_ms=GAP) for one in names] == [
            straight.partners(one, gap_ms=GAP) for one in names
        ]
    assert straight.partners("a", gap_ms=GAP) == ["b"]
    assert all(straight.partners(name, gap_ms=GAP) == [] for name in "cdefg")


def test_two_that_begin_all_the_time_are_together_by_chance():
    habits = Habits()
    for n in range(400):
        habits.learn("a", n * 7 * MINUTE, gap_ms=GAP)
        habits.learn("b", n * 11 * MINUTE, gap_ms=GAP)
    assert habits.partners("a", gap_ms=GAP) == []


def test_habits_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(habits_module, "MAX_ENTITIES", 64)
    monkeypatch.setattr(habits_module, "_FORGET", 8)
    habits = Habits()
    for n in range(200):
        habits.learn(f"e{n}", n * HOUR, gap_ms=GAP)
    assert 56 <= len(habits) <= 64
    gone = [name for name, record in habits.drain_changes().items() if record is None]
    assert "e0" in gone
    assert "e199" not in gone


@pytest.mark.parametrize(
    "record",
    [{}, {"n": 0, "born_ms": 0, "last_ms": 1, "partners": {}}, {"n": 1, "born_ms": "x"}],
)
def test_a_damaged_record_is_refused(record: dict[str, Any]):
    with pytest.raises((KeyError, ValueError, TypeError)):
        Habits().load("a", record)


# ---------------------------------------------------------------------- causes


def member(host: str, strength: float, *, at: int = 0, kind: str = "anomaly") -> Affected:
    return Affected(
        alert=f"{host}-{strength}-{at}", pipeline="p", detector="d", kind=kind, group="p",
        key=f"{host}/ms", entity={"host": host, "metric": "ms"}, began_ms=at, until_ms=at,
        peak_severity=strength / 4, strength=strength, summary=f"{host}/ms is high",
    )  # fmt: skip


def ranked(members: list[Affected], edges: list[tuple[str, str]] | None = None) -> list[str]:
    linking = Linking(IncidentsConfig(), Topology(edges or []))
    found = causes(suspects(members, linking))
    assert found == causes(suspects(members[::-1], linking)), "the order of members matters"
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    return [one.entity for one in found]


def test_the_strongest_deviation_is_first_and_onset_breaks_ties_only():
    assert ranked([member("a", 5, at=0), member("b", 9, at=9)]) == ["b", "a"]
    assert ranked([member("b", 5, at=9), member("c", 5, at=3), member("a", 5, at=6)]) == [*"cab"]


def test_silence_is_first_unless_most_are_silent():
    alerts = [member("a", 9), member("b", 8), member("c", 4, kind="no_data")]
    assert ranked(alerts)[0] == "c"
    quiet = [member(name, 4, kind="no_data", at=1) for name in "cd"]
    assert ranked([member("a", 9), *quiet])[0] == "a"


def test_a_callers_failure_is_explained_by_its_callee_through_others():
    chain = [("front", "api"), ("api", "cache"), ("cache", "store")]
    alerts = [member("front", 9), member("api", 9), member("cache", 8.5), member("store", 7)]
    assert ranked(alerts, chain) == ["store", "cache", "api", "front"]


def test_two_that_call_each_other_explain_neither():
    alerts = [member("a", 9), member("b", 6)]
    assert ranked(alerts, [("a", "b"), ("b", "a")]) == ["a", "b"]


def test_a_dependency_nothing_reports_on_is_named_with_its_reason():
    edges = [(name, "disk") for name in "abcd"]
    linking = Linking(IncidentsConfig(), Topology(edges))
    first, *_ = causes(suspects([member(name, 6) for name in "abcd"], linking))
    assert first.entity == "disk"
    assert first.reason == "has no alert of its own; 4 of 4 others depend on it"


def test_at_most_five_causes_and_none_where_there_is_no_choice():
    assert len(ranked([member(f"h{i}", 5 + i) for i in range(9)])) == MAX_CAUSES
    assert ranked([member("a", 5), member("a", 6)]) == []
