"""One value of an environment: as it is, or in the file that ``NAME_FILE`` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streamad.errors import ConfigError


def value_of(name: str, environment: Mapping[str, str]) -> str | None:
    """Return a variable, or what the file of ``NAME_FILE`` holds; None where neither is set.

    Raises ConfigError where that file cannot be read.
    """
    if file := environment.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            msg = f"{name}_FILE cannot be read: {why} ({file})"
            raise ConfigError(msg) from error
    return environment.get(name)
