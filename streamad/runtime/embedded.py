"""Both stages in one process, in memory: for a notebook, a test, a demo, or a small service.

The same operators as everywhere else, so the same records give the same alerts, live or replayed,
in whatever batches they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.incidents import Digest, Incident
from streamad.operators.detect import DetectOperator, DetectOutput
from streamad.paging.desk import Desk, DeskOutput
from streamad.records import Alert, Finding, RecordBatch, Rejected, ScoreBatch


def _ignore(_: Any) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who else wants to see what a batch yielded, called in this order and before the alerts.

    late : rows that came too late for their window, as a batch of their own columns
    """

    scores: Callable[[ScoreBatch], None] = _ignore
    rejected: Callable[[Rejected], None] = _ignore
    late: Callable[[LateRows], None] = _ignore
    finding: Callable[[Finding], None] = _ignore
    incident: Callable[[Incident], None] = _ignore
    digest: Callable[[Digest], None] = _ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRows:
    """Rows of a batch that came too late: their indices in it."""

    batch: RecordBatch[Any]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a pipeline knows after the input before ``offset``.

    header, keys, arrays : the shard, as `ShardState.save` gives it; alerts : records by alert id.
    """

    offset: int
    header: dict[str, Any]
    keys: pl.Series
    arrays: dict[str, NDArray[Any]]
    alerts: dict[str, dict[str, Any]]


class AlertSink(Protocol):
    """Where alerts go."""

    def write(self, alerts: list[Alert]) -> None:
        """Take alerts; they are durable after `flush`."""

    def flush(self) -> None:
        """Return once everything written is durable; raise where it cannot be."""


class CheckpointStore(Protocol):
    """Where the state is kept between two lives of a process."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint instead of the one before; all or nothing."""


class EmbeddedPipeline:
    """Detect and alert, from batches to alerts.

    clock : the wall clock in ms; it stamps findings as a broker would, and decides nothing but
        which alerts are ``past`` and when an error alert is over.

    Examples
    --------
    >>> from streamad.config import parse_pipeline
    >>> from streamad.detectors import DETECTORS
    >>> from streamad.testing.batches import make_batch
    >>> config = parse_pipeline("{name: demo, detector: robust_z, scoring: {min_windows: 0}}")
    >>> operator = DetectOperator(config, DETECTORS.load("robust_z")(size=64))
    >>> pipeline = EmbeddedPipeline(config, operator, clock=lambda: 90_000)
    >>> calm = [("host-1/cpu", t * 1000, 12.4 + 0.1 * (t % 7)) for t in range(80)]
    >>> for alert in pipeline.feed(make_batch([*calm, ("host-1/cpu", 80_000, 97.2)])):
    ...     print(alert.state, alert.summary.partition(";")[0])
    opened host-1/cpu is 97.2, expected about 12.7, since 00:01:20 UTC
    """

    def __init__(
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        clock: Callable[[], int],
        *,
        hooks: Hooks = Hooks(),
    ) -> None:
        self.config, self.operator = config, operator
        self.counts: Counter[str] = Counter()
        self._clock, self._hooks = clock, hooks
        self._shard = operator.new_state()
        self._desk = Desk(config)
        self._alerts = self._desk.new_state()
        self._records: dict[str, dict[str, Any]] = {}
        self._offset = 0

    @property
    def open_alerts(self) -> list[Alert]:
        """Return the alerts that are open, as last sent."""
        return self._alerts.alerts.open_alerts

    @property
    def offset(self) -> int:
        """Return the offset after the last message fed."""
        return self._offset

    def feed(self, batch: RecordBatch[Any]) -> list[Alert]:
        """Take a batch, in offset order; return the alerts to send."""
        out = self.operator.process(self._shard, batch)
        if len(batch):
            self._offset = max(self._offset, int(batch.offsets[batch.message[-1]]) + 1)
        if len(out.late):
            self._hooks.late(LateRows(batch=batch, rows=out.late))
        return self._pass_on(out)

    def tick(self, now_ms: int) -> list[Alert]:
        """Let time pass while no record comes: keys fall silent, quiet errors resolve."""
        alerts = self._pass_on(self.operator.tick(self._shard, now_ms))
        return alerts + self._sent(self._desk.tick(self._alerts, self._clock()))

    def deliver(
        self,
        batch: RecordBatch[Any],
        *,
        sink: AlertSink,
        store: CheckpointStore,
        commit: Callable[[int], None],
    ) -> list[Alert]:
        """Feed a batch and make it last: flush, then save, then commit.

        A process killed in between repeats its last batch after `restore`; the alerts are the same
        by id and sequence, so whoever reads them may drop the repeats.
        """
        alerts = self.feed(batch)
        sink.write(alerts)
        sink.flush()
        store.save(self.checkpoint())
        commit(self._offset)
        return alerts

    def checkpoint(self) -> Checkpoint:
        """Return everything the pipeline knows."""
        header, keys, arrays = self._shard.save(self.operator.identity)
        for alert_id, record in self._alerts.drain_changes().items():
            if record is None:
                self._records.pop(alert_id, None)
            else:
                self._records[alert_id] = record
        return Checkpoint(
            offset=self._offset,
            header=header,
            keys=keys,
            arrays=arrays,
            alerts=dict(self._records),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, before anything was fed; StateError where it does not fit."""
        self._shard.restore(
            checkpoint.header,
            checkpoint.keys,
            checkpoint.arrays,
            identity=self.operator.identity,
        )
        self._records = dict(checkpoint.alerts)
        self._alerts.load(self._records)
        self._offset = checkpoint.offset

    def _pass_on(self, out: DetectOutput) -> list[Alert]:
        self.counts.update(out.counts)
        for scores in out.scores:
            self._hooks.scores(scores)
        for rejected in out.rejected:
            self._hooks.rejected(rejected)
        for finding in out.findings:
            self._hooks.finding(finding)
        recorded_ms = self._clock()
        findings = [(finding, recorded_ms) for finding in out.findings]
        return self._sent(self._desk.process(self._alerts, findings))

    def _sent(self, out: DeskOutput) -> list[Alert]:
        for incident in out.incidents:
            self._hooks.incident(incident)
        for digest in out.digests:
            self._hooks.digest(digest)
        return out.alerts
