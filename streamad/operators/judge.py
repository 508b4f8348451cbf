"""Closed windows become scores, tail probabilities, episodes and findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from streamad.windows.signals import WindowBlock

_MAX_ERROR_FINDINGS = 100
"""Error findings a call may yield; further failures are counted only."""

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
    codes: NDArray[np.int32]
    values: NDArray[np.float32]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    still: NDArray[np.int32]
    ready: NDArray[np.bool_]
    flags: NDArray[np.uint8]


class WindowJudge:
    """Score the windows of a block, a round at a time where the detector learns as it goes."""

    def __init__(self, config: PipelineConfig, detector: Detector, make: FindingMaker) -> None:
        self._detector, self._make, self._scoring = detector, make, config.scoring
        self._stride, self._info = config.windows.stride, detector.info
        self._gated = _is_gated(config.scoring)

    def judge(self, call: Call, block: WindowBlock, offsets: NDArray[np.int64]) -> None:
        """Judge a block; ``offsets`` ``(n,)`` are those of the rows that closed its windows."""
        n = len(block)
        log = ScoreBatch(
            keys=call.state.keys.decode(block.codes),
            end_ms=block.end_ms.copy(),
            score=np.full(n, np.nan, np.float32),
            p_value=np.full(n, np.nan, np.float32),
            level=np.full(n, np.nan, np.float32),
            newest=np.full(n, np.nan, np.float32),
            newest_p=np.full(n, np.nan, np.float32),
            newest_level=np.full(n, np.nan, np.float32),
            severity=np.full(n, np.nan, np.float32),
            flags=np.zeros(n, np.uint8),
        )
        if call.recorded is not None:
            log.score[:], log.newest[:] = call.recorded.lookup(log.keys, log.end_ms)
        for part in self._rounds(call, block):
            self._judge_round(call, part, log, offsets)
        call.out.scores.append(log)
        call.out.counts["windows"] += n
        call.out.counts["incomplete"] += int(block.incomplete.sum())

    def _rounds(self, call: Call, block: WindowBlock) -> Iterator[_Round]:
        """Cut a block at the windows where a key's memory may change, counted per key.

        The cuts depend on a key's own count of windows, not on the block, so that a window is
        judged by the same memory however its batch was cut.
        """
        state, info = call.state, self._detector.info
        flags = np.where(block.incomplete, FLAG_INCOMPLETE, 0).astype(np.uint8)
        if state.memory is None:
            whole = np.arange(len(block))
            yield _Round(
                block, whole, block.codes, block.values, block.start_ms, block.end_ms, block.still,
                ~block.incomplete, flags,
            )  # fmt: skip
            return
        ordinal = state.flags["ordinal"]
        done = ordinal[block.codes]
        number = done + _place_in_key(block.codes)
        np.add.at(ordinal, block.codes, 1)
        cold = (number < info.warm_up) & ~state.flags["seeded"][block.codes]
        flags[cold & ~block.incomplete] |= FLAG_WARMING
        turn = number // info.learn_every - done // info.learn_every
        for t in range(int(turn.max(initial=0)) + 1):
            rows = np.flatnonzero(turn == t)
            yield _Round(
                block,
                rows,
                block.codes[rows],
                block.values[rows],
                block.start_ms[rows],
                block.end_ms[rows],
                block.still[rows],
                flags[rows] == 0,
                flags[rows],
            )

    def _judge_round(
        self, call: Call, part: _Round, log: ScoreBatch, offsets: NDArray[np.int64]
    ) -> None:
        looks = np.stack([log.score[part.rows], log.newest[part.rows]], axis=1)
        looks = looks[:, : self._info.n_looks]
        looks[~part.ready] = np.nan
        final = ~np.isnan(looks).any(axis=1)
        self._fill_looks(call, part, looks)
        failed = np.isnan(looks).any(axis=1)
        part.flags[part.ready & failed] |= FLAG_ERROR
        part.ready &= ~failed
        pick = np.flatnonzero(part.ready)
        suppressed = self._suppressed(call, part, pick, looks[pick])
        verdict = call.state.episodes.judge(
            part.codes[pick],
            looks[pick],
            part.start_ms[pick],
            part.end_ms[pick],
            suppressed,
            final=final[pick],
            still=part.still[pick],
        )
        part.flags[pick[verdict.inside]] |= FLAG_EPISODE
        part.flags[pick[verdict.candidate]] |= FLAG_CANDIDATE
        part.flags[pick[verdict.withheld]] |= FLAG_SUPPRESSED
        rows = part.rows[pick]
        log.score[part.rows] = np.nan
        log.newest[part.rows] = np.nan
        log.score[rows], log.p_value[rows], log.level[rows] = (
            verdict.score, verdict.p_value, verdict.level,
        )  # fmt: skip
        log.severity[rows] = verdict.severity
        if self._info.n_looks > 1:
            log.newest[rows], log.newest_p[rows], log.newest_level[rows] = (
                looks[pick, 1], verdict.newest_p, verdict.newest_level,
            )  # fmt: skip
        log.flags[part.rows] = part.flags
        self._tell(call, part, pick, verdict, offsets)
        if call.state.memory is not None:
            learnable = part.ready | ((part.flags & FLAG_WARMING) > 0)
            held_back = FLAG_EPISODE | FLAG_CANDIDATE | FLAG_SUPPRESSED
            if verdict.adopted.any():
                self._detector.adopt(call.state.memory, part.codes[pick[verdict.adopted]])
            self._detector.learn(
                call.state.memory,
                part.values,
                slots=part.codes,
                admit=learnable & ((part.flags & held_back) == 0),
                stride=self._stride,
            )

    # ------------------------------------------------------------------ scores

    def _fill_looks(self, call: Call, part: _Round, looks: NDArray[np.float32]) -> None:
        """Score what is ready and not in the log; what the detector fails on stays NaN."""
        ask = part.ready & np.isnan(looks).any(axis=1)
        if not ask.any():
            return
        if ask.all():
            looks[:] = self._look(call, part.values, part.codes, part.end_ms)
        else:
            looks[ask] = self._look(call, part.values[ask], part.codes[ask], part.end_ms[ask])

    def _look(
        self,
        call: Call,
        values: NDArray[np.float32],
        codes: NDArray[np.int32],
        end_ms: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        memory = call.state.memory
        try:
            looks = self._detector.looks(values, memory=memory, slots=codes)
            bad = np.flatnonzero(~np.isfinite(looks).all(axis=1))
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; told window by window below
            looks = np.full((len(codes), self._info.n_looks), np.nan, np.float32)
            bad = np.arange(len(codes))
        for i in bad.tolist():
            one = slice(i, i + 1)
            reason = "the detector returned a score that is not finite"
            try:
                looks[i] = self._detector.looks(values[one], memory=memory, slots=codes[one])[0]
            except Exception as error:  # noqa: BLE001 - the stream goes on; the finding says why
                looks[i] = np.nan
                reason = f"{type(error).__name__}: {error}"
            if not np.isfinite(looks[i]).all():
                looks[i] = np.nan
                self._failed(call, int(codes[i]), int(end_ms[i]), reason)
        return looks

    def _failed(self, call: Call, code: int, end_ms: int, reason: str) -> None:
        call.out.counts["detector_errors"] += 1
        if call.out.counts["detector_errors"] > _MAX_ERROR_FINDINGS:
            return
        call.out.findings.append(
            self._make.plain(
                call,
                code,
                kind="error",
                state="began",
                since_ms=end_ms,
                now_ms=end_ms,
                reason=reason,
            )
        )

    def _suppressed(
        self, call: Call, part: _Round, pick: NDArray[np.int64], looks: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Say which windows go the wrong way or not far enough.

        A window whose explanation fails is not suppressed: what cannot be told may matter. Each is
        then asked for alone, or the windows beside it would decide.
        """
        suppressed = np.zeros(len(pick), np.bool_)
        if not self._gated or not len(pick):
            return suppressed
        ask = np.flatnonzero((looks >= self._info.dull).any(axis=1))
        if not len(ask):
            return suppressed
        try:
            suppressed[ask] = self._does_not_matter(call, part, pick[ask])
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; asked window by window below
            suppressed[:] = False
        else:
            return suppressed
        for i in ask.tolist():
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
        offsets: NDArray[np.int64],
    ) -> None:
        events = np.flatnonzero(verdict.event != NOTHING)
        if not len(events):
            return
        places = pick[events]
        why = self._explain(call, part, places)
        for i, (event, place) in enumerate(zip(events.tolist(), places.tolist(), strict=True)):
            row = int(part.rows[place])
            start_ms, end_ms = int(part.block.start_ms[row]), int(part.block.end_ms[row])
            window = (start_ms, end_ms, self._detector.size)
            what = int(verdict.event[event])
            episode = Episode(
                kind="anomaly",
                state=_STATES[what],
                opened_ms=int(verdict.opened_ms[event]),
                began_ms=int(verdict.began_ms[event]),
                sequence=int(verdict.sequence[event]),
                window_start_ms=start_ms,
                window_end_ms=end_ms,
                offset=int(offsets[row]),
            )
            measured = Measured(
                score=float(verdict.score[event]),
                p_value=float(verdict.p_value[event]),
                peak_score=float(verdict.peak[event]),
                peak_p_value=float(verdict.peak_p[event]),
                level=float(verdict.level[event]),
                alert_p=float(verdict.alert_p[event]),
                n_windows=int(verdict.n_windows[event]),
            )
            call.out.findings.append(
                self._make.make(
                    call,
                    int(part.codes[place]),
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


def _place_in_key(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return each window's place among the windows of its key: 0, 1, 2 ..."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    place = np.empty(len(codes), np.int64)
    place[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered, side="left")
    return place
