"""Reading an artifact's files: from known kinds of stores, inside its folder, of bounded size.

Who writes an artifact's folder is not always who runs the job, and a manifest is only text: nothing
it names is followed out of the folder, and nothing is read without a bound.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import fsspec

from streamad.errors import ArtifactError
from streamad.shown import safe_text, without_credentials

PROTOCOLS: Final = frozenset(
    {"abfs", "abfss", "az", "file", "gcs", "gs", "hdfs", "https", "local", "memory", "s3", "s3a"}
)
"""Stores that keep files. Others run commands, open archives, or fetch from one URL what another
one names."""

MAX_FILE_BYTES: Final = 2 * 2**30
CHUNK_BYTES: Final = 2**20
FILE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""A name is no path: nothing in it leads out of the folder."""


def named(url: str | Path | None) -> str:
    """Return how messages name an artifact."""
    return f"artifact {shown(url)}"


def shown(text: object) -> str:
    """Return a URL, or what was said of one, as it may stand in an alert."""
    return safe_text(without_credentials(str(text)))


def require_known_store(url: str | Path) -> None:
    """Refuse a URL of a store that is not one of `PROTOCOLS`, before anything is opened."""
    text = str(url)
    protocol = text.partition("://")[0] if "://" in text else "file"
    if "::" in text or text.startswith("data:"):
        protocol = "a chain of stores" if "::" in text else "data"
    if protocol not in PROTOCOLS:
        msg = (
            f"{named(url)}: expected a folder or a URL of {', '.join(sorted(PROTOCOLS))}, got "
            f"{shown(protocol)}; copy the artifact to one of these"
        )
        raise ArtifactError(msg)


def read_file(url: str | Path, name: str, *, at_most: int | None = None) -> bytes:
    """Return a file of an artifact; ArtifactError where it cannot be read, or should not be."""
    require_known_store(url)
    limit = MAX_FILE_BYTES if at_most is None else at_most
    if not re.fullmatch(FILE_NAME, name):
        msg = f"{named(url)}: expected the name of a file in its folder, got {shown(name)!r}"
        raise ArtifactError(msg)
    try:
        fs, path = fsspec.core.url_to_fs(str(url))
        if "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
            _require_inside(url, Path(path), name)
        content = _read(fs, f"{path}/{name}", limit)
    except (OSError, ValueError, ImportError) as error:
        missing = isinstance(error, FileNotFoundError)
        where = f"{shown(url)} holds no {name}" if missing else shown(error)
        msg = f"{named(url)}: cannot be read ({where}); make one with: streamad fit"
        raise ArtifactError(msg) from error
    if len(content) > limit:
        msg = f"{named(url)}: expected {name} of at most {limit} bytes, got more; fit it again"
        raise ArtifactError(msg)
    return bytes(content)


def _require_inside(url: str | Path, folder: Path, name: str) -> None:
    """Refuse a link that leads out of the folder, and what is no file: a pipe would never end."""
    real = (folder / name).resolve()
    # Kubernetes mounts a volume's files as links inside of its folder: these are fine.
    if not real.is_relative_to(folder.resolve()):
        msg = f"{named(url)}: {name} is a link out of its folder; copy the file there"
        raise ArtifactError(msg)
    if real.exists() and not real.is_file():
        msg = f"{named(url)}: {name} is no file; copy or fit the artifact again"
        raise ArtifactError(msg)


def _read(fs: Any, path: str, limit: int) -> bytearray:
    """Return the file, or a little more than ``limit`` bytes of it."""
    content = bytearray()
    with fs.open(path, "rb") as file:
        while len(content) <= limit and (part := file.read(CHUNK_BYTES)):
            content += part
    return content
