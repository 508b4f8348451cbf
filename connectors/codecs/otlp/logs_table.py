"""All that OTLP log records hold, a row each: to look at, not to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from connectors.codecs.fields import END_OF_TIME_MS
from connectors.codecs.otlp.base import MAX_PARTS, NS_A_MS, Parts, TooManyError
from connectors.codecs.otlp.logs import Entry, LogEncoding, UnreadableError
from connectors.codecs.otlp.logs_codec import is_json
from connectors.codecs.otlp.logs_json import JsonLogs
from connectors.codecs.otlp.logs_proto import ProtoLogs

TIME = "timeUnixNano"
"""The column of times, in milliseconds; no field of a pipeline, which needs none."""
MOST_OF_ONE = 100_000
"""Log records of one request; one with more is passed over, as a pipeline refuses it."""
IDS = frozenset({"trace_id", "span_id", "severity_number", "scope.name", "scope.version"})
"""Own fields that are ids, or say what another one says."""


class _Everything(frozenset[str]):
    """The names of all attributes."""

    def __contains__(self, name: object) -> bool:
        return True


def rows_of_logs(payloads: Sequence[bytes | None], *, most: int) -> list[dict[str, Any]]:
    """Return at most ``most`` log records, a row each; empty where these are no requests of logs.

    Columns are called as `connectors.codecs.otlp.logs` reads them: an attribute of a resource or a
    scope that a record has itself is ``resource.NAME`` or ``scope.NAME``.
    """
    rows: list[dict[str, Any]] = []
    for payload in payloads:
        try:
            for entry, encoding in _entries(payload or b""):
                row = _row(encoding, entry)
                if row is not None:
                    rows.append(row)
                if len(rows) >= most:
                    return rows
        except (ValueError, DecodeError, RecursionError, TooManyError):
            continue
    return rows


def _entries(payload: bytes) -> Iterator[tuple[Entry, LogEncoding]]:
    wanted = _Everything()
    encoding: LogEncoding = JsonLogs(wanted) if is_json(payload) else ProtoLogs(wanted)
    _, found = encoding.entries(payload, Parts(MAX_PARTS * MOST_OF_ONE))
    for entry in found:
        yield entry, encoding


def _row(encoding: LogEncoding, entry: Entry) -> dict[str, Any] | None:
    """Return a record as a row; None where it has no time or cannot be read."""
    try:
        read = encoding.read(entry.record)
    except UnreadableError:
        return None
    time_ms = (read.time_ns or 0) // NS_A_MS
    if not 0 < time_ms < END_OF_TIME_MS:
        return None
    row: dict[str, Any] = {TIME: time_ms}
    own = {**read.own, **entry.origin.own}
    row |= {name: value for name, value in own.items() if name not in IDS and value is not None}
    for prefix, table in (
        ("attributes.", read.attributes),
        ("resource.", entry.origin.resource),
        ("scope.", entry.origin.scope),
    ):
        row |= {f"{prefix}{name}" if name in row else name: table[name] for name in table}
    return row
