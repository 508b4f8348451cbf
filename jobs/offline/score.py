"""``streamad score``: one score a row of a file, through exactly the code that judges live.

Rows before ``train_end`` may be fitted on; later ones only come. The score of row t uses no row
after t + lag: the window that ends at row e judges row e - lag, and both stand in the detector's
declaration. A row no window judged carries its key's last score and is marked ``incomplete``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.files import ROW_MS
from jobs.build import (
    check_detector,
    detector_info,
    from_artifact,
    make,
    make_detector,
    require_trained,
    settled,
)
from jobs.offline.judged import Account
from jobs.offline.readiness import samples, still_learning
from jobs.offline.tables import Table
from streamad.artifacts import load_artifact, load_seeds
from streamad.config import PipelineConfig
from streamad.errors import ConfigError, TrainingError
from streamad.operators.detect import DetectOperator
from streamad.paging.desk import Desk
from streamad.records import Alert, Finding, ScoreBatch, SignalBatch
from streamad.training.fit import Fitted, fit_detector, rows_of
from streamad.windows.keys import KeyTable
from streamad.windows.signals import SignalWindows
from streamad.wording import duration

CHUNK = 8_192
"""Rows given to the operator at once; it decides nothing, only how often progress is told."""
FOREVER = "36500d"
"""Keys of a file are not forgotten, however far apart its rows are."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores of a table.

    frame : one row a point of the table; size, lag : samples; alerts : what would have been sent;
    n_points : points from ``train_end`` on; n_incomplete : those of them that carry an earlier
    score; account, scores : what became of them in the operator;
    step_ms : time between rows, None where the file has no times; notes : what else must be said.
    """

    frame: pl.DataFrame
    detector: str
    size: int
    lag: int
    alerts: list[Alert]
    n_points: int
    n_incomplete: int
    n_errors: int
    account: Account
    operator: DetectOperator
    scores: list[ScoreBatch]
    findings: list[Finding]
    step_ms: int | None = None
    notes: tuple[str, ...] = ()


def pipeline_for(
    table: Table,
    *,
    detector: str,
    params: Mapping[str, Any] | None = None,
    size: int | None = None,
    artifact: str | None = None,
) -> PipelineConfig:
    """Return the pipeline a bare file stands for: every row a sample, defaults for all else."""
    return PipelineConfig.model_validate(
        {
            "name": "score",
            "input": {"fields": {"values": table.columns, "key": table.key or ("key",)}},
            "series": {"ttl": FOREVER, "max_ahead": FOREVER},
            "windows": {"size": "auto" if size is None else size},
            "detector": {"name": detector, "params": dict(params or {}), "artifact": artifact},
        }
    )


def fit_table(
    table: Table,
    config: PipelineConfig,
    *,
    train_end: int | None = None,
    facts: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _step: None,
) -> Fitted:
    """Fit the configured detector on the rows before ``train_end`` (None: on all)."""
    stop = len(table) if train_end is None else train_end * table.width
    rows = np.flatnonzero(table.usable[:stop])
    config = settled(config)
    return fit_detector(
        lambda size: make(config.detector.name, size=size, params=config.detector.params),
        config,
        rows_of(table.batch, rows),
        facts=facts,
        progress=progress,
    )


def score_table(
    table: Table,
    config: PipelineConfig,
    *,
    train_end: int | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Scored:
    """Score every row of a table in its order; see the module for what a score may know."""
    check_detector(config)
    if train_end is not None and not 0 < train_end < table.n_rows:
        msg = f"--train-end must lie in 1 .. {table.n_rows - 1} (the file has {table.n_rows} rows)"
        raise ConfigError(msg)
    begun = (train_end or 0) * table.width
    operator, begin, note = _operator(table, config, train_end)
    rows = _streamed_rows(operator, table, begin)
    batch = rows_of(table.batch, rows)
    n_before = int((rows < begin).sum())
    heard = _stream(operator, batch, progress, n_before=n_before)
    late = np.zeros(len(table), np.bool_)
    late[rows[heard.late]] = True
    accepted = rows[~late[rows]]
    alerts = alerts_of(config, heard.findings)
    spans_ms = [
        last - first for key, first, last in key_spans(batch).rows() if not operator.covers(key)
    ]
    step_ms = None if table.time is None else _step(batch)
    young = still_learning(spans_ms, operator, step_ms=step_ms)
    if young and table.time is None:
        young += f"; without times a row counts as {duration(ROW_MS)}"
    judged = _judged_rows(table.batch, accepted, heard.scores, operator.detector.lag)
    frame = _frame(table, judged, alerts)
    return Scored(
        frame=frame.sort("row", maintain_order=True),
        detector=operator.detector.info.name,
        size=operator.detector.size,
        lag=operator.detector.lag,
        alerts=alerts,
        n_points=len(frame) - begun,
        n_incomplete=int(frame["incomplete"][begun:].sum()),
        n_errors=heard.n_errors,
        step_ms=step_ms,
        account=heard.account,
        operator=operator,
        scores=heard.scores,
        findings=heard.findings,
        notes=tuple(
            one for one in (note, young, *heard.account.notes(operator, dated=table.dated)) if one
        ),
    )


def _step(batch: SignalBatch) -> int | None:
    """Return the median time between two rows of a key, in ms."""
    steps = pl.DataFrame({"key": batch.keys, "time": batch.time_ms}).select(
        pl.col("time").diff().over("key")
    )
    median = steps["time"].median()
    return int(median) if isinstance(median, float) and median > 0 else None


def key_spans(batch: SignalBatch) -> pl.DataFrame:
    """Return of each key its ``first`` and ``last`` time."""
    return (
        pl.DataFrame({"key": batch.keys, "time": batch.time_ms})
        .group_by("key")
        .agg(first=pl.col("time").min(), last=pl.col("time").max())
    )


# ------------------------------------------------------------------ the operator


def _operator(
    table: Table, config: PipelineConfig, train_end: int | None
) -> tuple[DetectOperator, int, str]:
    """Return the operator, the row judging begins at, and what there is to say about that."""
    if config.detector.artifact is not None:
        detector, manifest = load_artifact(config.detector.artifact, config)
        seeds = load_seeds(config.detector.artifact, manifest)
        operator = from_artifact(config, detector, manifest, seeds=seeds)
        return operator, (train_end or 0) * table.width, ""
    note = ""
    if train_end is not None:
        try:
            fitted = fit_table(table, config, train_end=train_end)
        except TrainingError as error:
            if detector_info(config.detector.name).needs_training:
                raise
            note = f"started without training: {error}"
        else:
            operator = from_artifact(config, fitted.detector, fitted.manifest, seeds=fitted.seeds)
            return operator, train_end * table.width, ""
    require_trained(config)
    return DetectOperator(config, make_detector(config)), 0, note


def _streamed_rows(operator: DetectOperator, table: Table, train_end: int) -> NDArray[np.int64]:
    """Return the rows to stream: all from ``train_end`` on, and those that fill the first window.

    A key's first full window closes with its first row after the training part, so that nothing but
    a full window stands between training and the first score.
    """
    coming = np.flatnonzero(table.usable[train_end:]) + train_end
    before = np.flatnonzero(table.usable[:train_end])
    if len(before) == 0:
        return coming
    batch = rows_of(table.batch, before)
    codes, created = KeyTable(len(batch)).encode(batch.keys)
    windows = SignalWindows(operator.plan)
    windows.state.reserve(len(created))
    late = np.zeros(len(batch), np.bool_)
    for _ in windows.ingest(codes, batch.time_ms, batch.values, late):
        pass
    on_time = np.flatnonzero(~late)
    frame = pl.DataFrame({"row": before[on_time], "code": codes[on_time]})
    last = frame.filter(pl.int_range(pl.len()).reverse().over("code") < operator.plan.size - 1)
    return np.concatenate([last["row"].to_numpy(), coming])


@dataclass(slots=True, kw_only=True)
class _Heard:
    """All an operator yielded; ``late`` are places in what was streamed."""

    scores: list[ScoreBatch]
    findings: list[Finding]
    late: NDArray[np.int64]
    account: Account
    n_errors: int


def _stream(
    operator: DetectOperator, batch: SignalBatch, progress: Progress, *, n_before: int
) -> _Heard:
    """Stream rows; what is found in the first ``n_before``, the context, is not heard."""
    state = operator.new_state()
    heard = _Heard(
        scores=[], findings=[], late=np.empty(0, np.int64), account=Account(), n_errors=0
    )
    late = []
    starts = [*range(0, n_before, CHUNK), *range(n_before, len(batch), CHUNK)]
    for start, stop in pairwise([*starts, len(batch)]):
        part = batch.take(start, stop)
        out = operator.process(state, part)
        heard.account.take(part, out)
        if start >= n_before:
            heard.scores += out.scores
            heard.findings += out.findings
        heard.n_errors += out.counts["detector_errors"]
        late.append(out.late + start)
        progress(start + len(part), len(batch))
    heard.late = np.concatenate(late) if late else heard.late
    return heard


def alerts_of(config: PipelineConfig, findings: list[Finding]) -> list[Alert]:
    """Return the alerts that findings would have made, in event time."""
    desk = Desk(config)
    return desk.process(desk.new_state(), [(f, f.window_end_ms) for f in findings]).alerts


# ------------------------------------------------------------------ from windows back to rows


def _judged_rows(
    batch: SignalBatch, accepted: NDArray[np.int64], scores: list[ScoreBatch], lag: int
) -> pl.DataFrame:
    """Return ``point``, ``key``, ``end_ms``, ``score``, ``p_value`` of each row a window judged.

    A window is known by its key and its last sample's time, which no two samples of a key share.
    """
    rows = pl.DataFrame(
        {
            "key": batch.keys.gather(accepted),
            "end_ms": batch.time_ms[accepted],
            "point": accepted.astype(np.int64),
        }
    ).with_columns(pl.col("point").shift(lag).over("key"))
    parts = [
        pl.DataFrame(
            {
                "key": s.keys,
                "end_ms": s.end_ms,
                "score": s.score,
                "p_value": s.p_value,
                "severity": s.severity,
                "certainty": s.certainty,
            },
            schema_overrides={"certainty": pl.Float32},
        ).filter(pl.col("score").is_finite())
        for s in scores
    ]
    if not parts:
        empty = {
            "key": pl.String,
            "end_ms": pl.Int64,
            "score": pl.Float32,
            "p_value": pl.Float32,
            "severity": pl.Float32,
            "certainty": pl.Float32,
        }
        parts = [pl.DataFrame(schema=empty)]
    return pl.concat(parts).join(rows, on=["key", "end_ms"], how="inner").drop_nulls("point")


def _frame(table: Table, judged: pl.DataFrame, alerts: list[Alert]) -> pl.DataFrame:
    n = len(table)
    judged = judged.with_columns(
        pl.col("severity").cast(pl.Float64),
        alert=pl.Series(_in_alert(judged, alerts), dtype=pl.Int8),
    ).select("point", *_JUDGED)
    names = _names(table)
    columns = [table.frame[name].alias(shown) for name, shown in names.items()]
    if table.time is None:
        columns.insert(0, pl.Series("time", table.batch.time_ms))
    row = pl.Series("row", table.row, dtype=pl.Int64)
    head = [pl.Series("_point", np.arange(n, dtype=np.int64)), row, *columns]
    frame = pl.DataFrame(head).with_columns(_key=table.batch.keys)
    carried = [pl.col(c).forward_fill().over("_key") for c in _JUDGED]
    made = (
        frame.join(judged, left_on="_point", right_on="point", how="left", maintain_order="left")
        .with_columns(incomplete=pl.col("score").is_null().cast(pl.Int8))
        .with_columns(carried)
        .with_columns(
            pl.col("score").fill_null(0.0),
            pl.col("p_value").fill_null(1.0),
            pl.col("severity").fill_null(0.0),
            pl.col("alert").fill_null(0),
        )
        .drop("_key", "_point")
    )
    # Most detectors do not tell how certain they are.
    return made if made["certainty"].count() else made.drop("certainty")


_JUDGED = ("score", "p_value", "severity", "alert", "certainty")
_OURS = ("row", *_JUDGED, "incomplete")


def _names(table: Table) -> dict[str, str]:
    """Return the names that time and key have in the output: their own, where those are free."""
    names: dict[str, str] = {}
    for name in dict.fromkeys((*([table.time] if table.time else []), *table.key)):
        free = "time" if name == table.time else "key"
        names[name] = name if name not in _OURS else f"{name}_" if free in names.values() else free
    return names


def _in_alert(judged: pl.DataFrame, alerts: list[Alert]) -> NDArray[np.int8]:
    """Say which windows closed while an alert of their key was open."""
    result = np.zeros(len(judged), np.int8)
    ends = judged["end_ms"].to_numpy()
    keys = judged["key"]
    for key, spans in alert_spans(alerts).items():
        own = np.flatnonzero((keys == key).to_numpy())
        for opened, resolved in spans:
            result[own[(ends[own] >= opened) & (ends[own] <= resolved)]] = 1
    return result


def alert_spans(alerts: list[Alert]) -> dict[str, list[tuple[int, int]]]:
    """Return when alerts were open, a key: from the opening window's end to the resolving one's.

    An alert still open at the end lasts for ever. Silence is no property of a row and left out.
    """
    ends = {alert.id: alert.time_ms for alert in alerts if alert.state == "resolved"}
    spans: dict[str, list[tuple[int, int]]] = {}
    for alert in alerts:
        if alert.state == "opened" and alert.kind == "anomaly":
            spans.setdefault(alert.key, []).append(
                (alert.opened_ms, ends.get(alert.id, np.iinfo(np.int64).max))
            )
    return spans


def describe(scored: Scored, *, train_end: int | None) -> str:
    """Return in a line what was scored and how far each score looks ahead."""
    look = (
        f"the score of row t uses no row after t + {scored.lag}"
        if scored.lag
        else "the score of row t uses no later row"
    )
    n_alerts = sum(alert.state == "opened" for alert in scored.alerts)
    begun = train_end or 0
    return (
        f"{scored.detector}: windows of {scored.size} samples, "
        f"lag {samples(scored.lag, scored.step_ms)} ({look}); "
        f"{scored.n_points} rows scored from row {begun} on, {scored.n_incomplete} "
        f"incomplete, {n_alerts} alert{'' if n_alerts == 1 else 's'}"
    )
