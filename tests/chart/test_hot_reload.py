"""``hotReload``: pods are replaced by changes that need it, and by no other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.config.live import changes, live_settings
from tests.chart.rendering import helm, merged, rendered
from tests.chart.schema import CHART
from tests.chart.test_chart import BASE, HOSTS

OPS: dict[str, Any] = {
    "kind": "alerting",
    "config": {
        "name": "ops",
        "findings": ["f"],
        "budget": "10 per week",
        "pagers": [
            {
                "name": "alertmanager", "kind": "alertmanager", "urls": ["http://am-0:9093"],
                "read_silences": "30s",
            },
            {"name": "slack", "kind": "slack", "channel": "C1", "token_file": "/run/token"},
        ],
    },
}  # fmt: skip


def checksum(job: dict[str, Any]) -> str:
    """Return the annotation of a job's pods; all of its roles have the same."""
    objects = rendered(values=merged(BASE, {"pipelines": {"one": {"hotReload": True, **job}}}))
    pods = [one["spec"]["template"] for one in objects if one["kind"] == "StatefulSet"]
    (made,) = {pod["metadata"]["annotations"]["checksum/config"] for pod in pods}
    return str(made)


LIVE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a link": (HOSTS, {"alerts": {"runbook": "https://example.org/"}}),
    "an interval": (HOSTS, {"delivery": {"commit_interval": "1s"}}),
    "what is of Flink": (HOSTS, {"flink": {"options": {"a": "b"}}}),
    "a channel": (OPS, {"pagers": [OPS["config"]["pagers"][0],
                                   {**OPS["config"]["pagers"][1], "channel": "C2"}]}),
    "an address": (OPS, {"pagers": [{**OPS["config"]["pagers"][0], "urls": ["http://am-9:1"],
                                     "read_silences": "1m"}, OPS["config"]["pagers"][1]]}),
    "a file of names": (OPS, {"triage": "triage.json"}),
}  # fmt: skip
SETTLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a decision": (HOSTS, {"series": {"silence": "5m"}}),
    "a detector in one word": (HOSTS, {"detector": "robust_z"}),
    "a first artifact": (HOSTS, {"detector": {"artifact": "models/a"}}),
    "a limit beside a link": (HOSTS, {"alerts": {"runbook": "https://example.org/",
                                                 "limit": {"per_key": 1}}}),
    "a budget": (OPS, {"budget": "5 per week"}),
    "a route": (OPS, {"pagers": [OPS["config"]["pagers"][0],
                                 {**OPS["config"]["pagers"][1], "groups": ["a"]}]}),
    "a pager less": (OPS, {"pagers": OPS["config"]["pagers"][:1]}),
    "silences that are not read": (OPS, {"pagers": [
        {k: v for k, v in OPS["config"]["pagers"][0].items() if k != "read_silences"},
        OPS["config"]["pagers"][1]]}),
}  # fmt: skip


def both(job: dict[str, Any], change: dict[str, Any]) -> tuple[Any, Any]:
    kind = AlertingConfig if job["kind"] == "alerting" else PipelineConfig
    return (
        kind.model_validate(job["config"]),
        kind.model_validate(merged(job["config"], change)),
    )


@pytest.mark.parametrize("what", LIVE)
def test_a_change_that_a_running_job_takes_over_replaces_no_pod(what: str):
    job, change = LIVE[what]
    assert all(one.live for one in changes(*both(job, change)))
    assert checksum(merged(job, {"config": change})) == checksum(job)


@pytest.mark.parametrize("what", SETTLED)
def test_any_other_change_replaces_them(what: str):
    job, change = SETTLED[what]
    assert not all(one.live for one in changes(*both(job, change)))
    assert checksum(merged(job, {"config": change})) != checksum(job)


def test_another_place_of_the_artifact_replaces_no_pod():
    jobs = [merged(HOSTS, {"config": {"detector": {"artifact": one}}}) for one in ("a", "b")]
    assert checksum(jobs[0]) == checksum(jobs[1])


def test_without_it_every_change_replaces_them():
    job, change = LIVE["a link"]
    off = {"hotReload": False}
    assert checksum(merged(job, off, {"config": change})) != checksum(merged(job, off))


def test_the_file_that_is_mounted_has_all_settings():
    job, change = LIVE["a link"]
    values = merged(
        BASE, {"pipelines": {"one": merged(job, {"hotReload": True, "config": change})}}
    )
    (file,) = [one for one in rendered(values=values) if one["kind"] == "ConfigMap"]
    read = yaml.safe_load(file["data"]["pipeline.yaml"])
    assert read["alerts"] == change["alerts"]


def test_a_job_on_flink_has_no_such_setting():
    values = merged(BASE, {"pipelines": {"one": {**HOSTS, "kind": "flink", "hotReload": True}}})
    made = helm("template", "one", str(CHART), values=values)
    assert made.returncode != 0
    assert "hotReload" in made.stderr


def test_the_list_of_the_chart_is_that_of_the_models():
    kept = yaml.safe_load((CHART / "files" / "live.yaml").read_text())
    for kind, model in (("pipeline", PipelineConfig), ("alerting", AlertingConfig)):
        assert kept[kind].keys() == live_settings(model).keys()
