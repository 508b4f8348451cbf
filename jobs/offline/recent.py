"""Rows to fit on: of a file, or the newest ones of topics, bounded by time and by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jobs.console import Tell
from jobs.offline.judged import Account
from jobs.offline.replay import between, codec_of, joined, read_file, spans_of
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.ports import Log, Source
from streamad.records import RecordBatch
from streamad.runtime.decoding import decode
from streamad.training.fit import rows_of

MOST_ROWS = 5_000_000
"""Rows of topics that are kept for one fit by default: about 1 GB with keys of usual lengths."""
SLACK = 1.25
"""How many times the rows that are wanted may be held before the oldest go."""


@dataclass(slots=True, kw_only=True)
class Newest:
    """The newest rows of what is added, at most ``most``; of equal times those that came first.

    n_left_out : rows that were added and were not kept
    """

    most: int
    n_left_out: int = 0
    _batches: list[RecordBatch[Any]] = field(default_factory=list)
    _held: int = 0
    _since_ms: int | None = None

    def add(self, batch: RecordBatch[Any]) -> None:
        """Take rows; what is older than the newest ``most`` is forgotten."""
        kept = between(batch, self._since_ms, None)
        self.n_left_out += len(batch) - len(kept)
        if len(kept):
            self._batches.append(kept)
            self._held += len(kept)
        if self._held > SLACK * self.most:
            self._trim()

    def rows(self) -> list[RecordBatch[Any]]:
        """Return what is kept, in the order in which it came."""
        if self._held > self.most:
            self._trim()
        return self._batches

    def _trim(self) -> None:
        times = np.concatenate([batch.time_ms for batch in self._batches])
        oldest = int(np.partition(times, len(times) - self.most)[len(times) - self.most])
        ties = self.most - int((times > oldest).sum())
        kept: list[RecordBatch[Any]] = []
        for batch in self._batches:
            same = np.flatnonzero(batch.time_ms == oldest)[:ties]
            ties -= len(same)
            rows = np.sort(np.concatenate([np.flatnonzero(batch.time_ms > oldest), same]))
            if len(rows):
                kept.append(rows_of(batch, rows))
        self.n_left_out += self._held - self.most
        self._batches, self._held, self._since_ms = kept, self.most, oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows to fit on, and what there is to report about them."""

    batch: RecordBatch[Any]
    notes: list[str]


def rows_of_file(path: Path, config: PipelineConfig) -> Rows:
    """Read a file as the pipeline reads it."""
    notes: list[str] = []
    account, parts = Account(), []
    for part in read_file(path, config, notes=notes):
        account.reject(part.decoded.rejected)
        parts.append(part.decoded.batch)
    return Rows(batch=joined(parts), notes=[*notes, *_lost(account)])


def rows_of_topics(  # noqa: PLR0913 - all but the log and the pipeline by keyword
    log: Log,
    config: PipelineConfig,
    *,
    topics: Sequence[str],
    begin_ms: int | None,
    end_ms: int,
    most: int = MOST_ROWS,
    progress: Tell = lambda _done, _all: None,
) -> Rows:
    """Read the rows of topics with a time in ``[begin_ms, end_ms)``, to where the topics end now.

    most : rows that are kept, the newest ones of all partitions
    progress : told how many offsets of how many are read

    Raises
    ------
    ConfigError
        where a topic is missing, or has no row in that time
    """
    codec, account, newest = codec_of(config), Account(), Newest(most=most)
    spans: dict[Source, tuple[int, int]] = {}
    for topic in topics:
        spans |= spans_of(log, topic, config, begin_ms=begin_ms)
    total = sum(stop - start for start, stop in spans.values())
    before, n_messages = 0, 0
    progress(0, total)
    for source, (start, stop) in spans.items():
        for messages in log.read(source, start, stop):
            decoded = decode(codec, messages, pipeline=config.name)
            account.reject(decoded.rejected)
            newest.add(between(decoded.batch, begin_ms, end_ms))
            n_messages += len(messages)
            progress(before + int(messages.offsets[-1]) + 1 - start, total)
        before += stop - start
    batches = newest.rows()
    if not batches:
        why = account.rejections() if account.rejected else f"{n_messages:,} messages were read"
        msg = (
            f"{', '.join(topics)}: no row in the time asked for ({why}); ask for more with --last, "
            "or check with 'streamad backtest' that the pipeline reads the topic"
        )
        raise ConfigError(msg)
    batch = joined(batches)
    if config.input.repartition:
        # A key lies in several partitions here; live, the re-keyed topic puts it together again.
        batch = rows_of(batch, np.argsort(batch.time_ms, kind="stable"))
    notes = [f"{', '.join(topics)}: {len(batch):,} rows of {n_messages:,} messages"]
    if newest.n_left_out:
        notes.append(
            f"{newest.n_left_out:,} older rows are left out: --rows keeps the newest {most:,}"
        )
    return Rows(batch=batch, notes=[*notes, *_lost(account)])


def _lost(account: Account) -> list[str]:
    return [account.rejections()] if account.rejected else []
