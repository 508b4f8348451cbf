"""The schema of the chart's values: from values.yaml, and from the models of the job's files.

Unknown keys are refused at every level, with the nearest right key. What Kubernetes itself checks
(a volume, an affinity rule) is let through as an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.config.section import Section

CHART = Path(__file__).resolve().parents[2] / "helm" / "streamad"
Schema = dict[str, Any]

_SCALARS = ("type", "const", "enum", "anyOf")
_SUBSTITUTED: Schema = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
"""A value that the environment gives: `${NAME}`."""

_SLIP = "slip-of-"
"""Begins the name of a definition that names the right key where a wrong one is one slip away."""

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
YES_NO: Schema = {"type": "boolean"}
NATIVE: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": NATIVE}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
QUANTITY: Schema = {"type": ["string", "number"], "pattern": r"^[0-9.]+([EPTGMk]i?|m)?$"}
DNS: Schema = {"type": "string", "pattern": r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$"}
PATH: Schema = {"type": "string", "pattern": r"^/.+"}


def choice(*names: str) -> Schema:
    """Return the schema of one of some names."""
    return {"enum": list(names)}


def listed(item: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item}


def closed(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Return the schema of an object without room for unknown keys."""
    made: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | ({"required": sorted(required)} if required else {})


RESOURCES = closed(
    {
        "requests": {"type": "object", "additionalProperties": QUANTITY},
        "limits": {"type": "object", "additionalProperties": QUANTITY},
        "claims": LIST,
    }
)
PROBE = closed(
    dict.fromkeys(
        (
            "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold",
            "successThreshold", "terminationGracePeriodSeconds",
        ),
        POSITIVE,
    )
)  # fmt: skip
ENV = closed({"name": TEXT, "value": TEXT, "valueFrom": NATIVE}, ["name"])
SECCOMP = closed({"type": TEXT, "localhostProfile": TEXT}, ["type"])
POD_SECURITY = closed(
    {
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), COUNT),
        "runAsNonRoot": YES_NO,
        "fsGroupChangePolicy": choice("OnRootMismatch", "Always"),
        "supplementalGroups": listed(COUNT),
        "seccompProfile": SECCOMP,
        "seLinuxOptions": NATIVE,
        "appArmorProfile": NATIVE,
        "sysctls": LIST,
    }
)
SECURITY = closed(
    {
        **dict.fromkeys(("runAsUser", "runAsGroup"), COUNT),
        **dict.fromkeys(
            ("runAsNonRoot", "privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem"),
            YES_NO,
        ),
        "capabilities": closed({"drop": listed(TEXT), "add": listed(TEXT)}),
        "seccompProfile": SECCOMP,
        "seLinuxOptions": NATIVE,
        "appArmorProfile": NATIVE,
    }
)
TOLERATION = closed(
    {
        **dict.fromkeys(("key", "value"), TEXT),
        "operator": choice("Exists", "Equal"),
        "effect": choice("NoSchedule", "PreferNoSchedule", "NoExecute"),
        "tolerationSeconds": COUNT,
    }
)
SPREAD = closed(
    {
        "maxSkew": POSITIVE,
        "minDomains": POSITIVE,
        "topologyKey": TEXT,
        "whenUnsatisfiable": choice("DoNotSchedule", "ScheduleAnyway"),
        "labelSelector": NATIVE,
        **dict.fromkeys(("nodeAffinityPolicy", "nodeTaintsPolicy"), choice("Honor", "Ignore")),
        "matchLabelKeys": listed(TEXT),
    },
    ["maxSkew", "topologyKey", "whenUnsatisfiable"],
)
MOUNT = closed(
    {
        **dict.fromkeys(("name", "mountPath", "subPath", "subPathExpr", "mountPropagation"), TEXT),
        "readOnly": YES_NO,
        "recursiveReadOnly": TEXT,
    },
    ["name", "mountPath"],
)

# What is stricter, or has another type, than the default in values.yaml shows.
GIVEN: Mapping[str, Schema] = {
    "commonLabels": TEXTS,
    "commonAnnotations": TEXTS,
    "fullnameOverride": DNS,
    "nameOverride": DNS,
    "global.imagePullSecrets": listed(TEXT),
    **{f"{one}.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
       for one in ("image", "flinkImage")},
    **{f"{one}.pullPolicy": choice("Always", "IfNotPresent", "Never")
       for one in ("image", "flinkImage")},
    "kafka.bootstrapServers": {
        "type": "string", "pattern": r"^([^:,\s]+:[0-9]+(,[^:,\s]+:[0-9]+)*)?$",
    },
    "kafka.securityProtocol": choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "kafka.sasl.mechanism": choice("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"),
    "kafka.sessionTimeoutMs": {"type": "integer", "minimum": 1000},
    "kafka.strimzi.authentication": choice("scram-sha-512", "tls"),
    "kafka.strimzi.replicas": POSITIVE,
    "serviceAccount.annotations": TEXTS,
    "flink.serviceAccountAnnotations": TEXTS,
    "podDisruptionBudget.maxUnavailable": {
        "anyOf": [POSITIVE, {"type": "string", "pattern": "^[1-9][0-9]?[0-9]?%$"}],
    },
    "networkPolicy.kafkaPorts": listed(POSITIVE),
    "networkPolicy.pagerPorts": listed(POSITIVE),
    "networkPolicy.kubernetesApiPorts": listed(POSITIVE),
    "monitoring.podMonitor.labels": TEXTS,
    "monitoring.serviceMonitor.labels": TEXTS,
    "monitoring.prometheusRule.labels": TEXTS,
    "monitoring.prometheusRule.alertLabels": TEXTS,
    "monitoring.prometheusRule.disabled": listed(TEXT),
    "monitoring.prometheusRule.overrides": {
        "type": "object",
        "additionalProperties": closed({"expr": TEXT, "for": TEXT, "severity": TEXT}),
    },
    "monitoring.dashboards.labels": TEXTS,
    "monitoring.dashboards.annotations": TEXTS,
    "extraObjects": listed({"type": ["object", "string"]}),
    # A pod's settings.
    "defaults.resources": RESOURCES,
    "defaults.terminationGracePeriodSeconds": {"type": "integer", "minimum": 25},
    "defaults.nodeSelector": TEXTS,
    "defaults.tolerations": listed(TOLERATION),
    "defaults.affinity": NATIVE,
    "defaults.topologySpreadConstraints": listed(SPREAD),
    "defaults.labels": TEXTS,
    "defaults.annotations": TEXTS,
    "defaults.extraEnv": listed(ENV),
    "defaults.extraVolumeMounts": listed(MOUNT),
    "defaults.secretFiles": listed(closed({"secretName": DNS, "mountPath": PATH},
                                          ["secretName", "mountPath"])),
    "defaults.logLevel": choice("DEBUG", "INFO", "WARNING", "ERROR"),
    "defaults.tmpSizeLimit": QUANTITY,
    "defaults.kernelsSizeLimit": QUANTITY,
    "defaults.podSecurityContext": POD_SECURITY,
    "defaults.securityContext": SECURITY,
    **{f"defaults.probes.{one}": PROBE for one in ("startup", "liveness", "readiness")},
}  # fmt: skip


def values_schema() -> Schema:
    """Return values.schema.json."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    made = _of_value(values, "")
    pod = made["properties"].pop("defaults")
    made["properties"]["defaults"] = {"$ref": "#/$defs/Pod"}
    made["properties"]["pipelines"] = _pipelines()
    made["$defs"] = {"Pod": pod, **_models(PipelineConfig), **_models(AlertingConfig)}
    # `helm` sets it where the chart is a part of another one.
    made["properties"]["enabled"] = YES_NO
    made = _nearest(made)
    for key in sorted(set(re.findall(rf"#/\$defs/{_SLIP}([^']+)'", str(made)))):
        made["$defs"][_SLIP + key] = {"if": {"pattern": near(key)}, "then": {"const": key}}
    for old in yaml.safe_load((CHART / "files" / "moved.yaml").read_text(encoding="utf-8")):
        _let_through(made, old.split("."))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart streamad",
        **made,
    }


def _of_value(value: Any, path: str) -> Schema:
    if path in GIVEN:
        return GIVEN[path]
    if isinstance(value, dict):
        inner = {name: _of_value(one, f"{path}.{name}".lstrip(".")) for name, one in value.items()}
        return closed(inner)
    if isinstance(value, list):
        return LIST
    kinds = {bool: YES_NO, int: COUNT, float: {"type": "number"}, str: TEXT}
    return kinds[type(value)]


def _pipelines() -> Schema:
    """Return the schema of the jobs: a branch for each kind."""
    pod: Schema = {"$ref": "#/$defs/Pod"}
    role = {"pod": pod, "replicas": COUNT}
    other = role | {"enabled": YES_NO}
    scaled = {
        "enabled": YES_NO,
        **dict.fromkeys(
            (
                "minReplicas", "maxReplicas", "lagPerReplica", "pollingInterval",
                "scaleUpAfterSeconds", "scaleDownAfterSeconds",
            ),
            POSITIVE,
        ),
        "name": TEXT,
        "topics": listed(TEXT),
    }  # fmt: skip
    artifact = closed(
        {
            "claimName": DNS, "image": TEXT, "configMap": DNS, "subPath": TEXT,
            "pullPolicy": choice("Always", "IfNotPresent", "Never"),
        }
    )  # fmt: skip
    snapshots = closed(
        {
            "existingClaim": DNS, "storageClassName": DNS, "size": QUANTITY,
            "accessMode": choice("ReadWriteMany", "ReadWriteOnce"),
        }
    )  # fmt: skip
    shared = {
        "enabled": YES_NO,
        "existingConfigMap": closed({"name": DNS, "key": TEXT}, ["name"]),
        "partitions": POSITIVE,
        "pod": pod,
    }
    reloads = {"hotReload": YES_NO}
    memory = closed({"cpu": {"type": ["number", "string"]}, "memory": TEXT}, ["cpu", "memory"])
    flink = closed(
        {
            "version": {"type": "string", "pattern": "^v[0-9]+_[0-9]+$"},
            "stateUrl": {"type": "string", "pattern": "^[a-z0-9]+://"},
            "parallelism": POSITIVE,
            "upgradeMode": choice("savepoint", "last-state", "stateless"),
            "state": choice("running", "suspended"),
            "jarUri": TEXT,
            "initialSavepointPath": TEXT,
            "savepointRedeployNonce": COUNT,
            "restartNonce": COUNT,
            "configuration": TEXTS,
            "jobManager": closed({"replicas": POSITIVE, "resource": memory}, ["resource"]),
            "taskManager": closed({"slots": POSITIVE, "resource": memory}, ["resource"]),
        },
        ["stateUrl", "jobManager", "taskManager"],
    )
    pipeline: Schema = {"$ref": "#/$defs/PipelineConfig"}
    branches = {
        "plain": closed(
            {
                **shared,
                **reloads,
                "config": pipeline,
                "artifact": artifact,
                "snapshots": snapshots,
                "roles": closed(
                    {"detect": closed(role | {"autoscaling": closed(scaled)}),
                     "alert": closed(other)}
                ),
            }
        ),
        "flink": closed(
            {
                **shared,
                "config": pipeline,
                "artifact": artifact,
                "flink": flink,
                "roles": closed(
                    {"flink": closed({"pod": pod}), "rekey": closed(role), "alert": closed(other)}
                ),
            },
            ["flink"],
        ),
        "alerting": closed(
            {
                **shared,
                **reloads,
                "config": {"$ref": "#/$defs/AlertingConfig"},
                "roles": closed({"alert": closed(role), "page": closed(other)}),
            }
        ),
    }  # fmt: skip
    for branch in branches.values():
        branch["properties"]["kind"] = TEXT
    return {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$"},
        "additionalProperties": _by("kind", branches),
    }


def _by(name: str, branches: Mapping[str, Schema]) -> Schema:
    """Return a schema that the value of one property chooses: errors are those of one branch."""
    return {
        "type": "object",
        "required": [name],
        "properties": {name: {"enum": list(branches)}},
        "allOf": [
            {"if": {"properties": {name: {"const": kind}}, "required": [name]}, "then": branch}
            for kind, branch in branches.items()
        ],
    }


# -------------------------------------------------------------------- of the job's own files

# What a before-validator of a model takes beside what its types show.
_ONE_OR_MANY = {
    "FieldsConfig": ("key", "values", "variates", "categories", "numbers", "tags"),
    "InputConfig": ("topics",),
    "AlertingConfig": ("findings",),
    "SilenceConfig": ("matchers", "days"),
}
_SHORT: Mapping[str, Schema] = {
    "DetectorConfig": TEXT,
    "BudgetConfig": {"type": ["string", "null"]},
}


def _models(model: type[Section]) -> dict[str, Schema]:
    """Return the definitions of a file's model, as `#/$defs/<name>`."""
    whole = model.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    definitions = whole.pop("$defs")
    definitions[model.__name__] = whole
    made = {}
    for name, one in definitions.items():
        plain = _plain(one)
        for field in _ONE_OR_MANY.get(name, ()):
            given = plain["properties"][field]
            plain["properties"][field] = {"anyOf": [TEXT, given]}
        if name == "FieldsConfig":
            plain["properties"]["value"] = plain["properties"]["values"]
            plain["properties"]["where"] = {
                "type": "object", "additionalProperties": {"type": ["string", "integer"]},
            }  # fmt: skip
        made[name] = {"if": _SHORT[name], "else": plain} if name in _SHORT else plain
    return made


def _plain(schema: Any) -> Any:
    """Return a schema without titles and defaults, and with room for `${NAME}`."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "discriminator" in schema:
        kinds = schema["discriminator"]["mapping"]
        return _by("kind", {kind: {"$ref": ref} for kind, ref in kinds.items()})
    made = {
        name: {key: _plain(one) for key, one in value.items()}
        if name == "properties"
        else _plain(value)
        for name, value in schema.items()
        if name not in ("title", "default", "description", "format", "writeOnly", "prefixItems")
    }
    open_text = made == TEXT
    if any(name in made for name in _SCALARS) and not open_text and made.get("type") not in (
        "object", "array",
    ):  # fmt: skip
        return {"if": _SUBSTITUTED, "else": made}
    return made


# ------------------------------------------------------------------------- nearest right keys


def near(key: str) -> str:
    """Return a pattern of the names that are one slip away from a key.

    A letter left out, added or replaced, two that changed places, or another case.

    Examples
    --------
    >>> [bool(re.search(near("replicas"), name)) for name in ("replcas", "repilcas", "size")]
    [True, True, False]
    """
    slips = {f"{key[:i]}.{{0,2}}{key[i + 1 :]}" for i in range(len(key))}
    slips |= {key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in range(len(key) - 1)}
    return f"^(?i:{'|'.join(sorted(slips))})$"


def _nearest(schema: Any) -> Any:
    """Return a schema whose objects name the nearest right key in place of a wrong one."""
    if isinstance(schema, list):
        return [_nearest(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _nearest(value) for name, value in schema.items()}
    if made.get("additionalProperties") is False and isinstance(made.get("properties"), dict):
        keys = list(made["properties"])
        made["propertyNames"] = {
            "if": {"enum": keys},
            "else": {"allOf": [{"$ref": f"#/$defs/{_SLIP}{key}"} for key in keys if len(key) > 2]},
        }
    return made


def _let_through(schema: Schema, path: list[str]) -> None:
    """Have the schema take a key that moved: the chart's own message names where to."""
    *parents, last = path
    for one in parents:
        schema = schema["properties"][one]
    schema["properties"][last] = True
    names = schema["propertyNames"]
    names["if"]["enum"].append(last)
