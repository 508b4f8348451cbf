"""Files and messages of other tools: read, or refused with what to do."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from tests.unit.first_contact.conftest import MINUTE, T0, User

N = 180
VALUES = np.round(np.random.default_rng(31).normal(42, 3, N), 2)
VALUES[140] = 420.0
TIMES = T0 + MINUTE * np.arange(N)
ROBUST = "detector: robust_z\nwindows: {size: 24}\n"


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def test_seconds_under_milliseconds_are_refused_with_the_unit(user: User):
    data = user.jsonl("s.jsonl", [{"key": "a", "ts": int(t) // 1000, "value": 1.0} for t in TIMES])
    said = user.backtest(f"name: s\ninput: {{topics: t}}\n{ROBUST}", data)
    assert said.code == 1
    assert f"{N} bad_time" in said.err
    assert "time_unit: s" in said.err


@pytest.mark.parametrize("as_text", [str, "{:.4e}".format], ids=["plain", "exponent"])
def test_numbers_and_times_as_texts_are_read(user: User, as_text):
    rows = [
        {"n": "load", "at": str(t), "v": as_text(float(v))}
        for t, v in zip(TIMES, VALUES, strict=True)
    ]
    rows[7]["v"] = "n/a"
    fields = "fields: {key: n, time: at, value: v}"
    said = user.backtest(
        f"name: s\ninput: {{topics: t, {fields}}}\n{ROBUST}", user.jsonl("s.jsonl", rows)
    )
    assert (said.code, set(said.opened)) == (0, {"load"})
    assert "1 rows are not used: 1 wrong_type" in said.err


def test_what_the_usual_adapter_of_prometheus_writes_is_read(user: User):
    rows = [
        {
            "timestamp": iso(t),
            "value": str(v),
            "name": "up_time",
            "labels": {"job": "n", "i": "w:9"},
        }
        for t, v in zip(TIMES, VALUES, strict=True)
    ]
    rows[3]["value"], rows[4]["value"] = "NaN", "+Inf"
    fields = "fields: {key: [labels.job, name], time: timestamp, time_unit: iso, value: value}"
    said = user.backtest(
        f"name: s\ninput: {{topics: t, {fields}}}\n{ROBUST}", user.jsonl("p.jsonl", rows)
    )
    assert (said.code, set(said.opened)) == (0, {"n/up_time"})


def test_dots_in_names_need_no_nesting(user: User):
    rows = [
        {"k8s.pod.name": "p-7", "@timestamp": iso(t), "system.mem.used": v}
        for t, v in zip(TIMES, VALUES, strict=True)
    ]
    fields = (
        'fields: {key: k8s.pod.name, time: "@timestamp", time_unit: iso, value: system.mem.used}'
    )
    said = user.backtest(
        f"name: s\ninput: {{topics: t, {fields}}}\n{ROBUST}", user.jsonl("d.jsonl", rows)
    )
    assert (said.code, set(said.opened)) == (0, {"p-7"})


def test_a_file_without_a_header_has_no_readings_for_names(user: User):
    data = user.csv("h.csv", zip(TIMES // 1000, VALUES, strict=True))
    said, scores = user.score(data, "--detector", "robust_z", "--size", 24)
    assert said.code == 0
    assert len(scores) == N
    assert scores["severity"].max() >= 1


@pytest.mark.parametrize("order", ["newest first", "shuffled"])
def test_rows_of_a_file_may_come_in_any_order(user: User, order: str):
    places = (
        np.arange(N)[::-1] if order == "newest first" else np.random.default_rng(0).permutation(N)
    )
    rows = [("time", "load"), *[(iso(TIMES[i]), VALUES[i]) for i in places]]
    said, scores = user.score(user.csv("n.csv", rows), "--detector", "robust_z", "--size", 24)
    assert said.code == 0
    assert scores["severity"].arg_max() == int(np.flatnonzero(places == 140)[0])
    fields = "fields: {time: time, time_unit: iso, value: load}"
    replayed = user.backtest(
        f"name: s\ninput: {{topics: t, {fields}}}\n{ROBUST}", user.folder / "n.csv"
    )
    assert len(replayed.opened) == 1


def test_semicolons_with_decimal_commas_are_read(user: User):
    rows = [("Zeit", "Host", "Wert")]
    for t, v in zip(TIMES, VALUES, strict=True):
        rows += [
            (iso(t), host, f"{v + extra:.2f}".replace(".", ","))
            for host, extra in (("a", 0), ("b", 9))
        ]
    said, scores = user.score(
        user.csv("c.csv", rows, sep=";"), "--key", "Host", "--detector", "robust_z", "--size", 24
    )
    assert said.code == 0
    assert len(scores) == 2 * N
    assert (scores["severity"] >= 1).sum() >= 2


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_numbers_where_iso_is_asked_for_are_a_mistake_of_the_pipeline(user: User, dtype: str):
    seconds = (TIMES / 1000 + 0.25).astype(dtype)
    data = user.folder / "f.parquet"
    pl.DataFrame({"t": seconds, "v": VALUES}).write_parquet(data)
    fields = "fields: {time: t, time_unit: iso, value: v}"
    said = user.backtest(f"name: s\ninput: {{topics: t, {fields}}}\n{ROBUST}", data)
    assert said.code == 2
    assert "time_unit: s" in said.err
    assert said.err.count("error") == 1


def test_rows_inside_an_object_are_named_or_found(user: User):
    rows = [
        {"batch": [{"h": h, "at": int(t), "v": v} for h in ("x", "y")]}
        for t, v in zip(TIMES, VALUES, strict=True)
    ]
    data, fields = user.jsonl("b.jsonl", rows), "key: h, time: at, value: v"
    told = user.backtest(f"name: s\ninput: {{topics: t, fields: {{{fields}}}}}\n{ROBUST}", data)
    assert told.code == 1
    assert "rows: batch" in told.err
    said = user.backtest(
        f"name: s\ninput: {{topics: t, fields: {{{fields}, rows: batch}}}}\n{ROBUST}", data
    )
    assert (said.code, set(said.opened)) == (0, {"x", "y"})


@pytest.mark.parametrize("command", ["score", "backtest"])
def test_a_gzipped_file_is_read_by_every_command(user: User, command: str):
    rows = "ts,value\n" + "\n".join(f"{t},{v}" for t, v in zip(TIMES, VALUES, strict=True))
    data = user.folder / "g.csv.gz"
    data.write_bytes(gzip.compress(rows.encode()))
    if command == "score":
        assert user.score(data, "--detector", "robust_z", "--size", 24)[0].code == 0
    else:
        said = user.backtest(f"name: s\ninput: {{topics: t}}\n{ROBUST}", data)
        assert (said.code, len(said.opened)) == (0, 1)


def test_other_measurements_of_a_topic_are_passed_over_and_counted(user: User):
    rows = []
    for t, v in zip(TIMES, VALUES, strict=True):
        head = {"tags": {"host": "w"}, "timestamp": int(t) // 1000}
        rows += [
            {**head, "name": "disk", "fields": {"used": v}},
            {**head, "name": "net", "fields": {"in": 5.0, "out": 6.0}},
            {**head, "name": "swap", "fields": {"free": 1}},
        ]
    fields = "{key: tags.host, time: timestamp, time_unit: s, value: fields.used}"
    said = user.backtest(
        f"name: s\ninput: {{topics: t, fields: {fields}}}\n{ROBUST}", user.jsonl("t.jsonl", rows)
    )
    assert (said.code, set(said.opened)) == (0, {"w"})
    assert f"{2 * N} other_measurement" in said.err
    assert "not used" not in said.err


def test_several_hosts_without_a_key_are_told_apart_or_named(user: User):
    rows = [("ts", "server", "value")]
    rows += [(t, f"s{i}", v + 5 * i) for t, v in zip(TIMES, VALUES, strict=True) for i in range(4)]
    said, scores = user.score(user.csv("m.csv", rows), "--detector", "robust_z", "--size", 24)
    assert said.code == 0
    assert "server" in said.err
    assert scores.filter(pl.col("severity") >= 1)["server"].n_unique() == 4


def test_a_slash_inside_a_field_joins_and_parts_nothing(user: User):
    rows = []
    for t, v in zip(TIMES, VALUES, strict=True):
        rows += [
            {"team": team, "app": app, "ts": int(t), "value": v}
            for team, app in (("a/b", "c"), ("a", "b/c"))
        ]
    said = user.backtest(
        "name: s\ninput: {topics: t, fields: {key: [team, app]}}\n"
        f"alerts: {{group: team}}\n{ROBUST}",
        user.jsonl("p.jsonl", rows),
    )
    assert {(one["group"], one["entity"]["app"]) for one in said.opened.values()} == {
        ("a/b", "c"), ("a", "b/c"),
    }  # fmt: skip


def test_the_prefix_of_a_schema_registry_is_no_part_of_the_json(user: User):
    from connectors.codecs import FieldMap, make_codec

    codec = make_codec("json", FieldMap())
    body = json.dumps({"key": "a", "ts": T0, "value": 3.5}).encode()
    given = [
        b"\x00\x00\x00\x00\x2a" + body,
        b"\xef\xbb\xbf" + body,
        b"\x00\x00\x00\x00\x2a\x02\x0ahello",
    ]
    made = codec.decode(given, np.arange(3), np.full(3, -1))
    assert made.batch.values[:, 0].tolist() == [3.5, 3.5]
    (refused,) = made.rejected
    assert "schema registry" in refused.detail
