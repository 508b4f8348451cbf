"""Connections of this machine, as edges: which program talks to which service or remote address."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import psutil

from connectors.host.reading import (
    UNREADABLE,
    Names,
    Pace,
    keys_of,
    known_fields,
    now_ms,
    one_message,
)
from streamad.errors import ConfigError
from streamad.graphs.rows import EdgeRows
from streamad.records import RecordBatch

FIELDS: Final = ("source", "target", "source_type", "target_type", "process")
"""What a key may be made of; ``process`` is the program of this machine at one end: the source, or
the service that a remote address called."""
_KEYS: Final = ("host", *FIELDS)
_MOST: Final = 65_536
_TALKING: Final = (psutil.CONN_ESTABLISHED, psutil.CONN_SYN_SENT, psutil.CONN_SYN_RECV)
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what a listener is bound to, not what we bind


class Edge(NamedTuple):
    """Who reaches whom; `process` is the program of this machine that is known."""

    source: str
    target: str
    source_type: str
    target_type: str
    process: str


class Connections:
    """Look every ``interval_ms`` at the TCP connections that are open or being opened.

    A reading has a row per pair of nodes that are connected, weighted by how many connections they
    have. So a connection that lasts is reported by every reading; one that is opened and closed
    between two readings is missed.

    Nodes are a program by its name (type ``process``), a service by the program and the port it
    listens on, as ``postgres:5432`` (``service``), and a remote address: with its port where it was
    called, alone where it called (``remote``). A client's own port is a number of the moment and
    names nothing. Names of hosts are not looked up. A connection within the machine is one edge,
    from the client's program to the service.

    A connection whose program on this machine cannot be read, of another user as a rule, is left
    out and counted (``unreadable``).

    Parameters
    ----------
    host : part of the key
    key : the fields that make the key, of ``host`` and `FIELDS`
    interval_ms : milliseconds between readings, 100 or more
    most : pairs of nodes per reading; further ones are left out and counted (``left_out``)
    clock, sleep : wall clock in ms, and how to wait for seconds; tests bring their own

    Examples
    --------
    >>> source = Connections(host="here", interval_ms=100)
    >>> set(source.poll().values.source_type) <= {"process", "remote"}
    True
    """

    def __init__(
        self,
        *,
        host: str,
        key: Sequence[str] = ("host", "process"),
        interval_ms: int = 1000,
        most: int = 4096,
        clock: Callable[[], int] = now_ms,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 1 <= most <= _MOST:
            msg = f"most must lie in 1..{_MOST}, got {most}"
            raise ConfigError(msg)
        self.host, self.unreadable, self.left_out = host, Counter[str](), 0
        self._key = known_fields(key, _KEYS, "keys of connections")
        self._most, self._offset = most, -1
        self._pace = Pace(interval_ms, clock, sleep)

    @property
    def is_due(self) -> bool:
        """Return whether `poll` would return at once."""
        return self._pace.is_due

    def poll(self) -> RecordBatch[EdgeRows]:
        """Wait until the next reading is due, and return what is connected, as one message."""
        time_ms, _ = self._pace.wait()
        found: dict[Edge, int] = {}
        for edge in self._edges(self._listed()):
            if edge in found or len(found) < self._most:
                found[edge] = found.get(edge, 0) + 1
            else:
                self.left_out += 1
        return self._batch(found, time_ms)

    def _listed(self) -> list[Any]:
        try:
            return list(psutil.net_connections("tcp"))
        except psutil.AccessDenied:
            # macOS lists those of all programs for root only: ask each program one may ask.
            return self._one_by_one()
        except UNREADABLE:
            self.unreadable["connections"] += 1
            return []

    def _one_by_one(self) -> list[Any]:
        listed: list[Any] = []
        for process in psutil.process_iter():
            try:
                own = process.net_connections("tcp")
            except UNREADABLE:
                continue
            listed += [_Known(*one[1:6], process.pid) for one in own]
        return listed

    def _edges(self, listed: list[Any]) -> Iterable[Edge]:
        """Yield an edge per connection, in the order of the listing."""
        names = Names()
        talking = [one for one in listed if one.status in _TALKING and one.raddr]
        here = {_plain(one.laddr[0]) for one in listed if one.laddr}
        services = _services(listed)
        for one in talking:
            ours, theirs = _end(one.laddr), _end(one.raddr)
            is_local = theirs[0] in here or theirs[0].startswith("127.") or theirs[0] == "::1"
            service = _service(services, ours)
            if service is not None and is_local:
                # The client's end of it is listed as well, and names the client.
                continue
            own = names.of(one.pid)
            if own is None:
                self.unreadable["connection"] += 1
            elif service is not None:
                yield Edge(theirs[0], f"{own}:{ours[1]}", "remote", "service", own)
            elif is_local:
                listener = names.of(_service(services, theirs)) or "localhost"
                yield Edge(own, f"{listener}:{theirs[1]}", "process", "service", own)
            else:
                yield Edge(own, _address(*theirs), "process", "remote", own)

    def _batch(self, found: dict[Edge, int], at_ms: int) -> RecordBatch[EdgeRows]:
        n = len(found)
        columns = {"host": [self.host] * n} | {
            name: [getattr(edge, name) for edge in found] for name in FIELDS
        }
        texts = {name: pl.Series(columns[name], dtype=pl.String) for name in FIELDS}
        del texts["process"]
        times = np.full(n, at_ms, np.int64)
        weight = np.array(list(found.values()), np.float64)
        self._offset += 1
        return one_message(
            keys_of(columns, self._key),
            times,
            EdgeRows(time_ms=times, weight=weight, **texts),
            offset=self._offset,
            at=at_ms,
        )


class _Known(NamedTuple):
    """A connection as psutil lists it, with the process it was asked of."""

    family: int
    type: int
    laddr: Any
    raddr: Any
    status: str
    pid: int


End = tuple[str, int]


def _services(listed: list[Any]) -> dict[End, int]:
    """Return the process that listens at each address and port; 0 where it cannot be read."""
    services: dict[End, int] = {}
    for one in listed:
        if one.status == psutil.CONN_LISTEN and one.laddr:
            address, port = _end(one.laddr)
            end = ("" if address in _ANYWHERE else address, port)
            services[end] = services.get(end) or one.pid or 0
    return services


def _service(services: dict[End, int], end: End) -> int | None:
    """Return the process that listens at an end, 0 where it cannot be read, None: none does."""
    return services.get(end, services.get(("", end[1])))


def _end(address: Any) -> End:
    return _plain(address[0]), int(address[1])


def _plain(ip: str) -> str:
    """Return an address without the zone of its link, and IPv4 as IPv4."""
    return ip.removeprefix("::ffff:").partition("%")[0]


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
