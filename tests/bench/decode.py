"""Measure how fast each codec decodes: points a CPU second, per shape of message and poison.

Run ``python tests/bench/decode.py``; one table is printed, the best of several rounds a line. CPU
time of all threads is counted, not the wall clock, which is also other processes'.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import numpy as np
import orjson
import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.prometheus import messages

POISON = b'{"key":"host-1/cpu","ts":17000000000'
START_MS = 1_700_000_000_000


def points(number: int) -> list[dict[str, Any]]:
    """Return readings of 500 series."""
    noise = np.random.default_rng(7).normal(size=number).round(4).tolist()
    return [
        {"key": f"host-{i % 500:03d}/cpu", "ts": START_MS + i, "value": value}
        for i, value in enumerate(noise)
    ]


def groups(number: int, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the readings in groups of one message each."""
    rows = points(number)
    for start in range(0, number, size):
        yield rows[start : start + size]


def as_lines(number: int, size: int) -> list[bytes]:
    """One object a line."""
    return [b"\n".join(map(orjson.dumps, group)) for group in groups(number, size)]


def as_arrays(number: int, size: int) -> list[bytes]:
    """Arrays of objects."""
    return [orjson.dumps(group) for group in groups(number, size)]


def as_columns(number: int, size: int) -> list[bytes]:
    """Objects of arrays."""
    return [
        orjson.dumps({name: [row[name] for row in group] for name in group[0]})
        for group in groups(number, size)
    ]


def as_arrow(number: int, size: int) -> list[bytes]:
    """Arrow IPC streams."""
    made = []
    for group in groups(number, size):
        table = pa.Table.from_pylist(group)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        made.append(sink.getvalue().to_pybytes())
    return made


def as_otlp(number: int, size: int) -> list[bytes]:
    """One gauge with a point for each reading, as the collector batches them."""
    made = []
    for group in groups(number, size):
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="cpu")
        for row in group:
            point = metric.gauge.data_points.add(time_unix_nano=row["ts"] * 1_000_000)
            point.as_double = row["value"]
            point.attributes.add(key="host").value.string_value = row["key"]
            point.attributes.add(key="region").value.string_value = "eu-west-1"
        made.append(request.SerializeToString())
    return made


def as_otlp_json(number: int, size: int) -> list[bytes]:
    """Write the same in JSON."""
    made = []
    for group in groups(number, size):
        points = [
            {
                "timeUnixNano": f"{row['ts']}000000",
                "asDouble": row["value"],
                "attributes": [
                    {"key": "host", "value": {"stringValue": row["key"]}},
                    {"key": "region", "value": {"stringValue": "eu-west-1"}},
                ],
            }
            for row in group
        ]
        metrics = [{"name": "cpu", "gauge": {"dataPoints": points}}]
        scopes = [{"metrics": metrics}]
        made.append(orjson.dumps({"resourceMetrics": [{"scopeMetrics": scopes}]}))
    return made


def as_remote_write(number: int, size: int) -> list[bytes]:
    """One sample a series, five labels, as a scrape gives them."""
    request_class, label_class = messages()
    made = []
    for group in groups(number, size):
        request = request_class()
        for row in group:
            labels = {"__name__": "cpu", "host": row["key"], "job": "node", "dc": "eu", "mode": "x"}
            pairs = [label_class(name=n, value=v).SerializeToString() for n, v in labels.items()]
            series = request.timeseries.add(labels=pairs)
            series.samples.add(value=row["value"], timestamp=row["ts"])
        made.append(bytes(cramjam.snappy.compress_raw(request.SerializeToString())))
    return made


def poisoned(messages: list[bytes]) -> list[bytes]:
    """Spoil one message in a thousand, at least one."""
    spoilt = list(messages)
    spoilt[::1000] = [POISON] * len(spoilt[::1000])
    return spoilt


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Return the shortest of several runs."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def cases(number: int) -> Iterator[tuple[str, str, FieldMap, list[bytes]]]:
    """Yield name, codec, fields and messages of each line of the table."""
    fields = FieldMap()
    yield "json, 1 a message", "json", fields, as_lines(number, 1)
    yield "json, 1 a message, 0.1 % poison", "json", fields, poisoned(as_lines(number, 1))
    yield "json lines, 500 a message", "json", fields, as_lines(number, 500)
    yield "json lines, 500, one poisoned", "json", fields, poisoned(as_lines(number, 500))
    yield "json arrays, 500 a message", "json", fields, as_arrays(number, 500)
    yield "json columns, 500 a message", "json", fields, as_columns(number, 500)
    yield "arrow, 500 a message", "arrow", fields, as_arrow(number, 500)
    yield "arrow, 20,000 a message", "arrow", fields, as_arrow(number, 20_000)
    yield "otlp_proto, 500 a message", "otlp_proto", fields, as_otlp(number, 500)
    yield "otlp_json, 500 a message", "otlp_json", fields, as_otlp_json(number, 500)
    yield "prometheus, 500 a message", "prometheus", fields, as_remote_write(number, 500)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{'case':<36}{'million/CPU s':>18}{'us a point':>12}{'us a message':>14}")
    for name, codec_name, fields, payloads in cases(options.points):
        codec = make_codec(codec_name, fields)
        offsets = np.arange(len(payloads))
        taken = best_s(lambda c=codec, m=payloads, o=offsets: c.decode(m, o, o), options.rounds)
        print(
            f"{name:<36}{options.points / taken / 1e6:>18.2f}{taken / options.points * 1e6:>12.2f}"
            f"{taken / len(payloads) * 1e6:>14.2f}"
        )


if __name__ == "__main__":
    main()
