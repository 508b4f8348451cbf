"""The plain detect job: messages in, findings and scores out, one shard an input partition.

State is only ever as old as the last commit plus what was read since: every `commit_interval` one
transaction holds all that the messages read so far have yielded, and how far they go. A partition
that comes to this member is recovered from a snapshot, the input since, and the scores log, with
outputs muted up to the committed offset; from there it goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, pairwise

from streamad.config import PipelineConfig
from streamad.config.running import DeliveryConfig
from streamad.errors import MembershipError, SourceUnavailableError
from streamad.operators.detect import DetectOperator
from streamad.ports import (
    Decoder,
    DetectRecords,
    Fault,
    Member,
    Messages,
    Outgoing,
    Progress,
    Snapshot,
    SnapshotStore,
    Source,
    Telemetry,
    no_fault,
)
from streamad.records import Finding, ScoreBatch
from streamad.runtime import snapshots
from streamad.runtime.decoding import Decoding
from streamad.runtime.judging import Judged, Judging
from streamad.runtime.loop import Loop
from streamad.runtime.placing import Clock
from streamad.runtime.quarantine import records_of
from streamad.runtime.recovery import (
    Kept,
    RecoveredShard,
    Recovery,
    none_kept,
    read_note,
    require_settings,
    settings_number,
)
from streamad.runtime.start import start_offset
from streamad.runtime.swap import Staged, Swap

logger = logging.getLogger(__name__)

_TRANSACTION_BYTES = 8 * 2**20
"""Snapshots go out in transactions of about this size: none may outlive the broker's patience."""

_LOOK_S = 1.0
"""How often partitions are looked at that may be silent."""

_SLOW_SNAPSHOT_S = 3.0
"""A snapshot that takes longer is not made while the group waits for a partition."""


@dataclass(slots=True, kw_only=True)
class Shard(RecoveredShard):
    """One input partition at work, and what it has that is not committed.

    committed : what the group knows of; dirty : there is something to commit.
    """

    committed: int
    findings: list[Finding] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)
    records: list[Outgoing] = field(default_factory=list)
    dirty: bool = False
    parts: int = 1
    settings: int = 0
    snapshot_due_s: float = 0.0
    heard_s: float = 0.0

    @property
    def judge(self) -> DetectOperator:
        """Return who judges the partition."""
        if self.operator is None:
            msg = f"{self.source} was begun without an operator"
            raise AssertionError(msg)
        return self.operator

    def note(self) -> str:
        """Return what recovery needs beside the offset; it travels with every commit."""
        about = {
            "from": self.began,
            "log": self.log_offset,
            "snapshot": self.snapshot_at,
            "parts": self.parts,
            "settings": self.settings,
        }
        return json.dumps(about, separators=(",", ":"))


class DetectLoop(Loop[Shard]):
    """Judge the partitions a member is given; see `Loop` for what all stages share.

    Parameters
    ----------
    operator : DetectOperator
        Judges.
    decoder, records, store
        Bytes to rows, results to records, and the place of snapshots.
    counters : Mapping
        From the operator's counts to metrics and labels.
    staged, kept
        New artifacts as they are loaded, and those of before.
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        *,
        member: Member,
        decoder: Decoder,
        records: DetectRecords,
        store: SnapshotStore,
        clock: Clock,
        telemetry: Telemetry | None = None,
        counters: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
        fault: Fault = no_fault,
        staged: Staged | None = None,
        kept: Kept = none_kept,
    ) -> None:
        super().__init__(
            config.delivery, member=member, clock=clock, telemetry=telemetry, fault=fault
        )
        self._config = config
        self._operator, self._records, self._store = operator, records, store
        self._decoding = Decoding(decoder, pipeline=config.name)
        self._judging = Judging(
            config, operator, records=records, telemetry=self._telemetry, counters=counters
        )
        self._recovery = Recovery(
            config,
            operator,
            decoding=self._decoding,
            records=records,
            log=member.log,
            store=store,
            telemetry=self._telemetry,
            kept=kept,
        )
        self._swap = Swap(operator, staged=staged, telemetry=self._telemetry)
        self._identity = operator.identity
        self._snapshot_s = config.delivery.snapshot_interval / 1000
        self._look_due_s = self._snapshot_took_s = 0.0
        self._parts: dict[str, int] = {}
        self._old_parts: dict[str, int] = {}
        self._renewed: deque[str] = deque()

    @property
    def shards(self) -> dict[Source, Shard]:
        """Return the partitions at work, by their source."""
        return self.parts

    # ------------------------------------------------------------------ rows

    def _take(self, polled: Sequence[Messages]) -> None:
        for portion in self._decoding.run(polled):
            shard = self.parts[portion.messages.source]
            self._keep(shard, self._judging.portion(shard, portion))
            shard.position = int(portion.messages.offsets[-1]) + 1
            shard.heard_s = self._clock.seconds()
            self._ends.heard(shard.source, shard.heard_s)

    @staticmethod
    def _keep(shard: Shard, made: Judged) -> None:
        shard.findings += made.findings
        shard.scores += made.scores
        shard.records += made.records
        shard.dirty = True

    def _pass_time(self, now_s: float) -> None:
        """Let wall-clock time pass where a whole partition is silent; others may be busy."""
        if now_s < self._look_due_s:
            return
        self._look_due_s, now_ms = now_s + _LOOK_S, self._clock.wall_ms()
        for shard in self.shards.values():
            quiet_ms = (now_s - shard.heard_s) * 1000
            due = self._judging.is_due(shard, quiet_ms=quiet_ms, now_ms=now_ms)
            if due and self._member.end_reached(shard.source) is not None:
                self._keep(shard, self._judging.tick(shard, now_ms))
            self._pass_over(shard, now_s)

    # ------------------------------------------------------------------ commit

    def _commit(self, dirty: Sequence[Shard]) -> tuple[str, int]:
        records: list[Outgoing] = []
        logs: dict[Source, int] = {}
        for shard in dirty:
            records += self._records.findings(shard.findings)
            records += shard.records
            if shard.scores:
                logs[shard.source] = len(records)
                span = (shard.committed, shard.position)
                by = shard.judge.artifact
                records += self._records.scores(shard.source, span, shard.scores, artifact=by)
        progress = {s.source: Progress(offset=s.position, note=s.note()) for s in dirty}
        offsets = self._member.commit(records, progress)
        self._fault("after_commit")
        for shard in dirty:
            shard.findings, shard.scores, shard.records = [], [], []
            shard.committed, shard.dirty = shard.position, False
            if offsets is not None and shard.source in logs:
                shard.log_offset = offsets[logs[shard.source]]
        return "detect", len(records)

    # ------------------------------------------------------------------ snapshots

    def _save_due(self, now_s: float) -> None:
        if (taken := self._swap.look()) is not None:
            self._recovery.use(taken)
        for shard in list(self.shards.values()):
            if shard.judge is not self._swap.current and not shard.dirty:
                self._take_over(shard, self._swap.current)
        for shard in list(self.shards.values()):
            if now_s >= shard.snapshot_due_s and not shard.dirty:
                self._save_softly(shard)
                shard.snapshot_due_s = self._clock.seconds() + self._snapshot_s
                self._look_for_twins(shard.source.topic)

    def _save_all(self, parts: Sequence[Shard]) -> None:
        for shard in parts:
            self._save(shard)

    def _hand_over(self, parts: Sequence[Shard]) -> None:
        for shard in parts:
            if self._snapshot_took_s < _SLOW_SNAPSHOT_S:
                self._save(shard)

    def _take_over(self, shard: Shard, operator: DetectOperator) -> None:
        """Have a partition judged by another artifact from its committed offset on.

        The snapshot is the swap: nothing is judged before it is written.
        """
        before, undo = shard.judge, operator.follow(shard.state)
        shard.operator, shard.snapshot_offset = operator, -1
        self._fault("before_swap")
        if not self._save_softly(shard):
            undo()
            shard.operator = before
            return
        self._fault("after_swap")
        logger.info(
            "%s: artifact %s from offset %d on", shard.source, operator.artifact, shard.committed
        )

    def _save_softly(self, shard: Shard) -> bool:
        try:
            self._save(shard)
        except MembershipError as error:
            logger.info("snapshot of %s put off: %s", shard.source, error)
            return False
        return True

    def _look_for_twins(self, topic: str) -> None:
        """Raise StateError where another job of our name, with other settings, has partition 0.

        Both may have begun at once, each with partitions nobody had worked on. Whoever has
        partition 0 stays.
        """
        first = Source(topic, 0)
        if first in self.shards or self._config.delivery.on_state_mismatch != "refuse":
            return
        try:
            done = self._member.committed(first)
        except SourceUnavailableError:
            return  # looked for again after the next snapshot
        theirs = read_note(done.note).get("settings") if done else None
        if theirs is not None:
            require_settings(theirs, self._identity)

    def _save(self, shard: Shard) -> None:
        """Write the state of a shard as of its committed offset."""
        if shard.committed == shard.snapshot_offset:
            return
        started_s = self._clock.seconds()
        chunks = snapshots.Chunks(shard.state, identity=shard.judge.identity)
        snapshot = Snapshot(
            offset=shard.committed,
            log_offset=shard.log_offset,
            checksum=self._identity.checksum,
            chunks=chunks,
        )
        at = self._write(shard, self._store.records(shard.source, snapshot))
        self._store.save(shard.source, snapshot)
        shard.snapshot_offset = snapshot.offset
        if at is not None:
            shard.snapshot_at = at
        self._snapshot_took_s = self._clock.seconds() - started_s
        labels = {"topic": shard.source.topic, "partition": str(shard.source.partition)}
        self._telemetry.observe("state_snapshot_seconds", self._snapshot_took_s)
        self._telemetry.gauge("state_snapshot_bytes", chunks.n_bytes, **labels)
        wall_s = self._clock.wall_ms() / 1000
        self._telemetry.gauge("state_snapshot_timestamp_seconds", wall_s, **labels)
        self._judging.measure(shard)

    def _write(self, shard: Shard, records: Iterable[Outgoing]) -> int | None:
        """Write a snapshot's records, the manifest last and alone; return where the first went.

        The offsets go along each time: they say nothing new, but a member that lost the partition
        is refused, and cannot write over what the next one saves.
        """
        done = {shard.source: Progress(offset=shard.committed, note=shard.note())}
        first: int | None = None
        for part in _portions(records):
            offsets = self._member.commit(part, done)
            first = offsets[0] if first is None and offsets else first
            self._fault("mid_snapshot")
        return first

    # ------------------------------------------------------------------ partitions come and go

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        """Return what tells of a message that is not judged: a dead letter, and a finding."""
        return records_of(
            self._records, self._config, message, why=why, now_ms=self._clock.wall_ms()
        )

    def pace(self, delivery: DeliveryConfig) -> None:
        """Commit and save as often as these settings have it from now on; see `Loop.stage`."""
        super().pace(delivery)
        self._snapshot_s = delivery.snapshot_interval / 1000
        latest_s = self._clock.seconds() + self._snapshot_s
        for shard in self.shards.values():
            shard.snapshot_due_s = min(shard.snapshot_due_s, latest_s)

    def renewed(self, topic: str) -> None:
        """Note, from any thread, that a topic was deleted and made anew; see `turn`."""
        self._renewed.append(topic)

    def _prepare(self) -> None:
        """Have what stood in topics that were deleted written to the new ones."""
        while self._renewed:
            topic = self._renewed.popleft()
            for shard in self.shards.values():
                if topic == self._records.scores_topic:
                    shard.log_offset = 0
                # Snapshots point into the scores log, too.
                shard.snapshot_offset, shard.snapshot_at, shard.snapshot_due_s = -1, 0, 0.0

    def _place(self, source: Source) -> None:
        started_s = self._clock.seconds()
        bounds = self._member.log.bounds(source.topic)
        if source not in bounds:
            msg = "the partition is new, and not everyone knows of it yet"
            raise SourceUnavailableError(msg)
        done, noted = self._member.committed(source), True
        added = self._has_grown(source, done, len(bounds))
        if done is None:
            done = self._recovery.without_offset(source, bounds[source])
            noted = False
        if done is None:
            shard = self._begin(source, *bounds[source], added=added)
        else:
            shard = _at_work(self._recovery.recover(source, done, bounds[source]))
            shard.dirty |= not noted
        shard.parts, shard.settings = len(bounds), settings_number(self._identity.checksum)
        self._judging.meet_keys(shard)
        self.shards[source] = shard
        self._member.place(source, shard.position)
        shard.heard_s = self._clock.seconds()
        self._ends.heard(source, shard.heard_s)
        # State that is begun anew replaces what there was at once.
        wait_s = 0.0 if shard.dirty and done is not None else self._snapshot_s
        shard.snapshot_due_s = shard.heard_s + wait_s
        if done is None or not noted:
            # At once: `latest` must mean the same place after a crash, and nothing is handed out
            # before there is an offset to note it with.
            self._commit_softly([shard])
        if shard.changed or done is None:
            # Before anything is decided: what settings it was decided by, recovery has from here.
            self._save_softly(shard)
        self._telemetry.observe("state_recovery_seconds", shard.heard_s - started_s)
        self._telemetry.gauge("input_assigned_partitions", len(self.shards))
        logger.info("%s resumes at offset %d", source, shard.position)

    def _has_grown(self, source: Source, done: Progress | None, parts: int) -> bool:
        """Report a topic that got partitions since it was begun; say if this is one of them."""
        known = self._parts.get(source.topic)
        if known is None:
            about = done or self._member.committed(Source(source.topic, 0))
            known = read_note(about.note if about else "").get("parts", parts)
        self._parts[source.topic] = parts
        if parts > known:
            self._telemetry.count("input_partitions_grown_total", parts - known, topic=source.topic)
            logger.warning(
                "%s has grown from %d to %d partitions: keys may have moved, and what is known of "
                "them stays behind",
                source.topic,
                known,
                parts,
            )
            self._old_parts[source.topic] = known
        return source.partition >= self._old_parts.get(source.topic, parts)

    def _begin(self, source: Source, first: int, after: int, *, added: bool) -> Shard:
        # A partition that was added later has nothing that anybody wanted to skip.
        start = "earliest" if added else self._config.input.start
        at = start_offset(start, self._member.log, source, first, after)
        return Shard(
            source=source, state=self._swap.current.new_state(), position=at, committed=at,
            began=at, dirty=True, operator=self._swap.current,
        )  # fmt: skip


def _at_work(found: RecoveredShard) -> Shard:
    """Return a shard that was brought back, with nothing to commit unless it moved."""
    given = {one.name: getattr(found, one.name) for one in fields(found)}
    return Shard(**given, committed=found.position, dirty=found.moved)


def _portions(records: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield records in portions of about `_TRANSACTION_BYTES`, and the last one alone."""
    made, size = list[Outgoing](), 0
    ahead: Iterator[Outgoing | None] = chain(records, [None])
    for record, following in pairwise(ahead):
        if record is None:
            break
        if made and (following is None or size >= _TRANSACTION_BYTES):
            yield made
            made, size = [], 0
        made.append(record)
        size += len(record.value or b"")
    if made:
        yield made
