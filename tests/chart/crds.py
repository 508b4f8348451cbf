"""JSON schemas of custom resources, as kubeconform reads them, from their definitions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

FLINK_VERSIONS = ("v2_0", "v2_1", "v2_2")
"""What newer operators take; the newest definition in a registry is of one that ends at v1_20."""


def schemas_of(crds: Path, out: Path) -> Path:
    """Write a strict schema for each kind that is defined in a folder; return where."""
    out.mkdir(exist_ok=True)
    for path in sorted(crds.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if definition and definition.get("kind") == "CustomResourceDefinition":
                _write(definition["spec"], out)
    return out


def _write(spec: dict[str, Any], out: Path) -> None:
    kind, group = spec["names"]["kind"], spec["group"].partition(".")[0]
    for version in spec["versions"]:
        if not version.get("served", True):
            continue
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        schema["properties"] |= {name: {"type": "string"} for name in ("apiVersion", "kind")}
        if kind == "FlinkDeployment":
            schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"] += FLINK_VERSIONS
        file = out / f"{kind.lower()}-{group}-{version['name']}.json"
        file.write_text(json.dumps(schema), encoding="utf-8")


def _strict(schema: Any) -> Any:
    """Return a schema that refuses fields which are not declared."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(one) for name, one in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in made and isinstance(made["properties"], dict):
        keeps = made.get("x-kubernetes-preserve-unknown-fields", False)
        if "type" in made and not keeps:
            made.setdefault("additionalProperties", False)
    return made


_REFERENCE = re.compile(r'"(?:/api/_definitions\.json)?#/\$defs/([^"]+)"')


def kubernetes_schemas(folder: Path, kinds: Iterable[str], out: Path) -> Path:
    """Write the schema of each kind, with the definitions it needs inside; return where.

    folder : of the package kubernetes-validate, whose schemas share one file of definitions
    """
    out.mkdir(exist_ok=True)
    shared = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    texts = {name: json.dumps(one) for name, one in shared.items()}
    for path in sorted(folder.glob("*.json")):
        if path.name.partition("-")[0] not in kinds:
            continue
        text = path.read_text(encoding="utf-8")
        needed: set[str] = set()
        waiting = set(_REFERENCE.findall(text))
        while waiting:
            name = waiting.pop()
            needed.add(name)
            waiting |= set(_REFERENCE.findall(texts[name])) - needed
        # By its own name the schema would be looked for where nothing answers.
        whole = {k: v for k, v in json.loads(text).items() if k not in ("$id", "$schema")}
        whole["$defs"] = {name: json.loads(texts[name]) for name in needed}
        made = _REFERENCE.sub(r'"#/$defs/\1"', json.dumps(whole))
        (out / path.name).write_text(made, encoding="utf-8")
    return out
