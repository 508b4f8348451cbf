"""The book of triage: groups with names, and groups that wait for one.

`propose` looks through the alerts of some weeks: those of a named group are counted there, the
others are grouped. A person names a group, and from then on alerts like it are recognised, as they
open and once they are over. Two groups given one name are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from streamad.errors import ConfigError, UnknownNameError
from streamad.records import Alert
from streamad.shown import safe_text
from streamad.triage.describe import describe
from streamad.triage.features import N_FEATURES, Scaling, Vector
from streamad.triage.gaussians import Gaussians
from streamad.triage.grouping import (
    LEAST_ALERTS,
    LEAST_MEMBERS,
    Projection,
    distances,
    group,
)
from streamad.triage.recognise import Recogniser, early
from streamad.triage.stories import Stories, evenly

PROPOSED, NAMED = "proposed group", "named group"
MAX_NAMES: Final = 64
MAX_NAME_CHARS: Final = 60
MAX_ROWS: Final = 64
"""Vectors that are kept of a group: an even sample."""
MAX_IDS: Final = 4_096
"""Alerts of a group that are known by their id, so that none is counted twice."""
ID_CHARS: Final = 12
MAX_EXAMPLES: Final = 3
MAX_SUMMARY_CHARS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An alert that stands for its group."""

    id: str
    key: str
    began_ms: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Alike alerts; ``n`` counts them all.

    opening, whole : raw vectors of some of them ``(m, N_FEATURES)``
    """

    n: int
    about: str
    opening: Vector
    whole: Vector
    ids: tuple[str, ...]
    examples: tuple[Example, ...]

    def joined(self, other: Group) -> Group:
        """Return both as one group."""
        new = [name for name in other.ids if name not in set(self.ids)]
        total = len(self.whole) + len(other.whole)
        kept = evenly(total, MAX_ROWS)
        return replace(
            self,
            n=self.n + max(other.n - (len(other.ids) - len(new)), 0),
            opening=np.concatenate([self.opening, other.opening])[kept],
            whole=np.concatenate([self.whole, other.whole])[kept],
            ids=(*self.ids, *new)[:MAX_IDS],
            examples=(*self.examples, *other.examples)[:MAX_EXAMPLES],
        )

    def counting(self, ids: Sequence[str]) -> Group:
        """Return it with further alerts counted, each once."""
        known = set(self.ids)
        new = list(dict.fromkeys(name for name in ids if name not in known))
        return replace(self, n=self.n + len(new), ids=(*self.ids, *new)[-MAX_IDS:])


@dataclass(slots=True, kw_only=True)
class Book:
    """All that triage knows.

    scaling : of the alerts looked at last
    named : by name; proposed : by a label such as ``g1``
    silhouette : of the proposed groups, -1..1; n_alone : alerts that are in none of them
    """

    scaling: Scaling = field(default_factory=lambda: Scaling.of(np.empty((0, N_FEATURES))))
    named: dict[str, Group] = field(default_factory=dict)
    proposed: dict[str, Group] = field(default_factory=dict)
    silhouette: float = 0.0
    n_alone: int = 0

    # ------------------------------------------------------------------ look

    def propose(
        self,
        stories: Stories,
        *,
        k: int | None = None,
        seed: int = 0,
        projection: Projection | None = None,
    ) -> list[str]:
        """Count alerts of named groups, and group the others anew; return the name of each alert.

        k : the number of groups, chosen where it is not given; projection : into the space in which
        they are grouped, None: as they are
        The name is empty where an alert is of no named group. Earlier proposals are forgotten.
        """
        rows = [stories.whole, *(one.whole for one in self.named.values())]
        self.scaling = Scaling.of(np.concatenate(rows))
        names = self.recogniser().names_of(stories.whole)
        found: dict[str, list[str]] = {}
        for name, alert in zip(names, stories.alerts, strict=True):
            found.setdefault(name, []).append(alert.id[:ID_CHARS])
        for name, ids in found.items():
            if name:
                self.named[name] = self.named[name].counting(ids)
        unknown = np.flatnonzero([name == "" for name in names])
        self._group(stories, unknown, k, seed, projection)
        return names

    def _group(
        self, stories: Stories, unknown: np.ndarray[tuple[int], np.dtype[np.int64]],
        k: int | None, seed: int, projection: Projection | None,
    ) -> None:  # fmt: skip
        self.proposed, self.silhouette, self.n_alone = {}, 0.0, len(unknown)
        if len(unknown) < LEAST_ALERTS:
            return
        rows = self.scaling.apply(stories.whole[unknown])
        own = [self.scaling.apply(one.whole) for one in self.named.values()]
        if projection is not None:
            sizes = [len(one) for one in own]
            classes = np.repeat(np.arange(len(own)), sizes).astype(np.int64)
            together, rows = projection(np.concatenate([*own, rows[:0]]), classes, rows)
            own = np.split(together, np.cumsum(sizes)[:-1])
        known = np.stack([one.mean(axis=0) for one in own]) if own else rows[:0]
        made = group(rows, known=known, k=k, seed=seed)
        self.silhouette = made.silhouette
        for number, center in enumerate(made.centers):
            members = np.flatnonzero(made.labels == number)
            if len(members) < LEAST_MEMBERS:
                continue
            away = distances(rows[members], center[None, :])[:, 0]
            nearest = unknown[members[np.argsort(away, kind="stable")]]
            self.proposed[f"g{len(self.proposed) + 1}"] = _group_of(stories, nearest)
            self.n_alone -= len(members)

    # ------------------------------------------------------------------ name

    def name(self, label: str, name: str) -> Group:
        """Name a proposed group; raises ConfigError, UnknownNameError for another label."""
        name = checked_name(name)
        if label not in self.proposed:
            raise UnknownNameError(PROPOSED, label, self.proposed)
        if name not in self.named and len(self.named) >= MAX_NAMES:
            msg = f"there are {MAX_NAMES} names already; drop one first, or use one of them"
            raise ConfigError(msg)
        given = self.proposed.pop(label)
        known = self.named.get(name)
        self.named[name] = given if known is None else known.joined(given)
        return self.named[name]

    def rename(self, name: str, to: str) -> None:
        """Give a named group another name; that of another group joins both."""
        self._require(name)
        to = checked_name(to)
        if to == name:
            return
        moved, known = self.named.pop(name), self.named.get(to)
        self.named[to] = moved if known is None else known.joined(moved)

    def drop(self, name: str) -> None:
        """Forget a named group: alerts like it are unknown from now on."""
        self._require(name)
        del self.named[name]

    def _require(self, name: str) -> None:
        if name not in self.named:
            raise UnknownNameError(NAMED, name, self.named)

    # ------------------------------------------------------------------ recognise

    def recogniser(self) -> Recogniser:
        """Return what recognises alerts of the named groups."""
        names = tuple(self.named)
        counts = tuple(one.n for one in self.named.values())
        if not names:
            return Recogniser(names=(), counts=(), scaling=self.scaling, opening=None, whole=None)
        groups = self.named.values()
        sizes = [len(one.whole) for one in groups]
        labels = np.repeat(np.arange(len(names)), sizes).astype(np.int64)
        whole = self.scaling.apply(np.concatenate([one.whole for one in groups]))
        opening = self.scaling.apply(np.concatenate([one.opening for one in groups]))
        return Recogniser(
            names=names,
            counts=counts,
            scaling=self.scaling,
            opening=Gaussians.fit(early(opening), labels),
            whole=Gaussians.fit(whole, labels),
        )


def checked_name(name: str) -> str:
    """Return a name as it may stand in an alert's line; raises ConfigError."""
    shown = " ".join(name.split())
    if not shown or len(shown) > MAX_NAME_CHARS or safe_text(shown) != shown:
        msg = (
            f"expected a name of 1 to {MAX_NAME_CHARS} characters that can be shown in one line, "
            f"got {name!r:.80}"
        )
        raise ConfigError(msg)
    return shown


def _group_of(stories: Stories, members: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Group:
    """Return a group; members : positions, the most typical one first."""
    kept = members[evenly(len(members), MAX_ROWS)]
    ids = [stories.alerts[at].id[:ID_CHARS] for at in members]
    return Group(
        n=len(members),
        about=describe(
            [stories.alerts[at] for at in members], [stories.breadths[at] for at in members]
        ),
        opening=stories.opening[kept],
        whole=stories.whole[kept],
        ids=tuple(ids[:MAX_IDS]),
        examples=tuple(_example(stories.alerts[at]) for at in members[:MAX_EXAMPLES]),
    )


def _example(alert: Alert) -> Example:
    return Example(
        id=alert.id,
        key=safe_text(alert.key, MAX_SUMMARY_CHARS),
        began_ms=alert.began_ms,
        summary=safe_text(alert.summary, MAX_SUMMARY_CHARS),
    )
