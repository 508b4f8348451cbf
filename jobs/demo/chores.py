"""The ordinary work of the demo: a program that starts small children and calls two services.

A quiet machine may start no process and open no connection for minutes; what is unusual there
cannot be known after ten seconds. So the demo does some ordinary work of its own, before anything
is disturbed. Run as a file, with nothing but the standard library, and bounded as `burst.py` is:
when its input ends, or after ``MOST_S``, it removes the folder of its names and ends.

Lines on its standard input: ``fan SECONDS`` connects to all other ports at once; ``rest`` ends the
ordinary work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

MOST_S = 86_400.0
MOST_FAN_S = 30.0
MOST_PORTS = 64
N_ORDINARY = 2
"""Services it is always connected to: the first ports it is given."""
PAUSE_S = 0.12
CHILD_S = "0.4"
"""Longer than from one reading to the next, or children would not be seen."""
CONNECT_S = 1.0


def connect(ports: list[int]) -> list[socket.socket]:
    """Return connections to ports of this machine; what cannot be connected is left out."""
    made = []
    for port in ports[:MOST_PORTS]:
        with contextlib.suppress(OSError):
            made.append(socket.create_connection(("127.0.0.1", port), CONNECT_S))
    return made


def fan(seconds: float, ports: list[int]) -> None:
    """Connect to all ports, hold the connections, and close them."""
    made = connect(ports)
    time.sleep(min(max(seconds, 0.0), MOST_FAN_S))
    for one in made:
        one.close()


def work(program: str, rest: threading.Event) -> None:
    """Start a child that sleeps, again and again, until it is time to rest."""
    children: list[subprocess.Popen[bytes]] = []
    while not rest.wait(PAUSE_S):
        # Asking them takes those that have ended out of the table of processes.
        children = [child for child in children if child.poll() is None]
        with contextlib.suppress(OSError):
            children.append(
                subprocess.Popen(  # noqa: S603 - `sleep`, by a name of ours
                    ["sleep", CHILD_S],  # noqa: S607 - what is run is `executable`
                    executable=program,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
    for child in children:
        child.wait()


def leave(folder: str) -> None:
    """Remove the folder and end, whatever threads are doing."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def main(folder: str, program: str, ports: list[int]) -> None:
    """Work, and do what lines on standard input say, until that ends."""
    end = threading.Timer(MOST_S, leave, (folder,))
    end.daemon = True
    end.start()
    rest = threading.Event()
    held = connect(ports[:N_ORDINARY])
    threading.Thread(target=work, args=(program, rest), daemon=True).start()
    for line in sys.stdin:
        name, _, seconds = line.partition(" ")
        if name == "fan":
            args = (float(seconds), ports[N_ORDINARY:])
            threading.Thread(target=fan, args=args, daemon=True).start()
        else:
            rest.set()
            for one in held:
                one.close()
    leave(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]])
