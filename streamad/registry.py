"""Plug-in tables: a name and the place it is loaded from, when it is asked for and not before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from streamad.errors import UnknownNameError


class Registry(Mapping[str, str]):
    """Names mapped to ``"module:attribute"``; entry points of other packages join under ``group``.

    Built-ins are a literal table, not entry points: it needs no reinstall and can be read.
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._table = dict(table)
        self._others: dict[str, str] | None = None
        self._guests: dict[str, str] = {}

    @contextmanager
    def beside(self, guests: Mapping[str, str]) -> Iterator[None]:
        """Know more names while a block runs; the table's own come first."""
        before, self._guests = self._guests, dict(guests)
        try:
            yield
        finally:
            self._guests = before

    def _all(self) -> dict[str, str]:
        if self._others is None:
            self._others = {e.name: e.value for e in entry_points(group=self.group)}
        return {**self._guests, **self._others, **self._table}

    def __getitem__(self, name: str) -> str:
        table = self._all()
        if name not in table:
            raise UnknownNameError(self.kind, name, table)
        return table[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def load(self, name: str) -> Any:
        """Import and return the plug-in called ``name``; a miss names the nearest right one."""
        module, _, attribute = self[name].partition(":")
        return getattr(import_module(module), attribute)
