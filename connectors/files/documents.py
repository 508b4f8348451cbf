"""JSON documents that monitoring tools answer with, as tables: one row a sample.

Known are range queries of Prometheus, InfluxDB's JSON, CloudWatch, Graphite, Datadog, Grafana's
data frames and OpenTelemetry's metrics; any other document is read where an array of objects, or an
object of arrays, stands in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import orjson
import polars as pl

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.labels import canonical
from streamad.errors import ConfigError

MAX_DEPTH = 4
SERIES, TIME, VALUE = "series", "time", "value"
OTLP = b'"resourceMetrics"'
OTLP_BEGINS = 4_096
MAX_OTLP_ROWS = 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A table read from a document, and which of its columns the format says are time and key."""

    frame: pl.DataFrame
    time: str | None = None
    key: str | None = None
    note: str = ""


def read_document(raw: bytes, name: str) -> Document:
    """Read a JSON document.

    Raises
    ------
    ConfigError
        where it is no JSON, or no table is found in it
    """
    try:
        record = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        msg = f"{name}: is no JSON ({error})"
        raise ConfigError(msg) from error
    for known in (_prometheus, _influx, _cloudwatch, _graphite, _datadog, _grafana):
        try:
            made = known(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            continue
        if made is not None:
            return made
    table = _find_table(record)
    if table is None:
        held = ", ".join(list(record)[:20]) if isinstance(record, dict) else type(record).__name__
        msg = f"{name}: no array of objects stands in it, nor an object of arrays; it has: {held}"
        raise ConfigError(msg)
    return Document(frame=table)


def is_otlp(raw: bytes) -> bool:
    """Say whether a document is a request of OpenTelemetry's metrics, by its beginning."""
    return OTLP in raw[:OTLP_BEGINS]


def read_otlp(requests: Sequence[bytes], name: str) -> Document:
    """Read OpenTelemetry's metrics in JSON, as a collector writes them to a file.

    Raises
    ------
    ConfigError
        where no point can be read
    """
    longest = max(map(len, requests))
    codec = make_codec(
        "otlp_json", FieldMap(), max_message_bytes=longest, max_rows_per_message=MAX_OTLP_ROWS
    )
    n = len(requests)
    made = codec.decode(requests, np.arange(n), np.full(n, -1))
    lost = sum(sum(one.by_reason.values()) for one in made.rejected)
    if not len(made.batch):
        why = made.rejected[0].detail if made.rejected else "it has none"
        msg = f"{name}: no point of OpenTelemetry's metrics can be read ({why})"
        raise ConfigError(msg)
    batch = made.batch
    frame = pl.DataFrame({SERIES: batch.keys, TIME: batch.time_ms, VALUE: batch.values[:, 0]})
    left_out = f"; {lost:,} points cannot be read" if lost else ""
    return Document(frame=frame, time=TIME, key=SERIES, note=f"OpenTelemetry's metrics{left_out}")


def unpacked(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows inside objects that hold several, and the name of the array they stood in.

    An array of objects, or arrays side by side (then without a name); what stands beside them is of
    each row. Records that hold one row each are returned as they are.

    Examples
    --------
    >>> unpacked([{"host": "a", "m": [{"v": 1}, {"v": 2}]}])
    ([{'host': 'a', 'v': 1}, {'host': 'a', 'v': 2}], 'm')
    >>> unpacked([{"host": "a", "ts": [1, 2], "v": [3, 4]}])
    ([{'host': 'a', 'ts': 1, 'v': 3}, {'host': 'a', 'ts': 2, 'v': 4}], None)
    """
    held = Counter(
        name
        for record in records
        for name, value in record.items()
        if isinstance(value, list) and value and _is_measured(value[0])
    )
    name, number = held.most_common(1)[0] if held else ("", 0)
    if number * 2 > len(records):
        made = [
            {**{k: v for k, v in record.items() if k != name}, **row}
            for record in records
            for row in record.get(name) or []
            if isinstance(row, dict)
        ]
        return made, name
    if records and _lengths(records[0]):
        return [row for record in records for row in _side_by_side(record)], None
    return records, None


def _is_measured(row: Any) -> bool:
    """Say whether an object holds a number: a list of tags beside a measurement is no row."""
    return isinstance(row, dict) and any(map(_is_number, flattened(row).values()))


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lengths(record: Mapping[str, Any]) -> int:
    """Return the length of two or more arrays side by side, 0 where there are none."""
    lengths = [len(value) for value in record.values() if isinstance(value, list)]
    return lengths[0] if len(lengths) > 1 and len(set(lengths)) == 1 else 0


def _side_by_side(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for i in range(_lengths(record)):
        yield {k: v[i] if isinstance(v, list) else v for k, v in record.items()}


def flattened(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return an object without objects inside; their names are joined with dots.

    Examples
    --------
    >>> flattened({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': '[2]'}
    """
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{before}{name}.")
        elif isinstance(value, list):
            flat[before + name] = orjson.dumps(value).decode()
        else:
            flat[before + name] = value
    return flat


def table_of(records: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return objects as rows; a column of different kinds becomes one of texts."""
    rows = [flattened(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int}:
        try:
            return pl.Series(name, values, dtype=pl.Int64)
        except (pl.exceptions.PolarsError, OverflowError):
            return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64)
    if kinds <= {int, float}:
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if kinds <= {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    texts = [None if value is None else _text(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _long(series: Sequence[tuple[str, Sequence[Any], Sequence[Any]]], note: str) -> Document | None:
    """Return named series of times and values in long form."""
    if not series:
        return None
    return Document(
        frame=pl.DataFrame(
            [
                pl.Series(SERIES, [name for name, times, _ in series for _ in times], pl.String),
                _column(TIME, [time for _, times, _ in series for time in times]),
                _column(VALUE, [value for *_, values in series for value in values]),
            ]
        ),
        time=TIME,
        key=SERIES,
        note=note,
    )


def _prometheus(record: Any) -> Document | None:
    data = record.get("data", record)
    if not isinstance(data, dict) or data.get("resultType") not in ("matrix", "vector"):
        return None
    series = []
    for result in data["result"]:
        labels = dict(result["metric"])
        name = canonical(labels.pop("__name__", ""), labels.items()) or "{}"
        samples = result["values"] if "values" in result else [result["value"]]
        series.append((name, [time for time, _ in samples], [value for _, value in samples]))
    return _long(series, "a range query of Prometheus")


def _influx(record: Any) -> Document | None:
    tables = []
    for result in record["results"]:
        for series in result["series"]:
            columns, rows = series["columns"], series["values"]
            name = canonical(series["name"], series.get("tags", {}).items())
            made = {SERIES: name}
            tables += [{**made, **dict(zip(columns, row, strict=True))} for row in rows]
    if not tables:
        return None
    return Document(frame=table_of(tables), time="time", key=SERIES, note="InfluxDB's JSON")


def _cloudwatch(record: Any) -> Document | None:
    if "MetricDataResults" in record:
        results = record["MetricDataResults"]
        series = [(r.get("Label") or r["Id"], r["Timestamps"], r["Values"]) for r in results]
        return _long([s for s in series if len(s[1]) == len(s[2])], "CloudWatch's metric data")
    points = record["Datapoints"]
    chosen = next(
        n for n in ("Average", "Sum", "Maximum", "Minimum", "SampleCount") if n in points[0]
    )
    values = [point[chosen] for point in points]
    times = [point["Timestamp"] for point in points]
    return _long([(record.get("Label", chosen), times, values)], f"CloudWatch's {chosen}")


def _graphite(record: Any) -> Document | None:
    if not isinstance(record, list) or "datapoints" not in record[0]:
        return None
    series = [
        (one["target"], [t for _, t in one["datapoints"]], [v for v, _ in one["datapoints"]])
        for one in record
    ]
    return _long(series, "Graphite's JSON")


def _datadog(record: Any) -> Document | None:
    series = [
        (
            f"{one['metric']}{{{one.get('scope', '')}}}",
            [time for time, _ in one["pointlist"]],
            [value for _, value in one["pointlist"]],
        )
        for one in record["series"]
    ]
    return _long(series, "Datadog's JSON")


def _grafana(record: Any) -> Document | None:
    frames = [frame for result in record["results"].values() for frame in result["frames"]]
    series = []
    for frame in frames:
        fields, columns = frame["schema"]["fields"], frame["data"]["values"]
        times = next(c for f, c in zip(fields, columns, strict=True) if f["type"] == "time")
        for field, column in zip(fields, columns, strict=True):
            if field["type"] == "number":
                name = canonical(field["name"], field.get("labels", {}).items())
                series.append((name, times, column))
    return _long(series, "Grafana's data frames")


def _find_table(record: Any, depth: int = 0) -> pl.DataFrame | None:
    if isinstance(record, list):
        return _of_rows(record)
    if not isinstance(record, dict) or depth > MAX_DEPTH:
        return None
    lists = {name: value for name, value in record.items() if isinstance(value, list)}
    equal = {len(value) for value in lists.values()}
    plain = [n for n, v in lists.items() if v and not isinstance(v[0], (dict, list))]
    if len(plain) > 1 and len(equal) == 1:
        scalars = {n: v for n, v in record.items() if not isinstance(v, (list, dict))}
        size = equal.pop()
        columns = [_column(name, lists[name]) for name in plain]
        columns += [_column(name, [value] * size) for name, value in scalars.items()]
        return pl.DataFrame(columns)
    by_size = sorted(record.values(), key=lambda v: -len(v) if isinstance(v, (list, dict)) else 0)
    for value in by_size:
        found = _find_table(value, depth + 1)
        if found is not None:
            return found
    return None


def _of_rows(rows: list[Any]) -> pl.DataFrame | None:
    given = [row for row in rows if row is not None]
    if not given:
        return None
    if all(isinstance(row, dict) for row in given):
        return table_of(given)
    if all(isinstance(row, list) and row for row in given):
        columns = zip_longest(*given)
        return pl.DataFrame(
            [_column(f"column_{i}", values) for i, values in enumerate(columns, start=1)]
        )
    return None
