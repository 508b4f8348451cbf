"""What a shard in keyed state writes down as it goes: messages, and the points at which it judged.

An entry is a few bytes of head and the rest; larger payloads are compressed with LZ4, which takes
JSON to about a fifth and costs less than handing the rest to the state backend.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import lz4.block
import numpy as np

from streamad.errors import StateError
from streamad.ports import Headers, Messages, Source

_MESSAGE, _JUDGED, _TICKED, _SCORED, _ASIDE = b"MJTSQ"
_HEAD = struct.Struct("<BBqqiiI")
_LENGTHS = struct.Struct("<Ii")
_TIME = struct.Struct("<Bq")
_PACKED_LENGTH = struct.Struct("<I")
_PLAIN, _PACKED = 0, 1
_MOST_PACKED = 255
"""No byte of LZ4 stands for more."""

_PACK_FROM = 512
"""Smaller payloads are kept as they are."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All messages before this one were judged, and what came of it was handed on."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """The wall clock was let pass."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message that waited is not judged, now or later."""

    offset: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the windows that were judged; a message of the scores log."""

    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message of the input."""

    offset: int
    broker_ms: int
    payload: bytes | None
    key: bytes | None = None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Return the bytes to decode."""
        return len(self.payload or b"")

    def encode(self) -> bytes:
        """Return the entry as bytes."""
        payload, packed = self.payload, _PLAIN
        if payload is not None and len(payload) >= _PACK_FROM:
            payload, packed = lz4.block.compress(payload), _PACKED
        head = _HEAD.pack(
            _MESSAGE, packed, self.offset, self.broker_ms, _length(self.key), _length(payload),
            len(self.headers),
        )  # fmt: skip
        if not self.headers:
            return b"".join((head, self.key or b"", payload or b""))
        parts = [head, self.key or b"", payload or b""]
        for name, value in self.headers:
            text = name.encode()
            parts += (_LENGTHS.pack(len(text), _length(value)), text, value or b"")
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Record:
    """What is left of a record beside its value, as dead letters tell it."""

    key: bytes | None
    headers: Headers


JUDGED = bytes([_JUDGED])


def ticked(now_ms: int) -> bytes:
    """Return a `Ticked` as bytes."""
    return _TIME.pack(_TICKED, now_ms)


def set_aside(offset: int) -> bytes:
    """Return a `SetAside` as bytes."""
    return _TIME.pack(_ASIDE, offset)


def scored(value: bytes) -> bytes:
    """Return a `Scored` as bytes."""
    return bytes([_SCORED]) + value


def decode(data: bytes) -> Entry | Judged | Ticked | SetAside | Scored:
    """Return what was written; StateError where it is none of it.

    Examples
    --------
    >>> decode(ticked(5))
    Ticked(now_ms=5)
    """
    try:
        kind = data[0]
        if kind == _MESSAGE:
            return _entry(data)
        if kind == _JUDGED:
            return Judged()
        if kind == _TICKED:
            return Ticked(_TIME.unpack(data)[1])
        if kind == _ASIDE:
            return SetAside(_TIME.unpack(data)[1])
        if kind == _SCORED:
            return Scored(data[1:])
    # ValueError: text that is none, and sizes LZ4 does not take.
    except (struct.error, IndexError, lz4.block.LZ4BlockError, ValueError) as error:
        msg = f"the journal of a shard is damaged: {error}"
        raise StateError(msg) from error
    msg = f"the journal of a shard holds an unknown entry: {data[:1]!r}"
    raise StateError(msg)


def as_messages(source: Source, entries: list[Entry]) -> Messages:
    """Return messages as if they had just been polled."""
    n = len(entries)
    return Messages(
        source=source,
        payloads=[entry.payload for entry in entries],
        offsets=np.fromiter((entry.offset for entry in entries), np.int64, n),
        broker_ms=np.fromiter((entry.broker_ms for entry in entries), np.int64, n),
        raw=[Record(entry.key, entry.headers) for entry in entries],
    )


def _entry(data: bytes) -> Entry:
    _, packed, offset, broker_ms, key_length, length, n_headers = _HEAD.unpack_from(data)
    at = _HEAD.size
    key, at = _cut(data, at, key_length)
    payload, at = _cut(data, at, length)
    if packed and payload is not None:
        payload = _unpacked(payload)
    headers = []
    for _ in range(n_headers):
        name_length, value_length = _LENGTHS.unpack_from(data, at)
        name, at = _cut(data, at + _LENGTHS.size, name_length)
        value, at = _cut(data, at, value_length)
        headers.append(((name or b"").decode("utf-8", "replace"), value or b""))
    return Entry(
        offset=offset, broker_ms=broker_ms, payload=payload, key=key, headers=tuple(headers)
    )


def _unpacked(packed: bytes) -> bytes:
    (length,) = _PACKED_LENGTH.unpack_from(packed)
    # LZ4 takes room for what is told before it looks at the rest: a damaged byte may tell 2 GB.
    if length > _MOST_PACKED * len(packed):
        msg = f"{len(packed)} bytes are declared to hold {length}"
        raise ValueError(msg)
    payload: bytes = lz4.block.decompress(packed)
    return payload


def _length(value: bytes | None) -> int:
    return -1 if value is None else len(value)


def _cut(data: bytes, at: int, length: int) -> tuple[bytes | None, int]:
    if length < 0:
        return None, at
    if at + length > len(data):
        msg = f"{length} bytes are declared and {len(data) - at} are left"
        raise struct.error(msg)
    return data[at : at + length], at + length
