"""The compiled pass over the records of a batch; see `connectors.kafka.columns`."""

import numpy as np

from connectors.kafka.columns import (
    CONTENT,
    END,
    HEADER_BYTES,
    MAX_HEADERS,
    N_HEADERS,
    N_VALUE,
    OFFSET,
    SIZE,
    TIME,
    VALUE,
)
from streamad.compiled import compiled


@compiled
def _varint(data, pos):
    """Return a number of at most nine bytes and where the next part begins; -1: it has more."""
    value, shift = np.uint64(0), np.uint64(0)
    for _ in range(9):
        if pos >= len(data):
            return np.int64(0), -1
        byte = np.uint64(data[pos])
        pos += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 128:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), pos
        shift += np.uint64(7)
    return np.int64(0), -1


@compiled
def find_records(data, number, base, last, time_ms, by_broker, out):
    """Find the parts of records (KIP-98); return how many are plain, and where the next begins.

    data : uint8, the records of a batch; base, last : offsets of the batch; time_ms : that deltas
    are added to, or the time of all where ``by_broker``; out : int64 ``(number, 8)``
    """
    before, pos = base - 1, 0
    for i in range(number):
        length, at = _varint(data, pos)
        if at < 0 or length < 0 or at + length > len(data):
            return i, pos
        end = at + length
        _, at = _varint(data, at)
        if at < 0:
            return i, pos
        delta_ms, at = _varint(data, at)
        if at < 0 or abs(delta_ms) >= 2**53:
            return i, pos
        delta, at = _varint(data, at)
        if at < 0 or at > end or abs(delta) >= 2**32:
            return i, pos
        offset = base + delta
        if not before < offset <= last:
            return i, pos
        out[i, OFFSET] = offset
        out[i, TIME] = time_ms if by_broker else time_ms + delta_ms
        out[i, CONTENT] = at
        out[i, END] = end
        n_key, at = _varint(data, at)
        if at < 0:
            return i, pos
        at += max(n_key, 0)
        n_value, at = _varint(data, at)
        if at < 0:
            return i, pos
        out[i, VALUE] = at
        out[i, N_VALUE] = max(n_value, -1)
        at += max(n_value, 0)
        n_headers, at = _varint(data, at)
        if at < 0 or not 0 <= n_headers <= MAX_HEADERS:
            return i, pos
        out[i, N_HEADERS] = n_headers
        for _ in range(n_headers):
            n_name, at = _varint(data, at)
            if at < 0:
                return i, pos
            at += max(n_name, 0)
            n_about, at = _varint(data, at)
            if at < 0:
                return i, pos
            at += max(n_about, 0)
        if at != end:
            return i, pos
        out[i, SIZE] = end - out[i, CONTENT] + HEADER_BYTES * (1 + n_headers)
        before, pos = offset, end
        if offset == last:
            return i + 1, pos
    return number, pos
