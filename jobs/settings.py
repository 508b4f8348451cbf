"""The environment, read once: ``KAFKA_*`` for the cluster, ``STREAMAD_*`` for the job itself.

Secrets may come as ``NAME_FILE``, the path of a file that holds the value. Unknown ``STREAMAD_*``
are let be: Kubernetes makes such names of its own for a Service called streamad.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamad.errors import ConfigError
from streamad.shown import without_credentials

if TYPE_CHECKING:
    from connectors.kafka.client import KafkaSettings

_PREFIX = "STREAMAD_"


class Settings(BaseModel):
    """What the environment says of how a job runs; what it does stands in the pipeline file.

    debug : show tracebacks; host, port : where /healthz, /readyz and /metrics answer (port 0: none)
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    debug: bool = False
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    host: str = "0.0.0.0"  # noqa: S104 - a probe comes from outside of the container
    health_port: int = Field(default=0, ge=0, le=65_535)


def environment() -> Mapping[str, str]:
    """Return the environment of the process; nothing else but this module reads it."""
    return os.environ


def read_settings(given: Mapping[str, str]) -> Settings:
    """Return the ``STREAMAD_*`` settings; a wrong value is a ConfigError that names it.

    Examples
    --------
    >>> read_settings({"STREAMAD_LOG_FORMAT": "json"}).log_format
    'json'
    """
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = given.get(_PREFIX + name.upper())
        if value is not None:
            found[name] = value.upper() if name == "log_level" else value
    try:
        return Settings.model_validate(found)
    except ValidationError as error:
        problem = error.errors()[0]
        name = f"{_PREFIX}{str(problem['loc'][0]).upper()}"
        said = str(problem["msg"]).removeprefix("Input should be ")
        got = without_credentials(repr(problem["input"]))
        msg = f"{name} is {got}; it must be {said[:1].lower()}{said[1:]}"
        raise ConfigError(msg) from error


def kafka_settings(given: Mapping[str, str]) -> KafkaSettings:
    """Return the ``KAFKA_*`` settings."""
    from connectors.kafka.client import KafkaSettings

    return KafkaSettings.from_environment(given)
