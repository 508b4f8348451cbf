"""What servers started from here share: ports of their own, and an end when we end."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
from pathlib import Path

_FIRST_PORT = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_BY_DEFAULT = 32_768


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on, all different.

    They lie below the ports that the kernel lends to connections: a server takes seconds to start,
    or comes back under its port after a while, and until then a client might have been lent it.
    """
    with contextlib.ExitStack() as probes:
        ports: list[int] = []
        # All are held until all are known: else one may be given twice.
        while len(ports) < count:
            probe = probes.enter_context(socket.socket())
            port = random.randrange(_FIRST_PORT, first_ephemeral_port())  # noqa: S311 - no secret
            with contextlib.suppress(OSError):  # somebody listens there: another one
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def first_ephemeral_port() -> int:
    """Return the first port that connections are given; Linux's default where it is not told."""
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_BY_DEFAULT
    # Where connections are given all ports there are, none is safe.
    return first if first > _FIRST_PORT + 1_000 else _EPHEMERAL_BY_DEFAULT


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
