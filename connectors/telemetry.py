"""Telemetry over prometheus_client: one declared table of metrics, and nothing beside it.

The table is the documentation (`docs/metrics.md` is generated from it) and the bound: label values
are few and known, the key of an entity is never one of them.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from streamad.errors import UnknownNameError

PREFIX = "streamad_"
DISTRIBUTION = "streamad-pipeline"
MAX_LABEL_SETS = 1_000
"""Most combinations of label values a metric may have; what comes after is counted as ``other``."""

Kind = Literal["counter", "gauge", "histogram"]
Child = Counter | Gauge | Histogram

logger = logging.getLogger(__name__)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: what it counts in which unit, and the labels that split it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _FAST


def _counter(name: str, told: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", help=told, labels=labels)


def _gauge(name: str, told: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", help=told, labels=labels)


def _histogram(name: str, told: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Metric:
    return Metric(name=name, kind="histogram", help=told, labels=labels, buckets=buckets)


_TABLE = (
    _gauge("build_info", "Always 1; the labels name the running version.", "version", "python"),
    _gauge("artifact_info", "1 for the artifact that scores.", "pipeline", "detector", "artifact"),
    _gauge(
        "artifact_last_reload_successful",
        "0 after a new artifact could not be loaded or was refused.",
        "pipeline",
    ),
    _gauge(
        "artifact_last_reload_success_timestamp_seconds",
        "When a new artifact last took over, Unix time.",
        "pipeline",
    ),
    _counter("artifact_reloads_total", "New artifacts, by what became of them.", "result"),
    _gauge(
        "config_last_reload_successful",
        "0 while the job runs by other settings than those of its file.",
        "pipeline",
    ),
    _gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the settings of the file were last taken over, or found to be unchanged, Unix time.",
        "pipeline",
    ),
    _counter("config_reloads_total", "Changed files of settings: done, refused.", "result"),
    _gauge("start_time_seconds", "Start time of the process, Unix time."),
    _gauge("ready", "1 while /readyz returns 200."),
    _counter("input_messages_total", "Kafka messages read.", "topic"),
    _counter(
        "input_quarantined_total",
        "Messages set aside because the job ended again and again with them in hand.",
        "topic",
    ),
    _counter("input_rejected_total", "Messages or rows that could not be used.", "reason"),
    _counter("input_empty_messages_total", "Messages without a point: no error."),
    _counter("input_offset_out_of_range_total", "Read positions no longer in the topic.", "topic"),
    _counter(
        "input_partitions_grown_total", "Partitions added to an input while running.", "topic"
    ),
    _counter("input_key_in_two_partitions_total", "Keys found in a second partition.", "topic"),
    _gauge("input_lag_messages", "Messages not read yet.", "topic", "partition"),
    _gauge("input_assigned_partitions", "Partitions assigned to this member."),
    _histogram("input_decode_seconds", "Time to decode one poll's messages."),
    _counter("detect_points_total", "Points accepted."),
    _counter("detect_points_late_total", "Points that arrived after their window was closed."),
    _counter(
        "detect_points_merged_total",
        "Points with the key and time of another in their message: series thrown together.",
    ),
    _counter("detect_points_deselected_total", "Points of keys that series.select leaves out."),
    _counter("detect_windows_total", "Windows closed."),
    _counter("detect_windows_incomplete_total", "Windows not scored: too many samples missing."),
    _counter("detect_graphs_cut_total", "Graphs judged without all of their edges."),
    _counter(
        "detect_graph_edges_left_out_total",
        "Edges left out of graphs at graphs.max_nodes or graphs.max_edges, once per window.",
    ),
    _counter("detect_blind_keys_total", "Times that most windows of a key came to be incomplete."),
    _gauge("detect_degraded", "1 while a fallback scores in place of the detector."),
    _counter("detect_detector_errors_total", "Windows the detector failed on."),
    _counter(
        "detect_explain_errors_total", "Findings without an explanation, because explaining failed."
    ),
    _counter("detect_findings_total", "Findings written.", "state"),
    _counter("detect_keys_silent_total", "Keys whose silence became a finding."),
    _counter("detect_keys_replaced_total", "Silent keys that others of their kind replaced."),
    _counter("detect_keys_forgotten_total", "Keys dropped after their ttl."),
    _gauge("detect_keys", "Keys held.", "topic", "partition"),
    _gauge("detect_keys_waiting", "Of these, keys without a window yet.", "topic", "partition"),
    _gauge("detect_key_bytes", "Memory per key, without its name."),
    _histogram("detect_score_seconds", "Time to score one batch."),
    _counter("alert_findings_total", "Findings read by the alert stage.", "state"),
    _counter("alert_alerts_total", "Alerts written.", "state"),
    _counter("alert_past_total", "Alerts marked as past: older than alerts.max_age."),
    _counter("alert_withheld_total", "Alerts not sent because of alerts.limit."),
    _gauge("alert_open", "Alerts that are open now."),
    _counter("incident_records_total", "Records of incidents written.", "state"),
    _gauge("incident_open", "Incidents that are open now."),
    _counter("triage_reloads_total", "New files of triage: loaded, refused.", "result"),
    _counter("page_pages_total", "Incidents that paged."),
    _counter("page_overdrawn_total", "Of these, those for which the budget had nothing left."),
    _counter("feedback_answers_total", "Answers and silences of the feedback topic.", "verdict"),
    _counter("page_withheld_total", "Incidents that did not page.", "reason"),
    _counter(
        "page_sent_total",
        "Attempts of a pager: ok, retry, refused and given_up (dead-letter records), too_late, "
        "reminder, reminder_failed; replay_over and replay_gone: replayed records of incidents "
        "that are over, or not in the topic any more.",
        "pager",
        "result",
    ),
    _counter(
        "page_silences_total",
        "Silences of Alertmanager: taken, ended (before their time), left_out; and failed: times "
        "that they could not be read or written.",
        "pager",
        "result",
    ),
    _gauge("page_queue_records", "Records of incidents that wait for a pager.", "pager"),
    _gauge("page_oldest_seconds", "How long the oldest of them has been waiting.", "pager"),
    _counter("delivery_records_total", "Records written.", "output"),
    _counter("delivery_aborts_total", "Transactions aborted; their input is read again."),
    _counter("delivery_broker_retries_total", "Retried calls to the broker.", "operation"),
    _counter("delivery_rebalances_total", "Rebalances: partitions were reassigned."),
    _gauge(
        "delivery_uncommitted_since_timestamp_seconds",
        "Time since which input is in hand that is not committed, Unix time; 0: none.",
        "stage",
    ),
    _histogram("delivery_commit_seconds", "Time from flush to the end of a transaction."),
    _gauge(
        "state_snapshot_timestamp_seconds",
        "Time of the last snapshot, Unix time; its age is time() minus this.",
        "topic",
        "partition",
    ),
    _gauge("state_snapshot_bytes", "Size of the last snapshot.", "topic", "partition"),
    _histogram("state_snapshot_seconds", "Time to write a snapshot.", buckets=_SLOW),
    _histogram("state_recovery_seconds", "Time to recover a partition.", buckets=_SLOW),
    _counter("telemetry_undeclared_total", "Values reported under an undeclared name or label."),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _TABLE}
"""Every metric by the name a caller gives; Prometheus sees it with ``streamad_`` before it."""

DETECT_COUNTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "points": ("detect_points_total", {}),
    "late": ("detect_points_late_total", {}),
    "deselected": ("detect_points_deselected_total", {}),
    "windows": ("detect_windows_total", {}),
    "merged": ("detect_points_merged_total", {}),
    "incomplete": ("detect_windows_incomplete_total", {}),
    "cut": ("detect_graphs_cut_total", {}),
    "left_out": ("detect_graph_edges_left_out_total", {}),
    "blind": ("detect_blind_keys_total", {}),
    "detector_errors": ("detect_detector_errors_total", {}),
    "explain_errors": ("detect_explain_errors_total", {}),
    "silent": ("detect_keys_silent_total", {}),
    "replaced": ("detect_keys_replaced_total", {}),
    "forgotten": ("detect_keys_forgotten_total", {}),
    "findings_began": ("detect_findings_total", {"state": "began"}),
    "findings_continues": ("detect_findings_total", {"state": "continues"}),
    "findings_ended": ("detect_findings_total", {"state": "ended"}),
}
"""``DetectOutput.counts`` by metric."""


class PrometheusTelemetry:
    """Count into a registry of its own, so that two jobs in one process do not meet.

    Parameters
    ----------
    strict : bool
        Raise on a name or label that is not declared, as tests do. A job that detects must not
        stop over its own telemetry: it counts the slip and says so once.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._told: set[str] = set()
        self._sets: dict[str, set[tuple[str, ...]]] = {name: set() for name in METRICS}
        self.registry = CollectorRegistry()
        self._made = {name: self._make(metric) for name, metric in METRICS.items()}
        self.gauge("build_info", 1, version=_version(), python=platform.python_version())

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""
        child = self._child(name, "counter", labels)
        if isinstance(child, Counter) and n > 0:
            child.inc(n)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say what something is now."""
        child = self._child(name, "gauge", labels)
        if isinstance(child, Gauge):
            child.set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Enter one value into a histogram."""
        child = self._child(name, "histogram", labels)
        if isinstance(child, Histogram):
            child.observe(value)

    def forget(self, **labels: str) -> None:
        """Drop every gauge of these labels: of a partition that another member has by now."""
        for name, metric in METRICS.items():
            if metric.kind != "gauge" or set(metric.labels) != labels.keys():
                continue
            values = tuple(labels[label] for label in metric.labels)
            if values in self._sets[name]:
                self._made[name].remove(*values)
                self._sets[name].discard(values)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _make(self, metric: Metric) -> Child:
        name, labels = PREFIX + metric.name, metric.labels
        if metric.kind == "counter":
            return Counter(name, metric.help, labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(name, metric.help, labels, registry=self.registry)
        return Histogram(name, metric.help, labels, registry=self.registry, buckets=metric.buckets)

    def _child(self, name: str, kind: Kind, labels: Mapping[str, str]) -> Child | None:
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind or set(metric.labels) != labels.keys():
            self._slip(name, kind, labels)
            return None
        if not labels:
            return self._made[name]
        values = tuple(str(labels[label]) for label in metric.labels)
        seen = self._sets[name]
        if values not in seen:
            if len(seen) >= MAX_LABEL_SETS:
                values = ("other",) * len(values)
            seen.add(values)
        return self._made[name].labels(*values)

    def _slip(self, name: str, kind: Kind, labels: Mapping[str, str]) -> None:
        if self._strict:
            if name not in METRICS:
                raise UnknownNameError(kind="metric", got=name, known=METRICS)
            metric = METRICS[name]
            msg = (
                f"{name} is a {metric.kind} with the labels {list(metric.labels)}, "
                f"got a {kind} with {sorted(labels)}"
            )
            raise ValueError(msg)
        self._made["telemetry_undeclared_total"].inc()  # type: ignore[union-attr]
        if name not in self._told and len(self._told) < MAX_LABEL_SETS:
            self._told.add(name)
            logger.warning("metric not declared", extra={"metric": name, "kind": kind})


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def table() -> str:
    """Return the declared metrics as a Markdown table."""
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or ""
        lines.append(f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines)
