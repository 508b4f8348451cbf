"""OTLP metrics in protobuf, the points' attributes left as bytes until a series is new."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from connectors.codecs.labels import COUNTER, GAUGE, MAX_LABELS
from connectors.codecs.otlp.base import (
    NO_RECORDED_VALUE,
    OtlpCodec,
    Parts,
    Reading,
    Table,
    check_resource,
    kind_of,
)


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

    def _readings(self, request: Any, parts: Parts) -> Iterator[Reading]:
        parts.take(len(request.resource_metrics))
        for i, resource_metrics in enumerate(request.resource_metrics):
            attributes = resource_metrics.resource.attributes
            check_resource(len(attributes))
            resource = self._resource(_table(attributes))
            parts.take(len(resource_metrics.scope_metrics))
            for j, scope_metrics in enumerate(resource_metrics.scope_metrics):
                origin = self._origin(resource, scope_metrics.scope.name)
                parts.take(len(scope_metrics.metrics))
                for k, metric in enumerate(scope_metrics.metrics):
                    for m, name, kind, point, value in _numbers(metric, parts):
                        labels = tuple(point.attributes)
                        path = (i, j, k, m)
                        yield Reading(path, origin, name, kind, labels, point.time_unix_nano, value)

    def _attributes(self, labels: Any) -> Table:
        if len(labels) > MAX_LABELS:
            msg = f"{len(labels)} attributes, at most {MAX_LABELS} name a series"
            raise ValueError(msg)
        parse = common_pb2.KeyValue.FromString
        return _table([parse(label) for label in labels])

    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes:
        i, j, k, m = path
        single = request_class()()
        old_resource = request.resource_metrics[i]
        old_scope = old_resource.scope_metrics[j]
        old_metric = old_scope.metrics[k]
        new_resource = single.resource_metrics.add(resource=old_resource.resource)
        new_scope = new_resource.scope_metrics.add(scope=old_scope.scope)
        new_metric = new_scope.metrics.add(
            name=old_metric.name, description=old_metric.description, unit=old_metric.unit
        )
        form = old_metric.WhichOneof("data")
        old_data, new_data = getattr(old_metric, form), getattr(new_metric, form)
        for name in ("aggregation_temporality", "is_monotonic"):
            if name in old_data.DESCRIPTOR.fields_by_name:
                setattr(new_data, name, getattr(old_data, name))
        # Only this one: to copy the metric would copy all of its points, once a letter.
        new_data.data_points.add().CopyFrom(old_data.data_points[m])
        return bytes(single.SerializeToString())


def _numbers(metric: Any, parts: Parts) -> Iterator[tuple[int, str, str, Any, float]]:
    """Yield point index, series name, kind, data point and value of a protobuf metric's numbers."""
    which = metric.WhichOneof("data")
    if which is None:
        return
    data, name = getattr(metric, which), metric.name
    parts.take(len(data.data_points))
    points = (
        (index, point)
        for index, point in enumerate(data.data_points)
        if not point.flags & NO_RECORDED_VALUE
    )
    if which in ("gauge", "sum"):
        kind = GAUGE
        if which == "sum":
            cumulative = COUNTER if data.is_monotonic else GAUGE
            kind = kind_of(data.aggregation_temporality, cumulative=cumulative)
        for index, point in points:
            if (form := point.WhichOneof("value")) is not None:
                yield index, name, kind, point, float(getattr(point, form))
    else:
        kind = kind_of(getattr(data, "aggregation_temporality", 2), cumulative=COUNTER)
        count, total = f"{name}_count", f"{name}_sum"
        for index, point in points:
            yield index, count, kind, point, float(point.count)
            if which == "summary" or point.HasField("sum"):
                yield index, total, kind, point, point.sum


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
