"""``streamad run``: a pipeline with all that an operator of it looks at: logs, metrics, probes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from connectors.records.status import Health, StatusServer
from connectors.telemetry import PrometheusTelemetry
from jobs.logs import secrets_of, setup_logs
from jobs.plain.run import Role, run
from jobs.plain.watch import BeatingTelemetry, Watcher
from jobs.settings import Settings, kafka_settings, read_settings
from streamad.config import load_pipeline
from streamad.errors import ConfigError

logger = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = ("both", "detect", "alert", "rekey")


def serve(
    pipeline: Path,
    *,
    role: str,
    environment: Mapping[str, str],
    options: Mapping[str, str],
) -> None:
    """Run a pipeline until it is told to stop.

    options : ``STREAMAD_*`` settings given on the command line, which win over the environment
    """
    if role not in ROLES:
        msg = f"--role is {role!r}; it must be one of {', '.join(ROLES)}"
        raise ConfigError(msg)
    settings = read_settings({**environment, **options})
    setup_logs(settings.log_format, level=settings.log_level, secrets=secrets_of(environment))
    config = load_pipeline(pipeline, environment=environment)
    kafka = kafka_settings(environment)
    telemetry = PrometheusTelemetry()
    telemetry.gauge("start_time_seconds", time.time())
    health = Health(("detect", "alert") if role == "both" else (role,))
    stop = threading.Event()
    with _server(settings, health, telemetry):
        run(
            config,
            kafka,
            role=role,
            environment=environment,
            telemetry=BeatingTelemetry(telemetry, health),
            watch=Watcher(health, telemetry, stopping=stop.is_set),
            stop=stop,
        )


@contextmanager
def _server(settings: Settings, health: Health, telemetry: PrometheusTelemetry) -> Iterator[None]:
    if not settings.health_port:
        yield
        return
    with StatusServer(
        health, telemetry.render, host=settings.host, port=settings.health_port
    ) as server:
        logger.info(
            "health and metrics answer on %s:%d, without a password",
            settings.host,
            server.port,
            extra={"port": server.port},
        )
        yield
