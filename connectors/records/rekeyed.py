"""The topic through which points that were not keyed come to the partition of their key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from connectors.codecs import Codec, FieldMap, make_codec
from connectors.codecs.payloads import PAYLOADS
from connectors.records import dead_letters
from connectors.records.output_size import MAX_RECORD_BYTES
from streamad.config import PipelineConfig
from streamad.ports import Messages, Outgoing
from streamad.records import Decoded, RecordBatch, Rejected
from streamad.windows.kinds import KIND_TAG, KINDED

ROWS_PER_MESSAGE = 10_000
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def rekeyed_topic(config: PipelineConfig) -> str:
    """Return the name of the internal topic."""
    return f"streamad.{config.name}.rekeyed"


class KafkaRekeyRecords:
    """Points as Arrow messages; fields have names of our own, whatever the input calls them."""

    def __init__(
        self, config: PipelineConfig, *, partitions: int, wall_ms: Callable[[], int]
    ) -> None:
        self._wall_ms = wall_ms
        self._dead_letters = dead_letters.Writer(
            pipeline=config.name, stage="rekey", topic=config.output.dead_letters
        )
        self._topic = rekeyed_topic(config)
        self._held = Held(config)
        self.partitions = partitions

    def points(
        self, batch: RecordBatch[Any], rows: NDArray[np.int64], partition: int
    ) -> list[Outgoing]:
        """Return rows of a batch as records for one partition, each of bounded size."""
        made = []
        for start in range(0, len(rows), ROWS_PER_MESSAGE):
            values = _values(batch, rows[start : start + ROWS_PER_MESSAGE], self._held)
            made += [Outgoing(topic=self._topic, value=v, partition=partition) for v in values]
        return made

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters."""
        return self._dead_letters.records(messages, rejected, time_ms=self._wall_ms())


def _values(batch: RecordBatch[Any], rows: NDArray[np.int64], held: Held) -> Iterator[bytes]:
    """Yield rows as messages, halved until each is small enough; a row alone always is."""
    value = _write(batch, rows, held)
    if len(value) <= MAX_RECORD_BYTES or len(rows) == 1:
        yield value
        return
    half = len(rows) // 2
    yield from _values(batch, rows[:half], held)
    yield from _values(batch, rows[half:], held)


def _write(batch: RecordBatch[Any], rows: NDArray[np.int64], held: Held) -> bytes:
    columns = {
        "key": batch.keys.gather(rows).to_arrow(),
        "ts": pl.Series(batch.time_ms[rows]).to_arrow(),
    }
    numbers, texts = held.columns(batch.values[rows])
    for number in range(numbers.shape[1]):
        columns[f"v{number}"] = pl.Series(numbers[:, number]).to_arrow()
    for number, text in enumerate(texts.values()):
        columns[f"r{number}"] = text.to_arrow()
    for number, tag in enumerate(batch.tags.values()):
        columns[f"t{number}"] = tag.gather(rows).to_arrow()
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


class Held:
    """What the rows of a pipeline hold, as columns under names of our own."""

    def __init__(self, config: PipelineConfig) -> None:
        self._payload, fields = PAYLOADS[config.input.records], config.input.fields
        self.records = config.input.records
        self.roles = tuple(role for role, _ in self._payload.texts(fields))
        self.names = self._payload.numbers(fields)
        # Of a long form a row has a number of each variate.
        self.width = len(fields.variates or self.names)

    def columns(self, rows: Any) -> tuple[NDArray[np.float64], dict[str, pl.Series]]:
        """Return the numbers of rows ``(n, width)``, and their texts by role."""
        return self._payload.columns(rows, self.names, self.roles)


def tags_of(config: PipelineConfig) -> tuple[str, ...]:
    """Return the tags of a pipeline's rows, in order: its own, and the kind some formats add."""
    tags = config.input.fields.tags
    added = config.input.format in KINDED and KIND_TAG not in tags
    return (*tags, KIND_TAG) if added else tags


class RekeyedCodec:
    """Read what `KafkaRekeyRecords` wrote, under the names the pipeline knows."""

    def __init__(self, config: PipelineConfig) -> None:
        held = Held(config)
        self._tags = tags_of(config)
        self._codec: Codec = make_codec(
            "arrow",
            FieldMap(
                key=("key",),
                time="ts",
                values=tuple(f"v{number}" for number in range(held.width)),
                records=held.records,
                roles=tuple((role, f"r{number}") for number, role in enumerate(held.roles)),
                named=held.names if held.roles else (),
                tags=tuple(f"t{number}" for number in range(len(self._tags))),
            ),
        )

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return usable rows and rejections, both in message order."""
        made = self._codec.decode(payloads, offsets, broker_ms)
        tags = dict(zip(self._tags, made.batch.tags.values(), strict=True))
        return Decoded(batch=replace(made.batch, tags=tags), rejected=made.rejected)
