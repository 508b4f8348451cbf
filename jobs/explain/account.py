"""Why was there an alert, or none: one window of one key, told from the scores log.

Pure: rows, findings and alerts come in, an account goes out. Where they come from is the matter of
`jobs.explain.sources`, how it looks that of `jobs.explain.view`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from jobs.explain.reasons import Outcome, alerted, beside, distance, judge, open_since
from jobs.explain.window import (
    Around,
    Look,
    Window,
    around,
    candidates_in_a_row,
    rows_of,
    window_in,
)
from streamad.config import PipelineConfig
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

FLAG_WORDS = {
    FLAG_INCOMPLETE: "incomplete",
    FLAG_WARMING: "warming up",
    FLAG_EPISODE: "in an episode",
    FLAG_CANDIDATE: "candidate",
    FLAG_ERROR: "detector failed",
    FLAG_SUPPRESSED: "suppressed",
}


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
    rows = rows_of(scores, key)
    ends = scores.end_ms[rows]
    place = int(np.abs(ends - at_ms).argmin())
    window = window_in(scores, int(rows[place]))
    mine = [f for f in findings if f.key == key]
    episode = _episode_at(mine, window)
    finding = min(episode, key=lambda f: abs(f.window_end_ms - window.end_ms)) if episode else None
    alert = _alert_of(finding, alerts)
    run = candidates_in_a_row(scores.flags[rows], place)
    outcome, reasons = judge(window, config, run=run, episode=episode, alert=alert)
    for kind, instead in (("no_data", "silent"), ("error", "failing")):
        open_then = _open_at(mine, at_ms, kind)
        if open_then and outcome not in {"alert", "finding"}:
            finding, outcome = open_then[-1], cast("Outcome", instead)
            alert = _alert_of(finding, alerts)
            reasons = [open_since(open_then), *([alerted(alert)] if alert else []), *reasons]
    told = [*reasons, *distance(window, at_ms), *beside(mine, window)]
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
        around=around(scores, rows, place, look=window.decided_by),
    )


# ---------------------------------------------------------------------- its episode


def _episode_at(findings: Sequence[Finding], window: Window) -> list[Finding]:
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


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
