"""What became of a window, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from jobs.explain.window import Window
from streamad.alerts.severity import severity
from streamad.config import PipelineConfig
from streamad.config.decisions import ScoringConfig
from streamad.config.values import format_duration
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Alert,
    Finding,
)
from streamad.wording import clock, number, one_line

Outcome = Literal[
    "alert", "finding", "silent", "failing", "candidate", "suppressed", "ordinary", "not_scored"
]


def judge(
    window: Window,
    config: PipelineConfig,
    *,
    run: int,
    episode: Sequence[Finding],
    alert: Alert | None,
) -> tuple[Outcome, list[str]]:
    """Return what became of a window, and why: the deciding reason first.

    run : candidates in a row that end with it
    """
    scoring = config.scoring
    if math.isnan(window.score):
        return "not_scored", [_not_scored(window, config)]
    compared = _compared(window)
    if window.has(FLAG_SUPPRESSED):
        return "suppressed", [*compared, _suppressed(scoring)]
    if episode or window.has(FLAG_EPISODE):
        inside = [*compared, *_inside(window, scoring)]
        if alert is not None:
            return "alert", [alerted(alert), *inside]
        return "finding", [_no_alert(episode, config), *inside]
    if window.has(FLAG_CANDIDATE):
        return "candidate", [*compared, _no_episode(scoring, run)]
    return "ordinary", [*compared, *_unheard(window)]


def _compared(window: Window) -> list[str]:
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


def _unheard(window: Window) -> list[str]:
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


def _not_scored(window: Window, config: PipelineConfig) -> str:
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


def _inside(window: Window, scoring: ScoringConfig) -> list[str]:
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


def alerted(alert: Alert) -> str:
    """Tell of an alert."""
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


def distance(window: Window, at_ms: int) -> list[str]:
    """Tell how far the nearest window is from the time that was asked for."""
    away_s = abs(window.end_ms - at_ms) / 1000
    when = clock(window.end_ms, dated=True)
    return (
        [f"nearest window: ends at {when} UTC, {away_s:g} s from the requested time"]
        if away_s
        else []
    )


def beside(findings: Sequence[Finding], window: Window) -> list[str]:
    """Tell of silence and failures about that time."""
    told = []
    for finding in findings:
        near = finding.window_start_ms <= window.end_ms <= finding.window_end_ms
        if finding.kind != "anomaly" and finding.state == "began" and near:
            kind = "no data" if finding.kind == "no_data" else "detector error"
            told.append(f"{kind}: {one_line(finding.reason)}")
    return list(dict.fromkeys(told))


def open_since(findings: Sequence[Finding]) -> str:
    """Tell of silence, or of failures, that were open."""
    first = findings[0]
    since = clock(first.began_ms, dated=True)
    what = "no data" if first.kind == "no_data" else "the detector failed"
    return f"{what} since {since} UTC: {one_line(first.reason)}"
