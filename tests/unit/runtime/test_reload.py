"""Live settings in the loops of all stages: taken between two commits, and with their effect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from connectors.memory import MemoryTopics
from connectors.records.cloudevents import decode
from jobs.plain.artifact_watch import ArtifactWatch
from jobs.plain.loops import _prepare_alert, _prepare_detect
from jobs.plain.page import _Renewal
from jobs.plain.triage_watch import TriageWatch
from streamad.alerting.config import AlertingConfig
from streamad.alerts.scale import Scale
from streamad.config import PipelineConfig
from streamad.errors import ConfigError, MembershipError
from streamad.paging.changes import Outcome
from streamad.records import Alert
from tests.unit.pagers.made import INCIDENT
from tests.unit.pagers.test_page_loop import Bench, other
from tests.unit.runtime.test_feedback_topic import FINDINGS, Job, finding
from tests.unit.runtime.test_loop import HERE, Echo
from tests.unit.runtime.test_swap import HERE as IN
from tests.unit.runtime.test_swap import PAYLOADS, Place, fit

RUNBOOK = "https://wiki.example.org/new"


def with_settings(config: PipelineConfig, **sections: dict[str, Any]) -> PipelineConfig:
    tree = config.model_dump(mode="json")
    for name, changes in sections.items():
        tree[name] |= changes
    return PipelineConfig.model_validate(tree)


def test_a_swap_waits_for_the_commit_and_happens_once():
    topics = MemoryTopics()
    topics.make("in", 2)
    topics.put(HERE, [b"a"])
    loop, done = Echo(topics), []
    loop.stage(lambda: done.append(len(topics.records("out"))))
    loop.turn()
    assert done == [], "a message is in hand"
    loop.now_s = 1.0
    commit, refusals = loop._member.commit, [MembershipError("a rebalance is under way")]

    def refuse(*given: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return commit(*given)

    loop._member.commit = refuse  # type: ignore[method-assign]
    loop.turn()
    assert done == [], "the commit was put off"
    loop.now_s = 2.0
    loop.turn()
    loop.turn()
    assert done == [1]
    assert loop.notes.count("before_reload") == loop.notes.count("after_reload") == 1


def test_commits_come_as_often_as_the_new_settings_have_it():
    topics = MemoryTopics()
    topics.make("in", 2)
    loop = Echo(topics)
    loop.turn()
    loop.stage(lambda: loop.pace(with_settings_of("50ms")))
    loop.now_s = 10.0
    loop.turn()
    topics.put(HERE, [b"a"])
    loop.turn()
    loop.now_s += 0.05
    loop.turn()
    assert [one.value for one in topics.records("out")] == [b"a"]


def with_settings_of(interval: str) -> Any:
    tree = {"name": "p", "delivery": {"commit_interval": interval, "snapshot_interval": interval}}
    return PipelineConfig.model_validate(tree).delivery


# ---------------------------------------------------------------------- detect


def test_a_snapshot_is_due_by_the_new_interval(tmp_path: Path):
    place = Place(tmp_path)
    fit(place.artifact, 2)
    loop, watch = place.start()
    loop.turn()
    (shard,) = loop.shards.values()
    place.now_s = 100.0
    config = with_settings(place.config, delivery={"snapshot_interval": "10s"})
    loop.stage(_prepare_detect(loop, watch, place.config, place.config, config))
    loop.turn()
    assert shard.snapshot_due_s <= 110.0
    before = shard.snapshot_due_s
    place.now_s = 111.0
    loop.turn()
    assert before < shard.snapshot_due_s <= 121.0


def test_an_artifact_in_another_place_is_loaded_before_the_file_is_taken(tmp_path: Path):
    place = Place(tmp_path)
    old, new = fit(place.artifact, 2), fit(tmp_path / "elsewhere" / "audit", 3)
    assert old != new
    loop, watch = place.start()
    loop.turn()
    there = str(tmp_path / "elsewhere" / "audit")
    config = with_settings(place.config, detector={"artifact": there, "reload": "1s"})
    for wrong in (str(tmp_path / "nowhere"), str(tmp_path)):
        missing = with_settings(place.config, detector={"artifact": wrong})
        with pytest.raises(Exception, match="artifact"):
            _prepare_detect(loop, watch, place.config, place.config, missing)
    loop.stage(_prepare_detect(loop, watch, place.config, place.config, config))
    place.topics.put(IN, PAYLOADS)
    place.work(loop)
    artifacts = [artifact for _, _, artifact in place.judged()]
    assert (artifacts[0], artifacts[-1]) == (old, new)
    kept = watch.kept(old)
    assert kept is not None
    assert kept.artifact == old, "a partition that comes now may have state of the old one"


def test_how_often_is_looked_for_an_artifact_changes_while_it_runs(tmp_path: Path, monkeypatch):
    place = Place(tmp_path)
    fit(place.artifact, 2)
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    never = with_settings(place.config, detector={"reload": "0s"})
    watch = ArtifactWatch(never, "")
    now_s[0] = 1e6
    assert not watch._is_due()
    watch.use(with_settings(place.config, detector={"reload": "20s"}))
    assert watch._is_due()
    now_s[0] += 19
    assert not watch._is_due()
    now_s[0] += 1
    assert watch._is_due()


# ---------------------------------------------------------------------- alert


def alerts(job: Job) -> list[Alert]:
    found = [decode(r.value, r.headers) for r in job.topics.records("streamad.p.alerts")]
    return [one for one in found if isinstance(one, Alert)]


def test_links_of_open_alerts_and_incidents_are_those_of_the_new_file():
    job = Job()
    job.write(FINDINGS, finding("e1"))
    job.work()
    (opened,) = alerts(job)
    assert opened.links == {}
    before = PipelineConfig.model_validate({"name": "p", "input": {"topics": "in"}})
    links = {"logs": "https://logs.example.org/{key}"}
    config = with_settings(before, alerts={"runbook": RUNBOOK, "links": links})
    watch = TriageWatch(None)
    job.loop.stage(_prepare_alert(job.loop, watch, before, config))
    job.work()
    more = finding("e1", sequence=1, state="continues", p_value=1e-12, peak_p_value=1e-12)
    job.write(FINDINGS, more)
    job.work()
    updated = alerts(job)[-1]
    assert (updated.id, updated.state) == (opened.id, "updated")
    wanted = {"runbook": RUNBOOK, "logs": "https://logs.example.org/web-1%2Fcpu"}
    assert updated.links == wanted
    assert job.incidents()[-1].links == wanted
    assert job.loop.desk.config.alerts.runbook == RUNBOOK


def alerting(**given: Any) -> AlertingConfig:
    return AlertingConfig.model_validate({"name": "p", "findings": FINDINGS, **given})


def test_words_of_severity_and_names_of_triage_follow_their_files(tmp_path: Path):
    job, watch = Job(), TriageWatch(None)
    (tmp_path / "scale.json").write_text(
        Scale(decades=(0.1, 0.2), rank=(3.0, 3.0), answers=40).dumps()
    )
    config = alerting(severities=str(tmp_path / "scale.json"))
    job.loop.stage(_prepare_alert(job.loop, watch, alerting(), config))
    job.work()
    job.write(FINDINGS, finding("e1"))
    job.work()
    assert job.incidents()[-1].level == "critical"
    (tmp_path / "scale.json").write_text("{")
    with pytest.raises(ConfigError):
        _prepare_alert(job.loop, watch, config, config)
    with pytest.raises(Exception, match="there is no such file"):
        _prepare_alert(job.loop, watch, alerting(), alerting(triage=str(tmp_path / "none.json")))
    job.loop.stage(_prepare_alert(job.loop, watch, config, alerting()))
    job.work()
    job.write(FINDINGS, finding("e2", key="web-2/cpu"))
    job.work()
    assert job.incidents()[-1].level != ""


# ---------------------------------------------------------------------- page


def paging(**pager: Any) -> AlertingConfig:
    tree = {
        "name": "p", "kind": "webhook", "url": "http://127.0.0.1:9/", "secret": "x" * 16, **pager,
    }  # fmt: skip
    return AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": [tree]})


def test_a_pager_with_another_address_is_tried_at_once():
    bench = Bench()
    loop = bench.life()
    bench.run(2)
    bench.receiver.script = iter([Outcome(result="retry", wait_s=3_600.0)])
    bench.put(INCIDENT)
    bench.run(30)
    assert bench.receiver.keys == []
    good = bench.receiver
    loop.stage(lambda: loop.use(paging().pagers[0], good))
    bench.run(2)
    assert len(good.keys) == 1
    bench.put(other(INCIDENT, "b"))
    bench.run(2)
    assert len(good.keys) == 2


def test_a_pager_is_swapped_only_where_a_page_could_be_made(tmp_path: Path):
    bench = Bench()
    loop = bench.life()
    closed: list[str] = []

    class Old:
        def close(self) -> None:
            closed.append("old")

    renewal = _Renewal(loop, "p", Old(), None, hosts=("good.*", "127.*"))  # type: ignore[arg-type]
    renewal(paging(), paging())()
    assert closed == [], "nothing of this pager changed"
    missing = paging(secret=None, secret_file=str(tmp_path / "secret"))
    for wrong, told in (
        (missing, "secret_file cannot be read"),
        (paging(url="http://bad.example.org/"), "is not among those of STREAMAD_PAGER_HOSTS"),
        (paging(url="https://good.example.org/", ca_file=str(tmp_path / "ca")), "ca_file"),
        (paging(secret="s" * 5), "16 bytes"),
    ):
        with pytest.raises(ConfigError, match=told) as refused:
            renewal(paging(), wrong)
        assert str(refused.value).startswith("pagers.p: expected a page that could be sent")
        assert "\n" not in str(refused.value)
    (tmp_path / "secret").write_text("y" * 16)
    loop.stage(renewal(paging(), missing))
    bench.run(1)
    assert closed == ["old"]
    assert loop._config == missing.pagers[0]


@pytest.mark.parametrize("kind", ["email", "slack", "alertmanager", "pagerduty", "grafana"])
def test_every_kind_of_pager_can_be_tried_without_sending(kind: str, tmp_path: Path):
    from jobs.plain.probe import tried_pager
    from tests.unit.core.test_live_settings import BASE

    config = AlertingConfig.model_validate(BASE)
    (pager,) = [one for one in config.pagers if one.kind == kind]
    # Nothing listens at any of these addresses: whatever were sent would take time and fail.
    began_s = time.monotonic()
    tried_pager(config, pager, wall_ms=lambda: 0).close()
    assert time.monotonic() - began_s < 2
    with_file = {"email": "password_file"}.get(kind, "token_file")
    if kind in ("pagerduty",):
        with_file = "routing_key_file"
    tree = next(dict(one) for one in BASE["pagers"] if one["kind"] == kind)
    tree = {k: v for k, v in tree.items() if k != with_file.removesuffix("_file")}
    tree |= {with_file: str(tmp_path / "gone")} | ({"username": "u"} if kind == "email" else {})
    other_config = AlertingConfig.model_validate({**BASE, "pagers": [tree]})
    with pytest.raises(ConfigError, match=with_file):
        tried_pager(other_config, other_config.pagers[0], wall_ms=lambda: 0)


def test_a_kill_around_a_swap_sends_no_page_twice_and_loses_none():
    class Dying(BaseException):
        pass

    for step in ("before_reload", "after_reload"):
        bench = Bench()
        bench.life()
        bench.run(2)
        bench.put(INCIDENT)

        def fault(at: str, step: str = step) -> None:
            if at == step:
                raise Dying

        loop = bench.life(fault)
        loop.stage(lambda: None)
        with pytest.raises(Dying):
            bench.run(3)
        bench.life()
        bench.run(3)
        assert bench.receiver.changes == [(INCIDENT.id[:4], "open")], step
