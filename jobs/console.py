"""What a command says while it works: to standard error, bars only where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int, int | None], None]

FIRST_RUN = "the first run compiles its kernels: half a minute, once"


def say(text: str) -> None:
    """Write a line to standard error: standard output is for results."""
    sys.stderr.write(f"{displayable(text)}\n")


def displayable(text: str) -> str:
    """Return text without secrets of the environment, and without what a terminal would obey."""
    from jobs.logs import Redactor, secrets_of
    from jobs.settings import environment
    from streamad.shown import safe_lines

    return safe_lines(Redactor(secrets_of(environment())).text(text))


def is_watched() -> bool:
    """Say whether a person is at the other end of standard error."""
    return sys.stderr.isatty()


@contextmanager
def bar(label: str) -> Iterator[Tell]:
    """Show a progress bar, told by ``(done, all)``; nothing where nobody watches."""
    if not is_watched():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        _compiling(lambda: progress.console.print(f"streamad: {FIRST_RUN}", soft_wrap=True)),
    ):
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _compiling(report: Callable[[], None]) -> Iterator[None]:
    """Report once where a kernel is compiled: then nothing moves for a while."""
    from numba.core import event

    class First(event.Listener):
        reported = False

        def on_start(self, event: object) -> None:
            if not self.reported:
                report()
            self.reported = True

        def on_end(self, event: object) -> None:
            """Leave the next kernels unreported."""

    with event.install_listener("numba:compile", First()):
        yield


@contextmanager
def status(label: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, one step after another; nothing where nobody watches."""
    if not is_watched():
        yield lambda _step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as shown:
        yield lambda step: shown.update(f"{label}: {step}")
