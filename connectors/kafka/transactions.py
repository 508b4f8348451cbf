"""Transactions of one producer, with an end to every wait, and a new producer after each failure.

After a refused transaction, kafka-python 3.0.12 keeps the offsets that were refused and sends them
with the next one: a member that was frozen would move the offsets of partitions that others work
on by now (see ``docs/upstream.md``). So no producer outlives a failure: `Transactions.renew` takes
another one of the same id, and the broker ends whatever the old one left open.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.errors import KafkaError, KafkaTimeoutError

from connectors.kafka.client import (
    MAX_BATCH_BYTES,
    MAX_REQUEST_BYTES,
    KafkaSettings,
    transactional_producer,
)
from connectors.kafka.login import UNAUTHENTICATED
from streamad.errors import ConfigError, SinkUnavailableError, StreamadError
from streamad.ports import Fault, Outgoing, Telemetry, no_fault
from streamad.shown import safe_text, without_credentials

logger = logging.getLogger(__name__)

TOO_LARGE: Final = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
)
"""Errors about the size of a record; those raised here name its topic."""

HOPELESS: Final = (
    *TOO_LARGE,
    *UNAUTHENTICATED,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailedError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.InvalidTransactionTimeoutError,
)
"""Errors that no second attempt cures."""


def refusal(error: KafkaError) -> StreamadError:
    """Return an error of ours for one of `HOPELESS`."""
    names = error.args[0] if error.args else ""
    if isinstance(error, kafka_errors.InvalidTransactionTimeoutError):
        msg = (
            "the broker allows no transaction as long as delivery.transaction_timeout: lower it, "
            "or raise the broker's transaction.max.timeout.ms"
        )
        return ConfigError(msg)
    if isinstance(error, TOO_LARGE):
        msg = (
            f"topic {names} takes no record of up to {MAX_REQUEST_BYTES} bytes; set its "
            f"max.message.bytes to {MAX_BATCH_BYTES} or more"
        )
        return SinkUnavailableError(msg)
    if isinstance(error, UNAUTHENTICATED):
        msg = (
            f"Kafka refuses the credentials ({names or type(error).__name__}); check "
            "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD (or the file with "
            "the password or token)"
        )
        return SinkUnavailableError(safe_text(without_credentials(msg)))
    msg = f"Kafka refuses: {type(error).__name__} {names}; see `streamad validate --online`"
    return SinkUnavailableError(msg)


def _raise_too_large(sent: Sequence[tuple[str, Any]]) -> None:
    for topic, future in sent:
        if isinstance(future.exception, TOO_LARGE):
            raise type(future.exception)(topic)


def _named(error: KafkaError) -> KafkaError:
    """Return the error that the client only wrote into the text of a nameless one."""
    for kind in HOPELESS:
        if type(error) is KafkaError and kind.__name__ in str(error):
            return kind()
    return error


def send(producer: Any, record: Outgoing) -> Any:
    """Hand a record to a producer; return the future of its acknowledgement."""
    return producer.send(
        record.topic,
        value=record.value,
        key=record.key,
        headers=list(record.headers),
        partition=record.partition,
    )


def back_off(attempt: int) -> None:
    """Wait before attempt ``attempt + 1``: .1 s at first, 5 s at most, with jitter."""
    delay_s = min(5.0, 0.1 * 2 ** min(attempt, 6))
    time.sleep(delay_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter, no secret


class Transactions:
    """Write records and offsets, all or nothing.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach the cluster.
    transactional_id : str
        One process at a time has it; the broker shuts out the one before.
    timeout_ms : int
        How long the broker keeps a transaction nobody ends. No step here waits longer than three
        times as long, and 30 s: the transaction is lost by then.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        transactional_id: str,
        timeout_ms: int,
        telemetry: Telemetry,
        fault: Fault = no_fault,
    ) -> None:
        self._settings, self._id, self._timeout_ms = settings, transactional_id, timeout_ms
        self._telemetry, self._fault = telemetry, fault
        self._wait_ms = max(3 * timeout_ms, 30_000)
        self._producer = self._new()

    def write(
        self,
        records: Sequence[Outgoing],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: Any,
    ) -> list[int]:
        """Write once; return the records' offsets.

        Raises KafkaError where it failed, or where it is not known: `renew`, then look at the
        committed offsets.
        """
        producer = self._producer
        producer.begin_transaction()
        sent: list[tuple[str, Any]] = []
        try:
            self._send(records, sent)
        except KafkaError:
            # Whatever was refused first breaks all that comes after it, whose errors name nothing.
            _raise_too_large(sent)
            raise
        # The public methods wait without an end: a connection that breaks at the wrong moment
        # would hold this member, and its whole group, for as long as it has the partitions.
        manager = producer._transaction_manager  # noqa: SLF001
        self._end(manager.send_offsets_to_transaction(offsets, membership))
        self._fault("after_produce")
        self._end(manager.begin_commit())
        return [future.value.offset for _, future in sent]

    def _send(self, records: Sequence[Outgoing], sent: list[tuple[str, Any]]) -> None:
        producer = self._producer
        for record in records:
            sent.append((record.topic, send(producer, record)))  # noqa: PERF401 - kept if one fails
        # Every record is to be acknowledged before the offsets go along: seen with a broker killed
        # at the wrong moment, the client commits a transaction although a record of it failed.
        producer.flush(timeout=self._wait_ms / 1000)
        for _, future in sent:
            if not future.succeeded():
                raise future.exception or KafkaTimeoutError("a record was not acknowledged")

    def _end(self, result: Any) -> None:
        self._producer._sender.wakeup()  # noqa: SLF001
        if not result.wait(timeout_ms=self._wait_ms):
            msg = f"the broker did not answer within {self._wait_ms / 1000:g} s"
            raise KafkaTimeoutError(msg)

    def renew(self) -> None:
        """Take a new producer of the same id: the broker ends what the old one left open."""
        self._telemetry.count("delivery_broker_retries_total", operation="producer")
        self._drop()
        self._producer = self._new()

    def close(self) -> None:
        """End; what is open is aborted by the broker."""
        with contextlib.suppress(KafkaError, RuntimeError):
            self._producer.close(timeout=2)

    def _drop(self) -> None:
        with contextlib.suppress(KafkaError, ValueError, AssertionError):
            # First: `close` waits for what is under way and then leaves its thread behind.
            self._producer._sender.force_close()  # noqa: SLF001
            self._producer.close(timeout=0)

    def _new(self) -> Any:
        for attempt in range(1_000_000):
            producer = None
            try:
                producer = transactional_producer(
                    self._settings, transactional_id=self._id, timeout_ms=self._timeout_ms
                )
                producer.init_transactions()
            except KafkaError as error:
                if producer is not None:
                    self._producer = producer
                    self._drop()
                if isinstance(cause := _named(error), HOPELESS):
                    raise refusal(cause) from error
                logger.warning("the producer cannot begin: %s", error)
                self._telemetry.count("delivery_broker_retries_total", operation="producer")
                back_off(attempt)
                continue
            return producer
        raise AssertionError
