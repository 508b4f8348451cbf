"""Detect: columnar batches of one shard become scores and findings.

The operator is a bag of settings plus verbs over a `ShardState`; no clock, no client, no thread.
What a key yields depends on its own rows and their order alone, so every runtime, batch size and
replay gives the same findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.detectors.base import Detector, WindowExplanations
from streamad.operators.shard import ShardState
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Explanation,
    Finding,
    FindingKind,
    FindingState,
    Rejected,
    ScoreBatch,
    SignalBatch,
    stable_id,
)
from streamad.scoring.episodes import (
    ADOPTED,
    BEGAN,
    CONTINUES,
    ENDED,
    NOTHING,
    EpisodePlan,
    Episodes,
    Judgement,
)
from streamad.windows.keys import NO_KEY, KeyTable
from streamad.windows.signals import NEVER, SignalWindows, WindowBlock, WindowPlan

_MAX_ERROR_FINDINGS = 100
_STATES: dict[int, FindingState] = {
    BEGAN: "began", CONTINUES: "continues", ENDED: "ended", ADOPTED: "ended",
}  # fmt: skip


class RecordedScores(Protocol):
    """Scores of windows that were judged before: recovery reads these instead of the model."""

    def lookup(self, keys: pl.Series, end_ms: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the logged score of each window, NaN where none was logged."""


@dataclass(slots=True, kw_only=True)
class DetectOutput:
    """What one call yields. ``late`` are row indices of the batch; ``counts`` feed telemetry."""

    findings: list[Finding] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    late: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a batch came from; findings carry it so that their input can be found again."""

    topic: str = ""
    partition: int = 0


class DetectOperator:
    """Judge every window of every key of a shard.

    artifact : id of the artifact the detector was loaded from ("" = none); groups : keys the
        artifact was fitted on and their training group; tail : raw scores at the tail
        probabilities, from the artifact, else the detector's own; degraded : why a fallback judges
        instead of the configured detector ("" = it does not).
    """

    def __init__(  # noqa: PLR0913
        self,
        config: PipelineConfig,
        detector: Detector,
        *,
        artifact: str = "",
        groups: Mapping[str, int] | None = None,
        tail: tuple[float, ...] | None = None,
        degraded: str = "",
    ) -> None:
        self.config, self.detector, self.degraded = config, detector, degraded
        self.artifact = artifact
        self._groups = dict(groups or {})
        self._tail = tail or detector.info.tail
        self._names = config.input.fields.variate_names
        series, scoring = config.series, config.scoring
        self.plan = WindowPlan(
            size=detector.size,
            stride=config.windows.stride,
            n_variates=len(self._names),
            step_ms=series.step or 0,
            lateness_ms=series.lateness,
            kind=series.kind,
            aggregate="sum" if series.kind == "delta" else series.aggregate,
            fill=series.gaps.fill,
            max_missing=series.gaps.max_share,
            nan_limit=detector.info.nan_ok,
            reorder=series.reorder,
            lag=detector.lag,
        )
        self._episodes = EpisodePlan(
            candidate=scoring.candidate,
            exit=scoring.exit,
            min_windows=scoring.min_windows,
            min_duration=scoring.min_duration,
            cool_down=scoring.cool_down,
            adopt_after=scoring.adopt_after,
            epoch=scoring.epoch,
            update_every=scoring.update_every,
        )
        effect = scoring.min_effect
        self._gated = scoring.direction != "both" or effect.absolute > 0 or effect.relative > 0
        shortest = min(series.silence or series.ttl, series.ttl)
        self._tick_ms = max(1_000, shortest // 4)

    def new_state(self) -> ShardState:
        """Return an empty shard."""
        return ShardState(
            keys=KeyTable(self.config.series.max_keys),
            windows=SignalWindows(self.plan),
            episodes=Episodes(self._episodes, self._tail),
            memory=self.detector.new_memory(self.plan.n_variates),
        )

    def process(
        self,
        state: ShardState,
        batch: SignalBatch,
        *,
        at: Position = Position(),  # noqa: B008
        recorded: RecordedScores | None = None,
    ) -> DetectOutput:
        """Take a batch of one partition, in offset order; return all it yields."""
        out = DetectOutput()
        out.counts["points"] += len(batch)
        usable = self._not_from_the_future(batch, out)
        late = np.zeros(len(batch), np.bool_)
        for start, stop, tick in self._segments(state, batch.time_ms, usable):
            if tick is not None:
                self._tick(state, tick, out, at)
            if stop > start:
                self._segment(state, batch, start, stop, usable, late, out, at, recorded)
        if len(batch) and usable.any():
            state.partition_ms = max(state.partition_ms, int(batch.time_ms[usable].max()))
        out.late = np.flatnonzero(late)
        out.counts["late"] += len(out.late)
        out.findings.sort(key=lambda f: (f.window_end_ms, f.key, f.sequence))
        return out

    def tick(
        self, state: ShardState, now_ms: int, *, at: Position = Position()  # noqa: B008
    ) -> DetectOutput:
        """Let ``now_ms`` pass for a partition that is silent as a whole; the runtime logs this."""
        out = DetectOutput()
        if now_ms > state.partition_ms > int(NEVER):
            state.partition_ms = now_ms
            tick = now_ms - now_ms % self._tick_ms
            if tick > state.last_tick:
                self._tick(state, tick, out, at)
        return out

    # ------------------------------------------------------------------ rows

    def _not_from_the_future(self, batch: SignalBatch, out: DetectOutput) -> NDArray[np.bool_]:
        """Refuse rows too far ahead of the broker's clock: one such row would close its neighbours."""
        broker = batch.broker_ms[batch.message]
        ahead = (broker >= 0) & (batch.time_ms > broker + self.config.series.max_ahead)
        for row in np.flatnonzero(ahead).tolist():
            by = int(batch.time_ms[row] - broker[row])
            detail = (
                f"event time {int(batch.time_ms[row])} is {by} ms ahead of the broker's clock; "
                f"series.max_ahead allows {self.config.series.max_ahead} ms"
            )
            out.rejected.append(_reject(batch, row, "time_ahead", detail))
        return ~ahead

    def _segments(
        self, state: ShardState, time_ms: NDArray[np.int64], usable: NDArray[np.bool_]
    ) -> list[tuple[int, int, int | None]]:
        """Cut a batch where partition time passes a tick, so that ticks fall between the same rows
        however batches are cut."""
        if not len(time_ms):
            return []
        seen = np.where(usable, time_ms, NEVER)
        running = np.maximum(np.maximum.accumulate(seen), state.partition_ms)
        ticks = running // self._tick_ms
        known = ticks[ticks > NEVER // self._tick_ms]
        if state.last_tick == int(NEVER) and len(known):
            state.last_tick = int(known[0]) * self._tick_ms
        before = np.concatenate([[state.last_tick // self._tick_ms], ticks[:-1]])
        cuts = np.flatnonzero((ticks > before) & (ticks > state.last_tick // self._tick_ms))
        bounds = [0, *cuts.tolist(), len(time_ms)]
        parts: list[tuple[int, int, int | None]] = [(0, bounds[1], None)]
        for cut, stop in zip(bounds[1:-1], bounds[2:], strict=True):
            parts.append((cut, stop, int(ticks[cut]) * self._tick_ms))
        return parts

    def _segment(  # noqa: PLR0913
        self,
        state: ShardState,
        batch: SignalBatch,
        start: int,
        stop: int,
        usable: NDArray[np.bool_],
        late: NDArray[np.bool_],
        out: DetectOutput,
        at: Position,
        recorded: RecordedScores | None,
    ) -> None:
        codes, created = state.keys.encode(batch.keys[start:stop])
        if created:
            self._new_keys(state, batch, start, codes, created)
        for row in np.flatnonzero(codes == NO_KEY).tolist():
            detail = f"the shard holds series.max_keys = {self.config.series.max_keys} keys already"
            out.rejected.append(_reject(batch, start + row, "key_limit", detail))
        known = codes != NO_KEY
        if known.any():
            chosen = known & usable[start:stop]
            chosen[known] &= state.flags["selected"][codes[known]]
            codes = np.where(chosen, codes, np.int32(NO_KEY))
            out.counts["deselected"] += int((known & ~chosen).sum())
        blocks = state.windows.ingest(
            codes, batch.time_ms[start:stop], batch.values[start:stop], late[start:stop]
        )
        for block in blocks:
            self._block(state, block, batch, start, out, at, recorded)

    def _new_keys(
        self,
        state: ShardState,
        batch: SignalBatch,
        start: int,
        codes: NDArray[np.int32],
        created: list[int],
    ) -> None:
        wanted = np.array(created, np.int32)
        order = np.argsort(codes, kind="stable")
        rows = order[np.searchsorted(codes[order], wanted)] + start
        columns = {name: column.gather(rows).to_list() for name, column in batch.tags.items()}
        tags = [
            {name: str(column[i]) for name, column in columns.items() if column[i] is not None}
            for i in range(len(created))
        ]
        names = [str(state.keys.names[code]) for code in created]
        chosen = [self._is_selected(name, tag) for name, tag in zip(names, tags, strict=True)]
        state.add(created, chosen, tags)
        if state.memory is not None and self._groups:
            for code, name in zip(created, names, strict=True):
                if name in self._groups:
                    group = self._groups[name]
                    self.detector.seed_memory(state.memory, slot=code, group=group)
                    state.flags["seeded"][code] = True

    def _is_selected(self, key: str, tags: Mapping[str, str]) -> bool:
        select = self.config.series.select
        return (
            any(fnmatchcase(key, pattern) for pattern in select.include)
            and not any(fnmatchcase(key, pattern) for pattern in select.exclude)
            and all(fnmatchcase(tags.get(name, ""), want) for name, want in select.tags.items())
        )

    # ------------------------------------------------------------------ windows

    def _block(  # noqa: PLR0913
        self,
        state: ShardState,
        block: WindowBlock,
        batch: SignalBatch,
        start: int,
        out: DetectOutput,
        at: Position,
        recorded: RecordedScores | None,
    ) -> None:
        """Score and judge the windows of a block, a round at a time where the detector learns."""
        n = len(block)
        made = _Scored(n)
        made.flags[block.incomplete] |= FLAG_INCOMPLETE
        keys = state.keys.decode(block.codes)
        log = recorded.lookup(keys, block.end_ms) if recorded is not None else None
        offsets = batch.offsets[batch.message[start + block.row]]
        rounds, cold = self._rounds(state, block)
        for rows in rounds:
            self._round(state, block, rows, made, cold, log, out, at, offsets)
        out.scores.append(
            ScoreBatch(
                keys=keys,
                end_ms=block.end_ms.copy(),
                score=made.score,
                p_value=made.p_value,
                level=made.level,
                flags=made.flags,
            )
        )
        out.counts["windows"] += n
        out.counts["incomplete"] += int(block.incomplete.sum())

    def _rounds(
        self, state: ShardState, block: WindowBlock
    ) -> tuple[list[NDArray[np.int64] | slice], NDArray[np.bool_] | None]:
        """Cut a block at the windows where a key's memory may change, counted per key; also say
        which windows come within their key's warm-up."""
        if state.memory is None:
            return [slice(None)], None
        every = self.detector.info.learn_every
        ordinal = state.flags["ordinal"]
        order = np.argsort(block.codes, kind="stable")
        sorted_codes = block.codes[order]
        first = np.searchsorted(sorted_codes, sorted_codes, side="left")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - first
        number = ordinal[block.codes] + place
        turn = number // every - ordinal[block.codes] // every
        np.add.at(ordinal, block.codes, 1)
        cold = (number < self.detector.info.warm_up) & ~state.flags["seeded"][block.codes]
        if not turn.any():
            return [slice(None)], cold
        return [np.flatnonzero(turn == t) for t in range(int(turn.max()) + 1)], cold

    def _round(  # noqa: PLR0913
        self,
        state: ShardState,
        block: WindowBlock,
        rows: NDArray[np.int64] | slice,
        made: _Scored,
        all_cold: NDArray[np.bool_] | None,
        log: NDArray[np.float32] | None,
        out: DetectOutput,
        at: Position,
        offsets: NDArray[np.int64],
    ) -> None:
        codes, values, end_ms = block.codes[rows], block.values[rows], block.end_ms[rows]
        ready = ~block.incomplete[rows]
        flags = made.flags[rows]
        if all_cold is not None:
            cold = all_cold[rows]
            flags[cold & ready] |= FLAG_WARMING
            ready &= ~cold
        scores = np.full(len(codes), np.nan, np.float32)
        if log is not None:
            scores = log[rows].copy()
        ask = ready & np.isnan(scores)
        whole = bool(ask.all())
        if ask.any():
            asked = values if whole else values[ask]
            scores[ask] = self._score(state, asked, codes if whole else codes[ask], end_ms[ask], out, at)
        failed = ready & np.isnan(scores)
        flags[failed] |= FLAG_ERROR
        ready &= ~failed
        pick: NDArray[np.int64] | slice = slice(None) if ready.all() else np.flatnonzero(ready)
        suppressed = np.zeros(len(codes), np.bool_)
        if self._gated and ready.any():
            suppressed[pick] = self._does_not_matter(state, values[pick], codes[pick])
        verdict = state.episodes.judge(codes[pick], scores[pick], end_ms[pick], suppressed[pick])
        inside = np.zeros(len(codes), np.bool_)
        inside[pick] = verdict.inside
        flags[inside] |= FLAG_EPISODE
        flags[suppressed] |= FLAG_SUPPRESSED
        candidate = np.zeros(len(codes), np.bool_)
        candidate[pick] = verdict.candidate
        flags[candidate] |= FLAG_CANDIDATE
        p_value = np.full(len(codes), np.nan, np.float32)
        level = np.full(len(codes), np.nan, np.float32)
        p_value[pick], level[pick] = verdict.p_value, verdict.level
        made.put(rows, scores, p_value, level, flags)
        events = np.flatnonzero(verdict.event != NOTHING)
        if len(events):
            origin = np.arange(len(codes))[pick][events]
            if not isinstance(rows, slice):
                origin_in_block = rows[origin]
            else:
                origin_in_block = origin
            self._findings(
                state, block, origin_in_block, verdict, events, scores[origin], out, at, offsets
            )
        if state.memory is not None:
            admit = (ready | ((flags & FLAG_WARMING) > 0)) & ~inside & ~candidate
            self.detector.learn(
                state.memory, values, slots=codes, admit=admit, stride=self.plan.stride
            )

    def _score(  # noqa: PLR0913
        self,
        state: ShardState,
        values: NDArray[np.float32],
        codes: NDArray[np.int32],
        end_ms: NDArray[np.int64],
        out: DetectOutput,
        at: Position,
    ) -> NDArray[np.float32]:
        """Score windows; those the detector fails on are NaN and become error findings."""
        try:
            scores = self.detector.score(values, memory=state.memory, slots=codes)
            if np.isfinite(scores).all():
                return scores
        except Exception:  # noqa: BLE001 - any failure of a plug-in is told window by window below
            scores = np.full(len(codes), np.nan, np.float32)
        for i in np.flatnonzero(~np.isfinite(scores)).tolist():
            reason = "the detector returned a score that is not finite"
            try:
                one = self.detector.score(
                    values[i : i + 1], memory=state.memory, slots=codes[i : i + 1]
                )
                scores[i] = one[0] if np.isfinite(one[0]) else np.nan
            except Exception as error:  # noqa: BLE001 - the stream goes on; the finding says why
                reason = f"{type(error).__name__}: {error}"
                scores[i] = np.nan
            if np.isnan(scores[i]):
                out.counts["detector_errors"] += 1
                if out.counts["detector_errors"] <= _MAX_ERROR_FINDINGS:
                    key = str(state.keys.names[int(codes[i])])
                    out.findings.append(self._error(state, int(codes[i]), key, int(end_ms[i]), reason, at))
        return scores

    def _does_not_matter(
        self, state: ShardState, values: NDArray[np.float32], codes: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Say which windows go the wrong way or not far enough, by their most telling variate."""
        why = self.detector.explain(values, memory=state.memory, slots=codes)
        rows = np.arange(len(values))
        worst = why.share.argmax(axis=1)
        observed, expected = why.observed[rows, worst], why.expected[rows, worst]
        effect = observed - expected
        scoring = self.config.scoring
        least = np.maximum(
            scoring.min_effect.absolute, scoring.min_effect.relative * np.abs(expected)
        )
        wrong = np.abs(effect) < least
        if scoring.direction == "above":
            wrong |= effect <= 0
        elif scoring.direction == "below":
            wrong |= effect >= 0
        return np.asarray(wrong, np.bool_)

    # ------------------------------------------------------------------ findings

    def _findings(  # noqa: PLR0913
        self,
        state: ShardState,
        block: WindowBlock,
        rows: NDArray[np.int64],
        verdict: Judgement,
        events: NDArray[np.int64],
        scores: NDArray[np.float32],
        out: DetectOutput,
        at: Position,
        offsets: NDArray[np.int64],
    ) -> None:
        why = self._explain(state, block, rows)
        for place, (row, event) in enumerate(zip(rows.tolist(), events.tolist(), strict=True)):
            code = int(block.codes[row])
            adopted = int(verdict.event[event]) == ADOPTED
            out.findings.append(
                self._finding(
                    state,
                    code,
                    kind="anomaly",
                    episode=(int(verdict.opened_ms[event]), int(verdict.sequence[event])),
                    state_name=_STATES[int(verdict.event[event])],
                    window_start_ms=int(block.start_ms[row]),
                    window_end_ms=int(block.end_ms[row]),
                    began_ms=int(verdict.began_ms[event]),
                    score=float(scores[place]),
                    p_value=float(verdict.p_value[event]),
                    peak_score=float(verdict.peak[event]),
                    peak_p_value=float(verdict.peak_p[event]),
                    level=float(verdict.level[event]),
                    n_windows=int(verdict.n_windows[event]),
                    explanation=self._explanation(why, place, int(block.judged_ms[row])),
                    position={
                        "topic": at.topic,
                        "partition": at.partition,
                        "offset": int(offsets[row]),
                    },
                    reason="adopted as the new normal" if adopted else "",
                )
            )
            out.counts[f"findings_{_STATES[int(verdict.event[event])]}"] += 1

    def _explain(
        self, state: ShardState, block: WindowBlock, rows: NDArray[np.int64]
    ) -> WindowExplanations | None:
        try:
            return self.detector.explain(
                block.values[rows], memory=state.memory, slots=block.codes[rows]
            )
        except Exception:  # noqa: BLE001 - a finding without an explanation beats none
            return None

    def _explanation(
        self, why: WindowExplanations | None, place: int, judged_ms: int
    ) -> Explanation | None:
        if why is None:
            return None
        names = self._names
        return Explanation(
            observed=dict(zip(names, why.observed[place].astype(float).tolist(), strict=True)),
            expected=dict(zip(names, why.expected[place].astype(float).tolist(), strict=True)),
            variates=dict(zip(names, why.share[place].astype(float).tolist(), strict=True)),
            time_ms=judged_ms,
        )

    def _finding(  # noqa: PLR0913
        self,
        state: ShardState,
        code: int,
        *,
        kind: FindingKind,
        episode: tuple[int, int],
        state_name: FindingState,
        window_start_ms: int,
        window_end_ms: int,
        began_ms: int,
        score: float,
        p_value: float,
        peak_score: float,
        peak_p_value: float,
        level: float,
        n_windows: int,
        explanation: Explanation | None,
        position: dict[str, int | str],
        reason: str,
    ) -> Finding:
        config = self.config
        key = str(state.keys.names[code])
        opened_ms, sequence = episode
        entity = self._entity(key, state.tags.get(code, {}))
        group = config.alerts.group
        return Finding(
            id=stable_id(config.name, config.detector.name, kind, key, opened_ms),
            sequence=sequence,
            state=state_name,
            kind=kind,
            pipeline=config.name,
            detector=self.detector.info.name,
            artifact=self.artifact,
            tenant=config.alerts.tenant,
            group=entity.get(group, group) if group else config.name,
            key=key,
            entity=entity,
            window_start_ms=window_start_ms,
            window_end_ms=window_end_ms,
            began_ms=began_ms,
            score=score,
            p_value=p_value,
            peak_score=peak_score,
            peak_p_value=peak_p_value,
            level=level,
            n_windows=n_windows,
            explanation=explanation,
            input=position,
            degraded=self.degraded,
            reason=reason,
        )

    def _entity(self, key: str, tags: Mapping[str, str]) -> dict[str, str]:
        fields = self.config.input.fields.key
        parts = key.split("/", len(fields) - 1)
        named = dict(zip(fields, parts, strict=True)) if len(parts) == len(fields) else {}
        return {**(named or {fields[0]: key}), **tags}

    def _error(  # noqa: PLR0913
        self, state: ShardState, code: int, key: str, end_ms: int, reason: str, at: Position
    ) -> Finding:
        return self._plain(state, code, "error", "began", end_ms, (end_ms, 0), reason, at)

    def _plain(  # noqa: PLR0913
        self,
        state: ShardState,
        code: int,
        kind: FindingKind,
        state_name: FindingState,
        end_ms: int,
        episode: tuple[int, int],
        reason: str,
        at: Position,
    ) -> Finding:
        """Return a finding that no score stands behind."""
        return self._finding(
            state, code, kind=kind, episode=episode, state_name=state_name,
            window_start_ms=episode[0], window_end_ms=end_ms, began_ms=episode[0], score=0.0,
            p_value=0.0, peak_score=0.0, peak_p_value=0.0, level=0.0, n_windows=0,
            explanation=None, position={"topic": at.topic, "partition": at.partition, "offset": -1},
            reason=reason,
        )  # fmt: skip

    # ------------------------------------------------------------------ silence and TTL

    def _tick(self, state: ShardState, tick_ms: int, out: DetectOutput, at: Position) -> None:
        """Find keys that fell silent, came back, or are to be forgotten, as of ``tick_ms``."""
        state.last_tick = tick_ms
        live = state.keys.live()
        if not len(live):
            return
        clock, flags = state.windows.state["clock"][live], state.flags
        watched = flags["selected"][live]
        silence = self.config.series.silence
        if silence is not None:
            quiet = watched & (clock + silence <= tick_ms) & (clock > NEVER)
            was = flags["silent"][live]
            for code in live[quiet & ~was].tolist():
                since = int(state.windows.state["clock"][code])
                flags["silent"][code] = True
                flags["silent_ms"][code] = since
                said = f"no data for {(tick_ms - since) / 1000:g} s; series.silence is {silence / 1000:g} s"
                out.findings.append(
                    self._plain(state, code, "no_data", "began", tick_ms, (since, 0), said, at)
                )
                out.counts["silent"] += 1
            for code in live[was & ~quiet].tolist():
                flags["silent"][code] = False
                episode = (int(flags["silent_ms"][code]), 1)
                out.findings.append(
                    self._plain(state, code, "no_data", "ended", tick_ms, episode, "data again", at)
                )
        gone = live[(clock + self.config.series.ttl <= tick_ms) & (clock > NEVER)]
        if len(gone):
            for code in gone[flags["silent"][gone]].tolist():
                episode = (int(flags["silent_ms"][code]), 1)
                out.findings.append(
                    self._plain(
                        state, code, "no_data", "ended", tick_ms, episode, "forgotten after ttl", at
                    )
                )
            state.drop(gone)
            out.counts["forgotten"] += len(gone)


class _Scored:
    """Columns of a block's scores, filled round by round."""

    def __init__(self, n: int) -> None:
        self.score = np.full(n, np.nan, np.float32)
        self.p_value = np.full(n, np.nan, np.float32)
        self.level = np.full(n, np.nan, np.float32)
        self.flags = np.zeros(n, np.uint8)

    def put(
        self,
        rows: NDArray[np.int64] | slice,
        score: NDArray[np.float32],
        p_value: NDArray[np.float32],
        level: NDArray[np.float32],
        flags: NDArray[np.uint8],
    ) -> None:
        self.score[rows] = score
        self.p_value[rows] = p_value
        self.level[rows] = level
        self.flags[rows] = flags


def _reject(batch: SignalBatch, row: int, reason: str, detail: str) -> Rejected:
    return Rejected(
        message=int(batch.message[row]), row=int(batch.row[row]), reason=reason, detail=detail
    )
