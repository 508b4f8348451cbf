"""Settings of what is found: the detector, when a score is a finding, and a finding an alert."""

from __future__ import annotations

from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from streamad.config.live import Live, LiveIfGiven
from streamad.config.section import Section
from streamad.config.values import Duration, Pages, Rarity, format_duration, write_level
from streamad.links import check_templates


class DetectorConfig(Section):
    """The detector, and the artifact it starts from."""

    name: str = "auto"
    """A detector of docs/detectors.md."""
    artifact: LiveIfGiven[str | None] = None
    """The output of ``streamad fit``: a folder, or a URL of a store that fsspec reads (``s3://``,
    ``gs://``, ``abfs://``, ``hdfs://``, ``https://``)."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the detector."""
    reload: Live[Duration] = 10_000
    """How often ``streamad run`` looks for a new artifact in the place of the old one, which then
    takes over without a restart (docs/operations.md); ``0s``: never."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class MinEffectConfig(Section):
    """Ignore anomalies smaller than this."""

    absolute: float = Field(default=0.0, ge=0)
    """The least difference from the expected value, in the unit of the input."""
    relative: float = Field(default=0.0, ge=0)
    """The least difference as a share of the expected value."""


class ScoringConfig(Section):
    """From score to episode, per key."""

    candidate: Rarity | None = None
    """A window so rare for its key opens an episode: a return period (``2d``: an ordinary series
    shows one about once in two days), or the probability of a window. Default: somewhat less rare
    than ``alerts.level``."""
    exit: Rarity | None = None
    """An episode ends once windows are less rare than this. Default: somewhat less than
    ``candidate``."""
    min_windows: int = Field(default=32, ge=0)
    """Windows of a key that are scored before one may open an episode."""
    min_duration: int = Field(default=1, ge=1, le=10_000)
    """Consecutive candidates required to open an episode."""
    cool_down: int = Field(default=5, ge=1, le=10_000)
    """Consecutive windows below the exit level required to end one; doubles each time a series
    flaps."""
    adopt_after: Duration = 86_400_000
    """An episode that lasts so long (and four windows' lengths) is the new normal: it ends, and the
    new level is what is expected. It takes four messages at least, however many rows one has."""
    memory: Duration = 14 * 86_400_000
    """History that a key's normal is made of: the maxima of up to 336 blocks. Blocks are an hour
    long for the default, longer where a window is."""
    timezone: str = "UTC"
    """Where hours of the day and days of the week are those of people: a name such as
    ``Europe/Berlin``. What recurs at its hour is normal there, summer time included."""
    first_day: Duration = 86_400_000
    """How long the centred look of a key without training only learns: a daily rhythm that has not
    been seen whole is no anomaly. The look at the newest samples counts sudden changes."""
    update_every: int = Field(default=60, ge=1)
    """Windows between two updates of an open episode."""
    direction: Literal["above", "below", "both"] = "both"
    """Alert above, below, or on both sides of the expected value."""
    min_effect: MinEffectConfig = MinEffectConfig()
    """The least effect that is reported."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, given: str) -> str:
        try:
            ZoneInfo(given)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"expected the name of a time zone such as UTC or Europe/Berlin, got {given!r}"
            raise ValueError(msg) from error
        return given

    @model_validator(mode="after")
    def _hysteresis(self) -> ScoringConfig:
        one, other = self.candidate, self.exit
        if one is None or other is None or isinstance(one, int) != isinstance(other, int):
            return self
        # A probability is rarer where it is smaller, a return period where it is longer.
        rarer = other > one if isinstance(one, int) else other < one
        if rarer:
            msg = (
                f"exit ({write_level(other)}) must not be rarer than candidate "
                f"({write_level(one)}), or episodes would flap"
            )
            raise ValueError(msg)
        return self


class LimitConfig(Section):
    """How many alerts may open in a time; one alert of kind ``flood`` counts the others."""

    per_key: int = Field(default=10, ge=1)
    """Most alerts of a key that open in this time."""
    per_group: int = Field(default=100, ge=1)
    """Most alerts of a group (``alerts.group``) that open in this time."""
    within: Duration = 3_600_000
    """The time, counted from the full hour (or other multiples of it) as findings are written; a
    back-test counts in event time."""

    @field_validator("within")
    @classmethod
    def _some_time(cls, given: int) -> int:
        if given < 1_000:
            msg = f"expected at least 1s, got {format_duration(given)}"
            raise ValueError(msg)
        return given


class AlertsConfig(Section):
    """From finding to alert: the boundary and the life-cycle."""

    level: Rarity = 5 * 86_400_000
    """What has severity 1.0, from where on a finding is an alert: a return period (``5d``: an
    ordinary series shows one as rare about once in five days), or the probability of a window."""
    max_age: Duration = 3_600_000
    """Alerts found later than this after the event are marked ``past``; they page nobody."""
    update_every: Duration = 60_000
    """The least time between two updates of an alert, unless it becomes much worse."""
    tenant: str = "default"
    """The record key of findings: one member reads all findings of a tenant."""
    group: str | None = None
    """A key field or tag whose value groups alerts (a service, a team)."""
    runbook: Live[str | None] = None
    """A link in every alert."""
    links: Live[dict[str, str]] = Field(default_factory=dict)
    """Further links, with the entity filled in: ``{dashboard: https://grafana/d/x?host={host}}``.
    Fields of the key and tags are known, and ``{key}``, ``{group}``, ``{pipeline}``, ``{from_ms}``,
    ``{to_ms}``, ``{from_iso}``, ``{to_iso}``; a brace of the link itself is written twice."""
    budget: Pages | None = None
    """``10 per week``: pages that a group is ready to take. It sets how strong an episode must be
    to be an alert, in place of ``level``; unset: ``level`` decides, and every incident pages."""
    limit: LimitConfig = LimitConfig()
    """Bounds on alerts."""

    @field_validator("links")
    @classmethod
    def _templates(cls, given: dict[str, str]) -> dict[str, str]:
        check_templates(given)
        return given
