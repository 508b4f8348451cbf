"""Rows of events and edges scored one by one, in the order of their file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.offline.item_files import ItemTable
from jobs.offline.judged import Account
from jobs.offline.score import Progress, alert_spans, alerts_of
from streamad.operators.detect import DetectOperator
from streamad.records import Alert, Finding, ScoreBatch
from streamad.training.fit import rows_of

CHUNK = 65_536
"""Rows given to the operator at once; it decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredItems:
    """A row of scores per row of the file, and what became of the rows."""

    frame: pl.DataFrame
    alerts: list[Alert]
    findings: list[Finding]
    account: Account
    n_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What rows in the order of time yielded; rows : of the file; kept : places among them."""

    rows: NDArray[np.int64]
    kept: list[NDArray[np.int64]]
    scores: list[ScoreBatch]
    alerts: list[Alert]
    findings: list[Finding]
    account: Account
    n_errors: int


def score_items(
    table: ItemTable,
    operator: DetectOperator,
    *,
    progress: Progress = lambda _done, _all: None,
) -> ScoredItems:
    """Judge every usable row in the order of time; return scores in the order of the file.

    A row that is not judged (no time, no end, late) has score 0, p-value 1, and is ``incomplete``.
    """
    ran = run_items(table, operator, progress=progress)
    return ScoredItems(
        frame=_frame(table, ran.rows, ran.kept, ran.scores, ran.alerts),
        alerts=ran.alerts,
        findings=ran.findings,
        account=ran.account,
        n_errors=ran.n_errors,
    )


def run_items(
    table: ItemTable,
    operator: DetectOperator,
    *,
    progress: Progress = lambda _done, _all: None,
) -> Ran:
    """Feed the usable rows of a table to an operator, in the order of time."""
    usable = np.flatnonzero(table.usable)
    rows = usable[np.argsort(table.batch.time_ms[usable], kind="stable")]
    batch = rows_of(table.batch, rows)
    state, account = operator.new_state(), Account()
    findings: list[Finding] = []
    kept: list[NDArray[np.int64]] = []
    scores: list[ScoreBatch] = []
    n_errors = 0
    for start in range(0, len(batch), CHUNK):
        part = batch.take(start, min(start + CHUNK, len(batch)))
        out = operator.process(state, part)
        account.take(part, out)
        account.reject(out.rejected)
        findings += out.findings
        n_errors += out.counts["detector_errors"]
        judged = np.ones(len(part), np.bool_)
        judged[out.late] = False
        judged &= ~np.isin(part.message, [one.message for one in out.rejected])
        kept.append(start + np.flatnonzero(judged))
        scores += out.scores
        progress(start + len(part), len(batch))
    return Ran(
        rows=rows,
        kept=kept,
        scores=scores,
        alerts=alerts_of(operator.config, findings),
        findings=findings,
        account=account,
        n_errors=n_errors,
    )


def _frame(
    table: ItemTable,
    rows: NDArray[np.int64],
    kept: list[NDArray[np.int64]],
    scores: list[ScoreBatch],
    alerts: list[Alert],
) -> pl.DataFrame:
    """Put scores beside the rows they are of: each judged row has one, in the order of rows."""
    n = len(table)
    score, p_value, severity = (np.full(n, x, np.float32) for x in (0.0, 1.0, 0.0))
    incomplete, alert = np.ones(n, np.int8), np.zeros(n, np.int8)
    place = rows[np.concatenate([*kept, np.empty(0, np.int64)])]
    made = [np.concatenate([getattr(one, name) for one in scores] or [np.empty(0, np.float32)])
            for name in ("score", "p_value", "severity")]  # fmt: skip
    known = np.isfinite(made[0])
    for column, found in zip((score, p_value, severity), made, strict=True):
        column[place[known]] = found[known]
    incomplete[place[known]] = 0
    ends, keys = table.batch.time_ms, table.batch.keys
    for key, spans in alert_spans(alerts).items():
        own = np.flatnonzero((keys == key).to_numpy())
        for opened, resolved in spans:
            alert[own[(ends[own] >= opened) & (ends[own] <= resolved)]] = 1
    own_columns = [
        column.rename(f"{column.name}_") if column.name in _OURS else column
        for column in table.frame.iter_columns()
    ]
    return pl.DataFrame(
        [
            pl.Series("row", np.arange(n, dtype=np.int64)),
            *own_columns,
            pl.Series("score", score),
            pl.Series("p_value", p_value),
            pl.Series("severity", severity),
            pl.Series("alert", alert),
            pl.Series("incomplete", incomplete),
        ]
    )


_OURS = ("row", "score", "p_value", "severity", "alert", "incomplete")
