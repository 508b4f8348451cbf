"""The processes that work on this machine on purpose: ordinary work, disturbance, a clean end."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from jobs.demo.chores import N_ORDINARY

_END_S = 2.0
N_SERVICES: Final = 40
"""Services that a fan-out reaches, beside those the worker always calls."""
FAN_S: Final = 6.0
STRANGER_S: Final = 4.0
CHORE, STRANGER, WORKER, DISTURBER = "demo-chore", "demo-stranger", "demo-worker", "demo-disturber"
"""Names of programs while the demo runs."""


class Child:
    """A process of ours that obeys lines on its standard input.

    It lives as long as the pipe to it: however this process ends, the kernel closes the pipe and
    the child ends. It stands in a session of its own, so Ctrl-C reaches only us, who then end it.

    program : the interpreter to run, perhaps by a name of its own; script : what it runs
    """

    def __init__(self, program: Path, script: Path, args: Sequence[str]) -> None:
        # -I: neither the working directory nor the environment may change what it imports.
        self._child = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [str(program), "-I", str(script), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._child.pid

    def send(self, line: str) -> None:
        """Send it a line; nothing where it has died."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.write(f"{line}\n")
                self._child.stdin.flush()

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Disturbance:
    """All that the demo does to this machine: ordinary work from the start, disturbed when told.

    The ordinary work is a program that starts children and is connected to two services
    (`jobs.demo.chores`). It can be told to connect to `N_SERVICES` more. Services are ports of the
    loopback address that this process listens on. The disturbance is a program that burns CPU and
    writes to disk, or starts another program (`jobs.demo.burst`). Programs have names of their own
    where the system names a process by the file it was started from.

    directory : where the (nameless) file of the disturbance is written
    """

    def __init__(self, directory: Path) -> None:
        here = Path(__file__).parent
        with ExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(prefix="streamad-demo-"))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._services = [stack.enter_context(one) for one in _listening()]
            ports = [str(one.getsockname()[1]) for one in self._services]
            stranger = self._named(shutil.which("cat"), STRANGER)
            self._disturber = Child(
                self._named(sys.executable, DISTURBER),
                here / "burst.py",
                [str(directory), str(stranger)],
            )
            stack.callback(self._disturber.close)
            chore = self._named(shutil.which("sleep"), CHORE)
            self._worker = Child(
                self._named(sys.executable, WORKER),
                here / "chores.py",
                [str(self._folder), str(chore), *ports],
            )
            stack.callback(self._worker.close)
            self._stack = stack.pop_all()

    def _named(self, program: str | None, name: str) -> Path:
        """Return a program by another name; by its own where there can be no link to it."""
        path, link = Path(program or name), self._folder / name
        try:
            # A link to a link would look for the interpreter's library beside itself.
            link.symlink_to(path.resolve())
        except OSError:
            return path
        return link

    @property
    def pid(self) -> int:
        """Return the id of the process that disturbs."""
        return self._disturber.pid

    @property
    def worker_pid(self) -> int:
        """Return the id of the process that does ordinary work."""
        return self._worker.pid

    @property
    def worker_name(self) -> str:
        """Return what the system calls the program that does ordinary work."""
        try:
            return psutil.Process(self._worker.pid).name()
        except psutil.Error:
            return WORKER

    def burst(self, seconds: float) -> None:
        """Burn CPU and write to disk for so long."""
        self._disturber.send(f"burst {seconds}")

    def start_stranger(self) -> None:
        """Start a program that has not run here while the demo watched."""
        self._disturber.send(f"stranger {STRANGER_S}")

    def fan_out(self) -> None:
        """Let the worker connect to all services at once."""
        self._worker.send(f"fan {FAN_S}")

    def rest(self) -> None:
        """End the ordinary work."""
        self._worker.send("rest")

    def close(self) -> None:
        """End all of it, whatever it is doing."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _listening() -> list[socket.socket]:
    """Return listeners on free ports of the loopback address, as many as can be had.

    Nobody accepts: the kernel completes a connection all the same, and both ends see it.
    """
    made = []
    for _ in range(N_ORDINARY + N_SERVICES):
        try:
            made.append(socket.create_server(("127.0.0.1", 0), backlog=4))
        except OSError:
            break
    return made
