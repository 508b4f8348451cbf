"""Detect: columnar batches of one shard become scores and findings.

The operator is a bag of settings plus two verbs over a `ShardState`; no clock, no client, no
thread. What a key yields depends on its own rows and their order alone, so every runtime, batch
size and replay gives the same findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.detectors.base import Detector, smoothing
from streamad.operators.call import NOWHERE, Call, DetectOutput, Position, RecordedScores
from streamad.operators.findings import FindingMaker
from streamad.operators.identity import StateIdentity
from streamad.operators.judge import WindowJudge
from streamad.operators.shard import ShardState
from streamad.operators.silence import cut_at_ticks, pass_tick, tick_length
from streamad.records import Rejected, SignalBatch
from streamad.scoring.episodes import EpisodePlan, Episodes, Level
from streamad.windows.arrays import NEVER
from streamad.windows.keys import NO_KEY, KeyTable
from streamad.windows.signals import SignalWindows, WindowPlan

__all__ = ["DetectOperator", "DetectOutput", "Position", "RecordedScores"]


class DetectOperator:
    """Judge every window of every key of a shard.

    artifact : id of the artifact the detector was loaded from ("" = none); groups : keys the
        artifact was fitted on and their training group; tail : raw scores at the tail
        probabilities, from the artifact, else the detector's own; seeds : block maxima of the
        training groups, see `Episodes`; degraded : why a fallback judges
        instead of the configured detector ("" = it does not).
    """

    def __init__(  # noqa: PLR0913 - all but two by keyword
        self,
        config: PipelineConfig,
        detector: Detector,
        *,
        artifact: str = "",
        groups: Mapping[str, int] | None = None,
        tail: tuple[float, ...] | None = None,
        seeds: NDArray[np.float32] | None = None,
        degraded: str = "",
    ) -> None:
        self.config, self.detector = config, detector
        self.artifact, self.degraded = artifact, degraded
        self._groups = dict(groups or {})
        self._tail = tail or detector.info.tail
        self._seeds = seeds
        self._make = FindingMaker(
            config=config, detector=detector.info.name, artifact=artifact, degraded=degraded
        )
        self._judge = WindowJudge(config, detector, self._make)
        self._tick_ms = tick_length(config.series)
        self.plan = _window_plan(config, detector)

    @property
    def identity(self) -> StateIdentity:
        """Return what state of this operator belongs to."""
        return StateIdentity(
            checksum=self.config.decision_checksum(),
            settings=self.config.decision_settings(),
            detector=self.detector.info.name,
            artifact=self.artifact,
        )

    def covers(self, key: str) -> bool:
        """Return whether the artifact was fitted on a key, which then needs no first days."""
        return key in self._groups

    def new_state(self) -> ShardState:
        """Return an empty shard."""
        return ShardState(
            keys=KeyTable(self.config.series.max_keys),
            windows=SignalWindows(self.plan),
            episodes=Episodes(
                _episode_plan(self.config, self.detector),
                self._tail,
                n_looks=self.detector.info.n_looks,
                seeds=self._seeds,
            ),
            memory=self.detector.new_memory(self.plan.n_variates),
        )

    def process(
        self,
        state: ShardState,
        batch: SignalBatch,
        *,
        at: Position = NOWHERE,
        recorded: RecordedScores | None = None,
    ) -> DetectOutput:
        """Take a batch of one partition, in offset order; return all it yields."""
        call = Call(state=state, at=at, out=DetectOutput(), recorded=recorded)
        call.out.counts["points"] += len(batch)
        usable = self._not_from_the_future(call, batch)
        late = np.zeros(len(batch), np.bool_)
        parts, state.last_tick = cut_at_ticks(
            np.where(usable, batch.time_ms, NEVER),
            partition_ms=state.partition_ms,
            last_tick=state.last_tick,
            tick_ms=self._tick_ms,
        )
        for start, stop, tick in parts:
            if tick is not None:
                pass_tick(call, tick, series=self.config.series, make=self._make)
            self._rows(call, batch, slice(start, stop), usable[start:stop], late[start:stop])
        if usable.any():
            state.partition_ms = max(state.partition_ms, int(batch.time_ms[usable].max()))
        call.out.late = np.flatnonzero(late)
        call.out.counts["late"] += len(call.out.late)
        call.out.findings.sort(key=lambda f: (f.window_end_ms, f.key, f.sequence))
        return call.out

    def tick(self, state: ShardState, now_ms: int, *, at: Position = NOWHERE) -> DetectOutput:
        """Let ``now_ms`` pass for a partition that is silent as a whole; the runtime logs this."""
        call = Call(state=state, at=at, out=DetectOutput())
        if now_ms > state.partition_ms > int(NEVER):
            state.partition_ms = now_ms
            tick = now_ms - now_ms % self._tick_ms
            if tick > state.last_tick:
                pass_tick(call, tick, series=self.config.series, make=self._make)
        return call.out

    def _not_from_the_future(self, call: Call, batch: SignalBatch) -> NDArray[np.bool_]:
        """Refuse rows too far ahead of the broker's clock: one would close its neighbours."""
        broker = batch.broker_ms[batch.message]
        allowed = self.config.series.max_ahead
        ahead = (broker >= 0) & (batch.time_ms > broker + allowed)
        for row in np.flatnonzero(ahead).tolist():
            detail = (
                f"event time {batch.time_ms[row]} is {batch.time_ms[row] - broker[row]} ms ahead "
                f"of the broker's clock; series.max_ahead allows {allowed} ms"
            )
            call.out.rejected.append(_reject(batch, row, "time_ahead", detail))
        return ~ahead

    def _rows(
        self,
        call: Call,
        batch: SignalBatch,
        part: slice,
        usable: NDArray[np.bool_],
        late: NDArray[np.bool_],
    ) -> None:
        if part.stop == part.start:
            return
        state = call.state
        codes, created = state.keys.encode(batch.keys[part])
        if created:
            self._new_keys(call, batch, part.start, codes, created)
        known = codes != NO_KEY
        for row in np.flatnonzero(~known).tolist():
            detail = f"the shard holds series.max_keys = {self.config.series.max_keys} keys already"
            call.out.rejected.append(_reject(batch, part.start + row, "key_limit", detail))
        chosen = known & usable
        chosen[known] &= state.flags["selected"][codes[known]]
        call.out.counts["deselected"] += int((known & usable & ~chosen).sum())
        codes = np.where(chosen, codes, np.int32(NO_KEY))
        blocks = state.windows.ingest(codes, batch.time_ms[part], batch.values[part], late)
        for block in blocks:
            offsets = batch.offsets[batch.message[part.start + block.row]]
            self._judge.judge(call, block, offsets)

    def _new_keys(
        self,
        call: Call,
        batch: SignalBatch,
        start: int,
        codes: NDArray[np.int32],
        created: list[int],
    ) -> None:
        order = np.argsort(codes, kind="stable")
        rows = order[np.searchsorted(codes[order], np.array(created, np.int32))] + start
        columns = {name: column.gather(rows).to_list() for name, column in batch.tags.items()}
        tags = [
            {name: str(column[i]) for name, column in columns.items() if column[i] is not None}
            for i in range(len(created))
        ]
        names = [call.key(code) for code in created]
        chosen = [self._is_selected(name, tag) for name, tag in zip(names, tags, strict=True)]
        state = call.state
        state.add(created, chosen, tags)
        for code, name in zip(created, names, strict=True):
            group = self._groups.get(name)
            if group is None:
                continue
            state.episodes.seed(code, group)
            if state.memory is not None:
                self.detector.seed_memory(state.memory, slot=code, group=group)
                state.flags["seeded"][code] = True

    def _is_selected(self, key: str, tags: Mapping[str, str]) -> bool:
        select = self.config.series.select
        return (
            any(fnmatchcase(key, pattern) for pattern in select.include)
            and not any(fnmatchcase(key, pattern) for pattern in select.exclude)
            and all(fnmatchcase(tags.get(name, ""), want) for name, want in select.tags.items())
        )


def _window_plan(config: PipelineConfig, detector: Detector) -> WindowPlan:
    series = config.series
    return WindowPlan(
        size=detector.size,
        stride=config.windows.stride,
        n_variates=len(config.input.fields.variate_names),
        step_ms=series.step or 0,
        lateness_ms=series.lateness,
        kind=series.kind,
        aggregate="sum" if series.kind == "delta" else series.aggregate,
        fill=series.gaps.fill,
        max_missing=series.gaps.max_share,
        nan_limit=detector.info.nan_ok,
        reorder=series.reorder,
    )


CANDIDATE, EXIT = 0.85, 0.8
"""Without settings of their own, these levels are reached by a block as often as the alert level
to this power."""


def _episode_plan(config: PipelineConfig, detector: Detector) -> EpisodePlan:
    scoring, size, stride = config.scoring, detector.size, config.windows.stride
    alert = _level(config.alerts.level)
    two = detector.info.n_looks == 2
    delay = (detector.lag - smoothing(size) - NEWEST_AT) // stride if two else 0
    return EpisodePlan(
        candidate=_level(scoring.candidate, alert, CANDIDATE),
        exit=_level(scoring.exit, alert, EXIT),
        alert=alert,
        min_windows=scoring.min_windows,
        min_duration=scoring.min_duration,
        cool_down=scoring.cool_down,
        adopt_ms=scoring.adopt_after,
        first_ms=scoring.first_day,
        update_every=scoring.update_every,
        memory_ms=scoring.memory,
        size=size,
        stride=stride,
        step_ms=config.series.step or 0,
        smooth_delay=max(delay, 0),
        learns=detector.info.learns,
        zone=scoring.timezone,
    )


NEWEST_AT = 4
"""Samples after the judged one at which the newest look is evidence for the centred one."""


def _level(rarity: float | None, alert: Level | None = None, power: float = 1.0) -> Level:
    if rarity is None:
        return replace(alert or Level(), power=power)
    if isinstance(rarity, int):
        return Level(period_ms=rarity)
    return Level(probability=rarity)


def _reject(batch: SignalBatch, row: int, reason: str, detail: str) -> Rejected:
    return Rejected(
        message=int(batch.message[row]), row=int(batch.row[row]), reason=reason, detail=detail
    )
