"""Closed windows become scores, tail probabilities, episodes and findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.config.decisions import ScoringConfig
from streamad.detectors.contract import ItemDetector, Memory, Observed
from streamad.modalities import Modality
from streamad.modalities.base import Item
from streamad.operators.call import Call
from streamad.operators.findings import Episode, FindingMaker, Measured
from streamad.operators.kernels import blind_runs, marked_before, numbered
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
from streamad.scoring.kernels import ADOPTED, BEGAN, CONTINUES, ENDED, FROZEN, NOTHING
from streamad.windows.arrays import KeyedArrays
from streamad.windows.signals import WindowBlock
from streamad.wording import ADOPTED as ADOPTED_TEXT
from streamad.wording import frozen

NOT_FINITE = "the detector returned a score that is not finite"
MOST_TRIED = 256
"""Items a new artifact is tried on."""
FIRST_FAILURES = 3
FAILURES_EVERY = 100
FAILURES_AGAIN_MS = 300_000
"""Of a run of failing windows of a key these make findings: the first few, every so-manieth, and
one that comes so long after the last that did, or the alert would be taken for over. The others are
counted only. All of it is by the key's own windows, so it depends on no batch."""

BLIND_SPANS = 2
"""An open episode ends once so many windows' lengths of a key were incomplete. A hole leaves one
length of incomplete windows behind it, after which they are judged again."""
BLIND = "not watched: most of its samples are missing (series.gaps)"

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
    """Windows between two changes of any key's memory; arrays ``(n,)`` unless said.

    seen : the block as a detector of a population judged it, by the block's rows
    """

    block: WindowBlock
    rows: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    codes: NDArray[np.int32]
    values: Any
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    still: NDArray[np.int32]
    ready: NDArray[np.bool_]
    flags: NDArray[np.uint8]
    seen: Observed | None = None


class Trial:
    """Whether a detector of another artifact can judge what comes: tried beside the one at work.

    result : None as long as nothing came; "": it can; else why not
    """

    def __init__(self, detector: ItemDetector[Any]) -> None:
        self._detector = detector
        self.result: str | None = None

    def run(self, values: Any, memory: Memory | None, slots: NDArray[np.int32]) -> None:
        """Score some items that were just judged; nothing is learned."""
        few = slice(0, MOST_TRIED)
        try:
            items = self._detector.prepared(values[few])
            looks = self._detector.looks(items, memory=memory, slots=slots[few])
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
            self.result = f"it fails on what comes: {type(error).__name__}: {error}"
            return
        info = self._detector.info
        expected = (len(slots[few]), info.n_looks + info.certain)
        if looks.shape != expected:
            self.result = f"its scores have the shape {looks.shape}, expected {expected}"
        elif not np.isfinite(looks).all():
            self.result = NOT_FINITE
        else:
            self.result = ""


class WindowJudge:
    """Score the windows of a block, a round at a time where the detector learns as it goes."""

    def __init__(
        self,
        config: PipelineConfig,
        detector: ItemDetector[Any],
        make: FindingMaker,
        modality: Modality,
    ) -> None:
        self._detector, self._make, self._scoring = detector, make, config.scoring
        self._modality = modality
        self._stride, self._info = config.windows.stride, detector.info
        self._gated = _is_gated(config.scoring)
        self.trial: Trial | None = None

    def judge(self, call: Call, block: WindowBlock, offsets: NDArray[np.int64]) -> None:
        """Judge a block; ``offsets`` ``(n,)`` are those of the rows that closed its windows."""
        n = len(block)
        ordinal = numbered(block.codes, call.state.flags["ordinal"])
        log = ScoreBatch(
            keys=call.state.keys.decode(block.codes),
            end_ms=block.end_ms.copy(),
            ordinal=ordinal,
            score=np.full(n, np.nan, np.float32),
            p_value=np.full(n, np.nan, np.float32),
            level=np.full(n, np.nan, np.float32),
            newest=np.full(n, np.nan, np.float32),
            newest_p=np.full(n, np.nan, np.float32),
            newest_level=np.full(n, np.nan, np.float32),
            severity=np.full(n, np.nan, np.float32),
            flags=np.zeros(n, np.uint8),
            certainty=np.full(n, np.nan, np.float32) if self._info.certain else None,
        )
        if call.recorded is not None:
            logged = call.recorded.lookup(log.keys, log.end_ms, ordinal)
            log.score[:], log.newest[:] = logged[:, 0], logged[:, 1]
        ends, tells = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        limit = BLIND_SPANS * max(self._detector.size // self._stride, 1)
        blind_runs(block.codes, block.incomplete, call.state.flags["blind"], limit, ends, tells)
        call.out.blind += [call.key(int(code)) for code in block.codes[tells]]
        call.out.counts["blind"] += int(tells.sum())
        block = self._prepared(block)
        seen = self._observe(call, block)
        for part in self._rounds(call, block, ordinal, ends):
            part.seen = seen
            self._judge_round(call, part, log, offsets)
            if self.trial is not None and self.trial.result is None and part.ready.any():
                ready = np.flatnonzero(part.ready)
                self.trial.run(part.values[ready], call.state.memory, part.codes[ready])
            self._abandon(call, part, ends)
        call.out.scores.append(log)
        call.out.counts["windows"] += n
        call.out.counts["incomplete"] += int(block.incomplete.sum())
        left_out = self._modality.left_out(block.values)
        if left_out is not None and left_out.any():
            call.out.counts["cut"] += int((left_out > 0).sum())
            call.out.counts["left_out"] += int(left_out.sum())

    def _prepared(self, block: WindowBlock) -> WindowBlock:
        """Let the detector make what it needs of the items once, before they are parted."""
        try:
            return replace(block, values=self._detector.prepared(block.values))
        except Exception:  # noqa: BLE001 - what cannot be prepared fails again where it is scored
            return block

    def _observe(self, call: Call, block: WindowBlock) -> Observed | None:
        """Let a detector that judges by a population see a block as a whole, in order.

        Also where its scores are in the log: what it takes in is its state.
        """
        if call.state.shared is None:
            return None
        try:
            return self._detector.watch(call.state.shared, block.values)
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way; reported below
            return _Failed(len(block), self._info.n_looks, f"{type(error).__name__}: {error}")

    def _abandon(self, call: Call, part: _Round, ends: NDArray[np.bool_]) -> None:
        """End episodes of keys that were blind for long: nothing else would end their alerts."""
        for place in np.flatnonzero(ends[part.rows]).tolist():
            codes = part.codes[place : place + 1]
            if not call.state.episodes.is_open(codes)[0]:
                continue
            code, end_ms = int(codes[0]), int(part.end_ms[place])
            until_ms = int(call.state.flags["event_ms"][code, 1])
            self._make.end(call, code, at_ms=end_ms, until_ms=until_ms, reason=BLIND)
            call.state.episodes.abandon(codes)

    def _rounds(
        self,
        call: Call,
        block: WindowBlock,
        ordinal: NDArray[np.int64],
        ends: NDArray[np.bool_],
    ) -> Iterator[_Round]:
        """Cut a block at the windows where a key's memory may change, counted per key.

        Also after those that ``ends`` marks, at which an open episode is given up. The cuts depend
        on a key's own count of windows, not on the block, so that a window is judged by the same
        memory however its batch was cut.
        """
        state, info = call.state, self._detector.info
        flags = np.where(block.incomplete, FLAG_INCOMPLETE, 0).astype(np.uint8)
        if state.memory is None and not ends.any():
            whole = np.arange(len(block))
            ready = ~block.incomplete
            yield _Round(
                block, whole, ordinal, block.codes, block.values, block.start_ms, block.end_ms,
                block.still, ready, flags,
            )  # fmt: skip
            return
        turn = np.zeros(len(block), np.int64)
        if state.memory is not None:
            cold = (ordinal < self._detector.warm_up) & ~state.flags["seeded"][block.codes]
            flags[cold & ~block.incomplete] |= FLAG_WARMING
            turn = _turns(block.codes, ordinal // info.learn_every)
        if ends.any():
            # Neither falls from a window of a key to its next: sums part what either parts.
            turn += marked_before(block.codes, ends)
        for t in range(int(turn.max(initial=0)) + 1):
            rows = np.flatnonzero(turn == t)
            yield _Round(
                block,
                rows,
                ordinal[rows],
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
        self._tell_failures(call, part, self._fill_looks(call, part, looks, log.certainty))
        failed = np.isnan(looks).any(axis=1)
        part.flags[part.ready & failed] |= FLAG_ERROR
        part.ready &= ~failed
        looks = self._modality.add_up(call.state.windows, part.codes, part.end_ms, looks)
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
            sudden=self._modality.sudden(part.values[pick]),
            message=offsets[part.rows[pick]],
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
        if looks.shape[1] > 1:
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

    def _fill_looks(
        self,
        call: Call,
        part: _Round,
        looks: NDArray[np.float32],
        certainty: NDArray[np.float32] | None,
    ) -> dict[int, str]:
        """Score what is ready and not in the log; what the detector fails on stays NaN.

        Returns the reason of each failure, by the window's place in the round, in order.
        """
        ask = part.ready & np.isnan(looks).any(axis=1)
        if not ask.any():
            return {}
        if part.seen is not None:
            looks[ask] = part.seen.looks[part.rows[ask]]
            bad = np.flatnonzero(ask & ~np.isfinite(looks).all(axis=1))
            looks[bad] = np.nan
            why = part.seen.reason if isinstance(part.seen, _Failed) else NOT_FINITE
            return dict.fromkeys(bad.tolist(), why)
        places = np.flatnonzero(ask)
        values = part.values if ask.all() else part.values[places]
        made, failed = self._look(call, values, part.codes[places])
        looks[places] = made[:, : looks.shape[1]]
        if certainty is not None:
            certainty[part.rows[places]] = made[:, -1]
        return {int(places[i]): reason for i, reason in failed.items()}

    def _look(
        self, call: Call, values: Any, codes: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        memory, failed = call.state.memory, dict[int, str]()
        try:
            looks = self._detector.looks(values, memory=memory, slots=codes)
            bad = np.flatnonzero(~np.isfinite(looks).all(axis=1))
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; told window by window below
            n_columns = self._info.n_looks + self._info.certain
            looks = np.full((len(codes), n_columns), np.nan, np.float32)
            bad = np.arange(len(codes))
        for i in bad.tolist():
            one = slice(i, i + 1)
            reason = NOT_FINITE
            try:
                looks[i] = self._detector.looks(values[one], memory=memory, slots=codes[one])[0]
            except Exception as error:  # noqa: BLE001 - the stream goes on; the finding says why
                looks[i] = np.nan
                reason = f"{type(error).__name__}: {error}"
            if not np.isfinite(looks[i]).all():
                looks[i] = np.nan
                failed[i] = reason
        return looks, failed

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
        observed, expected = self._modality.effect(why)
        effect = observed - expected
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
        opened = call.state.flags["opened_ordinal"]
        why = self._explain(call, part, places)
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
        part: _Round,
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

    def _explain(self, call: Call, part: _Round, places: NDArray[np.int64]) -> Any:
        try:
            if part.seen is not None:
                return part.seen.explain(part.rows[places])
            return self._detector.explain(
                part.values[places], memory=call.state.memory, slots=part.codes[places]
            )
        except Exception:  # noqa: BLE001 - a finding without an explanation beats none
            call.out.counts["explain_errors"] += len(places)
            return None


@dataclass(frozen=True, slots=True)
class _Failed:
    """A block that a detector of a population failed on."""

    n: int
    n_looks: int
    reason: str

    @property
    def looks(self) -> NDArray[np.float32]:
        return np.full((self.n, self.n_looks), np.nan, np.float32)

    def explain(self, places: NDArray[np.int64]) -> Any:
        raise NotImplementedError(self.reason, places)


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


def _turns(codes: NDArray[np.int32], period: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many periods after its key's first window in the block each window stands."""
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = period[::-1]  # the last one written is the first of its key
    return np.asarray(period - first[codes])
