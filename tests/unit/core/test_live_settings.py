"""Which settings a running job takes over: each states it, and none of them changes a decision.

All settings of both kinds of files are walked, so a new one that states that it is live must be
added here, with another value, and is then tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.plain.config_watch import ConfigWatch
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import PagerConfig
from streamad.config import LIGHT_SETTINGS, PipelineConfig, binds_state, changes_decisions
from streamad.config.live import Change, changes, is_live, live_settings, sections_of
from streamad.config.section import Section
from streamad.paging.desk import Desk
from streamad.records import Finding
from tests.unit.core.test_decision_settings import OTHERS, base_of, changed

NOON = 1_700_049_600_000
OF_PIPELINE = {
    "detector.artifact",
    "detector.reload",
    "alerts.runbook",
    "alerts.links",
    "delivery.commit_interval",
    "delivery.snapshot_interval",
}
OF_ALERTING = {
    "alerts.runbook",
    "alerts.links",
    "triage",
    "severities",
    "delivery.commit_interval",
    "delivery.snapshot_interval",
}
OF_PAGERS = {
    "timeout", "ca_file", "cert_file", "key_file", "allow_http", "urls", "resend", "labels",
    "read_silences", "username", "password", "password_file", "token", "token_file", "url",
    "routing_key", "routing_key_file", "updates", "channel", "digests", "host", "port", "sender",
    "to", "tls", "tags", "url_file", "secret", "secret_file", "dashboard", "panel",
}  # fmt: skip

BASE: dict[str, Any] = {
    "name": "shop",
    "findings": ["f"],
    "alerts": {"links": {"logs": "https://logs.example.org/{host}"}},
    "assets": [{"match": {"host": "db*"}, "weight": 2}],
    "silences": [{"name": "night", "days": ["sat"], "ends": "2030-01-01"}],
    "pagers": [
        {
            "name": "alertmanager", "kind": "alertmanager", "urls": ["http://am-0:9093"],
            "read_silences": "30s", "allow_http": True,
        },
        {"name": "pagerduty", "kind": "pagerduty", "routing_key": "k" * 32},
        {"name": "slack", "kind": "slack", "channel": "C1", "token": "t" * 16},
        {
            "name": "email", "kind": "email", "host": "smtp.example.org", "sender": "a@example.org",
            "to": ["b@example.org"],
        },
        {"name": "apprise", "kind": "apprise", "url": "https://apprise:8000", "token": "key1234"},
        {"name": "webhook", "kind": "webhook", "url": "https://h/", "secret": "s" * 16},
        {"name": "grafana", "kind": "grafana", "url": "https://g/", "token": "t" * 16},
    ],
}  # fmt: skip
CHANGED_ALERTING: dict[str, Any] = {
    "name": "other",
    "findings": ["f", "g"],
    "alerts.max_age": "2h",
    "alerts.update_every": "2m",
    "alerts.runbook": "https://example.org/r",
    "alerts.links": {"logs": "https://elsewhere.example.org/{host}"},
    "alerts.limit.per_key": 1,
    "alerts.limit.per_group": 1,
    "alerts.limit.within": "1d",
    "budget.pages": "5 per week",
    "budget.groups": {"shop": "1 per week"},
    "budget.memory": "7d",
    "budget.soak": "1h",
    "budget.kinds": ["anomaly"],
    "budget.overdraft": 3,
    "budget.digest_every": "7d",
    "incidents.gap": "1m",
    "incidents.links": ["host"],
    "incidents.topology": "topology.csv",
    "incidents.distance": 1,
    "incidents.span": "1h",
    "incidents.hold": "1m",
    "incidents.flapping.times": 4,
    "incidents.flapping.within": "2h",
    "incidents.max_members": 10,
    "incidents.update_every": "2m",
    "assets": [{"match": {"host": "db*"}, "weight": 3}],
    "silences": [{"name": "day", "days": ["sun"]}],
    "feedback": "answers",
    "pagers": BASE["pagers"][1:],
    "triage": "triage.json",
    "severities": "scale.json",
    "stale_after": "3d",
    "delivery.commit_interval": "1s",
    "delivery.snapshot_interval": "5m",
    "delivery.snapshot_store": "snapshots",
    "delivery.on_state_mismatch": "fresh",
    "delivery.max_poll_records": 1,
    "delivery.transaction_timeout": "20s",
    "output.alerts": "a",
    "output.incidents": "i",
    "output.dead_letters": "d",
    "output.format": "confluent",
    "output.register_schemas": False,
}
CHANGED_PAGER: dict[str, Any] = {
    "name": "renamed",
    "kind": None,
    "groups": ["payments"],
    "tenants": ["shop"],
    "min_severity": 2,
    "send": "all",
    "max_age": "2h",
    "give_up": "1h",
    "timeout": "5s",
    "ca_file": "ca.pem",
    "cert_file": "cert.pem",
    "key_file": "key.pem",
    "allow_http": None,
    "urls": ["http://am-1:9093"],
    "resend": "30s",
    "labels": {"team": "payments"},
    "read_silences": "1m",
    "username": None,
    "password": None,
    "password_file": "password",
    "token": "u" * 16,
    "token_file": None,
    "url": "https://elsewhere.example.org/",
    "routing_key": "l" * 32,
    "routing_key_file": None,
    "updates": None,
    "channel": "C2",
    "digests": False,
    "host": "mail.example.org",
    "port": 465,
    "sender": "c@example.org",
    "to": ["d@example.org"],
    "tls": False,
    "tags": ["infra"],
    "url_file": None,
    "secret": "r" * 16,
    "secret_file": None,
    "dashboard": "hosts",
    "panel": 3,
}
"""Another value of each setting of pagers; None: made below, since others must change with it."""
KINDS: dict[str, type[Section]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind
    for kind in sections_of(PagerConfig)  # type: ignore[arg-type]
    if issubclass(kind, Section)
}


def walk(model: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section], str]]:
    """Yield each setting with its path, its section and its name; lists are one setting."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from walk(field.annotation, f"{prefix}{name}.")
        elif not field.exclude:
            yield f"{prefix}{name}", model, name


def test_what_is_live_is_what_is_listed_and_tried_here():
    of_flink = {path for path, _, _ in walk(PipelineConfig) if path.startswith("flink.")}
    assert set(live_settings(PipelineConfig)) == OF_PIPELINE | of_flink
    of_pagers = {f"pagers.*.{name}" for name in OF_PAGERS}
    assert set(live_settings(AlertingConfig)) == OF_ALERTING | of_pagers
    for kind in KINDS.values():
        for name in kind.model_fields:
            assert is_live(kind, name) == (name in OF_PAGERS), name


def test_no_live_setting_changes_what_detect_decides_or_binds_state():
    for path in live_settings(PipelineConfig):
        assert not changes_decisions(path)
        assert not binds_state(path)
        assert path not in LIGHT_SETTINGS


def test_another_value_of_every_setting_is_tried():
    assert {path for path, _, _ in walk(AlertingConfig)} == CHANGED_ALERTING.keys()
    assert {name for kind in KINDS.values() for name in kind.model_fields} == CHANGED_PAGER.keys()


@pytest.mark.parametrize("path", OTHERS)
def test_a_change_of_a_pipeline_is_named_and_live_where_it_states_so(path: str):
    found = changes(base_of(path), changed(path))
    live = path in OF_PIPELINE or path.startswith("flink.")
    if path == "detector.artifact":
        live = False  # where there was none, a running job cannot begin with one
    assert Change(path, live) in found
    assert path == "input.records" or len(found) == 1


def test_an_artifact_is_live_between_two_places_only():
    def at(artifact: str | None) -> PipelineConfig:
        return PipelineConfig.model_validate(
            {"name": "p", "detector": {"name": "knn", "artifact": artifact}}
        )

    assert changes(at("a"), at("b")) == [Change("detector.artifact", live=True)]
    assert changes(at("a"), at(None)) == [Change("detector.artifact", live=False)]
    assert changes(at(None), at("b")) == [Change("detector.artifact", live=False)]


def alerting(path: str = "", value: Any = None) -> AlertingConfig:
    tree = AlertingConfig.model_validate(BASE).model_dump(mode="json", exclude_none=True)
    # Secrets are masked there.
    tree["pagers"] = BASE["pagers"]
    if path:
        *parents, name = path.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return AlertingConfig.model_validate(tree)


@pytest.mark.parametrize("path", CHANGED_ALERTING)
def test_a_change_of_an_alerting_file_is_named_and_live_where_it_states_so(path: str):
    found = changes(alerting(), alerting(path, CHANGED_ALERTING[path]))
    assert found == [Change(path, path in OF_ALERTING)]


def pager_changes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each kind's settings, and what of the pager is to be other for a change of it."""
    together: dict[str, dict[str, Any]] = {
        "token_file": {"token": None, "token_file": "token"},
        "routing_key_file": {"routing_key": None, "routing_key_file": "key"},
        "secret_file": {"secret": None, "secret_file": "secret"},
        "url_file": {"url": None, "url_file": "url"},
        "username": {"username": "u", "password": "p" * 8},
        "password": {"username": "u", "password": "p" * 8},
    }
    given = {one["kind"]: one for one in BASE["pagers"]}
    for kind, section in KINDS.items():
        for name in section.model_fields:
            if name == "kind":
                continue
            change = together.get(name) or {name: CHANGED_PAGER[name]}
            if name in ("allow_http", "updates"):
                before = getattr(section.model_validate(given[kind]), name)
                change = {name: not before}
                if name == "allow_http" and kind == "alertmanager":
                    change = {name: False}
            yield kind, name, change


@pytest.mark.parametrize(("kind", "name", "change"), list(pager_changes()))
def test_a_change_of_a_pager_is_named_and_live_where_it_states_so(
    kind: str, name: str, change: dict[str, Any]
):
    pagers = [{**one, **(change if one["kind"] == kind else {})} for one in BASE["pagers"]]
    found = changes(alerting(), alerting("pagers", pagers))
    if name == "name":
        assert found == [Change("pagers", live=False)]
        return
    assert Change(f"pagers.{kind}.{name}", name in OF_PAGERS) in found
    assert {one.path.rsplit(".", 1)[1] for one in found} <= change.keys()


def test_silences_of_alertmanager_are_read_from_the_start_or_not_at_all():
    pagers = [dict(one) for one in BASE["pagers"]]
    del pagers[0]["read_silences"]
    found = changes(alerting(), alerting("pagers", pagers))
    assert found == [Change("pagers.alertmanager.read_silences", live=False)]


def test_a_pager_that_comes_goes_moves_or_is_of_another_kind_needs_a_restart():
    pagers = BASE["pagers"]
    for other in (pagers[:-1], pagers[::-1]):
        assert changes(alerting(), alerting("pagers", other)) == [Change("pagers", live=False)]
    other = [{**pagers[0], "name": "slack"}, *pagers[1:2], *pagers[3:]]
    other = [{**pagers[5], "name": "alertmanager"}, *pagers[1:5], pagers[6]]
    assert not all(one.live for one in changes(alerting(), alerting("pagers", other)))
    swapped = [*pagers[:5], {**pagers[6], "name": "webhook"}, pagers[6]]
    found = changes(alerting(), alerting("pagers", swapped))
    assert found == [Change("pagers.webhook.kind", live=False)]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.sampled_from(sorted(CHANGED_ALERTING)), max_size=4))
def test_any_file_is_taken_over_whole_or_not_at_all(tmp_path_factory, paths: set[str]):
    import yaml

    file = tmp_path_factory.mktemp("any") / "alerting.yaml"
    file.write_text(yaml.safe_dump(BASE))
    watch = ConfigWatch(file, alerting=True, environment={})
    before = watch.config
    tree: Any = yaml.safe_load(file.read_text())
    for path in paths:
        *parents, name = path.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = CHANGED_ALERTING[path]
    file.write_text(yaml.safe_dump(tree))
    for _ in range(2):
        watch.look()
    wanted = AlertingConfig.model_validate(tree)
    taken = paths <= OF_ALERTING
    assert watch.config == (wanted if taken else before)


def findings(seed: int) -> list[tuple[Finding, int]]:
    """Return findings of some keys: episodes that open, continue and end, strong and weak."""
    draw = random.Random(seed)  # noqa: S311 - test data
    made, sequence = [], dict.fromkeys(range(12), -1)
    for step in range(400):
        key = draw.randrange(12)
        sequence[key] += 1
        state = "began" if sequence[key] == 0 else draw.choice(["continues", "ended"])
        at_ms = NOON + 20_000 * step
        one = Finding(
            id=f"e{key}-{step if state == 'began' else ''}", sequence=sequence[key], state=state,
            kind="anomaly", pipeline="p", detector="knn", artifact="", tenant="default",
            group=f"g{key % 3}", key=f"web-{key}/cpu", entity={"host": f"web-{key}"},
            window_start_ms=at_ms, window_end_ms=at_ms, began_ms=at_ms, until_ms=at_ms, score=9.0,
            p_value=10.0 ** -draw.randrange(2, 9), peak_score=9.0,
            peak_p_value=10.0 ** -draw.randrange(2, 9), level=5.0, n_windows=1, explanation=None,
            input={},
        )  # fmt: skip
        opened = [f for f, _ in made if f.key == one.key and f.state == "began"]
        if state != "began":
            one = replace(one, id=opened[-1].id)
        if state == "ended":
            sequence[key] = -1
        made.append((one, at_ms))
    return made


def decided(seed: int, reword: bool) -> list[Any]:  # noqa: FBT001 - the one thing that differs
    """Return all that a desk yields, without links and words."""
    config = alerting("budget.pages", "20 per week")
    desk, said = Desk(config), []
    state = desk.new_state()
    for number, one in enumerate(findings(seed)):
        if reword and number == 150:
            live = config.alerts.model_copy(
                update={"runbook": "https://example.org/r", "links": {"x": "https://x/{key}"}}
            )
            desk.reword(config.model_copy(update={"alerts": live}), None)
        out = desk.process(state, [one])
        said += [replace(alert, links={}) for alert in out.alerts]
        said += [
            replace(i, links={}, members=tuple(replace(m, links={}) for m in i.members))
            for i in out.incidents
        ]
        said += out.digests
    return said


@pytest.mark.parametrize("seed", range(5))
def test_other_links_change_no_decision_of_the_desk(seed: int):
    calm = decided(seed, reword=False)
    assert len(calm) > 100
    assert decided(seed, reword=True) == calm
