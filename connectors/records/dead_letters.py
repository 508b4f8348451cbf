"""Dead letters: rejected input as records of ``<topic>.dlq``, and back for a replay.

The value is the smallest piece at fault, so that a replay repeats no good neighbour; where the
payload was too large to keep, it is empty and the headers point at the original, and so for its
key. Header names are ours, and those of Kafka Connect beside them, for the tools that read these.
All records of one message stay within a budget; what is beyond it is counted in one that points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from connectors.codecs.budget import COUNTED, MORE, payload_size, within_budget
from connectors.records.output_size import size_of
from streamad.ports import Messages, Outgoing
from streamad.records import UNREADABLE, Rejected
from streamad.shown import safe_text

Headers = Sequence[tuple[str, bytes | None]]

OWN = "streamad.error."
CONNECT = "__connect.errors."
MAX_DETAIL_BYTES = 1024

MAX_PAYLOAD_BYTES = 500_000
"""A dead letter repeats no more than this; beyond, it points to topic, partition and offset."""

MAX_KEY_BYTES = 1024
"""A longer key of the original is not kept: a replay reads it where the letter points."""

POINTERS = frozenset({"oversized", "quarantined", UNREADABLE, MORE})
"""Reasons for which the payload is not wanted even where it is at hand."""

MAX_ORIGINAL_HEADERS = 64
MAX_ORIGINAL_HEADER_BYTES = 16 * 1024
"""All original headers together: a dead letter must fit where its original did."""

SECRET_WORDS = ("authorization", "password", "secret", "token", "cookie", "credential", "api-key")
REDACTED = b"(redacted)"


MAX_TIME_MS = 253_402_300_800_000
"""The year 10000: no later time can be shown."""

# A replay names a consumer group after it.
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The record a rejection is about, and who rejected it when."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Headers
    pipeline: str
    stage: str
    time_ms: int


def to_record(rejected: Rejected, origin: Origin, *, pattern: str = "{topic}.dlq") -> Outgoing:
    """Write one rejection; the record keeps the original's key, and is of bounded size.

    pattern : the dead-letter topic's name, with ``{topic}`` for the input's
    """
    detail = rejected.detail.encode("utf-8", "replace")[:MAX_DETAIL_BYTES]
    payload = rejected.payload if payload_size(rejected) <= MAX_PAYLOAD_BYTES else None
    keeps_key = len(origin.key or b"") <= MAX_KEY_BYTES
    about = {
        "reason": rejected.reason,
        "detail": detail.decode("utf-8", "ignore"),
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "row": "" if rejected.row is None else str(rejected.row),
        "pipeline": origin.pipeline,
        "stage": origin.stage,
        "time": str(origin.time_ms),
        "payload": "pointer" if payload is None else "kept",
        "key": "" if keeps_key else "pointer",
    }
    connect = {
        "topic": about["topic"],
        "partition": about["partition"],
        "offset": about["offset"],
        "stage": about["stage"],
        "exception.message": f"{about['reason']}: {about['detail']}",
    }
    ours = [(OWN + name, text.encode()) for name, text in about.items() if text]
    theirs = [(CONNECT + name, text.encode()) for name, text in connect.items()]
    return Outgoing(
        topic=pattern.replace("{topic}", origin.topic),
        key=origin.key if keeps_key else None,
        value=b"" if payload is None else payload,
        headers=(*_kept(origin.headers), *ours, *theirs),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the dead letters of one stage of a pipeline; ``topic`` holds ``{topic}``."""

    pipeline: str
    stage: str
    topic: str

    def records(
        self, messages: Messages, rejected: Sequence[Rejected], *, time_ms: int
    ) -> list[Outgoing]:
        """Return the dead letters of a batch of messages, those of each within its budget."""
        letters = [
            replace(one, payload=_payload(messages, one))
            for one in _one_a_message(rejected)
            if one.reason not in COUNTED
        ]
        if not letters:
            return []
        origins: dict[int, Origin] = {}
        sizes: dict[int, int] = {}
        for one in letters:
            if one.message not in origins:
                origins[one.message] = self._origin(messages, one.message, time_ms)
                empty = Rejected(message=one.message, reason="", detail="")
                sizes[one.message] = size_of(self._record(empty, origins))

        def size(one: Rejected) -> int:
            return sizes[one.message] + len(one.detail) + min(payload_size(one), MAX_PAYLOAD_BYTES)

        return [self._record(one, origins) for one in within_budget(letters, size)]

    def _record(self, one: Rejected, origins: Mapping[int, Origin]) -> Outgoing:
        return to_record(one, origins[one.message], pattern=self.topic)

    def _origin(self, messages: Messages, message: int, time_ms: int) -> Origin:
        raw = messages.raw[message]
        return Origin(
            topic=messages.source.topic,
            partition=messages.source.partition,
            offset=int(messages.offsets[message]),
            key=raw.key,
            headers=list(raw.headers),
            pipeline=self.pipeline,
            stage=self.stage,
            time_ms=time_ms,
        )


def _payload(messages: Messages, one: Rejected) -> bytes | None:
    """Return the bytes at fault; the whole message where the rejection does not have them.

    The operator refuses rows whose bytes it never saw.
    """
    if one.payload is not None or one.reason in POINTERS:
        return one.payload
    return messages.payloads[one.message]


def _one_a_message(rejected: Sequence[Rejected]) -> list[Rejected]:
    """Let one letter stand for all rows of a message that share a reason and have no bytes.

    A flood of keys must not come out as a message of 500 rows repeated 500 times.
    """
    kept = [one for one in rejected if one.payload is not None or one.row is None]
    shared: dict[tuple[int, str], list[Rejected]] = {}
    for one in rejected:
        if one.payload is None and one.row is not None:
            shared.setdefault((one.message, one.reason), []).append(one)
    for first, *others in shared.values():
        more = f"; and {len(others)} more rows of this message" if others else ""
        kept.append(replace(first, detail=first.detail + more))
    return kept


def _kept(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the original headers within bounds, without secrets and without older errors."""
    kept: list[tuple[str, bytes]] = []
    room = MAX_ORIGINAL_HEADER_BYTES
    for name, value in headers[:MAX_ORIGINAL_HEADERS]:
        if name.startswith((OWN, CONNECT)):
            # A letter that was replayed and failed again says only where it failed last.
            continue
        folded = name.lower().replace("_", "-")
        shown = REDACTED if any(word in folded for word in SECRET_WORDS) else value or b""
        room -= len(name.encode()) + len(shown)
        if room < 0:
            break
        kept.append((name, shown))
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What a dead letter says: where it came from and why.

    ``pointer`` : the payload was not kept; a replay reads (topic, partition, offset) itself;
    ``key_pointer`` : the same of the key.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    row: int | None
    pipeline: str
    stage: str
    time_ms: int
    pointer: bool
    key_pointer: bool
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


def from_record(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    *,
    message: int = 0,
) -> Letter | Rejected:
    """Read a record of a dead-letter topic; never raises. ``headers`` of the result are original.

    message : index of the record in its batch, for the rejection
    """
    given = list(headers)
    about = {
        name.removeprefix(OWN): (text or b"").decode("utf-8", "replace")
        for name, text in given
        if name.startswith(OWN)
    }
    try:
        return Letter(
            reason=_reason(about["reason"]),
            detail=about.get("detail", ""),
            topic=about["topic"],
            partition=_number(about["partition"], 2**31),
            offset=_number(about["offset"], 2**63),
            row=_number(about["row"], 2**63) if "row" in about else None,
            pipeline=about.get("pipeline", ""),
            stage=about.get("stage", ""),
            time_ms=_number(about["time"], MAX_TIME_MS) if "time" in about else -1,
            pointer=about.get("payload") == "pointer",
            key_pointer=about.get("key") == "pointer",
            key=key,
            value=value or b"",
            headers=tuple(item for item in given if not item[0].startswith((OWN, CONNECT))),
        )
    except (KeyError, ValueError) as error:
        detail = safe_text(
            f"not a dead-letter record of streamad: {type(error).__name__} {error}",
            MAX_DETAIL_BYTES,
        )
        return Rejected(message=message, reason="not_a_dead_letter", detail=detail, payload=value)


def _reason(text: str) -> str:
    """Return a reason that can be part of a group's name; ValueError for any other."""
    if not _REASON.fullmatch(text):
        msg = "the reason is no name"
        raise ValueError(msg)
    return text


def _number(text: str, bound: int) -> int:
    """Return a number below ``bound``; ValueError for any other text, however long."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(bound))):
        msg = "expected a whole number"
        raise ValueError(msg)
    if (number := int(text)) >= bound:
        msg = f"expected a number below {bound}"
        raise ValueError(msg)
    return number
