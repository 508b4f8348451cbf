"""What common tools export: read as the series they show, or refused in one clear line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from connectors.files import find_roles, points_of, read_sheet
from streamad.errors import ConfigError

N = 60
START = datetime(2026, 3, 14, tzinfo=UTC)
TIMES = [START + timedelta(minutes=5 * i) for i in range(N)]
EPOCHS = [int(t.timestamp()) for t in TIMES]
RNG = np.random.default_rng(7)
A = np.round(100 + 10 * RNG.normal(size=N), 2)
B = np.round(RNG.random(N), 3)

Series = dict[str, tuple[list[int], list[float]]]


def read(path: Path, **options: Any) -> Series:
    """Return the series of a file: name to times in ms and values."""
    points = points_of(find_roles(read_sheet(path), **options), one="file", joint=False)
    frame = pl.DataFrame({"key": points.keys, "ms": points.ms, "value": points.values[:, 0]})
    return {
        str(key): (part["ms"].to_list(), part["value"].to_list())
        for (key,), part in frame.group_by("key", maintain_order=True)
    }


def two(a: str, b: str) -> Series:
    ms = [1000 * second for second in EPOCHS]
    return {a: (ms, A.tolist()), b: (ms, B.tolist())}


def lines(*head: str, row: Callable[[int], str]) -> str:
    return "\n".join([*head, *(row(i) for i in range(N))]) + "\n"


def iso(i: int, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    return TIMES[i].strftime(pattern)


def comma(number: float) -> str:
    return str(number).replace(".", ",")


WIDE = {
    "plain": lines("timestamp,cpu,mem", row=lambda i: f"{iso(i)},{A[i]},{B[i]}"),
    "grafana, quoted": lines('"Time","cpu","mem"', row=lambda i: f'"{iso(i)}","{A[i]}","{B[i]}"'),
    "grafana for Excel": lines(
        "sep=,", '"Time","cpu","mem"', row=lambda i: f'"{iso(i)}",{A[i]},{B[i]}'
    ),
    "grafana, units": lines("Time,cpu,mem", row=lambda i: f"{iso(i)},{A[i]}%,{B[i]} s"),
    "semicolons and decimal commas": lines(
        "Zeit;cpu;mem", row=lambda i: f"{iso(i, '%d.%m.%Y %H:%M:%S')};{comma(A[i])};{comma(B[i])}"
    ),
    "tabs": lines("ts\tcpu\tmem", row=lambda i: f"{EPOCHS[i]}\t{A[i]}\t{B[i]}"),
    "bars": lines("ts|cpu|mem", row=lambda i: f"{EPOCHS[i]}000|{A[i]}|{B[i]}"),
    "american dates": lines(
        "Date,cpu,mem", row=lambda i: f"{iso(i, '%m/%d/%Y %I:%M %p')},{A[i]},{B[i]}"
    ),
    "british dates": lines(
        "Date,cpu,mem", row=lambda i: f"{iso(i, '%d/%m/%Y %H:%M')},{A[i]},{B[i]}"
    ),
    "date and clock apart": lines(
        "Date,Clock,cpu,mem",
        row=lambda i: f"{iso(i, '%Y-%m-%d')},{iso(i, '%H:%M')},{A[i]},{B[i]}",
    ),
    "month names": lines(
        "when,cpu,mem", row=lambda i: f"{iso(i, '%d-%b-%Y %H:%M:%S')},{A[i]},{B[i]}"
    ),
    "weekdays and zones": lines(
        "when,cpu,mem", row=lambda i: f'"{iso(i, "%a, %d %b %Y %H:%M:%S GMT")}",{A[i]},{B[i]}'
    ),
    "pandas": lines(",timestamp,cpu,mem", row=lambda i: f"{i},{iso(i)}+00:00,{A[i]},{B[i]}"),
    "time as a pandas index": lines(",cpu,mem", row=lambda i: f"{iso(i)},{A[i]},{B[i]}"),
    "a title before": lines(
        "Report of March", "", "timestamp,cpu,mem", row=lambda i: f"{iso(i)},{A[i]},{B[i]}"
    ),
    "comments before": lines(
        "# exported", "# by hand", "timestamp,cpu,mem", row=lambda i: f"{iso(i)},{A[i]},{B[i]}"
    ),
    "cloudwatch's facts": lines(
        "Full label,cpu (i-1),mem (i-1)",
        "Label,cpu,mem",
        row=lambda i: f"{iso(i, '%Y/%m/%d %H:%M:%S')},{A[i]},{B[i]}",
    ),
    "cloudwatch's ids": lines(
        "Id,m1,m2",
        "Label,CPU of i-1,memory of i-1",
        "FullLabel,cpu,mem",
        row=lambda i: f"{iso(i, '%Y/%m/%d %H:%M:%S')},{A[i]},{B[i]}",
    ),
    "labels beside": lines(
        "timestamp,cpu,mem,is_anomaly,host", row=lambda i: f"{iso(i)},{A[i]},{B[i]},0,web-1"
    ),
    "blanks": lines(" timestamp , cpu , mem ", row=lambda i: f"{iso(i)} , {A[i]} , {B[i]}"),
    "newest first": lines(
        "timestamp,cpu,mem", row=lambda i: f"{iso(N - 1 - i)},{A[N - 1 - i]},{B[N - 1 - i]}"
    ),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_each_column_of_a_wide_file_is_a_series(tmp_path: Path, name: str, packed: str):
    path = tmp_path / f"a.csv{packed}"
    text = WIDE[name].encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert read(path) == two("cpu", "mem")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str):
    text = lines("time,größe,mem", row=lambda i: f"{iso(i)},{A[i]},{B[i]}")
    (tmp_path / "a.csv").write_bytes(text.replace("\n", newline).encode(encoding))
    assert read(tmp_path / "a.csv") == two("größe", "mem")


def both(row: Callable[[int, str, float], str], *head: str) -> str:
    made = [row(i, name, values[i]) for i in range(N) for name, values in (("a", A), ("b", B))]
    return "\n".join([*head, *made]) + "\n"


def column(row: Callable[[int, str, float], str], *head: str) -> str:
    made = [row(i, name, values[i]) for name, values in (("a", A), ("b", B)) for i in range(N)]
    return "\n".join([*head, *made]) + "\n"


LONG = {
    "grafana, series as rows": column(
        lambda i, n, v: f"{n};{iso(i, '%Y-%m-%dT%H:%M:%S+00:00')};{v}", "Series;Time;Value"
    ),
    "a host a row": both(lambda i, n, v: f"{EPOCHS[i]},{n},{v}", "ts,host,value"),
    "a constant beside": both(lambda i, n, v: f"{iso(i)},prod,{n},{v}", "time,env,host,value"),
    "influx": column(
        lambda i, n, v: (
            f",,0,{START:%Y-%m-%dT%H:%M:%SZ},{START:%Y-%m-%dT%H:%M:%SZ},"
            f"{iso(i, '%Y-%m-%dT%H:%M:%SZ')},{v},cpu,{n}"
        ),
        "#group,false,false,true,true,false,false,true,true",
        "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string",
        "#default,_result,,,,,,,",
        ",result,table,_start,_stop,_time,_value,_field,host",
    ),
    "arrays of rows": lines(
        row=lambda i: json.dumps(
            {
                "at": iso(i),
                "metrics": [{"host": "a", "v": A[i]}, {"host": "b", "v": B[i]}],
            }
        )
    ),
    "arrays side by side": lines(
        row=lambda i: json.dumps({"host": ["a", "b"], "at": [iso(i)] * 2, "v": [A[i], B[i]]})
    ),
    "lines of JSON": both(
        lambda i, n, v: json.dumps({"@timestamp": iso(i), "host": {"name": n}, "v": v})
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_texts_name_the_series_where_times_repeat(tmp_path: Path, name: str):
    (tmp_path / "a.data").write_text(LONG[name])
    assert read(tmp_path / "a.data") == two("a", "b")


def test_a_list_of_tags_is_no_row(tmp_path: Path):
    tags = [{"key": "env", "value": "prod"}, {"key": "zone", "value": "b"}]
    text = lines(row=lambda i: json.dumps({"at": iso(i), "v": A[i], "tags": tags}))
    (tmp_path / "a.jsonl").write_text(text)
    assert read(tmp_path / "a.jsonl") == {"file": two("a", "b")["a"]}


def test_two_columns_name_the_series_where_one_does_not_do(tmp_path: Path):
    text = both(
        lambda i, n, v: "\n".join(f"{iso(i)},{n},{c},{v}" for c in ("x", "y")),
        "time,host,cpu,value",
    )
    (tmp_path / "a.csv").write_text(text)
    ms, a, b = *two("a", "b")["a"], B.tolist()
    assert read(tmp_path / "a.csv") == {
        "a/x": (ms, a), "a/y": (ms, a), "b/x": (ms, b), "b/y": (ms, b)
    }  # fmt: skip


def test_tables_of_influx_may_differ(tmp_path: Path):
    def table(field: str, values: np.ndarray) -> str:
        return lines(
            "#datatype,string,long,dateTime:RFC3339,double,string",
            ",result,table,_time,_value,_field",
            row=lambda i: f",,0,{iso(i, '%Y-%m-%dT%H:%M:%SZ')},{values[i]},{field}",
        )

    (tmp_path / "a.csv").write_text(table("used", A) + "\n" + table("idle", B))
    assert read(tmp_path / "a.csv") == two("used", "idle")


def frames(a: str, b: str) -> Any:
    fields = [
        [{"name": "Time", "type": "time"}, {"name": n, "type": "number", "labels": {}}]
        for n in (a, b)
    ]
    ms = [1000 * s for s in EPOCHS]
    data = [[ms, values.tolist()] for values in (A, B)]
    pairs = zip(fields, data, strict=True)
    return {
        "results": {
            "A": {"frames": [{"schema": {"fields": f}, "data": {"values": d}} for f, d in pairs]}
        }
    }


DOCUMENTS: dict[str, tuple[Any, str, str]] = {
    "prometheus": (
        {
            "status": "success",
            "data": {
                "resultType": "matrix",
                "result": [
                    {
                        "metric": {"__name__": "up", "job": n},
                        "values": [[t, str(v)] for t, v in zip(EPOCHS, values, strict=True)],
                    }
                    for n, values in (("a", A), ("b", B))
                ],
            },
        },
        'up{job="a"}',
        'up{job="b"}',
    ),
    "influx": (
        {
            "results": [
                {
                    "series": [
                        {
                            "name": "cpu",
                            "tags": {"host": n},
                            "columns": ["time", "mean"],
                            "values": [[iso(i, "%Y-%m-%dT%H:%M:%SZ"), values[i]] for i in range(N)],
                        }
                        for n, values in (("a", A.tolist()), ("b", B.tolist()))
                    ]
                }
            ]
        },
        'cpu{host="a"}',
        'cpu{host="b"}',
    ),
    "cloudwatch": (
        {
            "MetricDataResults": [
                {
                    "Id": "m",
                    "Label": n,
                    "Timestamps": [iso(i, "%Y-%m-%dT%H:%M:%S+00:00") for i in reversed(range(N))],
                    "Values": values[::-1],
                }
                for n, values in (("a", A.tolist()), ("b", B.tolist()))
            ]
        },
        "a",
        "b",
    ),
    "graphite": (
        [
            {"target": n, "datapoints": [[v, t] for v, t in zip(values, EPOCHS, strict=True)]}
            for n, values in (("a", A.tolist()), ("b", B.tolist()))
        ],
        "a",
        "b",
    ),
    "datadog": (
        {
            "series": [
                {
                    "metric": n,
                    "scope": "host:x",
                    "pointlist": [[1000 * t, v] for v, t in zip(values, EPOCHS, strict=True)],
                }
                for n, values in (("a", A.tolist()), ("b", B.tolist()))
            ]
        },
        "a{host:x}",
        "b{host:x}",
    ),
    "grafana": (frames("a", "b"), "a", "b"),
    "columns": ({"data": {"ts": EPOCHS, "a": A.tolist(), "b": B.tolist()}}, "a", "b"),
    "rows": (
        {"rows": [{"ts": EPOCHS[i], "m": {"a": A[i], "b": B[i]}} for i in range(N)]},
        "m.a",
        "m.b",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("indent", [None, 2])
def test_answers_of_monitoring_tools(tmp_path: Path, name: str, indent: int | None):
    document, a, b = DOCUMENTS[name]
    (tmp_path / "a.json").write_text(json.dumps(document, indent=indent))
    assert read(tmp_path / "a.json") == two(a, b)


@pytest.mark.parametrize("indent", [None, 2])
def test_metrics_of_opentelemetry_are_read(tmp_path: Path, indent: int | None):
    def metric(name: str, values: Any) -> dict[str, Any]:
        points = [
            {"timeUnixNano": str(second * 10**9), "asDouble": value}
            for second, value in zip(EPOCHS, values.tolist(), strict=True)
        ]
        return {"name": name, "gauge": {"dataPoints": points}}

    requests = [
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric(name, values)]}]}]}
        for name, values in (("cpu", A), ("mem", B))
    ]
    whole = {"resourceMetrics": [one for part in requests for one in part["resourceMetrics"]]}
    text = json.dumps(whole, indent=indent) if indent else "\n".join(map(json.dumps, requests))
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json") == two("cpu", "mem")
    (tmp_path / "b.json").write_text(text.replace("timeUnixNano", "at"))
    with pytest.raises(ConfigError, match="no point of OpenTelemetry's metrics can be read"):
        read(tmp_path / "b.json")


def test_columns_without_names(tmp_path: Path):
    text = lines(row=lambda i: f"{EPOCHS[i]},{A[i]},{B[i]}")
    (tmp_path / "a.csv").write_text(text)
    assert read(tmp_path / "a.csv") == two("column_2", "column_3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ts,a\n1772409600,1\n1772409660,2,3\n", "line 3 has 3 fields and the first line 2"),
        ("time,a\n03/02/2026,1\n03/02/2026,2\n", "write dates as 2026-01-31"),
        ('{"a": 1}', "no array of objects"),
        ('{"a": 1', "is no JSON"),
        ("ts,name\n1772409600,x\n", "no numeric column"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, text: str, told: str):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=told) as refused:
        read(tmp_path / "a.csv")
    assert "\n" not in str(refused.value)
