"""What links an alert to others: its group, its entities, its place in the topology.

Names differ between shippers, so entities are compared by the *kind* of their name: ``host``,
``hostname`` and ``k8s.node.name`` are one kind, and equal values of one kind are one entity. What
a graph calls a node has no kind; it equals an entity of any kind that has its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from streamad.alerting.config import IncidentsConfig
from streamad.incidents import Affected
from streamad.paging.incidents.topology import Topology

ENTITY, NEAR, GROUP, FAR, LEARNED = range(5)
"""Kinds of links, the strongest first; near: one step in the topology, far: more of them."""
Mark = tuple[int, str, str, str]
"""A kind of link, a tenant, the kind of a name, and a value."""

_KINDS: Final = {
    "host": "host hostname hostip instance node nodename server servername machine vm computer",
    "pod": "pod podname podid",
    "container": "container containername containerid",
    "service": "service servicename svc app appname application workload deployment",
    "user": "user username userid account accountname principal login",
    "database": "db dbname database databasename",
    "device": "device devicename deviceid",
    "ip": "ip ipaddress ipaddr address srcip dstip sourceip destinationip clientip serverip",
}
_KIND_OF: Final = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_PREFIX: Final = re.compile(r"^(?:kubernetes|k8s|cloud|ecs|aws|gcp|azure|resource|attributes)[._]")
_PORT: Final = re.compile(r"^(.*[^:]):\d{1,5}$")
_TELLING: Final = re.compile(r"[^\d\s]")
MAX_KNOWN: Final = 20_000
LEAST_CHARS: Final = 3
"""Shorter values, and bare numbers, are equal by chance where nothing is known of their kind."""


@lru_cache(maxsize=4_096)
def kind_of(name: str) -> str:
    """Return the kind of a name, itself where it is of none.

    Examples
    --------
    >>> kind_of("k8s.node.name"), kind_of("Host_Name"), kind_of("metric")
    ('host', 'host', 'metric')
    """
    short = _PREFIX.sub("", name.lower())
    flat = re.sub(r"[^a-z0-9]", "", short)
    return _KIND_OF.get(flat, flat or name)


def value_of(kind: str, value: str) -> str:
    """Return a value as it is compared: hosts in small letters, without a port.

    >>> value_of("host", "Web-1:9100"), value_of("service", "Web")
    ('web-1', 'Web')
    """
    if kind != "host":
        return value
    port = _PORT.match(value)
    return (port[1] if port else value).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An entity an alert is about; ``kind`` is empty where only its name is known."""

    kind: str
    value: str
    shown: str

    @property
    def telling(self) -> bool:
        """Return whether the value alone, without its kind, identifies something."""
        return len(self.value) >= LEAST_CHARS and _TELLING.search(self.value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What an alert is found by (``marks``), and where it looks for others (``probes``)."""

    marks: tuple[Mark, ...]
    probes: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What was found out of a member once: series alert again and again."""

    entities: tuple[Entity, ...]
    node: str | None
    main: Entity


_Asked = tuple[str, str, str, tuple[tuple[str, str], ...], tuple[str, ...]]


class Linking:
    """Say what links a member to others, by the settings and the topology."""

    def __init__(self, config: IncidentsConfig, topology: Topology | None = None) -> None:
        self.topology = topology or Topology()
        self._names = frozenset(kind_of(name) for name in config.links)
        self._known: dict[_Asked, _About] = {}

    def entities(self, member: Affected) -> tuple[Entity, ...]:
        """Return the entities a member is about, the most general first."""
        return self._about(member).entities

    def node(self, member: Affected) -> str | None:
        """Return the member's place in the topology, the most specific one."""
        return self._about(member).node

    def main(self, member: Affected) -> Entity:
        """Return the entity a member is named by: its place in the topology, or the most specific.

        Its key where it is about no entity.
        """
        return self._about(member).main

    def of(self, tenant: str, member: Affected) -> Links:
        """Return the links of a member, but for what was learned."""
        marks: list[Mark] = []
        probes: list[Mark] = []
        about = self._about(member)
        for entity in about.entities:
            if entity.kind:
                marks.append((ENTITY, tenant, "=" + entity.kind, entity.value))
                probes.append(marks[-1])
            if entity.telling:
                # Values of different kinds are no link: of two, one must be of no kind.
                low = entity.value.lower()
                marks.append((ENTITY, tenant, "known" if entity.kind else "any", low))
                probes.append((ENTITY, tenant, "any", low))
                if not entity.kind:
                    probes.append((ENTITY, tenant, "known", low))
        if member.group != member.pipeline:
            marks.append((GROUP, tenant, "", member.group))
            probes.append(marks[-1])
        node = about.node
        if node is not None:
            for link, distance in ((NEAR, 1), (FAR, self.topology.distance)):
                marks += [(link, tenant, "", at) for at in self.topology.marks(node, distance)]
                probes += [(link, tenant, "", at) for at in self.topology.probes(node, distance)]
        return Links(marks=tuple(dict.fromkeys(marks)), probes=tuple(dict.fromkeys(probes)))

    def _about(self, member: Affected) -> _About:
        entity = tuple(member.entity.items())
        asked = member.key, member.group, member.pipeline, entity, member.entities
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[asked] = self._find_out(member)
        return known

    def _find_out(self, member: Affected) -> _About:
        entities = tuple(self._read(member))
        node: str | None = None
        main: Entity | None = None
        for entity in entities:
            at = next((n for n in (entity.shown, entity.value) if n in self.topology), None)
            if at is not None:
                node, main = at, entity
        if node is None and member.group in self.topology:
            node = member.group
            main = Entity(kind="group", value=node, shown=node)
        if main is None:
            # Where a graph names entities beside the key, the key's own is what the alert is of.
            of_key = [entity for entity in entities if entity.kind] or list(entities)
            main = of_key[-1] if of_key else Entity(kind="", value=member.key, shown=member.key)
        return _About(entities=entities, node=node, main=main)

    def _read(self, member: Affected) -> Iterator[Entity]:
        names = list(member.entity)
        if self._names:
            names = [name for name in names if kind_of(name) in self._names]
        else:
            names = names[: max(len(names) - 1, 1)]
        for name in names:
            kind, shown = kind_of(name), member.entity[name]
            if shown:
                yield Entity(kind=kind, value=value_of(kind, shown), shown=shown)
        for shown in member.entities:
            yield Entity(kind="", value=value_of("host", shown), shown=shown)
