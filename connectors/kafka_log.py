"""Read a stretch of a topic from a start to where it ends now: for looking, not for following."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import TopicPartition

from streamad.errors import SourceUnavailableError

STALL_S = 30.0
"""Without any progress for so long the broker is taken to be away."""


def read_until_now(
    consumer: Any,
    topic: str,
    *,
    since_ms: int | None = None,
    starts: Mapping[int, int] | None = None,
    stall_s: float = STALL_S,
) -> Iterator[Any]:
    """Yield the committed records of a topic up to its end at the time of the call.

    consumer : see `connectors.kafka.reader`; it is assigned the topic's partitions
    since_ms : begin with records written at this time or later (by default with the first)
    starts : the offset to begin at, a partition; one that is no longer there means the first
    """
    spans = _spans(consumer, topic, since_ms=since_ms, starts=starts or {})
    open_parts = {part for part, (start, end) in spans.items() if start < end}
    consumer.assign(sorted(open_parts))
    for part in open_parts:
        consumer.seek(part, spans[part][0])
    heard_s = time.monotonic()
    while open_parts:
        polled = consumer.poll(timeout_ms=200)
        for part, records in polled.items():
            yield from (record for record in records if record.offset < spans[part][1])
        # The position also moves past the marks of transactions, which are no records.
        done = {part for part in open_parts if consumer.position(part) >= spans[part][1]}
        if polled or done:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > stall_s:
            msg = f"{topic}: nothing was heard of the broker for {stall_s:g} s; is it running?"
            raise SourceUnavailableError(msg)
        open_parts -= done
        consumer.pause(*done)


def _spans(
    consumer: Any, topic: str, *, since_ms: int | None, starts: Mapping[int, int]
) -> dict[Any, tuple[int, int]]:
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        msg = f"there is no topic {topic!r} on this cluster; has the pipeline run, and here?"
        raise SourceUnavailableError(msg)
    parts = [TopicPartition(topic, number) for number in sorted(numbers)]
    first, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
    begin = {part: max(first[part], starts.get(part.partition, 0)) for part in parts}
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(parts, max(0, since_ms)))
        begin = {part: found[part].offset if found.get(part) else ends[part] for part in parts}
    return {part: (begin[part], ends[part]) for part in parts}
