"""The book of triage as a file: read within bounds, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from streamad.errors import ArtifactError, ConfigError
from streamad.triage.book import Book
from streamad.triage.recognise import Recogniser
from streamad.triage.saved import MAX_BYTES, dumps, loads


def read_book(path: str | Path) -> Book:
    """Read a book; raises ArtifactError where there is none, or it is damaged."""
    path = Path(path)
    try:
        if not path.is_file():
            msg = f"{path}: there is no such file; make one with: streamad triage groups ALERTS"
            raise ArtifactError(msg)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise ArtifactError(msg) from error
    return loads(content, where=str(path))


def write_book(book: Book, path: str | Path) -> None:
    """Write a book: a reader, or a crash, finds the old one or the new one."""
    path = Path(path)
    text = dumps(book)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(part).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            Path(part).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(part).unlink()
            raise
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror})"
        raise ConfigError(msg) from error


def recogniser_of(path: str | None) -> Recogniser | None:
    """Return what recognises alerts by the file that ``triage`` names, None where it names none."""
    return None if path is None else read_book(path).recogniser()
