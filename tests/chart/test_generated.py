"""What is generated of the chart is what stands in the tree, and names what there is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from connectors.telemetry import METRICS, PREFIX
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.config.section import Section
from tests.chart.dashboards import dashboards
from tests.chart.make import files
from tests.chart.readme import rows
from tests.chart.schema import CHART, values_schema

ROOT = CHART.parents[1]
RULES: dict[str, Any] = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
EXPORTED = {
    PREFIX + metric.name + suffix
    for metric in METRICS.values()
    for suffix in (("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",))
}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path):
    assert path.read_text(encoding="utf-8") == files()[path], "run `make docs`"


def test_the_chart_has_the_version_of_the_project():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]


def test_every_value_is_described():
    described = {path for path, _, _ in rows()}
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def missing(tree: Any, path: str = "") -> list[str]:
        if path in described:
            return []
        if not isinstance(tree, dict) or not tree:
            return [path]
        return [
            one for name, it in tree.items() for one in missing(it, f"{path}.{name}".strip("."))
        ]

    assert not missing(values)


def metrics_in(expression: str) -> set[str]:
    # Labels that monitors add begin like metrics do.
    names = set(re.findall(r"\bstreamad_[a-z0-9_]+", expression))
    return names - {"streamad_pipeline", "streamad_role"}


def test_rules_and_dashboards_query_only_what_the_code_exports():
    asked = {rule["alert"]: metrics_in(rule["expr"]) for rule in ALERTS}
    for name, text in dashboards().items():
        panels = [panel for panel in json.loads(text)["panels"] if "targets" in panel]
        assert panels
        for panel in panels:
            found = [metrics_in(target["expr"]) for target in panel["targets"]]
            assert all(found), panel["title"]
            asked[f"{name}: {panel['title']}"] = set.union(*found)
    unknown = {where: names - EXPORTED for where, names in asked.items() if names - EXPORTED}
    assert not unknown


def test_labels_of_rules_are_those_of_their_metrics():
    added = {"namespace", "pod", "streamad_pipeline", "streamad_role"}
    for rule in ALERTS:
        labels = set().union(
            *(METRICS[name.removeprefix(PREFIX)].labels for name in metrics_in(rule["expr"]))
        )
        grouped = set(re.search(r"by \(([^)]*)\)", rule["expr"])[1].split(", "))
        assert grouped <= labels | added, rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= grouped, rule["alert"]


def test_each_alert_has_an_entry_in_the_runbook_and_each_entry_an_alert():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


# ----------------------------------------------------------------- the schema and the models

VALUES: list[Any] = [
    "text", "10s", "512MiB", "3 per week", "0.01", 5, 0, 0.5, True, None, [], ["text"], {}, "auto",
]  # fmt: skip
COERCED = [value for value in VALUES if value in ("0.01", 0, 0.5, True, None)]
"""What pydantic turns into another type, and an editor had better mark: `"0.01"` for a number."""

SCHEMA = values_schema()


def fields_of(model: type[Section]) -> list[tuple[type[Section], str]]:
    found, waiting = [], [model]
    while waiting:
        section = waiting.pop()
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                waiting.append(field.annotation)
            elif not field.exclude:
                found.append((section, name))
    return found


@pytest.mark.parametrize("model", [PipelineConfig, AlertingConfig])
def test_the_schema_takes_what_the_models_take_and_little_else(model: type[Section]):
    looser = []
    for section, name in fields_of(model):
        inner = {"$ref": f"#/$defs/{section.__name__}", "$defs": SCHEMA["$defs"]}
        validator = jsonschema.Draft7Validator(inner)
        for value in VALUES:
            # Of this field alone: whether others are missing is not asked here.
            wrong = [e for e in validator.iter_errors({name: value}) if e.absolute_path]
            try:
                section.model_validate({name: value})
            except ValidationError as error:
                accepted = not [e for e in error.errors() if e["loc"] and e["loc"][0] == name]
            else:
                accepted = True
            if accepted and wrong and not any(value is one for one in COERCED):
                pytest.fail(f"{section.__name__}.{name}: the model takes {value!r}: {wrong[0]}")
            if not accepted and not wrong:
                looser.append((section.__name__, name, value))
    # Dates, patterns of URLs and the like are left to the program.
    assert len(looser) < len(fields_of(model)), looser


def open_objects(schema: Any, path: str = "") -> Iterator[str]:
    """Yield where an object with declared properties takes others, too."""
    if isinstance(schema, list):
        schema = dict(enumerate(schema))
    if not isinstance(schema, dict):
        return
    chosen = "if" in schema or "allOf" in schema  # by `kind`: its branches are closed
    declares = isinstance(schema.get("properties"), dict) and "type" in schema
    if declares and not chosen and schema.get("additionalProperties", True) is not False:
        yield path
    for name, one in schema.items():
        if name not in ("if", "propertyNames"):
            yield from open_objects(one, f"{path}.{name}")


def test_the_schema_refuses_an_unknown_key_at_every_level():
    assert list(open_objects({"type": "object", "properties": {"a": {}}})) == [""]
    assert list(open_objects(SCHEMA)) == []
