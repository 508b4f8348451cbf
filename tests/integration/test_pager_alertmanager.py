"""A real Alertmanager: what fires stays, what is over goes, on every replica."""

from __future__ import annotations

import time
from dataclasses import replace

from connectors.pagers import make_pager
from streamad.alerting.config import AlertingConfig
from streamad.paging.changes import page_of, told_after
from tests.integration.alertmanager import Alertmanager
from tests.unit.pagers.made import INCIDENT, T0, over, step
from tests.unit.pagers.test_pagers import EVIL


def pager(urls, **more):
    tree = {"name": "am", "kind": "alertmanager", "urls": urls, "timeout": "2s", **more}
    config = AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": [tree]})
    return make_pager(config.pagers[0])


def current(incident):
    """Return an incident that began just now: Alertmanager compares with its clock."""
    shift = time.time_ns() // 1_000_000 - T0 - 120_000
    names = ("began_ms", "until_ms", "opened_ms", "time_ms")
    return replace(incident, **{name: getattr(incident, name) + shift for name in names})


def soon(condition, seconds=8.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)


def test_the_life_of_an_incident_on_every_replica(tmp_path):
    first = current(replace(INCIDENT, entity={EVIL: EVIL, "host": "web-1"}, summary=EVIL * 50))
    with Alertmanager(tmp_path, resolve_timeout="3s") as replicas:
        made = pager([*replicas.urls, "http://127.0.0.1:9"], labels={"team": "x"})
        page = page_of(first, "open")
        outcome = made.send(page)
        assert outcome.result == "ok", outcome  # of a replica that is away, too
        told = told_after(page, None, outcome)
        for number in (0, 1):
            soon(lambda number=number: replicas.firing(number) == {first.id})
        (alert,) = replicas.alerts()
        assert alert["labels"]["severity"] == "error"
        assert alert["labels"]["team"] == "x"
        assert alert["annotations"]["link_runbook"] == INCIDENT.links["runbook"]
        # Worse by now: the same alert, since labels stay as they were.
        worse = step(first, severity=9.0)
        page = page_of(worse, "update", told)
        told = told_after(page, told, made.send(page))
        (alert,) = replicas.alerts()
        assert alert["labels"]["severity"] == "error"
        assert alert["annotations"]["severity"] == "9.00"
        # Longer than resolve_timeout: sending again keeps it.
        replicas.kill(1)
        for _ in range(5):
            assert made.remind([told]).result == "ok"
            time.sleep(1)
        assert replicas.firing() == {first.id}
        # A replica that lost all it knew has it again with the next reminder.
        replicas.start(1)
        assert made.remind([told]).result == "ok"
        soon(lambda: replicas.firing(1) == {first.id})
        page = page_of(over(worse), "resolve", told)
        told = told_after(page, told, made.send(page))
        for number in (0, 1):
            soon(lambda number=number: replicas.firing(number) == set())
        # Resolved ones are sent again, too, and stay resolved.
        assert made.remind([told]).result == "ok"
        assert replicas.firing() == set()


def test_clocks_that_disagree_resolve_nothing_too_early(tmp_path):
    """Event times ahead of Alertmanager's clock, an end before the start: all are taken."""
    with Alertmanager(tmp_path, replicas=1) as replicas:
        made = pager(replicas.urls)
        ahead = replace(current(INCIDENT), began_ms=time.time_ns() // 1_000_000 + 600_000)
        page = page_of(ahead, "open")
        outcome = made.send(page)
        assert outcome.result == "ok"
        soon(lambda: replicas.firing() == {ahead.id})
        end = over(ahead)
        end = replace(end, resolved_ms=end.opened_ms - 3_600_000)
        assert made.send(page_of(end, "resolve", told_after(page, None, outcome))).result == "ok"
        soon(lambda: replicas.firing() == set())


def test_no_replica_at_all_is_tried_again(tmp_path):
    outcome = pager(["http://127.0.0.1:9", "http://127.0.0.1:10"]).send(page_of(INCIDENT, "open"))
    assert outcome.result == "retry"
