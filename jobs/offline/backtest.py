"""Which alerts a pipeline would have raised on what has already been.

The two operators that run live, over the same rows. Findings are taken in the order of their event
time and as if each had been written when its window closed, so that neither the size of batches nor
the day of the back-test changes an alert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl

from jobs.offline.judged import Account, with_dates
from jobs.offline.pauses import with_pauses
from jobs.offline.replay import Part, between
from jobs.offline.score import key_spans
from streamad.alerting.config import AlertingConfig
from streamad.incidents import Digest, Incident
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator, Position
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.state import DeskState
from streamad.records import Alert, Finding, ScoreBatch, SignalBatch

DAY_MS = 86_400_000
TICK_MS = 60_000
"""How often time passes while no finding comes, as in the alert stage."""
STEPS = 20
"""Longer pauses are passed in steps of this share of the time that has passed already."""
FLAP_WINDOWS = 2
"""An alert that opens within so many windows' length of its key's last one is a flap."""


class Watch(Protocol):
    """Who else wants to see each batch and what the operator yielded."""

    def take(self, batch: SignalBatch, out: DetectOutput, at: Position) -> None:
        """Take a batch; it decides nothing of the replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a desk made of findings.

    n_limited : alerts that ``alerts.limit`` kept back; groups : that could page
    """

    alerts: list[Alert] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    n_limited: int = 0
    groups: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Backtest:
    """What a replay found.

    keys : first and last time of each; points, scores : what was judged and how, where they are
    kept: to be drawn, or written
    """

    decided: Decided = field(default_factory=Decided)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None
    window_ms: int = 0
    account: Account = field(default_factory=Account)
    points: list[SignalBatch] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)

    @property
    def alerts(self) -> list[Alert]:
        """Return the alerts of the settings as they are."""
        return self.decided.alerts

    @property
    def incidents(self) -> list[Incident]:
        """Return the records of incidents of the settings as they are."""
        return self.decided.incidents

    @property
    def digests(self) -> list[Digest]:
        """Return what did not page, as it would have been reported."""
        return self.decided.digests

    @property
    def days(self) -> float:
        """Return how much event time was replayed."""
        if self.first_ms is None or self.last_ms is None:
            return 0.0
        return max(self.last_ms - self.first_ms, 1) / DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The times between which an alert was open (None: it still is)."""

    id: str
    key: str
    kind: str
    opened_ms: int
    resolved_ms: int | None
    peak_severity: float
    summary: str


def replay(  # noqa: PLR0913 - all but two by keyword
    operator: DetectOperator,
    parts: Iterable[Part],
    *,
    begin_ms: int | None = None,
    end_ms: int | None = None,
    keep_points: bool = False,
    keep_scores: bool = False,
    alerting: AlertingConfig | None = None,
    watch: Watch | None = None,
) -> Backtest:
    """Run recorded input through detect and alert; each partition is a shard of its own.

    alerting : in place of what the pipeline alone asks for
    """
    made = Backtest()
    shards = {}
    spacing: list[int] = []
    asked = ((part, between(part.decoded.batch, begin_ms, end_ms)) for part in parts)
    read = with_pauses(asked, max_ahead=operator.config.series.max_ahead)
    for (part, batch), resumed in read:
        if part.source not in shards:
            shards[part.source] = operator.new_state()
        made.account.reject(part.decoded.rejected)
        at = Position(topic=part.source.topic, partition=part.source.partition)
        out = operator.process(shards[part.source], batch, at=at, resumed=resumed)
        made.account.reject(out.rejected)
        made.account.take(batch, out)
        made.counts.update({name: n for name, n in out.counts.items() if name != "rejected"})
        made.findings += out.findings
        spacing += [_spacing(scores.keys, scores.end_ms) for scores in out.scores]
        _enlarge(made, with_dates(batch))
        if watch is not None:
            watch.take(batch, out, at)
        if keep_points:
            made.points.append(with_dates(batch))
        if keep_scores:
            made.scores += out.scores
    known = [ms for ms in spacing if ms > 0]
    made.window_ms = int(np.median(known)) * operator.detector.size if known else 0
    in_order(made.findings)
    config = alerting or AlertingConfig.of(operator.config)
    made.decided = decide(config, made.findings, end_ms=made.last_ms)
    made.counts["withheld"] = made.decided.n_limited
    return made


def in_order(findings: list[Finding]) -> None:
    """Sort findings as a desk is to take them: by event time, whatever the batches were."""
    findings.sort(key=lambda f: (f.window_end_ms, f.key, f.kind, f.sequence))


def decide(
    config: AlertingConfig, findings: Sequence[Finding], *, end_ms: int | None = None
) -> Decided:
    """Return what a desk makes of findings in order, each as if written when its window closed.

    end_ms : when the replay ends: until then what was quiet resolves, and what was held back pages

    Time passes between findings, too, as it does live.
    """
    desk = Desk(config)
    state, out = desk.new_state(), DeskOutput()
    first = 0
    for after in [*_pauses(findings), len(findings)]:
        _add(out, desk.process(state, [(f, f.window_end_ms) for f in findings[first:after]]))
        until_ms = findings[after].window_end_ms if after < len(findings) else end_ms
        if until_ms is not None:
            _wait(desk, state, until_ms, out)
        first = after
    if end_ms is not None:
        _add(out, desk.tick(state, end_ms))
    return Decided(
        alerts=out.alerts,
        incidents=out.incidents,
        digests=out.digests,
        n_limited=state.alerts.counts["alerts_withheld"],
        groups=tuple(state.budgets),
    )


def _pauses(findings: Sequence[Finding]) -> list[int]:
    """Return the findings before which none came for a while, by number."""
    end_ms = np.array([one.window_end_ms for one in findings], np.int64)
    return [int(at) + 1 for at in np.flatnonzero(np.diff(end_ms) > TICK_MS)]


def _wait(desk: Desk, state: DeskState, until_ms: int, out: DeskOutput) -> None:
    """Let time pass before ``until_ms``, in steps that grow with the time that has passed."""
    began_ms = now_ms = state.clock_ms
    if began_ms < 0:
        return  # No finding has come.
    while (now_ms := now_ms + max(TICK_MS, (now_ms - began_ms) // STEPS)) < until_ms:
        _add(out, desk.tick(state, now_ms))


def _add(out: DeskOutput, more: DeskOutput) -> None:
    out.alerts += more.alerts
    out.incidents += more.incidents
    out.digests += more.digests


def _spacing(keys: pl.Series, end_ms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    """Return the median time between two windows of a key, 0 where no key has two."""
    steps = pl.DataFrame({"key": keys, "end": end_ms}).select(pl.col("end").diff().over("key"))
    median = steps["end"].median()
    return int(median) if isinstance(median, float) else 0


def _enlarge(made: Backtest, batch: SignalBatch) -> None:
    if not len(batch):
        return
    first, last = int(batch.time_ms.min()), int(batch.time_ms.max())
    made.first_ms = first if made.first_ms is None else min(made.first_ms, first)
    made.last_ms = last if made.last_ms is None else max(made.last_ms, last)
    for key, first, last in key_spans(batch).rows():
        known = made.keys.get(key, (first, last))
        made.keys[key] = min(known[0], first), max(known[1], last)


def spans(alerts: Iterable[Alert]) -> list[Span]:
    """Return one span an alert, in the order they opened."""
    opened: dict[str, Alert] = {}
    last: dict[str, Alert] = {}
    for alert in alerts:
        opened.setdefault(alert.id, alert)
        last[alert.id] = alert
    return [
        Span(
            id=alert.id,
            key=alert.key,
            kind=alert.kind,
            opened_ms=alert.opened_ms,
            resolved_ms=last[alert.id].resolved_ms,
            peak_severity=last[alert.id].peak_severity,
            summary=alert.summary,
        )
        for alert in opened.values()
    ]


def count_flaps(found: list[Span], *, within_ms: int) -> int:
    """Return how many alerts opened right after their key's last one had been resolved."""
    ended: dict[tuple[str, str], int] = {}
    flaps = 0
    for span in sorted(found, key=lambda s: s.opened_ms):
        before = ended.get((span.key, span.kind))
        if before is not None and span.opened_ms - before <= within_ms:
            flaps += 1
        if span.resolved_ms is not None:
            ended[span.key, span.kind] = span.resolved_ms
    return flaps
