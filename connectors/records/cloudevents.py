"""Findings and alerts as CloudEvents 1.0 on Kafka (binary mode: attributes are headers).

Read back in binary or structured mode, framed for a schema registry or not. Reading is total: what
is no event of ours is a rejection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import orjson

from connectors.records.typed_json import WRONG_TYPE, ShapeError, to_record
from connectors.records.wire import unframed
from streamad.incidents import Digest, Feedback, Incident, PageRequest, Silence
from streamad.records import Alert, Explanation, Finding, Part, Rejected
from streamad.shown import safe_text

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | None]]
Value = TypeVar("Value")

Record = Finding | Alert | Incident | Digest | Feedback | Silence | PageRequest
KINDS: Mapping[str, type[Record]] = {
    "finding": Finding,
    "alert": Alert,
    "incident": Incident,
    "digest": Digest,
    "feedback": Feedback,
    "silence": Silence,
    "page": PageRequest,
}
TYPE_PREFIX = "io.streamad."
VERSION = "v1"
UNKNOWN_TYPE = "unknown_type"
STRUCTURED = "application/cloudevents"
MAX_DETAIL_CHARS = 300

MAX_EVENT_BYTES = 300_000
"""A larger finding or alert is cut: an alert's state holds what both have, in one record."""
MAX_READ_BYTES = 4_194_304
"""A larger record of an event topic is not looked at: parsing takes 40 times its size."""
MAX_NAMED = 100
MAX_ENTITIES = 32
MAX_NAME_CHARS = 128
MAX_TEXT_CHARS = 2_000
MAX_SUBJECT_CHARS = 1_024
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Kafka record: findings are keyed by tenant, alerts by their id (fit for compaction)."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def bounded_finding(finding: Finding, n_bytes: int) -> Finding:
    """Return a finding, cut where its ``n_bytes`` of JSON are more than an event may have.

    Kept are the variates with the largest shares, the first parts of the entity, and the beginning
    of texts; the key, ids, times and scores stay.
    """
    if n_bytes <= MAX_EVENT_BYTES:
        return finding
    why = finding.explanation
    return replace(
        finding,
        entity=_entity(finding.entity),
        explanation=None if why is None else _explanation(why),
        reason=_short(finding.reason),
        degraded=_short(finding.degraded),
    )


def bounded_alert(alert: Alert, n_bytes: int) -> Alert:
    """Return an alert, cut as `bounded_finding` cuts."""
    if n_bytes <= MAX_EVENT_BYTES:
        return alert
    kept = _largest(alert.explanation or dict.fromkeys(alert.observed, 0.0))
    return replace(
        alert,
        entity=_entity(alert.entity),
        observed=_parts(alert.observed, kept),
        expected=_parts(alert.expected, kept),
        explanation=_only(alert.explanation, kept),
        links={name: _short(link) for name, link in list(alert.links.items())[:MAX_ENTITIES]},
        summary=_short(alert.summary),
        reason=_short(alert.reason),
        degraded=_short(alert.degraded),
    )


def _entity(entity: Mapping[str, str]) -> dict[str, str]:
    first = list(entity.items())[:MAX_ENTITIES]
    return {name[:MAX_NAME_CHARS]: text[: 4 * MAX_NAME_CHARS] for name, text in first}


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 3] + "..."


def _explanation(why: Explanation) -> Explanation:
    kept = _largest(why.variates or dict.fromkeys(why.observed, 0.0))
    return Explanation(
        observed=_parts(why.observed, kept),
        expected=_parts(why.expected, kept),
        variates=_only(why.variates, kept),
        time_ms=why.time_ms,
        text=_short(why.text),
        entities=tuple(name[:MAX_NAME_CHARS] for name in why.entities[:MAX_ENTITIES]),
        note=_short(why.note),
    )


def _largest(shares: Mapping[str, float]) -> list[str]:
    """Return the names with the largest shares; NaN counts as none."""
    return sorted(shares, key=lambda name: (-(shares[name] or 0.0), name))[:MAX_NAMED]


def _parts(values: Mapping[str, Part], names: Iterable[str]) -> dict[str, Part]:
    return {
        name: _short(value) if isinstance(value, str) else value
        for name, value in _only(values, names).items()
    }


def _only(values: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    return {name[:MAX_NAME_CHARS]: values[name] for name in names if name in values}


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What the attributes of an event are made of."""

    kind: str
    state: str
    id: str
    source: str
    time_ms: int
    subject: str
    key: str


def _about(record: Record) -> _About:
    if isinstance(record, Finding | Alert):
        finding = isinstance(record, Finding)
        return _About(
            kind="finding" if finding else "alert",
            state=record.state,
            id=f"{record.id}-{record.sequence}",
            source=record.pipeline,
            time_ms=record.window_end_ms,
            subject=record.key,
            key=record.tenant if finding else record.id,
        )
    if isinstance(record, Incident):
        return _About(
            kind="incident",
            state=record.state,
            id=f"{record.id}-{record.sequence}",
            source=record.name,
            time_ms=record.time_ms,
            subject=record.members[0].key if record.members else record.group,
            key=record.id,
        )
    if isinstance(record, Digest):
        return _About(
            kind="digest",
            state="sent",
            id=record.id,
            source=record.name,
            time_ms=record.to_ms,
            subject=record.group,
            key=record.group,
        )
    if isinstance(record, PageRequest):
        return _About(
            kind="page",
            state="requested",
            id=f"{record.pager}-{record.key}-{record.since_offset}",
            source=record.name,
            time_ms=record.time_ms,
            subject=record.incident,
            # Not the incident's: it must not take the place of its newest record.
            key=f"page/{record.pager}/{record.incident}",
        )
    if isinstance(record, Silence):
        return _About(
            kind="silence",
            state="given",
            id=f"{record.id}-{record.time_ms}",
            source="feedback",
            time_ms=record.time_ms,
            subject=record.name,
            key=record.tenant,
        )
    return _About(
        kind="feedback",
        state="given",
        id=record.id,
        source="feedback",
        time_ms=record.time_ms,
        subject=record.subject,
        key=record.tenant,
    )


def encode(record: Record) -> Event:
    """Write a record; its time is of what it is about, never the wall clock.

    NaN and infinity become null: JSON has no word for them. An event that is too large is cut.
    """
    value = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(value) > MAX_EVENT_BYTES:
        if isinstance(record, Finding):
            record = bounded_finding(record, len(value))
        elif isinstance(record, Alert):
            record = bounded_alert(record, len(value))
        value = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    about = _about(record)
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": about.id,
        "ce_source": f"/streamad/{about.source}",
        "ce_type": type_of(about.kind, about.state),
        "ce_time": rfc3339(about.time_ms),
        # Whoever shows headers must not be given orders by a key; the body holds it as it is.
        "ce_subject": safe_text(about.subject, MAX_SUBJECT_CHARS),
        "content-type": "application/json",
    }
    return Event(
        key=about.key.encode(),
        value=value,
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
) -> Record | Rejected:
    """Read one record of a findings or alerts topic; never raises.

    message : index of the record in its batch, for the rejection
    """
    if value is None:
        return Rejected(message=message, reason="null_payload", detail="a tombstone")
    if len(value) > MAX_READ_BYTES:
        detail = f"an event of {len(value)} bytes; at most {MAX_READ_BYTES} are read"
        return Rejected(message=message, reason="oversized", detail=detail)
    try:
        return _decode(value, {name.lower(): text or b"" for name, text in headers})
    except ShapeError as error:
        reason, detail = error.reason, str(error)
    except (ValueError, AttributeError, TypeError) as error:
        reason, detail = "invalid_json", str(error)
    except Exception as error:  # noqa: BLE001 - no record may end the job
        reason, detail = "decoder_error", f"reading the event failed with {type(error).__name__}"
        logger.error("a record that is no event: %s", detail)  # noqa: TRY400 - it may hold values
    return Rejected(message=message, reason=reason, detail=detail[:MAX_DETAIL_CHARS], payload=value)


def _decode(value: bytes, headers: Mapping[str, bytes]) -> Record:
    body = orjson.loads(unframed(value))
    name = headers.get("ce_type", b"").decode()
    if headers.get("content-type", b"").lower().startswith(STRUCTURED.encode()):
        if not isinstance(body, dict):
            msg = "a structured event must be an object"
            raise ShapeError(WRONG_TYPE, msg)
        name, body = str(body.get("type")), body.get("data")
    record = to_record(_kind_of(name), body)
    if isinstance(record, Finding) and not 0 < record.alert_p < 1:
        msg = f"alert_p: expected a probability between 0 and 1, got {record.alert_p}"
        raise ShapeError(WRONG_TYPE, msg)
    return record


def _kind_of(name: str) -> type[Record]:
    prefix, _, version = name.rpartition(".")
    word = prefix.removeprefix(TYPE_PREFIX).partition(".")[0]
    if not name.startswith(TYPE_PREFIX) or version != VERSION or word not in KINDS:
        msg = f"the event type is {name!r}; read are {TYPE_PREFIX}{{{','.join(KINDS)}}}.*.{VERSION}"
        raise ShapeError(UNKNOWN_TYPE, msg)
    return KINDS[word]
