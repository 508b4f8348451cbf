"""OTLP log records in JSON, as protobuf's mapping writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from connectors.codecs.json_wrappers import bare
from connectors.codecs.otlp.base import Parts, check_resource
from connectors.codecs.otlp.json import dump, integer, length, number, object_at, objects, word
from connectors.codecs.otlp.logs import (
    MAX_ATTRIBUTES,
    SEVERITIES,
    Entry,
    LogEncoding,
    Origin,
    Path,
    Read,
    UnreadableError,
    scope_of,
    severity_of,
)

ENUM = "SEVERITY_NUMBER_"
NUMBERS = {severity_of(n): n for n in range(1, 4 * len(SEVERITIES) + 1)}
INT64 = 2**63


class JsonLogs(LogEncoding):
    """Reads objects with the array ``resourceLogs``."""

    def entries(self, text: bytes, parts: Parts) -> tuple[Any, Iterator[Entry]]:
        """Return the request and its records in order."""
        request = orjson.loads(bare(text))
        if isinstance(request, dict) and isinstance(request.get("resourceLogs"), list):
            return request, self._entries(request, parts)
        msg = "expected an object with the array resourceLogs"
        if isinstance(request, dict) and "resourceMetrics" in request:
            msg += "; it holds metrics: those are read with format: otlp_json"
        raise ValueError(msg)

    def _entries(self, request: Any, parts: Parts) -> Iterator[Entry]:
        for i, resource_logs in objects(request, "resourceLogs", parts):
            about = object_at(resource_logs, "resource")
            check_resource(length(about, "attributes"))
            resource = self._table(about)
            for j, scope_logs in objects(resource_logs, "scopeLogs", parts):
                scope = object_at(scope_logs, "scope")
                check_resource(length(scope, "attributes"))
                own = scope_of(word(scope, "name"), word(scope, "version"))
                origin = Origin(resource, self._table(scope), own)
                for k, record in objects(scope_logs, "logRecords", parts):
                    yield Entry((i, j, k), origin, record)

    def read(self, record: Any) -> Read:
        """Return what a record holds; raises UnreadableError."""
        severity = _severity(record.get("severityNumber"))
        own = {
            "severity": word(record, "severityText") or severity_of(severity) or None,
            "severity_number": severity or None,
            "body": any_value(object_at(record, "body")),
            "event_name": word(record, "eventName") or None,
            "trace_id": word(record, "traceId").lower() or None,
            "span_id": word(record, "spanId").lower() or None,
        }
        time_ns = integer(record.get("timeUnixNano")) or integer(record.get("observedTimeUnixNano"))
        n_attributes = length(record, "attributes")
        attributes = {} if n_attributes > MAX_ATTRIBUTES else self._table(record)
        return Read(own, attributes, time_ns, n_attributes)

    def alone(self, request: Any, path: Path) -> bytes | None:
        """Return a request of one record."""
        i, j, k = path
        resource_logs = request["resourceLogs"][i]
        scope_logs = resource_logs["scopeLogs"][j]
        scope_logs = {**scope_logs, "logRecords": [scope_logs["logRecords"][k]]}
        return dump({"resourceLogs": [{**resource_logs, "scopeLogs": [scope_logs]}]})

    def _table(self, parent: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: any_value(object_at(pair, "value"))
            for _, pair in objects(parent, "attributes")
            if (name := word(pair, "key")) in self.wanted
        }


def _severity(given: object) -> int:
    if isinstance(given, str) and given.startswith(ENUM):
        return NUMBERS.get(given.removeprefix(ENUM), 0)
    return integer(given) or 0


def any_value(value: Mapping[str, Any]) -> Any:
    """Return an ``AnyValue`` as what it holds, None for nothing; raises `UnreadableError`."""
    form = next((form for form in value if form in FORMS), None)
    return None if form is None else FORMS[form](value[form])


def _text(given: object) -> str | None:
    return given if isinstance(given, str) else None


def _whole(given: object) -> int:
    whole = integer(given)
    if whole is None or not -INT64 <= whole < INT64:
        msg = f"intValue is no integer of 64 bits: {str(given)[:60]}"
        raise UnreadableError(msg)
    return whole


def _double(given: object) -> float:
    read = number(given)
    if read is None:
        msg = f"doubleValue is no number: {str(given)[:60]}"
        raise UnreadableError(msg)
    return read


def _values(given: object) -> Iterator[tuple[int, dict[str, Any]]]:
    return objects(given if isinstance(given, dict) else {}, "values")


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "stringValue": _text,
    "boolValue": lambda given: given is True,
    "intValue": _whole,
    "doubleValue": _double,
    "bytesValue": _text,
    "arrayValue": lambda given: [any_value(one) for _, one in _values(given)],
    "kvlistValue": lambda given: {
        word(pair, "key"): any_value(object_at(pair, "value")) for _, pair in _values(given)
    },
}
