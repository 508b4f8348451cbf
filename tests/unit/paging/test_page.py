"""The page on incidents: its files are read, and its line is what the desk writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.files.topology import topology_of
from streamad.alerting.config import load_alerting
from streamad.paging.desk import Desk
from streamad.records import Explanation
from tests.unit.paging.made import MINUTE, NOON, SECOND, finding, logged

PAGE = (Path(__file__).resolve().parents[3] / "docs/incidents.md").read_text()


def block(language: str) -> str:
    found, *_ = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


def test_the_example_of_the_page_gives_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "alerting.yaml").write_text(block("yaml"))
    (tmp_path / "topology.csv").write_text(block("csv"))
    config = load_alerting(tmp_path / "alerting.yaml", environment={})
    monkeypatch.chdir(tmp_path)
    desk = Desk(config, topology_of(config.incidents))
    slow = Explanation(
        observed={"value": 900.0}, expected={"value": 100.0}, variates={"value": 1.0}, time_ms=NOON
    )
    web = [
        replace(finding(f"web-{i}/latency", n * SECOND, p=p), explanation=slow)
        for n, (i, p) in enumerate(((2, 1e-9), (1, 1e-6), (3, 1e-7)))
    ]
    event = finding(
        "eve", 20 * SECOND, p=1e-5, pipeline="audit", group="audit",
        entity={"user": "eve"}, entities=("web-1",),
    )  # fmt: skip
    silent = finding("db-1/io", MINUTE, kind="no_data", window_end_ms=NOON + 2 * MINUTE)
    state = desk.new_state()
    out = desk.process(state, logged([*web, event, silent]))
    out.incidents += desk.tick(state, NOON + 3 * MINUTE).incidents
    assert len({one.id for one in out.incidents}) == 1
    assert out.incidents[-1].summary == block("text").strip()
