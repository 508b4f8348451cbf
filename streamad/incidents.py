"""Records of the incidents topic: incidents, digests, and what people answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streamad.records import UNKNOWN_MS

IncidentState = Literal["opened", "updated", "resolved"]
Verdict = Literal["acknowledged", "false_positive", "expected", "real"]
ALL_TENANTS = "*"
"""The tenant of a silence that is about the alerts of all."""
SeverityWord = Literal["", "info", "warning", "error", "critical"]
"""How severe something is in a word; empty: nobody has said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """One alert of an incident, as it was last known.

    ``strength`` is the evidence of its own series in decades, ``beside`` what its breadth and its
    asset add (see `streamad.alerts.severity`); ``open`` is false once it was resolved; ``entities``
    are those that its explanation implicates besides the key.
    """

    alert: str
    pipeline: str
    detector: str
    kind: str
    group: str
    key: str
    entity: dict[str, str]
    began_ms: int
    until_ms: int
    peak_severity: float
    strength: float
    summary: str
    open: bool = True
    links: dict[str, str] = field(default_factory=dict)
    artifact: str = ""
    threshold_p: float = 1e-4
    entities: tuple[str, ...] = ()
    beside: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A probable cause: an entity of the incident, why, and how far above the others.

    ``score`` orders causes within one incident and means nothing beyond it.
    """

    entity: str
    reason: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Alerts that overlap in time and are linked: what pages once, and is resolved once.

    ``paged_ms`` is null while nobody was paged; ``withheld`` is why (empty: it pages or has paged).
    ``members`` holds the strongest, the leader first; ``n_members`` counts all. ``merged_into`` is
    the incident that took its alerts, where it was resolved because they are one.
    """

    id: str
    sequence: int
    state: IncidentState
    name: str
    tenant: str
    group: str
    groups: tuple[str, ...]
    pipelines: tuple[str, ...]
    detectors: tuple[str, ...]
    entity: dict[str, str]
    began_ms: int
    until_ms: int
    opened_ms: int
    time_ms: int
    resolved_ms: int | None
    severity: float
    strength: float
    threshold: float
    paged_ms: int | None
    withheld: str
    leader: str
    members: tuple[Affected, ...]
    n_members: int
    n_open: int
    causes: tuple[Cause, ...]
    summary: str
    acknowledged: str = ""
    verdict: str = ""
    overdrawn: bool = False
    merged_into: str = ""
    links: dict[str, str] = field(default_factory=dict)
    alike: int = 0
    """Past incidents like this one that were answered as false positives."""
    flaps: int = 0
    """How many times it came back, with those that made it flap; 0: it does not."""
    level: SeverityWord = ""
    """The severity in a word: ``info``, ``warning``, ``error`` or ``critical``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What did not page in a time, and the state of a group's budget.

    ``asked`` is in pages a week, 0 where there is no budget; ``withheld`` maps each reason to the
    number of incidents; ``incidents`` names the strongest of them.
    """

    id: str
    name: str
    tenant: str
    group: str
    from_ms: int
    to_ms: int
    asked: float
    spent: int
    overdrawn: int
    withheld: dict[str, int]
    threshold: float
    incidents: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a person answered on an alert or an incident.

    ``id`` makes repeats harmless; ``subject`` is the id of an alert or incident; ``until_ms`` ends
    what is expected (unknown: with the incident; past: it is expected no more). ``key`` and
    ``group`` name the series where the subject may be long over. ``severity`` is how severe it was,
    to whoever answered.
    """

    id: str
    subject: str
    verdict: Verdict
    by: str
    time_ms: int
    until_ms: int = UNKNOWN_MS
    tenant: str = "default"
    key: str = ""
    group: str = ""
    comment: str = ""
    severity: SeverityWord = ""

    def withdraws(self, now_ms: int) -> bool:
        """Say whether it ends, at a time, what was expected: until a time that is past."""
        return self.verdict == "expected" and UNKNOWN_MS < self.until_ms <= now_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A silence given while the desk runs: what matches does not page from ``starts_ms`` on.

    A later record with the same ``id`` replaces it; one whose ``ends_ms`` is past ends it. One of
    ``ALL_TENANTS`` must be written to each partition of the feedback topic.
    ``matchers`` are those of `streamad.alerting.matchers`.
    """

    id: str
    name: str
    matchers: tuple[str, ...]
    starts_ms: int
    ends_ms: int
    by: str
    time_ms: int
    tenant: str = "default"
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A page of one incident that one pager is to send after all: what replays a dead letter.

    It names the incident and does not repeat it: the pager sends what is true by then, under the
    ``key`` that its receiver knows, and an incident that is over opens no page. ``change`` is what
    could not be sent; ``since_offset`` is where the record of the dead letter lies.
    """

    incident: str
    pager: str
    key: str
    change: str
    since_offset: int
    name: str
    time_ms: int
