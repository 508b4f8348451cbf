"""The alerting file: which findings become alerts and incidents, and which of them page.

It spans pipelines. A pipeline without one has the defaults, made by `AlertingConfig.of`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from streamad.alerting.assets import MAX_ASSETS, AssetConfig
from streamad.alerting.pagers import MAX_PAGERS, PagerConfig
from streamad.alerting.times import SilenceConfig
from streamad.config import PipelineConfig, parse_config, read_config
from streamad.config.decisions import LimitConfig
from streamad.config.live import Live
from streamad.config.running import DeliveryConfig
from streamad.config.section import Section
from streamad.config.values import Duration, Pages
from streamad.links import check_templates

WEEK_MS = 7 * 86_400_000
STALE_MS = WEEK_MS
"""Open alerts without a finding for this long are closed: see `AlertingConfig.stale_after`."""


class BudgetConfig(Section):
    """How many pages a group (a service, a team) is ready to take."""

    pages: Pages | None = None
    """``10 per week``: for each group; unset: every incident pages."""
    groups: dict[str, Pages] = Field(default_factory=dict)
    """Other budgets, by the group's name."""
    memory: Duration = 4 * WEEK_MS
    """The past whose episodes say how strong one must be: the strongest that the budget affords."""
    soak: Duration = 86_400_000
    """How long a series must have been known before it may page."""
    kinds: tuple[Literal["anomaly", "no_data", "error", "quarantine", "flood", "clock"], ...] = (
        "anomaly",
        "no_data",
    )
    """Kinds of alerts that may page; others go into the digest."""
    overdraft: int = Field(default=2, ge=2)
    """Incidents that so many detectors agree on page even where the budget is spent; the ledger
    counts them as overdrawn."""
    digest_every: Duration = 86_400_000
    """How often what was withheld is reported."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        return given if isinstance(given, Mapping) else {"pages": given}

    def of(self, group: str) -> float | None:
        """Return the pages a week of a group; None: no budget."""
        return self.groups.get(group, self.pages)


class FlappingConfig(Section):
    """When incidents of a series are one that flaps."""

    times: int = Field(default=3, ge=2, le=20)
    """Once a series has opened so many incidents ``within`` a time, it flaps: the last of them
    stays open, counts each time the series comes back, and pages once."""
    within: Duration = 3_600_000
    """That time, and how long a flapping incident must be quiet to be over. ``0s``: none flaps."""


class IncidentsConfig(Section):
    """Which alerts are one incident: those that overlap in time and are linked."""

    gap: Duration = 300_000
    """Alerts no further apart than this count as being at the same time."""
    links: tuple[str, ...] = ()
    """Entity fields whose equal value links alerts, beside the group: ``[host, service]``. Default:
    the group, and all parts of the key but the last."""
    topology: str | None = None
    """A file of what depends on what: rows ``source,target`` as CSV or JSON lines, or GraphML."""
    distance: int = Field(default=2, ge=1, le=4)
    """Entities at most so many steps apart in the topology are linked."""
    span: Duration = 7_200_000
    """An incident takes no new member later than this after it opened, but for one that shares an
    entity with a member still open."""
    hold: Duration = 0
    """How long an incident must last before it pages."""
    flapping: FlappingConfig = FlappingConfig()
    """What comes and goes is one incident."""
    max_members: int = Field(default=300, ge=1, le=500)
    """Most alerts of an incident; more are counted and not kept."""
    update_every: Duration = 60_000
    """The least time between two updates of an incident, unless it becomes much worse."""


class LifeConfig(Section):
    """From finding to alert: the life-cycle."""

    max_age: Duration = 3_600_000
    """Alerts found later than this after the event are marked ``past``; they page nobody."""
    update_every: Duration = 60_000
    """The least time between two updates of an alert, unless it becomes much worse."""
    runbook: Live[str | None] = None
    """A link in every alert; see ``links``."""
    links: Live[dict[str, str]] = Field(default_factory=dict)
    """Further links, with the entity filled in: ``{dashboard: https://grafana/d/x?host={host}}``.
    Fields of the key and tags are known, and ``{key}``, ``{group}``, ``{pipeline}``, ``{from_ms}``,
    ``{to_ms}``, ``{from_iso}``, ``{to_iso}``; a brace of the link itself is written twice. An alert
    that lacks a field lacks the link."""
    limit: LimitConfig = LimitConfig()
    """Bounds on alerts."""

    @field_validator("runbook")
    @classmethod
    def _no_credentials(cls, given: str | None) -> str | None:
        if given is not None:
            if not re.match(r"^https?://", given):
                msg = f"expected a link that begins with https:// or http://, got {given!r:.80}"
                raise ValueError(msg)
            if "@" in given.split("://", 1)[1].split("/", 1)[0]:
                msg = "a link must not hold a user name or password; take it out"
                raise ValueError(msg)
        return given

    @field_validator("links")
    @classmethod
    def _templates(cls, given: dict[str, str]) -> dict[str, str]:
        check_templates(given)
        return given


class AlertingOutputConfig(Section):
    """Names of the output topics, by default derived from the name, and their format."""

    alerts: str | None = None
    """Default ``streamad.<name>.alerts``."""
    incidents: str | None = None
    """Default ``streamad.<name>.incidents``."""
    dead_letters: str = "{topic}.dlq"
    """Unusable findings, with the reason."""
    format: Literal["json", "confluent"] = "json"
    """Of alerts and incidents. ``confluent``: JSON behind five bytes that name its schema in a
    schema registry (``SCHEMA_REGISTRY_URL``), for clients that expect them. All of streamad reads
    both."""
    register_schemas: bool = True
    """Register schemas at the start where they are not yet. ``false``: they must be there, see
    ``streamad topics schemas``."""


class AlertingConfig(Section):
    """Findings of one or several pipelines in; alerts, incidents and pages out."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Part of topic names, consumer groups and ids."""
    findings: tuple[str, ...] = Field(min_length=1)
    """The findings topics, of equal numbers of partitions: ``streamad.<pipeline>.findings``."""
    alerts: LifeConfig = LifeConfig()
    """The life-cycle."""
    budget: BudgetConfig = BudgetConfig()
    """How much may page."""
    incidents: IncidentsConfig = IncidentsConfig()
    """What belongs together."""
    assets: tuple[AssetConfig, ...] = Field(default=(), max_length=MAX_ASSETS)
    """What weighs more or less than the rest, by the first that matches."""
    silences: tuple[SilenceConfig, ...] = Field(default=(), max_length=100)
    """When nothing pages: maintenance, calendars."""
    feedback: str | None = None
    """The topic of what people answered; default ``streamad.<name>.feedback``."""
    pagers: tuple[PagerConfig, ...] = Field(default=(), max_length=MAX_PAGERS)
    """Who is paged, and how; ``streamad run --role page``."""
    triage: Live[str | None] = None
    """A file of ``streamad triage``: alerts that look like one of its named groups have its name in
    their line. Read again when it changes."""
    severities: Live[str | None] = None
    """A file of ``streamad alerts severities``: what people call a severity. Unset: ``warning``
    from 1.0, ``error`` from 2.0, ``critical`` from 3.0. Read again when it changes."""
    stale_after: Duration = STALE_MS
    """Open alerts without a finding for this long are closed: their end will never come."""
    delivery: DeliveryConfig = DeliveryConfig()
    """Commits."""
    output: AlertingOutputConfig = AlertingOutputConfig()
    """Topics that are written."""
    belongs_to: str = Field(default="", exclude=True, repr=False)
    """The checksum of the pipeline these are the defaults of; not a setting."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("findings"), str):
            return {**given, "findings": (given["findings"],)}
        return given

    @field_validator("pagers")
    @classmethod
    def _own_names(cls, given: tuple[PagerConfig, ...]) -> tuple[PagerConfig, ...]:
        names = [pager.name for pager in given]
        for name in names:
            if names.count(name) > 1:
                msg = f"expected a name of its own for each pager, got {name!r} more than once"
                raise ValueError(msg)
        return given

    @classmethod
    def of(cls, config: PipelineConfig) -> AlertingConfig:
        """Return what a pipeline file alone asks for."""
        own = config.alerts
        # All of it was validated with the pipeline, in the units it has here.
        return cls.model_construct(
            name=config.name,
            findings=(config.topic("findings"),),
            alerts=LifeConfig.model_construct(
                max_age=own.max_age,
                update_every=own.update_every,
                runbook=own.runbook,
                links=own.links,
                limit=own.limit,
            ),
            budget=BudgetConfig.model_construct(pages=own.budget),
            stale_after=max(STALE_MS, 2 * config.series.ttl),
            delivery=config.delivery,
            output=AlertingOutputConfig.model_construct(
                alerts=config.topic("alerts"),
                dead_letters=config.output.dead_letters,
                format=config.output.format,
                register_schemas=config.output.register_schemas,
            ),
            belongs_to=config.state_checksum(),
        )

    def topic(self, role: Literal["alerts", "incidents", "feedback"]) -> str:
        """Return the name of a topic."""
        given: str | None = self.feedback if role == "feedback" else getattr(self.output, role)
        return given or f"streamad.{self.name}.{role}"

    @property
    def read(self) -> tuple[str, ...]:
        """Return the topics that the desk reads."""
        return (*self.findings, self.topic("feedback"))

    def state_checksum(self) -> str:
        """Return a checksum over what open alerts are bound to.

        Those of one pipeline end with its state. Of several, each has its own, and what no longer
        comes ends by ``stale_after``.
        """
        if self.belongs_to:
            return self.belongs_to
        text = json.dumps({"name": self.name})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_alerting(path: str | Path, *, environment: Mapping[str, str]) -> AlertingConfig:
    """Read an alerting file; mistakes are told as those of a pipeline file."""
    return parse_config(read_config(path), AlertingConfig, name=str(path), environment=environment)
