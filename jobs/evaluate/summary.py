"""From results of series to figures of detectors, with what they leave open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.evaluation.alerts import PROMISES
from streamad.evaluation.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    ratio_interval,
)
from streamad.evaluation.nab import PROFILES, NabParts, nab_score

Record = Mapping[str, Any]
MEASURES = ("vus_pr", "vus_roc", "auc_pr", "auc_roc")
HEADLINE = "vus_pr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The figures of one detector.

    series : that were scored; labelled : those of them with an anomaly that counts; failed,
    skipped : series without figures; measures : means over labelled series; found : share of
    anomalies; by_chance : share the same alerts would find at random times; right : share of alerts
    that overlap an anomaly; per_week, false_per_week : alerts per week and series, over series with
    times; false_per_10k : per 10,000 rows, over all; delay_rows, delay_ms : medians of anomalies
    found, the lag included; below, newest_below : shares of ordinary windows under each of
    `PROMISES`; nab : by profile; ms_per_row : fit and all; differences : from the reference, by
    measure; sets : the headline by set
    """

    detector: str
    series: int
    labelled: int
    failed: int
    skipped: int
    measures: dict[str, Interval]
    anomalies: int
    found: Interval
    by_chance: float
    episodes: int
    right: Interval
    per_week: Interval
    false_per_week: Interval
    false_per_10k: Interval
    delay_rows: float | None
    delay_ms: float | None
    windows: int
    below: tuple[float, ...]
    newest_below: tuple[float, ...]
    nab: dict[str, float]
    ms_per_row: float
    differences: dict[str, Interval] = field(default_factory=dict)
    sets: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All of an evaluation; lines with the best headline first."""

    source: str
    layout: str
    reference: str
    series: int
    sets: dict[str, int]
    weeks: float
    anomalies: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def as_record(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return it as JSON has it, with the results of every series."""
        bare = [{k: v for k, v in one.items() if k not in ("trace", "key")} for one in records]
        made: dict[str, Any] = _without_nan({**asdict(self), "promises": PROMISES, "results": bare})
        return made


def summarise(
    records: Sequence[Record],
    detectors: Sequence[str],
    *,
    source: str,
    layout: str,
    reference: str,
    notes: Sequence[str] = (),
) -> Summary:
    """Return the figures of all detectors; reference : the one that others are compared with."""
    by_detector: dict[str, list[Record]] = {name: [] for name in detectors}
    for record in records:
        by_detector[record["detector"]].append(record)
    names = sorted({(one["set"], one["series"]) for one in records})
    sets: dict[str, int] = {}
    for name, _ in names:
        sets[name] = sets.get(name, 0) + 1
    theirs = _by_series(by_detector.get(reference, ()))
    lines = [_line(name, own, theirs, reference) for name, own in by_detector.items()]
    lines.sort(key=lambda line: -_or(line.measures[HEADLINE].value, -1.0))
    seen = {(one["set"], one["series"]): one for one in records if "rows" in one}
    return Summary(
        source=source,
        layout=layout,
        reference=reference,
        series=len(names),
        sets=sets,
        weeks=sum(one["weeks"] or 0.0 for one in seen.values()),
        anomalies=sum(one["anomalies"] for one in seen.values()),
        lines=tuple(lines),
        notes=tuple(notes),
    )


def _line(
    name: str, records: Sequence[Record], theirs: Mapping[Any, Record], reference: str
) -> Line:
    done = [one for one in records if "rows" in one]
    labelled = [one for one in done if one["anomalies"]]
    timed = [one for one in done if one["weeks"]]
    measures = {m: mean_interval(_column(labelled, m)) for m in MEASURES}
    found = ratio_interval(_column(labelled, "found"), _column(labelled, "anomalies"))
    rows = _column(done, "rows")
    delays = [d for one in done for d in one["delays"]]
    delays_ms = [d for one in done for d in one["delays_ms"]]
    windows, newest = _total(done, "windows"), _total(done, "newest_windows")
    parts = [NabParts(*one["nab"]) for one in done]
    anomalies = _total(labelled, "anomalies")
    return Line(
        detector=name,
        series=len(done),
        labelled=len(labelled),
        failed=sum("failed" in one for one in records),
        skipped=sum("skipped" in one for one in records),
        measures=measures,
        anomalies=int(anomalies),
        found=found,
        by_chance=_total(labelled, "by_chance") / anomalies if anomalies else math.nan,
        episodes=int(_total(done, "episodes")),
        right=ratio_interval(_column(done, "true"), _column(done, "episodes")),
        per_week=ratio_interval(_column(timed, "episodes"), _column(timed, "weeks")),
        false_per_week=ratio_interval(_column(timed, "false"), _column(timed, "weeks")),
        false_per_10k=ratio_interval(_column(done, "false"), rows / 1e4),
        delay_rows=float(np.median(delays)) if delays else None,
        delay_ms=float(np.median(delays_ms)) if delays_ms else None,
        windows=int(windows),
        below=_shares(done, "below", windows),
        newest_below=_shares(done, "newest_below", newest) if newest else (),
        nab={profile: nab_score(parts, profile) for profile in PROFILES},
        ms_per_row=1000 * _total(done, "seconds") / max(float(rows.sum()), 1.0),
        differences={} if name == reference else _differences(labelled, theirs),
        sets=_sets(labelled),
    )


def _differences(ours: Sequence[Record], theirs: Mapping[Any, Record]) -> dict[str, Interval]:
    """Return the mean differences on the series that both detectors have scored."""
    both = [(one, theirs[_name(one)]) for one in ours if _name(one) in theirs]
    if not both:
        return {}
    mine, other = [a for a, _ in both], [b for _, b in both]
    made = {m: paired_difference(_column(mine, m), _column(other, m)) for m in MEASURES}
    shares = [_column(x, "found") / _column(x, "anomalies") for x in (mine, other)]
    made["found"] = paired_difference(*shares)
    return made


def _sets(labelled: Sequence[Record]) -> dict[str, float]:
    made: dict[str, list[float]] = {}
    for one in labelled:
        if one[HEADLINE] is not None:
            made.setdefault(one["set"], []).append(one[HEADLINE])
    return {name: float(np.mean(values)) for name, values in sorted(made.items())}


def _shares(records: Sequence[Record], name: str, windows: float) -> tuple[float, ...]:
    if not windows:
        return ()
    sums = [sum(one[name][at] for one in records) for at in range(len(PROMISES))]
    return tuple(number / windows for number in sums)


def _by_series(records: Sequence[Record]) -> dict[Any, Record]:
    return {_name(one): one for one in records if one.get("anomalies")}


def _name(record: Record) -> tuple[str, str]:
    return record["set"], record["series"]


def _column(records: Sequence[Record], name: str) -> NDArray[np.float64]:
    values = [math.nan if one[name] is None else one[name] for one in records]
    return np.asarray(values, dtype=np.float64)


def _total(records: Sequence[Record], name: str) -> float:
    return float(sum(one[name] for one in records))


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, Interval):
        return {name: _without_nan(one) for name, one in value._asdict().items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
