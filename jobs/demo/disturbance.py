"""The process that disturbs this machine on purpose: idle, set to work, always cleaned up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_END_S = 2.0


class Disturbance:
    """A child process that burns CPU and writes to disk when told to; see `jobs.demo.burst`.

    It lives as long as the pipe to it: however this process ends, the kernel closes the pipe and
    the child ends. It stands in a session of its own, so Ctrl-C reaches only us, who then end it.

    directory : where its (nameless) file is written
    """

    def __init__(self, directory: Path) -> None:
        script = Path(__file__).with_name("burst.py")
        # -I: neither the working directory nor the environment may change what it imports.
        self._child = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", str(script), str(directory)],
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

    def begin(self, seconds: float) -> None:
        """Set it to work for so long; nothing where it has died."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.write(f"{seconds}\n")
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
