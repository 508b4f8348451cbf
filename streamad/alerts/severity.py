"""How severe an alert is: its evidence in decades, over what its group needs for a page.

Four things are evidence, each in decades (factors of ten), so that they add up:

- *rarity*: -log10 of the smallest p-value of the episode;
- *breadth*: log10 of how many series of the group went wrong with it, at its begin;
- *asset*: log10 of what its asset weighs more than others (``assets``). A p-value divided by its
  weight is weighted testing (Genovese, Roeder & Wasserman, Biometrika 93, 2006): it shifts pages
  between series, and leaves their number to the budget;
- *lasting*: up to a factor of two for nine hours and more: 0.3 * log10(1 + hours).

Severity is their sum over the boundary, so it is 1.0 where the budget begins to afford a page. How
long an event lasts makes an open alert more severe and opens none: the boundary is a promise on
p-values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from streamad.records import Finding

MAX_SEVERITY: Final = 10.0
"""Severity is capped: beyond, a smaller p-value says more of the tail's fit than of the world."""
MOST_LASTING: Final = 0.3
"""More of it made severity order labelled alerts worse: long ones are as often false."""
HOUR_MS: Final = 3_600_000
LEAST_LEVEL: Final = 1e-3
"""Decades of a boundary below which it says nothing."""
BY_DEFINITION: Final = ("no_data",)
"""Kinds that are known and not guessed, so they stand at the boundary, and may last."""


def decades(p_value: float) -> float:
    """Return -log10 of a probability, 0 where nothing is known.

    Examples
    --------
    >>> decades(1e-4), decades(1.0), decades(float("nan")), decades(0.0)
    (4.0, 0.0, 0.0, 300.0)
    """
    return 0.0 if math.isnan(p_value) or p_value >= 1.0 else -math.log10(max(p_value, 1e-300))


def severity(p_value: float, *, level: float) -> float:
    """Return how far beyond the boundary a p-value alone lies: 1.0 at ``level``, 2.0 at its square.

    It grows as ``p_value`` falls, lies in 0 .. `MAX_SEVERITY`, and is 0 for NaN: what nobody knows
    pages nobody.

    Examples
    --------
    >>> [round(severity(p, level=1e-4), 6) for p in (1.0, 1e-2, 1e-4, 1e-8, 0.0)]
    [0.0, 0.5, 1.0, 2.0, 10.0]
    """
    return Evidence(rarity=decades(p_value)).over(level)


def lasting(began_ms: int, until_ms: int) -> float:
    """Return the decades that the length of an event is worth.

    Examples
    --------
    >>> lasting(0, 0), lasting(0, 9 * HOUR_MS), lasting(0, 10**12)
    (0.0, 0.3, 0.3)
    """
    hours = max(until_ms - began_ms, 0) / HOUR_MS
    return MOST_LASTING * min(1.0, math.log10(1.0 + hours))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is evidence beside the p-value as an alert opens, in decades."""

    breadth: float = 0.0
    asset: float = 0.0

    @property
    def total(self) -> float:
        """Return both together."""
        return self.breadth + self.asset

    @classmethod
    def of_record(cls, evidence: Mapping[str, Any]) -> Beside:
        """Return what an alert opened with; older records have none."""
        return cls(
            breadth=float(evidence.get("breadth", 0.0)), asset=float(evidence.get("asset", 0.0))
        )


NOTHING_BESIDE: Final = Beside()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence of an alert, each in decades."""

    rarity: float
    breadth: float = 0.0
    asset: float = 0.0
    lasting: float = 0.0

    def over(self, level: float) -> float:
        """Return the severity at a boundary.

        level : the p-value that has severity 1.0 where there is no other evidence
        """
        if self.rarity <= 0.0:
            return 0.0
        total = self.rarity + self.breadth + self.asset + self.lasting
        return min(MAX_SEVERITY, max(total, 0.0) / max(decades(level), LEAST_LEVEL))

    def record(self) -> dict[str, float]:
        """Return it as JSON-ready values."""
        return asdict(self)


def evidence_of(finding: Finding, beside: Beside, *, p_value: float | None = None) -> Evidence:
    """Return the evidence of a finding; p_value : of its peak by default."""
    p_value = finding.peak_p_value if p_value is None else p_value
    return Evidence(
        rarity=decades(finding.alert_p if finding.kind in BY_DEFINITION else p_value),
        breadth=beside.breadth,
        asset=beside.asset,
        lasting=lasting(finding.began_ms, finding.until_ms),
    )


def severity_of(finding: Finding, evidence: Evidence) -> float:
    """Return the severity of a finding by its evidence.

    Silence stands at the boundary by definition, and grows as it lasts. Failures are about the
    pipeline, and stay there.
    """
    if finding.kind == "anomaly":
        return evidence.over(finding.alert_p)
    if finding.kind in BY_DEFINITION:
        return max(1.0, evidence.over(finding.alert_p))
    return 1.0


def opens(finding: Finding, beside: Beside) -> bool:
    """Say whether a finding is an alert: how long it lasts does not count."""
    if finding.kind != "anomaly":
        return True
    known = Evidence(
        rarity=decades(finding.peak_p_value), breadth=beside.breadth, asset=beside.asset
    )
    return known.over(finding.alert_p) >= 1.0
