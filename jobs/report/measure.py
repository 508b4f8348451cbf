"""A back-test in numbers: what would page at each budget, what it would find, and what to expect.

All times are event time. A page is an incident that paged; weeks count from the first row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import polars as pl

from jobs.offline.backtest import DAY_MS, FLAP_WINDOWS, Backtest, count_flaps, spans
from jobs.report.budgets import Tried
from jobs.report.labels import Anomaly, Detected, detect, labelled_windows
from jobs.report.records import (
    PROMISES,
    AnomalyLine,
    Calibration,
    IncidentLine,
    KeyLine,
    Learning,
    Outcome,
    Report,
    Similar,
)
from jobs.report.watch import Watch
from streamad.config import PipelineConfig
from streamad.evaluation.concordance import concordance
from streamad.incidents import Incident

WEEK_MS = 7 * DAY_MS
MOST_DAYS = 400
MOST_INCIDENTS, MOST_KEYS, MOST_ANOMALIES, MOST_SIMILAR, MOST_NAMED = 25, 20, 50, 3, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a report is measured on; labels : None where the input has none."""

    made: Backtest
    watch: Watch
    tried: Sequence[Tried]
    config: PipelineConfig
    source: str
    soak_ms: int
    gap_ms: int
    artifact: str = ""
    degraded: str = ""
    label: str | None = None
    anomalies: Sequence[Anomaly] | None = None
    marked: pl.DataFrame | None = None
    notes: tuple[str, ...] = ()


def measure(given: Inputs) -> Report:
    """Return the report of a replay."""
    made, watch = given.made, given.watch
    slack_ms = max(made.window_ms, given.gap_ms)
    found: dict[str, Detected | None] = {}
    outcomes = []
    for one in given.tried:
        records = by_id(one.decided.incidents)
        detected = None
        if given.anomalies is not None:
            detected = detect(given.anomalies, records, slack_ms=slack_ms)
        found[one.name] = detected
        outcomes.append(_outcome(one, records, detected, made))
    chosen = next(one for one in given.tried if one.configured)
    records, detected = by_id(chosen.decided.incidents), found[chosen.name]
    first = watch.first_judged
    return Report(
        pipeline=given.config.name,
        source=given.source,
        detector=given.config.detector.name,
        artifact=given.artifact,
        degraded=given.degraded,
        label=given.label,
        first_ms=made.first_ms,
        last_ms=made.last_ms,
        weeks=made.days / 7,
        points=made.counts["points"],
        keys=len(made.keys),
        windows=made.counts["windows"],
        incomplete=made.counts["incomplete"],
        late=made.counts["late"],
        rejected=dict(made.account.rejected.most_common()),
        passed=dict(made.account.passed.most_common()),
        details=dict(made.account.details),
        outcomes=tuple(outcomes),
        incidents=_incidents(chosen, records, detected),
        top_keys=_top_keys(chosen, records, made),
        anomalies=_anomalies(detected, first),
        n_anomalies=len(given.anomalies or ()),
        calibration=_calibration(given),
        learning=_learning(made, first, given.soak_ms),
        notes=given.notes,
    )


def by_id(incidents: Sequence[Incident]) -> dict[str, list[Incident]]:
    """Return the records of each incident, in order."""
    made: dict[str, list[Incident]] = {}
    for record in incidents:
        made.setdefault(record.id, []).append(record)
    return made


# ------------------------------------------------------------------ one budget


def _outcome(
    one: Tried, records: Mapping[str, list[Incident]], detected: Detected | None, made: Backtest
) -> Outcome:
    last = [held[-1] for held in records.values()]
    paged = [record.paged_ms for record in last if record.paged_ms is not None]
    withheld = [record for record in last if record.paged_ms is None]
    alerts = spans(one.decided.alerts)
    weeks = made.days / 7
    delays = detected.delays_ms if detected else []
    return Outcome(
        name=one.name,
        asked=one.asked,
        configured=one.configured,
        alerts=len(alerts),
        incidents=len(last),
        pages=len(paged),
        per_week=len(paged) / weeks if weeks else 0.0,
        overdrawn=sum(record.overdrawn for record in last),
        withheld=dict(Counter(reason_of(record) for record in withheld).most_common()),
        flaps=count_flaps(alerts, within_ms=FLAP_WINDOWS * made.window_ms),
        groups=len({record.group for record in last}) or 1,
        by_day=_binned(paged, made, DAY_MS),
        by_week=_binned(paged, made, WEEK_MS),
        withheld_by_week=_binned([record.opened_ms for record in withheld], made, WEEK_MS),
        found=detected.count("paged") if detected else None,
        found_withheld=detected.count("withheld") if detected else None,
        missed=detected.count("missed") if detected else None,
        true_pages=detected.true_pages if detected else None,
        false_pages=detected.false_pages if detected else None,
        delay_ms=round(median(delays)) if delays else None,
        c_index=_c_index([r.severity for r in last], last, detected),
        c_index_strength=_c_index([r.strength for r in last], last, detected),
    )


def _c_index(
    values: Sequence[float], last: Sequence[Incident], detected: Detected | None
) -> float | None:
    """Return how well values order incidents that touch a label above those that do not."""
    if detected is None:
        return None
    known = [
        (v, i.id in detected.true) for v, i in zip(values, last, strict=True) if np.isfinite(v)
    ]
    found = concordance([v for v, _ in known], [true for _, true in known])
    return None if np.isnan(found) else found


def reason_of(record: Incident) -> str:
    """Return why an incident did not page; of a silence without its name."""
    return record.withheld.partition(":")[0] or "not yet"


def _binned(times_ms: Sequence[int], made: Backtest, width_ms: int) -> tuple[int, ...]:
    """Return the numbers of times in each bin from the first row on; the newest bins of many."""
    if made.first_ms is None or made.last_ms is None:
        return ()
    n = (made.last_ms - made.first_ms) // width_ms + 1
    at = np.clip((np.array(times_ms, np.int64) - made.first_ms) // width_ms, 0, n - 1)
    return tuple(np.bincount(at, minlength=n)[-MOST_DAYS:].tolist())


# ------------------------------------------------------------------ the configured one


def _incidents(
    chosen: Tried, records: Mapping[str, list[Incident]], detected: Detected | None
) -> tuple[IncidentLine, ...]:
    """Return the incidents that paged, strongest first, then those that did not."""
    alerts = {alert.id: alert for alert in chosen.decided.alerts}
    by_leader: dict[str, list[Incident]] = defaultdict(list)
    for held in records.values():
        by_leader[held[-1].members[0].key].append(held[-1])
    last = [held[-1] for held in records.values()]
    last.sort(key=lambda one: (one.paged_ms is None, -one.strength, one.began_ms))
    made = []
    for one in last[:MOST_INCIDENTS]:
        leader = one.members[0]
        alert = alerts.get(leader.alert)
        earlier = [i for i in by_leader[leader.key] if i.began_ms < one.began_ms]
        earlier.sort(key=lambda i: -i.began_ms)
        made.append(
            IncidentLine(
                id=one.id,
                summary=one.summary,
                leader=leader.key,
                group=one.group,
                began_ms=one.began_ms,
                until_ms=one.until_ms,
                resolved=one.resolved_ms is not None,
                severity=one.severity,
                strength=one.strength,
                threshold=one.threshold,
                paged_ms=one.paged_ms,
                overdrawn=one.overdrawn,
                withheld=one.withheld,
                n_members=one.n_members,
                members=tuple(dict.fromkeys(m.key for m in one.members))[:MOST_NAMED],
                detectors=one.detectors,
                artifact=leader.artifact,
                causes=tuple(f"{c.entity}: {c.reason}" for c in one.causes[:3]),
                shares=dict(alert.explanation) if alert else {},
                expected={
                    name: value
                    for name, value in (alert.expected if alert else {}).items()
                    if not isinstance(value, str) and np.isfinite(value)
                },
                links=one.links,
                real=None if detected is None else one.id in detected.true,
                similar=tuple(_similar(i, detected) for i in earlier[:MOST_SIMILAR]),
            )
        )
    return tuple(made)


def _similar(one: Incident, detected: Detected | None) -> Similar:
    return Similar(
        began_ms=one.began_ms,
        until_ms=one.until_ms,
        withheld="" if one.paged_ms is not None else reason_of(one),
        real=None if detected is None else one.id in detected.true,
    )


def _top_keys(
    chosen: Tried, records: Mapping[str, list[Incident]], made: Backtest
) -> tuple[KeyLine, ...]:
    found = spans(chosen.decided.alerts)
    alerts = Counter(span.key for span in found)
    open_ms: Counter[str] = Counter()
    end_ms, begin_ms = made.last_ms or 0, made.first_ms or 0
    for span in found:
        until_ms = end_ms if span.resolved_ms is None else span.resolved_ms
        open_ms[span.key] += max(until_ms - span.opened_ms, 0)
    pages: Counter[str] = Counter()
    withheld: Counter[str] = Counter()
    for held in records.values():
        where = withheld if held[-1].paged_ms is None else pages
        where[held[-1].members[0].key] += 1
    whole_ms = max(end_ms - begin_ms, 1)
    order = sorted(alerts, key=lambda key: (-pages[key], -withheld[key], -alerts[key], key))
    return tuple(
        KeyLine(
            key=key,
            alerts=alerts[key],
            pages=pages[key],
            withheld=withheld[key],
            open_share=min(open_ms[key] / whole_ms, 1.0),
        )
        for key in order[:MOST_KEYS]
    )


def _anomalies(detected: Detected | None, first: Mapping[str, int]) -> tuple[AnomalyLine, ...]:
    """Return labelled anomalies, those that did not page first."""
    if detected is None:
        return ()
    order = sorted(
        detected.fates,
        key=lambda f: (("missed", "withheld", "paged").index(f.what), f.anomaly.begin_ms),
    )
    never = np.iinfo(np.int64).max
    return tuple(
        AnomalyLine(
            keys=fate.anomaly.keys[:MOST_NAMED],
            begin_ms=fate.anomaly.begin_ms,
            end_ms=fate.anomaly.end_ms,
            fate=fate.what,
            after_ms=fate.after_ms,
            learning=all(
                fate.anomaly.begin_ms < first.get(key, never) for key in fate.anomaly.keys
            ),
        )
        for fate in order[:MOST_ANOMALIES]
    )


# ------------------------------------------------------------------ promises, and learning


def _calibration(given: Inputs) -> tuple[Calibration, ...]:
    windows = given.watch.windows()
    if windows.is_empty():
        return ()
    chosen = {"all": np.ones(len(windows), np.bool_)}
    if given.marked is not None and len(given.marked):
        inside = labelled_windows(windows, given.marked, window_ms=given.made.window_ms)
        chosen["without a label"] = ~inside
    made = []
    for of, rows in chosen.items():
        for look, column in (("score", "p"), ("newest look", "newest_p")):
            p = windows[column].to_numpy()[rows]
            p = p[np.isfinite(p)]
            if len(p):
                seen = tuple(float((p < promise).mean()) for promise in PROMISES)
                made.append(Calibration(look=look, of=of, windows=len(p), seen=seen))
    return tuple(made)


def _learning(made: Backtest, first: Mapping[str, int], soak_ms: int) -> Learning:
    never = sorted(key for key in made.keys if key not in first)
    took = {
        key: max(first[key] - begin, 0) for key, (begin, _) in made.keys.items() if key in first
    }
    whole = sum(end - begin for begin, end in made.keys.values())
    before = sum(took.values()) + sum(made.keys[key][1] - made.keys[key][0] for key in never)
    longest = max(took, key=lambda key: took[key]) if took else ""
    return Learning(
        series=len(made.keys),
        never=len(never),
        never_named=tuple(never[:MOST_NAMED]),
        median_ms=round(median(took.values())) if took else None,
        longest_ms=took.get(longest),
        longest_key=longest,
        share=min(before / whole, 1.0) if whole else 0.0,
        soak_ms=soak_ms,
    )
