"""From verdicts to findings: episodes that begin, continue and end, and windows that fail."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import ItemDetector
from streamad.modalities import Modality
from streamad.modalities.base import Item
from streamad.operators.call import Call
from streamad.operators.findings import Episode, FindingMaker, Measured
from streamad.operators.judge.looks import Looks
from streamad.operators.judge.rounds import Round
from streamad.records import FindingState
from streamad.scoring.episodes import Judgement
from streamad.scoring.kernels import ADOPTED, BEGAN, CONTINUES, ENDED, FROZEN, NOTHING
from streamad.windows.arrays import KeyedArrays
from streamad.wording import ADOPTED as ADOPTED_TEXT
from streamad.wording import frozen

FIRST_FAILURES = 3
FAILURES_EVERY = 100
FAILURES_AGAIN_MS = 300_000
"""Of a run of failing windows of a key these make findings: the first few, every so-manieth, and
one that comes so long after the last that did, or the alert would be taken for over. The others are
counted only. All of it is by the key's own windows, so it depends on no batch."""

FAILURES_APART_MS = 600_000
"""A failure so long after the one before begins a new run."""

_STATES: dict[int, FindingState] = {
    BEGAN: "began",
    CONTINUES: "continues",
    ENDED: "ended",
    ADOPTED: "ended",
}


class Telling:
    """Make findings of what was judged.

    looks : asks for the explanations
    """

    def __init__(
        self,
        detector: ItemDetector[Any],
        make: FindingMaker,
        modality: Modality,
        looks: Looks,
    ) -> None:
        self._detector, self._make, self._modality, self._looks = detector, make, modality, looks

    def failures(self, call: Call, part: Round, failed: dict[int, str]) -> None:
        """Report failing windows, not all of a long run: see `FIRST_FAILURES`."""
        call.out.counts["detector_errors"] += len(failed)
        for place, reason in failed.items():
            code, end_ms = int(part.codes[place]), int(part.end_ms[place])
            n_failed = _failures_so_far(call.state.flags, code, end_ms)
            if n_failed is None:
                continue
            call.out.findings.append(
                self._make.plain(
                    call,
                    code,
                    kind="error",
                    state="began",
                    since_ms=end_ms,
                    since_ordinal=int(part.ordinal[place]),
                    now_ms=end_ms,
                    reason=reason,
                    n_windows=n_failed,
                )
            )

    def episodes(
        self,
        call: Call,
        part: Round,
        pick: NDArray[np.int64],
        verdict: Judgement,
        offsets: NDArray[np.int64],
    ) -> None:
        """Report what a verdict means for the episodes of a round's keys."""
        events = np.flatnonzero(verdict.event != NOTHING)
        if not len(events):
            return
        places = pick[events]
        opened = call.state.flags["opened_ordinal"]
        why = self._looks.explain(call, part, places)
        for i, (event, place) in enumerate(zip(events.tolist(), places.tolist(), strict=True)):
            row = int(part.rows[place])
            start_ms, end_ms = int(part.block.start_ms[row]), int(part.block.end_ms[row])
            item = Item(start_ms, end_ms, self._detector.size, int(verdict.loud_ms[event]))
            code, what = int(part.codes[place]), int(verdict.event[event])
            if what == BEGAN:
                opened[code] = part.ordinal[place]
            began_ms, until_ms = self._event(call, part, place, verdict, event, why, i, item)
            episode = Episode(
                kind="anomaly",
                state=_STATES[what],
                opened_ms=int(verdict.opened_ms[event]),
                opened_ordinal=int(opened[code]),
                began_ms=began_ms,
                until_ms=until_ms,
                sequence=int(verdict.sequence[event]),
                window_start_ms=start_ms,
                window_end_ms=end_ms,
                offset=int(offsets[row]),
            )
            measured = Measured(
                score=float(verdict.score[event]),
                p_value=float(np.fmin(verdict.p_value[event], verdict.newest_p[event])),
                peak_score=float(verdict.peak[event]),
                peak_p_value=float(verdict.peak_p[event]),
                level=float(verdict.level[event]),
                alert_p=float(verdict.alert_p[event]),
                calm=not verdict.candidate[event],
                n_windows=int(verdict.n_windows[event]),
            )
            call.out.findings.append(
                self._make.make(
                    call,
                    code,
                    episode=episode,
                    measured=measured,
                    explanation=(None if why is None else self._modality.explanation(why, i, item)),
                    reason=self._reason(what, verdict, event, int(part.still[place])),
                )
            )
            call.out.counts[f"findings_{_STATES[what]}"] += 1

    def _event(  # noqa: PLR0913, PLR0917 - what one window of an episode says of its event
        self,
        call: Call,
        part: Round,
        place: int,
        verdict: Judgement,
        event: int,
        why: Any,
        i: int,
        item: Item,
    ) -> tuple[int, int]:
        """Return the times of the event's first and last anomalous sample, as far as is known."""
        code, known = int(part.codes[place]), call.state.flags["event_ms"]
        shown = self._modality.span(why, i, item)
        began_ms, until_ms, stands_out = shown.began_ms, shown.until_ms, shown.stands_out
        if verdict.look[event] == FROZEN:
            end_ms = item.end_ms
            step = (end_ms - item.start_ms) / max(item.size - 1, 1)
            began_ms, until_ms = end_ms - round(int(part.still[place]) * step), end_ms
            stands_out = True
        what = int(verdict.event[event])
        if what == BEGAN:
            known[code] = (began_ms, until_ms)
        elif stands_out and shown.both_sides:
            # A later look sees the event from both sides: it may have begun earlier.
            if began_ms <= int(known[code, 1]):
                known[code, 0] = min(began_ms, int(known[code, 0]))
            known[code, 1] = max(until_ms, int(known[code, 1]))
        elif what == CONTINUES or shown.closes:
            known[code, 1] = max(until_ms, int(known[code, 1]))
        return int(known[code, 0]), int(known[code, 1])

    def _reason(self, what: int, verdict: Judgement, event: int, still: int) -> str:
        if what == ADOPTED:
            return ADOPTED_TEXT
        if what == ENDED:
            return ""
        if verdict.look[event] == FROZEN:
            return frozen(still)
        # Of an item that is rare enough by itself no other look needs a word.
        alone = verdict.score[event] >= verdict.level[event]
        return "" if alone else self._modality.reason(int(verdict.look[event]))


def _failures_so_far(flags: KeyedArrays, code: int, end_ms: int) -> int | None:
    """Count a failing window of a key; return how many its run has, None where it is not told."""
    if end_ms - int(flags["failed_ms"][code]) >= FAILURES_APART_MS:
        flags["failures"][code] = 0
    flags["failures"][code] += 1
    flags["failed_ms"][code] = end_ms
    n_failed = int(flags["failures"][code])
    due = end_ms - int(flags["failure_ms"][code]) >= FAILURES_AGAIN_MS
    if n_failed > FIRST_FAILURES and n_failed % FAILURES_EVERY and not due:
        return None
    flags["failure_ms"][code] = end_ms
    return n_failed
