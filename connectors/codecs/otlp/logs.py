"""What the fields of an OTLP log record are called, and what both encodings of one have.

A record is a row. Its fields go by these names::

    severity          its text, or the short name of its number (INFO, WARN2)
    severity_number   1 to 24
    body              its text; a step into a structured body is body.NAME
    event_name, trace_id, span_id, scope (its name), scope.version
    NAME              an attribute of the record, else of its resource, else of its scope
    attributes.NAME, resource.NAME, scope.NAME      an attribute of that one alone

A dot in a name is a dot of the attribute's name or a step into its value. The time is when the
event happened (``timeUnixNano``) and, where a record lacks that, when it was observed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from connectors.codecs.fields import spellings
from connectors.codecs.otlp.base import Parts

MAX_ATTRIBUTES = 1_000
"""A record with more is rejected."""

SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
OWN = frozenset(
    {
        "severity", "severity_number", "event_name", "trace_id", "span_id",
        "scope", "scope.name", "scope.version",
    }
)  # fmt: skip
BODY = "body"

Table = Mapping[str, Any]
Path = tuple[int, int, int]


def scope_of(name: str, version: str) -> dict[str, str | None]:
    """Return a scope's own fields; `scope` and `scope.name` are one."""
    return {"scope": name or None, "scope.name": name or None, "scope.version": version or None}


class UnreadableError(ValueError):
    """A value is nested too deeply, or no number of 64 bits."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the records of a scope share: the attributes asked for of it and of its resource."""

    resource: Table
    scope: Table
    own: Table


class Entry(NamedTuple):
    """A record as it stands in a request; ``path``: of its resource, its scope, itself."""

    path: Path
    origin: Origin
    record: Any


class Read(NamedTuple):
    """What every record has: its own fields, the attributes asked for, and its time."""

    own: Table
    attributes: Table
    time_ns: int | None
    n_attributes: int


class Place(NamedTuple):
    """Where a field may stand: in one of four tables, by steps that are tried in order."""

    table: int
    ways: tuple[tuple[str, ...], ...]


OWN_TABLE, _ATTRIBUTES, _RESOURCE, _SCOPE = range(4)
PREFIXES = {"attributes.": _ATTRIBUTES, "resource.": _RESOURCE, "scope.": _SCOPE}


def places_of(name: str) -> tuple[Place, ...]:
    """Return where the field called ``name`` is looked for, the first one first."""
    if name in OWN:
        return (Place(OWN_TABLE, ((name,),)),)
    if name == BODY or name.startswith(f"{BODY}."):
        return (Place(OWN_TABLE, spellings(name)),)
    for prefix, table in PREFIXES.items():
        if name.startswith(prefix):
            # An attribute may be called so by itself.
            bare = Place(table, spellings(name.removeprefix(prefix)))
            return bare, Place(_ATTRIBUTES, spellings(name))
    return tuple(Place(table, spellings(name)) for table in (_ATTRIBUTES, _RESOURCE, _SCOPE))


def severity_of(number: int) -> str:
    """Return the short name of a severity number, empty for none.

    Examples
    --------
    >>> severity_of(9), severity_of(14), severity_of(0)
    ('INFO', 'WARN2', '')
    """
    if not 1 <= number <= 4 * len(SEVERITIES):
        return ""
    name, step = SEVERITIES[(number - 1) // 4], (number - 1) % 4
    return f"{name}{step + 1}" if step else name


def text_of(value: object) -> str | None:
    """Return a value as the text it is compared by; raises `UnreadableError`.

    Examples
    --------
    >>> text_of(True), text_of(404), text_of(1.0), text_of({"a": [1]})
    ('true', '404', '1.0', '{"a":[1]}')
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise UnreadableError(str(error)) from error


def number_of(value: object) -> float | None:
    """Return a value as a number, NaN where there is none, None where it is another thing."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    # Texts such as NaN and Infinity say that there is no value, as in JSON.
    return number if abs(number) < float("inf") else float("nan")


class LogEncoding(ABC):
    """One of the two encodings; ``wanted``: the names of attributes that are read at all."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted

    @abstractmethod
    def entries(self, text: bytes, parts: Parts) -> tuple[Any, Iterator[Entry]]:
        """Return the request and its records in order; both raise ValueError or DecodeError."""

    @abstractmethod
    def read(self, record: Any) -> Read:
        """Return what a record holds; raises `UnreadableError`."""

    @abstractmethod
    def alone(self, request: Any, path: Path) -> bytes | None:
        """Return a request of one record, so that it can be replayed without the others."""


def find(tables: tuple[Table, Table, Table, Table], places: tuple[Place, ...]) -> Any:
    """Return what stands at the first of several places that has something, or None."""
    for place in places:
        table = tables[place.table]
        if not table:
            continue
        for way in place.ways:
            found: Any = table
            for name in way:
                found = found.get(name) if isinstance(found, dict) else None
            if found is not None:
                return found
    return None
