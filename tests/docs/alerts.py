"""The page on findings and alerts: their fields, and examples out of a real run."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np
import polars as pl

from connectors.records import cloudevents
from connectors.records.typed_json import schema_of
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator, Position
from streamad.records import Alert, Finding, SignalBatch

START_MS = 1_772_366_400_000
STEP_MS = 10_000
SPIKE = slice(150, 153)
DIGITS = 4

FIELDS = {
    "id": "a hash of pipeline, detector, kind, key and opening window; shared by finding and alert",
    "sequence": "counts the records of this id from 0; `(id, sequence)` is unique",
    "state": "stage of its life-cycle",
    "kind": "anomalous values, no data, a failing detector, a message that was set aside, a "
    "flood (alerts that were not sent), or a clock (event times too far ahead)",
    "pipeline": "name of the pipeline",
    "detector": "name of the detector",
    "artifact": "id of the artifact it was loaded from; empty: none",
    "tenant": "`alerts.tenant`",
    "group": "value of the key field or tag of `alerts.group`; by default the pipeline's name",
    "key": "the series",
    "entity": "the key taken apart into its fields, and the tags",
    "window_start_ms": "time of the first sample of the newest window",
    "window_end_ms": "time of its last sample",
    "began_ms": "when the event began: time of its first anomalous sample",
    "until_ms": "time of the last anomalous sample known so far",
    "score": "raw score of the window, higher is more anomalous",
    "p_value": "how probable such a score is on an ordinary window of this key",
    "peak_score": "highest score of the episode so far",
    "peak_p_value": "its p-value",
    "level": "the key's entry level at that window",
    "alert_p": "the p-value that has severity 1.0 for this key (`alerts.level`)",
    "born_ms": "when the key was first seen; -1: it was known from training",
    "calm": "the newest window is ordinary: the event is over, or paused",
    "n_windows": "number of windows of the episode so far",
    "explanation": "finding: observed and expected values, and each variate's share of the "
    "score; alert: the shares",
    "input": "topic, partition and offset of the message that closed the window",
    "degraded": "why a fallback scored; empty: none did",
    "reason": "further text, such as why an episode ended",
    "opened_ms": "end of the window that opened the alert",
    "time_ms": "end of the newest window",
    "resolved_ms": "end of the window that resolved it, null while it is open",
    "severity": "of the newest finding; **1.0 is the alerting boundary** for every detector",
    "peak_severity": "the highest severity so far",
    "threshold_p": "the p-value that has severity 1.0 where nothing else is evidence "
    "(`alerts.level`, or what the budget affords)",
    "observed": "values at a sample inside the event, per variate; once resolved, at its peak",
    "expected": "expected values at that sample",
    "summary": "one line for the person who is paged",
    "past": "found later than `alerts.max_age` after the event; pages nobody",
    "links": "`alerts.runbook`, and `alerts.links` with entity and times filled in",
    "evidence": "what severity is made of, in decades, see below; empty for failures",
    "looks_like": "the named group it is like, see [triage](triage.md); empty: like none",
}


def alerts_page() -> str:
    """Return the page."""
    findings, alerts = example()
    finding_type = cloudevents.type_of("finding", "<state>")
    alert_type = cloudevents.type_of("alert", "<state>")
    return f"""# Findings and alerts

Detect writes *findings*: an episode of one series `began`, `continues`, `ended`. The alert stage
turns those at or beyond the boundary into *alerts*: `opened`, `updated`, `resolved`, all with one
id. Subscribe to the alerts topic; read findings to see episodes below the boundary.

| | topic | record key | type |
|---|---|---|---|
| finding | `streamad.<name>.findings` | tenant | `{finding_type}` |
| alert | `streamad.<name>.alerts` | alert id, fit for compaction | `{alert_type}` |

Consumers must read committed (`isolation.level=read_committed`).

Both are [CloudEvents](https://cloudevents.io) 1.0 in Kafka's binary mode: attributes are headers,
the value is JSON. JSON Schemas are in `streamad/schemas/`. Unknown numbers are null. For clients
of a schema registry, see [the Confluent wire format](schema-registry.md).

`began_ms` and `until_ms` are times of the event: its first anomalous sample, and the last one known
so far. `opened_ms`, `time_ms` and `resolved_ms` are the ends of the windows that showed it.

## An alert

Three readings of a series far above the others. The headers of the record that opened the alert:

{_headers(alerts[0])}

Its value:

{_body(alerts[0])}

The one that resolved it:

{_body(alerts[-1])}

{_table(Alert)}

## Severity

`severity` is evidence over the boundary, both in decades (factors of ten of a p-value): 1.0 is
where an alert opens, at most 10. The boundary is `alerts.level`, or what the
[budget](page-budget.md) of the group affords now. `evidence` has what it is made of:

| part | decades |
|---|---|
| `rarity` | -log10 of the smallest p-value |
| `breadth` | with a budget: log10 of how many series of the group went wrong at the time |
| `asset` | log10 of the weight of its asset |
| `lasting` | 0.3 log10(1 + hours), 0.3 at most: it makes an alert more severe and opens none |

```yaml
name: shop
findings: [streamad.hosts.findings]
budget: 10 per week
assets:                          # the first that matches counts; 1 without any
  - match: {{service: checkout}}   # shell patterns; also on key, group, pipeline, detector, kind
    weight: 4
  - match: {{key: "test-*"}}
    weight: 0.1
severities: severities.json      # of `streamad alerts severities`
```

A weight of 4 counts an event as four times as rare as it is: a p-value divided by a weight, as in
[weighted testing](https://doi.org/10.1093/biomet/93.3.509). It moves pages between series; a budget
keeps their number. Silence (`no_data`) stands at 1.0 and grows as it lasts; failures stay at 1.0.

**In a word**, an incident is `info`, `warning` from 1.0, `error` from 2.0, `critical` from 3.0
(`level`; pagers send it). People mean other things by these words, so answer with yours:

```sh
streamad alerts ack alerting.yaml 3fa2c1 --as real --severity critical
streamad alerts severities alerting.yaml -o severities.json
```

The second command fits a rising curve from evidence to words (isotonic regression) to ten answers
or more; the default steps count for half an answer each quarter of a step. It prints the C-index,
the share of pairs of answers that are ordered as people do (.5 is chance), and how often the word
is theirs, of answers that took no part in the fit. The curve is of evidence in decades, because the
boundary under severity moves with the budget. Words change what pagers show; what pages stays the
budget's.

## A finding

The finding that opened the episode:

{_body(findings[0])}

{_table(Finding)}"""


DASHBOARD = "https://grafana.example.org/d/host?var-host={host}&from={from_ms}&to={to_ms}"


def example() -> tuple[list[Finding], list[Alert]]:
    """Run a pipeline over a series with one disturbance; return all it yields."""
    config = PipelineConfig.model_validate(
        {
            "name": "hosts",
            "input": {"topics": "metrics", "fields": {"key": ["host", "metric"]}},
            "detector": "robust_z",
            "windows": {"size": 32},
            "alerts": {
                "group": "host",
                "runbook": "https://wiki.example.org/hosts",
                "links": {"dashboard": DASHBOARD},
            },
        }
    )
    detect = DetectOperator(config, DETECTORS.load("robust_z")(size=32))
    at = Position(topic="metrics", partition=3)
    out = detect.process(detect.new_state(), _series(), at=at)
    alert = AlertOperator(config)
    alerts = alert.process(alert.new_state(), [(f, f.window_end_ms) for f in out.findings])
    return out.findings, alerts


def _series(n: int = 200) -> SignalBatch:
    # A fixed sequence without a generator: the page must be the same on every machine.
    values = np.array([10 + (i * 7919 % 101) / 101 for i in range(n)], np.float64)
    values[SPIKE] += 60
    number = np.arange(n)
    return SignalBatch(
        keys=pl.Series("key", ["web-1/cpu"] * n, dtype=pl.String),
        time_ms=START_MS + STEP_MS * number.astype(np.int64),
        values=values.reshape(-1, 1),
        message=number.astype(np.int32),
        row=np.zeros(n, np.int32),
        offsets=4_000 + number.astype(np.int64),
        broker_ms=START_MS + STEP_MS * number.astype(np.int64),
    )


def _headers(record: Finding | Alert) -> str:
    pairs = cloudevents.encode(record).headers
    return "```\n" + "\n".join(f"{name}: {text.decode()}" for name, text in pairs) + "\n```"


def _body(record: Finding | Alert) -> str:
    body = _rounded(json.loads(cloudevents.encode(record).value))
    return "```json\n" + json.dumps(body, indent=2) + "\n```"


def _rounded(value: Any) -> Any:
    """Return a JSON value with few digits: the last ones differ between machines."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    return value


def _table(kind: type[Finding] | type[Alert]) -> str:
    types = schema_of(kind)["properties"]
    rows = (
        f"| `{field.name}` | {_type(types[field.name])} | {FIELDS[field.name]} |"
        for field in fields(kind)
    )
    return "\n".join(["| field | type | what |", "|---|---|---|", *rows])


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    given = schema.get("type", "object")
    return " or ".join(given) if isinstance(given, list) else str(given)
