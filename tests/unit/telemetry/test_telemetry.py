"""Telemetry: one declared table, no entity key in it, and every caller keeps to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from connectors.telemetry import (
    DETECT_COUNTS,
    MAX_LABEL_SETS,
    METRICS,
    PREFIX,
    PrometheusTelemetry,
    table,
)
from streamad.errors import UnknownNameError

ROOT = Path(__file__).resolve().parents[3]
VERBS = {"count": "counter", "gauge": "gauge", "observe": "histogram"}
# What may split a metric: all of these are few and bounded by the deployment, not by the data.
LABELS = {
    "artifact", "detector", "operation", "output", "partition", "pipeline", "python", "reason",
    "pager", "result", "stage", "state", "topic", "verdict", "version",
}  # fmt: skip


def samples(telemetry: PrometheusTelemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def calls() -> list[tuple[str, str, str, set[str]]]:
    """Return (place, verb, metric, labels) of each report whose name is written out."""
    found = []
    for package in ("streamad", "connectors", "jobs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                owner = ast.unparse(node.func.value)
                if node.func.attr not in VERBS or not owner.endswith("telemetry"):
                    continue
                if node.args and isinstance(node.args[0], ast.Constant):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    labels = {keyword.arg or "**" for keyword in node.keywords} - {"n", "value"}
                    found.append((place, node.func.attr, str(node.args[0].value), labels))
    return found


def test_every_report_in_the_code_is_declared():
    wrong = [
        f"{place}: {verb} {name} {sorted(labels)}"
        for place, verb, name, labels in calls()
        if name not in METRICS
        or METRICS[name].kind != VERBS[verb]
        or not ({"**"} & labels or labels == set(METRICS[name].labels))
    ]
    assert not wrong, "declare it in connectors/telemetry.py, or use the declared name and labels"


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_by_the_rules(metric):
    endings = {
        "counter": r"_total$",
        "gauge": r"(?<!_total)$",
        "histogram": r"_(seconds|bytes)$",
    }
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert re.search(endings[metric.kind], metric.name)
    assert not re.search(r"milliseconds|_ms\b|_ms_|kilobytes|_mb", metric.name), "base units only"
    assert set(metric.labels) <= LABELS, "is the new label bounded? never an entity's key"
    assert metric.help.endswith((".", "this."))


def test_what_is_counted_is_exposed_with_its_labels():
    telemetry = PrometheusTelemetry(strict=True)
    telemetry.count("input_rejected_total", 3, reason="invalid_json")
    telemetry.gauge("input_lag_messages", 7, topic="cpu", partition="0")
    telemetry.observe("delivery_commit_seconds", 0.02)
    told = samples(telemetry)
    assert told['streamad_input_rejected_total{reason="invalid_json"}'] == 3
    assert told['streamad_input_lag_messages{partition="0",topic="cpu"}'] == 7
    assert told["streamad_delivery_commit_seconds_count"] == 1


def test_two_jobs_in_one_process_do_not_share_counts():
    one, other = PrometheusTelemetry(), PrometheusTelemetry()
    one.count("detect_points_total", 5)
    assert samples(other)["streamad_detect_points_total"] == 0


def test_an_undeclared_name_is_an_error_in_tests():
    with pytest.raises(UnknownNameError, match="detect_points_total"):
        PrometheusTelemetry(strict=True).count("detect_point_total")


@pytest.mark.parametrize(
    ("verb", "labels"), [("gauge", {}), ("count", {"key": "host-1"})], ids=["kind", "label"]
)
def test_a_wrong_kind_or_label_is_an_error_in_tests(verb, labels):
    telemetry = PrometheusTelemetry(strict=True)
    with pytest.raises(ValueError, match=r"is a counter with the labels \[\]"):
        getattr(telemetry, verb)("detect_points_total", 1, **labels)


def test_a_slip_in_production_is_counted_and_said_once(caplog):
    telemetry = PrometheusTelemetry()
    telemetry.count("nonsense_total")
    telemetry.count("nonsense_total")
    assert samples(telemetry)["streamad_telemetry_undeclared_total"] == 2
    assert [record.message for record in caplog.records] == ["metric not declared"]


def test_label_values_are_bounded():
    telemetry = PrometheusTelemetry(strict=True)
    for number in range(MAX_LABEL_SETS + 50):
        telemetry.count("input_messages_total", topic=f"t{number}")
    told = samples(telemetry)
    counted = [name for name in told if name.startswith("streamad_input_messages_total")]
    assert len(counted) <= MAX_LABEL_SETS + 1
    assert told['streamad_input_messages_total{topic="other"}'] == 50


def test_gauges_of_a_partition_that_went_away_are_forgotten():
    telemetry = PrometheusTelemetry(strict=True)
    of_partitions = [
        metric.name
        for metric in METRICS.values()
        if metric.kind == "gauge" and set(metric.labels) == {"topic", "partition"}
    ]
    assert len(of_partitions) >= 5
    for name in of_partitions:
        for partition in ("0", "1"):
            telemetry.gauge(name, 7, topic="cpu", partition=partition)
    telemetry.forget(topic="cpu", partition="0")
    telemetry.forget(topic="cpu", partition="9")
    told = [name for name in samples(telemetry) if 'topic="cpu"' in name]
    assert len(told) == len(of_partitions)
    assert all('partition="1"' in name for name in told)


def test_an_operators_counts_have_metrics():
    telemetry = PrometheusTelemetry(strict=True)
    for name, labels in DETECT_COUNTS.values():
        telemetry.count(name, 2, **labels)
    assert samples(telemetry)['streamad_detect_findings_total{state="ended"}'] == 2


def test_every_count_an_operator_makes_is_known():
    # What the operator counts is named in its source; the rest is told as findings.
    counted = set()
    for path in (ROOT / "streamad" / "operators").rglob("*.py"):
        counted |= set(re.findall(r'out\.counts\["(\w+)"\]', path.read_text()))
    assert counted <= set(DETECT_COUNTS), "give the count a metric in connectors/telemetry.py"


def test_every_declared_metric_is_reported_somewhere():
    reported = {name for _, _, name, _ in calls()} | {name for name, _ in DETECT_COUNTS.values()}
    # Counted by the telemetry itself.
    reported |= {"build_info", "telemetry_undeclared_total"}
    assert not METRICS.keys() - reported, "a metric nobody reports is a promise nobody keeps"


def test_the_table_names_every_metric():
    text = table()
    assert all(f"`{PREFIX}{name}`" in text for name in METRICS)
