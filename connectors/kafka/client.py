"""Kafka clients: settings with secrets that never show, and a factory for each kind of client.

Everything that differs from kafka-python's defaults is here, with the reason.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.net.sasl.oauth import AbstractTokenProvider

from connectors.environment import value_of
from connectors.kafka.assignor import CurrentOwnersAssignor, TogetherAssignor
from connectors.kafka.batches import guard
from connectors.kafka.login import client_that_tells
from streamad.errors import ConfigError

MAX_REQUEST_BYTES = 1_000_000
"""The largest record we send: below the 1 MiB that brokers and topics take by default."""

MAX_BATCH_BYTES = MAX_REQUEST_BYTES + 48_576
"""What topics have to take (``max.message.bytes``): that record and what frames it; the default."""

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

_TEXTS = {
    "KAFKA_BOOTSTRAP_SERVERS": "bootstrap",
    "KAFKA_SECURITY_PROTOCOL": "security_protocol",
    "KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "KAFKA_SASL_USERNAME": "sasl_username",
    "KAFKA_SASL_PASSWORD": "sasl_password",
    "KAFKA_SASL_TOKEN_FILE": "sasl_token_file",
    "KAFKA_SSL_CAFILE": "ssl_cafile",
    "KAFKA_SSL_CERTFILE": "ssl_certfile",
    "KAFKA_SSL_KEYFILE": "ssl_keyfile",
    "KAFKA_SSL_PASSWORD": "ssl_password",
    "KAFKA_CLIENT_RACK": "rack",
}
_NUMBERS = {
    "KAFKA_SESSION_TIMEOUT_MS": "session_timeout_ms",
    "KAFKA_REPLICATION_FACTOR": "replication_factor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """How to reach a cluster. ``repr`` shows no secret, so neither does a log.

    sasl_token_file : OAUTHBEARER: a file with the token, read again whenever one is needed
    session_timeout_ms : how long a member that died without a word keeps its partitions
    replication_factor : of topics we create; -1 leaves it to the broker
    """

    bootstrap: str = "localhost:9092"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_token_file: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = field(default=None, repr=False)
    ssl_check_hostname: bool = True
    rack: str = ""
    session_timeout_ms: int = 15_000
    replication_factor: int = -1

    def __post_init__(self) -> None:
        if self.security_protocol not in _PROTOCOLS:
            msg = f"KAFKA_SECURITY_PROTOCOL is {self.security_protocol!r}; use one of {_PROTOCOLS}"
            raise ConfigError(msg)
        if not self.security_protocol.startswith("SASL"):
            return
        if self.sasl_mechanism not in _MECHANISMS:
            msg = f"KAFKA_SASL_MECHANISM is {self.sasl_mechanism!r}; use one of {_MECHANISMS}"
            raise ConfigError(msg)
        if self.sasl_mechanism == "OAUTHBEARER":
            missing = [] if self.sasl_token_file else ["KAFKA_SASL_TOKEN_FILE"]
        else:
            given = {"USERNAME": self.sasl_username, "PASSWORD": self.sasl_password}
            missing = [f"KAFKA_SASL_{name}" for name, value in given.items() if not value]
        if missing:
            msg = f"{self.sasl_mechanism} needs {' and '.join(missing)}"
            raise ConfigError(msg)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> KafkaSettings:
        """Read ``KAFKA_*``; ``KAFKA_SASL_PASSWORD_FILE`` and the like name a file."""
        given: dict[str, Any] = {}
        for name, attribute in _TEXTS.items():
            value = value_of(name, environment)
            if value:
                given[attribute] = value
        for name, attribute in _NUMBERS.items():
            text = environment.get(name, "")
            if text:
                given[attribute] = _whole_number(name, text)
        if check := environment.get("KAFKA_SSL_CHECK_HOSTNAME"):
            given["ssl_check_hostname"] = check.lower() not in ("0", "false", "no")
        if "security_protocol" in given:
            given["security_protocol"] = given["security_protocol"].upper()
        return cls(**given)

    def client(self) -> dict[str, Any]:
        """Return what every kafka-python client is given."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
            "retry_backoff_ms": 50,
            "reconnect_backoff_max_ms": 2_000,
        }
        if self.security_protocol.startswith("SASL"):
            options["kafka_client"] = client_that_tells
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
            if self.sasl_token_file:
                options["sasl_oauth_token_provider"] = _TokenFile(self.sasl_token_file)
        if self.security_protocol.endswith("SSL"):
            for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password"):
                options[name] = getattr(self, name)
            options["ssl_check_hostname"] = self.ssl_check_hostname
        return options


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """A token that something else keeps fresh in a file, as Kubernetes does."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)

    def token(self) -> str:
        """Return the token of this moment."""
        return self._path.read_text(encoding="utf-8").strip()


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"{name} must be a whole number, got {text!r}"
        raise ConfigError(msg) from error


def member_id(environment: Mapping[str, str]) -> str:
    """Return the stable name of this process in its groups: ``STREAMAD_MEMBER``, else the host's.

    It outlives a restart: that is what lets the next life abort at once what the last one left
    open, and keep its partitions without a rebalance.
    """
    given = environment.get("STREAMAD_MEMBER") or platform.node() or "one"
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in given)[:100]


def group_consumer(
    settings: KafkaSettings,
    *,
    group: str,
    member: str,
    max_poll_records: int,
    together: bool = False,
) -> KafkaConsumer:
    """Return a member of a consumer group: static, cooperative, reading committed.

    together : partitions of equal number of all topics go to one member
    """
    consumer = KafkaConsumer(
        **settings.client(),
        metrics_enabled=False,
        client_id=f"{group}-{member}",
        client_rack=settings.rack,
        group_id=group,
        group_instance_id=member,
        partition_assignment_strategy=[TogetherAssignor if together else CurrentOwnersAssignor],
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=max(200, settings.session_timeout_ms // 5),
        # Recovery of a large shard happens between two polls.
        max_poll_interval_ms=900_000,
        enable_auto_commit=False,
        # We place every partition ourselves; an offset out of range is ours to decide and to tell.
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_poll_records=max_poll_records,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=8 * 1_048_576,
        # Partitions that were added to the input are noticed within this time.
        metadata_max_age_ms=30_000,
        allow_auto_create_topics=False,
    )
    return guard(consumer, columns=True)


def reader(
    settings: KafkaSettings, *, group: str | None = None, columns: bool = False
) -> KafkaConsumer:
    """Return a consumer that belongs to no assignment: for recovery, and to ask for offsets.

    columns : see `connectors.kafka.batches.guard`
    """
    consumer = KafkaConsumer(
        **settings.client(),
        metrics_enabled=False,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_poll_records=20_000,
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=16 * 1_048_576,
        allow_auto_create_topics=False,
    )
    return guard(consumer, columns=columns)


def follower(settings: KafkaSettings, *, group: str | None, reset: str) -> KafkaConsumer:
    """Return a consumer of output topics, reading committed.

    group : a consumer group that shares them, None: it belongs to none; reset : ``earliest`` or
    ``latest``, where there is no position
    """
    consumer = KafkaConsumer(
        **settings.client(),
        metrics_enabled=False,
        client_rack=settings.rack,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset=reset,
        isolation_level="read_committed",
        max_poll_records=2_000,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=8 * 1_048_576,
        metadata_max_age_ms=30_000,
        allow_auto_create_topics=False,
    )
    return guard(consumer)


def plain_producer(settings: KafkaSettings) -> KafkaProducer:
    """Return a producer for a few records, each written once and to all replicas."""
    return KafkaProducer(
        **settings.client(),
        metrics_enabled=False,
        acks="all",
        enable_idempotence=True,
        delivery_timeout_ms=20_000,
        request_timeout_ms=10_000,
        max_block_ms=20_000,
        max_request_size=MAX_BATCH_BYTES,
        allow_auto_create_topics=False,
    )


def transactional_producer(
    settings: KafkaSettings, *, transactional_id: str, timeout_ms: int
) -> KafkaProducer:
    """Return a producer for transactions; ``init_transactions`` is left to the caller."""
    options = settings.client()
    # The default of 100 ms is what the tail of a transaction's time consists of (p99 208 ms, with
    # 5 ms 38 ms). Reconnecting has a back-off of its own.
    options["retry_backoff_ms"] = 5
    return KafkaProducer(
        **options,
        metrics_enabled=False,
        transactional_id=transactional_id,
        transaction_timeout_ms=timeout_ms,
        # Longer makes no sense: the broker has aborted the transaction by then.
        delivery_timeout_ms=max(2 * timeout_ms, 20_000),
        request_timeout_ms=max(timeout_ms, 10_000),
        max_block_ms=max(2 * timeout_ms, 20_000),
        compression_type="lz4",
        batch_size=262_144,
        max_request_size=MAX_BATCH_BYTES,
        allow_auto_create_topics=False,
    )


def admin(settings: KafkaSettings, **options: Any) -> KafkaAdminClient:
    """Return an admin client; ``options``: of the client, which win over the settings."""
    return KafkaAdminClient(**settings.client() | options)
