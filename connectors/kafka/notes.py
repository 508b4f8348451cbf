"""Notes on partitions, kept by the broker as the metadata of a consumer group's offsets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka.errors import GroupIdNotFoundError, KafkaError, NoError

from connectors.kafka.client import KafkaSettings, admin
from connectors.kafka.transactions import HOPELESS, refusal
from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Source

PATIENCE_S: Final = 5.0
"""Notes are worth no longer wait: see `streamad.runtime.keyed.in_hand`."""
_PAUSE_S: Final = 0.1


class KafkaNotes:
    """See `streamad.ports.Notes`. Nobody is in the group, and where no note is, no offset is.

    Kafka forgets notes after ``offsets.retention.minutes`` (a week), and with their topic.
    """

    def __init__(self, settings: KafkaSettings, *, group: str) -> None:
        self._settings, self._group = settings, group
        self._client: KafkaAdminClient | None = None

    def read(self, source: Source) -> str:
        """Return the note on a partition; empty where there is none."""
        part = TopicPartition(*source)

        def ask(client: KafkaAdminClient) -> Any:
            return client.list_group_offsets({self._group: [part]})[self._group].get(part)

        found = self._asked(ask, SourceUnavailableError)
        return "" if found is None or found.offset < 0 else found.metadata or ""

    def write(self, source: Source, note: str) -> None:
        """Replace it, durably; an empty one removes it."""
        part = TopicPartition(*source)

        def ask(client: KafkaAdminClient) -> Any:
            if note:
                given = {part: OffsetAndMetadata(0, note, -1)}
                return client.alter_group_offsets(self._group, given)[part]
            return _forget(client, self._group, part)

        answer = self._asked(ask, SinkUnavailableError)
        if answer is not NoError:
            msg = f"the note on {source} in group {self._group} was refused: {answer!r}"
            raise SinkUnavailableError(msg)

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError):
                client.close()

    def _asked(
        self,
        ask: Callable[[KafkaAdminClient], Any],
        error: type[SourceUnavailableError | SinkUnavailableError],
    ) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._client is None:
                    self._client = admin(
                        self._settings, bootstrap_timeout_ms=int(PATIENCE_S * 1000)
                    )
                return ask(self._client)
            except HOPELESS as refused:
                self.close()
                raise refusal(refused) from refused
            except KafkaError as away:
                # The client does not wait for a group's coordinator, as it does for a leader.
                if away.retriable and time.monotonic() < deadline:
                    time.sleep(_PAUSE_S)
                    continue
                self.close()
                msg = f"Kafka at {self._settings.bootstrap} does not take or give notes: {away!r}"
                raise error(msg) from away


def _forget(client: KafkaAdminClient, group: str, part: TopicPartition) -> Any:
    try:
        return client.delete_group_offsets(group, [part])[part]
    except GroupIdNotFoundError:
        return NoError
