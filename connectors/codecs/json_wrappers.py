"""What JSON comes wrapped in: a byte order mark, a schema registry's prefix, an object of a batch.

Shippers put the rows of a batch into an array of an object (Telegraf: ``metrics``); serializers
that know a schema registry put five bytes before the text.
"""

from __future__ import annotations

from typing import Any

import orjson

from connectors.codecs.fields import FieldMap, look_up
from connectors.codecs.rows import CUT_KEY_BYTES, cut_text

BLANK = b" \t\r\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_SHARED_BYTES = 16 * 2**20
"""What the rows of a message may have of the object around them, all together."""

PREFIX_BYTES = 5
"""A zero and the number of the schema in four bytes, as Confluent's serializers write them."""


def bare(text: bytes) -> bytes:
    r"""Return a message without blanks, byte order mark and the prefix of a schema registry.

    Examples
    --------
    >>> bare(b'\0\0\0\0\7{"key": "a"}')
    b'{"key": "a"}'
    """
    if text[:1] == b"\0" and text[PREFIX_BYTES : PREFIX_BYTES + 1] in (b"{", b"["):
        text = text[PREFIX_BYTES:]
    return text.strip(BLANK).removeprefix(BYTE_ORDER_MARK).strip(BLANK)


def framing(text: bytes) -> str | None:
    """Say what a message that is no JSON seems to be by its first bytes; None: nothing known."""
    if text[:1] != b"\0" or len(text) <= PREFIX_BYTES:
        return None
    schema = int.from_bytes(text[1:PREFIX_BYTES], "big")
    return (
        f"it begins as serializers with a schema registry write (schema {schema}), and what "
        "follows is no JSON: Avro or Protobuf, which are not read; have the producer, or a "
        "connector, write JSON"
    )


def unwrap(text: bytes, fields: FieldMap, max_rows: int) -> bytes:
    """Return a message with the rows in its arrays ``fields.rows`` as lines, or as it was.

    Texts and numbers that a row lacks and the object around it has are the row's too. Of more than
    ``max_rows`` rows one more is returned, and the message is refused for it.
    """
    if fields.rows is None:
        return text
    records = _records(text)
    if not any(isinstance(look_up(record, fields.rows), list) for record in records):
        return text
    lines: list[bytes] = []
    for record in records:
        rows = look_up(record, fields.rows)
        given = rows[: max_rows + 1 - len(lines)] if isinstance(rows, list) else [record]
        shared = _shared(record, fields) if isinstance(rows, list) else {}
        if shared and len(orjson.dumps(shared)) * len(given) > MAX_SHARED_BYTES:
            shared = {}
        for row in given:
            whole = {**shared, **row} if shared and isinstance(row, dict) else row
            try:
                lines.append(orjson.dumps(whole))
            except orjson.JSONEncodeError:
                # Its writer nests less deeply than its reader: this is no row either way.
                lines.append(b"[]")
        if len(lines) > max_rows:
            break
    return b"\n".join(lines)


def _records(text: bytes) -> list[Any]:
    try:
        record = orjson.loads(text)
    except ValueError:
        try:
            return [orjson.loads(line) for line in text.split(b"\n") if line.strip(BLANK)]
        except ValueError:
            return []
    return record if isinstance(record, list) else [record]


def _shared(record: dict[str, Any], fields: FieldMap) -> dict[str, Any]:
    """Return what the field map asks for and the object around the rows has."""
    shared: dict[str, Any] = {}
    for name in fields.names:
        value = look_up(record, name)
        if isinstance(value, str):
            # It is copied to every row: cut where it is too long to be used.
            value = cut_text(value, CUT_KEY_BYTES)
        elif not isinstance(value, (int, float)):
            continue
        first, *rest = name.split(".")
        node = shared
        for part in rest:
            node = node.setdefault(first, {})
            first = part
        node[first] = value
    return shared
