"""The pipeline file as a frozen tree, and which of its settings state is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from streamad.config.decisions import AlertsConfig, DetectorConfig, ScoringConfig
from streamad.config.input import InputConfig
from streamad.config.live import Live
from streamad.config.running import DeliveryConfig, FlinkConfig, OutputConfig
from streamad.config.section import Section, changed
from streamad.config.series import GraphsConfig, SeriesConfig, WindowsConfig
from streamad.links import check_names

S = TypeVar("S", bound=Section)


class PipelineConfig(Section):
    """One pipeline: its input, its detector, its outputs."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Part of topic names, consumer groups and ids; a new name makes a new pipeline."""
    input: InputConfig = InputConfig()
    """The input."""
    series: SeriesConfig = SeriesConfig()
    """How records become samples."""
    windows: WindowsConfig = WindowsConfig()
    """How samples become windows."""
    graphs: GraphsConfig = GraphsConfig()
    """How edges become graphs."""
    detector: DetectorConfig = DetectorConfig()
    """The model that scores windows."""
    scoring: ScoringConfig = ScoringConfig()
    """When a score is a finding."""
    alerts: AlertsConfig = AlertsConfig()
    """When a finding is an alert."""
    delivery: DeliveryConfig = DeliveryConfig()
    """Commits and state."""
    flink: Live[FlinkConfig] = FlinkConfig()
    """How it runs on Flink."""
    output: OutputConfig = OutputConfig()
    """Topics that are written."""

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineConfig:
        long_form = self.input.fields.variate is not None
        if long_form and self.series.step is None and self.series.lateness == 0:
            msg = (
                "variates that come in separate records must be lined up: "
                "set series.step (a grid), or series.lateness"
            )
            raise ValueError(msg)
        if self.series.silence_by == "group" and not self.alerts.group:
            msg = (
                "series.silence_by: group needs alerts.group, a key field or tag whose value is "
                "the group"
            )
            raise ValueError(msg)
        check_names(self.alerts.links, (*self.input.fields.key, *self.input.fields.tags))
        self._no_series()
        return self

    def _no_series(self) -> None:
        """Refuse settings of series where records hold none."""
        if self.input.records == "signals":
            return
        for path in SERIES_SETTINGS:
            section: Section = self
            *parents, name = path.split(".")
            for parent in parents:
                section = getattr(section, parent)
            if name in changed(section):
                msg = (
                    f"{path} is for series of measured values, and this pipeline has "
                    f"input.records: {self.input.records}; leave it out"
                )
                raise ValueError(msg)

    def topic(self, role: Literal["findings", "alerts", "scores", "state"]) -> str:
        """Return the name of an output topic."""
        given: str | None = getattr(self.output, role)
        return given or f"streamad.{self.name}.{role}"

    def decision_settings(self) -> dict[str, Any]:
        """Return the settings that change decisions: dotted path to JSON value."""
        every = _flat(self, self.model_dump(mode="json"))
        return {path: value for path, value in every if changes_decisions(path)}

    def decision_checksum(self) -> str:
        """Return a checksum over the settings that change decisions."""
        return _checksum(self.decision_settings())

    def state_checksum(self) -> str:
        """Return a checksum over the settings that state is bound to."""
        every = self.decision_settings().items()
        return _checksum({path: value for path, value in every if binds_state(path)})

    def under(self, settings: Mapping[str, Any]) -> PipelineConfig:
        """Return the configuration with the values of `LIGHT_SETTINGS` as given, by dotted path."""
        ours = dict(_flat(self, self.model_dump(mode="json")))
        changes: dict[str, Any] = {}
        for path in LIGHT_SETTINGS:
            if path in settings and settings[path] != ours[path]:
                *sections, name = path.split(".")
                inner = changes
                for section in sections:
                    inner = inner.setdefault(section, {})
                inner[name] = settings[path]
        return _with(self, changes)


SERIES_SETTINGS = (
    "series.kind",
    "series.step",
    "series.aggregate",
    "series.reorder",
    "series.gaps",
    "scoring.direction",
    "scoring.min_effect",
)
"""Settings that mean nothing for records other than signals."""

DECISION_SETTINGS = (
    "name",
    "input.records",
    "input.fields",
    "series",
    "windows",
    "graphs",
    "detector.name",
    "detector.params",
    "scoring",
    "alerts.level",
    "alerts.tenant",
    "alerts.group",
)
"""Settings and sections that change scores, episodes or findings: all that the detect operator and
its detector read. State is bound to them, but for `LIGHT_SETTINGS`. ``detector.artifact`` is not
among them: state is bound to the artifact's id, wherever it lies."""

LIGHT_SETTINGS = (
    "series.late",
    "series.silence",
    "series.silence_by",
    "series.gone_after",
    "series.ttl",
    "series.max_keys",
    "series.max_memory",
    "series.max_ahead",
    "scoring.min_windows",
    "scoring.min_duration",
    "scoring.cool_down",
    "scoring.adopt_after",
    "scoring.update_every",
    "scoring.direction",
    "scoring.min_effect.absolute",
    "scoring.min_effect.relative",
)
"""Settings that change decisions and nothing that was learned: state is kept when they change."""


def changes_decisions(path: str) -> bool:
    """Return whether a setting is one of `DECISION_SETTINGS`, or lies in one of its sections.

    Examples
    --------
    >>> changes_decisions("series.gaps.fill"), changes_decisions("alerts.runbook")
    (True, False)
    """
    return any(path == one or path.startswith(f"{one}.") for one in DECISION_SETTINGS)


def binds_state(path: str) -> bool:
    """Return whether state made with another value of a setting is not used.

    Examples
    --------
    >>> binds_state("windows.size"), binds_state("series.silence"), binds_state("alerts.runbook")
    (True, False, False)
    """
    return changes_decisions(path) and path not in LIGHT_SETTINGS


def _with(section: S, changes: Mapping[str, Any]) -> S:
    """Return a section with other values of settings, given as they are nested."""
    inner = {
        name: _with(getattr(section, name), value)
        for name, value in changes.items()
        if isinstance(value, Mapping)
    }
    own = {name: value for name, value in changes.items() if name not in inner}
    if own:
        # Together: of two settings that bound each other, each may need the other's new value.
        section = type(section).model_validate(section.model_dump(mode="json") | own)
    return section.model_copy(update=inner) if inner else section


def _checksum(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _flat(section: Section, tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its dotted path; a mapping is one setting, a section is not."""
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if isinstance(inner, Section):
            yield from _flat(inner, tree[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tree[name]
