"""Closed windows become scores, tail probabilities, episodes and findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.config import PipelineConfig, ScoringConfig
from streamad.detectors.base import Detector, WindowExplanations
from streamad.operators.call import Call
from streamad.operators.findings import Episode, FindingMaker, Measured
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    FindingState,
    ScoreBatch,
)
from streamad.scoring.episodes import Judgement
from streamad.scoring.kernels import ADOPTED, BEGAN, CONTINUES, ENDED, NOTHING
from streamad.windows.arrays import KeyedArrays
from streamad.windows.signals import WindowBlock

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


@dataclass(slots=True)
class _Round:
    """Windows between two changes of any key's memory; arrays ``(n,)`` unless said."""

    block: WindowBlock
    rows: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    codes: NDArray[np.int32]
    values: NDArray[np.float32]
    end_ms: NDArray[np.int64]
    ready: NDArray[np.bool_]
    flags: NDArray[np.uint8]


class WindowJudge:
    """Score the windows of a block, a round at a time where the detector learns as it goes."""

    def __init__(self, config: PipelineConfig, detector: Detector, make: FindingMaker) -> None:
        self._detector, self._make, self._scoring = detector, make, config.scoring
        self._stride = config.windows.stride
        self._gated = _is_gated(config.scoring)

    def judge(self, call: Call, block: WindowBlock, offsets: NDArray[np.int64]) -> None:
        """Judge a block; ``offsets`` ``(n,)`` are those of the rows that closed its windows."""
        n = len(block)
        ordinal = _numbered(block.codes, call.state.flags["ordinal"])
        log = ScoreBatch(
            keys=call.state.keys.decode(block.codes),
            end_ms=block.end_ms.copy(),
            ordinal=ordinal,
            score=np.full(n, np.nan, np.float32),
            p_value=np.full(n, np.nan, np.float32),
            level=np.full(n, np.nan, np.float32),
            flags=np.zeros(n, np.uint8),
        )
        if call.recorded is not None:
            log.score[:] = call.recorded.lookup(log.keys, log.end_ms, ordinal)
        for part in self._rounds(call, block, ordinal):
            self._judge_round(call, part, log, offsets)
        call.out.scores.append(log)
        call.out.counts["windows"] += n
        call.out.counts["incomplete"] += int(block.incomplete.sum())

    def _rounds(
        self, call: Call, block: WindowBlock, ordinal: NDArray[np.int64]
    ) -> Iterator[_Round]:
        """Cut a block at the windows where a key's memory may change, counted per key.

        The cuts depend on a key's own count of windows, not on the block, so that a window is
        judged by the same memory however its batch was cut.
        """
        state, info = call.state, self._detector.info
        flags = np.where(block.incomplete, FLAG_INCOMPLETE, 0).astype(np.uint8)
        if state.memory is None:
            whole = np.arange(len(block))
            ready = ~block.incomplete
            yield _Round(
                block, whole, ordinal, block.codes, block.values, block.end_ms, ready, flags
            )
            return
        cold = (ordinal < info.warm_up) & ~state.flags["seeded"][block.codes]
        flags[cold & ~block.incomplete] |= FLAG_WARMING
        turn = _turns(block.codes, ordinal // info.learn_every)
        for t in range(int(turn.max(initial=0)) + 1):
            rows = np.flatnonzero(turn == t)
            yield _Round(
                block,
                rows,
                ordinal[rows],
                block.codes[rows],
                block.values[rows],
                block.end_ms[rows],
                flags[rows] == 0,
                flags[rows],
            )

    def _judge_round(
        self, call: Call, part: _Round, log: ScoreBatch, offsets: NDArray[np.int64]
    ) -> None:
        scores = log.score[part.rows]
        scores[~part.ready] = np.nan
        failed = self._fill_scores(call, part, scores)
        self._tell_failures(call, part, failed)
        part.flags[part.ready & np.isnan(scores)] |= FLAG_ERROR
        part.ready &= ~np.isnan(scores)
        pick = np.flatnonzero(part.ready)
        suppressed = self._suppressed(call, part, pick)
        verdict = call.state.episodes.judge(
            part.codes[pick], scores[pick], part.end_ms[pick], suppressed
        )
        part.flags[pick[verdict.inside]] |= FLAG_EPISODE
        part.flags[pick[verdict.candidate]] |= FLAG_CANDIDATE
        part.flags[pick[suppressed]] |= FLAG_SUPPRESSED
        log.score[part.rows] = scores
        log.p_value[part.rows[pick]] = verdict.p_value
        log.level[part.rows[pick]] = verdict.level
        log.flags[part.rows] = part.flags
        self._tell(call, part, pick, verdict, scores, offsets)
        if call.state.memory is not None:
            learnable = part.ready | ((part.flags & FLAG_WARMING) > 0)
            admit = learnable & ((part.flags & (FLAG_EPISODE | FLAG_CANDIDATE)) == 0)
            self._detector.learn(
                call.state.memory,
                part.values,
                slots=part.codes,
                admit=admit,
                stride=self._stride,
            )

    # ------------------------------------------------------------------ scores

    def _fill_scores(self, call: Call, part: _Round, scores: NDArray[np.float32]) -> dict[int, str]:
        """Score what is ready and not in the log; what the detector fails on stays NaN.

        Returns the reason of each failure, by the window's place in the round, in order.
        """
        ask = part.ready & np.isnan(scores)
        if not ask.any():
            return {}
        if ask.all():
            scores[:], failed = self._score(call, part.values, part.codes)
            return failed
        places = np.flatnonzero(ask)
        scores[places], failed = self._score(call, part.values[places], part.codes[places])
        return {int(places[i]): reason for i, reason in failed.items()}

    def _score(
        self, call: Call, values: NDArray[np.float32], codes: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        memory, failed = call.state.memory, dict[int, str]()
        try:
            scores = self._detector.score(values, memory=memory, slots=codes)
            bad = np.flatnonzero(~np.isfinite(scores))
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; told window by window below
            scores = np.full(len(codes), np.nan, np.float32)
            bad = np.arange(len(codes))
        for i in bad.tolist():
            one = slice(i, i + 1)
            reason = "the detector returned a score that is not finite"
            try:
                scores[i] = self._detector.score(values[one], memory=memory, slots=codes[one])[0]
            except Exception as error:  # noqa: BLE001 - the stream goes on; the finding says why
                scores[i] = np.nan
                reason = f"{type(error).__name__}: {error}"
            if not np.isfinite(scores[i]):
                scores[i] = np.nan
                failed[i] = reason
        return scores, failed

    def _tell_failures(self, call: Call, part: _Round, failed: dict[int, str]) -> None:
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

    def _suppressed(self, call: Call, part: _Round, pick: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which windows go the wrong way or not far enough.

        A window whose explanation fails is not suppressed: what cannot be told may matter. Each is
        then asked for alone, or the windows beside it would decide.
        """
        if not self._gated or not len(pick):
            return np.zeros(len(pick), np.bool_)
        try:
            return self._does_not_matter(call, part, pick)
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; asked window by window below
            suppressed = np.zeros(len(pick), np.bool_)
        for i in range(len(pick)):
            try:
                suppressed[i] = self._does_not_matter(call, part, pick[i : i + 1])[0]
            except Exception:  # noqa: BLE001 - the stream goes on; the metric tells
                call.out.counts["explain_errors"] += 1
        return suppressed

    def _does_not_matter(
        self, call: Call, part: _Round, pick: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Judge by the effect on the most telling variate."""
        why = self._detector.explain(
            part.values[pick], memory=call.state.memory, slots=part.codes[pick]
        )
        rows, worst = np.arange(len(pick)), why.share.argmax(axis=1)
        expected = why.expected[rows, worst]
        effect = why.observed[rows, worst] - expected
        least = np.maximum(
            self._scoring.min_effect.absolute,
            self._scoring.min_effect.relative * np.abs(expected),
        )
        sign = {"above": 1, "below": -1, "both": 0}[self._scoring.direction]
        return np.asarray((np.abs(effect) < least) | (effect * sign < 0), np.bool_)

    # ------------------------------------------------------------------ findings

    def _tell(
        self,
        call: Call,
        part: _Round,
        pick: NDArray[np.int64],
        verdict: Judgement,
        scores: NDArray[np.float32],
        offsets: NDArray[np.int64],
    ) -> None:
        events = np.flatnonzero(verdict.event != NOTHING)
        if not len(events):
            return
        places = pick[events]
        opened = call.state.flags["opened_ordinal"]
        why = self._explain(call, part, places)
        for i, (event, place) in enumerate(zip(events.tolist(), places.tolist(), strict=True)):
            row = int(part.rows[place])
            start_ms, end_ms = int(part.block.start_ms[row]), int(part.block.end_ms[row])
            window = (start_ms, end_ms, self._detector.size)
            code, what = int(part.codes[place]), int(verdict.event[event])
            if what == BEGAN:
                opened[code] = part.ordinal[place]
            episode = Episode(
                kind="anomaly",
                state=_STATES[what],
                opened_ms=int(verdict.opened_ms[event]),
                opened_ordinal=int(opened[code]),
                began_ms=int(verdict.began_ms[event]),
                sequence=int(verdict.sequence[event]),
                window_start_ms=start_ms,
                window_end_ms=end_ms,
                offset=int(offsets[row]),
            )
            measured = Measured(
                score=float(scores[place]),
                p_value=float(verdict.p_value[event]),
                peak_score=float(verdict.peak[event]),
                peak_p_value=float(verdict.peak_p[event]),
                level=float(verdict.level[event]),
                n_windows=int(verdict.n_windows[event]),
            )
            call.out.findings.append(
                self._make.make(
                    call,
                    code,
                    episode=episode,
                    measured=measured,
                    explanation=self._make.explanation(why, i, window=window),
                    reason="adopted as the new normal" if what == ADOPTED else "",
                )
            )
            call.out.counts[f"findings_{_STATES[what]}"] += 1

    def _explain(
        self, call: Call, part: _Round, places: NDArray[np.int64]
    ) -> WindowExplanations | None:
        try:
            return self._detector.explain(
                part.values[places], memory=call.state.memory, slots=part.codes[places]
            )
        except Exception:  # noqa: BLE001 - a finding without an explanation beats none
            call.out.counts["explain_errors"] += len(places)
            return None


def _is_gated(scoring: ScoringConfig) -> bool:
    effect = scoring.min_effect
    return scoring.direction != "both" or effect.absolute > 0 or effect.relative > 0


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


@compiled
def _numbered(codes: NDArray[np.int32], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each window's ordinal, and count it: ``counts`` are the windows of each key."""
    ordinal = np.empty(len(codes), np.int64)
    for i in range(len(codes)):
        ordinal[i] = counts[codes[i]]
        counts[codes[i]] += 1
    return ordinal


def _turns(codes: NDArray[np.int32], period: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many periods after its key's first window in the block each window stands."""
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = period[::-1]  # the last one written is the first of its key
    return np.asarray(period - first[codes])
