"""What comes and goes is one incident, one page, and a count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from streamad.incidents import Incident
from tests.unit.paging.made import HOUR, MINUTE, NOON, Stage, ended, finding


def comings(stage: Stage, key: str, *at_minutes: int, lasting: int = 2) -> list[Incident]:
    """Have a series go wrong for two minutes at these times; return the incidents' last records."""
    for at in at_minutes:
        one = finding(key, at * MINUTE)
        stage.take(one, ended(one, lasting * MINUTE))
        # Each is over before the next: quiet for more than the gap.
        stage.wait((at + lasting) * MINUTE + 6 * MINUTE)
    return list(stage.last.values())


def test_a_series_that_comes_and_goes_is_one_incident_with_one_page_and_a_count():
    stage = Stage()
    made = comings(stage, "web-1/cpu", *range(0, 300, 15))
    assert [one.flaps for one in made] == [0, 0, 18 + 2]
    *_, flapping = made
    assert flapping.paged_ms is not None
    assert flapping.state != "resolved"
    assert flapping.summary.startswith("flapping, 20 times in 4 h 47 min: 18 alerts on web-1: ")
    assert stage.pages == 3
    stage.wait(285 * MINUTE + 2 * MINUTE + 59 * MINUTE)
    assert stage.last[flapping.id].state != "resolved"
    stage.wait(285 * MINUTE + 2 * MINUTE + 61 * MINUTE)
    assert stage.last[flapping.id].state == "resolved"


@pytest.mark.parametrize(("flapping", "n"), [
    ({"times": 2}, 2), ({"times": 5, "within": "2h"}, 5),
    ({"within": "0s"}, 12), ({"within": "20m"}, 12),
])  # fmt: skip
def test_when_it_flaps_is_what_the_settings_say(flapping: dict[str, Any], n: int):
    stage = Stage(flapping=flapping)
    assert len(comings(stage, "web-1/cpu", *range(0, 180, 15))) == n


def test_a_series_that_comes_back_once_does_not_flap():
    stage = Stage()
    made = comings(stage, "web-1/cpu", 0, 40, 80, 120, 160)
    assert [one.flaps for one in made] == [0] * 5
    assert {one.state for one in made} == {"resolved"}


def test_another_series_is_no_part_of_what_flaps():
    stage = Stage()
    comings(stage, "web-1/cpu", 0, 15, 30)
    other = finding("db-1/cpu", 40 * MINUTE, group="db")
    stage.take(other, ended(other, 2 * MINUTE))
    assert stage.pages == 4
    assert stage.last[stage.sent[-1].id].flaps == 0


def test_series_that_come_and_go_by_turns_do_not_make_each_other_flap():
    stage = Stage()
    keys = ["a/cpu", "b/cpu", "c/cpu", "d/cpu"]
    for at, key in enumerate(keys):
        comings(stage, key, 15 * at)
    assert not any(one.flaps for one in stage.last.values())


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_restart_forgets_neither_what_flaps_nor_what_is_about_to(cut: int):
    def run(restart_at: Sequence[int]) -> list[Incident]:
        stage, records = Stage(), dict[str, Any]()
        for number, at in enumerate(range(0, 120, 15)):
            if number in restart_at:
                stage.restart(records)
                records = json.loads(json.dumps(records))
            comings(stage, "web-1/cpu", at)
        stage.wait(6 * HOUR)
        return stage.sent

    assert run([cut]) == run([])


def test_an_old_opening_is_forgotten_and_keys_of_two_tenants_are_two_series():
    stage = Stage()
    for at, tenant in enumerate(("x", "y") * 3):
        one = finding("web-1/cpu", at * 12 * MINUTE, tenant=tenant, name=f"{tenant}{at}")
        stage.take(one, ended(one, 2 * MINUTE))
        stage.wait(at * 12 * MINUTE + 9 * MINUTE)
    flaps = {one.tenant: one.flaps for one in stage.last.values() if one.flaps}
    assert flaps == {"x": 3, "y": 3}
    note = stage.state.notes["flaps/x/web-1/cpu"]
    assert all(ms >= NOON for ms in note["opened"])
