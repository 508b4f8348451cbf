"""How a shard in keyed state begins: as the engine kept it, as a plain job left it, or anew."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np

from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError, StateError
from streamad.operators.detect import DetectOperator
from streamad.ports import DetectRecords, Log, Messages, Notes, Source, Telemetry
from streamad.runtime import snapshots
from streamad.runtime.decoding import Decoding
from streamad.runtime.keyed import journal
from streamad.runtime.keyed.in_hand import InHand
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.keyed.kept import LAYOUT_VERSION, Keeper, KeyedShard, KeyedState, about_in
from streamad.runtime.recorded import LoggedScores
from streamad.runtime.recovery import Handover, Kept

logger = logging.getLogger(__name__)


class Opening:
    """Bring shards back, with nothing written twice; parameters are those of `KeyedDetect`.

    keep_scores : the journal holds scores, which are read rather than made again
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        *,
        keeper: Keeper,
        decoding: Decoding,
        records: DetectRecords,
        log: Log,
        telemetry: Telemetry,
        handover: Handover | None,
        notes: Notes,
        before: Kept,
        keep_scores: bool,
    ) -> None:
        self._config, self._operator, self._identity = config, operator, operator.identity
        self._keeper, self._decoding, self._records = keeper, decoding, records
        self._log, self._telemetry, self._handover = log, telemetry, handover
        self._notes, self._before, self._keep_scores = notes, before, keep_scores

    def open(self, source: Source, kept: KeyedState, *, now_ms: int) -> KeyedShard:
        """Return a shard as the engine's state has it; a key that has none begins anew."""
        # While the job was down nobody listened: silence is counted from now on.
        in_hand = InHand.read(
            self._notes, source, now_ms=now_ms, interval_ms=self._config.flink.checkpoint_interval
        )
        shard = KeyedShard(
            source=source, state=self._operator.new_state(), heard_ms=now_ms, in_hand=in_hand
        )
        about = about_in(kept)
        if about is not None:
            self._restore(shard, about, kept)
        elif self._handover is not None and source in self._handover:
            self._take_over(shard, self._handover, kept)
        else:
            self._keeper.save_about(shard, kept)
        return shard

    def _restore(self, shard: KeyedShard, about: dict[str, Any], kept: KeyedState) -> None:
        started_s = time.perf_counter()
        operator = self._operator
        try:
            operator = self._judged_by(about).under(about.get("settings") or {})
            shard.state = operator.new_state()
            self._restore_snapshot(shard, about, kept, operator.artifact)
        except StateError as error:
            if self._config.delivery.on_state_mismatch != "fresh":
                msg = f"{shard.source}: {error}"
                raise StateError(msg) from error
            logger.warning("%s starts with fresh state, as configured: %s", shard.source, error)
            shard.state = self._operator.new_state()
            self._begin_afresh(shard, about, kept)
            return
        shard.source = Source(str(about["topic"]), int(about["partition"]))
        shard.position, shard.ticked_ms = int(about["position"]), int(about["ticked_ms"])
        self._replay(shard, operator, kept)
        if operator.artifact != self._operator.artifact:
            logger.info(
                "%s: artifact %s judges from here on, so far it was %s",
                shard.source, self._operator.artifact, operator.artifact,
            )  # fmt: skip
            operator = self._operator.under(about.get("settings") or {})
            operator.follow(shard.state)
            self._continue_as_ours(shard, kept)
        elif operator is not self._operator:
            logger.info("%s: settings that change nothing learned have changed", shard.source)
            self._continue_as_ours(shard, kept)
        self._check_input(shard)
        self._log_start(shard, "restored", started_s)

    def _judged_by(self, about: dict[str, Any]) -> DetectOperator:
        """Return the operator of the artifact that judged so far: the journal is of its scores.

        Raises StateError where that is not ours, and cannot hand over to ours or is gone.
        """
        artifact = str(about.get("artifact", ""))
        if artifact == self._operator.artifact or about.get("detector") != self._identity.detector:
            return self._operator  # what else differs is found where the snapshot is restored
        before, ours = self._before(artifact), self._operator.artifact or "none"
        if before is None:
            msg = (
                f"the state was made with artifact {artifact or 'none'}, and this job has {ours}: "
                "put the other one beside it, under any name, until the job has started; or set "
                "delivery.on_state_mismatch: fresh to start with empty state"
            )
            raise StateError(msg)
        if why := self._operator.cannot_follow(before):
            msg = (
                f"the state was made with artifact {artifact}, and artifact {ours} cannot continue "
                f"it: {why}. Put the other one back, or set delivery.on_state_mismatch: fresh to "
                "start with empty state"
            )
            raise StateError(msg)
        return before

    def _restore_snapshot(
        self, shard: KeyedShard, about: dict[str, Any], kept: KeyedState, artifact: str
    ) -> None:
        """Fill the state from the snapshot; raises StateError where it does not fit."""
        if about["layout"] != LAYOUT_VERSION:
            msg = (
                f"the state has layout {about['layout']} and this streamad reads {LAYOUT_VERSION}; "
                "run the version that wrote it, start without a savepoint, or set "
                "delivery.on_state_mismatch: fresh to start with empty state"
            )
            raise StateError(msg)
        identity = replace(self._identity, artifact=artifact)
        identity.require(about)
        n_chunks = int(about["chunks"])
        if n_chunks:
            chunks = [kept.chunks.get(number) or b"" for number in range(n_chunks)]
            snapshots.restore(shard.state, chunks, identity=identity)
            shard.snapshot_bytes = sum(map(len, chunks))
        shard.n_chunks = n_chunks

    def _take_over(self, shard: KeyedShard, handover: Handover, kept: KeyedState) -> None:
        started_s = time.perf_counter()
        found = handover.recover(shard.source)
        shard.state, shard.position = found.state, found.position
        # At once: from now on it is the engine that restores it.
        self._keeper.save(shard, kept)
        self._log_start(shard, "taken over", started_s)

    def _log_start(self, shard: KeyedShard, how: str, started_s: float) -> None:
        self._telemetry.observe("state_recovery_seconds", time.perf_counter() - started_s)
        logger.info(
            "%s %s: %d keys, resumes at offset %d",
            shard.source,
            how,
            shard.state.n_keys,
            shard.position,
        )

    def _begin_afresh(self, shard: KeyedShard, about: dict[str, Any], kept: KeyedState) -> None:
        """Forget what was learned, but not messages that wait: the source has passed them."""
        waiting: list[Entry] = []
        for data in kept.journal.get() if about["layout"] == LAYOUT_VERSION else ():
            match journal.decode(bytes(data)):
                case Entry() as entry:
                    waiting.append(entry)
                case journal.SetAside(offset):
                    waiting = _but(waiting, offset)
                case journal.Judged():
                    waiting = []
        for number in range(int(about["chunks"])):
            kept.chunks.remove(number)
        kept.journal.clear()
        self._keeper.save_about(shard, kept)
        for entry in waiting:
            self._keeper.keep(shard, entry, kept)

    def _continue_as_ours(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Go on under other light settings, or beside another artifact.

        From a snapshot, or the journal would mix what each of them has judged.
        """
        shard.state = self._operator.adopt(shard.state)
        waiting, shard.pending, shard.pending_bytes = shard.pending, [], 0
        self._keeper.save(shard, kept)
        for entry in waiting:
            self._keeper.keep(shard, entry, kept)

    def _replay(self, shard: KeyedShard, operator: DetectOperator, kept: KeyedState) -> None:
        """Go through the journal as it was gone through before, and say nothing."""
        waiting: list[Entry] = []
        scores: list[bytes] = []
        for data in kept.journal.get():
            shard.journal_bytes += len(data)
            match journal.decode(bytes(data)):
                case Entry() as entry:
                    waiting.append(entry)
                    # The manifest may know of more: see `KeyedDetect`.
                    shard.position = max(shard.position, entry.offset + 1)
                case journal.Scored(value):
                    scores.append(value)
                case journal.Ticked(now_ms):
                    shard.ticked_ms = now_ms
                    operator.tick(shard.state, now_ms, at=shard.at)
                case journal.SetAside(offset):
                    waiting = _but(waiting, offset)
                case journal.Judged():
                    self._judge_again(shard, operator, waiting, scores)
                    waiting, scores = [], []
        shard.pending = waiting
        shard.pending_bytes = sum(entry.size for entry in waiting)

    def _judge_again(
        self,
        shard: KeyedShard,
        operator: DetectOperator,
        entries: list[Entry],
        scores: list[bytes],
    ) -> None:
        recorded = None
        if self._keep_scores:
            recorded = self._recorded(shard, scores, operator.artifact)
        for portion in self._decoding.run([journal.as_messages(shard.source, entries)]):
            batch = portion.decoded.batch
            operator.process(shard.state, batch, at=shard.at, recorded=recorded)

    def _recorded(self, shard: KeyedShard, scores: list[bytes], artifact: str) -> LoggedScores:
        n = len(scores)
        read = Messages(
            source=Source(self._records.scores_topic, 0),
            payloads=list(scores),
            offsets=np.arange(n),
            broker_ms=np.full(n, -1),
            raw=[journal.Record(None, ())] * n,
        )
        logged = self._records.read_log(read, shard.source, artifact=artifact)
        found = [one.scores for one in logged]
        return LoggedScores([batch for batch in found if batch is not None])

    def _check_input(self, shard: KeyedShard) -> None:
        """Report a topic that no longer holds what comes next; by the policy, stop here."""
        bounds = self._log.bounds(shard.source.topic).get(shard.source)
        if shard.position < 0 or bounds is None or bounds[0] <= shard.position <= bounds[1]:
            return
        self._telemetry.count("input_offset_out_of_range_total", topic=shard.source.topic)
        said = (
            f"{shard.source}: offset {shard.position} is out of range, the topic holds "
            f"{bounds[0]} to {bounds[1]}"
        )
        if self._config.input.on_out_of_range == "fail":
            msg = (
                f"{said}; set input.on_out_of_range to earliest or latest to continue with a gap, "
                "and raise the topic's retention"
            )
            raise OffsetOutOfRangeError(msg)
        logger.error("%s; continuing with a gap", said)


def _but(entries: list[Entry], offset: int) -> list[Entry]:
    return [entry for entry in entries if entry.offset != offset]
