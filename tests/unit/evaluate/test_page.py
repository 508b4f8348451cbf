"""The page on evaluation: what it shows runs, and what it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from jobs.cli import main
from jobs.evaluate.layouts import LAYOUTS
from streamad.evaluation.baselines import ALWAYS
from tests.docs.cli import spoken

PAGE = Path(__file__).resolve().parents[3] / "docs" / "evaluate.md"


def test_the_commands_of_the_page_run_on_the_series_it_makes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(program, PAGE.name, "exec"), {"__name__": "page"})  # noqa: S102 - our own page
    run = [line for line in spoken(text) if " made" in line]
    assert len(run) == 2
    for line in run:
        assert main(shlex.split(line)[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    for name in ("report.html", "summary.json", "results.jsonl"):
        assert (tmp_path / "out" / name).exists()
        assert f"`out/{name}`" in text


def test_the_page_names_every_baseline_and_every_layout():
    text = PAGE.read_text()
    for name in (*ALWAYS, *LAYOUTS):
        assert f"`{name}`" in text, name
