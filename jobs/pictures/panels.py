"""What a picture shows: a panel per series, those with alerts first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.records import Alert, ScoreBatch, SignalBatch

MAX_PANELS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A time in which an alert was open: from its event's begin to its end, None: still open.

    expected : of the variates, where something else was observed; text : what is shown of it
    """

    begin_ms: int
    end_ms: int | None
    severity: float
    text: str
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A series and what was made of it.

    time_ms : int64 ``(n,)``, in order; values : ``(n, V)``; end_ms, severity : ``(w,)``, of its
    windows; labels : first and last time of what is labelled an anomaly
    """

    key: str
    time_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    end_ms: NDArray[np.int64]
    severity: NDArray[np.float32]
    bands: tuple[Band, ...] = ()
    labels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Panels over one axis of time.

    left_out : series without a panel; row_ms : what a row of the file counts for where it has no
    times, else 0
    """

    title: str
    panels: tuple[Panel, ...]
    variates: tuple[str, ...]
    n_alerts: int
    left_out: int = 0
    row_ms: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """Return the first and the last time of all panels."""
        ends = [panel.time_ms[[0, -1]] for panel in self.panels if len(panel.time_ms)]
        if not ends:
            return 0, 1
        return int(min(end[0] for end in ends)), int(max(end[1] for end in ends))


def panels_of(
    batches: Iterable[SignalBatch],
    scores: Iterable[ScoreBatch],
    alerts: Sequence[Alert],
    *,
    labels: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> tuple[tuple[Panel, ...], int]:
    """Return a panel of each series that has something to see, and how many are left out.

    Those with alerts or labels come first, then the most severe; at most `MAX_PANELS`.
    """
    bands, marked = bands_of(alerts), labels or {}
    rows = _by_key(
        pl.DataFrame({"key": b.keys, "time": b.time_ms}).with_columns(
            values=pl.Series(b.values, dtype=pl.Array(pl.Float64, b.values.shape[1]))
        )
        for b in batches
        if len(b)
    )
    judged = _by_key(
        pl.DataFrame({"key": s.keys, "end": s.end_ms, "severity": s.severity})
        for s in scores
        if len(s)
    )
    peaks = {
        key: float(np.nanmax(part["severity"].to_numpy(), initial=0))
        for key, part in judged.items()
    }
    order = sorted(
        rows,
        key=lambda key: (-len(bands.get(key, ())), key not in marked, -peaks.get(key, 0.0), key),
    )
    shown = [key for key in order if key in bands or key in marked] or order
    shown = shown[:MAX_PANELS]
    return tuple(
        _panel(key, rows[key], judged.get(key), bands.get(key, ()), marked.get(key, ()))
        for key in shown
    ), len(rows) - len(shown)


def _by_key(frames: Iterable[pl.DataFrame]) -> dict[str, pl.DataFrame]:
    parts = list(frames)
    if not parts:
        return {}
    whole = pl.concat(parts)
    return {str(key): part for (key,), part in whole.group_by("key", maintain_order=True)}


def _panel(
    key: str,
    rows: pl.DataFrame,
    judged: pl.DataFrame | None,
    bands: Sequence[Band],
    labels: Sequence[tuple[int, int]],
) -> Panel:
    rows = rows.sort("time", maintain_order=True)
    if judged is None:
        judged = pl.DataFrame(schema={"end": pl.Int64, "severity": pl.Float32})
    return Panel(
        key=key,
        time_ms=rows["time"].to_numpy(),
        values=rows["values"].to_numpy(),
        end_ms=judged["end"].to_numpy(),
        severity=judged["severity"].to_numpy(),
        bands=tuple(bands),
        labels=tuple(labels),
    )


def bands_of(alerts: Sequence[Alert]) -> dict[str, list[Band]]:
    """Return the bands of each series' alerts."""
    first: dict[str, Alert] = {}
    last: dict[str, Alert] = {}
    for alert in alerts:
        first.setdefault(alert.id, alert)
        last[alert.id] = alert
    bands: dict[str, list[Band]] = {}
    for name, alert in last.items():
        known = next((a for a in (alert, first[name]) if a.expected), alert)
        begin = min(first[name].began_ms, alert.began_ms)
        end = None if alert.resolved_ms is None else max(alert.until_ms, begin)
        bands.setdefault(alert.key, []).append(
            Band(
                begin_ms=begin,
                end_ms=end,
                severity=alert.peak_severity,
                text=alert.summary if end is not None else first[name].summary,
                expected={k: v for k, v in known.expected.items() if not isinstance(v, str)},
            )
        )
    return bands


def spans_of(time_ms: NDArray[np.int64], marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last time of each run of marked rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [
        (int(time_ms[begin]), int(time_ms[end - 1])) for begin, end in edges.reshape(-1, 2).tolist()
    ]
