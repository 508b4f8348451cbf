"""Why was there an alert, or none: one window of one key, told from the scores log.

Pure: rows, findings and alerts come in, an account goes out. Where they come from is the matter of
`jobs.explain.sources`, how it looks that of `jobs.explain.view`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from streamad.alerts.severity import severity
from streamad.config import PipelineConfig
from streamad.config.decisions import ScoringConfig
from streamad.config.values import format_duration
from streamad.errors import StreamadError, nearest
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
from streamad.wording import clock, number, one_line

AROUND = 30
"""Windows shown on either side of the one asked for."""

MAX_KEYS_NAMED = 5

Look = Literal["centred", "newest", "frozen", ""]

Outcome = Literal[
    "alert", "finding", "silent", "failing", "candidate", "suppressed", "ordinary", "not_scored"
]

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
    """The windows about the one asked for, by the look that decided it; NaN: not scored."""

    end_ms: tuple[int, ...]
    score: tuple[float, ...]
    level: tuple[float, ...]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of one window, and why.

    finding : of the episode the window lies in, the one nearest in time, or that the key was silent
    or its detector failing at the time asked for; score, level, p_value : of
    the centred look, newest, newest_level, newest_p : of the look at the newest samples (None where
    the detector has none); severity : of the window, from the log; decided_by : the look that
    decided, "" where nothing was scored; reasons : sentences, the deciding one first.
    """

    key: str
    asked_ms: int
    window_end_ms: int
    outcome: Outcome
    score: float | None
    level: float | None
    p_value: float | None
    newest: float | None
    newest_level: float | None
    newest_p: float | None
    severity: float | None
    decided_by: Look
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
    newest: float
    newest_level: float
    newest_p: float
    severity: float
    flags: int

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    @property
    def has_newest(self) -> bool:
        return not math.isnan(self.newest) and not math.isnan(self.newest_level)

    @property
    def decided_by(self) -> Look:
        """Return the look that decided.

        That is the one furthest beyond its level; the centred one is not evidence where it reached
        its level and the window is no candidate. A candidate below both levels stood still.
        """
        if math.isnan(self.score):
            return ""
        centred = self.score >= self.level
        newest = self.has_newest and self.newest >= self.newest_level
        if self.has(FLAG_CANDIDATE) and not centred and not newest:
            return "frozen"
        if not self.has_newest or centred != newest:
            return "newest" if newest else "centred"
        return "newest" if self.newest * self.level > self.score * self.newest_level else "centred"


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
    run = _candidates_in_a_row(scores.flags[rows], place)
    outcome, reasons = _judge(window, config, run=run, episode=episode, alert=alert)
    for kind, instead in (("no_data", "silent"), ("error", "failing")):
        open_then = _open_at(mine, at_ms, kind)
        if open_then and outcome not in {"alert", "finding"}:
            finding, outcome = open_then[-1], cast("Outcome", instead)
            alert = _alert_of(finding, alerts)
            reasons = [_of_kind(open_then), *([_alerted(alert)] if alert else []), *reasons]
    told = [*reasons, *_distance(window, at_ms), *_beside(mine, window)]
    return Account(
        key=key,
        asked_ms=at_ms,
        window_end_ms=window.end_ms,
        outcome=outcome,
        score=_known(window.score),
        level=_known(window.level),
        p_value=_known(window.p_value),
        newest=_known(window.newest),
        newest_level=_known(window.newest_level),
        newest_p=_known(window.newest_p),
        severity=_known(window.severity),
        decided_by=window.decided_by,
        flags=tuple(word for flag, word in FLAG_WORDS.items() if window.has(flag)),
        reasons=tuple(told),
        finding=finding,
        alert=alert,
        around=_around(scores, rows, place, look=window.decided_by),
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
        float(scores.newest[row]),
        float(scores.newest_level[row]),
        float(scores.newest_p[row]),
        float(scores.severity[row]),
        int(scores.flags[row]),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _around(
    scores: ScoreBatch,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    place: int,
    *,
    look: Look,
) -> Around:
    newest = look == "newest"
    score, level = (scores.newest, scores.newest_level) if newest else (scores.score, scores.level)
    start = max(0, place - AROUND)
    near = rows[start : place + AROUND + 1]
    return Around(
        end_ms=tuple(scores.end_ms[near].tolist()),
        score=tuple(score[near].astype(float).tolist()),
        level=tuple(level[near].astype(float).tolist()),
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


def _open_at(findings: Sequence[Finding], at_ms: int, kind: str) -> list[Finding]:
    """Return the findings of silence, or of failures, that were open at a time, in order."""
    of_kind: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: f.sequence):
        if finding.kind == kind:
            of_kind.setdefault(finding.id, []).append(finding)
    for same in sorted(of_kind.values(), key=lambda e: -e[0].began_ms):
        if _covers(same, at_ms):
            return same
    return []


def _of_kind(findings: Sequence[Finding]) -> str:
    first = findings[0]
    since = clock(first.began_ms, dated=True)
    what = "no data" if first.kind == "no_data" else "the detector failed"
    return f"{what} since {since} UTC: {one_line(first.reason)}"


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
    compared = _compared(window)
    if window.has(FLAG_SUPPRESSED):
        return "suppressed", [*compared, _suppressed(scoring)]
    if episode or window.has(FLAG_EPISODE):
        inside = [*compared, *_inside(window, scoring)]
        if alert is not None:
            return "alert", [_alerted(alert), *inside]
        return "finding", [_no_alert(episode, config), *inside]
    if window.has(FLAG_CANDIDATE):
        return "candidate", [*compared, _no_episode(scoring, run)]
    return "ordinary", [*compared, *_unheard(window)]


def _compared(window: _Window) -> list[str]:
    """Say how each look compares with its level, the deciding one first."""
    decided = window.decided_by
    if not window.has_newest:
        lines = [_against(window.score, window.level, window.p_value)]
    else:
        centred = f"centred look: {_against(window.score, window.level, window.p_value)}"
        newest = (
            "look at the newest samples: "
            f"{_against(window.newest, window.newest_level, window.newest_p)}"
        )
        lines = [newest, centred] if decided == "newest" else [centred, newest]
        if window.has(FLAG_CANDIDATE | FLAG_SUPPRESSED) and decided != "frozen":
            lines[0] = f"decided by the {lines[0]}"
    if decided == "frozen":
        lines.insert(0, "candidate because the value did not change for unusually long")
    return lines


def _against(score: float, level: float, p_value: float) -> str:
    verdict = "reached its level" if score >= level else "was below its level"
    return (
        f"score {number(score)} {verdict}: p = {p_value:.2g}; "
        f"a candidate needs a score of {number(level)} or more"
    )


def _unheard(window: _Window) -> list[str]:
    found = []
    if window.has_newest and window.newest >= window.newest_level:
        found.append(
            "not a candidate all the same: during the first day of a key without training "
            "(scoring.first_day), and after a new level was adopted, the newest samples count only "
            "where they leave the line of those before them"
        )
    if window.score >= window.level:
        found.append(
            "not a candidate all the same: the centred look does not count during the first day of "
            "a key without training (scoring.first_day), nor just after an event"
        )
    return found


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
        "had been scored (since it was new, or since a new level was adopted), or its finding is "
        "not among those read"
    )


def _inside(window: _Window, scoring: ScoringConfig) -> list[str]:
    if window.has(FLAG_CANDIDATE):
        return []
    rarity = "" if scoring.exit is None else f" = {_rarity(scoring.exit)}"
    return [
        f"an episode was open: it ends after scoring.cool_down = {scoring.cool_down} "
        f"consecutive windows below its exit level (scoring.exit{rarity}); more of them are "
        "required where a series flaps"
    ]


def _rarity(level: float) -> str:
    """Return a return period or a probability as the pipeline file writes it."""
    return format_duration(level) if isinstance(level, int) else f"{level:g}"


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
    worst = max(episode, key=lambda f: severity(f.peak_p_value, level=f.alert_p))
    value = severity(worst.peak_p_value, level=worst.alert_p)
    if value < 1.0:
        return (
            f"finding, but no alert: peak severity {value:.2f} < 1.0 (p = "
            f"{worst.peak_p_value:.2g}; alerts.level = {_rarity(config.alerts.level)} is "
            f"p = {worst.alert_p:.2g} for this key)"
        )
    return (
        f"peak severity {value:.2f} is enough for an alert, but none is among those read: "
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
