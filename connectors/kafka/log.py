"""Topics of Kafka as anyone may read them, from an offset to an offset."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from connectors.kafka.client import KafkaSettings, reader
from connectors.kafka.columns import messages_of
from connectors.kafka.transactions import HOPELESS, refusal
from streamad.errors import SourceUnavailableError
from streamad.ports import Messages, Progress, Source

T = TypeVar("T")

STALL_S = 60.0
"""A read that should end and gets nothing for so long is given up."""


def _telling(method: Callable[..., T]) -> Callable[..., T]:
    """Raise what the client raises as an error of ours, which the runtime tries again."""

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> T:
        try:
            return method(*args, **kwargs)
        except HOPELESS as error:
            raise refusal(error) from error
        except KafkaError as error:
            msg = f"Kafka cannot be read now: {error!r}"
            raise SourceUnavailableError(msg) from error

    return called


class KafkaLog:
    """Topics as anyone may read them: for recovery. Not for two threads at once."""

    def __init__(self, settings: KafkaSettings, *, group: str) -> None:
        self._settings, self._group = settings, group
        self._committed: KafkaConsumer | None = None
        self._offsets: KafkaConsumer | None = None

    @_telling
    def bounds(self, topic: str) -> dict[Source, tuple[int, int]]:
        """Return the first and the next offset of each partition; open transactions count."""
        if self._offsets is None:
            self._offsets = KafkaConsumer(
                **self._settings.client(),
                metrics_enabled=False,
                allow_auto_create_topics=False,
                # A partition that was just added must be seen when its turn comes.
                metadata_max_age_ms=3_000,
            )
        number = self._offsets.partitions_for_topic(topic)
        parts = [TopicPartition(topic, partition) for partition in sorted(number)]
        if not parts:
            return {}
        first = self._offsets.beginning_offsets(parts)
        after = self._offsets.end_offsets(parts)
        return {Source(*part): (first[part], after[part]) for part in parts}

    @_telling
    def offset_at(self, source: Source, time_ms: int) -> int:
        """Return the first offset written at or after a time, the end where there is none."""
        part = TopicPartition(*source)
        found = self._reader().offsets_for_times({part: time_ms})[part]
        return self.bounds(source.topic)[source][1] if found is None else int(found.offset)

    def progress(self, source: Source) -> Progress | None:
        """Return how far a pipeline's group has worked off a partition; waits as `committed`."""
        found = self.committed(source)
        if found is None:
            return None
        return Progress(offset=found[0], note=found[1].partition(";")[2])

    @_telling
    def committed(self, source: Source) -> tuple[int, str] | None:
        """Return offset and metadata the group committed; waits for open transactions."""
        found = self._reader().committed(TopicPartition(*source), metadata=True)
        if found is None or found.offset < 0:
            return None
        return int(found.offset), found.metadata or ""

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        """Read committed records from ``start`` until ``stop``, which must exist."""
        if start >= stop:
            return
        part = TopicPartition(*source)
        self._seek(part, start)
        moved, at = time.monotonic(), start
        while at < stop:
            before = at
            records, at = self._next(part)
            if at > before:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_S:
                msg = f"{source}: nothing came for {STALL_S:g} s at offset {at}, {stop} is the end"
                raise SourceUnavailableError(msg)
            found = first_of(messages_of(source, records), stop)
            if len(found):
                yield found

    @_telling
    def _seek(self, part: TopicPartition, start: int) -> None:
        self._reader().assign([part])
        self._reader().seek(part, start)

    @_telling
    def _next(self, part: TopicPartition) -> tuple[list[Any], int]:
        records = self._reader().poll(timeout_ms=200).get(part, [])
        return records, self._reader().position(part)

    def close(self) -> None:
        """Close what was opened."""
        for consumer in (self._committed, self._offsets):
            if consumer is not None:
                consumer.close()

    def _reader(self) -> KafkaConsumer:
        if self._committed is None:
            self._committed = reader(self._settings, group=self._group, columns=True)
        return self._committed


def first_of(messages: Messages, stop: int) -> Messages:
    """Return the messages before an offset."""
    n = int(np.searchsorted(messages.offsets, stop))
    if n == len(messages):
        return messages
    return replace(
        messages,
        payloads=messages.payloads[:n],
        offsets=messages.offsets[:n],
        broker_ms=messages.broker_ms[:n],
        raw=messages.raw[:n],
    )
