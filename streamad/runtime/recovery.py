"""A shard as the plain job left it: a snapshot, and what was taken in since, taken in again.

Everything is read that was read before, up to the committed offset, with outputs muted; what came
out of it stands in the topics already. Where scores are dear they are read back from the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError, SourceUnavailableError, StateError
from streamad.operators.detect import DetectOperator
from streamad.ports import (
    DetectRecords,
    Log,
    Logged,
    Progress,
    SnapshotStore,
    Source,
    Telemetry,
)
from streamad.records import ScoreBatch
from streamad.runtime import snapshots
from streamad.runtime.decoding import Decoding
from streamad.runtime.judging import OpenShard
from streamad.runtime.recorded import LoggedScores

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RecoveredShard(OpenShard):
    """A partition, ready to go on at ``position``.

    began : where this pipeline started to read the partition; log_offset : where the scores log
    goes on; snapshot_offset, snapshot_at : what the snapshot covers, and where the store says it
    is; moved : ``position`` is not where the group was
    """

    began: int
    log_offset: int = 0
    snapshot_offset: int = -1
    snapshot_at: int = 0
    moved: bool = False


class Recovery:
    """Bring back the shards of a pipeline.

    Parameters
    ----------
    config, operator
        The pipeline, and what judges.
    decoding, records, log, store
        Bytes to rows, the scores log as it is read, topics as anyone reads them, the snapshots.
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
    ) -> None:
        self._config, self._operator = config, operator
        self._decoding, self._records, self.log, self._store = decoding, records, log, store
        self._telemetry = telemetry
        self._identity = operator.identity
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
        )
        if done.offset > after:
            # The topic was made anew: its offsets, and our snapshots, mean something else.
            return self._out_of_range(shard, bounds, f"it ends at {after}")
        start, log_offset = self._restore(shard)
        if done.offset < first:
            return self._out_of_range(shard, bounds, f"it begins at {first}")
        if start < first:
            gap = f"state needs input from {start} on and the topic begins at {first}"
            self._report(source, gap)
        self._replay(shard, max(start, first), log_offset)
        return shard

    def _restore(self, shard: RecoveredShard) -> tuple[int, int]:
        """Fill the state from a snapshot; return from where input and scores log are to be read."""
        found = self._store.load(shard.source, up_to=shard.position, hint=shard.snapshot_at)
        if found is None:
            return shard.began, 0
        try:
            snapshots.restore(shard.state, found.chunks, identity=self._identity)
        except StateError as error:
            if self._config.delivery.on_state_mismatch == "refuse":
                msg = f"{shard.source}: {error}"
                raise StateError(msg) from error
            logger.warning("%s begins with fresh state, as configured: %s", shard.source, error)
            shard.state = self._operator.new_state()
            return shard.position, shard.log_offset
        shard.snapshot_offset = found.offset
        return found.offset, found.log_offset

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

    def _replay(self, shard: RecoveredShard, start: int, log_offset: int) -> None:
        """Take in what was taken in before, up to the committed offset, and say nothing."""
        ticks, recorded = self._read_log(shard, start, log_offset)
        number = 0
        read = self.log.read(shard.source, start, shard.position)
        for portion in self._decoding.run(read):
            messages, batch, at = portion.messages, portion.decoded.batch, 0
            while number < len(ticks) and ticks[number].offset <= messages.offsets[-1]:
                message = int(np.searchsorted(messages.offsets, ticks[number].offset))
                stop = int(np.searchsorted(batch.message, message))
                self._operator.process(
                    shard.state, batch.take(at, stop), at=shard.at, recorded=recorded
                )
                self._operator.tick(shard.state, int(ticks[number].tick_ms or 0), at=shard.at)
                number, at = number + 1, stop
            rest = batch.take(at, len(batch))
            self._operator.process(shard.state, rest, at=shard.at, recorded=recorded)
        for tick in ticks[number:]:
            self._operator.tick(shard.state, int(tick.tick_ms or 0), at=shard.at)

    def _read_log(
        self, shard: RecoveredShard, start: int, log_offset: int
    ) -> tuple[list[Logged], LoggedScores | None]:
        """Return the ticks and scores that were decided from an input offset on."""
        topic = self._records.scores_topic
        bounds = self.log.bounds(topic)
        if not bounds:
            return [], None
        log = Source(topic, shard.source.partition % len(bounds))
        first, after = bounds[log]
        ticks: list[Logged] = []
        scores: list[ScoreBatch] = []
        for messages in self.log.read(log, max(first, log_offset), after):
            for entry in self._records.read_log(messages, shard.source):
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


def read_note(text: str) -> dict[str, int]:
    """Return what travelled with a commit of the plain job (see `Shard.note`)."""
    try:
        note: Any = json.loads(text)
    except ValueError:
        return {}
    return {k: v for k, v in note.items() if isinstance(v, int)} if isinstance(note, dict) else {}
