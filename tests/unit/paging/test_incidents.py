"""Alerts that overlap in time and are linked are one incident: one page, one end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.records import Finding
from tests.unit.paging.made import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Stage,
    ended,
    finding,
    logged,
    open_incidents,
)


def test_series_of_one_host_are_one_incident_that_ends_with_the_last_of_them():
    stage = Stage()
    cpu, disk = finding("web-1/cpu"), finding("web-1/disk", 30 * SECOND)
    stage.take(cpu, disk, ended(cpu, 2 * MINUTE))
    (life,) = stage.state.incidents.values()
    assert (life.last.n_members, stage.pages) == (2, 1)
    stage.take(ended(disk, 5 * MINUTE))
    assert stage.wait(9 * MINUTE) == []
    (resolved,) = stage.wait(11 * MINUTE)
    assert (resolved.state, resolved.n_open, resolved.n_members) == ("resolved", 0, 2)
    assert resolved.summary.startswith("over after 5 min 30 s: 2 alerts on web-1: web-1/cpu is ")


def test_what_only_happens_at_the_same_time_stays_apart():
    stage = Stage()
    stage.take(finding("web-1/cpu"), finding("db-7/cpu", SECOND))
    assert open_incidents(stage.state) == [{"web-1/cpu"}, {"db-7/cpu"}]


def test_the_same_host_much_later_is_another_incident():
    stage = Stage()
    cpu = finding("web-1/cpu")
    stage.take(cpu, ended(cpu, MINUTE), finding("web-1/disk", 20 * MINUTE))
    assert len(stage.last) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"entity": {"user": "eve", "k8s.node.name": "WEB-1", "n": "1"}},
        {"entity": {"instance": "web-1:9100", "job": "node"}},
        {"entity": {"user": "eve"}, "entities": ("web-1", "10.0.0.7")},
    ],
)
def test_an_entity_links_across_pipelines_whatever_its_name_is(other: dict[str, Any]):
    stage = Stage()
    event = finding("eve", SECOND, pipeline="audit", group="audit", detector="rare_events", **other)
    stage.take(finding("web-1/cpu"), event)
    assert open_incidents(stage.state) == [{"web-1/cpu", "eve"}]


def test_values_of_names_of_different_kinds_are_no_link_nor_are_bare_numbers():
    stage = Stage(links=["host", "user", "shard"])
    stage.take(
        finding("checkout/cpu"),
        finding("b", SECOND, entity={"user": "checkout"}),
        finding("c", SECOND, entity={"shard": "17"}),
        finding("d", SECOND, entity={"x": "1"}, entities=("17",)),
    )
    assert len(stage.state.incidents) == 4


def test_a_group_links_its_members_and_tenants_never_meet():
    stage = Stage()
    stage.take(
        finding("web-1/cpu", group="checkout"),
        finding("web-2/cpu", SECOND, group="checkout"),
        finding("web-2/cpu", 2 * SECOND, group="checkout", tenant="other", name="theirs"),
    )
    assert [len(one) for one in open_incidents(stage.state)] == [2, 1]


def test_the_topology_links_callers_and_a_shared_dependency_but_not_a_shared_caller():
    edges = [("front", "cart"), ("front", "search"), ("cart", "db"), ("stock", "db")]
    stage = Stage(edges=edges)
    stage.take(finding("cart/ms"), finding("stock/ms", SECOND), finding("search/ms", SECOND))
    assert open_incidents(stage.state) == [{"cart/ms", "stock/ms"}, {"search/ms"}]


def test_two_hundred_that_fail_of_one_cause_are_one_incident_one_page_and_the_cause_is_named():
    rng = np.random.default_rng(3)
    edges = [(f"web-{i}", "db-1") for i in range(200)] + [("db-2", "disk")]
    stage = Stage(edges=edges)
    late = [finding(f"web-{i}/ms", int(rng.integers(60_000)), p=10 ** -rng.uniform(5, 12))
            for i in range(200)]  # fmt: skip
    # The cause is neither the strongest nor the first to be seen.
    cause = finding("db-1/io", 40 * SECOND, p=1e-7)
    stage.take(*late, cause, finding("db-2/io", 30 * SECOND))
    stage.wait(3 * MINUTE)
    sizes = sorted(life.last.n_members for life in stage.state.incidents.values())
    assert sizes == [1, 201]
    assert stage.pages == 2, "one for the two hundred, one for what is not linked to them"
    big = next(one for one in stage.last.values() if one.n_members == 201)
    assert big.causes[0].entity == "db-1"
    assert big.causes[0].reason == "200 of 200 others depend on it"
    assert big.summary.startswith("201 hosts: web-")
    assert big.summary.endswith("(probable cause: db-1, 200 of 200 others depend on it)")


def test_a_flood_of_thousands_costs_no_more_per_alert_and_its_strongest_are_kept():
    rng = np.random.default_rng(5)

    def flood(n: int) -> tuple[Stage, float]:
        stage = Stage(max_members=50)
        burst = [finding(f"web-{i}/ms", i, p=10 ** -rng.uniform(5, 10), group="shop")
                 for i in range(n - 1)]  # fmt: skip
        log = logged([*burst, finding("last/ms", n, p=1e-13, group="shop")])
        began = time.process_time()
        stage.keep(stage.desk.process(stage.state, log))
        return stage, (time.process_time() - began) / n

    _, few = flood(500)
    stage, many = flood(5_000)
    (life,) = stage.state.incidents.values()
    assert (life.last.n_members, len(life.members), stage.pages) == (5_000, 50, 1)
    assert "last/ms" in {member.key for member in life.members.values()}
    assert many < 2.5 * few, f"{few * 1e6:.0f} us per alert of 500, {many * 1e6:.0f} of 5,000"


def test_an_incident_ends_only_when_those_it_does_not_hold_are_over_too_also_after_a_restart():
    stage, records = Stage(max_members=2), {}
    burst = [finding(f"web-{i}/ms", i, group="shop") for i in range(5)]
    stage.take(*burst)
    stage.take(*(ended(one, MINUTE) for one in burst[:4]))
    stage.restart(records)
    assert "resolved" not in {one.state for one in stage.wait(HOUR)}
    stage.take(ended(burst[4], HOUR))
    (resolved,) = stage.wait(2 * HOUR)
    assert (resolved.state, resolved.n_members) == ("resolved", 5)


def test_an_incident_stops_growing_after_its_span_but_for_an_entity_that_is_still_in_it():
    stage = Stage(span="1h")
    stage.take(
        finding("web-1/cpu", group="shop"),
        finding("web-2/cpu", 61 * MINUTE, group="shop"),
        finding("web-1/disk", 62 * MINUTE, group="shop"),
    )
    assert open_incidents(stage.state) == [{"web-1/cpu"}, {"web-2/cpu", "web-1/disk"}]
    stage.take(finding("web-1/net", 63 * MINUTE))
    assert "web-1/net" in open_incidents(stage.state)[1]


def test_an_old_incident_takes_what_shares_an_entity_where_no_younger_one_does():
    stage = Stage(span="1h")
    stage.take(finding("web-1/cpu"), finding("web-1/disk", 2 * HOUR))
    assert open_incidents(stage.state) == [{"web-1/cpu", "web-1/disk"}]


def test_an_alert_that_links_two_incidents_makes_one_of_them_and_pages_nobody_again():
    stage = Stage()
    web, db = finding("web-1/cpu", group="web"), finding("db-1/io", SECOND, group="db")
    stage.take(web, db)
    assert stage.pages == 2
    both = finding("web-1/ms", 2 * SECOND, group="db")
    out = stage.take(both)
    older, younger = (one for one in stage.last.values())
    assert (younger.state, younger.merged_into) == ("resolved", older.id)
    assert younger.summary.startswith(f"part of incident {older.id[:8]} now: ")
    assert open_incidents(stage.state) == [{"web-1/cpu", "db-1/io", "web-1/ms"}]
    assert sum(one.state == "opened" for one in out) == 0
    stage.take(ended(web, HOUR), ended(db, HOUR), ended(both, HOUR))
    (resolved,) = stage.wait(2 * HOUR)
    assert (resolved.id, resolved.n_members) == (older.id, 3)


def test_of_two_incidents_the_one_that_paged_stays():
    stage = Stage(hold="30s")
    young = finding("db-1/io", 10 * SECOND, group="db", kind="no_data")
    stage.take(replace(finding("web-1/cpu", group="web"), born_ms=NOON), young)
    stage.wait(50 * SECOND)
    (paged,) = (one for one in stage.last.values() if one.paged_ms is not None)
    assert paged.group == "db"
    stage.take(finding("web-1/ms", MINUTE, group="db"))
    assert [life.last.id for life in stage.state.incidents.values()] == [paged.id]


def test_what_began_together_before_is_linked_by_that():
    stage = Stage()
    day = 24 * HOUR
    for n in range(6):
        pair = finding("web-1/cpu", n * day), finding("batch-9/io", n * day + 20 * SECOND)
        noise = finding(f"other-{n}/cpu", n * day + 7 * HOUR)
        stage.take(*pair, *(ended(one, MINUTE) for one in pair), noise, ended(noise, MINUTE))
        stage.wait(n * day + 20 * HOUR)
    sizes = [one.n_members for one in stage.last.values() if one.n_members > 1]
    assert sizes == [2, 2], "four times teach; from then on the two are one incident"


def test_chance_and_floods_teach_nothing():
    stage, rng = Stage(), np.random.default_rng(1)
    for day in range(6):
        crowd = [finding(f"h-{i}/cpu", day * 24 * HOUR + i) for i in range(40)]
        hours = rng.integers(3, 20, 8).tolist()
        alone = [finding(f"x-{i}/cpu", (day * 24 + hour) * HOUR) for i, hour in enumerate(hours)]
        stage.take(*crowd, *alone, *(ended(one, MINUTE) for one in (*crowd, *alone)))
        stage.wait(day * 24 * HOUR + 23 * HOUR)
    assert {one.n_members for one in stage.last.values()} == {1}


def test_the_probable_cause_leads_until_somebody_is_paged_and_then_the_lead_stays():
    stage = Stage(edges=[("web", "db"), ("web", "cache")], hold="1m")
    stage.take(finding("web/ms", p=1e-9), finding("db/io", 10 * SECOND, p=1e-7))
    stage.wait(2 * MINUTE)
    (paged,) = (one for one in stage.sent if one.paged_ms is not None)
    assert paged.members[0].key == "db/io"
    stage.take(finding("cache/io", 3 * MINUTE, kind="no_data"))
    stage.wait(6 * MINUTE)
    (cause, *_) = stage.sent[-1].causes
    assert (cause.entity, stage.sent[-1].members[0].key) == ("cache", "db/io")
    assert cause.reason == "has sent no data since 12:03:00 UTC; 1 of 2 others depend on it"


# ---------------------------------------------------------------------- the same however it runs

KEYS = [f"{host}/{metric}" for host in ("a-1", "b-1", "c-1", "d-1") for metric in ("cpu", "io")]
EDGES = [("a-1", "b-1"), ("b-1", "c-1"), ("d-1", "c-1")]


@st.composite
def streams(draw: st.DrawFn) -> list[Finding]:
    made: list[Finding] = []
    for n in range(draw(st.integers(1, 14))):
        at = draw(st.integers(0, 90)) * MINUTE
        key, group = draw(st.sampled_from(KEYS)), draw(st.sampled_from(["hosts", "g", "h"]))
        kind = draw(st.sampled_from(["anomaly", "no_data"]))
        p = 10.0 ** -draw(st.integers(4, 9))
        one = finding(key, at + n, p=p, group=group, kind=kind, name=f"f{n}")
        made += [one, ended(one, draw(st.integers(1, 40)) * MINUTE)]
    return made


def everything(stage: Stage, parts: list[list[Any]], *, restart: bool = False) -> list[Any]:
    records: dict[str, Any] = {}
    out: list[Any] = []
    for part in parts:
        made = stage.desk.process(stage.state, part)
        out += [*made.alerts, *made.incidents]
        if restart:
            stage.restart(records)
    made = stage.desk.tick(stage.state, NOON + 5 * HOUR)
    return [one for one in (*out, *made.incidents) if hasattr(one, "n_members")]


@settings(max_examples=60, deadline=None)
@given(stream=streams(), size=st.integers(1, 5), restart=st.booleans())
def test_neither_the_size_of_batches_nor_a_restart_changes_an_incident(
    stream: list[Finding], size: int, *, restart: bool
):
    log = logged(stream)
    settings_of: dict[str, Any] = {"edges": EDGES, "span": "20m", "max_members": 3, "hold": "2m"}
    whole = everything(Stage(**settings_of), [log])
    parts = [log[i : i + size] for i in range(0, len(log), size)]
    assert everything(Stage(**settings_of), parts, restart=restart) == whole
    opened = [one.id for one in whole if one.state == "opened"]
    resolved = [one.id for one in whole if one.state == "resolved"]
    assert sorted(opened) == sorted(resolved), "each opens once and is resolved once"
