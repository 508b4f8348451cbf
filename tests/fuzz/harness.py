"""Decode damaged messages beside good ones, and hold the result to what is promised of any input.

A run is a matter of its seed alone. Each batch mixes good and damaged messages of one kind: nothing
may raise, no message may vanish, the output stays in proportion, good neighbours decode to the bits
they decode to alone, and no message takes more time or memory than is allowed.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cramjam
import mutate
import numpy as np
import shapes

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.budget import MAX_LETTER_BYTES, MAX_LETTERS
from connectors.codecs.fields import plausible
from connectors.codecs.guard import UNFORESEEN
from connectors.codecs.rows import REASONS
from connectors.memory import MemoryTopics
from connectors.records import cloudevents, scores_log
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.dead_letters import MAX_PAYLOAD_BYTES, Letter, Writer, from_record
from connectors.records.output_size import MAX_RECORD_BYTES, size_of
from connectors.records.rekeyed import RekeyedCodec
from streamad.alerts.operator import AlertOperator
from streamad.config import parse_pipeline
from streamad.errors import StateError
from streamad.ports import Messages, Outgoing, Source
from streamad.records import Decoded, Finding, Rejected, SignalBatch
from tests.machine import least_cpu_s

MAX_CPU_S = 2.0
"""Of the machine in `tests.machine`."""

MAX_MEMORY_MB = 500
BATCH = 32
GOOD = 64
"""Good messages of a kind; what each decodes to alone is worked out once."""

WIDE = FieldMap(key=("host", "labels.disk"), values=("value", "mem"), tags=("dc",))
LONG = FieldMap(key=("host",), variate="metric", variates=("cpu", "mem"), tags=("dc",))
ISO = FieldMap(key=("host",), time="at", time_unit="iso", tags=("dc",))
OTLP = FieldMap(key=("host",), variate="metric", variates=("cpu", "mem"), tags=("dc", "scope"))
LABELS = FieldMap(key=("host",), variate="__name__", variates=("cpu", "mem"), tags=("dc",))
LOGS = FieldMap(key=("host", "dc"), values=("value", "mem"), tags=("body.x", "severity"))
ENVELOPED = FieldMap(
    key=("data.host", "source"), time="data.at", time_unit="iso", values=("data.value", "data.mem")
)
UNPACKED = FieldMap(rows="data", key=("host",), tags=("source", "dc"))
MAPS: dict[str, tuple[FieldMap, ...]] = {
    "json": (FieldMap(), WIDE, LONG, ISO),
    "json_lines": (FieldMap(), WIDE, LONG, ISO),
    "json_columns": (FieldMap(), WIDE, LONG, ISO),
    "arrow": (FieldMap(), WIDE, LONG, ISO),
    "cloudevents": (ENVELOPED, UNPACKED),
    "otlp_json": (FieldMap(tags=("dc",)), OTLP),
    "otlp_proto": (FieldMap(tags=("dc",)), OTLP),
    "otlp_logs": (FieldMap(tags=("dc",)), LOGS),
    "otlp_logs_json": (FieldMap(tags=("dc",)), LOGS),
    "prometheus": (FieldMap(tags=("dc",)), LABELS),
    "rekeyed": (FieldMap(),),
}
CONFIG = parse_pipeline(
    "{name: p, input: {topics: [t], fields: {key: [host], values: [cpu, mem], tags: [dc]}}, "
    "detector: robust_z}"
)
CODEC_OF = {"json_lines": "json", "json_columns": "json", "otlp_logs_json": "otlp_logs"}
"""Kinds of messages that are not called as what reads them."""
READ_BACK = ("event", "scores", "state", "letter")
KINDS = (*shapes.DECODED, *READ_BACK)


class FoundError(AssertionError):
    """A promise was broken; the message says which, and by which message."""


@dataclass
class Tally:
    """What a run came to: messages by kind, and rows, rejections and bytes in all."""

    messages: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    letters: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    slowest_s: float = 0.0


@dataclass(frozen=True)
class Raw:
    """What is left of a client's record."""

    key: bytes | None = b"key"
    headers: Sequence[tuple[str, bytes | None]] = (("h", b"x" * 100),)


class InBinaryMode:
    """A codec of CloudEvents that is given messages as the data of events in binary mode."""

    headers = (
        ("ce_specversion", b"1.0"), ("ce_source", b"/a"), ("ce_data", b"x"), ("ce_\"", b"\xff"),
        ("content-type", b"application/json"), ("ce_time", None),
    )  # fmt: skip

    def __init__(self, codec: Any) -> None:
        self.inner = codec

    def decode(self, payloads: Sequence[bytes | None], offsets: Any, broker_ms: Any) -> Decoded:
        """Decode messages that all have the same headers."""
        headers = [self.headers] * len(payloads)
        return self.inner.decode(payloads, offsets, broker_ms, headers)  # type: ignore[no-any-return]


def codec_of(kind: str, fields: FieldMap) -> Any:
    """Return a fresh codec for a kind of message."""
    if kind == "cloudevents":
        return InBinaryMode(make_codec(kind, fields))
    if kind == "rekeyed":
        return RekeyedCodec(CONFIG)
    return make_codec(CODEC_OF.get(kind, kind), fields)


def decode(codec: Any, payloads: Sequence[bytes | None]) -> Decoded:
    """Decode messages at offsets 0, 1, ..."""
    offsets = np.arange(len(payloads), dtype=np.int64)
    return codec.decode(payloads, offsets, offsets)  # type: ignore[no-any-return]


def rows_of(decoded: Decoded, message: int) -> tuple[Any, ...]:
    """Return all that a message yielded, to the bit."""
    batch = decoded.batch
    first, after = np.searchsorted(batch.message, [message, message + 1]).tolist()
    rejected = [
        (one.row, one.reason, one.detail, one.payload, sorted(one.counts.items()))
        for one in decoded.rejected
        if one.message == message
    ]
    return (
        batch.keys[first:after].to_list(),
        batch.time_ms[first:after].tobytes(),
        batch.values[first:after].tobytes(),
        batch.row[first:after].tobytes(),
        {name: tag[first:after].to_list() for name, tag in batch.tags.items()},
        rejected,
    )


@cache
def good(kind: str, fields: FieldMap) -> list[tuple[bytes, tuple[Any, ...]]]:
    """Return good messages of a kind, and what each yields alone."""
    rng = random.Random(f"good {kind}")  # noqa: S311 - damage, not secrets
    made = [shapes.DECODED[kind](rng) for _ in range(GOOD)]
    return [(text, rows_of(decode(codec_of(kind, fields), [text]), 0)) for text in made]


def damaged(kind: str, text: bytes, other: bytes, rng: random.Random) -> bytes:
    """Damage a message in a way that fits its kind."""
    how = rng.random()
    if kind.startswith("json") or kind in ("cloudevents", "otlp_json", "otlp_logs_json"):
        if how < 0.65:
            lines = text.split(b"\n")
            place = rng.randrange(len(lines))
            lines[place] = mutate.change_json(lines[place], rng)
            text = b"\n".join(lines)
        return text if how < 0.5 else mutate.change_bytes(text, other, rng)
    if kind == "prometheus" and how < 0.85:
        raw = bytes(cramjam.snappy.decompress_raw(text))
        raw = mutate.change_proto(raw, rng) if how < 0.6 else mutate.change_bytes(raw, raw, rng)
        return bytes(cramjam.snappy.compress_raw(raw))
    if kind in ("otlp_proto", "otlp_logs") and how < 0.6:
        return mutate.change_proto(text, rng)
    return mutate.change_bytes(text, other, rng)


def peak_mb() -> float:
    """Return the most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Fuzzer:
    """Runs batches; ``tally`` says what it has seen."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - damage, not secrets
        self._codecs: dict[tuple[str, FieldMap], Any] = {}
        self._writer = Writer(pipeline="p", stage="detect", topic="{topic}.dlq")
        self.tally = Tally()

    def run(self, n_messages: int, kinds: Sequence[str] = KINDS) -> Iterator[int]:
        """Fuzz until so many messages were tried; yield how many after each batch."""
        done = 0
        while done < n_messages:
            for kind in kinds:
                done += self.batch(kind)
            yield done

    def batch(self, kind: str) -> int:
        """Try one batch of a kind; raises FoundError."""
        if kind in READ_BACK:
            return self._read_back(kind)
        fields = self._rng.choice(MAPS[kind])
        fine = good(kind, fields)
        payloads: list[bytes | None] = []
        places: dict[int, int] = {}
        for index in range(BATCH):
            number = self._rng.randrange(GOOD)
            text = fine[number][0]
            if self._rng.random() < 0.25:
                places[index] = number
            else:
                text = damaged(kind, text, fine[self._rng.randrange(GOOD)][0], self._rng)
            payloads.append(text)
        codec = self._codecs.setdefault((kind, fields), codec_of(kind, fields))
        decoded = self._timed(kind, fields, payloads, lambda: decode(codec, payloads))
        for index, number in places.items():
            if rows_of(decoded, index) != fine[number][1]:
                self._fail("a good neighbour changed", kind, fields, payloads[index])
        self._check(kind, fields, payloads, decoded)
        index = self._rng.randrange(BATCH)
        alone = decode(codec_of(kind, fields), [payloads[index]])
        if rows_of(alone, 0) != rows_of(decoded, index):
            self._fail("a message decodes otherwise alone", kind, fields, payloads[index])
        self.tally.messages[kind] += BATCH
        return BATCH

    def check_message(self, kind: str, fields: FieldMap, payload: bytes) -> Decoded:
        """Try one message alone."""
        payloads = [payload]
        codec = codec_of(kind, fields)
        decoded = self._timed(kind, fields, payloads, lambda: decode(codec, payloads))
        self._check(kind, fields, payloads, decoded)
        return decoded

    def _timed(self, kind: str, fields: Any, payloads: Sequence[bytes | None], work: Any) -> Any:
        before_mb, began_s = peak_mb(), time.process_time()
        try:
            made = work()
        except UNFORESEEN as error:
            self._fail(f"raised {error!r}", kind, fields, _worst(kind, fields, payloads))
        taken_s = time.process_time() - began_s
        self.tally.slowest_s = max(self.tally.slowest_s, taken_s)
        if taken_s > MAX_CPU_S or peak_mb() - before_mb > MAX_MEMORY_MB:
            if len(payloads) == 1:
                used_mb = peak_mb() - before_mb
                least_s = least_cpu_s(work, allowed_s=MAX_CPU_S)
                if least_s > MAX_CPU_S or used_mb > MAX_MEMORY_MB:
                    what = f"took {least_s:.1f} s and {used_mb:.0f} MB"
                    self._fail(what, kind, fields, payloads[0])
                return made
            # The limits are those of one message; a batch of large ones may take longer.
            for payload in payloads:
                codec, alone = codec_of(kind, fields), [payload]
                self._timed(kind, fields, alone, partial(decode, codec, alone))
        return made

    def _check(
        self, kind: str, fields: FieldMap, payloads: Sequence[bytes | None], decoded: Decoded
    ) -> None:
        """Hold a result to what is promised of every message."""
        n_rows = np.bincount(decoded.batch.message, minlength=len(payloads))
        n_letters = Counter(one.message for one in decoded.rejected)
        for index, payload in enumerate(payloads):
            if not n_rows[index] and not n_letters[index]:
                self._fail("vanished", kind, fields, payload)
            if n_letters[index] > MAX_LETTERS + 2:
                self._fail(f"{n_letters[index]} rejections", kind, fields, payload)
        for one in decoded.rejected:
            # What nobody foresaw is caught, and so is a message that vanishes: both are faults.
            wrong = one.reason == "decoder_error" or one.reason not in REASONS
            wrong |= one.reason == "no_rows" and kind.startswith("json")
            if wrong or not 0 < len(one.detail) <= 400:
                what = f"rejected with {one.reason}: {one.detail}"
                self._fail(what, kind, fields, payloads[one.message])
            self.tally.reasons[one.reason] += 1
        self._check_rows(kind, fields, decoded.batch)
        self._check_output(kind, fields, payloads, decoded.rejected)
        self.tally.rows += len(decoded.batch)
        self.tally.bytes_in += sum(len(payload or b"") for payload in payloads)

    def _check_rows(self, kind: str, fields: FieldMap, batch: SignalBatch) -> None:
        fine = np.isfinite(batch.values).any(axis=1) & ~np.isinf(batch.values).any(axis=1)
        if not fine.all() or not plausible(batch.time_ms).all():
            self._fail("a row without a value or time", kind, fields, None)
        for texts in (batch.keys, *batch.tags.values()):
            if texts.null_count() or (texts.str.len_bytes() > 512).any():
                self._fail("a text that is absent or too long", kind, fields, None)

    def _check_output(
        self,
        kind: str,
        fields: FieldMap,
        payloads: Sequence[bytes | None],
        rejected: Sequence[Rejected],
    ) -> None:
        given = Messages(
            source=Source("t", 0),
            payloads=list(payloads),
            offsets=np.arange(len(payloads)),
            broker_ms=np.arange(len(payloads)),
            raw=[Raw()] * len(payloads),
        )
        sizes: Counter[int] = Counter()
        for record in self._writer.records(given, rejected, time_ms=1):
            letter = from_record(record.key, record.value, record.headers)
            if not isinstance(letter, Letter) or size_of(record) > MAX_RECORD_BYTES:
                self._fail(f"a record of {size_of(record)} bytes", kind, fields, None)
            sizes[letter.offset] += size_of(record)
            self.tally.letters += 1
        for index, size in sizes.items():
            payload = payloads[index]
            # One letter repeats at most the message; all others share the budget.
            whole = min(len(payload or b""), MAX_PAYLOAD_BYTES)
            if size > MAX_LETTER_BYTES + whole + 3_000:
                self._fail(f"{size} bytes of output", kind, fields, payload)
        self.tally.bytes_out += sum(sizes.values())

    # ------------------------------------------------------------------ records read back

    def _read_back(self, kind: str) -> int:
        one = {
            "event": self._event,
            "scores": self._scores,
            "state": self._state,
            "letter": self._letter,
        }[kind]
        for _ in range(BATCH):
            one()
        self.tally.messages[kind] += BATCH
        return BATCH

    def _event(self) -> None:
        event = shapes.event(self._rng)
        text = damaged("json", event.value, event.value, self._rng)
        headers = self._headers(event.headers)
        read = self._timed("event", None, [text], lambda: cloudevents.decode(text, headers))
        if isinstance(read, Rejected):
            self.tally.reasons[read.reason] += 1
        elif not isinstance(cloudevents.decode(*_event_parts(read)), type(read)):
            self._fail("an event that was read is not read again", "event", None, text)
        elif isinstance(read, Finding):
            self._timed("event", None, [text], lambda: self._alert(read))

    def _alert(self, finding: Finding) -> None:
        """Make of a finding what the alert stage makes of it, the records included."""
        operator, topics = AlertOperator(CONFIG), MemoryTopics()
        topics.make(state_topic(CONFIG))
        state = operator.new_state()
        records = KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: 1)
        made = records.alerts(operator.process(state, [(finding, shapes.START_MS)]))
        made += records.state(Source("f", 0), state.drain_changes(), 1)
        if max(map(size_of, made)) > MAX_RECORD_BYTES:
            self._fail("a large alert", "event", None, None)

    def _scores(self) -> None:
        text = mutate.change_bytes(shapes.scores(self._rng), shapes.scores(self._rng), self._rng)
        read = self._timed("scores", None, [text], lambda: scores_log.decode(text))
        if isinstance(read, Rejected):
            self.tally.reasons[read.reason] += 1

    def _letter(self) -> None:
        rejected = Rejected(message=0, reason="x", detail="d", row=0, payload=b"1")
        given = Messages(
            source=Source("t", 0),
            payloads=[b"1"],
            offsets=np.zeros(1, np.int64),
            broker_ms=np.zeros(1, np.int64),
            raw=[Raw()],
        )
        (record,) = self._writer.records(given, [rejected], time_ms=1)
        headers = self._headers(record.headers)
        self._timed("letter", None, [b"1"], lambda: from_record(None, b"1", headers))

    def _state(self) -> None:
        topics = MemoryTopics()
        topics.make(state_topic(CONFIG))
        records = KafkaAlertRecords(CONFIG, topics, wall_ms=lambda: 1)
        operator, source = AlertOperator(CONFIG), Source("findings", 0)
        state = operator.new_state()
        finding = replace(shapes.finding(self._rng), state="began", kind="anomaly", p_value=1e-30)
        operator.process(state, [(finding, shapes.START_MS)])
        for record in records.state(source, state.drain_changes(), shapes.START_MS):
            topics.write(self._damaged_record(record))

        def load() -> None:
            loaded, clock_ms = records.load(source)
            state = operator.new_state()
            try:
                self.tally.reasons["state_left_out"] += len(state.load(loaded))
            except StateError as error:
                assert "a newer one wrote it" in str(error)  # noqa: PT017 - no test of its own
                return
            if clock_ms is not None:
                state.clock_ms = max(state.clock_ms, clock_ms)
            operator.process(state, [(finding, shapes.START_MS)])
            operator.tick(state, shapes.START_MS)
            records.state(source, state.drain_changes(), state.clock_ms)

        self._timed("state", None, [b""], load)

    def _damaged_record(self, record: Outgoing) -> Outgoing:
        value, key = record.value or b"", record.key or b""
        if self._rng.random() < 0.1:
            key = mutate.change_bytes(key, key, self._rng)
        return replace(record, key=key, value=damaged("json", value, value, self._rng))

    def _headers(
        self, headers: Sequence[tuple[str, bytes | None]]
    ) -> list[tuple[str, bytes | None]]:
        made = [list(item) for item in headers]
        for _ in range(self._rng.randrange(3)):
            item = self._rng.choice(made)
            value = bytes(item[1] or b"")  # type: ignore[arg-type]
            item[1] = self._rng.choice((None, b"", mutate.change_bytes(value, value, self._rng)))
        return [(str(name), value) for name, value in made]  # type: ignore[misc]

    def _fail(self, what: str, kind: str, fields: Any, payload: bytes | None) -> None:
        shown = b"" if payload is None else payload
        msg = f"{kind}: {what}\nfields: {fields}\n{len(shown)} bytes: {shown[:300]!r}"
        error = FoundError(msg)
        error.payload, error.kind = shown, kind  # type: ignore[attr-defined]
        raise error


def _event_parts(record: Any) -> tuple[bytes, Any]:
    event = cloudevents.encode(record)
    return event.value, event.headers


def _worst(kind: str, fields: Any, payloads: Sequence[bytes | None]) -> bytes | None:
    """Return the first message that raises alone."""
    for payload in payloads if isinstance(fields, FieldMap) else ():
        try:
            decode(codec_of(kind, fields), [payload])
        except UNFORESEEN:
            return payload
    return payloads[0]


CORPUS = Path(__file__).parent / "corpus"


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """Yield name, kind and bytes of the messages that once broke a promise."""
    for path in sorted(CORPUS.iterdir()):
        yield path.name, path.name.partition(".")[0], path.read_bytes()
