"""Where triage reads alerts from: JSON lines of a back-test, or the topic of a running job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import yaml

from connectors.records.cloudevents import MAX_READ_BYTES, decode
from connectors.records.typed_json import ShapeError, to_record
from jobs.moments import parse_moment
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.config import load_pipeline, read_config
from streamad.errors import ConfigError
from streamad.ports import Log
from streamad.records import Alert

CONFIGS: Final = frozenset({".yaml", ".yml"})
MAX_RECORDS: Final = 2_000_000


def read_alerts(source: Path, *, since: str | None = None) -> Iterator[Alert]:
    """Yield records of alerts from a file of them, or from the topic that a configuration names.

    since : only alerts that began then or later, as ``streamad backtest --from`` reads times
    """
    since_ms = None if since is None else parse_moment(since, now_ms=time.time_ns() // 1_000_000)
    found = _of_topic(source, since_ms) if source.suffix in CONFIGS else _of_file(source)
    for number, alert in enumerate(found):
        if number >= MAX_RECORDS:
            msg = f"{source}: holds more than {MAX_RECORDS:,} records; take fewer with --from"
            raise ConfigError(msg)
        if since_ms is None or alert.began_ms >= since_ms:
            yield alert


def _of_file(path: Path) -> Iterator[Alert]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_READ_BYTES + 1):
                number += 1
                if line.strip():
                    yield _alert(f"{path}:{number}", line)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise ConfigError(msg) from error


def _alert(where: str, line: bytes) -> Alert:
    if len(line) > MAX_READ_BYTES:
        msg = f"{where}: expected an alert of at most {MAX_READ_BYTES} bytes, got a longer line"
        raise ConfigError(msg)
    try:
        body = orjson.loads(line)
        # A CloudEvent in structured mode carries the record as its data.
        return to_record(Alert, body.get("data", body) if isinstance(body, dict) else body)
    except (ValueError, ShapeError) as error:
        msg = (
            f"{where}: is no alert: {error}; expected JSON lines as 'streamad backtest -o "
            "alerts.jsonl' writes them"
        )
        raise ConfigError(msg) from error


def _of_topic(path: Path, since_ms: int | None) -> Iterator[Alert]:
    from connectors.kafka.log import KafkaLog

    config = _alerting(path)
    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.triage")
    try:
        yield from alerts_of(log, config.topic("alerts"), since_ms=since_ms)
    finally:
        log.close()


def alerts_of(log: Log, topic: str, *, since_ms: int | None) -> Iterator[Alert]:
    """Yield the records of an alerts topic that were written since a time; others are left out."""
    bounds = log.bounds(topic)
    if not bounds:
        msg = f"there is no topic {topic} on this cluster; 'streamad run' makes it at its start"
        raise ConfigError(msg)
    for source, (first, after) in sorted(bounds.items()):
        start = first if since_ms is None else max(first, log.offset_at(source, since_ms))
        for messages in log.read(source, start, after):
            for value, raw in zip(messages.payloads, messages.raw, strict=True):
                read = decode(value, raw.headers)
                if isinstance(read, Alert):
                    yield read


def _alerting(path: Path) -> AlertingConfig:
    try:
        tree = yaml.safe_load(read_config(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        tree = None  # The reader below names the line.
    if isinstance(tree, dict) and "findings" in tree:
        return load_alerting(path, environment=environment())
    return AlertingConfig.of(load_pipeline(path, environment=environment()))
