"""Flink's Kafka tables: what stands in `KafkaSettings`, as options of its Java clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from connectors.kafka.client import MAX_REQUEST_BYTES, KafkaSettings
from streamad.config import PipelineConfig
from streamad.errors import ConfigError

_SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
"""The SQL connector carries its Kafka classes under this name."""

_LOGIN = {
    "PLAIN": f"{_SHADED}.plain.PlainLoginModule",
    "SCRAM-SHA-256": f"{_SHADED}.scram.ScramLoginModule",
    "SCRAM-SHA-512": f"{_SHADED}.scram.ScramLoginModule",
}
_RAW = {
    "key.format": "raw",
    "key.fields": "key",
    "value.format": "raw",
    "value.fields-include": "EXCEPT_KEY",
}

_FROM_GROUP = {
    "scan.startup.mode": "group-offsets",
    # A partition the group has never worked on has nothing that anybody wanted to skip.
    "properties.auto.offset.reset": "earliest",
}


def group_of(config: PipelineConfig) -> str:
    """Return the consumer group Flink commits its progress under: for lag, not for recovery."""
    return f"streamad.{config.name}.flink"


def source_options(
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    start_ms: int | None,
    from_group: bool = False,
) -> dict[str, str]:
    """Return the options of the table that is read.

    start_ms : ``input.start`` as a time; from_group : begin where `group_of` came to instead
    """
    return {
        **_RAW,
        **_client(settings),
        "topic": ";".join(config.input.topics),
        "properties.group.id": group_of(config),
        "properties.client.id.prefix": group_of(config),
        "properties.isolation.level": "read_committed",
        "properties.fetch.max.wait.ms": "100",
        "properties.max.partition.fetch.bytes": str(8 * 1_048_576),
        "properties.client.rack": settings.rack,
        "scan.topic-partition-discovery.interval": "30 s",
        **(_FROM_GROUP if from_group else _start(config.input.start, start_ms)),
    }


def sink_options(
    config: PipelineConfig, settings: KafkaSettings, *, topics: Sequence[str]
) -> dict[str, str]:
    """Return the options of the table that is written; ``topics``: all that it may write to."""
    return {
        **_RAW,
        **_client(settings),
        "topic": ";".join(topics),
        "sink.delivery-guarantee": "exactly-once",
        # Of the pipeline, not of the job: the next life ends what the last one left open.
        "sink.transactional-id-prefix": group_of(config),
        "properties.transaction.timeout.ms": str(config.flink.transaction_timeout),
        "properties.max.request.size": str(MAX_REQUEST_BYTES + 48_576),
        "properties.compression.type": "lz4",
        "properties.batch.size": "262144",
        "properties.linger.ms": "5",
    }


def _start(start: str, start_ms: int | None) -> dict[str, str]:
    if start_ms is None:
        return {"scan.startup.mode": f"{start}-offset"}
    return {"scan.startup.mode": "timestamp", "scan.startup.timestamp-millis": str(start_ms)}


def _client(settings: KafkaSettings) -> dict[str, str]:
    given: dict[str, str | None] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL"):
        given |= _sasl(settings)
    if settings.security_protocol.endswith("SSL"):
        given |= _tls(settings)
    return {f"properties.{name}": value for name, value in given.items() if value is not None}


def _sasl(settings: KafkaSettings) -> Mapping[str, str | None]:
    mechanism = settings.sasl_mechanism or ""
    if mechanism not in _LOGIN:
        msg = (
            f"KAFKA_SASL_MECHANISM={mechanism} is not supported on Flink; use one of "
            f"{', '.join(_LOGIN)}"
        )
        raise ConfigError(msg)
    user, password = (
        (text or "").replace("\\", "\\\\").replace('"', '\\"')
        for text in (settings.sasl_username, settings.sasl_password)
    )
    login = f'{_LOGIN[mechanism]} required username="{user}" password="{password}";'
    return {"sasl.mechanism": mechanism, "sasl.jaas.config": login}


def _tls(settings: KafkaSettings) -> Mapping[str, str | None]:
    # Inline: task managers may not have the files, and Java reads key and certificates from one.
    given: dict[str, str | None] = {}
    if settings.ssl_cafile:
        given["ssl.truststore.type"] = "PEM"
        given["ssl.truststore.certificates"] = _text("KAFKA_SSL_CAFILE", settings.ssl_cafile)
    if settings.ssl_certfile and settings.ssl_keyfile:
        given["ssl.keystore.type"] = "PEM"
        given["ssl.keystore.certificate.chain"] = _text("KAFKA_SSL_CERTFILE", settings.ssl_certfile)
        given["ssl.keystore.key"] = _text("KAFKA_SSL_KEYFILE", settings.ssl_keyfile)
        given["ssl.key.password"] = settings.ssl_password
    if not settings.ssl_check_hostname:
        given["ssl.endpoint.identification.algorithm"] = ""
    return given


def _text(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{name} cannot be read: {error.strerror} ({path})"
        raise ConfigError(msg) from error
