"""The disturbance of the demo: a bounded burst of CPU and disk work, and a program never seen.

Run as a file, not as a module, and with nothing but the standard library: it starts at once. It
waits for a line on its standard input, does what it says (``burst SECONDS``, ``stranger SECONDS``),
and waits on. It ends when its input ends, which the kernel sees to however its parent dies; both
end after ``MOST_BURST_S`` whatever it was told. The file it writes has no name, so nothing is left
behind even by ``kill -9``; the stranger reads from a pipe of ours, and ends with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time

MOST_S = 86_400.0
"""It ends after this long whatever happens; idle, it costs nothing."""
MOST_BURST_S = 30.0
N_THREADS = 2
CHUNK_BYTES = 4 * 2**20
FILE_BYTES = 64 * 2**20
MOST_WRITTEN_BYTES = 1024 * 2**20
PAUSE_S = 0.02


def burn(until: float) -> None:
    """Keep a core busy; hashing large blocks lets other threads run."""
    block = bytes(1 << 20)
    while time.monotonic() < until:
        hashlib.sha256(block).digest()


def write(until: float, directory: str) -> None:
    """Write and sync a bounded, nameless file, over and over."""
    block = os.urandom(CHUNK_BYTES)
    written = 0
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            while time.monotonic() < until and written < MOST_WRITTEN_BYTES:
                if file.tell() >= FILE_BYTES:
                    file.seek(0)
                written += file.write(block)
                os.fsync(file.fileno())
                time.sleep(PAUSE_S)
    except OSError:
        # A full or read-only disk: the cores are busy all the same.
        return


def bounded(seconds: float) -> float:
    """Return no more than `MOST_BURST_S`, and no less than nothing."""
    return min(max(seconds, 0.0), MOST_BURST_S)


def burst(seconds: float, directory: str) -> None:
    """Burn and write for ``seconds``, then return."""
    until = time.monotonic() + bounded(seconds)
    threads = [threading.Thread(target=burn, args=(until,), daemon=True) for _ in range(N_THREADS)]
    for thread in threads:
        thread.start()
    write(until, directory)
    for thread in threads:
        thread.join()


def stranger(seconds: float, program: str) -> None:
    """Start a program that only waits for its input to end, and end it after ``seconds``."""
    with contextlib.suppress(OSError):
        # Called by the name its file has: programs of many names choose by it what they do.
        child = subprocess.Popen(
            ["cat"],  # noqa: S607 - what is run is `executable`
            executable=program,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(bounded(seconds))
        child.communicate()


def main(directory: str, program: str) -> None:
    """Do what every line on standard input says, until that ends."""
    end = threading.Timer(MOST_S, os._exit, (0,))
    end.daemon = True
    end.start()
    what = {"burst": (burst, directory), "stranger": (stranger, program)}
    for line in sys.stdin:
        name, _, seconds = line.partition(" ")
        do, with_it = what[name]
        # The input must be watched while working, or a parent's death would go unnoticed.
        threading.Thread(target=do, args=(float(seconds), with_it), daemon=True).start()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
