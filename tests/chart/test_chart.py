"""The chart, rendered by helm: what comes out, and what is refused with which words."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.plain.page import page_topics
from jobs.plain.topics import output_topics
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig, parse_config
from tests.chart.crds import kubernetes_schemas, schemas_of
from tests.chart.release import RELEASED, fixed
from tests.chart.rendering import (
    CI_VALUES,
    NAMES,
    TOOLS,
    Object,
    helm,
    merged,
    of_kind,
    pods,
    refusal,
    rendered,
    tool,
)
from tests.chart.schema import CHART

BASE = {"kafka": {"bootstrapServers": "kafka:9092"}}
HOSTS: dict[str, Any] = {
    "kind": "plain",
    "config": {"name": "hosts", "input": {"topics": "metrics"}},
}


def plain(**settings: Any) -> dict[str, Any]:
    return merged(BASE, {"pipelines": {"hosts": merged(HOSTS, settings)}})


@pytest.fixture(scope="module")
def releases() -> dict[str, list[Object]]:
    """Every file of ci/, rendered once."""
    return {name: rendered(path) for name, path in zip(NAMES, CI_VALUES, strict=True)}


def test_helm_finds_nothing_to_complain_about():
    for path in CI_VALUES:
        made = helm("lint", "--strict", "--quiet", str(CHART), "--values", str(path))
        assert made.returncode == 0, made.stdout + made.stderr


def test_helm_unittest_passes():
    made = subprocess.run(
        [tool("helm-unittest"), "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    passed = re.search(r"^Tests:\s+(\d+) passed, (\d+) total", made.stdout, flags=re.MULTILINE)
    assert passed is not None, made.stdout
    assert int(passed[1]) == int(passed[2]) > 0


@pytest.mark.parametrize("version", ["1.27.0", "1.33.0"])
def test_each_object_fits_the_schemas_of_its_kind(
    version: str, releases: dict[str, list[Object]], tmp_path: Path
):
    kinds = {one["kind"] for objects in releases.values() for one in objects}
    (packaged,) = (TOOLS / "venv").glob("lib/*/site-packages/kubernetes_validate")
    kubernetes_schemas(
        packaged / "kubernetes-json-schema" / f"v{version}-local-strict",
        {kind.lower() for kind in kinds},
        tmp_path / "schemas",
    )
    schemas = schemas_of(TOOLS / "crds", tmp_path / "schemas")
    for name, objects in releases.items():
        if version == "1.27.0" and name == "secured":
            continue  # image volumes came with 1.31
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    made = subprocess.run(
        [
            tool("kubeconform"), "-strict", "-summary", "-output", "json",
            "-schema-location", f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
            *map(str, tmp_path.glob("*.yaml")),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(made.stdout)
    assert answer.get("resources") == [], answer["resources"]
    counts = answer["summary"]
    assert counts["valid"] > 50
    assert counts["skipped"] == counts["errors"] == 0
    if version == "1.33.0":
        assert {
            "StatefulSet", "FlinkDeployment", "ScaledObject", "TriggerAuthentication", "KafkaTopic",
            "KafkaUser", "PodMonitor", "ServiceMonitor", "PrometheusRule", "NetworkPolicy",
            "PodDisruptionBudget", "PersistentVolumeClaim",
        } <= kinds  # fmt: skip


def judged(of: list[Object]) -> str:
    return subprocess.run(
        [tool("podsecurity")], input=json.dumps(of), capture_output=True, text=True, check=True
    ).stdout


def test_every_pod_is_restricted(releases: dict[str, list[Object]]):
    every = [pod for objects in releases.values() for pod in pods(objects)]
    assert {pod["metadata"]["name"].split("/")[0] for pod in every} == {
        "StatefulSet", "FlinkDeployment", "Pod",
    }  # fmt: skip
    assert judged(every) == ""
    # The judge is awake: what it must refuse it refuses.
    open_pod = json.loads(json.dumps(every[0]))
    open_pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "allowPrivilegeEscalation" in judged([open_pod])
    for pod in every:
        name, spec = pod["metadata"]["name"], pod["spec"]
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert {"/tmp", "/var/cache/streamad"} <= writable, name  # noqa: S108
        if not name.startswith("FlinkDeployment"):
            assert spec["automountServiceAccountToken"] is False, name
            assert container["resources"].keys() == {"requests", "limits"}, name
            assert not container["image"].endswith(":latest"), name


# ------------------------------------------------------------------------ values are refused

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "top": ({"pipeline": {}}, "pipelines"),
    "global": ({"global": {"imageRegistri": "x"}}, "imageRegistry"),
    "image": ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    "kafka": ({"kafka": {"bootstrapServer": "kafka:9092"}}, "bootstrapServers"),
    "sasl": ({"kafka": {"sasl": {"existingSecre": "x"}}}, "existingSecret"),
    "defaults": ({"defaults": {"resource": {}}}, "resources"),
    "resources": ({"defaults": {"resources": {"request": {}}}}, "requests"),
    "security": ({"defaults": {"securityContext": {"readOnlyRootFileSystem": True}}},
                 "readOnlyRootFilesystem"),
    "probes": ({"defaults": {"probes": {"livenes": {}}}}, "liveness"),
    "network": ({"networkPolicy": {"kafkaPort": [1]}}, "kafkaPorts"),
    "monitoring": ({"monitoring": {"podMonitors": {}}}, "podMonitor"),
    "kind": (plain(kind="spark"), "/pipelines/hosts/kind"),
    "job": (plain(role={}), "roles"),
    "role": (plain(roles={"detect": {"replica": 2}}), "replicas"),
    "autoscaling": (plain(roles={"detect": {"autoscaling": {"minReplicas": 0}}}), "minReplicas"),
    "pipeline": (plain(config={"serie": {}}), "series"),
    "section": (plain(config={"series": {"latenes": "5s"}}), "lateness"),
    "duration": (plain(config={"series": {"step": 10}}), "/pipelines/hosts/config/series/step"),
    "of another kind": (plain(flink={}), "flink"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_refused_before_anything_is_rendered(what: str):
    values, named = WRONG[what]
    said = refusal(merged(BASE, values))
    assert "don't meet the specifications of the schema" in said
    assert named in said


SCALED = {"autoscaling": {"enabled": True}}
ONE_WRITER = {"accessMode": "ReadWriteOnce"}
FITS: dict[str, tuple[dict[str, Any], str]] = {
    "moved": ({"kafka": {"brokers": "x"}}, "kafka.brokers is not a key of this chart; use"),
    "no brokers": ({"kafka": {"bootstrapServers": ""}}, "kafka.bootstrapServers is empty"),
    "no secret": ({"kafka": {"securityProtocol": "SASL_SSL", "sasl": {"mechanism": "PLAIN"}}},
                  "kafka.sasl.existingSecret is empty"),
    "both": (plain(existingConfigMap={"name": "x"}), "config (the file's content) or existing"),
    "neither": ({"pipelines": {"hosts": {"kind": "plain"}}}, "one of them"),
    "replicas": (plain(partitions=4, roles={"detect": {"replicas": 2, **SCALED}}),
                 "leave replicas out"),
    "partitions": (plain(roles={"detect": SCALED}), "partitions is not set"),
    "one writer": (plain(snapshots=ONE_WRITER, roles={"detect": {"replicas": 2}}),
                   "use ReadWriteMany"),
    "long": (merged(plain(), {"fullnameOverride": "f" * 30,
                              "pipelines": {"p" * 28: HOSTS}}), "at most 52"),
    "twice": ({"monitoring": {one: {"enabled": True} for one in ("podMonitor", "serviceMonitor")}},
              "enable one of them"),
}  # fmt: skip


@pytest.mark.parametrize("what", FITS)
def test_what_does_not_fit_together_is_refused_with_the_remedy(what: str):
    values, said = FITS[what]
    assert said in refusal(merged(BASE, values))


# -------------------------------------------------------------------- what the jobs will read


def test_rendered_files_are_what_was_given_and_load(releases: dict[str, list[Object]]):
    seen = 0
    for path in CI_VALUES:
        values = yaml.safe_load(path.read_text())
        maps = of_kind(releases[path.name.removesuffix("-values.yaml")], "ConfigMap")
        for key, job in values["pipelines"].items():
            if "config" not in job:
                continue
            ((name, text),) = maps[f"one-streamad-{key}"]["data"].items()
            model = AlertingConfig if job["kind"] == "alerting" else PipelineConfig
            environment = {"PAGERDUTY_ROUTING_KEY": "k" * 32, "HOOK_SECRET": "s" * 32}
            config = parse_config(text, model, name=name, environment=environment)
            given = parse_config(
                yaml.safe_dump(job["config"]), model, name=name, environment=environment
            )
            if "snapshots" in job:
                assert config.delivery.snapshot_store == "/var/lib/streamad/snapshots"
                given = given.model_copy(update={"delivery": config.delivery})
            assert config == given
            seen += 1
    assert seen == 7


def test_topics_by_strimzi_are_those_that_the_jobs_would_make(releases: dict[str, list[Object]]):
    values = yaml.safe_load((CHART / "ci" / "strimzi-values.yaml").read_text())
    jobs = values["pipelines"]
    pipeline = PipelineConfig.model_validate(jobs["audit"]["config"])
    alerting = AlertingConfig.model_validate(jobs["ops"]["config"])
    assert pipeline.input.repartition
    wanted = {
        topic.name: (topic.partitions, dict(topic.configs))
        for topic in (
            *output_topics(pipeline, 6),
            *output_topics(alerting, 1),
            *page_topics(alerting, 1),
        )
    }
    made = {}
    for topic in of_kind(releases["strimzi"], "KafkaTopic").values():
        spec = topic["spec"]
        assert topic["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        made[spec["topicName"]] = (spec["partitions"], spec["config"])
    checks = {name for name in made if name.endswith(".check")}
    assert checks == {"streamad.audit.check", "streamad.ops.check"}
    assert {name: it for name, it in made.items() if name not in checks} == wanted


# ------------------------------------------------------------------- releases and upgrades


def test_an_upgrade_replaces_no_immutable_field(releases: dict[str, list[Object]]):
    released = json.loads(RELEASED.read_text())
    assert released.keys() == releases.keys()
    for name, objects in released.items():
        now = fixed(releases[name])
        for which, fields in objects.items():
            assert now.get(which) == fields, f"{name}: {which}"


def test_two_releases_in_one_namespace_do_not_touch_each_other(releases: dict[str, list[Object]]):
    for name, path in zip(NAMES, CI_VALUES, strict=True):
        others = rendered(path, release="two")
        ours = {(one["kind"], one["metadata"]["name"]) for one in releases[name]}
        theirs = {(one["kind"], one["metadata"]["name"]) for one in others}
        assert not ours & theirs, name
        labels = [pod["metadata"]["labels"] for pod in pods(others)]
        for one in releases[name]:
            selector = one.get("spec", {}).get("selector") or one.get("spec", {}).get("podSelector")
            if selector:
                wanted = selector.get("matchLabels", selector)
                assert not any(wanted.items() <= its.items() for its in labels), one["metadata"]


def test_a_setting_of_false_or_0_wins_over_the_default():
    values = plain(
        pod={"securityContext": {"readOnlyRootFilesystem": False}, "topologySpreadConstraints": []},
        roles={"alert": {"replicas": 0}},
    )
    sets = of_kind(rendered(values=values), "StatefulSet")
    spec = sets["one-streamad-hosts-detect"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    assert "topologySpreadConstraints" not in spec
    assert sets["one-streamad-hosts-alert"]["spec"]["replicas"] == 0


def test_a_changed_file_replaces_the_pods_and_nothing_else_does():
    def annotation(**config: Any) -> str:
        sets = of_kind(rendered(values=plain(config=config)), "StatefulSet")
        template = sets["one-streamad-hosts-detect"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert annotation() == annotation()
    assert annotation() != annotation(series={"max_keys": 1_000_000})
