"""The probable cause of an incident: who deviates most, who is silent, and who depends on whom.

Simple rules match or beat published methods of root cause analysis on four benchmarks (arXiv
2510.04711), so the rules here are few. Each entity of the incident has evidence in decades:

- **deviation**: its strongest alert, by the law of that series itself (-log10 p), and log10 of how
  many alerts it has: a host with five strange series is stranger than one with one;
- **silence**: an entity that sends nothing is as strong as the strongest of the incident, and a
  little stronger, unless most of the incident is silent;
- **topology**: `PER_DOUBLING` for each doubling of the entities whose failure it explains, because
  they depend on it; and one that itself depends on an entity of the incident keeps `EXPLAINED` of
  its evidence: the failure of a caller is explained by its callee. Both numbers hardly matter: made
  faults are ranked as well with half and with twice of them (`tests/bench/incidents.py`);
- **onset** breaks ties, and does no more: lags of detectors differ by more than failures travel.

A dependency that nothing reports on, and most of the incident calls, is named as well, below what
is as well explained by an entity that has alerts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.incidents import Affected, Cause
from streamad.paging.incidents.links import Entity, Linking
from streamad.paging.incidents.topology import Topology
from streamad.wording import clock

MAX_CAUSES: Final = 5
SILENT: Final = 1.0
"""Decades by which silence exceeds the strongest deviation."""
PER_DOUBLING: Final = 1.5
EXPLAINED: Final = 0.7
UNSEEN: Final = 0.5
"""Share of the strongest evidence that a dependency without any alert begins with."""
MAX_SUSPECTS: Final = 512
NO_DATA: Final = "no_data"

Matrix = NDArray[np.float32]


@dataclass(slots=True)
class Suspect:
    """An entity of an incident: its alerts, and what speaks for it as the cause.

    evidence : decades, before the topology; explains : entities whose failure its own explains
    """

    entity: Entity
    node: str | None
    members: list[Affected] = field(default_factory=list)
    evidence: float = 0.0
    score: float = 0.0
    explains: int = 0
    is_explained: bool = False

    @property
    def began_ms(self) -> int:
        """Return when its first alert began."""
        return min((member.began_ms for member in self.members), default=2**62)

    @property
    def is_silent(self) -> bool:
        """Return whether one of its series sends nothing."""
        return any(member.kind == NO_DATA for member in self.members)

    @property
    def lead(self) -> Affected | None:
        """Return the alert that shows best what is wrong with it."""
        return min(self.members, key=_by_strength, default=None)


def suspects(members: Sequence[Affected], linking: Linking) -> list[Suspect]:
    """Return the entities of an incident, the most probable cause first.

    members : alerts of the incident; the order does not matter
    """
    found: dict[tuple[str, str], Suspect] = {}
    values: dict[str, Suspect] = {}
    about = [(linking.main(member), member) for member in sorted(members, key=_by_strength)]
    # Those of a known kind first: a name alone joins the entity that has it.
    for entity, member in sorted(about, key=lambda one: not one[0].kind):
        node = linking.node(member)
        at = (entity.kind, entity.value) if node is None else ("", node)
        one = found.get(at)
        if one is None and not entity.kind and entity.telling:
            one = values.get(entity.value.lower())
        if one is None:
            one = found[at] = Suspect(entity, node)
            values.setdefault(entity.value.lower(), one)
        one.members.append(member)
    strongest_first = sorted(
        found.values(), key=lambda one: min(_by_strength(member) for member in one.members)
    )
    listed = strongest_first[:MAX_SUSPECTS]
    _weigh(listed)
    if len(linking.topology):
        _explain(listed, linking.topology)
    else:
        for one in listed:
            one.score = one.evidence
    return sorted(listed, key=lambda one: (-one.score, one.began_ms, one.entity.value))


def causes(ranked: Sequence[Suspect]) -> list[Cause]:
    """Return the most probable causes with their reasons; none where there is no choice."""
    if len(ranked) < 2:
        return []
    n_others = sum(bool(one.members) for one in ranked) - 1
    strongest = max(ranked, key=lambda one: one.evidence)
    first_ms = min(one.began_ms for one in ranked)
    return [
        Cause(
            entity=one.entity.shown,
            reason=_reason(one, n_others, most=one is strongest, first=one.began_ms == first_ms),
            score=round(one.score, 3),
        )
        for one in ranked[:MAX_CAUSES]
    ]


def _by_strength(member: Affected) -> tuple[bool, float, int, str]:
    return member.kind != NO_DATA, -member.strength, member.began_ms, member.alert


def _weigh(found: Sequence[Suspect]) -> None:
    for one in found:
        peak = max(member.strength for member in one.members)
        one.evidence = peak + math.log10(len(one.members))
    strongest = max((one.evidence for one in found), default=0.0)
    silent = [one for one in found if one.is_silent]
    # Where most are silent, silence is what happened and not what caused it.
    bonus = SILENT if 2 * len(silent) <= len(found) else 0.0
    for one in silent:
        one.evidence = strongest + bonus


def _explain(found: list[Suspect], topology: Topology) -> None:
    """Add what the topology has to say; append dependencies that have no alert themselves."""
    reaches = _reach(found, topology)
    mutual = reaches & reaches.T
    explained_by = reaches & ~mutual
    explains = explained_by.sum(axis=0)
    strongest = max(one.evidence for one in found)
    for i, one in enumerate(found):
        one.explains = int(explains[i])
        one.is_explained = bool(explained_by[i].any())
    unseen = _unseen(found, topology)
    for one in unseen:
        one.evidence = UNSEEN * strongest
    found += unseen
    for one in found:
        own = one.evidence * (EXPLAINED if one.is_explained else 1.0)
        one.score = own + PER_DOUBLING * math.log2(1 + one.explains)


def _reach(found: Sequence[Suspect], topology: Topology) -> NDArray[np.bool_]:
    """Return who depends on whom, also through others of the incident: bool ``(n, n)``."""
    at: dict[str, list[int]] = {}
    for i, one in enumerate(found):
        if one.node is not None:
            at.setdefault(one.node, []).append(i)
    one_step = np.zeros((len(found), len(found)), dtype=np.float32)
    for name, rows in at.items():
        below = topology.steps(name)
        near = at.keys() & below.keys() if len(at) < len(below) else below.keys() & at.keys()
        for other in near - {name}:
            one_step[np.ix_(rows, at[other])] = 1.0
    return _closure(one_step)


def _closure(steps: Matrix) -> NDArray[np.bool_]:
    reached = steps
    while True:
        wider = np.minimum(reached + reached @ reached, 1.0)
        if (wider == reached).all():
            return reached > 0
        reached = wider


def _unseen(found: Sequence[Suspect], topology: Topology) -> list[Suspect]:
    """Return dependencies without an alert that at least half of the unexplained entities share."""
    known = {one.node for one in found}
    roots = [one for one in found if one.node is not None and not one.is_explained]
    if len(roots) < 2:
        return []
    shared: Counter[str] = Counter()
    for one in roots:
        assert one.node is not None  # noqa: S101 - of those above
        shared.update(name for name in topology.steps(one.node) if name not in known)
    likely = sorted((-n, name) for name, n in shared.items() if n >= max(2, len(roots) / 2))
    return [
        Suspect(Entity(kind="", value=name, shown=name), name, explains=-n)
        for n, name in likely[:MAX_CAUSES]
    ]


def _reason(one: Suspect, n_others: int, *, most: bool, first: bool) -> str:
    parts = []
    lead = one.lead
    if lead is None:
        parts.append("has no alert of its own")
    elif one.is_silent:
        parts.append(f"has sent no data since {clock(lead.began_ms)} UTC")
    elif most:
        parts.append("deviates most")
    if one.explains:
        parts.append(f"{one.explains} of {n_others + (lead is None)} others depend on it")
    if not parts and first:
        parts.append("began first")
    if not parts:
        parts.append(f"{len(one.members)} alerts" if len(one.members) > 1 else "deviates")
    return "; ".join(parts)
