"""``streamad run``: a pipeline with all that an operator of it looks at: logs, metrics, probes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors.records.status import Health, StatusServer
from connectors.telemetry import PrometheusTelemetry
from jobs.logs import secrets_of, setup_logs
from jobs.plain.config_watch import ConfigWatch
from jobs.plain.page import run_page
from jobs.plain.run import Role, roles_of, run
from jobs.plain.topics import Config
from jobs.plain.watch import BeatingTelemetry, Watcher
from jobs.settings import Settings, kafka_settings, read_settings
from streamad.alerting.config import AlertingConfig
from streamad.errors import ConfigError
from streamad.shown import safe_text, without_credentials

logger = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = ("both", "detect", "alert", "page", "rekey")


def serve(
    path: Path,
    *,
    alerting: bool = False,
    role: str,
    environment: Mapping[str, str],
    options: Mapping[str, str],
) -> None:
    """Run a pipeline, or the alert stage or the pagers of an alerting file, until it is stopped.

    options : ``STREAMAD_*`` settings given on the command line, which win over the environment
    """
    if role not in ROLES:
        msg = f"--role is {role!r}; it must be one of {', '.join(ROLES)}"
        raise ConfigError(msg)
    settings = read_settings({**environment, **options})
    setup_logs(settings.log_format, level=settings.log_level, secrets=secrets_of(environment))
    telemetry = PrometheusTelemetry()
    reload = ConfigWatch(path, alerting=alerting, environment=environment, telemetry=telemetry)
    config = reload.config
    kafka = kafka_settings(environment)
    _tell_identity(telemetry, config)
    if isinstance(config, AlertingConfig) and role == "page":
        roles = [f"page-{pager.name}" for pager in config.pagers]
    else:
        roles = roles_of(config, role)
    health = Health(tuple(one for one in roles if one != "rekey" or role == one))
    telemetry.gauge("start_time_seconds", time.time())
    stop = threading.Event()
    shared: dict[str, Any] = {
        "environment": environment,
        "telemetry": BeatingTelemetry(telemetry, health),
        "watch": Watcher(health, telemetry, stopping=stop.is_set),
        "stop": stop,
        "reload": reload,
    }
    with _server(settings, health, telemetry):
        if isinstance(config, AlertingConfig) and role == "page":
            run_page(config, kafka, **shared)
        else:
            run(config, kafka, role=role, **shared)


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


def _tell_identity(telemetry: PrometheusTelemetry, config: Config) -> None:
    telemetry.gauge("start_time_seconds", time.time())
    if isinstance(config, AlertingConfig):
        return
    telemetry.gauge(
        "artifact_info",
        1,
        pipeline=config.name,
        detector=config.detector.name,
        artifact=safe_text(without_credentials(config.detector.artifact or "")),
    )
