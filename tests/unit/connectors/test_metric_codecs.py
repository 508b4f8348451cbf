"""OTLP and Prometheus: what series are called, what kind they are, and what is no value."""

from __future__ import annotations

import struct

import cramjam
import numpy as np
import orjson
import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from connectors.codecs import FieldMap, make_codec, prometheus
from connectors.codecs.labels import canonical
from connectors.codecs.otlp import base as otlp
from connectors.codecs.prometheus import STALE, messages
from streamad.errors import ConfigError
from streamad.names import split_key
from streamad.records import Decoded
from tests.machine import least_cpu_s

NOW_MS = 1_700_000_000_000
NOW_NS = NOW_MS * 1_000_000
NAN = float("nan")


def decode(name: str, *payloads: bytes, fields: FieldMap | None = None, **bounds: int) -> Decoded:
    offsets = np.arange(len(payloads))
    return make_codec(name, fields or FieldMap(), **bounds).decode(payloads, offsets, offsets)


def seen(decoded: Decoded) -> list[tuple[str, float, str]]:
    batch = decoded.batch
    kinds = batch.tags["kind"].to_list()
    return list(zip(batch.keys.to_list(), batch.values[:, 0].tolist(), kinds, strict=True))


def otlp_request() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    resource_metrics = request.resource_metrics.add()
    for name, text in (("service.name", "shop"), ("host.name", "h1")):
        resource_metrics.resource.attributes.add(key=name).value.string_value = text
    scope_metrics = resource_metrics.scope_metrics.add()
    scope_metrics.scope.name = "lib"

    def metric(name: str):
        return scope_metrics.metrics.add(name=name)

    point = metric("load").gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1.5)
    point.attributes.add(key="b").value.bool_value = True
    point.attributes.add(key="a").value.int_value = 7
    total = metric("requests").sum
    total.is_monotonic, total.aggregation_temporality = True, 2
    total.data_points.add(time_unix_nano=NOW_NS, as_int=10)
    total.data_points.add(time_unix_nano=NOW_NS, as_int=11, flags=1)
    total.data_points.add(time_unix_nano=0, as_int=12)
    queue = metric("queue").sum
    queue.aggregation_temporality = 2
    queue.data_points.add(time_unix_nano=NOW_NS, as_int=-3)
    drops = metric("drops").sum
    drops.is_monotonic, drops.aggregation_temporality = True, 1
    drops.data_points.add(time_unix_nano=NOW_NS, as_double=NAN)
    drops.data_points.add(time_unix_nano=NOW_NS, as_double=2)
    latency = metric("latency").histogram
    latency.aggregation_temporality = 1
    latency.data_points.add(time_unix_nano=NOW_NS, count=4, sum=9.5)
    latency.data_points.add(time_unix_nano=NOW_NS, count=5)
    metric("quantiles").summary.data_points.add(time_unix_nano=NOW_NS, count=6, sum=1)
    metric("nothing")
    return request


def otlp_payload(name: str, request: ExportMetricsServiceRequest) -> bytes:
    if name == "otlp_proto":
        return request.SerializeToString()
    return MessageToJson(request, use_integers_for_enums=True).encode()


OTLP = pytest.mark.parametrize("name", ["otlp_proto", "otlp_json"])


@OTLP
def test_every_metric_becomes_series_of_its_kind(name: str):
    decoded = decode(name, otlp_payload(name, otlp_request()))
    assert seen(decoded) == [
        ('shop/load{a="7",b="true",host.name="h1"}', 1.5, "gauge"),
        ('shop/requests{host.name="h1"}', 10, "counter"),
        ('shop/queue{host.name="h1"}', -3, "gauge"),
        ('shop/drops{host.name="h1"}', 2, "delta"),
        ('shop/latency_count{host.name="h1"}', 4, "delta"),
        ('shop/latency_sum{host.name="h1"}', 9.5, "delta"),
        ('shop/latency_count{host.name="h1"}', 5, "delta"),
        ('shop/quantiles_count{host.name="h1"}', 6, "counter"),
        ('shop/quantiles_sum{host.name="h1"}', 1, "counter"),
    ]
    assert set(decoded.batch.time_ms.tolist()) == {NOW_MS}
    assert [r.reason for r in decoded.rejected] == ["bad_time", "not_finite"]


def replica(**attributes: str) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    one = request.resource_metrics.add()
    for label, text in {"service.name": "api", **attributes}.items():
        one.resource.attributes.add(key=label).value.string_value = text
    load = one.scope_metrics.add().metrics.add(name="load").gauge
    load.data_points.add(time_unix_nano=NOW_NS, as_double=1.0)
    return request


@OTLP
@pytest.mark.parametrize(
    "label",
    [
        "service.namespace", "service.instance.id", "host.name", "host.id", "k8s.pod.name",
        "k8s.namespace.name", "container.id", "deployment.environment.name", "cloud.region", "rack",
    ],
)  # fmt: skip
def test_what_tells_resources_apart_tells_series_apart(name: str, label: str):
    one, two = (otlp_payload(name, replica(**{label: text})) for text in ("pod-1", "pod-2"))
    assert decode(name, one, two).batch.keys.to_list() == [
        f'api/load{{{label}="pod-1"}}',
        f'api/load{{{label}="pod-2"}}',
    ]


@OTLP
def test_what_a_restart_or_a_release_changes_begins_no_new_series(name: str):
    described = {
        "service.version": "2", "telemetry.sdk.version": "1.9", "process.pid": "17",
        "process.command_args": "-v", "os.version": "6.1", "k8s.pod.uid": "0-1",
        "k8s.pod.start_time": "now", "host.arch": "arm64",
    }  # fmt: skip
    payload = otlp_payload(name, replica(**described))
    assert decode(name, payload).batch.keys.to_list() == ["api/load"]


@OTLP
def test_a_key_that_would_be_too_long_keeps_what_it_must(name: str):
    many = {f"cloud.label.{i:02}": "x" * 30 for i in range(20)}
    payload = otlp_payload(name, replica(**many, **{"host.name": "h1"}))
    assert decode(name, payload).batch.keys.to_list() == ['api/load{host.name="h1"}']


@OTLP
def test_a_rejected_point_replays_alone(name: str):
    decoded = decode(name, otlp_payload(name, otlp_request()))
    for rejected in decoded.rejected:
        again = decode(name, rejected.payload or b"")
        assert len(again.batch) == 0
        assert [r.reason for r in again.rejected] == [rejected.reason]


@OTLP
def test_attributes_may_name_the_key_the_variate_and_tags(name: str):
    fields = FieldMap(
        key=("service.name", "resource.host.name"),
        variate="metric",
        variates=("load", "queue"),
        tags=("scope", "a", "absent"),
    )
    decoded = decode(name, otlp_payload(name, otlp_request()), fields=fields)
    assert decoded.batch.keys.to_list() == ["shop/h1", "shop/h1"]
    np.testing.assert_array_equal(decoded.batch.values, [[1.5, np.nan], [np.nan, -3]])
    assert decoded.batch.tags["scope"].to_list() == ["lib", "lib"]
    assert decoded.batch.tags["a"].to_list() == ["7", ""]
    assert decoded.batch.tags["absent"].to_list() == ["", ""]
    assert [r.reason for r in decoded.rejected] == ["unknown_variate"]


@OTLP
def test_the_scope_is_no_part_of_a_key_unless_it_is_named(name: str):
    request = replica(**{"host.name": "h"})
    for scope in ("net/http", "grpc"):
        scope_metrics = request.resource_metrics[0].scope_metrics.add()
        scope_metrics.scope.name = scope
        point = scope_metrics.metrics.add(name="calls").gauge.data_points.add(as_double=1.0)
        point.time_unix_nano = NOW_NS
    payload = otlp_payload(name, request)
    default = ['api/load{host.name="h"}', *['api/calls{host.name="h"}'] * 2]
    assert decode(name, payload).batch.keys.to_list() == default
    named = decode(name, payload, fields=FieldMap(key=("key", "scope"))).batch
    parts = [split_key(key, 2) for key in named.keys.to_list()]
    assert parts == list(map(list, zip(default, ["", "net/http", "grpc"], strict=True)))


@OTLP
def test_a_point_without_the_key_attribute_is_rejected(name: str):
    decoded = decode(name, otlp_payload(name, otlp_request()), fields=FieldMap(key=("a",)))
    assert decoded.batch.keys.to_list() == ["7"]
    assert "missing_field" in {r.reason for r in decoded.rejected}


def test_otlp_json_takes_numbers_as_texts_and_enums_as_names():
    metrics = [
        {
            "name": "n",
            "sum": {
                "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA",
                "isMonotonic": True,
                "dataPoints": [{"timeUnixNano": str(NOW_NS), "asInt": "9007199254740993"}],
            },
        }
    ]
    request = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    assert seen(decode("otlp_json", orjson.dumps(request))) == [("n", 9007199254740993.0, "delta")]


@pytest.mark.parametrize("point", [{"asInt": []}, {"asDouble": "x"}, {"asInt": True}])
def test_otlp_json_numbers_of_a_wrong_type_are_rejected(point: dict[str, object]):
    points = [{"timeUnixNano": NOW_NS, **point}, {"timeUnixNano": NOW_NS, "asDouble": 1}]
    metrics = [{"name": "n", "gauge": {"dataPoints": points}}]
    request = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    decoded = decode("otlp_json", orjson.dumps(request))
    assert seen(decoded) == [("n", 1, "gauge")]
    assert [(r.row, r.reason) for r in decoded.rejected] == [(0, "wrong_type")]


def write_request(*series: tuple[dict[str, str], list[tuple[float, int]]]) -> bytes:
    request_class, label_class = messages()
    request = request_class()
    for labels, samples in series:
        pairs = [label_class(name=n, value=v).SerializeToString() for n, v in labels.items()]
        made = request.timeseries.add(labels=pairs)
        for value, timestamp in samples:
            made.samples.add(value=value, timestamp=timestamp)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


UP = {"__name__": "up", "job": "api", "host": 'a"b\\c\nd'}


def test_prometheus_series_are_named_as_prometheus_writes_them():
    payload = write_request((UP, [(1, NOW_MS)]), ({"__name__": "http_total"}, [(2, NOW_MS)]))
    assert seen(decode("prometheus", payload)) == [
        ('up{host="a\\"b\\\\c\\nd",job="api"}', 1, "gauge"),
        ("http_total", 2, "counter"),
    ]


def test_the_order_of_labels_does_not_change_a_key():
    turned = dict(reversed(UP.items()))
    decoded = decode("prometheus", write_request((UP, [(1, NOW_MS)]), (turned, [(2, NOW_MS)])))
    assert len(set(decoded.batch.keys)) == 1


def test_a_stale_marker_is_no_value_and_no_error_but_nan_is_one():
    stale = struct.unpack("<d", struct.pack("<Q", STALE))[0]
    payload = write_request((UP, [(stale, NOW_MS), (NAN, NOW_MS + 1), (3, NOW_MS + 2)]))
    decoded = decode("prometheus", payload)
    assert decoded.batch.values[:, 0].tolist() == [3]
    assert [(r.row, r.reason) for r in decoded.rejected] == [(1, "not_finite")]
    again = decode("prometheus", decoded.rejected[0].payload or b"")
    assert [(r.row, r.reason) for r in again.rejected] == [(0, "not_finite")]


def test_prometheus_labels_may_name_the_key_the_variate_and_tags():
    fields = FieldMap(key=("job",), variate="__name__", variates=("up",), tags=("job",))
    payload = write_request((UP, [(1, NOW_MS)]), ({"__name__": "x", "job": "api"}, [(2, NOW_MS)]))
    decoded = decode("prometheus", payload, fields=fields)
    assert decoded.batch.keys.to_list() == ["api"]
    assert decoded.batch.tags["job"].to_list() == ["api"]
    assert [r.reason for r in decoded.rejected] == ["unknown_variate"]


def test_a_snappy_bomb_is_not_expanded():
    bomb = bytes(cramjam.snappy.compress_raw(b"\0" * 1_000_000))
    (rejected,) = decode("prometheus", bomb, max_message_bytes=60_000).rejected
    assert rejected.reason == "invalid_remote_write"
    assert "would expand to 1000000 bytes" in rejected.detail


@pytest.mark.parametrize("name", ["otlp_proto", "otlp_json", "prometheus"])
def test_several_values_a_point_are_refused_with_the_way_out(name: str):
    with pytest.raises(ConfigError, match=r"fields\.variate"):
        make_codec(name, FieldMap(values=("a", "b")))


def test_canonical_names_sort_their_labels():
    assert canonical("m", [("b", "1"), ("a", "2")]) == 'm{a="2",b="1"}'
    assert canonical("m", []) == "m"


def otlp_of_points(*points: dict[str, object]) -> bytes:
    metrics = [{"name": "n", "gauge": {"dataPoints": list(points)}}]
    return orjson.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})


@pytest.mark.parametrize("depth", [260, 400, 900])
def test_attributes_nested_deeper_than_the_writer_goes_name_no_series(depth: int):
    good = {"timeUnixNano": NOW_NS, "asDouble": 1}
    text = otlp_of_points(good, {**good, "attributes": ["DEEP"]})
    text = text.replace(
        b'"DEEP"', b'{"key":"a","value":{"arrayValue":%s}}' % (b"[" * depth + b"]" * depth)
    )
    decoded = decode("otlp_json", otlp_of_points(good), text)
    assert decoded.batch.message.tolist() == [0, 1]
    (rejected,) = decoded.rejected
    assert (rejected.message, rejected.row, rejected.reason) == (1, 1, "missing_field")


def test_a_resource_nested_too_deeply_rejects_its_message():
    deep = b"[" * 300 + b"]" * 300
    text = (
        b'{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"kvlistValue":%s}}]},'
        b'"scopeMetrics":[]}]}' % deep
    )
    (rejected,) = decode("otlp_json", text).rejected
    assert rejected.reason == "invalid_otlp"


@pytest.mark.parametrize(
    ("name", "payload"),
    [("otlp_proto", b""), ("otlp_json", b'{"resourceMetrics":[]}'), ("prometheus", b"\0")],
)
def test_a_request_without_points_is_counted_and_no_error(name: str, payload: bytes):
    (rejected,) = decode(name, payload or otlp_request_without_points()).rejected
    assert (rejected.reason, rejected.payload) == ("no_rows", None)


def otlp_request_without_points() -> bytes:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="nothing")
    return request.SerializeToString()


@OTLP
def test_a_point_alone_keeps_what_its_metric_is(name: str):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="n", unit="s")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 1
    for value in (1, NAN, 3):
        metric.sum.data_points.add(time_unix_nano=NOW_NS, as_double=value)
    decoded = decode(name, otlp_payload(name, request))
    (rejected,) = decoded.rejected
    fixed = rejected.payload
    if name == "otlp_proto":
        alone = ExportMetricsServiceRequest.FromString(rejected.payload)
        alone.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_double = 7
        fixed = alone.SerializeToString()
    else:
        fixed = rejected.payload.replace(b'"NaN"', b"7")
    assert seen(decode(name, fixed)) == [("n", 7, "delta")]


def test_samples_are_found_in_time_that_grows_with_their_number():
    def taken_s(n_series: int) -> float:
        rows = [({"__name__": "q", "i": str(i)}, [(NAN, NOW_MS)]) for i in range(n_series)]
        payload = write_request(*rows)
        assert len(decode("prometheus", payload).rejected) == 101
        return least_cpu_s(lambda: decode("prometheus", payload), allowed_s=0)

    assert taken_s(40_000) < 20 * max(taken_s(4_000), 0.02)


def test_every_rejected_sample_of_a_request_replays_as_itself():
    rows = [({"__name__": "m", "i": str(i)}, [(1, NOW_MS + i)] * (i % 3)) for i in range(60)]
    rows.insert(30, ({"__name__": "bad"}, [(1, NOW_MS), (NAN, NOW_MS + 1), (-NAN, NOW_MS + 2)]))
    rows.append(({"__name__": "last"}, [(2, NOW_MS), (NAN, NOW_MS + 3)]))
    decoded = decode("prometheus", write_request(*rows))
    found = [decode("prometheus", r.payload).rejected[0].detail for r in decoded.rejected]
    assert [text.split(": ")[1:] for text in found] == [
        ["bad", f"nan at {NOW_MS + 1} ms"],
        ["bad", f"nan at {NOW_MS + 2} ms"],
        ["last", f"nan at {NOW_MS + 3} ms"],
    ]


def test_labels_that_read_alike_when_joined_are_two_series():
    def payload(*labels: bytes) -> bytes:
        request = messages()[0]()
        request.timeseries.add(labels=labels).samples.add(value=1, timestamp=NOW_MS)
        return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))

    whole = messages()[1](name="n", value="a\0b").SerializeToString()
    parts = whole.split(b"\0")
    good = decode("prometheus", payload(*parts), payload(whole))
    assert good.batch.message.tolist() == [1]
    assert good.batch.keys.to_list() == ['{n="a\0b"}']


@pytest.mark.parametrize("name", ["otlp_proto", "otlp_json", "prometheus"])
def test_series_are_remembered_within_a_bound_of_bytes(name: str, monkeypatch):
    for module in (otlp, prometheus):
        monkeypatch.setattr(module, "MAX_REMEMBERED_BYTES", 100_000)
    fields = FieldMap(key=("i",), tags=("long",))
    codec = make_codec(name, fields)
    offsets = np.arange(1)
    for number in range(60):
        labels = {"i": str(number), "long": f"{number:09000d}"}
        if name == "prometheus":
            payload = write_request(({**labels, "__name__": "m"}, [(1, NOW_MS)]))
        else:
            request = ExportMetricsServiceRequest()
            resource_metrics = request.resource_metrics.add()
            resource_metrics.resource.attributes.add(key="r").value.string_value = f"{number:099d}"
            metric = resource_metrics.scope_metrics.add().metrics.add(name="m")
            point = metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=1)
            for label, text in labels.items():
                point.attributes.add(key=label).value.string_value = text
            payload = otlp_payload(name, request)
        batch = codec.decode([payload], offsets, offsets).batch
        assert batch.keys.to_list() == [str(number)]
        assert batch.tags["long"].to_list() == [f"{number:09000d}"[:512]]
    assert 0 < codec.inner._known_bytes <= 100_000
    assert held(codec.inner) < 15


def held(codec: object) -> int:
    """Return how many series a codec remembers."""
    if isinstance(codec, prometheus.RemoteWriteCodec):
        return len(codec._known)
    scopes = (r.scopes.values() for r in codec._resources.values())
    return sum(len(origin.known) for each in scopes for origin in each)
