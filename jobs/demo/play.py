"""``streamad demo``: watch this machine, disturb it on purpose, show the alerts.

Nothing is staged: what is read is the machine's own, the pipelines are those of every other command
(`jobs/pipelines/demo*.yaml`), and the disturbance is processes that really work.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from connectors.host import Connections, HostSource, ProcessStarts
from jobs.demo.board import Board
from jobs.demo.disturbance import Disturbance
from jobs.demo.kinds import CONNECTIONS, KINDS, METRICS, STARTS, Kind
from jobs.demo.rehearsal import INTERVAL_MS, Prepared, prepare
from jobs.demo.script import Phase, Plan, Script
from jobs.demo.view import LiveView, PlainView, View, frame, save_picture
from jobs.demo.watching import Source, Watching
from streamad.errors import ConfigError
from streamad.records import Alert, as_dict

LEAST_S: Final = 60.0
DEFAULT_OUT: Final = Path("streamad-demo") / "alerts.jsonl"
_FIRST_RUN: Final = "the first run compiles the kernels of three pipelines: a minute, once"
_CONNECTIONS_MS: Final = 1_000
_MOST_NAMED: Final = 3
_PICTURE_AFTER_MS: Final = 1_500
_PICTURE_SIZE: Final = (100, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a demo is made of; tests bring their own machine, acts, clock and view.

    prepared : pipelines by the name of their kind; sources : what they read, likewise
    acts : how each kind is disturbed, likewise; rest : what ends the ordinary work
    """

    prepared: Mapping[str, Prepared]
    sources: Mapping[str, Source]
    acts: Mapping[str, Callable[[], None]]
    rest: Callable[[], None]
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
    """Run the demo on this machine; return 0, or 1 where a disturbance raised no alert."""
    if not seconds >= LEAST_S:
        msg = f"--seconds: expected {LEAST_S:.0f} or more, got {seconds:g}"
        raise ConfigError(msg)
    console = Console(highlight=False)
    with _preparing(console):
        prepared = prepare(KINDS)
    path = _output(out)
    plan = Plan(
        needed=prepared[METRICS.name].readings_needed,
        interval_ms=INTERVAL_MS,
        longest_ms=round(seconds * 1000),
        disturb=not no_disturbance,
        keep_going=keep_going,
    )
    name = host or socket.gethostname().partition(".")[0] or "here"
    with Disturbance(path.parent) as disturbance, path.open("wb") as file:
        script = play(
            Parts(
                prepared=prepared,
                sources=_sources(prepared, name, processes, disturbance),
                acts={
                    METRICS.name: lambda: disturbance.burst(plan.burst_ms / 1000),
                    STARTS.name: disturbance.start_stranger,
                    CONNECTIONS.name: disturbance.fan_out,
                },
                rest=disturbance.rest,
                view=_view(console, f"streamad demo: {name}"),
                clock=_now_ms,
                write=lambda alerts: _append(file.write, alerts),
                picture=picture,
            ),
            plan,
        )
    for line in report(script, path):
        console.print(line, soft_wrap=True, markup=False)
    return 0 if no_disturbance or (script.began_ms and not script.failed) else 1


def _sources(
    prepared: Mapping[str, Prepared], host: str, processes: int, disturbance: Disturbance
) -> dict[str, Source]:
    """Return what is read, by the name of its kind; keys are made as the pipelines have them."""
    starts = prepared[STARTS.name].config.input.fields
    connections = prepared[CONNECTIONS.name].config.input.fields
    return {
        METRICS.name: HostSource(
            host=host,
            interval_ms=INTERVAL_MS,
            processes=processes,
            watch={"disturbance": disturbance.pid},
        ),
        STARTS.name: ProcessStarts(
            host=host, key=starts.key, fields=starts.categories, interval_ms=INTERVAL_MS
        ),
        CONNECTIONS.name: Connections(host=host, key=connections.key, interval_ms=_CONNECTIONS_MS),
    }


def play(parts: Parts, plan: Plan) -> Script:
    """Play the demo to its end, or until it is interrupted where it is to keep going."""
    board = Board()
    watching = [
        Watching(
            parts.prepared[kind.name], parts.sources[kind.name], board=board, clock=parts.clock
        )
        for kind in plan.kinds
    ]
    script = Script(plan, start_ms=parts.clock())
    try:
        with parts.view:
            while script.phase != "over":
                _one_round(parts, watching, board, script)
    except KeyboardInterrupt:
        if not plan.keep_going:
            raise
    return script


def _one_round(parts: Parts, watching: Sequence[Watching], board: Board, script: Script) -> None:
    """Wait for metrics; read what else is due; go a step on."""
    pace, *others = watching
    alerts = pace.poll()
    for one in others:
        alerts += one.poll_if_due()
    parts.write(alerts)
    before: Phase = script.phase
    script.step(parts.clock(), alerts)
    if before == "learning" and script.phase != "learning":
        script.silent |= {one.name for one in watching if not one.learned()}
    for kind in script.starting:
        parts.acts[kind.name]()
    if before != script.phase and script.phase in {"recovering", "watching"}:
        parts.rest()
    parts.view.show(board, script, alerts)
    if parts.picture is not None and _is_worth_a_picture(script):
        drawn = frame(board, script, title="$ streamad demo", size=_PICTURE_SIZE)
        save_picture(drawn, parts.picture, title="streamad demo", width=_PICTURE_SIZE[0])


def _is_worth_a_picture(script: Script) -> bool:
    """Return whether it disturbs, and every kind has had its alert for a moment."""
    opened = [caused.opened_ms for caused in script.mains.values()]
    if script.phase != "disturbing" or len(opened) < len(script.plan.kinds):
        return False
    age_ms = script.now_ms - max(opened)
    return _PICTURE_AFTER_MS <= age_ms < _PICTURE_AFTER_MS + 2 * INTERVAL_MS


def report(script: Script, path: Path) -> Iterable[str]:
    """Yield what came of it, a line each."""
    if script.plan.disturb and not script.began_ms:
        yield (
            f"FAILED: only {script.n_readings} of {script.plan.needed} readings were made in time, "
            "so nothing was scored; this machine is too busy, try --seconds 240."
        )
    for kind in script.plan.kinds:
        if kind.name in script.began_ms:
            yield f"{kind.label}: {_outcome(kind, script)}"
    if script.others:
        n = len(script.others)
        yield f"{n} other alert{'s' if n > 1 else ''}: other work runs on this machine."
    ended = {kind.name for kind in script.plan.kinds if not kind.ends}
    left = [alert for alert in script.still_open if alert.pipeline in ended]
    if left:
        named = ", ".join(alert.key.partition("/")[2] for alert in left[:_MOST_NAMED])
        more = ", ..." if len(left) > _MOST_NAMED else ""
        are = "s are" if len(left) > 1 else " is"
        yield f"{len(left)} alert{are} still open, as the demo ends while they last: {named}{more}."
    yield f"All alerts, as JSON lines: {path}"


def _outcome(kind: Kind, script: Script) -> str:
    """Return what came of the disturbance of a kind."""
    main, began_ms = script.main(kind), script.began_ms[kind.name]
    if main is None and kind.name in script.silent:
        return "none could be read on this machine, so there was nothing to alert on."
    if main is None:
        return f"FAILED: no alert, though {kind.doing}; please report this with the alerts file."
    after = f"alert after {(main.opened_ms - began_ms) / 1000:.1f} s"
    if kind.ends:
        return f"{after}; {kind.ends}."
    if main.resolved_ms is None or script.burst_end_ms is None:
        return f"{after}; it had not resolved when the demo ended."
    ended = max(main.resolved_ms - script.burst_end_ms, 0) / 1000
    return f"{after}; it resolved {ended:.1f} s after the disturbance was over."


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
    says = f"preparing ({_FIRST_RUN})"
    if not console.is_terminal:
        console.print(says, soft_wrap=True)
    with console.status(says):
        yield
