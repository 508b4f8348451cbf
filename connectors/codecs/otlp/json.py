"""OTLP metrics in JSON, as protobuf's mapping writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

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

UNREADABLE = b""
"""Stands for the attributes of a point that are nested too deeply: they name no series."""


class OtlpJsonCodec(OtlpCodec):
    """Decoder of OTLP in JSON (encoding ``otlp_json``): camel case, 64-bit integers as texts."""

    def _parse(self, text: bytes) -> Any:
        request = orjson.loads(text)
        if isinstance(request, dict) and isinstance(request.get("resourceMetrics"), list):
            return request
        msg = "expected an object with the array resourceMetrics"
        raise ValueError(msg)

    def _readings(self, request: Any, parts: Parts) -> Iterator[Reading]:
        for i, resource_metrics in objects(request, "resourceMetrics", parts):
            about = object_at(resource_metrics, "resource")
            check_resource(length(about, "attributes"))
            resource = self._resource(_json_attributes(about))
            for j, scope_metrics in objects(resource_metrics, "scopeMetrics", parts):
                origin = self._origin(resource, word(object_at(scope_metrics, "scope"), "name"))
                for k, metric in objects(scope_metrics, "metrics", parts):
                    for m, name, kind, point, value in _json_numbers(metric, parts):
                        labels = dump(point.get("attributes")) or UNREADABLE
                        time_ns = integer(point.get("timeUnixNano"))
                        yield Reading((i, j, k, m), origin, name, kind, labels, time_ns, value)

    def _attributes(self, labels: Any) -> Table:
        given = {"attributes": orjson.loads(labels)}
        if length(given, "attributes") > MAX_LABELS:
            msg = f"more than {MAX_LABELS} attributes"
            raise ValueError(msg)
        return _json_attributes(given)

    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes | None:
        i, j, k, m = path
        resource_metrics = request["resourceMetrics"][i]
        scope_metrics = resource_metrics["scopeMetrics"][j]
        metric = scope_metrics["metrics"][k]
        form = next(form for form in JSON_FORMS if isinstance(metric.get(form), dict))
        point = metric[form]["dataPoints"][m]
        metric = {**metric, form: {**metric[form], "dataPoints": [point]}}
        scope_metrics = {**scope_metrics, "metrics": [metric]}
        resource_metrics = {**resource_metrics, "scopeMetrics": [scope_metrics]}
        return dump({"resourceMetrics": [resource_metrics]})


JSON_FORMS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def dump(value: object) -> bytes | None:
    """Write JSON; None where it is nested more deeply than its writer goes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None


def length(parent: Mapping[str, Any], name: str) -> int:
    """Return how many elements an array has, 0 where there is none."""
    children = parent.get(name)
    return len(children) if isinstance(children, list) else 0


def objects(
    parent: Any, name: str, parts: Parts | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of an array; what is none is passed over, as a protobuf reader would."""
    children = parent.get(name)
    if isinstance(children, list):
        if parts is not None:
            parts.take(len(children))
        for index, child in enumerate(children):
            if isinstance(child, dict):
                yield index, child


def object_at(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object's member that is an object; an empty one where there is none."""
    child = parent.get(name)
    return child if isinstance(child, dict) else {}


def word(parent: Mapping[str, Any], name: str) -> str:
    """Return an object's member that is a text; an empty one where there is none."""
    text = parent.get(name)
    return text if isinstance(text, str) else ""


def _json_numbers(
    metric: Mapping[str, Any], parts: Parts
) -> Iterator[tuple[int, str, str, dict[str, Any], float | None]]:
    """Yield point index, series name, kind, data point and value of every number of a metric."""
    name = word(metric, "name")
    form = next((form for form in JSON_FORMS if isinstance(metric.get(form), dict)), None)
    if form is None:
        return
    data = metric[form]
    kind = _json_kind(form, data)
    # Named once: a long name in every point would be as many copies of it.
    wanted: list[tuple[str, tuple[str, ...]]] = [(name, ("asDouble", "asInt"))]
    if form not in ("gauge", "sum"):
        wanted = [(f"{name}_count", ("count",)), (f"{name}_sum", ("sum",))]
    for index, point in objects(data, "dataPoints", parts):
        if (integer(point.get("flags", 0)) or 0) & NO_RECORDED_VALUE:
            continue
        for series, names in wanted:
            given = next((point[part] for part in names if part in point), None)
            if given is not None:
                yield index, series, kind, point, number(given)


def _json_kind(form: str, data: Mapping[str, Any]) -> str:
    if form == "gauge":
        return GAUGE
    cumulative = GAUGE if form == "sum" and data.get("isMonotonic") is not True else COUNTER
    return kind_of(data.get("aggregationTemporality"), cumulative=cumulative)


def number(value: object) -> float | None:
    """Return a JSON number, or the text that protobuf's JSON mapping makes of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def integer(value: object) -> int | None:
    """Return a JSON integer, or the text that protobuf's JSON mapping makes of one."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _json_attributes(parent: Mapping[str, Any]) -> Table:
    return {
        word(pair, "key"): _json_text(object_at(pair, "value"))
        for _, pair in objects(parent, "attributes")
    }


JSON_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "stringValue": str,
    "boolValue": lambda value: "true" if value is True else "false",
    "intValue": str,
    "doubleValue": str,
}


def _json_text(value: Mapping[str, Any]) -> str:
    """Return an attribute's value as a text; raises ValueError where it is nested too deeply."""
    for form, given in value.items():
        if form in JSON_TEXTS and not isinstance(given, (dict, list)):
            return JSON_TEXTS[form](given)
        if (text := dump(given)) is None:
            msg = f"an attribute's {form[:40]} is nested too deeply"
            raise ValueError(msg)
        return text.decode()
    return ""
