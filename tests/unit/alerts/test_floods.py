"""Limits of alerts: a flood is bounded, counted and reported."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from streamad.records import Alert, Finding
from tests.unit.alerts.made import HOUR, MINUTE, NOON, Stage, error, finding, states


def episode(n: int, *, key: str = "host-1/cpu", at_ms: int = 0, **changes: Any) -> list[Finding]:
    """Episode ``n``, which begins and ends a minute later."""
    began = finding(id=f"{key}-{n}", key=key, window_end_ms=NOON + at_ms, **changes)
    ended = replace(began, sequence=1, state="ended", window_end_ms=NOON + at_ms + MINUTE)
    return [began, ended]


def flooded(stage: Stage, log: list[Finding], at_ms: int = 0) -> list[Alert]:
    """All of ``log`` written at one time, as after a message with many rows."""
    return stage.operator.process(stage.state, [(one, NOON + at_ms) for one in log])


def test_a_flood_of_a_key_is_bounded_counted_and_reported():
    stage = Stage(limit={"per_key": 3})
    log = [one for n in range(1000) for one in episode(n, at_ms=n * HOUR)]
    made = flooded(stage, log)
    assert sum(a.state == "opened" and a.kind == "anomaly" for a in made) == 3
    (flood,) = [a for a in made if a.kind == "flood"]
    assert flood.state == "opened"
    assert flood.severity == 1.0
    assert stage.state.counts["alerts_withheld"] == 997
    assert flooded(stage, log) == []
    # The number comes with the next alert that is not sent, once an update is due, and at the end.
    (updated,) = flooded(stage, episode(1000), at_ms=2 * MINUTE)
    assert updated.summary == (
        "too many alerts of hosts: 998 were not sent since 12:00 UTC; the last one on host-1/cpu; "
        "alerts.limit allows 3 per key and 100 per group in 1h"
    )
    (resolved,) = stage.operator.tick(stage.state, NOON + 62 * MINUTE)
    assert (resolved.id, resolved.state) == (flood.id, "resolved")
    assert resolved.summary.startswith("too many alerts of hosts: 998 were not sent (none since")
    assert states(flooded(stage, episode(1001), at_ms=63 * MINUTE)) == ["opened", "resolved"]


def test_a_flood_of_many_keys_is_bounded_by_its_group():
    stage = Stage(limit={"per_group": 5})
    log = [episode(0, key=f"host-{n}/cpu")[0] for n in range(50)]
    other = episode(0, key="db-1/cpu", group="other")[0]
    made = flooded(stage, [*log, other])
    assert (
        sum(a.state == "opened" and a.kind == "anomaly" and a.group == "hosts" for a in made) == 5
    )
    assert [a.id for a in made if a.group == "other"] == [other.id]


def test_an_alert_that_was_not_sent_opens_later_if_its_episode_lasts():
    stage = Stage(limit={"per_key": 1})
    flooded(stage, episode(0))
    late = finding(id="e2", began_ms=NOON)
    assert [a.kind for a in flooded(stage, [late])] == ["flood"]
    lasting = replace(late, sequence=1, state="continues", window_end_ms=NOON + HOUR)
    made = flooded(stage, [lasting], at_ms=HOUR)
    assert [(a.id, a.state) for a in made if a.kind == "anomaly"] == [("e2", "opened")]


def test_errors_and_silence_are_limited_and_quarantine_is_not():
    stage = Stage(limit={"per_group": 1})
    made = stage.take(error(0, 0), error(0, 0, key="b"), error(1, 1, key="b"))
    assert [a.kind for a in made] == ["error", "flood"]
    assert stage.state.counts["alerts_withheld"] == 1
    (kept,) = stage.take(finding(id="q", kind="quarantine", explanation=None))
    assert kept.kind == "quarantine"


def test_limits_survive_a_restart():
    stage, again = Stage(limit={"per_key": 2}), Stage(limit={"per_key": 2})
    log = [one for n in range(5) for one in episode(n)]
    whole = flooded(stage, log)
    first = flooded(again, log[:5])
    topic = json.loads(json.dumps(again.state.drain_changes()))
    later_stage = Stage(limit={"per_key": 2})
    later_stage.state.load(topic)
    assert first + flooded(later_stage, log[5:]) == whole
