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

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError, SourceUnavailableError, StateError
from streamad.operators.detect import DetectOperator
from streamad.ports import (
    Decoder,
    DetectRecords,
    Headers,
    Log,
    Messages,
    NoNotes,
    Notes,
    NullTelemetry,
    Outgoing,
    Source,
    Telemetry,
)
from streamad.records import ScoreBatch
from streamad.runtime import quarantine, snapshots
from streamad.runtime.decoding import PORTION_BYTES, Decoding
from streamad.runtime.ends import Ends
from streamad.runtime.judging import Judging, OpenShard
from streamad.runtime.keyed import journal
from streamad.runtime.keyed.in_hand import InHand, Part
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.recorded import LoggedScores
from streamad.runtime.recovery import Handover, Kept, none_kept

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 1
"""Of manifest and journal; the shard inside has a version of its own."""

MAX_PENDING = 20_000
"""Messages that wait to be judged together."""

_ABOUT = -1
"""Where in the map of chunks the manifest stands."""


class ByteList(Protocol):
    """A list of bytes in the engine's state, of the key at hand."""

    def get(self) -> Iterable[bytes]:
        """Return all of them, in order."""
        ...

    def add(self, value: bytes) -> None:
        """Append one."""
        ...

    def clear(self) -> None:
        """Delete them all."""
        ...


class ByteMap(Protocol):
    """Bytes by number in the engine's state, of the key at hand."""

    def get(self, key: int) -> bytes | None:
        """Return one; None where there is none."""
        ...

    def put(self, key: int, value: bytes) -> None:
        """Set one."""
        ...

    def remove(self, key: int) -> None:
        """Delete one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedState:
    """What the engine keeps for a shard: a snapshot in chunks, and a journal of what came since."""

    chunks: ByteMap
    journal: ByteList


@dataclass(frozen=True, slots=True)
class _Record:
    """What is left of a record beside its value, as dead letters tell it."""

    key: bytes | None
    headers: Headers


@dataclass(slots=True, kw_only=True)
class KeyedShard(OpenShard):
    """A shard at work.

    journal_bytes, snapshot_bytes : sizes in the engine's state; heard_ms : the wall clock when
    something last came, or when the shard was opened; timer_ms : the timer that is set, if any;
    in_hand : what former lives had in hand when they ended
    """

    pending: list[Entry] = field(default_factory=list)
    pending_bytes: int = 0
    journal_bytes: int = 0
    snapshot_bytes: int = 0
    n_chunks: int = 0
    heard_ms: int = 0
    timer_ms: int = 0
    in_hand: InHand


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
        self._identity, self._kept = operator.identity, kept
        self._linger_ms = config.flink.linger
        self._journal_bytes = config.flink.journal_bytes
        # Reading scores back pays where making them is dear.
        self._keep_scores = operator.detector.info.cost != "cheap"
        self._handover, self._notes = handover, notes or NoNotes()
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
        self._keep(shard, entry, kept)
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
            source = self._source_of(kept)
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
                self._save(shard, kept)
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
        if self._source_of(kept) is None:
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
        self._save_where_long(shard, kept)
        self._telemetry.count("delivery_records_total", len(made) + len(logged), output="detect")
        return made + logged

    def _judge_part(
        self, shard: KeyedShard, entries: list[Entry]
    ) -> tuple[list[Outgoing], list[ScoreBatch]]:
        made: list[Outgoing] = []
        scores: list[ScoreBatch] = []
        for portion in self._decoding.run([_messages(shard.source, entries)]):
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
        data = journal.set_aside(entry.offset)
        kept.journal.add(data)
        shard.journal_bytes += len(data)
        why = quarantine.reason(part.deaths)
        self._telemetry.count("input_quarantined_total", topic=shard.source.topic)
        logger.error("%s@%d is quarantined: %s", shard.source, entry.offset, why)
        message = _messages(shard.source, part.entries)
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
        for data in (*notes, journal.JUDGED):
            kept.journal.add(data)
            shard.journal_bytes += len(data)

    def _pass_time(self, shard: KeyedShard, kept: KeyedState, now_ms: int) -> list[Outgoing]:
        """Let wall-clock time pass where a whole partition is silent, and log that it did."""
        quiet_ms = now_ms - shard.heard_ms
        # A broker that is away, or a backlog, is no silence of the source.
        if not self._judging.is_due(shard, quiet_ms=quiet_ms, now_ms=now_ms):
            return []
        if self._end_reached(shard.source, shard.position) is None:
            return []
        judged = self._judging.tick(shard, now_ms)
        data = journal.ticked(now_ms)
        kept.journal.add(data)
        shard.journal_bytes += len(data)
        self._save_where_long(shard, kept)
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
            self._save_about(shard, kept)

    def _timer(self, shard: KeyedShard, now_ms: int) -> int | None:
        """Return when to be called next, or None where that is set already."""
        wait_ms = self._linger_ms if shard.pending else self._judging.tick_ms
        due_ms = now_ms - now_ms % wait_ms + wait_ms
        if shard.timer_ms and shard.timer_ms <= due_ms:
            return None
        shard.timer_ms = due_ms
        return due_ms

    # ------------------------------------------------------------------ state

    def _save_where_long(self, shard: KeyedShard, kept: KeyedState) -> None:
        if shard.journal_bytes > max(self._journal_bytes, shard.snapshot_bytes):
            self._save(shard, kept)

    def _save(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Replace snapshot and journal by a snapshot of now; nothing may wait to be judged."""
        chunks, n_chunks = snapshots.Chunks(shard.state, identity=self._identity), 0
        for chunk in chunks:
            kept.chunks.put(n_chunks, chunk)
            n_chunks += 1
        for number in range(n_chunks, shard.n_chunks):
            kept.chunks.remove(number)
        shard.n_chunks, shard.snapshot_bytes = n_chunks, chunks.n_bytes
        self._save_about(shard, kept)
        kept.journal.clear()
        shard.journal_bytes = 0
        labels = {"topic": shard.source.topic, "partition": str(shard.source.partition)}
        self._telemetry.gauge("state_snapshot_bytes", shard.snapshot_bytes, **labels)

    def _save_about(self, shard: KeyedShard, kept: KeyedState) -> None:
        about = {
            "layout": LAYOUT_VERSION,
            **self._identity.header(),
            "topic": shard.source.topic,
            "partition": shard.source.partition,
            "position": shard.position,
            "ticked_ms": shard.ticked_ms,
            "chunks": shard.n_chunks,
        }
        kept.chunks.put(_ABOUT, json.dumps(about).encode())

    @staticmethod
    def _source_of(kept: KeyedState) -> Source | None:
        about = kept.chunks.get(_ABOUT)
        if about is None:
            return None
        read = json.loads(about)
        return Source(read["topic"], read["partition"])

    def _open(self, key: int, source: Source, kept: KeyedState, now_ms: int) -> KeyedShard:
        """Return a shard as the engine's state has it; a key that has none begins anew."""
        # While the job was down nobody listened: silence is counted from now on.
        in_hand = InHand.read(
            self._notes, source, now_ms=now_ms, interval_ms=self._config.flink.checkpoint_interval
        )
        shard = KeyedShard(
            source=source, state=self._operator.new_state(), heard_ms=now_ms, in_hand=in_hand
        )
        about = kept.chunks.get(_ABOUT)
        if about is not None:
            self._restore(shard, json.loads(about), kept)
        elif self._handover is not None and source in self._handover:
            self._take_over(shard, self._handover, kept)
        else:
            self._save_about(shard, kept)
        self._judging.meet_keys(shard)
        self._judging.measure(shard)
        self._ends.heard(source, now_ms / 1000)
        self.shards[key] = shard
        self._telemetry.gauge("input_assigned_partitions", len(self.shards))
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
        self._tell(shard, "restored", started_s)

    def _judged_by(self, about: dict[str, Any]) -> DetectOperator:
        """Return the operator of the artifact that judged so far: the journal is of its scores.

        Raises StateError where that is not ours, and cannot hand over to ours or is gone.
        """
        artifact = str(about.get("artifact", ""))
        if artifact == self._operator.artifact or about.get("detector") != self._identity.detector:
            return self._operator  # what else differs is found where the snapshot is restored
        before, ours = self._kept(artifact), self._operator.artifact or "none"
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
        self._save(shard, kept)
        self._tell(shard, "taken over", started_s)

    def _tell(self, shard: KeyedShard, how: str, started_s: float) -> None:
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
        self._save_about(shard, kept)
        for entry in waiting:
            self._keep(shard, entry, kept)

    def _keep(self, shard: KeyedShard, entry: Entry, kept: KeyedState) -> None:
        data = entry.encode()
        kept.journal.add(data)
        shard.journal_bytes += len(data)
        shard.pending.append(entry)
        shard.pending_bytes += entry.size
        made_anew = entry.offset < shard.position
        shard.position = entry.offset + 1
        if made_anew:
            self._save_about(shard, kept)  # it must not remember more than there is

    def _continue_as_ours(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Go on under other light settings, or beside another artifact.

        From a snapshot, or the journal would mix what each of them has judged.
        """
        shard.state = self._operator.adopt(shard.state)
        waiting, shard.pending, shard.pending_bytes = shard.pending, [], 0
        self._save(shard, kept)
        for entry in waiting:
            self._keep(shard, entry, kept)

    def _replay(self, shard: KeyedShard, operator: DetectOperator, kept: KeyedState) -> None:
        """Go through the journal as it was gone through before, and say nothing."""
        waiting: list[Entry] = []
        scores: list[bytes] = []
        for data in kept.journal.get():
            shard.journal_bytes += len(data)
            match journal.decode(bytes(data)):
                case Entry() as entry:
                    waiting.append(entry)
                    # The manifest may know of more: see `_pass_over`.
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
        for portion in self._decoding.run([_messages(shard.source, entries)]):
            batch = portion.decoded.batch
            operator.process(shard.state, batch, at=shard.at, recorded=recorded)

    def _recorded(self, shard: KeyedShard, scores: list[bytes], artifact: str) -> LoggedScores:
        n = len(scores)
        read = Messages(
            source=Source(self._records.scores_topic, 0),
            payloads=list(scores),
            offsets=np.arange(n),
            broker_ms=np.full(n, -1),
            raw=[_Record(None, ())] * n,
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


def _messages(source: Source, entries: list[Entry]) -> Messages:
    n = len(entries)
    return Messages(
        source=source,
        payloads=[entry.payload for entry in entries],
        offsets=np.fromiter((entry.offset for entry in entries), np.int64, n),
        broker_ms=np.fromiter((entry.broker_ms for entry in entries), np.int64, n),
        raw=[_Record(entry.key, entry.headers) for entry in entries],
    )
