"""Messages that once ended, starved or blinded the job, as a JSON input can hold them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from kafka import KafkaProducer
from kafka.admin import ConfigResource, KafkaAdminClient

START_MS = 1_700_000_000_000
YEAR_2199_MS = 7_250_000_000_000
MANY = 30_000
LONG = "k" * 400_000
HEADERS = [(f"h{i}", b"x" * 1_000) for i in range(15)]

Poison = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


def columns(key: object, n: int = MANY) -> bytes:
    return json.dumps({"key": key, "ts": [START_MS] * n, "value": [-1e31] * n}).encode()


POISONS: dict[str, Poison] = {
    "a tombstone": (b"k", None, []),
    "no text": (None, b"\xff\xfe", []),
    "a column nested 300 deep": (
        None,
        b'{"key":[%s%s],"ts":[%d],"value":[-1e31]}' % (b"[" * 300, b"]" * 300, START_MS),
        [],
    ),
    "a member that comes twice": (None, b'{"ts":[1,3],"":[0,0,2],"ts":[[]]}', []),
    "one long key for all rows": (None, columns(LONG), []),
    "one long key that looks like an array": (None, columns("[" + LONG), []),
    "100,000 bad lines under long headers": (None, b"1\n" * 99_999, HEADERS),
    "100,000 bad lines under a long key": (b"k" * 500_000, b"1\n" * 99_999, []),
    "70,000 names": (None, json.dumps({f"{i:06d}": 0 for i in range(70_000)}).encode(), []),
    "a number that is none": (None, b'{"key":"a","ts":1e400,"value":[{}]}', []),
    "a time of the year 2199": (
        None,
        b'{"key":"key-0","ts":%d,"value":1}' % YEAR_2199_MS,
        [],
    ),
    "a key that gives orders to a terminal": (
        None,
        json.dumps({"key": "\x1b[2J\n\u202e", "ts": "never", "value": 1}).encode(),
        [],
    ),
}
"""Key, value and headers of each; every one is a dead-letter record or some, and no more."""

MOST_LETTERS = 101
"""Of one message: a hundred rows, and a pointer to the rest."""


def send_poisons(job: Any, *, partition: int = 0) -> None:
    """Write them to one partition of a pipeline's input, in batches the broker keeps with zstd."""
    with contextlib.closing(KafkaAdminClient(**job.settings.client())) as admin:
        kept = {"compression.type": "zstd"}
        admin.alter_configs([ConfigResource("topic", job.input, configs=kept)])
    for key, value, headers in POISONS.values():
        codec = "gzip" if value is not None and len(value) > 50_000 else None
        options = job.settings.client() | {"compression_type": codec, "max_request_size": 2**23}
        with contextlib.closing(KafkaProducer(**options)) as producer:
            sent = producer.send(
                job.input, key=key, value=value, headers=headers, partition=partition
            )
            sent.get(timeout=30)


def check_letters(job: Any) -> None:
    """Say where the poison did not end as it should: in few, small dead-letter records."""
    dead: dict[int, list[tuple[str, Any]]] = {}
    for reason, record in job.dead():
        offset = int(dict(record.headers)["streamad.error.offset"])
        dead.setdefault(offset, []).append((reason, record))
    assert len(dead) == len(POISONS), {at: {why for why, _ in told} for at, told in dead.items()}
    for told in dead.values():
        assert len(told) <= MOST_LETTERS
        assert sum(len(record.value or b"") for _, record in told) < 4 * 2**20
    assert "quarantined" not in {reason for told in dead.values() for reason, _ in told}
