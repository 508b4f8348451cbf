"""Small files that people wrote: read whole, and never more of them than was bargained for."""

from __future__ import annotations

from pathlib import Path


def read_small(path: str | Path, *, max_bytes: int) -> bytes:
    """Return the content of a file; raises ValueError that says why it cannot be used."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        msg = f"cannot be read: {error.strerror} ({path})"
        raise ValueError(msg) from None
    if len(content) > max_bytes:
        msg = f"expected at most {max_bytes} bytes, got more ({path})"
        raise ValueError(msg)
    return content
