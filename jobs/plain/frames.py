"""What a schema registry is for a job: ids before its start, and what `validate` reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connectors.records.wire import Frames
from connectors.registry.client import Registry
from connectors.registry.settings import RegistrySettings
from connectors.registry.subjects import frames_by, schema_of_role, subject_of
from jobs.plain.preflight import Problem
from jobs.plain.topics import Config
from streamad.alerting.config import AlertingConfig
from streamad.errors import ConfigError, SourceUnavailableError

_WRITTEN: Mapping[str, tuple[str, ...]] = {
    "detect": ("findings",),
    "alert": ("alerts", "incidents"),
}
"""What the roles of a job write that has a schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the values of a topic are called and look like in a schema registry."""

    topic: str
    role: str

    @property
    def name(self) -> str:
        """Return the name it has in a registry."""
        return subject_of(self.topic)

    @property
    def schema(self) -> str:
        """Return the schema as text."""
        return schema_of_role(self.role)


def subjects_of(config: Config, roles: Sequence[str] = ("detect", "alert")) -> list[Subject]:
    """Return the subjects of what the roles of a job write, whatever their format is."""
    alerting = config if isinstance(config, AlertingConfig) else AlertingConfig.of(config)
    found = []
    for role in roles:
        for written in _WRITTEN.get(role, ()):
            if written != "findings":
                topic = alerting.topic("alerts" if written == "alerts" else "incidents")
            elif isinstance(config, AlertingConfig):
                continue  # Written by the pipelines.
            else:
                topic = config.topic("findings")
            found.append(Subject(topic=topic, role=written))
    return found


def frames_of(config: Config, roles: Sequence[str], environment: Mapping[str, str]) -> Frames:
    """Return what stands before the values of each topic; empty where the format is plain JSON.

    Raises ConfigError where the registry refuses, SourceUnavailableError where it cannot be asked.
    """
    if config.output.format == "json":
        return {}
    registry = Registry(RegistrySettings.from_environment(environment))
    by_topic = {one.topic: one.role for one in subjects_of(config, roles)}
    return frames_by(registry, by_topic, register=config.output.register_schemas)


def registry_preflight(config: Config, environment: Mapping[str, str]) -> list[Problem]:
    """Ask the registry how our schemas stand there, and change nothing; errors first."""
    if config.output.format == "json":
        return []
    problems = []
    try:
        registry = Registry(RegistrySettings.from_environment(environment))
        for one in subjects_of(config):
            standing = registry.standing(one.name, one.schema)
            if standing == "refused":
                text = (
                    f"{one.name}: the schema registry takes this version's schema for incompatible "
                    "with the last one; set the subject's compatibility to FORWARD, which added "
                    "fields need"
                )
                problems.append(Problem(level="error", text=text))
            elif standing == "fits" and config.output.register_schemas:
                text = f"{one.name}: our schema is not registered yet; 'streamad run' registers it"
                problems.append(Problem(level="warning", text=text))
            elif standing == "fits":
                text = (
                    f"{one.name}: our schema is not registered, and output.register_schemas is "
                    "false; register it with 'streamad topics schemas FILE --register'"
                )
                problems.append(Problem(level="error", text=text))
    except (ConfigError, SourceUnavailableError) as error:
        problems.append(Problem(level="error", text=str(error)))
    return sorted(problems, key=lambda problem: problem.level)
