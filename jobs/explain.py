"""Why was there an alert, or none: one window of one key, told from the scores log.

Pure: rows, findings and alerts come in, an account goes out. Where they come from is the matter of
`jobs.explain_sources`, how it looks that of `jobs.explain_view`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streamad.config import PipelineConfig, ScoringConfig
from streamad.errors import StreamadError, nearest
from streamad.operators.alert import severity
from streamad.operators.wording import clock, number, one_line
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Alert,
    Finding,
    ScoreBatch,
)

AROUND = 30
"""Windows shown on either side of the one asked for."""

MAX_KEYS_NAMED = 5

Outcome = Literal["alert", "finding", "candidate", "suppressed", "ordinary", "not_scored"]

FLAG_WORDS = {
    FLAG_INCOMPLETE: "incomplete",
    FLAG_WARMING: "warming up",
    FLAG_EPISODE: "in an episode",
    FLAG_CANDIDATE: "candidate",
    FLAG_ERROR: "detector failed",
    FLAG_SUPPRESSED: "suppressed",
}


class NoSuchWindowError(StreamadError):
    """The log holds no window of that key; the message offers the nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The windows about the one asked for; NaN where a window was not scored."""

    end_ms: tuple[int, ...]
    score: tuple[float, ...]
    level: tuple[float, ...]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of one window, and why.

    finding : of the episode the window lies in, the one nearest in time; severity : of that
    episode's peak; reasons : sentences, the deciding one first.
    """

    key: str
    asked_ms: int
    window_end_ms: int
    outcome: Outcome
    score: float | None
    level: float | None
    p_value: float | None
    severity: float | None
    flags: tuple[str, ...]
    reasons: tuple[str, ...]
    finding: Finding | None
    alert: Alert | None
    around: Around


@dataclass(frozen=True, slots=True)
class _Window:
    """One row of the log."""

    end_ms: int
    score: float
    level: float
    p_value: float
    flags: int

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)


def explain_rows(
    scores: ScoreBatch,
    *,
    key: str,
    at_ms: int,
    config: PipelineConfig,
    findings: Iterable[Finding] = (),
    alerts: Iterable[Alert] = (),
) -> Account:
    """Tell what became of the window of ``key`` nearest to ``at_ms``.

    scores : rows of any keys in any order, each window at least once
    """
    rows = _rows_of(scores, key)
    ends = scores.end_ms[rows]
    place = int(np.abs(ends - at_ms).argmin())
    window = _window(scores, int(rows[place]))
    mine = [f for f in findings if f.key == key]
    episode = _episode_at(mine, window)
    finding = min(episode, key=lambda f: abs(f.window_end_ms - window.end_ms)) if episode else None
    alert = _alert_of(finding, alerts)
    value = _severity_of(episode, config)
    run = _candidates_in_a_row(scores.flags[rows], place)
    outcome, reasons = _judge(window, config, run=run, episode=episode, alert=alert)
    told = [*reasons, *_distance(window, at_ms), *_beside(mine, window)]
    return Account(
        key=key,
        asked_ms=at_ms,
        window_end_ms=window.end_ms,
        outcome=outcome,
        score=_known(window.score),
        level=_known(window.level),
        p_value=_known(window.p_value),
        severity=value,
        flags=tuple(word for flag, word in FLAG_WORDS.items() if window.has(flag)),
        reasons=tuple(told),
        finding=finding,
        alert=alert,
        around=_around(scores, rows, place),
    )


# ---------------------------------------------------------------------- the window


def _rows_of(scores: ScoreBatch, key: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the rows of a key in the order of its windows, each window once, its newest row."""
    rows = np.flatnonzero((scores.keys == key).to_numpy())
    if not len(rows):
        raise NoSuchWindowError(_no_key(key, scores))
    # From the back, so that of a window logged twice the later row stays.
    windows = np.column_stack([scores.end_ms[rows], scores.ordinal[rows]])
    _, last = np.unique(windows[::-1], axis=0, return_index=True)
    return rows[::-1][last]


def _no_key(key: str, scores: ScoreBatch) -> str:
    known = scores.keys.unique().drop_nulls().sort().to_list()
    if not known:
        return "the scores log has no window at that time; check the topic, the file and the time"
    near = nearest(key, known)
    some = ", ".join(known[:MAX_KEYS_NAMED]) + (", ..." if len(known) > MAX_KEYS_NAMED else "")
    hint = f"did you mean {near!r}?" if near else f"its keys are {some}"
    return f"the scores log has no window of {key!r} around that time; {hint}"


def _window(scores: ScoreBatch, row: int) -> _Window:
    return _Window(
        int(scores.end_ms[row]),
        float(scores.score[row]),
        float(scores.level[row]),
        float(scores.p_value[row]),
        int(scores.flags[row]),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _around(
    scores: ScoreBatch, rows: np.ndarray[tuple[int], np.dtype[np.int64]], place: int
) -> Around:
    start = max(0, place - AROUND)
    near = rows[start : place + AROUND + 1]
    return Around(
        end_ms=tuple(scores.end_ms[near].tolist()),
        score=tuple(scores.score[near].astype(float).tolist()),
        level=tuple(scores.level[near].astype(float).tolist()),
        place=place - start,
    )


def _candidates_in_a_row(flags: np.ndarray[tuple[int], np.dtype[np.uint8]], place: int) -> int:
    """Count the candidates that end with this window; windows not scored do not break the row."""
    run = 0
    for flag in flags[: place + 1][::-1].tolist():
        if flag & (FLAG_INCOMPLETE | FLAG_WARMING | FLAG_ERROR):
            continue
        if not flag & FLAG_CANDIDATE:
            break
        run += 1
    return run


# ---------------------------------------------------------------------- its episode


def _episode_at(findings: Sequence[Finding], window: _Window) -> list[Finding]:
    """Return the findings of the episode a window lies in, in order."""
    episodes: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: f.sequence):
        if finding.kind == "anomaly":
            episodes.setdefault(finding.id, []).append(finding)
    belongs = window.has(FLAG_EPISODE) or window.has(FLAG_CANDIDATE)
    for episode in sorted(episodes.values(), key=lambda e: -e[0].began_ms):
        if belongs and _covers(episode, window.end_ms):
            return episode
    return []


def _covers(episode: Sequence[Finding], end_ms: int) -> bool:
    last = episode[-1]
    over = last.state == "ended" and end_ms > last.window_end_ms
    return episode[0].began_ms <= end_ms and not over


def _alert_of(finding: Finding | None, alerts: Iterable[Alert]) -> Alert | None:
    """Return the newest record of an episode's alert: they share one id."""
    if finding is None:
        return None
    same = [alert for alert in alerts if alert.id == finding.id]
    return max(same, key=lambda alert: alert.sequence, default=None)


def _severity_of(episode: Sequence[Finding], config: PipelineConfig) -> float | None:
    if not episode:
        return None
    return max(severity(f.peak_p_value, level=config.alerts.level) for f in episode)


# ---------------------------------------------------------------------- why


def _judge(
    window: _Window,
    config: PipelineConfig,
    *,
    run: int,
    episode: Sequence[Finding],
    alert: Alert | None,
) -> tuple[Outcome, list[str]]:
    scoring = config.scoring
    if math.isnan(window.score):
        return "not_scored", [_not_scored(window, config)]
    if window.has(FLAG_SUPPRESSED) and window.score >= window.level:
        return "suppressed", [_compared(window, scoring), _suppressed(scoring)]
    if episode or window.has(FLAG_EPISODE):
        inside = [_compared(window, scoring), *_inside(window, scoring)]
        if alert is not None:
            return "alert", [_alerted(alert), *inside]
        return "finding", [_no_alert(episode, config), *inside]
    if window.has(FLAG_CANDIDATE):
        return "candidate", [_compared(window, scoring), _no_episode(scoring, run)]
    return "ordinary", [_compared(window, scoring)]


def _compared(window: _Window, scoring: ScoringConfig) -> str:
    verdict = "reached" if window.score >= window.level else "was below"
    return (
        f"score {number(window.score)} {verdict} this key's entry level {number(window.level)} "
        f"(p = {window.p_value:.2g}; a candidate has {scoring.candidate:g} or less)"
    )


def _not_scored(window: _Window, config: PipelineConfig) -> str:
    if window.has(FLAG_INCOMPLETE):
        share = config.series.gaps.max_share
        return (
            f"not scored: more than {share:.0%} of its samples were missing (series.gaps.max_share)"
        )
    if window.has(FLAG_WARMING):
        name = config.detector.name
        return f"not scored: {name} was still warming up on this key; an artifact avoids that"
    if window.has(FLAG_ERROR):
        return "not scored: the detector failed on it"
    return "not scored"


def _suppressed(scoring: ScoringConfig) -> str:
    effect, rules = scoring.min_effect, []
    if scoring.direction != "both":
        rules.append(f"it must be {scoring.direction} the expected value (scoring.direction)")
    if effect.absolute > 0:
        rules.append(f"by {number(effect.absolute)} or more (scoring.min_effect.absolute)")
    if effect.relative > 0:
        rules.append(f"by {effect.relative:.0%} or more (scoring.min_effect.relative)")
    return "anomalous, but suppressed: " + ", ".join(rules)


def _no_episode(scoring: ScoringConfig, run: int) -> str:
    if run < scoring.min_duration:
        return (
            f"no episode yet: it was consecutive candidate {run}, "
            f"and scoring.min_duration requires {scoring.min_duration}"
        )
    return (
        f"no episode: fewer than scoring.min_windows = {scoring.min_windows} windows of this key "
        "had been scored, or its finding is not among those read"
    )


def _inside(window: _Window, scoring: ScoringConfig) -> list[str]:
    if window.score >= window.level:
        return []
    return [
        f"an episode was open: it ends after scoring.cool_down = {scoring.cool_down} "
        f"consecutive windows below its exit level (p above {scoring.exit:g})"
    ]


def _alerted(alert: Alert) -> str:
    opened = clock(alert.opened_ms, dated=True)
    text = f"alert {alert.id[:12]} opened at {opened} UTC, peak severity {alert.peak_severity:.1f}"
    if alert.resolved_ms is not None:
        text += f", resolved at {clock(alert.resolved_ms, dated=True)} UTC"
    if alert.past:
        text += "; marked as past (older than alerts.max_age when found), so it paged nobody"
    return text


def _no_alert(episode: Sequence[Finding], config: PipelineConfig) -> str:
    if not episode:
        return "an episode was open, but none of its findings is among those read"
    level = config.alerts.level
    best = min(f.peak_p_value for f in episode)
    value = severity(best, level=level)
    if value < 1.0:
        return (
            f"finding, but no alert: severity {value:.2f} < 1.0 "
            f"(its peak has p = {best:.2g}; alerts.level is {level:g})"
        )
    return (
        f"severity {value:.2f} is enough for an alert, but none is among those read: "
        "does the alert stage run, and has it caught up?"
    )


def _distance(window: _Window, at_ms: int) -> list[str]:
    away_s = abs(window.end_ms - at_ms) / 1000
    when = clock(window.end_ms, dated=True)
    return (
        [f"nearest window: ends at {when} UTC, {away_s:g} s from the requested time"]
        if away_s
        else []
    )


def _beside(findings: Sequence[Finding], window: _Window) -> list[str]:
    """Tell of silence and failures about that time."""
    told = []
    for finding in findings:
        near = finding.window_start_ms <= window.end_ms <= finding.window_end_ms
        if finding.kind != "anomaly" and finding.state == "began" and near:
            kind = "no data" if finding.kind == "no_data" else "detector error"
            told.append(f"{kind}: {one_line(finding.reason)}")
    return list(dict.fromkeys(told))
