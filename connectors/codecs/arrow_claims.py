"""What an Arrow IPC message says of itself, read from its flatbuffers before Arrow reads them.

Arrow allocates what compressed buffers claim to expand to before it looks at the data, and reads a
block as often as a file's footer lists it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

FILE_MAGIC = b"ARROW1"

# The few fields of Arrow's flatbuffers that say what a compressed buffer expands to.
HEADER_TYPE, HEADER = 1, 2
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
DICTIONARY_DATA = 1
BUFFERS, COMPRESSION = 2, 3
BUFFER_BYTES = 16
FOOTER_DICTIONARIES, FOOTER_BATCHES = 2, 3
BLOCK_BYTES = 24
CONTINUES = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an IPC stream or file: its flatbuffer, where that begins, and its body."""

    metadata: memoryview
    body: memoryview


def stream_messages(body: pa.Buffer) -> Iterator[Message]:
    """Yield the messages of a stream; raises an Arrow error where it is none."""
    for message in pa.ipc.MessageReader.open_stream(body):
        yield Message(memoryview(message.metadata), memoryview(message.body or b""))


def file_messages(text: bytes) -> Iterator[Message]:
    """Yield the batches that a file's footer lists; raises ``struct.error`` or ``ValueError``."""
    view = memoryview(text)
    tail = len(text) - len(FILE_MAGIC) - 4
    length = struct.unpack_from("<i", view, max(tail, 0))[0]
    if not 0 < length <= tail:
        msg = "the file has no footer"
        raise ValueError(msg)
    footer = view[tail - length : tail]
    root = struct.unpack_from("<I", footer, 0)[0]
    read = 0
    for listed in (FOOTER_DICTIONARIES, FOOTER_BATCHES):
        at = _field(footer, root, listed)
        for message in _blocks(view, footer, _follow(footer, at)) if at else ():
            # A footer may list one block a hundred thousand times: blocks must share the file.
            read += len(message.metadata) + len(message.body)
            if read > len(text):
                msg = "the blocks of the footer come to more than the file"
                raise ValueError(msg)
            yield message


def _blocks(view: memoryview, footer: memoryview, vector: int) -> Iterator[Message]:
    number = struct.unpack_from("<I", footer, vector)[0]
    if number > len(footer) // BLOCK_BYTES:
        msg = f"{number} blocks do not fit the footer"
        raise ValueError(msg)
    for index in range(number):
        start, head, size = struct.unpack_from("<qi4xq", footer, vector + 4 + index * BLOCK_BYTES)
        if min(start, head, size) < 0:
            msg = "a block of the footer lies outside the file"
            raise ValueError(msg)
        metadata = view[start : start + head]
        # Writers before 2019 put only the length before the flatbuffer, others a mark first.
        skip = 8 if metadata[:4] == CONTINUES else 4
        yield Message(metadata[skip:], view[start + head : start + head + size])


def claimed_by(message: Message) -> tuple[int, int]:
    """Return the kind of a message, and the bytes its compressed buffers say they expand to."""
    metadata = message.metadata
    root = struct.unpack_from("<I", metadata, 0)[0]
    kind_at = _field(metadata, root, HEADER_TYPE)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH):
        return kind, 0
    batch = _follow(metadata, _field(metadata, root, HEADER))
    if kind == DICTIONARY_BATCH:
        batch = _follow(metadata, _field(metadata, batch, DICTIONARY_DATA))
    if not _field(metadata, batch, COMPRESSION):
        return kind, 0
    vector = _follow(metadata, _field(metadata, batch, BUFFERS))
    number = struct.unpack_from("<I", metadata, vector)[0]
    if number > len(metadata) // BUFFER_BYTES:
        msg = f"{number} buffers do not fit the message"
        raise ValueError(msg)
    total = 0
    for index in range(number):
        start, length = struct.unpack_from("<qq", metadata, vector + 4 + index * BUFFER_BYTES)
        if length > 0:
            # -1 marks a buffer that was left as it is.
            total += max(struct.unpack_from("<q", message.body, start)[0], 0)
    return kind, total


def _field(metadata: memoryview, table: int, field: int) -> int:
    """Return where a field of a flatbuffer table lies, 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        msg = "a flatbuffer points outside itself"
        raise ValueError(msg)
    slot = 4 + 2 * field
    if slot + 2 > struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + slot)[0]
    return table + offset if offset else 0


def _follow(metadata: memoryview, at: int) -> int:
    return at + int(struct.unpack_from("<I", metadata, at)[0])
