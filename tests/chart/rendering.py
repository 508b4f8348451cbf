"""Helm for the tests: render values, and read what was rendered."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.schema import CHART

ROOT = CHART.parents[1]
TOOLS = ROOT / ".cache" / "chart"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMES = [path.name.removesuffix("-values.yaml") for path in CI_VALUES]
KUBERNETES = "1.33.0"
Object = dict[str, Any]


def tool(name: str) -> str:
    """Return the path of a tool of `make chart-tools`; skip, in CI fail, where it is missing."""
    for place in (TOOLS / "bin" / name, TOOLS / "venv" / "bin" / name, Path("/usr/bin") / name):
        if place.exists():
            return str(place)
    why = f"{name} is missing; run `make chart-tools`"
    if os.environ.get("STREAMAD_REQUIRE_CHART"):
        pytest.fail(why)
    pytest.skip(why)


def helm(*arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
    """Run helm; ``values`` come by standard input, as JSON, after those of the arguments."""
    given = ["--kube-version", KUBERNETES, *([] if values is None else ["--values", "-"])]
    return subprocess.run(
        [tool("helm"), *arguments, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(
    *files: Path, values: Mapping[str, Any] | None = None, release: str = "one"
) -> list[Object]:
    """Return the objects of a release."""
    options = [part for file in files for part in ("--values", str(file))]
    made = helm(
        "template", release, str(CHART), "--namespace", "here", *options, values=values or {}
    )
    assert made.returncode == 0, made.stderr
    return [one for one in yaml.safe_load_all(made.stdout) if one]


def refusal(values: Mapping[str, Any]) -> str:
    """Return what helm says against values; fail where it takes them."""
    made = helm("template", "one", str(CHART), values=values)
    assert made.returncode != 0, "helm took values that are wrong"
    return made.stderr


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Return the objects of a kind, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pods(objects: list[Object]) -> Iterator[Object]:
    """Yield every pod that a release makes, as a Pod."""
    for one in objects:
        spec, about = one.get("spec", {}), dict(one["metadata"])
        template = spec.get("template") or spec.get("podTemplate") or (one["kind"] == "Pod" and one)
        if template and "containers" in template.get("spec", {}):
            about["labels"] = template["metadata"]["labels"]
            pod = json.loads(json.dumps(template["spec"]))
            for container in pod["containers"]:
                # The operator fills in Flink's image.
                container.setdefault("image", spec.get("image"))
            name = f"{one['kind']}/{about['name']}"
            yield {
                "apiVersion": "v1", "kind": "Pod", "metadata": {**about, "name": name}, "spec": pod,
            }  # fmt: skip


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over each other, as helm does."""
    made: dict[str, Any] = {}
    for tree in trees:
        for name, value in tree.items():
            old = made.get(name)
            both = isinstance(old, dict) and isinstance(value, dict)
            made[name] = merged(old, value) if both else value
    return made
