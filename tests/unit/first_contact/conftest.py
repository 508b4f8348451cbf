"""What a new user types, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from jobs.cli import main

T0 = 1_775_001_600_000
"""The first of April 2026."""
MINUTE = 60_000


@dataclass
class Said:
    """Exit code, what was printed for people, and the alerts that were opened, by their key."""

    code: int
    err: str
    alerts: list[dict[str, Any]]

    @property
    def opened(self) -> dict[str, dict[str, Any]]:
        return {one["key"]: one for one in reversed(self.alerts) if one["state"] == "opened"}

    @property
    def left_open(self) -> set[str]:
        states = {one["id"]: one["state"] for one in self.alerts}
        return {one for one, state in states.items() if state != "resolved"}


class User:
    """Writes files into a folder and runs commands there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def csv(self, name: str, rows: Iterable[Iterable[object]], sep: str = ",") -> Path:
        lines = [sep.join(map(str, row)) for row in rows]
        return self.text(name, "\n".join(lines) + "\n")

    def jsonl(self, name: str, rows: Iterable[object]) -> Path:
        return self.text(name, "".join(f"{json.dumps(row)}\n" for row in rows))

    def text(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, *words: object) -> Said:
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        printed = self._capsys.readouterr()
        return Said(code, " ".join(printed.err.split()), [])

    def backtest(self, pipeline: str, data: Path) -> Said:
        out = self.folder / "alerts.jsonl"
        out.unlink(missing_ok=True)
        said = self.run("backtest", self.text("pipeline.yaml", pipeline), data, "-o", out)
        if out.exists():
            said.alerts = [json.loads(line) for line in out.read_text().splitlines()]
        return said

    def score(self, data: Path, *options: object) -> tuple[Said, pl.DataFrame]:
        out = self.folder / "scores.csv"
        said = self.run("score", data, "-o", out, *options)
        return said, pl.read_csv(out) if out.exists() else pl.DataFrame()


@pytest.fixture
def user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> User:
    monkeypatch.setenv("COLUMNS", "300")
    return User(tmp_path, capsys)
