"""A shard as the plain job left it: a snapshot, and what was taken in since, taken in again.

Everything is read that was read before, up to the committed offset, with outputs muted; what came
out of it stands in the topics already. Where scores are dear they are read back from the log.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError, SourceUnavailableError, StateError
from streamad.operators.detect import DetectOperator
from streamad.operators.identity import StateIdentity
from streamad.ports import (
    DetectRecords,
    Log,
    Logged,
    Progress,
    Snapshot,
    SnapshotStore,
    Source,
    Telemetry,
)
from streamad.records import ScoreBatch
from streamad.runtime import snapshots
from streamad.runtime.decoding import Decoding
from streamad.runtime.judging import OpenShard
from streamad.runtime.quarantine import skipped_in, without
from streamad.runtime.recorded import LoggedScores
from streamad.shown import without_credentials

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RecoveredShard(OpenShard):
    """A partition, ready to go on at ``position``.

    began : where this pipeline started to read the partition; log_offset : where the scores log
    goes on; snapshot_offset, snapshot_at : what the snapshot covers, and where the store says it
    is; moved : ``position`` is not where the group was; changed : light settings are others than
    those of the snapshot, and the state should be saved before it is used
    """

    began: int
    log_offset: int = 0
    snapshot_offset: int = -1
    snapshot_at: int = 0
    moved: bool = False
    changed: bool = False


Kept = Callable[[str], DetectOperator | None]


def none_kept(artifact: str) -> None:
    """Return that no artifact of before is at hand."""
    del artifact


class Recovery:
    """Bring back the shards of a pipeline.

    Parameters
    ----------
    config, operator
        The pipeline, and what judges.
    decoding, records, log, store
        Bytes to rows, the scores log as it is read, topics as anyone reads them, the snapshots.
    kept
        From the id of an artifact that judged before to its operator, None where it is gone.
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        *,
        decoding: Decoding,
        records: DetectRecords,
        log: Log,
        store: SnapshotStore,
        telemetry: Telemetry,
        kept: Kept = none_kept,
    ) -> None:
        self._config, self._operator = config, operator
        self._decoding, self._records, self.log, self._store = decoding, records, log, store
        self._telemetry = telemetry
        self._identity, self._kept = operator.identity, kept
        # Reading scores back pays where making them is dear; it must cost no more than it saves.
        self._read_scores = operator.detector.info.cost != "cheap"

    def recover(self, source: Source, done: Progress, bounds: tuple[int, int]) -> RecoveredShard:
        """Return a shard as of what the group committed.

        Raises StateError for state of other settings and OffsetOutOfRangeError for input that is
        gone, both by the pipeline's policy; SourceUnavailableError where the broker is away.
        """
        first, after = bounds
        about = read_note(done.note)
        shard = RecoveredShard(
            source=source,
            state=self._operator.new_state(),
            position=done.offset,
            began=about.get("from", first),
            log_offset=about.get("log", 0),
            snapshot_at=about.get("snapshot", 0),
            operator=self._operator,
        )
        if done.offset > after:
            # The topic was made anew: its offsets, and our snapshots, mean something else.
            return self._out_of_range(shard, bounds, f"it ends at {after}")
        operator, start, log_offset = self._restore(shard, about.get("settings"), after)
        if done.offset < first:
            # Windows must not reach over the gap: they would repeat what was judged before it.
            shard.state.break_off()
            return self._out_of_range(shard, bounds, f"it begins at {first}")
        if start < first:
            gap = f"state needs input from {start} on and the topic begins at {first}"
            self._report(source, gap)
        self._replay(shard, operator, max(start, first), log_offset, skipped_in(done.note))
        self._continue(shard, operator)
        return shard

    def use(self, operator: DetectOperator) -> None:
        """Bring back shards for another operator: one whose artifact took over."""
        before, kept = self._operator, self._kept
        self._operator, self._identity = operator, operator.identity
        self._kept = lambda artifact: before if artifact == before.artifact else kept(artifact)

    def _continue(self, shard: RecoveredShard, operator: DetectOperator) -> None:
        """Hand a shard that others judged up to here to our operator."""
        if operator.artifact != self._operator.artifact:
            logger.info(
                "%s: artifact %s judges from offset %d on, up to there it was %s",
                shard.source, self._operator.artifact, shard.position, operator.artifact,
            )  # fmt: skip
            ours = self._operator.under(operator.config.decision_settings())
            ours.follow(shard.state)
            operator, shard.changed = ours, True
        if operator is not self._operator:
            logger.info("%s: settings that change nothing learned have changed", shard.source)
            shard.state, shard.changed = self._operator.adopt(shard.state), True
        if shard.changed:
            shard.snapshot_offset = -1

    def _restore(
        self, shard: RecoveredShard, settings: int | None, after: int
    ) -> tuple[DetectOperator, int, int]:
        """Fill the state from a snapshot.

        Returns who is to judge what came since, and from where input and scores log are to be read.

        settings : of whoever committed the offset; after : the topic's end
        """
        found = self._store.load(shard.source, up_to=shard.position, hint=shard.snapshot_at)
        try:
            self._require_ours(shard, settings, after)
            if found is None:
                return self._operator, shard.began, 0
            operator = self._fill(shard, found)
        except StateError as error:
            if self._config.delivery.on_state_mismatch == "refuse":
                msg = f"{shard.source}: {error}"
                raise StateError(msg) from error
            logger.warning("%s begins with fresh state, as configured: %s", shard.source, error)
            shard.state, shard.moved = self._operator.new_state(), True
            return self._operator, shard.position, shard.log_offset
        if not shard.changed:
            shard.snapshot_offset = found.offset
        return operator, found.offset, found.log_offset

    def _fill(self, shard: RecoveredShard, found: Snapshot) -> DetectOperator:
        """Fill the state from a snapshot; return who is to judge what came since.

        That is an operator of the snapshot's settings and artifact: what came since was judged by
        these. Raises StateError.
        """
        chunks = list(found.chunks)
        made = snapshots.made_by(chunks)
        if made is None or made.artifact == self._operator.artifact:
            operator = self._operator.under(made.settings if made else {})
            shard.state = operator.new_state()
            snapshots.restore(shard.state, chunks, identity=self._identity)
            return operator
        before = self._kept(made.artifact)
        if why := self._operator.cannot_follow(before):
            msg = (
                f"the state was made with artifact {made.artifact or 'none'}, and artifact "
                f"{self._operator.artifact or 'none'} cannot continue it: {why}. Put the other one "
                "back, or set delivery.on_state_mismatch: fresh to start with empty state"
            )
            raise StateError(msg)
        if before is None and found.offset < shard.position:
            msg = (
                f"artifact {made.artifact or 'none'} judged the input from {found.offset} to "
                f"{shard.position} and is not to be found: put it beside {self._where()}, under "
                "any name, until the job has started; or set delivery.on_state_mismatch: fresh to "
                "start with empty state"
            )
            raise StateError(msg)
        identity = replace(self._identity, artifact=made.artifact)
        operator = (before or self._operator).under(made.settings)
        groups = self._operator.groups_of if before is None else None
        shard.state, shard.changed = operator.new_state(), True
        snapshots.restore(shard.state, chunks, identity=identity, groups=groups)
        if before is None:  # nothing came since: ours continues from the snapshot
            operator.retrain(shard.state)
        return operator

    def _where(self) -> str:
        return without_credentials(self._config.detector.artifact or "the pipeline's artifact")

    def _require_ours(self, shard: RecoveredShard, settings: int | None, after: int) -> None:
        """Raise StateError where the offset is not what a job of these settings came to."""
        newest = self._store.newest(shard.source)
        # One beyond the end is of a topic of this name that there was before.
        if newest is not None and shard.position < newest <= after:
            msg = (
                f"the group is at offset {shard.position} and the state covers the input up to "
                f"{newest}: the offset was moved back, and what was found since would be written "
                f"twice. Move the group to {newest}, or set delivery.on_state_mismatch: fresh to "
                f"judge again from {shard.position} with empty state"
            )
            raise StateError(msg)
        if settings is not None and newest is None:
            require_settings(settings, self._identity)

    def without_offset(self, source: Source, bounds: tuple[int, int]) -> Progress | None:
        """Return how far a partition was worked off that the group has no offset of.

        Offsets expire, and a group can be deleted; state and scores log are there all the same.
        None where they are not.
        """
        found = self._store.load(source, up_to=bounds[1])
        if found is None:
            return None
        topic, reached = self._records.scores_topic, found.offset
        parts = self.log.bounds(topic)
        if parts:
            log = Source(topic, source.partition % len(parts))
            first, after = parts[log]
            for messages in self.log.read(log, max(first, found.log_offset), after):
                ends = [entry.offset for entry in self._records.read_log(messages, source)]
                reached = max([reached, *ends])
        reached = min(reached, bounds[1])
        logger.warning(
            "%s: the group has no offset, it expired or was deleted; continuing at %d, where state "
            "and scores end",
            source,
            reached,
        )
        note = {"from": found.offset, "log": found.log_offset}
        return Progress(offset=reached, note=json.dumps(note))

    def _out_of_range(
        self, shard: RecoveredShard, bounds: tuple[int, int], why: str
    ) -> RecoveredShard:
        self._report(shard.source, f"offset {shard.position} is out of range: {why}")
        first, after = bounds
        shard.position = after if self._config.input.on_out_of_range == "latest" else first
        shard.began, shard.moved = shard.position, True
        return shard

    def _report(self, source: Source, what: str) -> None:
        """Say that input is missing; by the policy, stop here."""
        self._telemetry.count("input_offset_out_of_range_total", topic=source.topic)
        policy = self._config.input.on_out_of_range
        if policy == "fail":
            msg = (
                f"{source}: {what}; set input.on_out_of_range to earliest or latest to "
                "continue with a gap, and raise the topic's retention"
            )
            raise OffsetOutOfRangeError(msg)
        logger.error(
            "%s: %s; continuing with a gap, as input.on_out_of_range: %s", source, what, policy
        )

    def _replay(
        self,
        shard: RecoveredShard,
        operator: DetectOperator,
        start: int,
        log_offset: int,
        skipped: Sequence[int],
    ) -> None:
        """Take in what was taken in before, up to the committed offset, and say nothing."""
        ticks, recorded = self._read_log(shard, start, log_offset, operator.artifact)
        number = 0
        read = self.log.read(shard.source, start, shard.position)
        if skipped:
            read = (left for one in read if len(left := without(one, skipped)))
        for portion in self._decoding.run(read):
            messages, batch, at = portion.messages, portion.decoded.batch, 0
            while number < len(ticks) and ticks[number].offset <= messages.offsets[-1]:
                message = int(np.searchsorted(messages.offsets, ticks[number].offset))
                stop = int(np.searchsorted(batch.message, message))
                operator.process(shard.state, batch.take(at, stop), at=shard.at, recorded=recorded)
                operator.tick(shard.state, int(ticks[number].tick_ms or 0), at=shard.at)
                number, at = number + 1, stop
            rest = batch.take(at, len(batch))
            operator.process(shard.state, rest, at=shard.at, recorded=recorded)
        for tick in ticks[number:]:
            operator.tick(shard.state, int(tick.tick_ms or 0), at=shard.at)

    def _read_log(
        self, shard: RecoveredShard, start: int, log_offset: int, artifact: str
    ) -> tuple[list[Logged], LoggedScores | None]:
        """Return the ticks and scores that were decided from an input offset on."""
        topic = self._records.scores_topic
        bounds = self.log.bounds(topic)
        if not bounds:
            return [], None
        log = Source(topic, shard.source.partition % len(bounds))
        first, after = bounds[log]
        # A log that ends before the place a snapshot names was deleted and made again.
        begin = max(first, log_offset) if log_offset <= after else first
        ticks: list[Logged] = []
        scores: list[ScoreBatch] = []
        for messages in self.log.read(log, begin, after):
            for entry in self._records.read_log(messages, shard.source, artifact=artifact):
                if not start <= entry.offset <= shard.position:
                    continue
                if entry.tick_ms is not None:
                    ticks.append(entry)
                elif entry.scores is not None and self._read_scores:
                    scores.append(entry.scores)
        return ticks, LoggedScores(scores) if self._read_scores else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a plain job left, for an engine that goes on from there.

    progress : what the job's group committed; partitions it never worked on are not in it
    """

    recovery: Recovery
    progress: Mapping[Source, Progress]

    def __contains__(self, source: Source) -> bool:
        return source in self.progress

    def recover(self, source: Source) -> RecoveredShard:
        """Return a shard as the plain job left it; raises as `Recovery.recover` does."""
        bounds = self.recovery.log.bounds(source.topic)
        if source not in bounds:
            msg = f"{source}: the broker knows nothing of it"
            raise SourceUnavailableError(msg)
        return self.recovery.recover(source, self.progress[source], bounds[source])


def settings_number(checksum: str) -> int:
    """Return a number that tells settings apart, for the note of a commit."""
    return zlib.crc32(checksum.encode())


def require_settings(theirs: int, identity: StateIdentity) -> None:
    """Raise StateError where a commit was made by a job of other settings."""
    if theirs != settings_number(identity.checksum):
        msg = (
            "a job of this name with other settings works, or worked, on the input: give each "
            "pipeline a name of its own, or set delivery.on_state_mismatch: fresh to continue from "
            "there with empty state"
        )
        raise StateError(msg)


def read_note(text: str) -> dict[str, int]:
    """Return what travelled with a commit of the plain job (see `Shard.note`)."""
    try:
        note: Any = json.loads(text)
    except ValueError:
        return {}
    return {k: v for k, v in note.items() if isinstance(v, int)} if isinstance(note, dict) else {}
