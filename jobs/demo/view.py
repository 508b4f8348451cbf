"""How the demo looks: a live screen where a person watches, plain lines where not."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobs.demo.board import Board, Line, Tally
from jobs.demo.script import Phase, Script
from streamad.records import Alert
from streamad.shown import safe_text
from streamad.wording import clock

_SAYS: Final[dict[Phase, str]] = {
    "learning": "1/3 learning what is usual here: metrics, process starts, connections",
    "disturbing": "2/3 disturbing it on purpose",
    "recovering": "3/3 the disturbance is over; waiting until the metrics are back to normal",
    "watching": "watching; Ctrl-C ends it",
    "over": "done",
}
_BAR: Final = 8
_LEAST_WIDTH, _MOST_WIDTH = 60, 140
_REDRAW_MS: Final = 200
_SINCE: Final = re.compile(r", since [\d:]+ UTC(?=;|$)")
_PAPER: Final = Console(file=io.StringIO(), width=_MOST_WIDTH)
"""Only to measure how lines break."""


class View(Protocol):
    """Where the demo tells what it sees."""

    def show(self, board: Board, script: Script, alerts: list[Alert]) -> None:
        """Take the state after a reading, and the alerts it made."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class LiveView:
    """The screen, redrawn in place a few times a second."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console, self._title = console, title
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._drawn_ms = -_REDRAW_MS
        self._phase: Phase | None = None

    def show(self, board: Board, script: Script, alerts: list[Alert]) -> None:
        """Redraw, where something changed or enough time has passed."""
        calm = script.phase == self._phase and not alerts
        if calm and script.now_ms - self._drawn_ms < _REDRAW_MS:
            return
        self._drawn_ms, self._phase = script.now_ms, script.phase
        size = self._console.size
        drawn = frame(
            board,
            script,
            title=self._title,
            # The last line stays free, or the terminal would scroll at every redraw.
            size=(size.width, size.height - 1),
            ascii_only=self._console.options.ascii_only,
        )
        self._live.update(drawn, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


class PlainView:
    """A line whenever something happens; for logs, pipes and screen readers."""

    def __init__(self, console: Console, *, title: str) -> None:
        self._console, self._title = console, title
        self._phase: Phase | None = None
        self._told = 0

    def show(self, board: Board, script: Script, alerts: list[Alert]) -> None:
        """Tell of a new phase, of quarters of the learning, and of alerts."""
        if script.phase != self._phase:
            self._phase, self._told = script.phase, 0
            if not script.starting:
                self._line(script, _SAYS[script.phase])
        for kind in script.starting:
            self._line(script, f"{_SAYS['disturbing']}: {kind.doing}")
        quarter = int(script.progress * 4)
        if script.phase == "learning" and 0 < quarter < 4 and quarter > self._told:
            self._told = quarter
            self._line(script, f"{quarter * 25} % learned, {script.left_s:.0f} s left")
        mains = {caused.alert.id for caused in script.mains.values()}
        for alert in alerts:
            if alert.state != "updated" or alert.id in mains:
                self._line(script, f"{alert.state.upper()} {alert.summary}")

    def _line(self, script: Script, text: str) -> None:
        passed = (script.now_ms - script.start_ms) / 1000
        self._console.print(f"{passed:5.1f} s  {text}", soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        self._console.print(self._title, soft_wrap=True, markup=False, highlight=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: every line is written already."""


def frame(
    board: Board,
    script: Script,
    *,
    title: str,
    size: tuple[int, int],
    ascii_only: bool = False,
) -> RenderableType:
    """Return the whole screen for a terminal of ``(columns, lines)``."""
    width = min(max(size[0], _LEAST_WIDTH), _MOST_WIDTH)
    is_low = size[1] < 20
    n_told = 4 if is_low else 6 if size[1] < 30 else 8
    # An event or an edge in words below its line, where there is room.
    tallies = list(board.tallies.values())
    per_tally = 1 if is_low else 2
    # Header 3, one line of headings, the border of alerts 2; an alert may take two lines.
    n_lines = max(size[1] - 3 - 1 - per_tally * len(tallies) - (n_told + 2), 3)
    return Group(
        _header(script, title, width, ascii_only=ascii_only),
        _lines(
            board.shown(n_lines),
            tallies,
            width,
            unknown="learning" if script.phase == "learning" else "-",
            words=not is_low,
            ascii_only=ascii_only,
        ),
        _alerts(board, script, n_told, width, ascii_only=ascii_only),
    )


def _header(script: Script, title: str, width: int, *, ascii_only: bool) -> RenderableType:
    head = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    style = {"disturbing": "bold yellow", "recovering": "bold cyan"}.get(script.phase, "bold")
    text = _SAYS[script.phase]
    if script.phase == "disturbing" and script.doing:
        text = f"{text}: {script.doing}"
    says = Text(text, style=style, no_wrap=True, overflow="ellipsis")
    head.truncate(width)
    says.truncate(width)
    return Group(head, says, _progress(script, width, ascii_only=ascii_only))


def _progress(script: Script, width: int, *, ascii_only: bool) -> Text:
    left = f" {script.left_s:3.0f} s left"
    if script.phase in {"watching", "over"}:
        return Text("")
    if script.phase == "recovering":
        return Text(f"at most{left}", style="dim")
    room = width - len(left) - 2
    done = int(script.progress * room)
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    return Text.assemble(
        (full * done, "green"), (empty * (room - done), "bright_black"), (left, "dim")
    )


def _lines(
    lines: list[Line],
    tallies: list[Tally],
    width: int,
    *,
    unknown: str,
    words: bool,
    ascii_only: bool,
) -> RenderableType:
    """Return metrics a line each, and below them what is counted, with the strangest in words."""
    every = [*lines, *(tally.line for tally in tallies)]
    labels = max([len(line.label) for line in every] + [6])
    labels = min(labels, max(24, width // 3))
    spark = width - labels - 9 - _BAR - 5 - 5
    widths = (labels, spark, 9, _BAR, 4)
    heads = ("metric", f"last {spark} readings", "now", "severity", "")
    body: list[RenderableType] = [
        _table(
            [
                [Text(head, style="dim") for head in heads],
                *(_row(line, spark, unknown, ascii_only=ascii_only) for line in lines),
            ],
            widths,
        )
    ]
    for tally in tallies:
        row = _row(tally.line, spark, unknown, ascii_only=ascii_only)
        body.append(_table([row], widths))
        if words:
            style = "bold red" if tally.line.alert is not None else "dim"
            text = Text(f"  {tally.strangest}", style=style, no_wrap=True, overflow="ellipsis")
            text.truncate(width)
            body.append(text)
    return Group(*body)


def _table(rows: list[list[Text]], widths: tuple[int, ...]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for place, width in enumerate(widths):
        justify: Literal["left", "right"] = "right" if place in {2, 4} else "left"
        table.add_column(width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in rows:
        table.add_row(*row)
    return table


def _row(line: Line, spark: int, unknown: str, *, ascii_only: bool) -> list[Text]:
    style = "bold red" if line.alert is not None else ""
    return [
        Text(safe_text(line.label), style=style),
        Text(line.sparkline(spark, ascii_only=ascii_only), style=style or "cyan"),
        Text(line.now, style=style),
        *_severity(line, unknown=unknown, ascii_only=ascii_only),
    ]


def _severity(line: Line, *, unknown: str, ascii_only: bool) -> tuple[Text, Text]:
    """Return a bar with the alerting boundary, 1.0, in its middle, and the number."""
    if line.severity is None:
        return Text(unknown, style="dim"), Text("")
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    filled = min(int(line.severity / 2 * _BAR + 0.5), _BAR)
    style = "green" if line.severity < 0.7 else "yellow" if line.severity < 1.0 else "red"
    if not line.matters:
        # Strange, but of a kind the pipeline was told not to care about.
        style = "dim"
    bar = Text.assemble((full * filled, style), (empty * (_BAR - filled), "bright_black"))
    return bar, Text(f"{max(line.severity, 0.0):.1f}", style=style)


def _alerts(
    board: Board, script: Script, height: int, width: int, *, ascii_only: bool
) -> RenderableType:
    """Return as many alerts as fit in ``height`` lines, in a frame that says how many are open."""
    rows: list[Text] = []
    mains = {caused.alert.id for caused in script.mains.values()}
    for n in range(height, 0, -1):
        shown = board.told(n, always=mains, first=script.caused)
        rows = [_event(alert, ascii_only=ascii_only) for alert in shown]
        # As the frame will break them: its border and padding take four columns.
        if sum(len(row.wrap(_PAPER, width - 4)) for row in rows) <= height:
            break
    n_open = sum(alert.state != "resolved" for alert in board.events)
    style = "red" if n_open else "green" if rows else "bright_black"
    title = f"alerts: {n_open} open" if rows else "alerts (severity 1.0 or more)"
    body = Group(*rows or [Text("none so far", style="dim")])
    return Panel(body, title=title, title_align="left", border_style=style, width=width,
                 height=height + 2)  # fmt: skip


def _event(alert: Alert, *, ascii_only: bool) -> Text:
    # The host is in the title, and the time at the beginning of the line.
    text = _SINCE.sub("", alert.summary.removeprefix(f"{alert.key.partition('/')[0]}/"))
    if alert.state == "resolved":
        mark = "ok" if ascii_only else "✔"
        return Text(f"{mark} {clock(alert.resolved_ms or 0)} {text}", style="green")
    mark = "!!" if ascii_only else "●"
    return Text(f"{mark} {clock(alert.opened_ms)} {text}", style="bold red")


def save_picture(drawn: RenderableType, path: Path, *, title: str, width: int) -> None:
    """Write what is on the screen as SVG that loads nothing from elsewhere."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(console.export_svg(title=title, code_format=_PICTURE), encoding="utf-8")


_PICTURE: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
