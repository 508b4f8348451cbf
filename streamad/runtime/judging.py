"""What every runtime makes of a portion of messages, and of time that passed without any.

The operator decides; here its decisions become records and metrics. Runtimes differ in who keeps
the state and when what was made is written, and in nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamad.config import PipelineConfig
from streamad.operators.detect import DetectOperator, DetectOutput, Position
from streamad.operators.shard import ShardState
from streamad.operators.silence import tick_length
from streamad.ports import DetectRecords, Outgoing, Source, Telemetry
from streamad.records import NO_ROWS, Finding, Rejected, ScoreBatch
from streamad.runtime.decoding import Portion
from streamad.wording import duration

logger = logging.getLogger(__name__)

AGAIN_S = 600.0
"""How often the log names series that are hardly judged or thrown together, and cut graphs."""
MAX_HOMES = 200_000
"""Keys of which it is remembered in which partition they were met."""


@dataclass(slots=True, kw_only=True)
class OpenShard:
    """One partition at work.

    position : the next offset to be taken in, -1 where that is not known; ticked_ms : up to where
    the wall clock counted because nothing came; operator : who judges it, where that may change
    """

    source: Source
    state: ShardState
    position: int = -1
    ticked_ms: int = 0
    operator: DetectOperator | None = None

    @property
    def at(self) -> Position:
        """Return what findings carry of their origin."""
        return Position(topic=self.source.topic, partition=self.source.partition)


@dataclass(slots=True, kw_only=True)
class Judged:
    """What is to be written; ``records`` are dead letters, late rows and ticks."""

    findings: list[Finding] = field(default_factory=list)
    scores: list[ScoreBatch] = field(default_factory=list)
    records: list[Outgoing] = field(default_factory=list)


def count_rejected(telemetry: Telemetry, rejected: Sequence[Rejected]) -> None:
    """Count rejections by reason, each of those that one stands for."""
    for one in rejected:
        if one.reason == NO_ROWS:
            telemetry.count("input_empty_messages_total")
            continue
        for reason, number in one.by_reason.items():
            telemetry.count("input_rejected_total", number, reason=reason)


class Judging:
    """Let an operator judge the shards of one member or subtask.

    counters : from the operator's counts to metrics and labels
    """

    def __init__(
        self,
        config: PipelineConfig,
        operator: DetectOperator,
        *,
        records: DetectRecords,
        telemetry: Telemetry,
        counters: Mapping[str, tuple[str, Mapping[str, str]]] | None = None,
    ) -> None:
        self._config, self._operator, self._records = config, operator, records
        self._telemetry, self._counters = telemetry, counters or {}
        self._keep_late = config.series.late == "topic"
        self._homes: dict[int, int] = {}
        self._blind, self._blind_due_s, self._merged_due_s = set[str](), 0.0, 0.0
        self._cut, self._cut_due_s = np.zeros(2, np.int64), 0.0
        self.tick_ms = tick_length(config.series)

    def portion(self, shard: OpenShard, portion: Portion) -> Judged:
        """Judge messages that were decoded."""
        started_s = time.perf_counter()
        messages, decoded = portion.messages, portion.decoded
        operator = shard.operator or self._operator
        out = operator.process(shard.state, decoded.batch, at=shard.at)
        made = self._made(out)
        if rejected := [*decoded.rejected, *out.rejected]:
            made.records += self._records.rejected(messages, rejected)
            count_rejected(self._telemetry, rejected)
        if self._keep_late and len(out.late):
            made.records += self._records.late(messages, decoded.batch, out.late)
        if out.met:
            self._meet(shard, out.met)
        if out.blind:
            self._say_blind(shard, out.blind)
        if len(out.merged):
            self._say_merged(shard, str(decoded.batch.keys[int(out.merged[0])]), len(out.merged))
        if out.counts["cut"]:
            self._say_cut(shard, out.counts["cut"], out.counts["left_out"])
        topic = shard.source.topic
        self._telemetry.count("input_messages_total", len(messages), topic=topic)
        self._telemetry.observe("input_decode_seconds", portion.seconds)
        self._telemetry.observe("detect_score_seconds", time.perf_counter() - started_s)
        return made

    def is_due(self, shard: OpenShard, *, quiet_ms: float, now_ms: int) -> bool:
        """Say if wall-clock time has to pass for a partition that has been quiet for so long.

        Only if nothing is left to read: a broker that is away, or a backlog, is no silence of the
        source. That is for the caller to find out.
        """
        known_ms = max(shard.ticked_ms, shard.state.partition_ms)
        passed = now_ms // self.tick_ms > known_ms // self.tick_ms
        return quiet_ms >= self.tick_ms and known_ms > 0 and passed

    def tick(self, shard: OpenShard, now_ms: int) -> Judged:
        """Let wall-clock time pass, and log that it did."""
        shard.ticked_ms = now_ms
        operator = shard.operator or self._operator
        made = self._made(operator.tick(shard.state, now_ms, at=shard.at))
        by = operator.artifact
        made.records.append(self._records.tick(shard.source, shard.position, now_ms, artifact=by))
        return made

    def meet_keys(self, shard: OpenShard) -> None:
        """Remember where the keys of a shard that was brought back were met."""
        tables = (shard.state.keys, shard.state.waiting.keys)
        # None: it was forgotten.
        self._meet(shard, [name for table in tables for name in table.names if name is not None])

    def _meet(self, shard: OpenShard, names: list[str]) -> None:
        """Remember where new keys were met; one that is met elsewhere is judged in two halves."""
        here, topic = shard.source.partition, shard.source.topic
        if len(self._homes) + len(names) > MAX_HOMES:
            return
        homes = [self._homes.setdefault(hash((topic, name)), here) for name in names]
        strays = len(homes) - homes.count(here)
        if strays:
            self._telemetry.count("input_key_in_two_partitions_total", strays, topic=topic)
            logger.warning(
                "%s: %d keys were met in more than one partition; each half is judged alone: key "
                "the topic by the series, or set input.repartition",
                shard.source,
                strays,
            )

    def _say_blind(self, shard: OpenShard, names: list[str]) -> None:
        """Name series that nobody watches, though their data comes: most of it is missing."""
        self._blind.update(names)
        if time.monotonic() < self._blind_due_s:
            return
        self._blind_due_s = time.monotonic() + AGAIN_S
        step = self._config.series.step
        logger.warning(
            "%s: %d series are hardly watched (%s): more than %.0f %% of their samples%s are "
            "missing, so most of their windows are not judged; see series.step and series.gaps",
            shard.source,
            len(self._blind),
            ", ".join(sorted(self._blind)[:3]) + (", ..." if len(self._blind) > 3 else ""),
            self._config.series.gaps.max_share * 100,
            f", one every {duration(step)}," if step else "",
        )
        self._blind.clear()

    def _say_merged(self, shard: OpenShard, name: str, number: int) -> None:
        """Name a key that keeps too little to tell series apart."""
        if time.monotonic() < self._merged_due_s:
            return
        self._merged_due_s = time.monotonic() + AGAIN_S
        logger.warning(
            "%s: %d points have the key and time of another in their message (%s): several series "
            "are taken for one; add to input.fields.key what separates them",
            shard.source,
            number,
            name,
        )

    def _say_cut(self, shard: OpenShard, n_graphs: int, n_edges: int) -> None:
        """Report graphs that are judged without all of their edges."""
        self._cut += np.array([n_graphs, n_edges])
        if time.monotonic() < self._cut_due_s:
            return
        self._cut_due_s = time.monotonic() + AGAIN_S
        bounds, (graphs, edges) = self._config.graphs, self._cut.tolist()
        logger.warning(
            "%s: %s edges were left out of %s graphs, which had reached graphs.max_nodes (%s) or "
            "graphs.max_edges (%s): raise these, or shorten graphs.span",
            shard.source,
            f"{edges:,}",
            f"{graphs:,}",
            f"{bounds.max_nodes:,}",
            f"{bounds.max_edges:,}",
        )
        self._cut[:] = 0

    def measure(self, shard: OpenShard) -> None:
        """Say how many keys a shard holds, and how large they are."""
        labels = {"topic": shard.source.topic, "partition": str(shard.source.partition)}
        self._telemetry.gauge("detect_keys", shard.state.n_keys, **labels)
        self._telemetry.gauge("detect_keys_waiting", len(shard.state.waiting), **labels)
        self._telemetry.gauge("detect_key_bytes", shard.state.bytes_per_key)

    def _made(self, out: DetectOutput) -> Judged:
        for name, n in out.counts.items():
            if name in self._counters:
                metric, labels = self._counters[name]
                self._telemetry.count(metric, n, **labels)
        scores = [batch for batch in out.scores if len(batch)]
        return Judged(findings=out.findings, scores=scores)
