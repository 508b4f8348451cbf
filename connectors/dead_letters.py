"""Dead letters: rejected input as records of ``<topic>.dlq``, and back for a replay.

The value is the smallest piece at fault, so that a replay repeats no good neighbour; where the
payload was too large to keep, it is empty and the headers point at the original. Header names are
ours, and those of Kafka Connect beside them, for the tools that read these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamad.ports import Outgoing
from streamad.records import Rejected

Headers = Sequence[tuple[str, bytes | None]]

OWN = "streamad.error."
CONNECT = "__connect.errors."
MAX_DETAIL_BYTES = 1024

MAX_ORIGINAL_HEADERS = 64
MAX_ORIGINAL_HEADER_BYTES = 16 * 1024
"""All original headers together: a dead letter must fit where its original did."""

SECRET_WORDS = ("authorization", "password", "secret", "token", "cookie", "credential", "api-key")
REDACTED = b"(redacted)"


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
    """Write one rejection; the record keeps the original's key.

    pattern : the dead-letter topic's name, with ``{topic}`` for the input's
    """
    detail = rejected.detail.encode("utf-8", "replace")[:MAX_DETAIL_BYTES]
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
        "payload": "pointer" if rejected.payload is None else "kept",
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
        key=origin.key,
        value=b"" if rejected.payload is None else rejected.payload,
        headers=(*_kept(origin.headers), *ours, *theirs),
    )


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

    ``pointer`` : the payload was not kept; a replay reads (topic, partition, offset) itself.
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
            reason=about["reason"],
            detail=about.get("detail", ""),
            topic=about["topic"],
            partition=int(about["partition"]),
            offset=int(about["offset"]),
            row=int(about["row"]) if "row" in about else None,
            pipeline=about.get("pipeline", ""),
            stage=about.get("stage", ""),
            time_ms=int(about.get("time", "-1")),
            pointer=about.get("payload") == "pointer",
            key=key,
            value=value or b"",
            headers=tuple(item for item in given if not item[0].startswith((OWN, CONNECT))),
        )
    except (KeyError, ValueError) as error:
        detail = f"not a dead-letter record of streamad: {type(error).__name__} {error}"
        return Rejected(message=message, reason="not_a_dead_letter", detail=detail, payload=value)
