"""A new file of triage in the place of the old one: seen by its content, read beside the job."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from connectors.files.triage import read_book
from streamad.errors import StreamadError
from streamad.ports import NullTelemetry, Telemetry
from streamad.triage.recognise import Recogniser

logger = logging.getLogger(__name__)

EVERY_S: Final = 10.0
Mark = tuple[int, int, int, int]


class TriageWatch:
    """Look at the file that ``triage`` names now and then; read it where it has changed.

    Names decide nothing, so alerts before and after a change may be named by different files. One
    that cannot be read is reported, and the names of before stay.
    """

    def __init__(self, path: str | None, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or NullTelemetry()
        self._lock = threading.Lock()
        self.use(path)

    def use(self, path: str | None, seen: Mark | None = None) -> None:
        """Look at another file from now on; None: at none.

        seen : its mark before it was read; None: as it is now
        """
        with self._lock:
            self._path = None if path is None else Path(path)
            self._seen = mark_of(path) if seen is None else seen
            self._loaded: Recogniser | None = None

    def start(self) -> None:
        """Look from a thread of its own, for as long as the process lives."""
        threading.Thread(target=self._run, name="streamad-triage", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(EVERY_S)
            try:
                self.look()
            except Exception:
                logger.exception("%s: looking for a new file of triage failed", self._path)

    def look(self) -> None:
        """Read the file where it is another one than at the last look."""
        path, mark = self._path, mark_of(self._path)
        if path is None or mark == self._seen:
            return
        self._seen = mark
        try:
            recogniser = read_book(path).recogniser()
        except StreamadError as error:
            logger.error("the names of triage stay as they are: %s", error)  # noqa: TRY400 - told
            self._telemetry.count("triage_reloads_total", result="refused")
            return
        with self._lock:
            if path != self._path:
                return  # another one was named meanwhile
            self._loaded = recogniser
        self._telemetry.count("triage_reloads_total", result="loaded")
        logger.info("%s: %d named groups", path, len(recogniser.names))

    def take(self) -> Recogniser | None:
        """Return one that was read and not taken yet; at once."""
        if self._loaded is None:
            return None
        with self._lock:
            loaded, self._loaded = self._loaded, None
        return loaded


def mark_of(path: str | Path | None) -> Mark:
    """Return what tells one state of a file from another, behind any symbolic link."""
    try:
        found = None if path is None else Path(path).stat()
    except OSError:
        found = None
    if found is None:
        return (0, 0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
