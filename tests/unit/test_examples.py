"""The example pipelines read what the tools they are for write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from jobs.build import build_detect, check_detector
from jobs.offline.backtest import replay
from jobs.offline.replay import codec_of, read_file
from streamad.config import load_pipeline

SAMPLE = Path(__file__).resolve().parents[2] / "docs" / "sample"
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples"
KUBERNETES = {
    "kind": "Event", "level": "Metadata", "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/secrets", "verb": "list",
    "user": {"username": "system:serviceaccount:shop:cart", "groups": ["system:authenticated"]},
    "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.31.0",
    "objectRef": {"resource": "secrets", "namespace": "shop", "apiVersion": "v1"},
    "responseStatus": {"metadata": {}, "code": 403},
    "stageTimestamp": "2026-03-01T12:00:00.123456Z",
}  # fmt: skip
LINUX = {
    "@timestamp": "2026-03-01T12:00:00.123Z", "host": {"name": "web-1"}, "user": {"name": "root"},
    "event": {"action": "executed", "outcome": "success"},
    "process": {"executable": "/usr/bin/nc", "pid": 77, "parent": {"name": "bash"}},
}  # fmt: skip
WINDOWS = {
    "@timestamp": "2026-03-01T12:00:00.123Z", "host": {"name": "ws-5"}, "user": {"name": "alice"},
    "event": {"code": "4688"}, "winlog": {"channel": "Security"},
    "process": {"name": "powershell.exe", "parent": {"name": "winword.exe"}},
}  # fmt: skip
FLOW = {
    "@timestamp": "2026-03-01T12:00:00.123Z", "observer": {"name": "site-a"},
    "source": {"ip": "10.0.0.1", "port": 4711}, "destination": {"ip": "10.0.0.9", "port": 443},
    "network": {"packets": 12, "bytes": 9_000},
}  # fmt: skip
CALL = {
    "tenant": "shop", "ts": 1_772_366_400_000, "client": "cart", "server": "db",
    "connection_type": "database", "calls": 3,
}  # fmt: skip
OTLP = {"resourceLogs": [{
    "resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "cart"}},
        {"key": "k8s.namespace.name", "value": {"stringValue": "shop"}},
    ]},
    "scopeLogs": [{"scope": {"name": "net/http"}, "logRecords": [{
        "timeUnixNano": "1772366400123456789", "severityNumber": 17,
        "attributes": [
            {"key": "http.request.method", "value": {"stringValue": "PUT"}},
            {"key": "http.response.status_code", "value": {"intValue": "500"}},
        ],
    }]}],
}]}  # fmt: skip
CLOUD = {
    "specversion": "1.0", "id": "1", "source": "/billing", "type": "com.example.invoice.paid",
    "time": "2026-03-01T12:00:00.123Z", "subject": "invoice-7",
    "data": {"actor": "alice", "action": "pay"},
}  # fmt: skip
CASES = {
    "kubernetes-audit": (KUBERNETES, {
        "verb": "list", "objectRef.resource": "secrets", "objectRef.namespace": "shop",
        "userAgent": "kubectl/v1.31.0", "responseStatus.code": "403",
    }),
    "linux-audit": (LINUX, {
        "event.action": "executed", "process.executable": "/usr/bin/nc",
        "process.parent.name": "bash", "event.outcome": "success",
    }),
    "windows-events": (WINDOWS, {
        "event.code": "4688", "winlog.channel": "Security", "process.name": "powershell.exe",
        "process.parent.name": "winword.exe",
    }),
    "otlp-logs": (OTLP, {
        "severity": "ERROR", "event.name": None, "scope": "net/http", "http.request.method": "PUT",
        "http.route": None, "k8s.namespace.name": "shop", "http.response.status_code": 500.0,
    }),
    "cloudevents": (CLOUD, {
        "type": "com.example.invoice.paid", "subject": "invoice-7", "dataschema": None,
        "data.actor": "alice", "data.action": "pay",
    }),
    "flow-records": (FLOW, ("10.0.0.1", "10.0.0.9", None, 12.0)),
    "service-graph": (CALL, ("cart", "db", "database", 3.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_example_reads_its_records(name):
    config = load_pipeline(FOLDER / f"{name}.yaml", environment={})
    check_detector(config)
    record, wanted = CASES[name]
    made = codec_of(config).decode([orjson.dumps(record)], np.arange(1), np.full(1, -1))
    assert not made.rejected
    rows = made.batch.values
    if config.input.records == "events":
        assert rows.fields.to_dicts() == [wanted]
        return
    assert (rows.source[0], rows.target[0], rows.target_type[0], rows.weight[0]) == wanted


def test_the_sample_of_logins_shows_the_three_that_are_odd_and_nothing_else():
    config = load_pipeline(SAMPLE / "logins.yaml", environment={})
    made = replay(build_detect(config), read_file(SAMPLE / "logins.csv", config))
    opened = {
        alert.summary.partition(", since")[0] for alert in made.alerts if alert.state == "opened"
    }
    assert opened == {
        "alice: rare for this key: origin=laptop-2",
        "carol: rare for this key: origin=185.220.101.7",
        "deploy: rare for this key: host=db-1",
    }
    assert not made.account.rejected


def test_each_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CASES)
