"""OpenTelemetry metrics as the collector writes them to Kafka: OTLP in protobuf or JSON.

Gauges and sums are series; histograms and summaries give their count and sum. What a metric is
(gauge, counter, delta) stands in the payload and travels as the tag ``kind``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from connectors.codecs.fields import FieldMap
from connectors.codecs.json_lines import admit
from connectors.codecs.labels import (
    COUNTER,
    DELTA,
    GAUGE,
    Identity,
    Points,
    bounded_ms,
    canonical,
    identify,
    lookup,
    require_labels,
)
from connectors.codecs.rows import shorten
from streamad.records import Decoded, Rejected

DELTA_TEMPORALITY = (1, "AGGREGATION_TEMPORALITY_DELTA")
NO_RECORDED_VALUE = 1
RESOURCE = "resource."
NS_A_MS = 1_000_000
NAN = float("nan")

MAX_SERIES_REMEMBERED = 200_000

Table = dict[str, str]


@dataclass(frozen=True, slots=True)
class Origin:
    """A resource and a scope, and the series of theirs that were named already."""

    resource: Table
    scope: str
    known: dict[tuple[str, str, Hashable], Identity]


class Reading(NamedTuple):
    """One number of a metric: ``path`` is where its data point stands in the request.

    labels : the point's attributes as they came; they are read once a series, not once a point
    """

    path: tuple[int, int, int, int]
    origin: Origin
    name: str
    kind: str
    labels: Hashable
    time_ns: int | None
    value: float | None


class OtlpCodec(ABC):
    """What both encodings share: naming series and turning readings into rows.

    The default key is ``service/metric{attribute="value",...}``. ``fields.key``, ``variate`` and
    ``tags`` may name ``metric``, ``scope``, an attribute of the point or, with or without the
    prefix ``resource.``, one of the resource.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        require_labels("otlp", fields)
        self._fields = fields
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        # Caches by content: what they hold never changes a result.
        self._origins: dict[Hashable, Origin] = {}
        self._n_known = 0

    @abstractmethod
    def _parse(self, text: bytes) -> Any:
        """Return the request; raises ValueError where it is none."""

    @abstractmethod
    def _readings(self, request: Any) -> Iterator[Reading]:
        """Yield every number of a request, in order."""

    @abstractmethod
    def _attributes(self, labels: Hashable) -> Table:
        """Read the attributes of a point; raises ValueError or DecodeError where they are none."""

    @abstractmethod
    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes:
        """Return a request of one data point, so that it can be replayed without the others."""

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable points of ``payloads`` and what had to be rejected; never raises."""
        points = Points(self._fields)
        origins: list[tuple[Any, Reading]] = []
        admitted = admit(payloads, points.rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            try:
                request = self._parse(text)
                readings = list(self._readings(request))
            except (ValueError, DecodeError, RecursionError, UnicodeError) as error:
                points.rejected.append(_refuse(place, text, "invalid_otlp", str(error)))
                continue
            if len(readings) > self._max_rows:
                detail = f"more than {self._max_rows} points; send smaller batches"
                points.rejected.append(_refuse(place, text, "too_many_rows", detail))
                continue
            self._take(readings, place, points)
            origins.extend((request, reading) for reading in readings)

        def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
            request, reading = origins[index]
            if reading.value is None:
                reason = "wrong_type"
            detail = f"{reading.name}: {reason}: {reading.value} at {reading.time_ns} ns"
            return reason, detail, self._alone(request, reading.path)

        return points.decoded(offsets, broker_ms, explain)

    def _take(self, readings: Sequence[Reading], place: int, points: Points) -> None:
        for row, reading in enumerate(readings):
            identity = reading.origin.known.get((reading.name, reading.kind, reading.labels))
            # No time is 0 in protobuf, and never meant to be 1970.
            time_ms = bounded_ms((reading.time_ns or -1) // NS_A_MS)
            value = NAN if reading.value is None else reading.value
            points.taken.append((place, row, identity or self._identity(reading), time_ms, value))

    def _origin(self, resource: Table, scope: str) -> Origin:
        key = (scope, *resource.items())
        if key not in self._origins:
            self._origins[key] = Origin(_with_prefix(resource), scope, {})
            self._n_known += 1
        return self._origins[key]

    def _identity(self, reading: Reading) -> Identity:
        if self._n_known >= MAX_SERIES_REMEMBERED:
            for origin in self._origins.values():
                origin.known.clear()
            self._origins.clear()
            self._n_known = 0
        self._n_known += 1
        identity = self._name(reading)
        reading.origin.known[reading.name, reading.kind, reading.labels] = identity
        return identity

    def _name(self, reading: Reading) -> Identity:
        fields, resource = self._fields, reading.origin.resource
        try:
            attributes = self._attributes(reading.labels)
        except (ValueError, DecodeError):
            return Identity(None, None, reading.kind, ("",) * len(fields.tags))
        shown = [item for item in attributes.items() if item[0] != fields.variate]
        name = "" if fields.variate == "metric" else reading.name
        service = resource.get("service.name")
        default = canonical(f"{service}/{name}" if service else name, shown)
        own = {"metric": reading.name, "scope": reading.origin.scope}
        return identify(fields, default, lookup(attributes, own, resource), reading.kind)


def _with_prefix(resource: Table) -> Table:
    """Let resource attributes be found by both of their names."""
    return {**resource, **{f"{RESOURCE}{label}": text for label, text in resource.items()}}


def _refuse(place: int, text: bytes, reason: str, detail: str) -> Rejected:
    return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)


def _kind(temporality: object, *, cumulative: str) -> str:
    return DELTA if temporality in DELTA_TEMPORALITY else cumulative


@cache
def request_class() -> Any:
    """Return ExportMetricsServiceRequest as published, but with the points' attributes as bytes.

    On the wire the two are the same; unread, attributes can be looked up as they are.
    """
    pool = descriptor_pool.DescriptorPool()
    for published in (common_pb2, resource_pb2, metrics_pb2, metrics_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        published.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            if message.name.endswith("DataPoint"):
                for field in message.field:
                    if field.name == "attributes":
                        field.type = field.TYPE_BYTES
                        field.ClearField("type_name")
        pool.Add(file)
    name = metrics_service_pb2.ExportMetricsServiceRequest.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


class OtlpProtoCodec(OtlpCodec):
    """Decoder of protobuf ``ExportMetricsServiceRequest`` messages (encoding ``otlp_proto``)."""

    def _parse(self, text: bytes) -> Any:
        return request_class().FromString(text)

    def _readings(self, request: Any) -> Iterator[Reading]:
        for i, resource_metrics in enumerate(request.resource_metrics):
            resource = _table(resource_metrics.resource.attributes)
            for j, scope_metrics in enumerate(resource_metrics.scope_metrics):
                origin = self._origin(resource, scope_metrics.scope.name)
                for k, metric in enumerate(scope_metrics.metrics):
                    for m, name, kind, point, value in _numbers(metric):
                        labels = tuple(point.attributes)
                        path = (i, j, k, m)
                        yield Reading(path, origin, name, kind, labels, point.time_unix_nano, value)

    def _attributes(self, labels: Hashable) -> Table:
        parse = common_pb2.KeyValue.FromString
        return _table([parse(label) for label in labels])  # type: ignore[attr-defined]

    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes:
        i, j, k, m = path
        single = request_class()()
        old_resource = request.resource_metrics[i]
        old_scope = old_resource.scope_metrics[j]
        old_metric = old_scope.metrics[k]
        new_resource = single.resource_metrics.add(resource=old_resource.resource)
        new_scope = new_resource.scope_metrics.add(scope=old_scope.scope)
        new_metric = new_scope.metrics.add()
        new_metric.CopyFrom(old_metric)
        data = getattr(new_metric, new_metric.WhichOneof("data") or "")
        chosen = type(data.data_points[m])()
        chosen.CopyFrom(data.data_points[m])
        del data.data_points[:]
        data.data_points.append(chosen)
        return bytes(single.SerializeToString())


def _numbers(metric: Any) -> Iterator[tuple[int, str, str, Any, float]]:
    """Yield point index, series name, kind, data point and value of a protobuf metric's numbers."""
    which = metric.WhichOneof("data")
    if which is None:
        return
    data, name = getattr(metric, which), metric.name
    points = [
        (index, point)
        for index, point in enumerate(data.data_points)
        if not point.flags & NO_RECORDED_VALUE
    ]
    if which in ("gauge", "sum"):
        kind = GAUGE
        if which == "sum":
            cumulative = COUNTER if data.is_monotonic else GAUGE
            kind = _kind(data.aggregation_temporality, cumulative=cumulative)
        for index, point in points:
            if (form := point.WhichOneof("value")) is not None:
                yield index, name, kind, point, float(getattr(point, form))
    else:
        kind = _kind(getattr(data, "aggregation_temporality", 2), cumulative=COUNTER)
        for index, point in points:
            yield index, f"{name}_count", kind, point, float(point.count)
            if which == "summary" or point.HasField("sum"):
                yield index, f"{name}_sum", kind, point, point.sum


def _table(pairs: Any) -> Table:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: Any) -> str:
    form = value.WhichOneof("value")
    if form == "string_value":
        return str(value.string_value)
    if form == "bool_value":
        return "true" if value.bool_value else "false"
    if form in ("int_value", "double_value"):
        return str(getattr(value, form))
    return "" if form is None else " ".join(str(getattr(value, form)).split())


class OtlpJsonCodec(OtlpCodec):
    """Decoder of OTLP in JSON (encoding ``otlp_json``): camel case, 64-bit integers as texts."""

    def _parse(self, text: bytes) -> Any:
        request = orjson.loads(text)
        if isinstance(request, dict) and isinstance(request.get("resourceMetrics"), list):
            return request
        msg = "expected an object with the array resourceMetrics"
        raise ValueError(msg)

    def _readings(self, request: Any) -> Iterator[Reading]:
        for i, resource_metrics in _objects(request, "resourceMetrics"):
            resource = _json_attributes(_object(resource_metrics, "resource"))
            for j, scope_metrics in _objects(resource_metrics, "scopeMetrics"):
                origin = self._origin(resource, _word(_object(scope_metrics, "scope"), "name"))
                for k, metric in _objects(scope_metrics, "metrics"):
                    for m, name, kind, point, value in _json_numbers(metric):
                        labels = orjson.dumps(point.get("attributes"))
                        time_ns = _integer(point.get("timeUnixNano"))
                        yield Reading((i, j, k, m), origin, name, kind, labels, time_ns, value)

    def _attributes(self, labels: Hashable) -> Table:
        return _json_attributes({"attributes": orjson.loads(labels)})  # type: ignore[arg-type]

    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes:
        i, j, k, m = path
        resource_metrics = request["resourceMetrics"][i]
        scope_metrics = resource_metrics["scopeMetrics"][j]
        metric = scope_metrics["metrics"][k]
        form = next(form for form in JSON_FORMS if isinstance(metric.get(form), dict))
        point = metric[form]["dataPoints"][m]
        metric = {**metric, form: {**metric[form], "dataPoints": [point]}}
        scope_metrics = {**scope_metrics, "metrics": [metric]}
        resource_metrics = {**resource_metrics, "scopeMetrics": [scope_metrics]}
        return orjson.dumps({"resourceMetrics": [resource_metrics]})


JSON_FORMS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def _objects(parent: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of an array; what is none is passed over, as a protobuf reader would."""
    children = parent.get(name)
    if isinstance(children, list):
        for index, child in enumerate(children):
            if isinstance(child, dict):
                yield index, child


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    child = parent.get(name)
    return child if isinstance(child, dict) else {}


def _word(parent: Mapping[str, Any], name: str) -> str:
    text = parent.get(name)
    return text if isinstance(text, str) else ""


def _json_numbers(
    metric: Mapping[str, Any],
) -> Iterator[tuple[int, str, str, dict[str, Any], float | None]]:
    """Yield point index, series name, kind, data point and value of every number of a metric."""
    name = _word(metric, "name")
    form = next((form for form in JSON_FORMS if isinstance(metric.get(form), dict)), None)
    if form is None:
        return
    data = metric[form]
    single = form in ("gauge", "sum")
    cumulative = COUNTER
    if form == "gauge" or (form == "sum" and data.get("isMonotonic") is not True):
        cumulative = GAUGE
    kind = _kind(data.get("aggregationTemporality"), cumulative=cumulative)
    if form == "gauge":
        kind = GAUGE
    for index, point in _objects(data, "dataPoints"):
        if (_integer(point.get("flags", 0)) or 0) & NO_RECORDED_VALUE:
            continue
        parts = (("", "asDouble", "asInt"),) if single else (("_count", "count"), ("_sum", "sum"))
        for suffix, *names in parts:
            given = next((point[part] for part in names if part in point), None)
            if given is not None:
                yield index, f"{name}{suffix}", kind, point, _number(given)


def _number(value: object) -> float | None:
    """Return a JSON number, or the text that protobuf's JSON mapping makes of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _json_attributes(parent: Mapping[str, Any]) -> Table:
    return {
        _word(pair, "key"): _json_text(_object(pair, "value"))
        for _, pair in _objects(parent, "attributes")
    }


JSON_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "stringValue": str,
    "boolValue": lambda value: "true" if value is True else "false",
    "intValue": str,
    "doubleValue": str,
}


def _json_text(value: Mapping[str, Any]) -> str:
    for form, given in value.items():
        return JSON_TEXTS[form](given) if form in JSON_TEXTS else orjson.dumps(given).decode()
    return ""
