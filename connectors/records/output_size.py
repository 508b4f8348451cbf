"""How large a record that we write may be: a broker refuses larger ones, each time it is tried."""

from __future__ import annotations

from streamad.ports import Outgoing

MAX_RECORD_BYTES = 900_000
"""Key, value and headers together; brokers take 1 MB where ``message.max.bytes`` was not set."""


def size_of(record: Outgoing) -> int:
    """Return the bytes of a record's key, value and headers."""
    about = sum(len(name.encode()) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + about
