"""One record, written in a transaction and read back committed: whether the way to Kafka works."""

from __future__ import annotations

import contextlib
import time
import uuid

from kafka.errors import KafkaError

from connectors.kafka.admin import Topic, make_topics, partition_counts
from connectors.kafka.client import KafkaSettings, transactional_producer
from connectors.kafka.log import KafkaLog
from connectors.kafka.transactions import HOPELESS, refusal
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Source

TIMEOUT_MS = 10_000
RETENTION = {"retention.ms": "3600000", "cleanup.policy": "delete"}


def round_trip(settings: KafkaSettings, *, name: str) -> float:
    """Return the seconds that a record took, from the transaction's begin until it was read.

    name : of the topic, which is created if it is missing, and of the transactional id

    Raises StreamadError where it was refused, or did not come back.
    """
    if name not in partition_counts(settings):
        make_topics(settings, [Topic(name=name, configs=RETENTION)])
    token = uuid.uuid4().bytes
    producer = transactional_producer(settings, transactional_id=name, timeout_ms=TIMEOUT_MS)
    log = KafkaLog(settings, group=name)
    try:
        producer.init_transactions()
        began = time.monotonic()
        producer.begin_transaction()
        offset = producer.send(name, value=token, partition=0).get(TIMEOUT_MS / 1000).offset
        producer.commit_transaction()
        source = Source(name, 0)
        found = [
            value
            for batch in log.read(source, offset, offset + 1)
            for value in batch.payloads
            if value == token
        ]
    except HOPELESS as error:
        raise refusal(error) from error
    except KafkaError as error:
        msg = f"a record written to {name} was not acknowledged: {error!r}"
        raise SinkUnavailableError(msg) from error
    finally:
        log.close()
        with contextlib.suppress(KafkaError):
            producer.close(timeout=2)
    if not found:
        msg = f"a record was committed to {name} at offset {offset}, and another one was read there"
        raise SourceUnavailableError(msg)
    return time.monotonic() - began
