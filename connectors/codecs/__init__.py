"""Decoders of Kafka messages: total (bytes in, rows and rejections out), columnar, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap
from connectors.codecs.guard import GuardedCodec
from streamad.records import Decoded
from streamad.registry import Registry

__all__ = ["CODECS", "Codec", "FieldMap", "make_codec"]

MAX_MESSAGE_BYTES = 4 * 1_048_576
MAX_ROWS_PER_MESSAGE = 100_000


class Codec(Protocol):
    """Turns the messages of one poll into rows; whatever the bytes are, it does not raise."""

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return usable rows in message order, and the rejections in message order.

        payloads : one a message, None for a tombstone; offsets, broker_ms : int64
            ``(n_messages,)``, carried into the batch as they are.
        """
        ...


CODECS = Registry(
    "codec",
    "streamad.codecs",
    {
        "cloudevents": "connectors.codecs.cloudevents:CloudEventsCodec",
        "json": "connectors.codecs.json:JsonCodec",
        "arrow": "connectors.codecs.arrow:ArrowCodec",
        "otlp_json": "connectors.codecs.otlp.json:OtlpJsonCodec",
        "otlp_proto": "connectors.codecs.otlp.proto:OtlpProtoCodec",
        "otlp_logs": "connectors.codecs.otlp.logs_codec:OtlpLogsCodec",
        "prometheus": "connectors.codecs.prometheus:RemoteWriteCodec",
    },
)


def make_codec(
    name: str,
    fields: FieldMap,
    *,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    max_rows_per_message: int = MAX_ROWS_PER_MESSAGE,
) -> Codec:
    """Return the codec called ``name``; a message beyond either bound is rejected.

    Whatever its code does, a codec made here does not raise and loses no message.
    """
    codec: Codec = CODECS.load(name)(
        fields, max_message_bytes=max_message_bytes, max_rows_per_message=max_rows_per_message
    )
    return GuardedCodec(codec, name)
