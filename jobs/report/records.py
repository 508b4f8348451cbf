"""What a report consists of; as JSON it is what ``--report out.json`` writes."""

from __future__ import annotations

from dataclasses import dataclass

PROMISES = (1e-2, 1e-3, 1e-4)
"""p-values whose promise is compared with what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one budget would have done.

    asked : pages a week of each group, None: no budget; by_day, by_week : pages; withheld :
    incidents that did not page, by reason; the last eight only where the input has labels
    """

    name: str
    asked: float | None
    configured: bool
    alerts: int
    incidents: int
    pages: int
    per_week: float
    overdrawn: int
    withheld: dict[str, int]
    flaps: int
    groups: int
    by_day: tuple[int, ...]
    by_week: tuple[int, ...]
    withheld_by_week: tuple[int, ...]
    found: int | None = None
    found_withheld: int | None = None
    missed: int | None = None
    true_pages: int | None = None
    false_pages: int | None = None
    delay_ms: int | None = None
    """Median time from the begin of an anomaly to its page."""
    c_index: float | None = None
    """Share of pairs of an incident that touches a label and one that does not in which the first
    is the more severe; None: there is no such pair."""
    c_index_strength: float | None = None
    """The same by evidence, which does not move with the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """An earlier incident, and what it turned out to be.

    withheld : why it did not page; empty: it did; real : as for `IncidentLine`
    """

    began_ms: int
    until_ms: int
    withheld: str
    real: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentLine:
    """An incident as a person reads it; ``real`` : it touches a label, None: there are none."""

    id: str
    summary: str
    leader: str
    group: str
    began_ms: int
    until_ms: int
    resolved: bool
    severity: float
    strength: float
    threshold: float
    paged_ms: int | None
    overdrawn: bool
    withheld: str
    n_members: int
    members: tuple[str, ...]
    detectors: tuple[str, ...]
    artifact: str
    causes: tuple[str, ...]
    shares: dict[str, float]
    expected: dict[str, float]
    links: dict[str, str]
    real: bool | None
    similar: tuple[Similar, ...]
    """Earlier incidents with the same leader, the newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLine:
    """A series and what it raised; open_share : of the replay's time with an alert open."""

    key: str
    alerts: int
    pages: int
    withheld: int
    open_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How often windows were as rare as promised: ``seen`` at each of ``PROMISES``.

    look : at the window as the score has it, or at its newest samples; of : which windows
    """

    look: str
    of: str
    windows: int
    seen: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How long series were learned before they had a first p-value; times in ms.

    never : series that had none; share : of all series' time that passed before; soak_ms : how long
    a new series may not page
    """

    series: int
    never: int
    never_named: tuple[str, ...]
    median_ms: int | None
    longest_ms: int | None
    longest_key: str
    share: float
    soak_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyLine:
    """A labelled anomaly and its fate under the configured budget."""

    keys: tuple[str, ...]
    begin_ms: int
    end_ms: int
    fate: str
    after_ms: int | None
    learning: bool
    """It began before its series had a first p-value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it; lists are cut to their strongest."""

    pipeline: str
    source: str
    detector: str
    artifact: str
    degraded: str
    label: str | None
    first_ms: int | None
    last_ms: int | None
    weeks: float
    points: int
    keys: int
    windows: int
    incomplete: int
    late: int
    rejected: dict[str, int]
    passed: dict[str, int]
    details: dict[str, str]
    outcomes: tuple[Outcome, ...]
    incidents: tuple[IncidentLine, ...]
    top_keys: tuple[KeyLine, ...]
    anomalies: tuple[AnomalyLine, ...]
    n_anomalies: int
    calibration: tuple[Calibration, ...]
    learning: Learning
    notes: tuple[str, ...]

    @property
    def configured(self) -> Outcome:
        """Return the outcome of the settings as they are."""
        return next(one for one in self.outcomes if one.configured)
