"""Detect: columnar batches of one shard become scores and findings.

The operator is a bag of settings plus two verbs over a `ShardState`; no clock, no client, no
thread. What a key yields depends on its own rows and their order alone, so every runtime, batch
size and replay gives the same findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.detectors.contract import ItemDetector, Memory
from streamad.errors import StateError
from streamad.modalities import modality_of
from streamad.operators.ahead import why_ahead
from streamad.operators.call import NOWHERE, Call, DetectOutput, Position, RecordedScores
from streamad.operators.findings import FindingMaker
from streamad.operators.identity import StateIdentity
from streamad.operators.judge import Trial, WindowJudge
from streamad.operators.kernels import LATE_RUN, late_runs
from streamad.operators.newcomers import Newcomers, left_out, reject
from streamad.operators.shard import ShardState
from streamad.operators.silence import Silence, cut_at_ticks, tick_length
from streamad.records import RecordBatch
from streamad.scoring.episodes import NO_SEED, Episodes
from streamad.windows.arrays import NEVER
from streamad.windows.keys import NO_KEY, Hashes, KeyTable, hashes_of
from streamad.windows.signals import WindowBlock
from streamad.windows.waiting import WaitingRoom

__all__ = ["DetectOperator", "DetectOutput", "Position", "RecordedScores"]

_KEYS_AT_ONCE = 1_024
"""Keys whose state is copied at a time."""


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
        detector: ItemDetector[Any],
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
        self.modality = modality_of(config, detector)
        self._judge = WindowJudge(config, detector, self._make, self.modality)
        self._newcomers = Newcomers(config, detector, self._groups, self.modality)
        self._silence = Silence(config, self._make)
        self._tick_ms = tick_length(config.series)
        self.plan = self.modality.plan

    @property
    def identity(self) -> StateIdentity:
        """Return what state of this operator belongs to."""
        return StateIdentity(
            checksum=self.config.state_checksum(),
            settings=self.config.decision_settings(),
            detector=self.detector.info.name,
            artifact=self.artifact,
            size=self.detector.size,
            begins=self.plan.begins,
        )

    def under(self, settings: Mapping[str, Any]) -> DetectOperator:
        """Return the operator of other light settings, by dotted path; itself where none differs.

        What state was made with decides how it is brought up to where its job came to. Raises
        StateError where it names values that no setting can have.
        """
        try:
            config = self.config.under(settings)
        except ValueError as error:
            msg = f"the state names settings that cannot be: {error}"
            raise StateError(msg) from error
        if config.decision_settings() == self.config.decision_settings():
            return self
        return DetectOperator(
            config,
            self.detector,
            artifact=self.artifact,
            groups=self._groups,
            tail=self._tail,
            seeds=self._seeds,
            degraded=self.degraded,
        )

    def adopt(self, state: ShardState) -> ShardState:
        """Return the state of an operator with other light settings as one of ours."""
        made, identity = self.new_state(), self.identity
        made.restore_parts(
            state.header(identity),
            lambda: state.parts(_KEYS_AT_ONCE),
            state.apart(state.keys.live()),
            identity=identity,
        )
        return made

    # ------------------------------------------------------------------ another artifact

    def cannot_follow(self, other: DetectOperator | None = None) -> str:
        """Return why keys judged beside another artifact cannot go on beside ours; "": they can.

        other : the operator of the other artifact, None where it is not at hand
        """
        kind = self.detector.info.name
        if other is not None and other.detector.info.name != kind:
            return f"{other.detector.info.name} scored so far, and it is of {kind}"
        if other is not None and other.detector.size != self.detector.size:
            return (
                f"windows had {other.detector.size} samples so far, and have {self.detector.size} "
                "with it; set windows.size, so that each fit takes the same"
            )
        n = len(self.config.input.columns)
        ours, shared = self.detector.new_memory(n), self.detector.new_shared()
        if (ours is not None or shared is not None) and not self.detector.keeps_memory:
            return f"what keys of {kind} learned belongs to the artifact they learned it beside"
        theirs = ours if other is None else other.detector.new_memory(n)
        if _kinds(ours) != _kinds(theirs):
            return f"memories of keys differ: {_kinds(theirs)} so far, {_kinds(ours)} with it"
        return ""

    def follow(self, state: ShardState) -> Callable[[], None]:
        """Make a state of another artifact ours, in place; return what undoes it."""
        before, seed = state.episodes, state.episodes.state["seed"]
        groups = np.full(len(seed), NO_SEED, np.int32)
        live = state.keys.live()
        names = [state.keys.names[code] or "" for code in live.tolist()]
        groups[live] = self.groups_of(names)
        state.episodes = self._episodes()
        state.episodes.continue_from(before, groups)
        unlearn = self.retrain(state)

        def undo() -> None:
            unlearn()
            state.episodes = before
            before.state.arrays["seed"] = seed

        return undo

    def retrain(self, state: ShardState) -> Callable[[], None]:
        """Bring what keys learned beside another artifact up to ours; return what undoes it."""
        if state.memory is None:
            return lambda: None
        live = state.keys.live()
        names = (state.keys.names[code] or "" for code in live.tolist())
        groups = np.fromiter((self._groups.get(name, NO_SEED) for name in names), np.int32)
        return self.detector.retrained(state.memory, slots=live, groups=groups)

    def groups_of(self, names: Iterable[str]) -> NDArray[np.int32]:
        """Return the training group of each key, `NO_SEED` where there are no seeds of it."""
        n = 0 if self._seeds is None else len(self._seeds)
        found = (self._groups.get(name, NO_SEED) for name in names)
        return np.fromiter((g if g < n else NO_SEED for g in found), np.int32)

    def try_on(self, other: DetectOperator | None) -> Trial | None:
        """Try another artifact's detector on what is judged from now on; None: no more."""
        self._judge.trial = None if other is None else Trial(other.detector)
        return self._judge.trial

    def covers(self, key: str) -> bool:
        """Return whether the artifact was fitted on a key, which then needs no first days."""
        return key in self._groups

    def new_state(self) -> ShardState:
        """Return an empty shard."""
        return ShardState(
            keys=KeyTable(self.config.series.max_keys),
            waiting=WaitingRoom(self.plan, self.config.series.max_keys),
            windows=self.modality.windows(),
            episodes=self._episodes(),
            memory=self.detector.new_memory(len(self.config.input.columns)),
            shared=self.detector.new_shared(),
        )

    def _episodes(self) -> Episodes:
        looks, seeds = self.modality.n_looks, self._seeds
        return Episodes(self.modality.episodes, self._tail, n_looks=looks, seeds=seeds)

    def process(
        self,
        state: ShardState,
        batch: RecordBatch[Any],
        *,
        at: Position = NOWHERE,
        recorded: RecordedScores | None = None,
        resumed: Sequence[int] = (),
    ) -> DetectOutput:
        """Take a batch of one partition, in offset order; return all it yields.

        resumed : rows at which the input is known to continue after a pause, in order; live nobody
            knows, and a row far ahead of the others is refused until more of them confirm it
        """
        call = Call(state=state, at=at, out=DetectOutput(), recorded=recorded)
        call.out.counts["points"] += len(batch)
        hashes = hashes_of(batch.keys)
        usable, shown = self._not_from_the_future(call, batch, hashes[0], resumed)
        kinds = self._kinds(call, batch, usable)
        call.out.merged = self.modality.merged(batch, hashes[0])
        call.out.counts["merged"] += len(call.out.merged)
        late = np.zeros(len(batch), np.bool_)
        parts, state.last_tick = cut_at_ticks(
            np.where(usable, batch.time_ms, NEVER),
            partition_ms=state.partition_ms,
            last_tick=state.last_tick,
            tick_ms=self._tick_ms,
        )
        for start, stop, tick in parts:
            if tick is not None:
                self._silence.pass_tick(call, tick)
            part = slice(start, stop)
            codes = self._rows(call, batch, part, hashes, usable, kinds, late)
            self._report_late(call, batch, part, codes, late[part], shown[part])
        if usable.any():
            state.partition_ms = max(state.partition_ms, int(batch.time_ms[usable].max()))
        call.out.late = np.flatnonzero(late)
        call.out.counts["late"] += len(call.out.late)
        call.out.findings.sort(
            key=lambda f: (f.window_end_ms, f.key, f.sequence, f.input["offset"])
        )
        return call.out

    def judge(self, state: ShardState, key: str, block: WindowBlock) -> DetectOutput:
        """Judge items of one key that were cut elsewhere: graphs of a file, which have no clock.

        codes of the block are set here; rows are numbers of the items
        """
        codes, created = state.keys.encode(pl.Series([key]))
        state.add(created, [True] * len(created), [{} for _ in created])
        call = Call(state=state, at=NOWHERE, out=DetectOutput())
        block = replace(block, codes=np.repeat(codes, len(block.end_ms)))
        self._judge.judge(call, block, block.row)
        return call.out

    def tick(self, state: ShardState, now_ms: int, *, at: Position = NOWHERE) -> DetectOutput:
        """Let ``now_ms`` pass for a partition that is silent as a whole; the runtime logs this."""
        call = Call(state=state, at=at, out=DetectOutput())
        if now_ms > state.partition_ms > int(NEVER):
            state.partition_ms = now_ms
            tick = now_ms - now_ms % self._tick_ms
            if tick > state.last_tick:
                self._silence.pass_tick(call, tick)
        return call.out

    def _not_from_the_future(
        self,
        call: Call,
        batch: RecordBatch[Any],
        hashes: NDArray[np.uint64],
        resumed: Sequence[int],
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Refuse rows too far ahead: one would silence and forget its neighbours.

        Returns which rows are usable, and the partition time that those before each had shown.

        Ahead of the broker's timestamp, which under LogAppendTime is the broker's clock; and ahead
        of what the other records show, since under CreateTime it is the producer's.
        """
        broker = batch.broker_ms[batch.message]
        allowed = self.config.series.max_ahead
        near = (broker < 0) | (batch.time_ms <= broker + allowed)
        ahead, usable = call.state.ahead, near.copy()
        offsets = batch.offsets[batch.message]
        shown = ahead.bound(batch.time_ms, offsets, hashes, usable, allowed, resumed)
        for row in np.flatnonzero(~usable).tolist():
            time_ms, shown_ms = int(batch.time_ms[row]), int(shown[row])
            if near[row]:
                why = why_ahead(time_ms, shown_ms, allowed)
            else:
                why = (
                    f"event time {time_ms} is {time_ms - broker[row]} ms ahead of the broker's "
                    f"clock; series.max_ahead allows {allowed} ms"
                )
            call.out.rejected.append(reject(batch, row, "time_ahead", why))
            key = str(batch.keys[row])
            if ahead.may_report(key, shown_ms):
                told = self._make.off_clock(
                    call, key, at_ms=max(shown_ms, 0), offset=int(offsets[row]), reason=why
                )
                call.out.findings.append(told)
        return usable, shown

    def _kinds(
        self, call: Call, batch: RecordBatch[Any], usable: NDArray[np.bool_]
    ) -> NDArray[np.int8] | None:
        """Return the kind of each row, None where all are of one; others are not usable."""
        kinds, others = self.modality.kinds(batch, usable)
        if len(others):
            left_out(call, batch, others)
            usable[others] = False
        return kinds

    def _rows(  # noqa: PLR0913, PLR0917 - columns of the rows
        self,
        call: Call,
        batch: RecordBatch[Any],
        part: slice,
        hashes: Hashes,
        usable: NDArray[np.bool_],
        kinds: NDArray[np.int8] | None,
        late: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Take some rows in; return the code of each one's key."""
        if part.stop == part.start:
            return np.empty(0, np.int32)
        state = call.state
        hashes = hashes[0][part], hashes[1][part]
        codes = state.keys.find(hashes)
        missing = np.flatnonzero((codes == NO_KEY) & usable[part])
        if len(missing):
            theirs = hashes[0][missing], hashes[1][missing]
            rows = part.start + missing
            codes[missing] = self._newcomers.take(call, batch, rows, theirs, kinds, late)
        codes[~usable[part]] = NO_KEY
        if kinds is not None and len(state.keys):
            ours = state.flags["kind"][np.maximum(codes, 0)]
            others = (codes != NO_KEY) & (ours != kinds[part])
            left_out(call, batch, part.start + np.flatnonzero(others))
            codes[others] = NO_KEY
        blocks = state.windows.ingest(
            codes, batch.time_ms[part], batch.values[part], late[part], state.flags["kind"]
        )
        for block in blocks:
            offsets = batch.offsets[batch.message[part.start + block.row]]
            self._judge.judge(call, block, offsets)
        return codes

    def _report_late(
        self,
        call: Call,
        batch: RecordBatch[Any],
        part: slice,
        codes: NDArray[np.int32],
        late: NDArray[np.bool_],
        shown: NDArray[np.int64],
    ) -> None:
        """Report keys all of whose rows are late: a jump of their own time leaves them blind.

        They bear partition time, not the late rows' own, which lies before what was reported in an
        earlier call: findings of one key come in the order of their times, however rows are cut.
        """
        run = call.state.flags["late_run"]
        if not len(run):
            return
        for row in late_runs(codes, late, run).tolist():
            at = part.start + row
            why = (
                f"the last {LATE_RUN} records are late: one before them was ahead of its time, or "
                "the producer's clock was set back; correct the producer's clock"
            )
            at_ms, offset = max(int(shown[row]), 0), int(batch.offsets[batch.message[at]])
            told = self._make.off_clock(
                call, call.key(int(codes[row])), at_ms=at_ms, offset=offset, reason=why
            )
            call.out.findings.append(told)


def _kinds(memory: Memory | None) -> str:
    """Return what a memory holds per key, in words that are equal where memories are."""
    if memory is None:
        return "none"
    arrays = memory.state(np.empty(0, np.int32)).items()
    return ", ".join(f"{name} {array.dtype}{array.shape[1:]}" for name, array in arrays)
