"""The demo on a made-up machine: the course, the screen, the verdict; and the real disturbance."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from rich.console import Console

from connectors.records.typed_json import to_record
from jobs.build import build_detect
from jobs.demo.board import Board
from jobs.demo.disturbance import Disturbance
from jobs.demo.play import (
    INTERVAL_MS,
    PIPELINE,
    Parts,
    _append,
    play,
    readings_needed,
    report,
    run_demo,
)
from jobs.demo.script import Plan
from jobs.demo.view import LiveView, PlainView, frame
from streamad.config import load_pipeline
from streamad.errors import ConfigError
from streamad.records import Alert, SignalBatch

METRICS = ("cpu_percent", "disk_write_bytes_per_s", "disturbance.cpu_percent", "load_1m")


class FakeMachine:
    """Readings, worker and clock in one; work shows in the numbers while it lasts."""

    def __init__(self, *, works: bool = True) -> None:
        self.now_ms, self.offset, self.works = 1_700_000_000_000, 0, works
        self.until_ms = 0
        self.rng = np.random.default_rng(5)

    def clock(self) -> int:
        return self.now_ms

    def begin(self, seconds: float) -> None:
        self.until_ms = self.now_ms + round(seconds * 1000)

    def poll(self) -> SignalBatch:
        self.now_ms += INTERVAL_MS
        self.offset += 1
        noise = self.rng.random(len(METRICS))
        values = np.array([10.0, 2e5, 0.0, 1.0]) * (0.75 + noise / 2)
        if self.works and self.now_ms < self.until_ms:
            values = np.array([97.0, 8e7, 180.0, 3.0]) * (0.9 + noise / 10)
        n = len(METRICS)
        return SignalBatch(
            keys=pl.Series("key", [f"host-1/{metric}" for metric in METRICS]),
            time_ms=np.full(n, self.now_ms),
            values=values[:, None],
            message=np.zeros(n, np.int32),
            row=np.arange(n, dtype=np.int32),
            offsets=np.array([self.offset - 1]),
            broker_ms=np.array([self.now_ms]),
        )


class Stopping(FakeMachine):
    """A machine whose user presses Ctrl-C after so many readings."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def poll(self) -> SignalBatch:
        if self.offset >= self.after:
            raise KeyboardInterrupt
        return super().poll()


def composed(machine: FakeMachine, console: Console, *, live: bool = False, **settings):
    """Play the demo's own pipeline on a made-up machine; return its script and alert lines."""
    config = load_pipeline(PIPELINE, environment={})
    operator = build_detect(config)
    lines = io.BytesIO()
    picture = settings.pop("picture", None)
    plan = Plan(
        needed=readings_needed(operator),
        interval_ms=INTERVAL_MS,
        longest_ms=settings.pop("longest_ms", 90_000),
        **settings,
    )
    parts = Parts(
        config=config,
        operator=operator,
        readings=machine,
        worker=machine,
        view=(LiveView if live else PlainView)(console, title="streamad demo: host-1"),
        clock=machine.clock,
        write=lambda alerts: _append(lines.write, alerts),
        picture=picture,
    )
    return play(parts, plan), [json.loads(line) for line in lines.getvalue().splitlines()]


def terminal(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True)


def plain() -> Console:
    return Console(file=io.StringIO(), width=100, no_color=True)


def test_the_disturbance_raises_an_alert_that_resolves_and_the_demo_ends():
    console = plain()
    script, alerts = composed(FakeMachine(), console)
    assert script.phase == "over"
    assert script.main is not None
    assert script.main.alert.key == "host-1/disturbance.cpu_percent"
    assert script.main.opened_ms - script.began_ms < 1_000
    assert script.main.resolved_ms < script.burst_end_ms + 5_000
    assert {a["key"] for a in alerts if a["state"] == "opened"} == {
        f"host-1/{metric}" for metric in METRICS if metric != "load_1m"
    }
    assert (script.now_ms - script.start_ms) / 1000 < 70
    said = console.file.getvalue()
    assert "1/3 learning" in said
    assert "75 % learned" in said
    assert "OPENED host-1/disturbance.cpu_percent is 1" in said
    assert "RESOLVED host-1/disturbance.cpu_percent is back to normal" in said


def test_alerts_that_are_open_at_the_end_are_named():
    script, alerts = composed(FakeMachine(), plain())
    assert not script.still_open
    assert not any("still open" in line for line in report(script, Path("a")))
    for alert in (to_record(Alert, one) for one in alerts if one["state"] == "opened"):
        script._note(replace(alert, id=f"again-{alert.id}", state="opened"))
    (line,) = [line for line in report(script, Path("a")) if "still open" in line]
    assert line.startswith(f"{len(script.still_open)} alerts are still open")
    assert line.endswith(", ...." if len(script.still_open) > 3 else ".")


def test_the_board_keeps_its_own_alerts_in_sight():
    _, alerts = composed(FakeMachine(), plain())
    one = to_record(Alert, alerts[0])
    board = Board()
    own = replace(one, id="own", state="resolved")
    board.take_alerts([own, *(replace(one, id=f"{n}", state="resolved") for n in range(900))])
    board.take_alerts([replace(one, id=f"open-{n}", state="opened") for n in range(3)])
    assert {event.id for event in board.told(4)} == {"899", "open-0", "open-1", "open-2"}
    assert len(board.events) <= 500
    few = Board()
    few.take_alerts([own, *(replace(one, id=f"{n}", state="resolved") for n in range(20))])
    assert "own" in {event.id for event in few.told(3, first={"own"})}


def test_a_machine_that_shows_nothing_of_it_fails_with_a_clear_line():
    script, alerts = composed(FakeMachine(works=False), plain())
    assert (script.phase, script.main, alerts) == ("over", None, [])
    assert any(
        line.startswith("FAILED: the disturbance raised no") for line in report(script, Path("a"))
    )


def test_a_machine_too_slow_to_learn_in_time_says_so():
    script, _ = composed(FakeMachine(), plain(), longest_ms=8_000)
    (failed, where) = report(script, Path("alerts.jsonl"))
    assert failed.startswith("FAILED: only 64 of 80 readings were made in time")
    assert where.endswith("alerts.jsonl")


def test_without_a_disturbance_it_only_watches():
    machine = FakeMachine()
    script, alerts = composed(machine, plain(), disturb=False, longest_ms=60_000)
    assert (script.phase, alerts, machine.until_ms) == ("over", [], 0)
    assert list(report(script, Path("a"))) == ["All alerts, as JSON lines: a"]


def test_it_keeps_going_until_interrupted_where_told_to():
    script, _ = composed(Stopping(after=900), plain(), keep_going=True)
    assert script.phase == "watching"
    assert script.main is not None
    with pytest.raises(KeyboardInterrupt):
        composed(Stopping(after=20), plain())


def test_every_screen_fits_its_terminal(monkeypatch: pytest.MonkeyPatch):
    sizes = [(80, 24), (120, 40), (60, 16)]
    frames: dict[tuple[int, int], list[list[str]]] = {size: [] for size in sizes}

    class AtEverySize(PlainView):
        def show(self, board, script, alerts):
            if script.n_readings % 6 and not alerts and script.phase != "over":
                return
            for width, height in sizes:
                paper = terminal(width, height)
                paper.print(frame(board, script, title="t" * 200, size=(width, height - 1)))
                frames[width, height].append(paper.file.getvalue().splitlines())

    monkeypatch.setitem(globals(), "PlainView", AtEverySize)
    composed(FakeMachine(), plain())
    for (_, height), drawn in frames.items():
        assert len(drawn) > 30
        assert max(len(lines) for lines in drawn) <= height - 1
        shown = "\n".join(drawn[-1])
        assert "disturbance.cpu %" in shown
        assert "is back to normal" in shown


def test_the_picture_is_taken_while_the_alert_is_open_and_loads_nothing(tmp_path: Path):
    path = tmp_path / "demo.svg"
    composed(FakeMachine(), plain(), picture=path)
    text = path.read_text()
    assert "2&#160;open" in text or "3&#160;open" in text
    assert "disturbing" in text
    assert text.count("http") == 1, "only the namespace"


def test_a_terminal_without_unicode_gets_letters(tmp_path: Path):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=80, height=24, force_terminal=True, no_color=True)
    composed(FakeMachine(), console, live=True)
    file.flush()
    text = file.buffer.getvalue().decode("ascii")
    assert "!! " in text
    assert "ok " in text


def test_a_time_too_short_to_learn_in_is_refused():
    with pytest.raises(ConfigError, match="expected 60 or more, got 5"):
        run_demo(seconds=5)


# --- the real child process ---------------------------------------------------------------------


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_the_disturbance_works_when_told_and_leaves_nothing_behind(tmp_path: Path):
    with Disturbance(tmp_path) as disturbance:
        child = psutil.Process(disturbance.pid)
        disturbance.begin(20)
        end = time.monotonic() + 20
        while sum(child.cpu_times()[:2]) < 0.3 and time.monotonic() < end:
            time.sleep(0.05)
        assert sum(child.cpu_times()[:2]) >= 0.3
    assert wait_until_gone(disturbance.pid, 0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_disturbance_whose_parent_was_killed_ends_by_itself(tmp_path: Path):
    import subprocess
    import sys

    script = (
        "import os, pathlib, sys\n"
        "from jobs.demo.disturbance import Disturbance\n"
        "worker = Disturbance(pathlib.Path(sys.argv[1]))\n"
        "worker.begin(20)\n"
        "print(worker.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=PIPELINE.parents[2],
    )
    assert wait_until_gone(int(ended.stdout))
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_died_is_no_error(tmp_path: Path):
    with Disturbance(tmp_path) as disturbance:
        psutil.Process(disturbance.pid).kill()
        assert wait_until_gone(disturbance.pid)
        disturbance.begin(1)
        disturbance.begin(1)
