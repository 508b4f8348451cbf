"""``streamad demo``: watch this machine, disturb it on purpose, show the alert and its end.

Nothing is staged: the readings are the machine's own, the pipeline is that of every other command
(`jobs/pipelines/demo.yaml`), and the disturbance is a process that really works.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import orjson
import polars as pl
from rich.console import Console

from connectors.host import HostSource
from jobs.build import build_detect
from jobs.console import FIRST_RUN
from jobs.demo.board import Board
from jobs.demo.disturbance import Disturbance
from jobs.demo.script import Phase, Plan, Script
from jobs.demo.view import LiveView, PlainView, View, frame, save_picture
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.records import Alert, SignalBatch, as_dict
from streamad.runtime.embedded import EmbeddedPipeline, Hooks

PIPELINE: Final = Path(__file__).parents[1] / "pipelines" / "demo.yaml"
INTERVAL_MS: Final = 125
LEAST_S: Final = 60.0
DEFAULT_OUT: Final = Path("streamad-demo") / "alerts.jsonl"
_MOST_NAMED: Final = 3
_PICTURE_AFTER_MS: Final = 4_000
_PICTURE_SIZE: Final = (100, 28)


class Readings(Protocol):
    """Where readings come from, one message at a time."""

    def poll(self) -> SignalBatch:
        """Wait for the next reading and return it."""


class Worker(Protocol):
    """What disturbs."""

    def begin(self, seconds: float) -> None:
        """Work for so long, without waiting for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a demo is made of; tests bring their own machine, worker, clock and view."""

    config: PipelineConfig
    operator: DetectOperator
    readings: Readings
    worker: Worker
    view: View
    clock: Callable[[], int]
    write: Callable[[list[Alert]], None]
    picture: Path | None = None


def run_demo(  # noqa: PLR0913 - one argument an option, all by keyword
    *,
    seconds: float = 90.0,
    keep_going: bool = False,
    no_disturbance: bool = False,
    out: Path | None = None,
    processes: int = 3,
    host: str | None = None,
    picture: Path | None = None,
) -> int:
    """Run the demo on this machine; return 0, or 1 where the disturbance raised no alert."""
    if not seconds >= LEAST_S:
        msg = f"--seconds: expected {LEAST_S:.0f} or more, got {seconds:g}"
        raise ConfigError(msg)
    console = Console(highlight=False)
    config = load_pipeline(PIPELINE, environment={})
    with _preparing(console):
        operator = prepared_operator(config)
    path = _output(out)
    plan = Plan(
        needed=readings_needed(operator),
        interval_ms=INTERVAL_MS,
        longest_ms=round(seconds * 1000),
        disturb=not no_disturbance,
        keep_going=keep_going,
    )
    name = host or socket.gethostname().partition(".")[0] or "here"
    with Disturbance(path.parent) as worker, path.open("wb") as file:
        script = play(
            Parts(
                config=config,
                operator=operator,
                readings=HostSource(
                    host=name,
                    interval_ms=INTERVAL_MS,
                    processes=processes,
                    watch={"disturbance": worker.pid},
                ),
                worker=worker,
                view=_view(console, f"streamad demo: {name}, scored by {config.detector.name}"),
                clock=_now_ms,
                write=lambda alerts: _append(file.write, alerts),
                picture=picture,
            ),
            plan,
        )
    for line in report(script, path):
        console.print(line, soft_wrap=True, markup=False)
    return 0 if no_disturbance or script.main is not None else 1


def play(parts: Parts, plan: Plan) -> Script:
    """Play the demo to its end, or until it is interrupted where it is to keep going."""
    board = Board()
    pipeline = EmbeddedPipeline(
        parts.config, parts.operator, parts.clock, hooks=Hooks(scores=board.take_scores)
    )
    script = Script(plan, start_ms=parts.clock())
    try:
        with parts.view:
            while script.phase != "over":
                _one_reading(parts, pipeline, board, script)
    except KeyboardInterrupt:
        if not plan.keep_going:
            raise
    return script


def _one_reading(parts: Parts, pipeline: EmbeddedPipeline, board: Board, script: Script) -> None:
    batch = parts.readings.poll()
    board.take(batch)
    alerts = pipeline.feed(batch)
    board.take_alerts(alerts)
    parts.write(alerts)
    before: Phase = script.phase
    now_ms = parts.clock()
    if script.step(now_ms, alerts) == "disturbing" and before != "disturbing":
        parts.worker.begin(script.plan.burst_ms / 1000)
    parts.view.show(board, script, alerts)
    if parts.picture is not None and _is_worth_a_picture(script):
        drawn = frame(board, script, title="$ streamad demo", size=_PICTURE_SIZE)
        save_picture(drawn, parts.picture, title="streamad demo", width=_PICTURE_SIZE[0])


def _is_worth_a_picture(script: Script) -> bool:
    main = script.main
    if main is None or script.phase != "disturbing":
        return False
    age_ms = script.now_ms - main.opened_ms
    return _PICTURE_AFTER_MS <= age_ms < _PICTURE_AFTER_MS + 2 * INTERVAL_MS


def readings_needed(operator: DetectOperator) -> int:
    """Return after how many readings the operator judges: a window, warm-up, calibration."""
    info = operator.detector.info
    return operator.detector.size + info.warm_up + operator.config.scoring.min_windows


def report(script: Script, path: Path) -> Iterable[str]:
    """Yield what came of it, a line each."""
    main = script.main
    if main is not None and script.began_ms is not None:
        took = (main.opened_ms - script.began_ms) / 1000
        yield f"The disturbance raised an alert after {took:.1f} s."
        if main.resolved_ms is not None and script.burst_end_ms is not None:
            ended = (main.resolved_ms - script.burst_end_ms) / 1000
            yield f"It resolved {max(ended, 0):.1f} s after the disturbance was over."
        else:
            yield "It had not resolved when the demo ended."
    elif script.began_ms is not None:
        yield "FAILED: the disturbance raised no alert; please report this with the alerts file."
    elif script.plan.disturb:
        yield (
            f"FAILED: only {script.n_readings} of {script.plan.needed} readings were made in time, "
            "so nothing was scored; this machine is too busy, try --seconds 240."
        )
    if script.others:
        n = len(script.others)
        yield f"{n} other alert{'s' if n > 1 else ''}: other work runs on this machine."
    left = script.still_open
    if left:
        named = ", ".join(alert.key.partition("/")[2] for alert in left[:_MOST_NAMED])
        more = ", ..." if len(left) > _MOST_NAMED else ""
        are = "s are" if len(left) > 1 else " is"
        yield f"{len(left)} alert{are} still open, as the demo ends while they last: {named}{more}."
    yield f"All alerts, as JSON lines: {path}"


def _view(console: Console, title: str) -> View:
    kind = LiveView if console.is_terminal else PlainView
    return kind(console, title=title)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _output(out: Path | None) -> Path:
    """Return the file for alerts; the default is left where one may not write there."""
    path = out or DEFAULT_OUT
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        if out is not None:
            raise
        return Path(tempfile.mkdtemp(prefix="streamad-demo-")) / path.name
    return path


def _append(write: Callable[[bytes], object], alerts: list[Alert]) -> None:
    for alert in alerts:
        write(orjson.dumps(as_dict(alert), option=orjson.OPT_APPEND_NEWLINE))


@contextmanager
def _preparing(console: Console) -> Iterator[None]:
    says = f"preparing ({FIRST_RUN})"
    if not console.is_terminal:
        console.print(says, soft_wrap=True)
    with console.status(says):
        yield


def prepared_operator(config: PipelineConfig | None = None) -> DetectOperator:
    """Return the operator with its kernels compiled: done later, it would hold up the readings."""
    operator = build_detect(config or load_pipeline(PIPELINE, environment={}))
    operator.process(operator.new_state(), _rehearsal(readings_needed(operator) + 64))
    return operator


def _rehearsal(n: int) -> SignalBatch:
    """Return a made-up series with a jump, so that every kernel is called once."""
    rows = np.arange(n)
    values = np.sin(rows) + np.where(rows > n - 32, 100.0, 10.0)
    return SignalBatch(
        keys=pl.Series("key", ["rehearsal"] * n, pl.String),
        time_ms=rows.astype(np.int64) * INTERVAL_MS,
        values=values[:, None],
        message=rows.astype(np.int32),
        row=np.zeros(n, np.int32),
        offsets=rows.astype(np.int64),
        broker_ms=np.full(n, -1, np.int64),
    )
