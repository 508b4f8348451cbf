"""Secrets of pagers: from the settings or a file, and kept out of every text we write."""

from __future__ import annotations

import re
from typing import Final

from pydantic import SecretStr

from streamad.alerting.pagers import PagerBase
from streamad.shown import HIDDEN, is_secret_name
from streamad.small_files import read_small

MAX_SECRET_BYTES: Final = 16_384
_LEAST_HIDDEN_CHARS: Final = 4
# What would end a header and begin another one.
_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


class SecretError(Exception):
    """A secret cannot be read now; the message names the setting and the file, never the value."""


class Secrets:
    """The secrets of one pager."""

    def __init__(self, config: PagerBase) -> None:
        self._config = config
        self._known: set[str] = set()

    def get(self, name: str) -> str:
        """Return a secret, from its file as it is now; empty where it is not configured.

        Raises SecretError where the file cannot be read, or holds no text of one line.
        """
        given: SecretStr | None = getattr(self._config, name, None)
        path: str | None = getattr(self._config, f"{name}_file", None)
        value = (
            _of_file(path, f"{name}_file") if path else given.get_secret_value() if given else ""
        )
        if _UNFIT.search(value):
            msg = f"{name}: expected a secret of one line, got control characters in it"
            raise SecretError(msg)
        if value:
            self._known.add(value)
        return value

    def hide(self, text: str) -> str:
        """Return text without any secret of this pager, as of an answer that repeats one."""
        names = [name for name in type(self._config).model_fields if is_secret_name(name)]
        for name in names:
            given = getattr(self._config, name)
            if isinstance(given, SecretStr):
                self._known.add(given.get_secret_value())
        for value in sorted(self._known, key=len, reverse=True):
            if len(value) >= _LEAST_HIDDEN_CHARS:
                text = text.replace(value, HIDDEN)
        return text


def _of_file(path: str, name: str) -> str:
    try:
        content = read_small(path, max_bytes=MAX_SECRET_BYTES)
    except ValueError as error:
        msg = f"{name} {error}"
        raise SecretError(msg) from None
    try:
        value = content.decode().strip()
    except UnicodeDecodeError:
        msg = f"{name}: expected text, got bytes that are no UTF-8 ({path})"
        raise SecretError(msg) from None
    if not value:
        msg = f"{name}: expected a secret, got an empty file ({path})"
        raise SecretError(msg)
    return value
