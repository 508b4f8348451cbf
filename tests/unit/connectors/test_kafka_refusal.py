"""A wrong password is an answer of the cluster, not a cluster that is away."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
from kafka.net.compat import KafkaNetClient

from connectors.kafka.admin import partition_counts
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.kafka.replay import KafkaDesk
from connectors.kafka.transactions import Transactions
from streamad.errors import StreamadError
from streamad.ports import NullTelemetry

API_VERSIONS, SASL_HANDSHAKE = 18, 17
SUPPORTED = [(3, 0, 1), (17, 1, 1), (18, 0, 0), (36, 0, 0)]
AUTHENTICATION_FAILED, UNSUPPORTED_VERSION = 58, 35
WRONG = "hunter22-is-wrong"


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def answer(key: int, version: int) -> bytes:
    if key == API_VERSIONS:
        error = UNSUPPORTED_VERSION if version else 0
        listed = b"".join(struct.pack(">hhh", *one) for one in SUPPORTED)
        return struct.pack(">hi", error, len(SUPPORTED)) + listed
    if key == SASL_HANDSHAKE:
        return struct.pack(">hi", 0, 1) + text("PLAIN")
    return struct.pack(">h", AUTHENTICATION_FAILED) + text("Invalid") + struct.pack(">i", 0)


def serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as stream:
        while len(head := stream.read(4)) == 4:
            body = stream.read(struct.unpack(">i", head)[0])
            key, version, number = struct.unpack(">hhi", body[:8])
            told = struct.pack(">i", number) + answer(key, version)
            connection.sendall(struct.pack(">i", len(told)) + told)


@pytest.fixture
def settings(monkeypatch):
    """A broker that refuses every login."""
    made = []

    def recorded(**options):
        made.append(KafkaNetClient(**options))
        return made[-1]

    monkeypatch.setattr("connectors.kafka.login.KafkaNetClient", recorded)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield KafkaSettings(
        bootstrap=f"127.0.0.1:{listener.getsockname()[1]}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="ann",
        sasl_password=WRONG,
    )
    listener.close()
    # A client that was refused while it was being made has nobody else to close it.
    for client in made:
        client.close()


@pytest.mark.parametrize(
    "ask",
    [
        partition_counts,
        lambda settings: KafkaLog(settings, group="g").bounds("cpu"),
        lambda settings: KafkaDesk(settings, name="replay"),
        lambda settings: Transactions(
            settings, transactional_id="t", timeout_ms=10_000, telemetry=NullTelemetry()
        ),
    ],
    ids=["admin", "reader", "replay", "producer"],
)
def test_a_wrong_password_is_an_authentication_failure_within_seconds(settings, ask):
    began_s = time.monotonic()
    with pytest.raises(StreamadError, match="refuses the credentials") as got:
        ask(settings)
    assert time.monotonic() - began_s < 15
    assert WRONG not in str(got.value)
    assert "\n" not in str(got.value)
