"""Write replayed records and how far the replay came in one Kafka transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from connectors.closes import Closes
from connectors.kafka.client import KafkaSettings, admin, transactional_producer
from connectors.kafka.login import UNAUTHENTICATED
from connectors.kafka.transactions import refusal, send
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Outgoing, Source

TIMEOUT_MS = 30_000


class KafkaDesk(Closes):
    """The desk of one pipeline's replays; a second one opened takes over from the first.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach the cluster.
    name : str
        Names the producer and, with a reason, the consumer groups that hold the progress.
    """

    def __init__(self, settings: KafkaSettings, *, name: str) -> None:
        self._name = name
        try:
            self._admin = admin(settings)
            self._producer = transactional_producer(
                settings, transactional_id=name, timeout_ms=TIMEOUT_MS
            )
            # From here on an older replay can write no more, and what it left open is aborted: so
            # what is read of its progress afterwards is final.
            self._producer.init_transactions()
        except UNAUTHENTICATED as error:
            raise refusal(error) from error
        except KafkaError as error:
            msg = f"Kafka at {settings.bootstrap} does not let a replay begin: {error!r}"
            raise SinkUnavailableError(msg) from error

    def done(self, reason: str) -> dict[Source, int]:
        """Return up to which offset the letters of a reason were replayed, a partition."""
        group = self._group(reason)
        try:
            offsets = self._admin.list_group_offsets({group: None}).get(group, {})
        except KafkaError as error:
            msg = f"how far group {group} came cannot be read: {error!r}"
            raise SourceUnavailableError(msg) from error
        return {
            Source(part.topic, part.partition): int(committed.offset)
            for part, committed in offsets.items()
            if committed.offset >= 0
        }

    def send(self, records: Sequence[Outgoing], done: Mapping[tuple[str, Source], int]) -> None:
        """Write records and progress, all or nothing."""
        self._producer.begin_transaction()
        try:
            self._write(records, done)
            self._producer.commit_transaction()
        except KafkaError as error:
            self._abort()
            msg = (
                f"the replay stopped ({type(error).__name__}); run it again, it resumes from there"
            )
            raise SinkUnavailableError(msg) from error

    def _write(self, records: Sequence[Outgoing], done: Mapping[tuple[str, Source], int]) -> None:
        sent = [send(self._producer, record) for record in records]
        self._producer.flush()
        for future in sent:
            future.get(timeout=TIMEOUT_MS / 1000)
        for reason in {reason for reason, _ in done}:
            offsets = {
                TopicPartition(*source): OffsetAndMetadata(offset, "", -1)
                for (why, source), offset in done.items()
                if why == reason
            }
            self._producer.send_offsets_to_transaction(offsets, self._group(reason))

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction()
        except KafkaError:
            # The broker aborts it when its time is up, or when the next replay begins.
            return

    def _group(self, reason: str) -> str:
        return f"{self._name}.{reason}"

    def close(self) -> None:
        """Close the clients."""
        self._producer.close(timeout=5)
        self._admin.close()
