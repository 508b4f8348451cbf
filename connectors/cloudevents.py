"""Findings and alerts as CloudEvents 1.0 on Kafka (binary mode: attributes are headers).

Read back in binary or structured mode. Reading is total: what is no event of ours is a rejection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from connectors.typed_json import WRONG_TYPE, ShapeError, to_record
from streamad.records import Alert, Finding, Rejected

Headers = Sequence[tuple[str, bytes | None]]

KINDS: Mapping[str, type[Finding] | type[Alert]] = {"finding": Finding, "alert": Alert}
TYPE_PREFIX = "io.streamad."
VERSION = "v1"
UNKNOWN_TYPE = "unknown_type"
STRUCTURED = "application/cloudevents"
MAX_DETAIL_CHARS = 300
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Kafka record: findings are keyed by tenant, alerts by their id (fit for compaction)."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def encode(record: Finding | Alert) -> Event:
    """Write a finding or an alert; its time is the end of its window, never the wall clock.

    NaN and infinity become null: JSON has no word for them.
    """
    kind = "finding" if isinstance(record, Finding) else "alert"
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": f"{record.id}-{record.sequence}",
        "ce_source": f"/streamad/{record.pipeline}",
        "ce_type": type_of(kind, record.state),
        "ce_time": rfc3339(record.window_end_ms),
        "ce_subject": record.key,
        "content-type": "application/json",
    }
    return Event(
        key=(record.tenant if isinstance(record, Finding) else record.id).encode(),
        value=orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY),
        headers=tuple((name, text.encode()) for name, text in attributes.items() if text),
    )


def type_of(kind: str, state: str) -> str:
    """Return the CloudEvents type of a kind of record in a state."""
    return f"{TYPE_PREFIX}{kind}.{state}.{VERSION}"


def rfc3339(time_ms: int) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds.

    >>> rfc3339(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    moment = EPOCH + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decode(
    value: bytes | None, headers: Iterable[tuple[str, bytes | None]], *, message: int = 0
) -> Finding | Alert | Rejected:
    """Read one record of a findings or alerts topic; never raises.

    message : index of the record in its batch, for the rejection
    """
    if value is None:
        return Rejected(message=message, reason="null_payload", detail="a tombstone")
    try:
        return _decode(value, {name.lower(): text or b"" for name, text in headers})
    except ShapeError as error:
        reason, detail = error.reason, str(error)
    except (ValueError, AttributeError, TypeError) as error:
        reason, detail = "invalid_json", str(error)
    return Rejected(message=message, reason=reason, detail=detail[:MAX_DETAIL_CHARS], payload=value)


def _decode(value: bytes, headers: Mapping[str, bytes]) -> Finding | Alert:
    body = orjson.loads(value)
    name = headers.get("ce_type", b"").decode()
    if headers.get("content-type", b"").lower().startswith(STRUCTURED.encode()):
        if not isinstance(body, dict):
            msg = "a structured event must be an object"
            raise ShapeError(WRONG_TYPE, msg)
        name, body = str(body.get("type")), body.get("data")
    kind = _kind_of(name)
    return to_record(kind, body)


def _kind_of(name: str) -> type[Finding] | type[Alert]:
    prefix, _, version = name.rpartition(".")
    word = prefix.removeprefix(TYPE_PREFIX).partition(".")[0]
    if not name.startswith(TYPE_PREFIX) or version != VERSION or word not in KINDS:
        msg = f"the event type is {name!r}; read are {TYPE_PREFIX}{{finding,alert}}.*.{VERSION}"
        raise ShapeError(UNKNOWN_TYPE, msg)
    return KINDS[word]
