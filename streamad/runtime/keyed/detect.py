"""Detect over keyed state that an engine owns and checkpoints: one shard a key, whole messages in.

An engine such as Flink takes state as of its checkpoint and gives that back after a failure; it
calls us per message and does not say when a checkpoint is near. So everything taken in is at once
in its state, cheaply: a shard is a snapshot and a journal of what came since (messages, and the
points at which they were judged). Messages are judged a batch at a time; those that wait are in the
journal, before a checkpoint as after it. Restoring is reading the journal again with outputs muted,
which is exact, because what a key yields does not depend on where batches are cut. A journal that
has outgrown the state is replaced by a new snapshot, so writing costs at most twice the input.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from streamad.config import PipelineConfig
from streamad.errors import SourceUnavailableError, StateError
from streamad.operators.detect import DetectOperator
from streamad.ports import (
    Decoder,
    DetectRecords,
    Log,
    NoNotes,
    Notes,
    NullTelemetry,
    Outgoing,
    Source,
    Telemetry,
)
from streamad.records import ScoreBatch
from streamad.runtime import quarantine
from streamad.runtime.decoding import PORTION_BYTES, Decoding
from streamad.runtime.ends import Ends
from streamad.runtime.judging import Judging
from streamad.runtime.keyed import journal
from streamad.runtime.keyed.in_hand import Part
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.keyed.kept import Keeper, KeyedShard, KeyedState, source_in
from streamad.runtime.keyed.opening import Opening
from streamad.runtime.recovery import Handover, Kept, none_kept

logger = logging.getLogger(__name__)

MAX_PENDING = 20_000
"""Messages that wait to be judged together."""


class KeyedDetect:
    """Detect for an engine that owns keyed state; knows nothing of the engine itself.

    Parameters
    ----------
    config : PipelineConfig
        The pipeline.
    operator : DetectOperator
        Judges.
    decoder, records
        Bytes to rows, results to records.
    log : Log
        The input as anyone may read it: whether a silent partition has been read to its end, and
        whether a restored one still holds what comes next.
    counters : Mapping
        From the operator's counts to metrics and labels.
    handover : Handover, optional
        What a plain job left: a key without state goes on from there.
    kept : Callable
        From the id of an artifact that judged before to its operator, None where it is gone.
    notes : Notes, optional
        Where it is noted what is in hand, so that no message can end the job for ever.
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        *,
        decoder: Decoder,
        records: DetectRecords,
        log: Log,
        telemetry: Telemetry | None = None,
        counters: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
        handover: Handover | None = None,
        notes: Notes | None = None,
        kept: Kept = none_kept,
    ) -> None:
        self._config, self._operator, self._records = config, operator, records
        self._decoding, self._log = Decoding(decoder, pipeline=config.name), log
        self._telemetry = telemetry or NullTelemetry()
        self._judging = Judging(
            config, operator, records=records, telemetry=self._telemetry, counters=counters
        )
        self._linger_ms = config.flink.linger
        # Reading scores back pays where making them is dear.
        self._keep_scores = operator.detector.info.cost != "cheap"
        self._handover = handover
        self._keeper = Keeper(
            operator.identity, journal_bytes=config.flink.journal_bytes, telemetry=self._telemetry
        )
        self._opening = Opening(
            config,
            operator,
            keeper=self._keeper,
            decoding=self._decoding,
            records=records,
            log=log,
            telemetry=self._telemetry,
            handover=handover,
            notes=notes or NoNotes(),
            before=kept,
            keep_scores=self._keep_scores,
        )
        self.shards: dict[int, KeyedShard] = {}
        self._vacant: set[int] = set()
        self._ends = Ends(self._end_reached)

    # ------------------------------------------------------------------ what the engine calls

    def take(
        self, key: int, source: Source, entry: Entry, kept: KeyedState, *, now_ms: int
    ) -> tuple[list[Outgoing], int | None]:
        """Take one message in; return what is to be written, and a timer to set, if any.

        key : the engine's key of the shard; now_ms : the wall clock
        """
        shard = self.shards.get(key)
        if shard is None:
            shard = self._open(key, source, kept, now_ms)
        if shard.source != source:
            msg = (
                f"the state of {shard.source} would be given input of {source}: the mapping from "
                "partitions to keys has changed; restore with the input.topics and "
                "flink.max_parallelism the state was made with, or begin without it"
            )
            raise StateError(msg)
        self._keeper.keep(shard, entry, kept)
        shard.heard_ms = now_ms
        self._ends.heard(source, now_ms / 1000)
        if shard.pending_bytes >= PORTION_BYTES or len(shard.pending) >= MAX_PENDING:
            return self._judge(shard, kept, now_ms), self._timer(shard, now_ms)
        return [], self._timer(shard, now_ms)

    def on_timer(
        self, key: int, kept: KeyedState, *, timer_ms: int, now_ms: int
    ) -> tuple[list[Outgoing], int | None]:
        """Judge what waits, or let time pass where nothing came; returns as `take` does."""
        shard = self.shards.get(key)
        if shard is None:
            source = source_in(kept)
            if source is None:  # no state, nothing to do
                return [], None
            shard = self._open(key, source, kept, now_ms)
        if timer_ms >= shard.timer_ms:
            shard.timer_ms = 0
        if shard.pending:
            made = self._judge(shard, kept, now_ms)
        else:
            made = self._pass_time(shard, kept, now_ms)
        if not shard.state.n_keys:
            # All keys are forgotten: what is kept shrinks to nothing, and no timer holds it awake.
            if shard.journal_bytes:
                self._keeper.save(shard, kept)
            return made, None
        return made, self._timer(shard, now_ms)

    def on_wake(
        self, key: int, source: Source, kept: KeyedState, *, now_ms: int
    ) -> tuple[list[Outgoing], int | None]:
        """Be called now and then for every key, restored or not; returns as `take` does.

        An engine may restore state without the last timers that were set: Flink hands what Python
        sets on to its timers only after the checkpoint that ended the batch. What waits then would
        wait for the next message, and a partition that is silent would never be said to be.
        """
        if key in self.shards:
            shard = self.shards[key]
            shard.in_hand.pass_time(now_ms)
            self._pass_over(shard, kept, now_ms)
            return [], None
        if key in self._vacant:
            return [], None
        if source_in(kept) is None:
            if self._handover is None or source not in self._handover:
                self._vacant.add(key)
                return [], None
            self._open(key, source, kept, now_ms)
        return self.on_timer(key, kept, timer_ms=now_ms, now_ms=now_ms)

    # ------------------------------------------------------------------ judging

    def _judge(self, shard: KeyedShard, kept: KeyedState, now_ms: int) -> list[Outgoing]:
        """Judge all that waits; what comes out and the note that it did are one for the engine."""
        entries, shard.pending, shard.pending_bytes = shard.pending, [], 0
        made: list[Outgoing] = []
        scores: list[ScoreBatch] = []
        for part in shard.in_hand.parts(entries):
            if part.aside:
                made += self._set_aside(shard, part, kept, now_ms)
                continue
            with shard.in_hand.noted(part, now_ms=now_ms):
                records, scored = self._judge_part(shard, part.entries)
            made += records
            scores += scored
        self._judging.measure(shard)
        logged = self._log_scores(shard, entries, scores)
        self._note(shard, kept, logged)
        self._keeper.save_where_long(shard, kept)
        self._telemetry.count("delivery_records_total", len(made) + len(logged), output="detect")
        return made + logged

    def _judge_part(
        self, shard: KeyedShard, entries: list[Entry]
    ) -> tuple[list[Outgoing], list[ScoreBatch]]:
        made: list[Outgoing] = []
        scores: list[ScoreBatch] = []
        for portion in self._decoding.run([journal.as_messages(shard.source, entries)]):
            judged = self._judging.portion(shard, portion)
            made += [*judged.records, *self._records.findings(judged.findings)]
            scores += judged.scores
        return made, scores

    def _set_aside(
        self, shard: KeyedShard, part: Part, kept: KeyedState, now_ms: int
    ) -> list[Outgoing]:
        """Return what tells of a message that is not judged, in this life or when restored."""
        (entry,) = part.entries
        shard.in_hand.set_aside(entry.offset)
        self._keeper.note(shard, kept, journal.set_aside(entry.offset))
        why = quarantine.reason(part.deaths)
        self._telemetry.count("input_quarantined_total", topic=shard.source.topic)
        logger.error("%s@%d is quarantined: %s", shard.source, entry.offset, why)
        message = journal.as_messages(shard.source, part.entries)
        return quarantine.records_of(self._records, self._config, message, why=why, now_ms=now_ms)

    def _log_scores(
        self, shard: KeyedShard, entries: list[Entry], scores: list[ScoreBatch]
    ) -> list[Outgoing]:
        if not scores:
            return []
        span = (entries[0].offset, entries[-1].offset + 1)
        return self._records.scores(shard.source, span, scores)

    def _note(self, shard: KeyedShard, kept: KeyedState, logged: list[Outgoing]) -> None:
        notes = [journal.scored(one.value or b"") for one in logged] if self._keep_scores else []
        self._keeper.note(shard, kept, *notes, journal.JUDGED)

    def _pass_time(self, shard: KeyedShard, kept: KeyedState, now_ms: int) -> list[Outgoing]:
        """Let wall-clock time pass where a whole partition is silent, and log that it did."""
        quiet_ms = now_ms - shard.heard_ms
        # A broker that is away, or a backlog, is no silence of the source.
        if not self._judging.is_due(shard, quiet_ms=quiet_ms, now_ms=now_ms):
            return []
        if self._end_reached(shard.source, shard.position) is None:
            return []
        judged = self._judging.tick(shard, now_ms)
        self._keeper.note(shard, kept, journal.ticked(now_ms))
        self._keeper.save_where_long(shard, kept)
        return [*self._records.findings(judged.findings), *judged.records]

    def _end_reached(self, source: Source, position: int) -> int | None:
        """Return the end of a partition if nothing is left to read from a position on."""
        try:
            after = self._log.bounds(source.topic)[source][1]
            # Marks of transactions are no records: only reading tells whether any is left.
            rest = self._log.read(source, position, after)
            return after if after >= position and next(rest, None) is None else None
        except (KeyError, SourceUnavailableError) as error:
            logger.warning("%s: cannot be asked for its end: %s", source, error)
            return None

    def _pass_over(self, shard: KeyedShard, kept: KeyedState, now_ms: int) -> None:
        """Go on behind the marks of transactions at the end of a partition that is quiet."""
        if shard.pending:
            return
        passed = self._ends.passed(shard.source, shard.position, now_ms / 1000)
        if passed is not None:
            shard.position = passed
            self._keeper.save_about(shard, kept)

    def _open(self, key: int, source: Source, kept: KeyedState, now_ms: int) -> KeyedShard:
        shard = self._opening.open(source, kept, now_ms=now_ms)
        self._judging.meet_keys(shard)
        self._judging.measure(shard)
        self._ends.heard(source, now_ms / 1000)
        self.shards[key] = shard
        self._telemetry.gauge("input_assigned_partitions", len(self.shards))
        return shard

    def _timer(self, shard: KeyedShard, now_ms: int) -> int | None:
        """Return when to be called next, or None where that is set already."""
        wait_ms = self._linger_ms if shard.pending else self._judging.tick_ms
        due_ms = now_ms - now_ms % wait_ms + wait_ms
        if shard.timer_ms and shard.timer_ms <= due_ms:
            return None
        shard.timer_ms = due_ms
        return due_ms
