"""What detect yields as Kafka records, and the scores log as recovery reads it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.records import cloudevents, dead_letters, scores_log
from connectors.records.rekeyed import Held
from connectors.records.wire import Frames
from streamad.config import PipelineConfig
from streamad.ports import Headers, Logged, Messages, Outgoing, Source
from streamad.records import Finding, RecordBatch, Rejected, ScoreBatch

KIND = "streamad-kind"
TICK = b"tick"
SCORES = b"scores"
INPUT = "streamad-input"
"""Header of the scores log: the input partition a message speaks of; most need no look."""

LATE_BYTES = 256 * 1024
"""Late rows of one message become records of about this size."""
LATE_ROW_BYTES = 500_000

_EMPTY = ScoreBatch(
    keys=pl.Series("key", [], dtype=pl.String),
    end_ms=np.empty(0, np.int64),
    ordinal=np.empty(0, np.int64),
    score=np.empty(0, np.float32),
    p_value=np.empty(0, np.float32),
    level=np.empty(0, np.float32),
    newest=np.empty(0, np.float32),
    newest_p=np.empty(0, np.float32),
    newest_level=np.empty(0, np.float32),
    severity=np.empty(0, np.float32),
    flags=np.empty(0, np.uint8),
)


class KafkaDetectRecords:
    """Records of one pipeline.

    partitions : of its scores topic; frames : what stands before values for a schema registry
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        detector: str,
        artifact: str,
        partitions: int,
        wall_ms: Callable[[], int],
        frames: Frames | None = None,
    ) -> None:
        self._wall_ms = wall_ms
        self._held = Held(config)
        self._config, self._detector, self._artifact = config, detector, artifact
        self._partitions = partitions
        self._dead_letters = dead_letters.Writer(
            pipeline=config.name, stage="detect", topic=config.output.dead_letters
        )
        self._findings_topic = config.topic("findings")
        self._frame = (frames or {}).get(self._findings_topic, b"")
        self.scores_topic = config.topic("scores")

    def findings(self, findings: Sequence[Finding]) -> list[Outgoing]:
        """Return findings, keyed by tenant."""
        made = []
        for finding in findings:
            event = cloudevents.encode(finding)
            made.append(
                Outgoing(
                    topic=self._findings_topic,
                    key=event.key,
                    value=self._frame + event.value,
                    headers=event.headers,
                )
            )
        return made

    def scores(
        self,
        source: Source,
        span: tuple[int, int],
        batches: Sequence[ScoreBatch],
        *,
        artifact: str | None = None,
    ) -> list[Outgoing]:
        """Return the scores of the windows that the input ``[first, next)`` closed.

        artifact : id of the one that scored (None: that of the start)
        """
        origin = self._origin(source, span, {}, artifact)
        return [
            self._logged(source, value, SCORES)
            for value in scores_log.encode(_joined(batches), origin)
        ]

    def tick(
        self, source: Source, offset: int, now_ms: int, *, artifact: str | None = None
    ) -> Outgoing:
        """Return the note that wall-clock time passed where no input came."""
        origin = self._origin(source, (offset, offset), {"tick_ms": str(now_ms)}, artifact)
        (value,) = scores_log.encode(_EMPTY, origin)
        return self._logged(source, value, TICK)

    def rejected(self, messages: Messages, rejected: Sequence[Rejected]) -> list[Outgoing]:
        """Return dead letters: what was refused, where it stood and why."""
        return self._dead_letters.records(messages, rejected, time_ms=self._wall_ms())

    def late(
        self, messages: Messages, batch: RecordBatch[Any], rows: NDArray[np.int64]
    ) -> list[Outgoing]:
        """Return late rows as JSON lines under the names the input has.

        The rows of a message are one record, or several where they are more than `LATE_BYTES`.
        """
        topic = self._config.output.late.format(topic=messages.source.topic)
        made: list[Outgoing] = []
        of = batch.message[rows]
        for part in np.split(rows, np.flatnonzero(np.diff(of)) + 1) if len(rows) else ():
            headers = _origin_headers(messages, int(batch.message[part[0]]))
            made += [
                Outgoing(topic=topic, value=value, headers=headers)
                for value in _portions(self._line(batch, row) for row in part.tolist())
            ]
        return made

    def read_log(
        self, messages: Messages, source: Source, *, artifact: str | None = None
    ) -> Iterator[Logged]:
        """Read what `scores` and `tick` wrote of a partition.

        Scores of another detector or artifact are left out: they say nothing of this one's.
        """
        wanted = str(source).encode()
        ours = (self._detector, self._artifact if artifact is None else artifact)
        for value, record in zip(messages.payloads, messages.raw, strict=True):
            if dict(record.headers).get(INPUT, wanted) != wanted:
                continue
            read = scores_log.decode(value)
            if isinstance(read, Rejected):
                continue
            origin, scores = read
            if (origin.topic, origin.partition) != tuple(source):
                continue
            if tick := origin.notes.get("tick_ms"):
                yield Logged(offset=origin.next_offset, tick_ms=int(tick))
            elif (origin.detector, origin.artifact) == ours:
                yield Logged(offset=origin.next_offset, scores=scores)

    def _origin(
        self,
        source: Source,
        span: tuple[int, int],
        notes: dict[str, str],
        artifact: str | None,
    ) -> scores_log.ScoresOrigin:
        return scores_log.ScoresOrigin(
            pipeline=self._config.name,
            detector=self._detector,
            artifact=self._artifact if artifact is None else artifact,
            topic=source.topic,
            partition=source.partition,
            first_offset=span[0],
            next_offset=span[1],
            notes=notes,
        )

    def _logged(self, source: Source, value: bytes, kind: bytes) -> Outgoing:
        name = str(source).encode()
        return Outgoing(
            topic=self.scores_topic,
            key=name,
            value=value,
            headers=((KIND, kind), (INPUT, name)),
            # Not by the key's hash: a partition's log is then found without asking for a hash.
            partition=source.partition % self._partitions,
        )

    def _line(self, batch: RecordBatch[Any], row: int) -> bytes:
        made = self._row(batch, row)
        line = orjson.dumps(made)
        if len(line) > LATE_ROW_BYTES:
            # Only with many thousands of variates: what is left says which row it was.
            line = orjson.dumps({**made, "values": {}, "tags": {}, "cut": True})
        return line

    def _row(self, batch: RecordBatch[Any], row: int) -> dict[str, object]:
        numbers, texts = self._held.columns(batch.values[row : row + 1])
        names = self._config.input.fields.variates or self._held.names
        held: dict[str, object] = dict(zip(names, numbers[0].tolist(), strict=True))
        made: dict[str, object] = {
            "key": batch.keys[row],
            "time_ms": int(batch.time_ms[row]),
            "values": {role: text[0] for role, text in texts.items()} | held,
        }
        if batch.tags:
            made["tags"] = {name: column[row] for name, column in batch.tags.items()}
        return made


def _portions(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to values of at most `LATE_BYTES`, or of one line."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        if waiting and size + len(line) > LATE_BYTES:
            yield b"\n".join(waiting)
            waiting, size = [], 0
        waiting.append(line)
        size += len(line) + 1
    if waiting:
        yield b"\n".join(waiting)


def _origin_headers(messages: Messages, message: int) -> Headers:
    return (
        ("streamad-topic", messages.source.topic.encode()),
        ("streamad-partition", str(messages.source.partition).encode()),
        ("streamad-offset", str(int(messages.offsets[message])).encode()),
    )


def _joined(batches: Sequence[ScoreBatch]) -> ScoreBatch:
    if len(batches) == 1:
        return batches[0]
    return ScoreBatch(
        keys=pl.concat([batch.keys for batch in batches]),
        end_ms=np.concatenate([batch.end_ms for batch in batches]),
        ordinal=np.concatenate([batch.ordinal for batch in batches]),
        score=np.concatenate([batch.score for batch in batches]),
        p_value=np.concatenate([batch.p_value for batch in batches]),
        level=np.concatenate([batch.level for batch in batches]),
        newest=np.concatenate([batch.newest for batch in batches]),
        newest_p=np.concatenate([batch.newest_p for batch in batches]),
        newest_level=np.concatenate([batch.newest_level for batch in batches]),
        severity=np.concatenate([batch.severity for batch in batches]),
        flags=np.concatenate([batch.flags for batch in batches]),
        certainty=_certainty(batches),
    )


def _certainty(batches: Sequence[ScoreBatch]) -> NDArray[np.float32] | None:
    """Return the certainties of all batches, NaN where one has none; None where none has."""
    if all(batch.certainty is None for batch in batches):
        return None
    parts = (
        np.full(len(batch), np.nan, np.float32) if batch.certainty is None else batch.certainty
        for batch in batches
    )
    return np.concatenate(list(parts))
