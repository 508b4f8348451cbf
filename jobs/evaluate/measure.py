"""The figures of one series: how its scores rank, and what its alerts are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.offline.score import Scored
from jobs.offline.tables import Table
from streamad.evaluation.alerts import (
    AlertQuality,
    Episodes,
    alert_quality,
    rarer_than_promised,
)
from streamad.evaluation.nab import NabParts, nab_parts
from streamad.evaluation.vus import auc_pr, auc_roc, vus
from streamad.records import Alert

WEEK_MS = 604_800_000
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one detector reached on the rows of one series that count.

    rows : so many count; weeks : they last, None where the file has no times; measures are NaN
    where there is no anomaly; delays_ms : of the anomalies found, empty without times; windows,
    below : ordinary windows, and those of them with a p-value below each of `PROMISES`; newest_* :
    the same of the look at the newest samples; nab : see `NabParts`
    """

    rows: int
    weeks: float | None
    vus_pr: float
    vus_roc: float
    auc_pr: float
    auc_roc: float
    quality: AlertQuality
    delays_ms: tuple[int, ...]
    windows: int
    below: tuple[int, ...]
    newest_windows: int
    newest_below: tuple[int, ...]
    nab: NabParts


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """What a picture of a series needs beside its values: rows of the whole series.

    alerts : opened, first and last row of each; scores : of each row, NaN where there is none
    """

    alerts: list[tuple[int, int, int]]
    scores: NDArray[np.float64]


def figures_by_key(
    table: Table,
    scored: Scored,
    *,
    train_end: int,
    buffer: int | None = None,
    slack: int | None = None,
) -> Iterator[tuple[str, Figures, Spans]]:
    """Yield the figures of every series of a table that has labels.

    buffer, slack : as for `Loaded`; None: of each series' own period
    """
    from jobs.evaluate.layouts import own_buffer, slack_of

    if table.labelled is None:
        return
    frame = _by_point(table, scored.frame)
    counted = np.arange(len(table)) >= train_end * table.width
    newest = _newest(scored)
    for key in table.batch.keys.filter(pl.Series(table.usable)).unique(maintain_order=True):
        own = np.flatnonzero((table.batch.keys == key).to_numpy() & table.usable)
        begin = int((~counted[own]).sum())
        if begin == len(own):
            continue
        wide = own_buffer(table.batch.values[own, 0]) if buffer is None else buffer
        yield (
            str(key),
            *_measure(
                table,
                frame[own],
                own,
                begin=begin,
                alerts=[one for one in scored.alerts if one.key == key],
                newest=newest.get(str(key)),
                buffer=wide,
                slack=slack_of(wide, len(own)) if slack is None else slack,
            ),
        )


def _measure(  # noqa: PLR0913 - all but three by keyword
    table: Table,
    frame: pl.DataFrame,
    own: Rows,
    *,
    begin: int,
    alerts: Sequence[Alert],
    newest: pl.DataFrame | None,
    buffer: int,
    slack: int,
) -> tuple[Figures, Spans]:
    assert table.labelled is not None  # noqa: S101 its caller looked
    labels = table.labelled[own][begin:].astype(np.int8)
    times = table.batch.time_ms[own]
    scores = frame["score"].to_numpy().astype(np.float64)
    judged = frame["incomplete"].to_numpy() == 0
    p = np.where(judged, frame["p_value"].to_numpy(), np.nan)[begin:]
    spans = _spans(alerts, times)
    episodes = _episodes(spans, begin)
    quality = alert_quality(labels, episodes, slack=slack)
    volumes = vus(labels, scores[begin:], window=buffer)
    windows, below = rarer_than_promised(p, labels, near=2 * slack)
    late = np.full(len(own), np.nan)
    if newest is not None:
        late[np.searchsorted(times, newest["end"].to_numpy())] = newest["p"].to_numpy()
    newest_windows, newest_below = rarer_than_promised(late[begin:], labels, near=2 * slack)
    dated = table.time is not None and table.dated
    figures = Figures(
        rows=len(labels),
        weeks=float(times[-1] - times[begin]) / WEEK_MS if dated else None,
        vus_pr=volumes.pr,
        vus_roc=volumes.roc,
        auc_pr=auc_pr(labels, scores[begin:]),
        auc_roc=auc_roc(labels, scores[begin:]),
        quality=quality,
        delays_ms=_delays_ms(labels, episodes, quality, times[begin:], slack) if dated else (),
        windows=windows,
        below=below,
        newest_windows=newest_windows,
        newest_below=newest_below,
        nab=nab_parts(labels, episodes.opened),
    )
    return figures, Spans(alerts=spans, scores=np.where(judged, scores, np.nan))


def _by_point(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Return scores in the order of the table's points; they come in that of the file's rows."""
    places = np.empty(len(table), np.int64)
    places[np.argsort(table.row, kind="stable")] = np.arange(len(table))
    return frame.select("score", "p_value", "incomplete")[places]


def _newest(scored: Scored) -> dict[str, pl.DataFrame]:
    """Return ``end`` and ``p`` of the looks at the newest samples by key, one per window."""
    parts = [
        pl.DataFrame({"key": one.keys, "end": one.end_ms, "p": one.newest_p})
        for one in scored.scores
        if len(one)
    ]
    if not parts:
        return {}
    whole = pl.concat(parts)
    return {str(key): part for (key,), part in whole.group_by("key", maintain_order=True)}


def _spans(alerts: Sequence[Alert], times: Rows) -> list[tuple[int, int, int]]:
    """Return the rows at which alerts opened, and the first and last of their events."""
    first: dict[str, Alert] = {}
    last: dict[str, Alert] = {}
    for alert in alerts:
        if alert.kind == "anomaly":
            first.setdefault(alert.id, alert)
            last[alert.id] = alert
    made = []
    for name, alert in first.items():
        final = last[name]
        began = min(alert.began_ms, final.began_ms)
        row = int(np.searchsorted(times, alert.opened_ms))
        start = int(np.searchsorted(times, began))
        stop = int(np.searchsorted(times, max(final.until_ms, began), side="right")) - 1
        row, start = min(row, len(times) - 1), min(start, len(times) - 1)
        made.append((row, start, max(stop, start)))
    return sorted(made)


def _episodes(spans: Sequence[tuple[int, int, int]], begin: int) -> Episodes:
    """Return the alerts that opened on rows that count, with rows from the first of these."""
    kept = [(row - begin, max(a - begin, 0), max(b - begin, 0)) for row, a, b in spans]
    rows = np.array([one for one in kept if one[0] >= 0], np.int64).reshape(-1, 3)
    return Episodes(opened=rows[:, 0], first=rows[:, 1], last=rows[:, 2])


def _delays_ms(
    labels: NDArray[np.int8], episodes: Episodes, quality: AlertQuality, times: Rows, slack: int
) -> tuple[int, ...]:
    """Return the delays in ms: from an anomaly's first row to the opening that found it."""
    begins = np.flatnonzero(np.diff(labels, prepend=np.int8(0)) == 1)
    ends = np.flatnonzero(np.diff(labels, append=np.int8(0)) == -1)
    made = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        opens = episodes.opened
        ours = opens[(opens >= begin - slack) & (opens <= end + 2 * slack)]
        if len(ours):
            made.append(int(times[ours[0]] - times[begin]))
    if len(made) != quality.found:
        msg = f"{quality.found} anomalies were found and {len(made)} have a delay"
        raise AssertionError(msg)
    return tuple(made)


def as_record(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON has them; what is not defined is null."""
    one = figures.quality
    made: dict[str, Any] = {
        name: getattr(figures, name)
        for name in (
            "rows", "weeks", "vus_pr", "vus_roc", "auc_pr", "auc_roc", "delays_ms", "windows",
            "below", "newest_windows", "newest_below", "nab",
        )
    }  # fmt: skip
    made |= {
        "episodes": one.episodes, "true": one.true, "false": one.false,
        "anomalies": one.anomalies, "found": one.found, "by_chance": round(one.by_chance, 4),
        "delays": one.delays, "in_alert": round(one.in_alert, 5),
    }  # fmt: skip
    return {name: _plain(value) for name, value in made.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
