"""What the tests' real servers share: ports of their own, and an end when the tests end."""

from __future__ import annotations

import contextlib
import socket
import subprocess


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on, all different."""
    with contextlib.ExitStack() as probes:
        # All are held until all are known: else one may be given twice.
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on a port, as servers do that come back under theirs."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def kill_with_me(pid: int, *, group: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that kills ``pid`` once this one is gone, however it went.

    It waits for the end of a pipe only this process holds; a server left over from a killed test
    run would keep memory by the gigabyte.

    Parameters
    ----------
    pid : int
        The process.
    group : bool
        Kill the process group it leads, children included.
    """
    whom = f"-{pid}" if group else f"{pid}"
    return subprocess.Popen(  # noqa: S603 - our own arguments
        ["sh", "-c", f"cat >/dev/null; kill -9 {whom}"],  # noqa: S607
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
