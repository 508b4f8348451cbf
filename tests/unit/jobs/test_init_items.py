"""A first pipeline for events and edges: the right kind, sensible fields, and it runs unedited."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.files.ends import ends_of
from jobs.build import build_detect
from jobs.init import init_pipeline
from jobs.init.look import look_at
from jobs.offline.backtest import replay
from jobs.offline.replay import read_file
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError

T0 = 1_772_366_400_000
N = 1_200
Rows = Iterator[dict[str, Any]]


def iso(ms: float) -> str:
    return str(np.datetime64(int(ms), "ms")) + "Z"


def moments(rng: np.random.Generator) -> list[float]:
    return (T0 + np.cumsum(rng.exponential(9_000, N))).tolist()


def kubernetes(rng: np.random.Generator) -> Rows:
    for i, ms in enumerate(moments(rng)):
        done = bool(i % 2)
        yield {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": f"{i // 2:032x}",
            "stage": "ResponseComplete" if done else "RequestReceived",
            "requestURI": f"/api/v1/pods/{rng.integers(10**9)}",
            "verb": str(rng.choice(["get", "list", "watch"])),
            "user": {"username": str(rng.choice(["alice", "system:hpa"])), "groups": ["all"]},
            "sourceIPs": ["10.0.0.1"], "userAgent": str(rng.choice(["kubectl", "kubelet"])),
            "objectRef": {"resource": str(rng.choice(["pods", "secrets", "leases"]))},
            "requestReceivedTimestamp": iso(ms), "stageTimestamp": iso(ms + 10),
        } | ({"responseStatus": {"code": int(rng.choice([200, 403]))}} if done else {})  # fmt: skip


def windows(rng: np.random.Generator) -> Rows:
    for i, ms in enumerate(moments(rng)):
        yield {
            "TimeCreated": iso(ms)[:19].replace("T", " "), "Id": int(rng.choice([4624, 4688])),
            "RecordId": 100_000 + i, "Computer": str(rng.choice(["dc-1", "ws-1", "ws-2"])),
            "SubjectUserName": str(rng.choice(["-", "SYSTEM"])),
            "ProcessName": str(rng.choice(["lsass.exe", "cmd.exe", ""])),
            "Message": "An account was successfully logged on. " * 6,
        }  # fmt: skip


def logins(rng: np.random.Generator) -> Rows:
    for ms in moments(rng):
        name = str(rng.choice(["root", "alice"]))
        yield {
            "timestamp": iso(ms), "host": str(rng.choice(["web-1", "db-1"])),
            "program": str(rng.choice(["sshd", "sudo"])), "pid": int(rng.integers(300, 32_000)),
            # Names that attackers make up: no key has a history.
            "user": name if rng.random() < 0.8 else f"u{rng.integers(10**7)}",
            "action": str(rng.choice(["accepted", "failed"])),
            "message": f"session {rng.integers(10**9)}",
        }  # fmt: skip


def access(rng: np.random.Generator) -> Rows:
    for ms in moments(rng):
        yield {
            "time": iso(ms), "remote_user": str(rng.choice(["alice", "bob"])),
            "method": str(rng.choice(["GET", "POST"])), "path": str(rng.choice(["/", "/cart"])),
            "status": int(rng.choice([200, 404])), "bytes": int(rng.integers(100, 90_000)),
            "duration": round(float(rng.random()), 3),
        }  # fmt: skip


def untimed(rng: np.random.Generator) -> Rows:
    for _ in range(N):
        yield {
            "user": str(rng.choice(["alice", "bob"])), "verb": str(rng.choice(["get", "put"])),
            "what": str(rng.choice(["a", "b", "c"])), "label": int(rng.integers(2)),
        }  # fmt: skip


def netflow(rng: np.random.Generator) -> Rows:
    for ms in moments(rng):
        yield {
            "StartTime": iso(ms), "Dur": round(float(rng.random()), 3), "Proto": "tcp",
            "SrcAddr": f"10.0.0.{rng.integers(9)}", "Sport": int(rng.integers(1_024, 65_000)),
            "DstAddr": f"10.1.0.{rng.integers(4)}", "Dport": 443,
            "TotPkts": int(rng.integers(1, 400)), "Label": "background",
        }  # fmt: skip


def calls(rng: np.random.Generator) -> Rows:
    for ms in moments(rng):
        yield {
            "tenant": str(rng.choice(["shop", "bank"])), "ts": int(ms),
            "client": str(rng.choice(["web", "cart"])), "server": str(rng.choice(["db", "mail"])),
            "connection_type": "database", "calls": int(rng.integers(1, 9)),
        }  # fmt: skip


def ticks(rng: np.random.Generator) -> Rows:
    for i in range(N):
        # Nearly every pair is new: bursts alone can be told.
        yield {"tick": i // 20, "src": int(rng.integers(10**4)), "dst": int(rng.integers(10**4))}


Case = tuple[Callable[[np.random.Generator], Rows], str, dict[str, Any], str]
CASES: dict[str, Case] = {
    "kube.jsonl": (kubernetes, "events", {
        "key": ("user.username",), "time": "requestReceivedTimestamp", "time_unit": "iso",
        "where": {"stage": "ResponseComplete"}, "numbers": (),
        "categories": ("verb", "userAgent", "objectRef.resource", "responseStatus.code"),
    }, "rare_events"),
    "windows.csv": (windows, "events", {
        "key": ("Computer",), "time": "TimeCreated", "where": {}, "numbers": (),
        "categories": ("Id", "SubjectUserName", "ProcessName"),
    }, "rare_events"),
    "auth.jsonl": (logins, "events", {
        "key": ("host",), "categories": ("program", "user", "action"), "numbers": (),
    }, "rare_events"),
    "access.csv": (access, "events", {
        "key": ("remote_user",), "categories": ("method", "path", "status"),
        "numbers": ("bytes", "duration"),
    }, "rare_events"),
    "untimed.csv": (untimed, "events", {
        "key": ("user",), "time": "row", "categories": ("verb", "what"),
    }, "rare_events"),
    "netflow.csv": (netflow, "edges", {
        "key": ("SrcAddr",), "source": "SrcAddr", "target": "DstAddr", "weight": "TotPkts",
    }, "edge_changes"),
    "calls.jsonl": (calls, "edges", {
        "key": ("tenant",), "time_unit": "ms", "source": "client", "target": "server",
        "target_type": "connection_type", "weight": "calls",
    }, "edge_changes"),
    "ticks.csv": (ticks, "edges", {"source": "src", "target": "dst", "time": "tick"},
                  "edge_stream"),
}  # fmt: skip


def written(path: Path, rows: Rows) -> Path:
    made = list(rows)
    with path.open("w", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in made)
        else:
            table = csv.DictWriter(file, list(made[0]))
            table.writeheader()
            table.writerows(made)
    return path


def first(path: Path, **asked: Any) -> PipelineConfig:
    out = path.with_suffix(".yaml")
    out.unlink(missing_ok=True)
    init_pipeline(str(path), out=str(out), name=None, **asked)
    return load_pipeline(out, environment={})


@pytest.mark.parametrize("name", CASES)
def test_a_first_pipeline_judges_every_row(tmp_path: Path, name: str):
    make, records, wanted, detector = CASES[name]
    path = written(tmp_path / name, make(np.random.default_rng(5)))
    config = first(path)
    assert (config.input.records, config.detector.name) == (records, detector)
    assert {role: getattr(config.input.fields, role) for role in wanted} == wanted
    made = replay(build_detect(config), read_file(path, config))
    n = N // 2 if config.input.fields.where else N
    assert made.counts["windows"] == n
    assert not made.counts["late"]
    assert set(made.account.rejected) <= {"not_wanted"}


def test_what_is_left_out_is_told_with_the_reason(tmp_path: Path, capsys):
    path = written(tmp_path / "kube.jsonl", kubernetes(np.random.default_rng(5)))
    first(path)
    text = path.with_suffix(".yaml").read_text()
    for line in (
        "# auditID is left out: 600 different values in 1,200 rows",
        "# sourceIPs is left out: holds lists",
        "# left out, with one value in all rows: kind, apiVersion",
    ):
        assert line in text
    assert "taken for events; --records names another kind" in capsys.readouterr().err


def test_the_kind_of_records_may_be_named(tmp_path: Path):
    path = written(tmp_path / "netflow.csv", netflow(np.random.default_rng(5)))
    config = first(path, records="events")
    assert config.input.fields.key == ("SrcAddr",)
    assert config.input.fields.categories == ("DstAddr",)
    assert config.input.fields.numbers == ("Dur", "TotPkts")
    assert first(path, records="signals").input.records == "signals"
    with pytest.raises(ConfigError, match="none of signals, edges, events"):
        first(path, records="frames")
    path = written(tmp_path / "access.csv", access(np.random.default_rng(5)))
    with pytest.raises(ConfigError, match="no two fields are the ends of an edge"):
        first(path, records="edges")
    otlp = b'{"resourceMetrics": []}'
    with pytest.raises(ConfigError, match="holds metrics; --records events cannot"):
        look_at([otlp], "metrics", "events")


def test_rare_rows_may_be_far_apart(tmp_path: Path):
    rows = list(windows(np.random.default_rng(5)))
    for i, row in enumerate(rows):
        row["TimeCreated"] = iso(T0 + i * 7_200_000)[:19]
    config = first(written(tmp_path / "rare.csv", iter(rows)))
    assert config.series.max_ahead == 4 * 3_600_000


def readings(rng: np.random.Generator) -> Rows:
    """Made of texts as events are, at even steps."""
    for i in range(N):
        yield {
            "time": iso(T0 + i // 4 * 60_000), "source": f"d{i % 4}", "floor": str(i % 2),
            "state": "ok", "level": int(rng.integers(9)),
        }  # fmt: skip


def latencies(rng: np.random.Generator) -> Rows:
    for i in range(N):
        pair = (("web", "cart"), ("cart", "db"))[i % 2]
        yield {
            "ts": T0 + i // 2 * 60_000, "source_workload": pair[0],
            "destination_workload": pair[1], "latency": round(float(rng.normal(9, 1)), 3),
        }  # fmt: skip


def irregular(rng: np.random.Generator) -> Rows:
    for ms in moments(rng):
        yield {
            "ts": int(ms), "region": str(rng.choice(["eu", "us"])),
            "host": str(rng.choice(["a", "b"])), "metric": str(rng.choice(["cpu", "mem", "io"])),
            "value": int(rng.integers(10**6)),
        }  # fmt: skip


@pytest.mark.parametrize("make", [readings, latencies, irregular])
def test_readings_stay_signals(tmp_path: Path, make: Callable[[np.random.Generator], Rows]):
    path = written(tmp_path / "signals.csv", make(np.random.default_rng(5)))
    assert first(path).input.records == "signals"


@pytest.mark.parametrize(
    ("columns", "ends"),
    [
        ("IPV4_SRC_ADDR L4_SRC_PORT IPV4_DST_ADDR L4_DST_PORT", "IPV4_SRC_ADDR IPV4_DST_ADDR"),
        ("ts id.orig_h id.orig_p id.resp_h id.resp_p", "id.orig_h id.resp_h"),
        ("source.port source.ip destination.port destination.ip", "source.ip destination.ip"),
        ("ts te td sa da sp dp pr", "sa da"),
        ("parent child callCount", "parent child"),
        ("source_user source_host destination_user destination_host",
         "source_host destination_host"),
        ("SourceImage TargetImage", None),
        ("src_bytes dst_bytes", None),
        ("src_port dst_port", None),
        ("host source value target_value", None),
    ],
)  # fmt: skip
def test_ends_of_edges_are_known_by_their_names(columns: str, ends: str | None):
    found = ends_of(columns.split())
    assert found == (None if ends is None else tuple(ends.split()))
