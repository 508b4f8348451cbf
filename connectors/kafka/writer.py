"""Write a few records outside of any pipeline: what a person answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from kafka.errors import KafkaError

from connectors.kafka.client import KafkaSettings, plain_producer
from connectors.kafka.transactions import HOPELESS, refusal, send
from streamad.errors import SinkUnavailableError
from streamad.ports import Outgoing

TIMEOUT_S = 20.0


def write(settings: KafkaSettings, records: Sequence[Outgoing]) -> None:
    """Write records and wait until all replicas have them.

    Raises SinkUnavailableError where they may not have arrived; writing them again is fine where
    whoever reads them knows repeats by their id.
    """
    try:
        with contextlib.closing(plain_producer(settings)) as producer:
            sent = [send(producer, record) for record in records]
            producer.flush()
            for future in sent:
                future.get(timeout=TIMEOUT_S)
    except HOPELESS as error:
        raise refusal(error) from error
    except KafkaError as error:
        topics = ", ".join(sorted({record.topic for record in records}))
        msg = f"nothing was written to {topics}, as far as is known ({error!r}); try it again"
        raise SinkUnavailableError(msg) from error
