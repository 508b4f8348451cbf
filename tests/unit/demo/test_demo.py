"""The demo on a made-up machine: course, screen, verdict."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from connectors.records.typed_json import to_record
from jobs.demo.board import Board
from jobs.demo.disturbance import N_SERVICES, STRANGER, WORKER
from jobs.demo.kinds import CONNECTIONS, KINDS, METRICS, STARTS
from jobs.demo.play import Parts, _append, play, report, run_demo
from jobs.demo.rehearsal import INTERVAL_MS, prepare
from jobs.demo.script import Plan
from jobs.demo.view import LiveView, PlainView, frame
from streamad.errors import ConfigError
from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows
from streamad.records import Alert, RecordBatch

ROOT = Path(__file__).resolve().parents[3]
SEEN = ("cpu_percent", "disk_write_bytes_per_s", "disturbance.cpu_percent", "load_1m")


class FakeMachine:
    """Three sources, what disturbs them, and their clock; a disturbance shows while it lasts.

    works : kinds whose disturbance shows; blind : kinds of which nothing can be read
    """

    def __init__(
        self, *, works: tuple = tuple(kind.name for kind in KINDS), blind: tuple = ()
    ) -> None:
        self.now_ms, self.works, self.blind = 1_700_000_000_000, works, blind
        self.until_ms, self.offset, self.strangers, self.rested = 0, dict.fromkeys(works, 0), 0, 0
        self.fan_until_ms = 0
        self.rng = np.random.default_rng(5)

    def clock(self) -> int:
        return self.now_ms

    def burst(self) -> None:
        self.until_ms = self.now_ms + 9_000

    def start_stranger(self) -> None:
        self.strangers += 1

    def fan_out(self) -> None:
        self.fan_until_ms = self.now_ms + 6_000

    def rest(self) -> None:
        self.rested += 1

    def sources(self) -> dict:
        made = {METRICS.name: Fake(self, self.metrics, every=1)}
        made[STARTS.name] = Fake(self, self.starts, every=1)
        made[CONNECTIONS.name] = Fake(self, self.connections, every=8)
        return made

    def metrics(self, offset: int) -> RecordBatch:
        self.now_ms += INTERVAL_MS
        noise = self.rng.random(len(SEEN))
        values = np.array([10.0, 2e5, 0.0, 1.0]) * (0.75 + noise / 2)
        if METRICS.name in self.works and self.now_ms < self.until_ms:
            values = np.array([97.0, 8e7, 180.0, 3.0]) * (0.9 + noise / 10)
        return self.message([f"host-1/{metric}" for metric in SEEN], values[:, None], offset)

    def starts(self, offset: int) -> RecordBatch:
        names = ["chore"] if STARTS.name not in self.blind else []
        if STARTS.name in self.works and self.strangers:
            names.append(STRANGER)
        self.strangers = 0
        columns = {"user": ["ann"], "parent": ["worker"], "process": names}
        fields = {k: v * len(names) if len(v) == 1 else v for k, v in columns.items()}
        schema = dict.fromkeys(columns, pl.String)
        rows = EventRows(np.full(len(names), self.now_ms), pl.DataFrame(fields, schema=schema))
        return self.message([f"host-1/ann/{name}" for name in names], rows, offset)

    def connections(self, offset: int) -> RecordBatch:
        n = 0 if CONNECTIONS.name in self.blind else 2
        if CONNECTIONS.name in self.works and self.now_ms < self.fan_until_ms:
            n += N_SERVICES
        rows = EdgeRows(
            time_ms=np.full(n, self.now_ms),
            source=pl.Series([WORKER] * n, dtype=pl.String),
            target=pl.Series(
                [f"streamad:{port}" for port in range(40_000, 40_000 + n)], dtype=pl.String
            ),
            source_type=pl.Series(["process"] * n, dtype=pl.String),
            target_type=pl.Series(["service"] * n, dtype=pl.String),
            weight=np.ones(n),
        )
        return self.message([f"host-1/{WORKER}"] * n, rows, offset)

    def message(self, keys: list, rows, offset: int) -> RecordBatch:
        n = len(keys)
        return RecordBatch(
            keys=pl.Series("key", keys, pl.String),
            time_ms=np.full(n, self.now_ms),
            values=rows,
            message=np.zeros(n, np.int32),
            row=np.arange(n, dtype=np.int32),
            offsets=np.array([offset]),
            broker_ms=np.array([self.now_ms]),
        )


class Fake:
    """One source of a machine, due at every so many readings of its metrics."""

    def __init__(self, machine: FakeMachine, read, *, every: int) -> None:
        self.machine, self.read, self.every_ms, self.offset = machine, read, every * INTERVAL_MS, -1

    @property
    def is_due(self) -> bool:
        return self.machine.now_ms % self.every_ms == 0

    def poll(self) -> RecordBatch:
        self.offset += 1
        return self.read(self.offset)


class Stopping(FakeMachine):
    """A machine whose user presses Ctrl-C after so many readings."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def metrics(self, offset: int) -> RecordBatch:
        if offset >= self.after:
            raise KeyboardInterrupt
        return super().metrics(offset)


@pytest.fixture(scope="module")
def prepared():
    return prepare(KINDS)


@pytest.fixture
def composed(prepared):
    """Return what plays the demo's own pipelines on a made-up machine: script and alert lines."""

    def run(machine: FakeMachine, console: Console, *, live: bool = False, **settings):
        lines = io.BytesIO()
        picture = settings.pop("picture", None)
        view = settings.pop("view", LiveView if live else PlainView)
        plan = Plan(
            needed=prepared[METRICS.name].readings_needed,
            interval_ms=INTERVAL_MS,
            longest_ms=settings.pop("longest_ms", 90_000),
            **settings,
        )
        parts = Parts(
            prepared=prepared,
            sources=machine.sources(),
            acts={
                METRICS.name: machine.burst,
                STARTS.name: machine.start_stranger,
                CONNECTIONS.name: machine.fan_out,
            },
            rest=machine.rest,
            view=view(console, title="streamad demo: host-1"),
            clock=machine.clock,
            write=lambda alerts: _append(lines.write, alerts),
            picture=picture,
        )
        return play(parts, plan), [json.loads(line) for line in lines.getvalue().splitlines()]

    return run


def terminal(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True)


def plain() -> Console:
    return Console(file=io.StringIO(), width=100, no_color=True)


def test_every_disturbance_raises_an_alert_and_the_demo_ends(composed):
    console, machine = plain(), FakeMachine()
    script, alerts = composed(machine, console)
    assert script.phase == "over"
    main = script.main(METRICS)
    assert main.alert.key == "host-1/disturbance.cpu_percent"
    assert main.resolved_ms < script.burst_end_ms + 5_000
    for kind in KINDS:
        assert script.main(kind).opened_ms - script.began_ms[kind.name] <= 1_000, kind.label
    opened = {a["key"] for a in alerts if a["state"] == "opened"}
    assert opened == {
        *(f"host-1/{metric}" for metric in SEEN if metric != "load_1m"),
        f"host-1/ann/{STRANGER}",
        f"host-1/{WORKER}",
    }
    assert (script.now_ms - script.start_ms) / 1000 < 70
    assert (script.failed, script.silent, script.others, machine.rested) == ([], set(), {}, 1)
    said = console.file.getvalue()
    assert "1/3 learning" in said
    assert "75 % learned" in said
    assert "OPENED host-1/disturbance.cpu_percent is 1" in said
    assert "RESOLVED host-1/disturbance.cpu_percent is back to normal" in said
    assert f"OPENED host-1/ann/{STRANGER}: new value: process={STRANGER} (not seen in" in said
    assert f"host-1/{WORKER}: fan-out: {WORKER} reaches about 3" in said
    told = list(report(script, Path("a")))
    assert [line.partition(":")[0] for line in told[:3]] == [kind.label for kind in KINDS]
    assert all("alert after" in line for line in told[:3])


def test_alerts_of_metrics_that_are_open_at_the_end_are_named(composed):
    script, alerts = composed(FakeMachine(), plain())
    assert not any("still open, as" in line for line in report(script, Path("a")))
    opened = [one for one in alerts if one["state"] == "opened" and one["pipeline"] == "demo"]
    for alert in (to_record(Alert, one) for one in opened):
        script._note(replace(alert, id=f"again-{alert.id}", state="opened"))
    (line,) = [line for line in report(script, Path("a")) if "still open, as" in line]
    assert line.startswith(f"{len(opened)} alerts are still open")
    assert line.endswith(", ...." if len(opened) > 3 else ".")


def test_the_board_keeps_the_surest_alerts_in_sight(composed):
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
    few.take_alerts([replace(one, id=f"open-{n}", state="opened") for n in range(9)])
    assert "own" not in {event.id for event in few.told(3, first={"own"})}
    assert "own" in {event.id for event in few.told(3, always={"own"})}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_disturbance_that_does_not_show_fails_with_a_clear_line(kind, composed):
    works = tuple(one.name for one in KINDS if one is not kind)
    script, alerts = composed(FakeMachine(works=works), plain())
    assert (script.phase, script.failed) == ("over", [kind])
    assert {one["pipeline"] for one in alerts} == set(works)
    lines = list(report(script, Path("a")))
    assert sum("FAILED" in line for line in lines) == 1
    assert any(line.startswith(f"{kind.label}: FAILED: no alert") for line in lines)


def test_a_machine_of_which_not_all_can_be_read_says_so_and_shows_the_rest(composed):
    blind = (STARTS.name, CONNECTIONS.name)
    script, alerts = composed(FakeMachine(works=(METRICS.name,), blind=blind), plain())
    assert (script.phase, script.failed, script.silent) == ("over", [], set(blind))
    assert {one["pipeline"] for one in alerts} == {METRICS.name}
    lines = list(report(script, Path("a")))
    assert sum("none could be read on this machine" in line for line in lines) == 2


def test_a_machine_too_slow_to_learn_in_time_says_so(composed):
    script, _ = composed(FakeMachine(), plain(), longest_ms=8_000)
    (failed, where) = report(script, Path("alerts.jsonl"))
    assert failed.startswith("FAILED: only 64 of 80 readings were made in time")
    assert where.endswith("alerts.jsonl")


def test_without_a_disturbance_it_only_watches(composed):
    machine = FakeMachine()
    script, alerts = composed(machine, plain(), disturb=False, longest_ms=60_000)
    assert (script.phase, alerts, machine.until_ms, machine.rested) == ("over", [], 0, 1)
    assert list(report(script, Path("a"))) == ["All alerts, as JSON lines: a"]


def test_it_keeps_going_until_interrupted_where_told_to(composed):
    script, _ = composed(Stopping(after=900), plain(), keep_going=True)
    assert script.phase == "watching"
    assert len(script.mains) == len(KINDS)
    with pytest.raises(KeyboardInterrupt):
        composed(Stopping(after=20), plain())


def test_every_screen_fits_its_terminal(composed):
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

    composed(FakeMachine(), plain(), view=AtEverySize)
    for (_, height), drawn in frames.items():
        assert len(drawn) > 30
        assert max(len(lines) for lines in drawn) <= height - 1
        shown = "\n".join(drawn[-1])
        assert "disturbance.cpu %" in shown
        assert "process starts /s" in shown
        assert "connected pairs" in shown
    for size in sizes[:2]:
        shown = "\n".join(frames[size][-1])
        assert "is back to normal" in shown
        assert f"ann/{STRANGER}: new value" in shown
        assert "fan-out" in shown


def test_the_picture_is_taken_while_all_alerts_are_open_and_loads_nothing(composed, tmp_path: Path):
    path = tmp_path / "demo.svg"
    composed(FakeMachine(), plain(), picture=path)
    text = path.read_text().replace("&#160;", " ")
    assert "5 open" in text
    assert "disturbing" in text
    assert "new value: process=" in text
    assert "fan-out: demo-worker" in text
    assert text.count("http") == 1, "only the namespace"


def test_the_picture_of_the_docs_is_of_this_demo():
    text = (ROOT / "docs" / "demo.svg").read_text().replace("&#160;", " ")
    for shown in (STRANGER, "fan-out", "process starts /s", "connected pairs", "disturbing"):
        assert shown in text, f"{shown} is missing: streamad demo --picture docs/demo.svg"


def test_a_terminal_without_unicode_gets_letters(composed):
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
