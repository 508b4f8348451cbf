"""The alerts of an incident, as its members: bounded, and ordered by what they tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from streamad.alerts.severity import Beside
from streamad.incidents import Affected
from streamad.paging.budget import strength
from streamad.paging.incidents.causes import NO_DATA
from streamad.records import Alert, Finding

MAX_PARTS, MAX_SUMMARY_CHARS = 16, 300
"""Bounds on what is kept of a member: an incident with all of them must fit a record."""
MAX_ENTITIES, MAX_NAME_CHARS = 8, 128


def affected(alert: Alert, known: Affected | None) -> Affected:
    """Return an alert as a member; known : the same one as it was last known."""
    peak = alert.peak_severity
    # Records of earlier versions do not say what their severity is made of.
    before = strength(alert.threshold_p) * peak if math.isfinite(peak) else 0.0
    rarity = alert.evidence.get("rarity", before)
    return Affected(
        alert=alert.id,
        pipeline=alert.pipeline,
        detector=alert.detector,
        kind=alert.kind,
        group=alert.group,
        key=alert.key,
        entity=dict(list(alert.entity.items())[:MAX_PARTS]),
        began_ms=alert.began_ms,
        until_ms=alert.until_ms,
        peak_severity=max(peak, known.peak_severity if known else 0.0),
        strength=max(rarity, known.strength if known else 0.0),
        beside=Beside.of_record(alert.evidence).total,
        summary=alert.summary[:MAX_SUMMARY_CHARS],
        open=alert.state != "resolved",
        links=dict(list(alert.links.items())[:MAX_PARTS]),
        artifact=alert.artifact,
        threshold_p=alert.threshold_p,
        entities=known.entities if known else (),
    )


def worth(member: Affected) -> tuple[bool, float, int, str]:
    """Order members by what they say of the incident; the least goes where there are too many."""
    return member.kind == NO_DATA, member.strength, -member.began_ms, member.alert


def evidence(member: Affected) -> float:
    """Return all that speaks for a member, in decades: its strength, and what is beside it."""
    return member.strength + member.beside


def excess_of(member: Affected) -> float:
    """Return by how many decades a member is beyond its boundary."""
    return max(evidence(member) - strength(member.threshold_p), 0.0)


def common(members: Sequence[Affected]) -> dict[str, str]:
    """Return the parts of the entity that all members share."""
    first, *others = members
    return {
        name: value
        for name, value in first.entity.items()
        if all(other.entity.get(name) == value for other in others)
    }


def implicated(member: Affected, finding: Finding | None) -> Affected:
    """Return a member with the entities that the explanation of its finding names."""
    if finding is None or finding.explanation is None:
        return member
    names = finding.explanation.entities[:MAX_ENTITIES]
    return replace(member, entities=tuple(name[:MAX_NAME_CHARS] for name in names))
