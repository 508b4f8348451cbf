"""OTLP log records in protobuf."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from connectors.codecs.otlp.base import Parts, check_resource
from connectors.codecs.otlp.logs import (
    MAX_ATTRIBUTES,
    Entry,
    LogEncoding,
    Origin,
    Path,
    Read,
    scope_of,
    severity_of,
)


class ProtoLogs(LogEncoding):
    """Reads ``ExportLogsServiceRequest`` messages."""

    def entries(self, text: bytes, parts: Parts) -> tuple[Any, Iterator[Entry]]:
        """Return the request and its records in order."""
        request = ExportLogsServiceRequest.FromString(text)
        return request, self._entries(request, parts)

    def _entries(self, request: Any, parts: Parts) -> Iterator[Entry]:
        parts.take(len(request.resource_logs))
        for i, resource_logs in enumerate(request.resource_logs):
            attributes = resource_logs.resource.attributes
            check_resource(len(attributes))
            resource = self._table(attributes)
            parts.take(len(resource_logs.scope_logs))
            for j, scope_logs in enumerate(resource_logs.scope_logs):
                scope = scope_logs.scope
                check_resource(len(scope.attributes))
                own = scope_of(scope.name, scope.version)
                origin = Origin(resource, self._table(scope.attributes), own)
                parts.take(len(scope_logs.log_records))
                for k, record in enumerate(scope_logs.log_records):
                    yield Entry((i, j, k), origin, record)

    def read(self, record: Any) -> Read:
        """Return what a record holds."""
        number, body = record.severity_number, record.body
        own = {
            "severity": record.severity_text or severity_of(number) or None,
            "severity_number": number or None,
            "body": any_value(body) if record.HasField("body") else None,
            "event_name": record.event_name or None,
            "trace_id": record.trace_id.hex() or None,
            "span_id": record.span_id.hex() or None,
        }
        time_ns = record.time_unix_nano or record.observed_time_unix_nano
        n_attributes = len(record.attributes)
        attributes = {} if n_attributes > MAX_ATTRIBUTES else self._table(record.attributes)
        return Read(own, attributes, time_ns, n_attributes)

    def alone(self, request: Any, path: Path) -> bytes | None:
        """Return a request of one record."""
        i, j, k = path
        old_resource = request.resource_logs[i]
        old_scope = old_resource.scope_logs[j]
        single = ExportLogsServiceRequest()
        resource = single.resource_logs.add(resource=old_resource.resource)
        scope = resource.scope_logs.add(scope=old_scope.scope)
        scope.log_records.add().CopyFrom(old_scope.log_records[k])
        return bytes(single.SerializeToString())

    def _table(self, pairs: Iterable[Any]) -> dict[str, Any]:
        wanted = self.wanted
        return {pair.key: any_value(pair.value) for pair in pairs if pair.key in wanted}


def any_value(value: Any) -> Any:
    """Return an ``AnyValue`` as what it holds; bytes as base64, as JSON has them."""
    form = value.WhichOneof("value")
    if form is None:
        return None
    given = getattr(value, form)
    if form == "bytes_value":
        return base64.b64encode(given).decode()
    if form == "array_value":
        return [any_value(one) for one in given.values]
    if form == "kvlist_value":
        return {pair.key: any_value(pair.value) for pair in given.values}
    return given
