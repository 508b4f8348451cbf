"""Confluent's wire format: a zero, the id of a schema in four bytes (big-endian), then the JSON.

It is what clients with a schema registry write and expect (JSON_SR). The id is written for them and
never looked up: what a record is stands in its headers, and its body is checked by our own types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from connectors.codecs.json_wrappers import PREFIX_BYTES, framing
from connectors.records.typed_json import ShapeError

MAGIC: Final = b"\0"
MAX_ID: Final = 2**31 - 1
"""Ids are signed 32-bit numbers in registries; none is negative."""
INVALID_JSON: Final = "invalid_json"
_BEGINS: Final = (b"{", b"[", b" ", b"\n", b"\t", b"\r")

Frames = Mapping[str, bytes]
"""Topic to what stands before each of its values; a topic that is absent has plain JSON."""


def frame_of(schema_id: int) -> bytes:
    r"""Return what stands before a value; raises ValueError where the id is none.

    Examples
    --------
    >>> frame_of(7)
    b'\x00\x00\x00\x00\x07'
    """
    if isinstance(schema_id, bool) or not 0 <= schema_id <= MAX_ID:
        msg = f"expected an id of a schema from 0 to {MAX_ID}, got {schema_id!r:.40}"
        raise ValueError(msg)
    return MAGIC + schema_id.to_bytes(PREFIX_BYTES - 1, "big")


def unframed(value: bytes) -> bytes:
    r"""Return the JSON of a value, framed or plain; raises ShapeError where a frame is cut off.

    Examples
    --------
    >>> unframed(b'\0\0\0\0\7{"id": "a"}'), unframed(b'{"id": "a"}')
    (b'{"id": "a"}', b'{"id": "a"}')
    """
    if value[:1] != MAGIC:
        return value
    if len(value) <= PREFIX_BYTES:
        msg = (
            f"it begins as serializers with a schema registry write, and ends after {len(value)} "
            f"bytes: expected {PREFIX_BYTES} and then JSON"
        )
        raise ShapeError(INVALID_JSON, msg)
    if value[PREFIX_BYTES : PREFIX_BYTES + 1] not in _BEGINS:
        raise ShapeError(INVALID_JSON, framing(value) or "no JSON")
    return value[PREFIX_BYTES:]
