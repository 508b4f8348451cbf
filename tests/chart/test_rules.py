"""Alerts about streamad itself, judged by promtool: they parse, fire, and stay quiet."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import of_kind, rendered, tool
from tests.chart.schema import CHART

HERE = Path(__file__).parent


def test_rules_fire_when_they_should_and_only_then():
    made = subprocess.run(
        [tool("promtool"), "test", "rules", "rules_test.yaml"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("source", ["file", "chart"])
def test_prometheus_takes_the_rules(source: str, tmp_path: Path):
    path = CHART / "files" / "rules.yaml"
    if source == "chart":
        made = of_kind(rendered(CHART / "ci" / "secured-values.yaml"), "PrometheusRule")
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump(made["one-streamad"]["spec"]))
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout
