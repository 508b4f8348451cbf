"""Grafana's dashboards, from a short description: titles, units, and queries of our metrics."""

from __future__ import annotations

import json
from typing import Any

from connectors.telemetry import METRICS, PREFIX

Panel = tuple[str, str, str, tuple[str, ...]]
"""Title, unit, legend, expressions; ``$by`` stands for the selection at the top of the page."""

_BY = 'namespace=~"$namespace", streamad_pipeline=~"$pipeline"'
_TIME = "topic {{topic}} partition {{partition}}"

PIPELINES: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        ("Ready", "none", "{{pod}}", ("streamad_ready{$by}",)),
        ("Lag", "short", "{{topic}}", ("sum by (topic) (streamad_input_lag_messages{$by})",)),
        ("Points", "cps", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (rate(streamad_detect_points_total{$by}[$__rate_interval]))",)),
        ("Findings that began", "short", "{{streamad_pipeline}}",
         ('sum by (streamad_pipeline) (increase(streamad_detect_findings_total{$by, state="began"}[1h]))',)),
    ),
    "Input": (
        ("Messages", "cps", "{{topic}}",
         ("sum by (topic) (rate(streamad_input_messages_total{$by}[$__rate_interval]))",)),
        ("Not used, by reason", "cps", "{{reason}}",
         ("sum by (reason) (rate(streamad_input_rejected_total{$by}[$__rate_interval]))",)),
        ("Late points", "cps", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (rate(streamad_detect_points_late_total{$by}[$__rate_interval]))",)),
        ("Partitions of each member", "none", "{{pod}}", ("streamad_input_assigned_partitions{$by}",)),
    ),
    "Scoring": (
        ("Windows, and those not scored", "cps", "{{__name__}}",
         ("sum(rate(streamad_detect_windows_total{$by}[$__rate_interval]))",
          "sum(rate(streamad_detect_windows_incomplete_total{$by}[$__rate_interval]))")),
        ("Time to score a batch, p50 and p99", "s", "",
         ("histogram_quantile(0.5, sum by (le) (rate(streamad_detect_score_seconds_bucket{$by}[$__rate_interval])))",
          "histogram_quantile(0.99, sum by (le) (rate(streamad_detect_score_seconds_bucket{$by}[$__rate_interval])))")),
        ("Keys", "short", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (streamad_detect_keys{$by})",
          "sum by (streamad_pipeline) (streamad_detect_keys_waiting{$by})")),
        ("Errors, and a fallback that scores", "short", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (increase(streamad_detect_detector_errors_total{$by}[1h]))",
          "max by (streamad_pipeline) (streamad_detect_degraded{$by})")),
    ),
    "Delivery and state": (
        ("Commit, p50 and p99", "s", "",
         ("histogram_quantile(0.5, sum by (le) (rate(streamad_delivery_commit_seconds_bucket{$by}[$__rate_interval])))",
          "histogram_quantile(0.99, sum by (le) (rate(streamad_delivery_commit_seconds_bucket{$by}[$__rate_interval])))")),
        ("Aborts, retries, rebalances", "short", "{{__name__}}",
         ("sum(increase(streamad_delivery_aborts_total{$by}[10m]))",
          "sum(increase(streamad_delivery_broker_retries_total{$by}[10m]))",
          "sum(increase(streamad_delivery_rebalances_total{$by}[10m]))")),
        ("Settings and artifacts: last change taken over", "none", "{{pod}} {{__name__}}",
         ("streamad_config_last_reload_successful{$by}", "streamad_artifact_last_reload_successful{$by}")),
        ("Age of the newest snapshot", "s", _TIME,
         ("time() - streamad_state_snapshot_timestamp_seconds{$by}",)),
        ("Recovery of a partition, p99", "s", "",
         ("histogram_quantile(0.99, sum by (le) (rate(streamad_state_recovery_seconds_bucket{$by}[1h])))",)),
    ),
}  # fmt: skip

PAGING: dict[str, tuple[Panel, ...]] = {
    "Alerts and incidents": (
        ("Open alerts", "short", "{{streamad_pipeline}}", ("sum by (streamad_pipeline) (streamad_alert_open{$by})",)),
        ("Open incidents", "short", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (streamad_incident_open{$by})",)),
        ("Alerts, by state", "short", "{{state}}",
         ("sum by (state) (increase(streamad_alert_alerts_total{$by}[1h]))",)),
        ("Held back by alerts.limit, and past", "short", "{{__name__}}",
         ("sum(increase(streamad_alert_withheld_total{$by}[1h]))",
          "sum(increase(streamad_alert_past_total{$by}[1h]))")),
    ),
    "Pages": (
        ("Pages in a week", "short", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (increase(streamad_page_pages_total{$by}[7d]))",)),
        ("Overdrawn in a week", "short", "{{streamad_pipeline}}",
         ("sum by (streamad_pipeline) (increase(streamad_page_overdrawn_total{$by}[7d]))",)),
        ("Withheld, by reason", "short", "{{reason}}",
         ("sum by (reason) (increase(streamad_page_withheld_total{$by}[1h]))",)),
        ("Answers of people", "short", "{{verdict}}",
         ("sum by (verdict) (increase(streamad_feedback_answers_total{$by}[1d]))",)),
    ),
    "Pagers": (
        ("Oldest page that waits", "s", "{{pager}}", ("max by (pager) (streamad_page_oldest_seconds{$by})",)),
        ("Records that wait", "short", "{{pager}}", ("sum by (pager) (streamad_page_queue_records{$by})",)),
        ("Attempts, by result", "cps", "{{pager}} {{result}}",
         ("sum by (pager, result) (rate(streamad_page_sent_total{$by}[$__rate_interval]))",)),
    ),
}  # fmt: skip


def dashboards() -> dict[str, str]:
    """Return each dashboard's file name and JSON."""
    made = {
        "streamad-pipelines.json": _dashboard(
            "streamad: pipelines", "streamad-pipelines", PIPELINES
        ),
        "streamad-paging.json": _dashboard("streamad: alerts and pages", "streamad-paging", PAGING),
    }
    return {name: json.dumps(one, indent=1) + "\n" for name, one in made.items()}


def _dashboard(title: str, uid: str, rows: dict[str, tuple[Panel, ...]]) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row, its in rows.items():
        panels.append(
            _at(len(panels), {"type": "row", "title": row, "collapsed": False}, y, 0, 24, 1)
        )
        width = 24 // len(its)
        for i, panel in enumerate(its):
            panels.append(_at(len(panels), _panel(panel), y + 1, i * width, width, 8))
        y += 9
    return {
        "title": title,
        "uid": uid,
        "tags": ["streamad"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_DATASOURCE, *map(_variable, _VARIABLES)]},
        "annotations": {"list": []},
        "panels": panels,
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_DATASOURCE = {
    "name": "datasource",
    "type": "datasource",
    "query": "prometheus",
    "label": "Prometheus",
}
_VARIABLES = {"namespace": "namespace", "pipeline": "streamad_pipeline"}


def _variable(name: str) -> dict[str, Any]:
    query = f"label_values({PREFIX}build_info, {_VARIABLES[name]})"
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel) -> dict[str, Any]:
    title, unit, legend, expressions = panel
    (first, *_) = (name for name in METRICS if PREFIX + name in expressions[0])
    return {
        "type": "timeseries",
        "title": title,
        "description": METRICS[first].help,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": _SOURCE,
                "expr": expression.replace("$by", _BY),
                "legendFormat": legend or "__auto",
            }
            for i, expression in enumerate(expressions)
        ],
    }


def _at(number: int, panel: dict[str, Any], y: int, x: int, w: int, h: int) -> dict[str, Any]:
    return {"id": number + 1, **panel, "gridPos": {"x": x, "y": y, "w": w, "h": h}}
