"""Records that were there before, as the pipeline would read them: from a file or a topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from connectors.codecs import Codec, FieldMap, make_codec
from connectors.codecs.payloads import PAYLOADS
from connectors.files import read_messages, read_series
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.ports import Log, Source
from streamad.records import Decoded, RecordBatch, joined_rows
from streamad.runtime.decoding import decode
from streamad.training.fit import rows_of
from streamad.windows.kinds import KIND_TAG

TABLES = (".csv", ".tsv", ".parquet")
"""Files with these names are tables whatever the format of the pipeline's messages."""

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some input of one partition, in offset order; a file is one partition, ``of_file``."""

    source: Source
    decoded: Decoded
    of_file: bool = False


def field_map(config: PipelineConfig) -> FieldMap:
    """Return which field is what, in the decoders' terms."""
    fields, records = config.input.fields, config.input.records
    payload = PAYLOADS[records]
    return FieldMap(
        key=fields.key,
        time=fields.time,
        time_unit=fields.time_unit,
        records=records,
        roles=payload.texts(fields),
        values=payload.numbers(fields),
        variate=fields.variate,
        variates=fields.variates,
        tags=fields.tags,
        where=tuple(fields.where.items()),
        rows=fields.rows,
    )


def codec_of(config: PipelineConfig) -> Codec:
    """Return the decoder of a pipeline's input."""
    return make_codec(
        config.input.format,
        field_map(config),
        max_message_bytes=config.input.max_message_bytes,
        max_rows_per_message=config.input.max_rows_per_message,
    )


def is_file(source: str) -> bool:
    """Say whether a source is meant as a file; else it is a topic."""
    return source.lower().removesuffix(".gz").endswith(SUFFIXES) or Path(source).exists()


def read_file(
    path: Path, config: PipelineConfig, *, joint: bool = False, notes: list[str] | None = None
) -> Iterator[Part]:
    """Read a file through the pipeline's own field map: columns by name, or as messages.

    A table without the pipeline's key column is one series, named after the file, unless its times
    repeat; see `connectors.files.read_series`. ``notes`` are added to: how the file was read.
    """
    source, codec = Source(path.name, 0), codec_of(config)
    table = path.name.lower().removesuffix(".gz").endswith(TABLES)
    if table or config.input.format in ("json", "arrow"):
        made = read_series(path, field_map(config), codec=codec, joint=joint)
        batches = made.batches
        if notes is not None:
            notes += made.notes
    else:
        batches = read_messages(path, codec)
    for decoded in batches:
        yield Part(source=source, decoded=decoded, of_file=True)


def read_topic(
    log: Log, topic: str, config: PipelineConfig, *, begin_ms: int | None
) -> Iterator[Part]:
    """Read a topic, a partition after the other, from a time to where each ends now."""
    codec = codec_of(config)
    for source, (start, stop) in spans_of(log, topic, config, begin_ms=begin_ms).items():
        for part in log.read(source, start, stop):
            decoded = decode(codec, part, pipeline=config.name)
            yield Part(source=source, decoded=decoded)


def spans_of(
    log: Log, topic: str, config: PipelineConfig, *, begin_ms: int | None
) -> dict[Source, tuple[int, int]]:
    """Return from which offset to which each partition holds what was written since a time."""
    bounds = log.bounds(topic)
    if not bounds:
        msg = f"there is no file and no topic {topic!r}"
        raise ConfigError(msg)
    found: dict[Source, tuple[int, int]] = {}
    for source, (first, stop) in sorted(bounds.items()):
        start = first
        if begin_ms is not None:
            # Records may be written up to max_ahead before the time they speak of.
            start = max(first, log.offset_at(source, max(0, begin_ms - config.series.max_ahead)))
        found[source] = start, max(start, stop)
    return found


def between(batch: RecordBatch[Any], begin_ms: int | None, end_ms: int | None) -> RecordBatch[Any]:
    """Return the rows of a batch with an event time in ``[begin_ms, end_ms)``."""
    if begin_ms is None and end_ms is None:
        return batch
    keep = np.ones(len(batch), np.bool_)
    if begin_ms is not None:
        keep &= batch.time_ms >= begin_ms
    if end_ms is not None:
        keep &= batch.time_ms < end_ms
    return rows_of(batch, np.flatnonzero(keep))


def joined(batches: Sequence[RecordBatch[Any]]) -> RecordBatch[Any]:
    """Return batches as one; of tags only the declared kinds of series stay."""
    if not batches:
        msg = "there is nothing to read"
        raise ConfigError(msg)
    before = np.cumsum([0, *(len(batch.offsets) for batch in batches)])
    return RecordBatch(
        keys=pl.concat([batch.keys for batch in batches]),
        time_ms=np.concatenate([batch.time_ms for batch in batches]),
        values=joined_rows([batch.values for batch in batches]),
        message=np.concatenate(
            [batch.message + n for batch, n in zip(batches, before[:-1], strict=True)]
        ).astype(np.int32),
        row=np.concatenate([batch.row for batch in batches]),
        offsets=np.concatenate([batch.offsets for batch in batches]),
        broker_ms=np.concatenate([batch.broker_ms for batch in batches]),
        tags=_kinds(batches),
    )


def _kinds(batches: Sequence[RecordBatch[Any]]) -> dict[str, pl.Series]:
    """Return what kind of series each row declares to be of, if one of them does."""
    if not any(KIND_TAG in batch.tags for batch in batches):
        return {}
    none = pl.Series(KIND_TAG, [None], dtype=pl.String)
    kinds = [batch.tags.get(KIND_TAG, none.new_from_index(0, len(batch))) for batch in batches]
    return {KIND_TAG: pl.concat([one.alias(KIND_TAG) for one in kinds])}
