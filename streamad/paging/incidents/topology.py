"""What depends on what: the services, hosts and stores that an incident may run through.

An edge ``web -> db`` reads "web calls db", so a failure travels against it: from db to web. Two
entities are linked where one reaches the other in so many steps, or where both reach a third in
half as many: a dependency they share can break both. A *caller* they share links nothing. The front
page calls everything, and what fails behind it fails for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from streamad.errors import ConfigError

MAX_EDGES: Final = 200_000
MAX_NODES: Final = 100_000
MAX_NAME_CHARS: Final = 256
MAX_BALL: Final = 5_000
"""Entities near one that are looked at; those of fewer steps come first."""
_KEPT_BALLS: Final = 20_000


class Topology:
    """Who calls whom, and how far apart two entities are.

    Parameters
    ----------
    edges : pairs of a caller and what it calls
    distance : steps at which entities are still linked

    Raises
    ------
    ConfigError
        where there are more entities or edges than are held

    Examples
    --------
    >>> shop = Topology([("web", "cart"), ("cart", "db"), ("search", "db")], distance=2)
    >>> [shop.linked("web", other) for other in ("cart", "db", "search")]
    [True, True, False]
    >>> shop.linked("cart", "search"), shop.steps("web")
    (True, {'web': 0, 'cart': 1, 'db': 2})
    """

    def __init__(self, edges: Iterable[tuple[str, str]] = (), *, distance: int = 2) -> None:
        self.distance = distance
        self._calls: dict[str, list[str]] = {}
        self._called: dict[str, list[str]] = {}
        n_edges = 0
        # Without repeats, in the order given: what follows depends on nothing else.
        for caller, callee in dict.fromkeys(edges):
            if caller == callee:
                continue
            self._calls.setdefault(caller, []).append(callee)
            self._called.setdefault(callee, []).append(caller)
            self._calls.setdefault(callee, [])
            n_edges += 1
            if n_edges > MAX_EDGES or len(self._calls) > MAX_NODES:
                msg = (
                    f"the topology has more than {MAX_EDGES} edges or {MAX_NODES} entities; keep "
                    "the level that alerts are about (services, hosts), not every process"
                )
                raise ConfigError(msg)
        self.n_edges = n_edges
        self._balls: dict[tuple[str, int, bool], dict[str, int]] = {}

    @classmethod
    def of(cls, calls: Mapping[str, Iterable[str]], *, distance: int = 2) -> Topology:
        """Build it from what each entity calls."""
        pairs = ((caller, callee) for caller, callees in calls.items() for callee in callees)
        return cls(pairs, distance=distance)

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def steps(self, name: str, most: int | None = None) -> dict[str, int]:
        """Return what an entity depends on within ``most`` steps, itself first, with the steps."""
        return self._ball(name, self.distance if most is None else most, up=False)

    def linked(self, one: str, other: str) -> bool:
        """Return whether two entities are linked."""
        return not set(self.marks(one)).isdisjoint(self.probes(other))

    def marks(self, name: str, distance: int | None = None) -> list[str]:
        """Return the places under which an entity is found by `probes` of a linked one.

        Two entities are linked where a place of one is a probe of the other. Each goes half the
        distance, so that the cost is that of a neighbourhood and not of all pairs in it.

        distance : steps at which entities are linked, if not those of the topology
        """
        distance = distance or self.distance
        far, half = (distance + 1) // 2, distance // 2
        above = ["^" + place for place in self._ball(name, far, up=True)]
        below = ["v" + place for place in self._ball(name, far, up=False)]
        return above + below + ["+" + place for place in self._ball(name, half, up=False)]

    def probes(self, name: str, distance: int | None = None) -> list[str]:
        """Return the places to look at; see `marks`.

        What it reaches, what reaches it, and what reaches something that it reaches, too.
        """
        half = (distance or self.distance) // 2
        below = self._ball(name, half, up=False)
        above = ["v" + place for place in self._ball(name, half, up=True)]
        return above + [side + place for place in below for side in "^+"]

    def _ball(self, name: str, most: int, *, up: bool) -> dict[str, int]:
        at = (name, most, up)
        known = self._balls.get(at)
        if known is None:
            known = self._walk(name, most, self._called if up else self._calls)
            if len(self._balls) >= _KEPT_BALLS:
                self._balls.clear()
            self._balls[at] = known
        return known

    @staticmethod
    def _walk(name: str, most: int, ways: Mapping[str, list[str]]) -> dict[str, int]:
        found = {name: 0}
        edge = [name]
        for step in range(1, most + 1):
            reached = []
            for place in edge:
                for following in ways.get(place, ()):
                    if following not in found and len(found) < MAX_BALL:
                        found[following] = step
                        reached.append(following)
            edge = reached
        return found
