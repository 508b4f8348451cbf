"""What people answer, and what it changes: feedback and silences given while the desk runs.

- ``acknowledged``: somebody looks at it. Any other verdict says so as well.
- ``false_positive``: the boundary of its series rises to just above what was dismissed, and what is
  like it is marked from then on. The rise is bounded and halves in four weeks.
- ``expected``: its series does not page until a time, or until the incident is over.
- ``real``: the boundary of its series falls, or loses its rise.

All is counted in the ledger of the group. Like everything here it follows from the log alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from streamad.alerting.matchers import parse_matchers
from streamad.alerts.severity import NOTHING_BESIDE, Beside, opens
from streamad.incidents import Feedback, Incident, Silence
from streamad.paging.budget import DAY_MS
from streamad.paging.incidents.members import excess_of
from streamad.paging.likeness import MAX_REMEMBERED, n_alike
from streamad.paging.notes import DISMISSED, PAST, SEEN, SERIES, SILENCE
from streamad.paging.state import DeskState, Life
from streamad.records import UNKNOWN_MS, Finding

HALF_LIFE_MS: Final = 28 * DAY_MS
"""A boundary that was raised or lowered is half way back after so long."""
LEAST_OFFSET, MOST_OFFSET = -1.0, 4.0
"""Decades by which answers lower or raise the boundary of a series at the most."""
LEAST_RISE, MOST_RISE = 0.5, 2.0
"""Decades that one answer raises it by."""
ABOVE: Final = 0.25
"""Decades above what was dismissed that the boundary rises to."""
FALL: Final = 0.5
NO_OFFSET: Final = 0.02
LEAST_P, MOST_P = 1e-30, 0.9

MAX_EXPECTED_MS: Final = 90 * DAY_MS
"""Nothing is expected, and nothing silenced while the desk runs, for longer than this."""
MAX_MEMBERS: Final = 50
"""Alerts of a past incident that an answer still reaches."""
MAX_ID_CHARS, MAX_BY_CHARS, MAX_KEY_CHARS = 128, 200, 1_024

DISMISSED_BEFORE, EXPECTED = "feedback", "expected"
"""Reasons for which something does not page."""
ANSWERED: Final = "answered "
"""Begins the lines of the ledger that count answers."""
WITHDRAWN: Final = "answered no longer expected"

Enter = Callable[[DeskState, str, str, str], None]


class Answers:
    """Keep what people answered in the state of a desk, and ask it.

    enter : writes a line of the ledger: takes the state, the group, what it was, and the series
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter

    # ------------------------------------------------------------------ an answer comes

    def take(self, state: DeskState, answer: Feedback | Silence) -> Life | None:
        """Take an answer; return the open incident that it changed."""
        seen = f"{SEEN}/{answer.tenant}/{answer.id[:MAX_ID_CHARS]}"
        if isinstance(answer, Silence):
            self._take_silence(state, answer)
            return None
        if seen in state.notes:
            return None
        state.put_note(seen, {"at_ms": state.clock_ms})
        state.counts[f"answers_{answer.verdict}"] += 1
        life = state.incidents.get(answer.subject) or state.incident_of(answer.subject)
        if life is not None and life.last.tenant != answer.tenant:
            life = None
        group, members, traits = self._about(state, answer, life)
        # Several detectors may have had an alert on one series.
        for key, excess in {k: max(e for n, e in members if n == k) for k, _ in members}.items():
            self._change(state, answer, key, excess)
        leader = members[0][0] if members else answer.key
        if group:
            what = WITHDRAWN if answer.withdraws(state.clock_ms) else ANSWERED + answer.verdict
            self._enter(state, group, what, leader)
        if answer.verdict == "false_positive" and traits:
            name = f"{DISMISSED}/{answer.tenant}/{group}"
            known = state.notes.get(name, {}).get("traits", [])
            kept = [*known, traits][-MAX_REMEMBERED:]
            state.put_note(name, {"at_ms": state.clock_ms, "traits": kept})
        if life is not None:
            whole = life.last.id == answer.subject or len(life.members) == 1
            life.last = _answered(life.last, answer, whole=whole, now_ms=state.clock_ms)
            life.n_answered = len(life.members) if whole else life.n_answered
        return life

    def _about(
        self, state: DeskState, answer: Feedback, life: Life | None
    ) -> tuple[str, list[tuple[str, float]], dict[str, Any]]:
        """Return the group, the series with the decades beyond their boundary, and the traits.

        Traits only where the answer is on all of the incident, or on the alert that leads it.
        """
        if life is not None:
            one = life.members.get(answer.subject)
            if one is not None:
                traits = life.traits if one.alert == life.last.leader else {}
                return one.group, [(one.key, excess_of(one))], traits
            leader = life.members[life.last.leader]
            found = [leader, *(m for m in life.members.values() if m is not leader)]
            return life.last.group, [(m.key, excess_of(m)) for m in found], life.traits
        past = state.notes.get(_past(answer.tenant, answer.subject))
        if past is not None:
            members = [(str(key), _number(excess)) for key, excess in past["members"].values()]
            return past["group"], members, past["traits"]
        key = answer.key[:MAX_KEY_CHARS]
        return answer.group[:MAX_KEY_CHARS], [(key, 0.0)] if key else [], {}

    def _change(self, state: DeskState, answer: Feedback, key: str, excess: float) -> None:
        """Change what is known of one series."""
        note = state.notes.get(_series(answer.tenant, key), {})
        offset, until_ms = self._offset(note, state.clock_ms), note.get("until_ms", UNKNOWN_MS)
        if answer.verdict == "false_positive":
            rise = min(max(excess + ABOVE, LEAST_RISE), MOST_RISE)
            offset = min(max(offset, 0.0) + rise, MOST_OFFSET)
        elif answer.verdict == "real":
            offset = max(min(offset, FALL) - FALL, LEAST_OFFSET)
            until_ms = UNKNOWN_MS
        elif answer.verdict == "expected" and answer.until_ms != UNKNOWN_MS:
            until_ms = min(answer.until_ms, state.clock_ms + MAX_EXPECTED_MS)
        else:
            return
        made = {"at_ms": state.clock_ms, "offset": offset, "until_ms": until_ms, "held": ""}
        state.put_note(_series(answer.tenant, key), made)

    def _take_silence(self, state: DeskState, silence: Silence) -> None:
        for name, note in list(state.notes_of(SILENCE)):
            if note["ends_ms"] <= state.clock_ms:
                state.put_note(name, None)
        name = f"{SILENCE}/{silence.tenant}/{silence.id[:MAX_ID_CHARS]}"
        if state.notes.get(name, {}).get("given_ms") == _version(silence):
            # Several processes may bring the same silence from outside.
            return
        ends_ms = min(silence.ends_ms, max(silence.starts_ms, state.clock_ms) + MAX_EXPECTED_MS)
        try:
            parse_matchers(silence.matchers)
        except ValueError:
            # It comes from outside; a matcher nobody can read must not match everything.
            state.counts["answers_refused"] += 1
            return
        state.counts["answers_silence"] += 1
        if ends_ms <= state.clock_ms:
            state.put_note(name, None)
            return
        state.put_note(
            name,
            {
                "at_ms": state.clock_ms,
                "given_ms": _version(silence),
                "name": silence.name[:MAX_ID_CHARS],
                "tenant": silence.tenant,
                "matchers": list(silence.matchers),
                "starts_ms": silence.starts_ms,
                "ends_ms": ends_ms,
                "by": silence.by[:MAX_BY_CHARS],
            },
        )

    # ------------------------------------------------------------------ what follows from it

    def judge(self, state: DeskState, finding: Finding, beside: Beside = NOTHING_BESIDE) -> Finding:
        """Return a finding with the boundary that answers on its series have moved.

        beside : what else is evidence
        """
        name = _series(finding.tenant, finding.key)
        note = state.notes.get(name)
        if note is None or finding.kind != "anomaly":
            return finding
        life = state.alerts.life(finding.id)
        if life is not None:
            # An open alert keeps the boundary it opened at.
            return replace(finding, alert_p=life.last.threshold_p)
        offset = self._offset(note, state.clock_ms)
        if offset == 0.0:
            return finding
        alert_p = min(max(finding.alert_p * 10.0**-offset, LEAST_P), MOST_P)
        moved = replace(finding, alert_p=alert_p)
        held = opens(finding, beside) and not opens(moved, beside) and finding.state != "ended"
        if held and note["held"] != finding.id:
            state.put_note(name, {**note, "held": finding.id})
            state.counts[f"withheld_{DISMISSED_BEFORE}"] += 1
            self._enter(state, finding.group, DISMISSED_BEFORE, finding.key)
        return moved

    def against(self, state: DeskState, life: Life) -> str:
        """Return what answers have against a page; empty: nothing."""
        verdict = life.last.verdict in ("expected", "false_positive")
        # What has joined since, nobody has answered to.
        if verdict and len(life.members) <= life.n_answered:
            return EXPECTED if life.last.verdict == "expected" else DISMISSED_BEFORE
        now_ms, tenant = state.clock_ms, life.last.tenant
        for member in life.members.values():
            note = state.notes.get(_series(tenant, member.key))
            if note is None or note["until_ms"] <= now_ms:
                return ""
        return EXPECTED

    def n_dismissed(self, state: DeskState, life: Life) -> int:
        """Return how many of the group's dismissed incidents this one is like."""
        note = state.notes.get(f"{DISMISSED}/{life.last.tenant}/{life.last.group}")
        return n_alike(life.traits, note["traits"]) if note is not None and life.traits else 0

    def remember(self, state: DeskState, life: Life) -> None:
        """Keep of an incident that is over what an answer to it needs."""
        leader = life.members[life.last.leader]
        found = [leader, *(m for m in life.members.values() if m is not leader)][:MAX_MEMBERS]
        note = {
            "at_ms": state.clock_ms,
            "group": life.last.group,
            "members": {m.alert: [m.key[:MAX_KEY_CHARS], round(excess_of(m), 3)] for m in found},
            "traits": life.traits,
        }
        state.put_note(_past(life.last.tenant, life.last.id), note)

    @staticmethod
    def _offset(note: dict[str, Any], now_ms: int) -> float:
        """Return the decades by which a boundary is raised now."""
        if not note or not note["offset"]:
            return 0.0
        halvings = max(now_ms - note["at_ms"], 0) / HALF_LIFE_MS
        offset = float(note["offset"]) * 0.5 ** min(halvings, 60.0)
        offset = min(max(offset, LEAST_OFFSET), MOST_OFFSET)
        return offset if abs(offset) >= NO_OFFSET else 0.0


def _answered(last: Incident, answer: Feedback, *, whole: bool, now_ms: int) -> Incident:
    """Return an incident with the answer; one on a single alert of many is no verdict on all."""
    by = answer.by[:MAX_BY_CHARS] or "somebody"
    if answer.withdraws(now_ms):
        verdict = "" if whole and last.verdict == "expected" else last.verdict
        return replace(last, acknowledged=last.acknowledged or by, verdict=verdict)
    if answer.verdict == "acknowledged" or not whole:
        return replace(last, acknowledged=by)
    return replace(last, acknowledged=last.acknowledged or by, verdict=answer.verdict)


def _series(tenant: str, key: str) -> str:
    return f"{SERIES}/{tenant}/{key}"


def _past(tenant: str, incident: str) -> str:
    return f"{PAST}/{tenant}/{incident}"


def _version(silence: Silence) -> list[int]:
    return [silence.time_ms, silence.starts_ms, silence.ends_ms]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e3 else 0.0
